"""Bronze from the broker's retained range: records that it should hold and does not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from batch.replay import Range
    from lakehouse.settings import Settings


def refill(spark: SparkSession, settings: Settings, wanted: Range | None = None) -> int:
    """Appends to bronze.events what the stream has committed, the broker has, and Bronze has not.

    wanted: of this range alone; the audit goes on naming what else Bronze lacks. A running stream
    is not in its way: it writes what comes after. Returns the number of records. Raises BrokerError
    and TableError.
    """
    from pyspark.sql import Observation
    from pyspark.sql import functions as F

    from lakehouse import checkpoints, erasures, gaps, kafka, tables
    from lakehouse.errors import BrokerError
    from lakehouse.silver import COORDINATES

    files = checkpoints.SparkFiles(spark, settings, "bronze")
    committed = checkpoints.committed(files)
    topics = sorted({topic for topic, _ in committed})
    if wanted is not None and wanted.topic is not None:
        topics = [topic for topic in topics if topic == wanted.topic]
    if gone := kafka.missing_topics(settings, topics):
        raise BrokerError(
            f"{kafka.bootstrap(settings)} has no topic {', '.join(gone)} any more: nothing of it "
            "can be read again (others can: --topic)"
        )
    begins, ends = kafka.begin_offsets(settings, topics), kafka.end_offsets(settings, topics)
    start: dict[str, dict[str, int]] = {}
    stop: dict[str, dict[str, int]] = {}
    for (topic, partition), end in sorted(committed.items()):
        if (topic, partition) not in ends:
            continue
        last = min(end, ends[topic, partition])
        first = min(begins[topic, partition], last)
        start.setdefault(topic, {})[str(partition)] = first
        stop.setdefault(topic, {})[str(partition)] = last
    if not start:
        return 0
    table = tables.bronze()
    tables.ensure(spark, settings, tables.of_topics(table, kafka.topic_ids(settings, topics)))
    options = {
        **kafka.spark_options(settings),
        # Not by name: partitions that were added since are the stream's.
        "assign": json.dumps({topic: sorted(map(int, parts)) for topic, parts in start.items()}),
        "startingOffsets": json.dumps(start),
        "endingOffsets": json.dumps(stop),
        "includeHeaders": "true",
    }
    records = spark.read.format("kafka").options(**options).load()
    there = tables.read(spark, settings, table).select(*COORDINATES)
    lacking = tables.bronze_rows(records.withColumnRenamed("timestampType", "timestamp_type")).join(
        there, COORDINATES, "left_anti"
    )
    if wanted is not None:
        lacking = lacking.where(wanted.condition())
    # What maintenance removed for its age stays away.
    known = gaps.accepted(spark, settings, "bronze")
    lacking = lacking.where(~gaps.within(gap for gap in known if gap.why == gaps.RETIRED))
    counted = Observation()
    lacking = erasures.blank(spark, settings, lacking)
    tables.append(lacking.observe(counted, F.count(F.lit(1)).alias("rows")), settings, table)
    return int(counted.get["rows"])
