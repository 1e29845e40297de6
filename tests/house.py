"""Bronze and Silver over a few records written by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from batch import audit, judge, reconcile
from lakehouse import silver, tables
from lakehouse.contracts import Contracts
from lakehouse.settings import Settings
from tests.samples import event

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
LIMIT = 1_048_576
Record = tuple[int, int, int, bytes | None]  # partition, offset, seconds after AT, value


def category(ident: str, name: str = "Books", **envelope: Any) -> bytes:
    return event("category", {"category_id": "K001", "name": name}, id=ident, **envelope)


class House:
    """Tables of a test: what Bronze holds, and which of it the stream took into Silver."""

    def __init__(self, spark: SparkSession, settings: Settings, contracts: Contracts) -> None:
        self.spark, self.settings, self.contracts = spark, settings, contracts
        self.silver_table = tables.silver(contracts)
        # What every query has committed: all of Bronze, unless a test says otherwise.
        self.ends: dict[tuple[str, int], int] = {}
        tables.ensure(spark, settings, tables.bronze())
        tables.ensure(spark, settings, self.silver_table)

    def raw(self, records: list[Record]) -> DataFrame:
        rows = [
            ("t", p, o, AT + timedelta(seconds=s), None if v is None else bytearray(v))
            for p, o, s, v in records
        ]
        columns = "topic string, partition int, offset bigint, timestamp timestamp, value binary"
        return (
            self.spark.createDataFrame(rows, columns)
            .withColumn("key", F.lit(None).cast("binary"))
            .withColumn("timestamp_type", F.lit(0))
            .withColumn("headers", F.lit(None).cast("array<struct<key: string, value: binary>>"))
            .withColumn("date", F.to_date("timestamp"))
            .withColumn("hour", F.hour("timestamp"))
        )

    def bronze(self, *records: Record) -> None:
        tables.append(self.raw(list(records)), self.settings, tables.bronze())
        for partition, offset, *_ in records:
            key = ("t", partition)
            self.ends[key] = max(self.ends.get(key, 0), offset + 1)

    def stream(self, *records: Record) -> None:
        rows = silver.classify(self.raw(list(records)), self.contracts, LIMIT, "stream")
        tables.append(rows, self.settings, self.silver_table)

    def reconcile(self, since: datetime | None = None) -> judge.Result:
        return reconcile.reconcile_range(self.spark, self.settings, self.contracts, since)

    def audit(self) -> audit.Audit:
        return audit.audit_tables(self.spark, self.settings, self.contracts)

    def rows(self) -> dict[tuple[int, int], tuple[str, list[str], str]]:
        """By (partition, offset): outcome, violations, who wrote it."""
        found = tables.read(self.spark, self.settings, self.silver_table).collect()
        assert len({(r.partition, r.offset) for r in found}) == len(found)
        return {(r.partition, r.offset): (r.outcome, r.violations, r.written_by) for r in found}

    def sql(self, *statements: str) -> None:
        for statement in statements:
            self.spark.sql(
                statement.format(
                    silver=f"delta.`{self.silver_table.path(self.settings)}`",
                    bronze=f"delta.`{tables.bronze().path(self.settings)}`",
                )
            )
