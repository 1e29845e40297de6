"""Killed in every phase, stopped at a boundary: nothing lost, nothing doubled."""

from __future__ import annotations

import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import psutil
import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from batch import audit, maintain, quarantine, reconcile
from batch.quarantine import Coordinates
from lakehouse import checkpoints, gaps
from lakehouse.contracts import Contracts
from lakehouse.layouts import Layouts
from lakehouse.settings import Settings, Stream
from producer.command import Sending, send_shop
from tests.helpers import (
    BIN,
    ROOT,
    died,
    drain,
    environment,
    headwater,
    put,
    settings_for,
    table,
    unlike_the_ledger,
    wait_until,
)
from tests.house import category

EVENTS = 12_000
STREAM = ["stream", "--available-now"]
# Whose append, at which moment, at which one of the run, of which command; in this order, on the
# same tables. One query a run, so that no other goes on meanwhile and leaves nothing to kill.
Phase = tuple[str, str, int, list[str]]
PHASES: list[Phase] = [
    ("bronze.events", "before", 1, [*STREAM, "bronze"]),
    ("bronze.events", "after", 1, [*STREAM, "bronze"]),
    ("silver.events", "after", 1, [*STREAM, "silver"]),
    ("silver.events", "before", 2, [*STREAM, "silver"]),
    ("silver.events", "before", 1, ["reconcile"]),
    ("silver.events", "after", 1, ["reconcile"]),
]
# The table has what the checkpoint does not know of.
WORST = [PHASES[2]]


def accepted_twice(settings: Settings) -> list[Any]:
    """Identities that the stream took more than once, before reconcile puts that right."""
    silver = table(settings, "silver/events", ["source", "id", "outcome"])
    assert silver.num_rows
    return duckdb.execute(
        "SELECT source, id FROM silver WHERE outcome = 'accepted' GROUP BY ALL HAVING count(*) > 1"
    ).fetchall()


