"""The broker as a stream of raw records: the one place where a query reads its input."""

from __future__ import annotations

import json
from dataclasses import dataclass

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from lakehouse import checkpoints, gaps, kafka, runs, tables
from lakehouse.contracts import Contracts
from lakehouse.errors import GapError, StreamError
from lakehouse.gaps import Gap
from lakehouse.settings import Settings
from lakehouse.tables import Table

BRONZE = "bronze"


@dataclass
class Source:
    """records: what a query reads. passing: accepted gaps that lie right ahead of it."""

    records: DataFrame
    passing: list[Gap]


def read_broker(
    spark: SparkSession,
    settings: Settings,
    contracts: Contracts,
    query: str,
    table: Table,
    accept_gap: bool,
) -> Source:
    """Raw records of all topics: topic, partition, offset, timestamp, timestamp_type, key, value,
    headers.

    query, table: what reads, and the table that it writes, which is made where it is missing. A
    query without a checkpoint begins after what its table holds already. accept_gap: records that
    are gone before they were read are written down as such and passed over; else they raise
    GapError. Raises StreamError, TableError and BrokerError.
    """
    topics = contracts.topics(settings.topics.events)
    files = checkpoints.SparkFiles(spark, settings, query)
    positions = checkpoints.position(files)
    begun = checkpoints.begun(files)
    if gone := sorted({topic for topic, _ in positions} - set(topics)):
        where = checkpoints.location(settings, query)
        raise StreamError(
            f"topic {', '.join(gone)} is in checkpoint {where}, but "
            f"in no contract of {settings.contracts_dir}: give the folder that has it (--contracts)"
        )
    known = sorted({topic for topic, _ in positions})
    # One that was read before is not made anew: its offsets would begin again.
    if gone := kafka.missing_topics(settings, known):
        raise StreamError(
            f"stream {query}: {kafka.bootstrap(settings)} has no topic {', '.join(gone)} any more, "
            "which was read before: what it held and was not read is lost. If that is another "
            "broker, correct the address; else give the new topic another name (topics.events), "
            "or use another data folder (--data)"
        )
    kafka.ensure_topics(settings, [topic for topic in topics if topic not in known])
    written_from = tables.of_topics(table, kafka.topic_ids(settings, topics))
    made = tables.ensure(spark, settings, written_from)
    taken: list[Gap] = []
    if begun and (ident := checkpoints.query_id(files)) is not None:
        held = tables.transaction(
            spark, settings, table, checkpoints.application(table.full_name, ident)
        )
        checkpoints.demand_newest(files, table.full_name, held)
        ahead = checkpoints.written_ahead(files, held)
        taken = [Gap(*key, 0, end) for key, end in ahead.items()]
    begins, ends = kafka.begin_offsets(settings, topics), kafka.end_offsets(settings, topics)
    if not begun:
        written = {} if made else _written(spark, settings, topics, table)
        checkpoints.begin_anew(files, keep_start=not written)
        positions = written or positions
        if not written and query == BRONZE:
            _demand_unread(spark, settings, begins)
            _name_unread(spark, settings, begins)
    if positions:
        # A partition that was added since is read from its first record on.
        positions = dict.fromkeys(begins, 0) | positions
    found, short = gaps.ahead(positions, begins, ends)
    if short:
        raise GapError(f"stream {query}: {'; '.join(short)}: see `headwater doctor`")
    if missed := gaps.without(found, taken):
        _accept(spark, settings, query, missed, accept_gap)
    begin = positions | {(gap.topic, gap.partition): gap.end for gap in found}
    # Spark heeds it only where the checkpoint has not begun; -2 is its word for the earliest.
    start: dict[str, dict[str, int]] = {}
    for topic, partition in ends:
        start.setdefault(topic, {})[str(partition)] = begin.get((topic, partition), -2)
    options = {
        **kafka.spark_options(settings),
        "subscribe": ",".join(topics),
        "startingOffsets": json.dumps(start) if begin else "earliest",
        # Only while a gap is passed.
        "failOnDataLoss": "false" if found else "true",
        "includeHeaders": "true",
        # A consumer group of its own for each query, which a right to read can be given to by name.
        "groupIdPrefix": f"headwater-{query}",
        "maxOffsetsPerTrigger": str(settings.stream.max_offsets_per_trigger),
    }
    raw = spark.readStream.format("kafka").options(**options).load()
    return Source(raw.withColumnRenamed("timestampType", "timestamp_type"), found)


def _written(
    spark: SparkSession, settings: Settings, topics: list[str], table: Table
) -> kafka.Offsets:
    """The offset after the last record that went into the table, by topic and partition.

    Bronze has a row for each of them. Of Silver, a reconcile knows of those that left none.
    """
    highest = (
        tables.read(spark, settings, table)
        .where(F.col("topic").isin(topics))
        .groupBy("topic", "partition")
        .agg(F.max("offset").alias("offset"))
        .collect()  # one row a partition of the broker
    )
    found = {(row.topic, row.partition): row.offset + 1 for row in highest}
    if found and table.full_name != tables.bronze().full_name:
        for key, end in runs.closed_range(spark, settings).items():
            if key[0] in topics:
                found[key] = max(end, found.get(key, 0))
    return found


def _demand_unread(spark: SparkSession, settings: Settings, begins: kafka.Offsets) -> None:
    """Raises GapError where Bronze and its checkpoint are gone, records had been read, and the
    broker has let go of some: they would be written down as what nobody ever read."""
    closed = runs.closed_range(spark, settings)
    gone = [
        gaps.Gap(*key, 0, min(begin, closed[key]))
        for key, begin in sorted(begins.items())
        if begin and closed.get(key)
    ]
    if gone:
        raise GapError(
            f"stream {BRONZE}: bronze.events and its checkpoint "
            f"({checkpoints.location(settings, BRONZE)}) are both gone, and the broker has let go "
            f"of records that they had: {'; '.join(map(str, gone))}: put one of them back (with "
            "the checkpoint, `headwater replay --bronze --from-offset 0` fills the table with what "
            "the broker has), or give another data folder"
        )


def _name_unread(spark: SparkSession, settings: Settings, begins: kafka.Offsets) -> None:
    """Writes down what was gone before Bronze was begun at all: nobody has to accept it."""
    found = [gaps.Gap(*key, 0, begin) for key, begin in sorted(begins.items()) if begin]
    if found:
        tables.ensure(spark, settings, tables.gaps())
        known = gaps.accepted(spark, settings, BRONZE)
        gaps.accept(spark, settings, BRONZE, gaps.without(found, known))


def _accept(
    spark: SparkSession, settings: Settings, query: str, found: list[Gap], accept_gap: bool
) -> None:
    """Writes down the gaps that were not yet accepted; raises GapError where that is not wanted."""
    unknown = gaps.without(found, gaps.accepted(spark, settings, query))
    if unknown and query != BRONZE:
        # What Bronze does not have either was gone before anyone began, or accepted as gone.
        missed = gaps.without(unknown, gaps.accepted(spark, settings, BRONZE))
        if of_both := gaps.without(unknown, missed):
            gaps.accept(spark, settings, query, of_both)
        unknown = missed
    if unknown and not accept_gap:
        raise GapError(
            f"stream {query}: the broker let go of records before they were read: "
            f"{'; '.join(map(str, unknown))}. What no other copy of the topic has is lost; "
            "`headwater stream --accept-gap` writes that down and goes on after it. (What Bronze "
            "has and Silver missed gets its outcome from `headwater reconcile`.)"
        )
    if unknown:
        gaps.accept(spark, settings, query, unknown)
