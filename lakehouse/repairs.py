"""Payloads that a person put in the place of quarantined ones: rows of ops.repairs.

Bronze stays what the broker gave. Whoever goes on from its bytes reads them through `applied`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lakehouse import tables
from lakehouse.contracts import Contracts
from lakehouse.settings import Settings

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

REPAIRED = "repaired"
REPLAYING = "replaying"
REPLAYED = "replayed"
ABANDONED = "abandoned"


def history(spark: SparkSession, settings: Settings) -> DataFrame | None:
    """Everything that was done about quarantined records; None if nothing ever was."""
    from delta.tables import DeltaTable

    table = tables.repairs()
    if not DeltaTable.isDeltaTable(spark, table.path(settings)):
        return None
    return tables.read(spark, settings, table)


def applied(spark: SparkSession, settings: Settings, bronze: DataFrame) -> DataFrame:
    """Rows of Bronze with the newest payload of those that were repaired as their `value`."""
    from pyspark.sql import functions as F

    from lakehouse.silver import COORDINATES

    done = history(spark, settings)
    if done is None:
        return bronze
    newest = (
        done.where(F.col("action") == REPAIRED)
        .groupBy(*COORDINATES)
        .agg(F.max_by(F.struct("payload"), "at").alias("repair"))
    )
    # A struct: an empty payload is a payload too.
    value = F.when(F.col("repair").isNotNull(), F.col("repair.payload")).otherwise(F.col("value"))
    joined = bronze.join(newest, COORDINATES, "left").withColumn("value", value)
    return joined.select(*bronze.columns)


def announce(
    spark: SparkSession, settings: Settings, before: DataFrame, rows: DataFrame, by: str
) -> DataFrame:
    """Says what becomes of records, before it does: `note` says whether it did.

    before, rows: of silver.events, those that give way and those that take their place. by: who has
    it done. Returns the records that were quarantined, or are to be: coordinates, `was`, what they
    were quarantined for (empty for nothing), outcome (accepted, quarantined, duplicate) and
    violations; held in place. Those that stay what they were quarantined for get no row.
    """
    from pyspark.sql import functions as F

    from lakehouse.silver import COORDINATES, QUARANTINED

    was = F.col("violations").alias("was"), (F.col("outcome") == QUARANTINED).alias("kept_out")
    after = (
        before.select(*COORDINATES, *was)
        .join(rows.select(*COORDINATES, "outcome", "violations"), COORDINATES, "left")
        .withColumn("outcome", F.coalesce("outcome", F.lit("duplicate")))
        .where(F.col("kept_out") | (F.col("outcome") == QUARANTINED))
        .drop("kept_out")
        .localCheckpoint()
    )
    changed = after.where(~F.col("violations").eqNullSafe(F.col("was")))
    table = tables.repairs()
    tables.ensure(spark, settings, table)
    at = tables.later_than_all(spark, settings, table, "at")
    step = {"at": F.lit(at), "by": F.lit(by), "action": F.lit(REPLAYING)}
    _append(spark, settings, changed.withColumns(step))
    return after


def note(spark: SparkSession, settings: Settings, contracts: Contracts) -> None:
    """Writes down of what was announced whether it has come about.

    By whoever announced it, and by the next one, should that one have died in between; under the
    name and the time of who announced it. What has not come about is abandoned.
    """
    from pyspark.sql import functions as F

    from lakehouse.silver import COORDINATES

    done = history(spark, settings)
    if done is None:
        return
    steps = done.where(F.col("action").isin(REPLAYING, REPLAYED, ABANDONED))
    kept = ("at", "by", "was", "outcome", "violations", "action")
    order = F.struct("at", F.col("action") != REPLAYING)
    newest = steps.groupBy(*COORDINATES).agg(F.max_by(F.struct(*kept), order).alias("step"))
    announced = newest.select(*COORDINATES, "step.*").where(F.col("action") == REPLAYING)
    announced = announced.localCheckpoint()
    if announced.isEmpty():
        return
    silver = tables.read(spark, settings, tables.silver(contracts))
    now = silver.select(*COORDINATES, F.struct("outcome", "violations").alias("now"))
    outcome, violations = F.coalesce("now.outcome", F.lit("duplicate")), F.col("now.violations")
    came = (outcome == F.col("outcome")) & violations.eqNullSafe(F.col("violations"))
    ended = announced.join(now, COORDINATES, "left").withColumns(
        {
            "action": F.when(came, REPLAYED).otherwise(ABANDONED),
            "outcome": F.when(came, F.col("outcome")),
            "violations": F.when(came, F.col("violations")),
        }
    )
    _append(spark, settings, ended.drop("now"))


def _append(spark: SparkSession, settings: Settings, steps: DataFrame) -> None:
    from pyspark.sql import functions as F

    table = tables.repairs()
    tables.ensure(spark, settings, table)
    if not steps.isEmpty():
        nothing = {"note": F.lit(""), "payload": F.lit(None).cast("binary")}
        tables.append(steps.withColumns(nothing), settings, table)
