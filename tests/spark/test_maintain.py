"""Small files become few, in partitions that the stream has left, and the rows stay as they are."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from batch import audit, maintain
from lakehouse import tables
from lakehouse.contracts import Contracts
from lakehouse.layouts import Layouts
from lakehouse.settings import Settings
from tests.helpers import table
from tests.house import AT, House, category

COMMITS = maintain.SMALL_FILES + 1


def files(settings: Settings) -> dict[str, int]:
    """Files of bronze.events by the date of their partition, by another engine."""
    found: dict[str, int] = {}
    for uri in DeltaTable(f"{settings.tables}/bronze/events").file_uris():
        date = uri.split("date=")[1].split("/")[0]
        found[date] = found.get(date, 0) + 1
    return found


def test_what_the_stream_has_left_is_written_anew(
    spark: SparkSession, settings: Settings, few: Contracts, layouts: Layouts
) -> None:
    now = datetime.now(UTC)
    old = now - timedelta(days=2)
    bronze = tables.bronze()
    tables.ensure(spark, settings, bronze)
    for number in range(COMMITS):
        rows: list[Any] = [("t", 0, number, now), ("t", 1, number, old)]
        schema = "topic string, partition int, offset bigint, timestamp timestamp"
        frame = spark.createDataFrame(rows, schema).withColumns(
            {
                "timestamp_type": F.lit(0),
                "key": F.lit(None).cast("binary"),
                "value": F.lit(b"x"),
                "headers": F.lit(None).cast("array<struct<key: string, value: binary>>"),
                "date": F.to_date("timestamp"),
                "hour": F.hour("timestamp"),
            }
        )
        tables.append(frame.coalesce(1), settings, bronze)
    before = sorted(table(settings, "bronze/events", ["partition", "offset"]).to_pylist(), key=str)
    today, then = str(now.date()), str(old.date())
    assert files(settings) == {today: COMMITS, then: COMMITS}

    [plan] = maintain.keep(spark, settings, few, layouts, (), dry_run=True, streaming=True)
    assert (plan.table, plan.partitions, plan.files, plan.files_after) == (
        "bronze.events",
        1,
        2 * COMMITS,
        None,
    )
    assert files(settings) == {today: COMMITS, then: COMMITS}, "a dry run does nothing"

    # What a write that failed a month ago may have left behind.
    orphan = Path(settings.tables) / "bronze/events" / f"date={then}" / "orphan.parquet"
    orphan.write_bytes(b"x")
    long_ago = now.timestamp() - 30 * 86400
    os.utime(orphan, (long_ago, long_ago))

    [done] = maintain.keep(spark, settings, few, layouts, (), streaming=True)
    assert done.removed == 1
    assert not orphan.exists()
    assert (done.files, done.files_after) == (2 * COMMITS, COMMITS + 1)
    assert files(settings) == {today: COMMITS, then: 1}, "the stream's own partition is left alone"
    held = DeltaTable(bronze.path(settings)).metadata().configuration
    assert "delta.logRetentionDuration" not in held, "nothing that a stream's commit would meet"
    [last] = maintain.keep(spark, settings, few, layouts, ("bronze.events",), streaming=False)
    assert files(settings) == {today: 1, then: 1}
    assert last.files_after == 2
    after = sorted(table(settings, "bronze/events", ["partition", "offset"]).to_pylist(), key=str)
    assert after == before
    optimized = [
        commit["operationParameters"]["zOrderBy"]
        for commit in DeltaTable(bronze.path(settings)).history()
        if commit["operation"] == "OPTIMIZE"
    ]
    assert optimized == ['["topic","partition","offset"]'] * 2
    # The contract keeps old versions for 168 h: their files, and what the log says of them.
    kept = DeltaTable(bronze.path(settings)).metadata().configuration
    assert kept["delta.logRetentionDuration"] == "interval 168 hours"
    assert kept["delta.deletedFileRetentionDuration"] == "interval 168 hours"
    # Said once: nothing is left to do.
    [again] = maintain.keep(spark, settings, few, layouts, ("bronze.events",), dry_run=True)
    assert (again.properties, again.partitions, again.removed) == ({}, 0, 0)


@pytest.mark.long
def test_bronze_lets_go_of_what_its_contract_has_kept_long_enough(
    house: House, layouts: Layouts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records of 100 days ago, and of 95: the second day has one without an outcome as yet."""
    days = [(datetime.now(UTC) - timedelta(days=age)).date() for age in (100, 95, 0)]
    seconds = [round((datetime.combine(d, AT.timetz()) - AT).total_seconds()) for d in days]
    first, second, today = seconds
    records = [
        (0, 0, first, category("a")),
        (0, 1, first + 1, category("a")),
        (1, 0, first + 2, b"no JSON"),
        (0, 2, second, category("b")),
        (0, 3, today, category("c")),
    ]
    house.bronze(*records)
    house.reconcile()
    house.bronze((1, 1, second, category("d")))
    before = house.rows()
    assert house.audit().balances == [audit.Balance("t", 6, 3, 1, 1, 1)]

    def kept() -> tuple[int, set[tuple[int, int]]]:
        contracts, spark, settings = house.contracts, house.spark, house.settings
        names = ("bronze.events",)
        [planned] = maintain.keep(spark, settings, contracts, layouts, names, dry_run=True)
        [done] = maintain.keep(spark, settings, contracts, layouts, names, vacuum=False)
        assert planned.retired == done.retired
        left = table(settings, "bronze/events", ["partition", "offset"]).to_pylist()
        return done.retired, {(row["partition"], row["offset"]) for row in left}

    assert kept() == (3, {(0, 2), (0, 3), (1, 1)})
    found = house.audit()
    assert (found.broken, found.balances) == ([], [audit.Balance("t", 3, 2, 0, 0, 1)])
    assert {(str(gap), gap.why) for gap in found.gaps} == {
        ("topic t partition 0: offsets 0 to 1 (2 records)", "retired"),
        ("topic t partition 1: offsets 0 to 0 (1 records)", "retired"),
    }
    assert house.rows() == before, "what it was stays in Silver"
    assert kept()[0] == 0
    house.reconcile()
    # One of that day comes in between the plan and the deletion: a clock that is far behind.
    with monkeypatch.context() as patch:
        plan = maintain._plan

        def meanwhile(*arguments: Any) -> maintain.Report:
            report = plan(*arguments)
            house.bronze((1, 2, second, category("e")))
            return report

        patch.setattr(maintain, "_plan", meanwhile)
        contracts, spark, settings = house.contracts, house.spark, house.settings
        names = ("bronze.events",)
        [done] = maintain.keep(spark, settings, contracts, layouts, names, vacuum=False)
        assert done.retired == 2
    assert house.audit().balances == [audit.Balance("t", 2, 1, 0, 0, 1)]
    house.reconcile()
    assert kept() == (1, {(0, 3)})
    assert house.audit().holds
    # A copy of what is gone from Bronze is a copy all the same.
    house.bronze((0, 4, today, category("a")))
    assert house.reconcile().duplicates == 1
    assert house.audit().balances == [audit.Balance("t", 2, 1, 0, 1, 0)]
    # What is kept, and goes all the same, is missing.
    house.sql("DELETE FROM {bronze} WHERE offset = 3")
    assert not house.audit().holds


@pytest.mark.long
def test_a_table_is_clustered_or_sorted_as_the_setting_says(
    spark: SparkSession, settings: Settings, few: Contracts, layouts: Layouts
) -> None:
    metrics = tables.gold(layouts["gold.agg_user_metrics"])
    columns = layouts["gold.agg_user_metrics"].zorder_by
    tables.ensure(spark, settings, metrics)
    nulls = [f"CAST(NULL AS {kind}) AS {name}" for name, kind in metrics.columns.items()]
    # A partition a file.
    tables.append(spark.range(0, COMMITS, 1, COMMITS).selectExpr(*nulls), settings, metrics)

    def kept(clustering: str) -> tuple[tuple[str, ...], list[str], int | None]:
        under = settings.model_copy(update={"clustering": clustering})
        [done] = maintain.keep(spark, under, few, layouts, (metrics.full_name,), vacuum=False)
        detail = spark.sql(f"DESCRIBE DETAIL {tables.quoted_path(metrics.path(settings))}")
        return done.zorder_by, detail.collect()[0].clusteringColumns, done.files_after

    assert kept("liquid") == ((), list(columns), 1)
    assert kept("zorder") == (columns, [], 1)
    assert len(table(settings, "gold/agg_user_metrics")) == COMMITS
