"""Bringing a table to a new state: only rows that differ are written, in one commit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

    from lakehouse.settings import Settings
    from lakehouse.tables import Table


@dataclass
class Difference:
    """Rows by what was done with them."""

    inserted: int = 0
    updated: int = 0
    deleted: int = 0

    @property
    def rows(self) -> int:
        return self.inserted + self.updated + self.deleted


def bring(
    spark: SparkSession,
    settings: Settings,
    table: Table,
    key: tuple[str, ...],
    rows: DataFrame,
    scope: DataFrame | None,
    mend: bool = False,
) -> Difference:
    """Makes the rows of `scope` those of `rows`: inserts, updates and deletes where they differ.

    key: the primary key, which is unique in both. scope: rows of the table as they are now; None
    for a table that is not there yet. mend: whether a key may stand twice in scope all the same, by
    somebody's hand; one row takes the place of both. Nothing is committed where nothing differs.
    Raises TableError where another writer does not let it through.
    """
    from pyspark.sql import Observation
    from pyspark.sql import functions as F

    from lakehouse import tables

    if scope is None:
        appended = Observation()
        tables.create(rows.observe(appended, F.count(F.lit(1)).alias("rows")), settings, table)
        return Difference(inserted=appended.get["rows"])
    columns = list(table.columns)
    identity = list(dict.fromkeys([*key, *table.partitions]))
    new = rows.select(*columns, F.struct(*columns).alias("_new"))
    old = scope.select(*identity, F.struct(*columns).alias("_old"))
    action = (
        F.when(F.col("_old").isNull(), F.array(F.lit("insert")))
        .when(F.col("_new").isNull(), F.array(F.lit("delete")))
        .when(~F.col("_new").eqNullSafe(F.col("_old")), F.array(F.lit("update")))
    )
    if mend:
        counted = (F.first("_old").alias("_old"), F.count(F.lit(1)).alias("_rows"))
        old = old.groupBy(*identity).agg(*counted)
        both = F.array(F.lit("delete"), F.lit("insert"))
        twice = (F.col("_rows") > 1) & F.col("_new").isNotNull()
        action = F.when(twice, both).otherwise(action)
    differing = (
        new.join(old, identity, "full_outer")
        .withColumn("_action", F.explode(action))
        .select(*columns, "_action")
        .localCheckpoint()
    )
    # A row for every action and partition: months or days, not keys.
    counts = differing.groupBy("_action", *table.partitions).count().collect()
    of = dict.fromkeys(("insert", "update", "delete"), 0)
    for row in counts:
        of[row["_action"]] += row["count"]
    found = Difference(of["insert"], of["update"], of["delete"])
    if found.rows and found.rows == found.inserted:
        tables.append(differing, settings, table)
    elif found.rows:
        # Constants, so that no other partition is read: a row that is new is in none of them.
        old_ones = [row for row in counts if row["_action"] != "insert"]
        parts = {name: list({row[name] for row in old_ones}) for name in table.partitions}
        _merge(spark, settings, table, identity, parts, differing)
    return found


def _merge(
    spark: SparkSession,
    settings: Settings,
    table: Table,
    identity: list[str],
    parts: dict[str, list[Any]],
    rows: DataFrame,
) -> None:
    from delta.tables import DeltaTable
    from pyspark.sql import functions as F

    from lakehouse import tables
    from lakehouse.sql import one_of

    # What is inserted is in the table already only where it is deleted there, too.
    on: Column = F.col("new._action") != "insert"
    for name in identity:
        on = on & (F.col(f"old.{name}") == F.col(f"new.{name}"))
    for name, values in parts.items():
        on = on & one_of(F.col(f"old.{name}"), values)
    values_of_new = {name: F.col(f"new.{name}") for name in table.columns}

    def attempt() -> None:
        (
            DeltaTable.forPath(spark, table.path(settings))
            .alias("old")
            .merge(rows.alias("new"), on)
            .whenMatchedDelete(F.col("new._action") == "delete")
            .whenMatchedUpdate(F.col("new._action") == "update", set=dict(values_of_new))
            .whenNotMatchedInsert(F.col("new._action") == "insert", values=dict(values_of_new))
            .execute()
        )

    tables.merge(settings, table, attempt)
