"""Batch jobs beside a stream that writes, and a partition that lags behind the others."""

from __future__ import annotations

import os
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from batch import audit, maintain, quarantine, reconcile, replay
from lakehouse.contracts import Contracts
from lakehouse.layouts import Layouts
from lakehouse.settings import Settings, Stream
from producer.command import Sending, send_shop
from tests.helpers import (
    Place,
    drain,
    put,
    settings_for,
    table,
    unlike_the_ledger,
    wait_until,
    while_streaming,
)
from tests.samples import event

EVENTS = 20_000


def left_behind(settings: Settings, layer: str) -> Path:
    """What a write that failed a month ago may have left, beside the files of a partition that is
    being written."""
    newest = max(
        Path(settings.tables, layer, "events").rglob("part-*.parquet"),
        key=lambda file: file.stat().st_mtime,
    )
    orphan = newest.with_name(f"part-{uuid.uuid4()}.parquet")
    orphan.write_bytes(b"x")
    long_ago = time.time() - 30 * 86_400
    os.utime(orphan, (long_ago, long_ago))
    return orphan


@pytest.mark.long
def test_optimize_vacuum_and_merge_beside_a_live_stream(
    spark: SparkSession, contracts: Contracts, layouts: Layouts, bootstrap: str, tmp_path: Path
) -> None:
    """OPTIMIZE of the very partitions that the stream writes, VACUUM of their tables with something
    to remove each time, and merges into them."""
    small = Stream(max_offsets_per_trigger=1_000, trigger="500 milliseconds")
    settings = settings_for(tmp_path, bootstrap, stream=small)
    drain(spark, settings, contracts)
    # How long versions are kept is said of a table while nobody writes it.
    maintain.keep(spark, settings, contracts, layouts, streaming=False)
    sent = threading.Event()
    broken, kind = quarantine.Filter(rule="malformed_json"), quarantine.CoordinatesType()

    def send() -> None:
        try:
            send_shop(settings, Sending(events=EVENTS, seed=95, rate=250))
        finally:
            sent.set()

    done = {"maintained": 0, "removed": 0, "reconciled": 0, "replayed": 0}
    repaired: set[quarantine.Coordinates] = set()

    def in_bronze() -> int:
        return int(table(settings, "bronze/events", ["offset"]).num_rows)

    def script() -> None:
        sender = threading.Thread(target=send)
        sender.start()
        wait_until(lambda: in_bronze() > 2_000, 240, "the first batches of Bronze")
        silver = Path(settings.tables, "silver/events")
        wait_until(lambda: any(silver.rglob("part-*.parquet")), 240, "the first batch of Silver")
        while not sent.is_set():
            # Something to merge: a record of today that other bytes are put in the place of.
            _, listed = quarantine.find(spark, settings, contracts, broken, 20)
            record = kind.convert(listed[0]["record"], None, None)
            payload = event(
                "category", {"category_id": "K001", "name": "B"}, id=f"r{len(repaired)}"
            )
            quarantine.repair(spark, settings, contracts, record, payload, "tester", "")
            chosen = quarantine.Filter(records=(record,))
            counts = quarantine.replay(spark, settings, contracts, chosen, "tester")
            assert counts["accepted"] == 1
            repaired.add(record)
            orphans = [left_behind(settings, layer) for layer in ("bronze", "silver")]
            reports = maintain.keep(spark, settings, contracts, layouts, streaming=False)
            done["maintained"] += sum(report.partitions for report in reports)
            done["removed"] += sum(not orphan.exists() for orphan in orphans)
            assert done["removed"] % len(orphans) == 0, "VACUUM"
            reconcile.reconcile_range(spark, settings, contracts)
            done["reconciled"] += 1
            replay.replay_range(spark, settings, contracts, replay.Range(0))
            done["replayed"] += 1
        sender.join()
        wait_until(lambda: in_bronze() == EVENTS, 240, "Bronze")

    while_streaming(settings, script)
    assert min(done.values()) > 0, done
    history = DeltaTable(f"{settings.tables}/silver/events").history()
    commits = [commit["operation"] for commit in reversed(history)]
    merges = [place for place, operation in enumerate(commits) if operation == "MERGE"]
    assert len(merges) >= len(repaired) > 0
    assert "WRITE" in commits[merges[0] :], "the stream wrote after a merge"
    drain(spark, settings, contracts)
    reconcile.reconcile_range(spark, settings, contracts)
    found = audit.audit_tables(spark, settings, contracts)
    assert found.broken == []
    assert sum(balance.bronze for balance in found.balances) == EVENTS
    # What was repaired, and nothing else, is other than its ledger has it.
    ids = {f"r{number}" for number in range(len(repaired))}
    silver = table(settings, "silver/events", ["id", "outcome"]).to_pylist()
    assert {row["id"] for row in silver if row["id"] in ids and row["outcome"] == "accepted"} == ids
    places = {Place(one.topic, one.partition, one.offset) for one in repaired}
    assert unlike_the_ledger(settings, places) == []


@pytest.mark.long
def test_a_partition_that_lags_by_an_hour(
    spark: SparkSession, contracts: Contracts, bootstrap: str, tmp_path: Path
) -> None:
    settings = settings_for(tmp_path, bootstrap, stream=Stream(max_offsets_per_trigger=40))
    now = datetime.now(UTC)

    def events(first: int, count: int, age: timedelta) -> list[bytes]:
        data = {"category_id": "K001", "name": "Books"}
        return [
            event("category", data, id=str(number), time=(now - age).isoformat())
            for number in range(first, first + count)
        ]

    # What is on time moves the watermark; it is read first, in batches of its own.
    for partition in range(3):
        put(settings, *events(partition * 40, 40, timedelta(0)), partition=partition)
    drain(spark, settings, contracts)
    # An hour behind: half of it new, half of it copies of what is there and of each other.
    late = events(120, 20, timedelta(hours=1))
    put(settings, *late, *late, *events(0, 20, timedelta(0)), partition=3)
    put(settings, *events(140, 20, timedelta(0)), partition=0)
    drain(spark, settings, contracts)
    by_stream = table(settings, "silver/events", ["id"])
    assert by_stream.num_rows == 140
    result = reconcile.reconcile_range(spark, settings, contracts)
    assert (result.accepted, result.duplicates, result.quarantined) == (20, 40, 0)
    rows = table(settings, "silver/events", ["id", "written_by"]).to_pylist()
    assert sorted(int(row["id"]) for row in rows) == list(range(160))
    assert {row["written_by"] for row in rows if 120 <= int(row["id"]) < 140} == {"reconcile"}
    assert audit.audit_tables(spark, settings, contracts).broken == []
