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


def note_replayed(
    spark: SparkSession, settings: Settings, contracts: Contracts, before: DataFrame, by: str
) -> DataFrame:
    """Writes down what became of records that were quarantined, and were judged again.

    before: their coordinates, and `was`, what they had been quarantined for; held in place. by:
    who had it done. Returns all of them with their outcome now (accepted, quarantined, duplicate);
    those that are quarantined for the same as before get no row.
    """
    from pyspark.sql import functions as F

    from lakehouse.silver import COORDINATES

    silver = tables.read(spark, settings, tables.silver(contracts))
    now = silver.select(*COORDINATES, "outcome", "violations")
    after = (
        before.join(now, COORDINATES, "left")
        .withColumn("outcome", F.coalesce("outcome", F.lit("duplicate")))
        .localCheckpoint()
    )
    table = tables.repairs()
    tables.ensure(spark, settings, table)
    step = {
        "at": F.current_timestamp(),
        "by": F.lit(by),
        "action": F.lit(REPLAYED),
        "note": F.lit(""),
        "payload": F.lit(None).cast("binary"),
    }
    changed = ~F.col("violations").eqNullSafe(F.col("was"))
    tables.append(after.where(changed).withColumns(step), settings, table)
    return after
