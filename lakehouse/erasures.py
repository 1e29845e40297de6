"""Records that were erased for the person that they were about: rows of ops.erasures.

Of such a record Bronze and Silver keep where it was and what became of it, so that the balance
holds. What it said is gone: whoever judges records leaves it alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lakehouse import tables
from lakehouse.settings import Settings

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

# The columns of Bronze that hold what a record said.
SAID = ("key", "value", "headers")


def erased(spark: SparkSession, settings: Settings) -> DataFrame | None:
    """topic, partition, offset and outcome of erased records; None if nothing ever was."""
    from delta.tables import DeltaTable

    from lakehouse.silver import COORDINATES

    table = tables.erasures()
    if not DeltaTable.isDeltaTable(spark, table.path(settings)):
        return None
    return tables.read(spark, settings, table).select(*COORDINATES, "outcome")


def without(spark: SparkSession, settings: Settings, bronze: DataFrame) -> DataFrame:
    """Rows of Bronze that still say something."""
    from lakehouse.silver import COORDINATES

    gone = erased(spark, settings)
    return bronze if gone is None else bronze.join(gone, COORDINATES, "left_anti")


def blank(spark: SparkSession, settings: Settings, bronze: DataFrame) -> DataFrame:
    """Rows of Bronze, those of erased records without what they said."""
    from pyspark.sql import functions as F

    from lakehouse.silver import COORDINATES

    gone = erased(spark, settings)
    if gone is None:
        return bronze
    marked = bronze.join(gone.withColumn("erased", F.lit(True)), COORDINATES, "left")
    kept = {name: F.when(F.col("erased").isNull(), F.col(name)) for name in SAID}
    return marked.withColumns(kept).select(*bronze.columns)
