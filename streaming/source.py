"""The broker as a stream of raw records: the one place where a query reads its input."""

from __future__ import annotations

import json

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from lakehouse import checkpoints, kafka, tables
from lakehouse.contracts import Contracts
from lakehouse.errors import StreamError
from lakehouse.settings import Settings
from lakehouse.tables import Table


def read_broker(
    spark: SparkSession, settings: Settings, contracts: Contracts, query: str, table: Table
) -> DataFrame:
    """Raw records of all topics: topic, partition, offset, timestamp, timestamp_type, key, value,
    headers.

    query, table: what reads, and the table that it writes, which is made where it is missing. A
    query without a checkpoint begins after what its table holds already.
    """
    made = tables.ensure(spark, settings, table)
    topics = contracts.topics(settings.topics.events)
    done = checkpoints.committed(checkpoints.SparkFiles(spark, settings, query))
    if gone := sorted({topic for topic, _ in done} - set(topics)):
        where = checkpoints.location(settings, query)
        raise StreamError(
            f"topic {', '.join(gone)} is in checkpoint {where}, but "
            f"in no contract of {settings.contracts_dir}: give the folder that has it (--contracts)"
        )
    kafka.ensure_topics(settings, topics)
    options = {
        **kafka.spark_options(settings),
        "subscribe": ",".join(topics),
        "startingOffsets": "earliest" if made else _start(spark, settings, topics, query, table),
        "failOnDataLoss": "true",
        "includeHeaders": "true",
        "maxOffsetsPerTrigger": str(settings.stream.max_offsets_per_trigger),
    }
    raw = spark.readStream.format("kafka").options(**options).load()
    return raw.withColumnRenamed("timestampType", "timestamp_type")


def _start(
    spark: SparkSession, settings: Settings, topics: list[str], query: str, table: Table
) -> str:
    """Spark asks for it with every start and heeds it only where there is no checkpoint yet."""
    if checkpoints.query_id(checkpoints.SparkFiles(spark, settings, query)) is not None:
        return "earliest"
    rows = tables.read(spark, settings, table)
    highest = (
        rows.where(F.col("topic").isin(topics))
        .groupBy("topic", "partition")
        .agg(F.max("offset").alias("offset"))
        .collect()  # one row a partition of the broker
    )
    if not highest:
        return "earliest"
    start: dict[str, dict[str, int]] = {}
    for topic, partition in kafka.end_offsets(settings, topics):
        start.setdefault(topic, {})[str(partition)] = -2  # Spark's word for the earliest
    for row in highest:
        if str(row.partition) in start.get(row.topic, {}):
            start[row.topic][str(row.partition)] = row.offset + 1
    return json.dumps(start)
