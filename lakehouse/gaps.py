"""Offsets that the broker let go of before they were read: found, named, and accepted by a person.

A gap is recorded in ops.gaps once `headwater stream --accept-gap` accepted it. The audit shows it,
and does not count its offsets as missing.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import reduce
from typing import TYPE_CHECKING, Any

from lakehouse import kafka, tables
from lakehouse.kafka import Offsets
from lakehouse.progress import console
from lakehouse.settings import Settings

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession


# Gone from the broker before they were read; and from Bronze, once it had kept them for as long as
# its contract says.
EXPIRED, RETIRED = "expired", "retired"
# How long a broker is asked, all ranges together.
ASK_SECONDS = 60.0


@dataclass(frozen=True, order=True)
class Gap:
    """Offsets of a partition from `begin` up to `end`, which is not in it.

    why: EXPIRED or RETIRED.
    """

    topic: str
    partition: int
    begin: int
    end: int
    why: str = field(default=EXPIRED, compare=False)

    @property
    def records(self) -> int:
        return self.end - self.begin

    def __str__(self) -> str:
        return (
            f"topic {self.topic} partition {self.partition}: offsets {self.begin} to "
            f"{self.end - 1} ({self.records:,} records)"
        )


def ahead(positions: Offsets, begins: Offsets, ends: Offsets) -> tuple[list[Gap], list[str]]:
    """What a broker has let go of before it was read.

    positions: the next offset to read; begins, ends: the first offset that the broker still has,
    and the one after its last; all by topic and partition. Returns the expired ranges, and a line
    for every partition that ends before its position: its topic was made anew, or cut off.
    """
    expired = [
        Gap(*key, position, begins[key])
        for key, position in sorted(positions.items())
        if begins.get(key, 0) > position
    ]
    short = [
        f"topic {topic} partition {partition} ends at offset {ends[topic, partition]}, and was "
        f"read up to {position} before: it was made anew, or cut off"
        for (topic, partition), position in sorted(positions.items())
        if ends.get((topic, partition), position) < position
    ]
    return expired, short


def holes(spark: SparkSession, settings: Settings) -> list[Gap]:
    """Offsets that are missing between those that Bronze holds, in order."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    partition = Window.partitionBy("topic", "partition").orderBy("offset")
    rows = tables.read(spark, settings, tables.bronze()).select("topic", "partition", "offset")
    found = (
        rows.withColumn("begin", F.lag("offset").over(partition) + 1)
        .where("offset > begin")
        .orderBy("topic", "partition", "begin")
        .collect()  # one row a hole: what a broker expired or a transaction marked, not records
    )
    return [Gap(row.topic, row.partition, row.begin, row.offset) for row in found]


def vacant(settings: Settings, found: Iterable[Gap]) -> list[Gap]:
    """Those ranges in which the broker has no record: marks of transactions, what compaction took.

    Of a range that the broker does not hold any more nobody can say so; those that were not asked
    for within ASK_SECONDS are left out, too. Raises BrokerError.
    """
    from confluent_kafka import Consumer, KafkaError, TopicPartition

    wanted = sorted(found)
    begins = kafka.begin_offsets(settings, {gap.topic for gap in wanted})
    troubles = kafka.Troubles()
    consumer: Any = kafka.client(
        Consumer,
        settings,
        troubles,
        # A group is asked for; nothing is committed to it.
        **{"group.id": "headwater-audit", "enable.auto.commit": False},
        **{"auto.offset.reset": "error", "enable.partition.eof": True},
        # As Spark reads: what a transaction took back is a record all the same.
        **{"isolation.level": "read_uncommitted"},
    )
    empty = []
    deadline = time.monotonic() + ASK_SECONDS
    try:
        for gap in wanted:
            if gap.begin < begins.get((gap.topic, gap.partition), gap.end):
                continue
            consumer.assign([TopicPartition(gap.topic, gap.partition, gap.begin)])
            at = None
            while at is None and time.monotonic() < deadline:
                message = consumer.poll(0.1)
                if message is None:
                    continue
                error = message.error()
                if error is None or error.code() == KafkaError._PARTITION_EOF:
                    at = message.offset()
                elif not error.retriable():
                    raise kafka.refused(settings, troubles.telling(error))
            if at is not None and at >= gap.end:
                empty.append(gap)
    finally:
        consumer.close()
    return empty


def ranges(rows: DataFrame, why: str) -> list[Gap]:
    """The offsets of rows as ranges without a hole. rows: topic, partition, offset."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    in_order = Window.partitionBy("topic", "partition").orderBy("offset")
    run = F.col("offset") - F.row_number().over(in_order)
    found = (
        rows.withColumn("run", run)
        .groupBy("topic", "partition", "run")
        .agg(F.min("offset").alias("begin"), (F.max("offset") + 1).alias("end"))
        .collect()  # one row a range: a few a partition of the broker
    )
    return sorted(Gap(row.topic, row.partition, row.begin, row.end, why) for row in found)


def accepted(spark: SparkSession, settings: Settings, query: str) -> list[Gap]:
    """The gaps of a query that were accepted, in order."""
    from delta.tables import DeltaTable

    table = tables.gaps()
    if not DeltaTable.isDeltaTable(spark, table.path(settings)):
        return []
    rows: DataFrame = tables.read(spark, settings, table)
    found = rows.where(rows["query"] == query).collect()  # one row a decision of a person
    return sorted(
        Gap(row.topic, row.partition, row.begin, row.end, row.asDict().get("why") or EXPIRED)
        for row in found
    )


def without(found: Iterable[Gap], known: Iterable[Gap]) -> list[Gap]:
    """What of the gaps found is in none of those that are known."""
    rest = list(found)
    for old in known:
        rest = [
            part
            for gap in rest
            for part in (
                [gap]
                if (gap.topic, gap.partition) != (old.topic, old.partition)
                else [
                    replace(gap, end=min(gap.end, old.begin)),
                    replace(gap, begin=max(gap.begin, old.end)),
                ]
            )
            if part.records > 0
        ]
    return rest


def within(gaps: Iterable[Gap]) -> Column:
    """Whether a record's coordinates (topic, partition, offset) lie in one of the ranges."""
    from pyspark.sql import functions as F

    parts = [
        (F.col("topic") == gap.topic)
        & (F.col("partition") == gap.partition)
        & (F.col("offset") >= gap.begin)
        & (F.col("offset") < gap.end)
        for gap in gaps
    ]
    return reduce(lambda a, b: a | b, parts, F.lit(False))


def passed(offset: int, topic: str, partition: int, known: Iterable[Gap]) -> int:
    """The next offset to come after one, where known gaps lie ahead of it."""
    for gap in sorted(known):
        if (gap.topic, gap.partition) == (topic, partition) and gap.begin <= offset < gap.end:
            offset = gap.end
    return offset


def accept(spark: SparkSession, settings: Settings, query: str, gaps: Iterable[Gap]) -> None:
    """Records gaps of a query as accepted, now, and says so. The table has to be there."""
    table = tables.gaps()
    gaps = list(gaps)
    for gap in gaps:
        word = "accepted gap" if gap.why == EXPIRED else gap.why
        console().print(f"{query}: {word}: {gap}", highlight=False, soft_wrap=True)
    now = datetime.now(UTC)
    rows = [(query, gap.topic, gap.partition, gap.begin, gap.end, now, gap.why) for gap in gaps]
    schema = ", ".join(f"{name} {kind}" for name, kind in table.columns.items())
    tables.append(spark.createDataFrame(rows, schema), settings, table)
