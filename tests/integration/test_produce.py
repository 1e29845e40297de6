"""What is said of a sending that is broken off is what the broker has."""

from __future__ import annotations

import re
import signal
import subprocess
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
import pytest
from pyspark.sql import SparkSession

from batch import audit, gold, reconcile
from lakehouse import kafka
from lakehouse.contracts import Contracts
from lakehouse.layouts import Layouts
from producer.command import Sending, instant, send_shop, shop_of
from tests.helpers import BIN, drain, environment, put, settings_for, table, wait_until
from tests.hub_server import HubServer, decode_payload


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


@pytest.mark.long
def test_the_whole_way_of_a_shop_that_is_sent_by_amqp(
    spark: SparkSession,
    contracts: Contracts,
    layouts: Layouts,
    bootstrap: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To a hub by AMQP, and from there as a hub shows its events to clients of Kafka: key, body."""
    events = 3_000
    server = HubServer(orders=4)
    monkeypatch.setenv("TEST_SECRET", server.connection_string)
    settings = settings_for(tmp_path, bootstrap)
    sending = settings.model_copy(update={"broker": server.broker()})
    try:
        report = send_shop(sending, Sending(events=events, topic="orders"))
        assert (report.acknowledged, report.failed) == (events, 0)
        arrived = server.hubs["orders"].partitions
        assert sum(map(len, arrived)) == events
        for partition, held in enumerate(arrived):
            events_held: list[Any] = [decode_payload(memoryview(raw)) for _, raw in held]
            bodies = [b"".join(event.data) for event in events_held]
            put(settings, *bodies, partition=partition)
    finally:
        server.stop()
    drain(spark, settings, contracts)
    reconcile.reconcile_range(spark, settings, contracts)
    assert gold.build(spark, settings, contracts, layouts).rows > 0
    found = audit.audit_tables(spark, settings, contracts)
    assert found.broken == []
    [balance] = found.balances
    assert (balance.bronze, balance.pending) == (events, 0)

    # AMQP does not say where an event came to lie: held against the ledger by what was sent. It has
    # no word for a record without a value, which arrives as an empty one.
    records = list(islice(shop_of(1, instant(None, False), 0.3).records(), events))
    columns = ["source", "id", "outcome", "violations", "raw"]
    rows = table(settings, "silver/events", columns).to_pylist()
    good = {(r.source, r.id) for r in records if r.outcome == "accepted"}
    assert {(r["source"], r["id"]) for r in rows if r["outcome"] == "accepted"} == good
    bad = Counter(
        (r.value or b"", tuple(sorted(["empty_value"] if r.value is None else r.rules or ())))
        for r in records
        if r.outcome == "quarantined"
    )
    kept_out = [r for r in rows if r["outcome"] == "quarantined"]
    assert Counter((r["raw"] or b"", tuple(sorted(r["violations"]))) for r in kept_out) == bad
    assert balance.duplicates == sum(r.outcome == "duplicate" for r in records)