@pytest.mark.parametrize("phases", [WORST, pytest.param(PHASES, marks=pytest.mark.long)])
def test_killed_in_every_phase(
    spark: SparkSession,
    bootstrap: str,
    contracts: Contracts,
    tmp_path: Path,
    phases: list[Phase],
) -> None:
    small = Stream(max_offsets_per_trigger=EVENTS // 3)
    settings = settings_for(tmp_path, bootstrap, stream=small)
    send_shop(settings, Sending(events=EVENTS, seed=21))
    surroundings = environment(settings) | {
        "HEADWATER_STREAM__MAX_OFFSETS_PER_TRIGGER": str(EVENTS // 3)
    }
    for index, (target, moment, nth, command) in enumerate(phases):
        if command == ["reconcile"] and phases[index - 1][3] != command:
            # What a reconcile has to do is there only once the streams are through.
            drain(spark, settings, contracts)
            assert accepted_twice(settings) == [], "a batch that was run again kept its state"
        died = subprocess.run(
            [sys.executable, "-m", "tests.faults.die_at", target, moment, str(nth), *command],
            cwd=ROOT,
            env=surroundings,
            capture_output=True,
            text=True,
            check=False,
        )
        said = f"{target} {moment} {nth}: {died.stderr[-2000:]}"
        assert died.returncode == -signal.SIGKILL, said
    drain(spark, settings, contracts)
    assert accepted_twice(settings) == []
    reconcile.reconcile_range(spark, settings, contracts)
    found = audit.audit_tables(spark, settings, contracts)
    assert found.broken == []
    assert sum(balance.bronze for balance in found.balances) == EVENTS
    assert sum(balance.pending for balance in found.balances) == 0
    assert unlike_the_ledger(settings) == []


def by_minute(settings: Settings) -> tuple[list[Any], list[Any]]:
    """Accepted events by the minute: as the stream has them, and as DuckDB counts Silver."""
    minutes = table(settings, "silver/minute_metrics", ["minute", "type", "events", "revenue"])
    # By DuckDB itself: times of the year 9999 are beyond what Arrow makes of these files.
    silver = DeltaTable(f"{settings.tables}/silver/events").file_uris()
    with duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'")
        db.register("minutes", minutes)
        db.execute(f"CREATE VIEW silver AS FROM read_parquet({silver})")
        counted, wanted = (
            db.execute(
                f"SELECT epoch_us(minute), * EXCLUDE minute FROM ({query}) ORDER BY ALL"
            ).fetchall()
            for query in (
                "SELECT minute, type, sum(events), sum(revenue) FROM minutes GROUP BY ALL",
                "SELECT date_trunc('minute', time) AS minute, type, count(*), "
                "sum(payment.amount * CASE payment.status WHEN 'captured' THEN 1 "
                "WHEN 'refunded' THEN -1 ELSE 0 END) FROM silver WHERE outcome = 'accepted' "
                "GROUP BY ALL",
            )
        )
    return counted, wanted


@pytest.mark.long
def test_metrics_by_the_minute_after_kills(
    spark: SparkSession, bootstrap: str, contracts: Contracts, tmp_path: Path
) -> None:
    """Killed before and after its first commit, which counts all, and a later one, which adds."""
    settings = settings_for(tmp_path, bootstrap)
    count = [*STREAM, "metrics"]
    for go_on in (False, True):
        send_shop(settings, Sending(events=2_000, seed=23, go_on=go_on))
        drain(spark, settings, contracts)
        for moment in ("before", "after"):
            died(settings, "silver.minute_metrics", moment, 1, *count)
        drain(spark, settings, contracts, "metrics")
        # What came late for the stream is Silver's with a reconcile, and counted then.
        reconcile.reconcile_range(spark, settings, contracts)
        drain(spark, settings, contracts, "metrics")
        counted, wanted = by_minute(settings)
        assert len(wanted) > 500
        assert counted == wanted


@pytest.mark.long
def test_what_a_killed_replay_did_is_in_the_history(
    spark: SparkSession, bootstrap: str, contracts: Contracts, tmp_path: Path
) -> None:
    settings = settings_for(tmp_path, bootstrap)
    put(settings, b"{", b"{", category("a"), b"[")
    drain(spark, settings, contracts)
    reconcile.reconcile_range(spark, settings, contracts)
    records = [Coordinates(settings.topics.events, 0, offset) for offset in range(4)]
    for record, payload in ((records[0], category("b")), (records[1], category("a"))):
        quarantine.repair(spark, settings, contracts, record, payload, "Ada", "cut off")

    def history(record: Coordinates) -> list[tuple[str, str, str | None]]:
        told = quarantine.story(spark, settings, contracts, record, reveal=False)
        return [(step["action"], step["by"], step["outcome"]) for step in told["history"]]

    replay = ["quarantine", "replay", "--by", "Grace"]
    repaired = [("quarantined", "", "quarantined"), ("repaired", "Ada", None)]
    # Announced, and nothing done: the balance is as before.
    died(settings, "ops.repairs", "after", 1, *replay)
    announced = ("replaying", "Grace", "accepted"), ("replaying", "Grace", "duplicate")
    assert [history(record) for record in records] == [
        *([*repaired, announced[0]], [*repaired, announced[1]]),
        *([], [("quarantined", "stream", "quarantined")]),
    ]
    silver = table(settings, "silver/events", ["offset", "outcome"]).to_pylist()
    assert sorted((row["offset"], row["outcome"]) for row in silver) == [
        *((0, "quarantined"), (1, "quarantined"), (2, "accepted"), (3, "quarantined")),
    ]
    # Done, and not written down: first what the run before it left is.
    died(settings, "ops.repairs", "before", 3, *replay)
    silver = table(settings, "silver/events", ["offset", "outcome"]).to_pylist()
    assert sorted((row["offset"], row["outcome"]) for row in silver) == [
        *((0, "accepted"), (2, "accepted"), (3, "quarantined")),
    ]
    for job in (reconcile.reconcile_range, reconcile.reconcile_range):
        # Whichever job judges next writes it down, once.
        job(spark, settings, contracts)
        given_up = ("abandoned", "Grace", None)
        assert history(records[0]) == [*repaired, given_up, ("replayed", "Grace", "accepted")]
        assert history(records[1]) == [*repaired, given_up, ("replayed", "Grace", "duplicate")]
        assert history(records[2]) == []
    found = audit.audit_tables(spark, settings, contracts)
    assert found.broken == []
    (balance,) = found.balances
    assert (balance.accepted, balance.quarantined, balance.duplicates) == (2, 1, 1)


@pytest.mark.long
def test_maintenance_killed_between_what_it_writes_down_and_what_it_removes(
    spark: SparkSession, bootstrap: str, contracts: Contracts, layouts: Layouts, tmp_path: Path
) -> None:
    settings = settings_for(tmp_path, bootstrap)
    long_ago = datetime.now(UTC) - timedelta(days=100)
    put(settings, *(category(str(number)) for number in range(20)), timestamp=long_ago)
    put(settings, *(category(str(number)) for number in range(15, 25)))
    drain(spark, settings, contracts)
    reconcile.reconcile_range(spark, settings, contracts)
    for moment in ("before", "after"):
        died(settings, "ops.gaps", moment, 1, "maintain", "bronze.events")
        assert table(settings, "bronze/events", ["offset"]).num_rows == 30, "not removed yet"
        assert audit.audit_tables(spark, settings, contracts).broken == []
    [done] = maintain.keep(spark, settings, contracts, layouts, ("bronze.events",))
    assert done.retired == 20
    offsets = table(settings, "bronze/events", ["offset"])["offset"].to_pylist()
    assert sorted(offsets) == list(range(20, 30))
    found = audit.audit_tables(spark, settings, contracts)
    assert found.broken == []
    # Written down once, be it by the run that died.
    assert [(gap.begin, gap.end, gap.why) for gap in found.gaps] == [(0, 20, gaps.RETIRED)]
    (balance,) = found.balances
    assert (balance.bronze, balance.accepted, balance.duplicates) == (10, 5, 5)


def batches(settings: Settings, query: str) -> tuple[int, int]:
    """The last batch that the checkpoint has committed, and the last that the table has."""
    files = checkpoints.ArrowFiles(settings, query)
    commits = [int(name) for name in files.names("commits") if name.isdigit()]
    app = f"{query}.events:{checkpoints.query_id(files)}"
    if not commits:
        return -1, -1
    version = DeltaTable(f"{settings.tables}/{query}/events").transaction_version(app)
    return max(commits, default=-1), -1 if version is None else version


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)]
)
def test_a_stop_ends_at_a_batch_boundary(
    bootstrap: str, tmp_path: Path, number: signal.Signals
) -> None:
    settings = settings_for(tmp_path, bootstrap)
    process = subprocess.Popen(
        [str(BIN / "headwater"), "stream"],
        env=environment(settings) | {"HEADWATER_STREAM__MAX_OFFSETS_PER_TRIGGER": "500"},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        send_shop(settings, Sending(events=20_000, seed=22))
        wait_until(lambda: batches(settings, "silver")[0] >= 1, 300, "the second Silver batch")
        # In the middle of the work: 20,000 records at 500 a batch are far from done.
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            process.kill()
    assert process.returncode == 0, said
    assert "streams ended at a batch boundary" in said
    for query in checkpoints.QUERIES:
        committed, written = batches(settings, query)
        assert committed == written, f"{query}: the table is ahead of the checkpoint"
        assert 0 < committed < 39


@pytest.mark.long
def test_the_jvm_killed_alone_ends_the_command(bootstrap: str, tmp_path: Path) -> None:
    """As by who looks after a machine's memory: Python is left, and has to say so and end."""
    settings = settings_for(tmp_path, bootstrap)
    send_shop(settings, Sending(events=1_000, seed=23))
    process = subprocess.Popen(
        [str(BIN / "headwater"), "stream"],
        env=environment(settings),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: batches(settings, "silver")[0] >= 0, 300, "the first Silver batch")
        [jvm] = [p for p in psutil.Process(process.pid).children(True) if p.name() == "java"]
        jvm.kill()
        said = process.communicate(timeout=120)[1]
    finally:
        if process.poll() is None:
            process.kill()
    assert process.returncode == 1, said
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith("headwater: the JVM that Spark runs in has ended")
    headwater(settings, *STREAM)
    headwater(settings, "reconcile")
    headwater(settings, "audit")
    assert unlike_the_ledger(settings) == []
