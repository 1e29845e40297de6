"""Offsets that the broker let go of before they were read: found, named, and accepted by a person.

A gap is recorded in ops.gaps once `headwater stream --accept-gap` accepted it. The audit shows it,
and does not count its offsets as missing.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import reduce
from itertools import accumulate, groupby
from typing import TYPE_CHECKING, Any

from lakehouse import kafka, tables
from lakehouse.kafka import Offsets
from lakehouse.progress import console
from lakehouse.settings import Settings

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession


# Gone from the broker before they were read; from Bronze, once it had kept them for as long as its
# contract says; and never a record: a mark of a transaction, or what compaction took.
EXPIRED, RETIRED, VACANT = "expired", "retired", "vacant"
# How long a broker is asked, all ranges together.
ASK_SECONDS = 60.0
# From one range to the next what lies between is read, unless it is more than so many records.
FAR = 10_000


@dataclass(frozen=True, order=True)
class Gap:
    """Offsets of a partition from `begin` up to `end`, which is not in it.

    why: EXPIRED, RETIRED or VACANT.
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


def holes(
    spark: SparkSession,
    settings: Settings,
    begin: Offsets | None = None,
    end: Offsets | None = None,
) -> list[Gap]:
    """Offsets that are missing between those that Bronze holds, in order.

    begin, end: of these ranges alone, and between their limits, by topic and partition; a partition
    without a begin begins at 0.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    rows = tables.read(spark, settings, tables.bronze()).select("topic", "partition", "offset")
    found: list[Gap] = []
    if end is not None:
        begin = begin or {}
        rows = rows.where(within(Gap(*key, begin.get(key, 0), last) for key, last in end.items()))
        limits = rows.groupBy("topic", "partition").agg(
            F.min("offset").alias("first"), F.max("offset").alias("last"), F.count("*").alias("n")
        )
        whole = True
        empty = dict(end)
        for row in limits.collect():  # one row a partition of the broker
            key = row.topic, row.partition
            last = empty.pop(key)
            found += [Gap(*key, begin.get(key, 0), row.first), Gap(*key, row.last + 1, last)]
            whole = whole and row.last - row.first + 1 == row.n
        found += [Gap(*key, begin.get(key, 0), last) for key, last in empty.items()]
        found = [gap for gap in found if gap.records > 0]
        if whole:
            return sorted(found)
    partition = Window.partitionBy("topic", "partition").orderBy("offset")
    between = (
        rows.withColumn("begin", F.lag("offset").over(partition) + 1)
        .where("offset > begin")
        .collect()  # one row a hole: what a broker expired or a transaction marked, not records
    )
    found += [Gap(row.topic, row.partition, row.begin, row.offset) for row in between]
    return sorted(found)


def vacant(settings: Settings, found: Iterable[Gap]) -> list[Gap]:
    """Those ranges in which the broker has no record: marks of transactions, what compaction took.

    Of a range that the broker does not hold any more nobody can say so; those that were not asked
    for within ASK_SECONDS are left out, too. Raises BrokerError.
    """
    from confluent_kafka import Consumer

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
    empty: list[Gap] = []
    deadline = time.monotonic() + ASK_SECONDS
    try:
        for key, of_key in groupby(wanted, key=lambda gap: (gap.topic, gap.partition)):
            held = deque(gap for gap in of_key if gap.begin >= begins.get(key, gap.end))
            for offset in _offsets(settings, consumer, troubles, held, deadline):
                # Nothing lies between the offset before and this one.
                while held and held[0].end <= offset:
                    empty.append(held.popleft())
                if held and held[0].begin <= offset:
                    held.popleft()
    finally:
        consumer.close()
    return empty


def _offsets(
    settings: Settings, consumer: Any, troubles: kafka.Troubles, held: deque[Gap], deadline: float
) -> Iterator[int]:
    """Offsets of records, and of a partition's end, in order: all from the begin of the first range
    that is held on, for as long as any is."""
    from confluent_kafka import KafkaError, TopicPartition

    at: int | None = None
    while held and time.monotonic() < deadline:
        first = held[0]
        if at is None or first.begin - at > FAR:
            at = first.begin
            consumer.assign([TopicPartition(first.topic, first.partition, at)])
        for message in consumer.consume(500, 0.1):
            error = message.error()
            if error is None or error.code() == KafkaError._PARTITION_EOF:
                at = message.offset() + 1
                yield message.offset()
            elif not error.retriable():
                raise kafka.refused(settings, troubles.telling(error))


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
    return joined(
        Gap(row.topic, row.partition, row.begin, row.end, row.asDict().get("why") or EXPIRED)
        for row in found
    )


def joined(gaps: Iterable[Gap]) -> list[Gap]:
    """The same offsets in order, with those that touch each other for the same reason as one."""
    found: list[Gap] = []
    for gap in sorted(gaps, key=lambda gap: (gap.topic, gap.partition, gap.why, gap.begin)):
        last = found[-1] if found else replace(gap, end=-1)
        same = (last.topic, last.partition, last.why) == (gap.topic, gap.partition, gap.why)
        if same and gap.begin <= last.end:
            found[-1] = replace(last, end=max(last.end, gap.end))
        else:
            found.append(gap)
    return sorted(found)


def without(found: Iterable[Gap], known: Iterable[Gap]) -> list[Gap]:
    """What of the gaps found is in none of those that are known."""
    of_partition: dict[tuple[str, int], list[Gap]] = {}
    for gap in sorted(known):
        of_partition.setdefault((gap.topic, gap.partition), []).append(gap)
    ends = {  # of all up to each: known gaps may overlap
        key: list(accumulate((gap.end for gap in gaps), max)) for key, gaps in of_partition.items()
    }
    rest: list[Gap] = []
    for gap in found:
        key = gap.topic, gap.partition
        of_key = of_partition.get(key, [])
        begin = gap.begin
        for old in of_key[bisect_right(ends.get(key, []), begin) :]:
            if old.begin >= gap.end:
                break
            if old.begin > begin:
                rest.append(replace(gap, begin=begin, end=old.begin))
            begin = max(begin, old.end)
        if begin < gap.end:
            rest.append(replace(gap, begin=begin))
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
        # Of marks of transactions there is one a transaction.
        if gap.why != VACANT:
            console().print(f"{query}: {word}: {gap}", highlight=False, soft_wrap=True)
    now = datetime.now(UTC)
    rows = [(query, gap.topic, gap.partition, gap.begin, gap.end, now, gap.why) for gap in gaps]
    schema = ", ".join(f"{name} {kind}" for name, kind in table.columns.items())
    tables.append(spark.createDataFrame(rows, schema), settings, table)
