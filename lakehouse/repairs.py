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
    spark: SparkSession,
    settings: Settings,
    kept_out: DataFrame,
    rows: DataFrame,
    by: str,
) -> DataFrame:
    """Says what becomes of records that were quarantined, before it does: `note` says that it did.

    kept_out: their coordinates, and `was`, what they were quarantined for. rows: of silver.events,
    those that are to be there. by: who has it done. Returns kept_out, held in place, with outcome
    (accepted, quarantined, duplicate) and violations; those that stay what they were quarantined
    for get no row.
    """
    from pyspark.sql import functions as F

    from lakehouse.silver import COORDINATES

    after = (
        kept_out.join(rows.select(*COORDINATES, "outcome", "violations"), COORDINATES, "left")
        .withColumn("outcome", F.coalesce("outcome", F.lit("duplicate")))
        .localCheckpoint()
    )
    changed = after.where(~F.col("violations").eqNullSafe(F.col("was")))
    step = {"at": F.current_timestamp(), "by": F.lit(by), "action": F.lit(REPLAYING)}
    _append(spark, settings, changed.withColumns(step))
    return after


def note(spark: SparkSession, settings: Settings, contracts: Contracts) -> None:
    """Writes down what was announced and has come about since.

    By whoever announced it, and by the next one, should that one have died in between. What was
    announced and did not come about stays as it is: a run that ended there.
    """
    from pyspark.sql import functions as F

    from lakehouse.silver import COORDINATES

    done = history(spark, settings)
    if done is None:
        return
    steps = done.where(F.col("action").isin(REPLAYING, REPLAYED))
    kept = ("at", "by", "was", "outcome", "violations", "action")
    order = F.struct("at", F.col("action") == REPLAYED)
    newest = steps.groupBy(*COORDINATES).agg(F.max_by(F.struct(*kept), order).alias("step"))
    announced = newest.select(*COORDINATES, "step.*").where(F.col("action") == REPLAYING)
    announced = announced.localCheckpoint()
    if announced.isEmpty():
        return
    silver = tables.read(spark, settings, tables.silver(contracts))
    now = silver.select(*COORDINATES, F.struct("outcome", "violations").alias("now"))
    announced = announced.join(now, COORDINATES, "left")
    outcome = F.coalesce("now.outcome", F.lit("duplicate"))
    violations = F.col("now.violations")
    came = (outcome == F.col("outcome")) & violations.eqNullSafe(F.col("violations"))
    _append(spark, settings, announced.where(came).withColumn("action", F.lit(REPLAYED)))


def _append(spark: SparkSession, settings: Settings, steps: DataFrame) -> None:
    from pyspark.sql import functions as F

    table = tables.repairs()
    tables.ensure(spark, settings, table)
    if not steps.isEmpty():
        nothing = {"note": F.lit(""), "payload": F.lit(None).cast("binary")}
        tables.append(steps.withColumns(nothing), settings, table)
