"""Archives of the classes that Spark and the broker load, so that their next starts are quicker.

Java calls it class data sharing (JEP 350): a JVM writes down at its end what it has loaded.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyspark
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from batch.merge import bring
from headwater import broker
from lakehouse import settings as settings_files
from lakehouse import tables
from lakehouse.session import spark as make_session
from lakehouse.settings import Settings

ROWS = 100


def use(spark: SparkSession, settings: Settings) -> None:
    """Makes two Delta tables, streams from one to the other, merges, and asks by SQL."""
    source, target = tables.gaps(), tables.Table("ops", "target", tables.GAPS_SCHEMA)
    for table in (source, target):
        tables.ensure(spark, settings, table)
    nulls = {name: F.lit(None).cast(kind) for name, kind in source.columns.items()}
    now = {"begin": F.col("id"), "accepted_at": F.current_timestamp()}
    tables.append(spark.range(ROWS).withColumns(nulls | now), settings, source)

    def append(batch: DataFrame, number: int) -> None:
        tables.append(batch, settings, target, ("classes", number))

    stream = spark.readStream.format("delta").load(source.path(settings))
    query = (
        stream.withWatermark("accepted_at", "1 minute")
        .dropDuplicatesWithinWatermark(["begin"])
        .writeStream.foreachBatch(append)
        .option("checkpointLocation", f"{settings.storage}/checkpoint")
        .trigger(availableNow=True)
        .start()
    )
    query.awaitTermination()
    rows = tables.read(spark, settings, target)
    bring(spark, settings, target, ("begin",), rows.withColumn("topic", F.lit("t")), rows)
    path = tables.quoted_path(target.path(settings))
    asked = f"SELECT topic, count(*) OVER (ORDER BY begin) FROM {path} ORDER BY 2"
    spark.sql(asked).collect()


@contextmanager
def archive(folder: Path) -> Iterator[None]:
    """The JVM that begins and ends within leaves its archive in the folder."""
    unfinished = folder / "classes.jsa.new"
    os.environ["CLASS_ARCHIVE"] = f"-XX:ArchiveClassesAtExit={unfinished}"
    yield
    unfinished.replace(folder / "classes.jsa")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        # Nothing of the user's own, the broker of a runtime folder least of all.
        settings = settings_files.load("local", storage=folder, runtime=folder)
        with archive(Path(sys.prefix) / "broker"):
            try:
                broker.start(settings)
            finally:
                broker.stop(settings)
        with archive(Path(pyspark.__file__).parent):
            spark = make_session(settings, "classes")
            use(spark, settings)
            gateway: Any = spark.sparkContext._gateway
            spark.stop()
            gateway.shutdown()
            gateway.proc.stdin.close()
            gateway.proc.wait()


if __name__ == "__main__":
    main()
