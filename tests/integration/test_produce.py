"""What is said of a sending that is broken off is what the broker has."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

import duckdb
import pytest

from lakehouse import kafka
from tests.helpers import BIN, environment, settings_for, wait_until


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_producer_flushes_and_says_what_was_sent(
    bootstrap: str, tmp_path: Path, number: signal.Signals
) -> None:
    settings = settings_for(tmp_path, bootstrap)
    topic = settings.topics.events

    def held() -> int:
        return sum(kafka.end_offsets(settings, [topic]).values())

    kafka.ensure_topics(settings, [topic])
    process = subprocess.Popen(
        [str(BIN / "headwater"), "produce", "--events", "50000000"],
        env=environment(settings),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: held() > 10_000, 60, "sending")
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            process.kill()
    assert process.returncode == 0, said
    last = said.strip().splitlines()[-1]
    found = re.match(r"interrupted: sent ([\d,]+), acknowledged ([\d,]+), ", last)
    assert found, said
    sent, acknowledged = (int(text.replace(",", "")) for text in found.groups())
    assert sent == acknowledged == held()
    lines = duckdb.execute(
        'SELECT count(*), count(DISTINCT (partition, "offset")), max(number) '
        f"FROM read_parquet('{settings.runtime_dir}/ledger/*.parquet')"
    ).fetchall()
    assert lines == [(sent, sent, sent)]
