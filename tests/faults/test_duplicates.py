"""Each kind of copy by itself, and events that are late: who takes them out or lets them in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from batch import audit, reconcile
from lakehouse.contracts import Contracts
from lakehouse.settings import Stream
from tests.helpers import drain, put, settings_for, table
from tests.house import category

BATCH = 2


@pytest.mark.long
def test_copies_within_a_batch_across_batches_restarts_and_the_watermark(
    spark: SparkSession, contracts: Contracts, bootstrap: str, tmp_path: Path
) -> None:
    settings = settings_for(tmp_path, bootstrap, stream=Stream(max_offsets_per_trigger=BATCH))
    now = datetime.now(UTC)

    def at(ident: str, age: timedelta) -> bytes:
        return category(ident, time=(now - age).isoformat())

    def stream(*records: bytes) -> dict[int, tuple[str, str]]:
        """Sends them, runs the streams to their end; id and writer of Silver's rows by offset."""
        put(settings, *records)
        drain(spark, settings, contracts)
        return rows()

    def rows() -> dict[int, tuple[str, str]]:
        found = table(settings, "silver/events", ["offset", "id", "outcome", "written_by"])
        assert set(found["outcome"].to_pylist()) == {"accepted"}
        return {r["offset"]: (r["id"], r["written_by"]) for r in found.to_pylist()}

    def balance() -> tuple[int, int, int]:
        """Accepted, duplicates, pending."""
        (found,) = audit.audit_tables(spark, settings, contracts).balances
        assert found.bronze == found.accepted + found.duplicates + found.pending
        return found.accepted, found.duplicates, found.pending

    old, new = timedelta(hours=3), timedelta(0)
    a, b, c = (at(ident, old) for ident in "abc")
    # Twice in a batch, and in the one after it.
    expected = {0: ("a", "stream"), 3: ("b", "stream")}
    assert stream(a, a, a, b) == expected
    # In a run that begins with what the one before it took.
    assert stream(b, c) == (expected := expected | {5: ("c", "stream")})
    # Hours later by the events' own time. One batch on, the state has forgotten the first ones, and
    # what is that late is dropped.
    later = {place: (ident, "stream") for place, ident in enumerate("dehi", 6)}
    assert stream(*(at(ident, new) for ident in "dehi")) == (expected := expected | later)
    # Behind the watermark: copies of old ones, and what is late by minutes and by days.
    minutes, days = at("f", timedelta(minutes=30)), at("g", timedelta(days=3))
    assert stream(a, minutes, days, c) == expected, "none of them is let in, or taken for another"
    assert balance() == (7, 5, 2), "a copy is known for one by what is accepted"
    reconcile.reconcile_range(spark, settings, contracts)
    assert rows() == expected | {11: ("f", "reconcile"), 12: ("g", "reconcile")}
    assert balance() == (9, 5, 0)
    # A copy of what came late, after that.
    stream(days, minutes)
    reconcile.reconcile_range(spark, settings, contracts)
    assert balance() == (9, 7, 0)
    assert audit.audit_tables(spark, settings, contracts).broken == []
