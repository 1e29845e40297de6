"""Bronze: every record that the broker acknowledged, as it is, exactly once."""

from __future__ import annotations

from pyspark.sql import DataFrame, SparkSession

from lakehouse import checkpoints, gaps, kafka, runs, tables
from lakehouse.contracts import Contracts
from lakehouse.settings import Settings
from streaming import query
from streaming.source import read_broker

NAME = "bronze"


def start(
    spark: SparkSession,
    settings: Settings,
    contracts: Contracts,
    available_now: bool,
    accept_gap: bool = False,
) -> query.Running:
    """Starts the query that writes bronze.events."""
    table = tables.bronze()

    def write(batch: DataFrame, app: str, number: int) -> None:
        of = checkpoints.application(table.full_name, app)
        tables.append(batch, settings, table, (of, number))

    source = read_broker(spark, settings, contracts, NAME, table, accept_gap)
    if accept_gap:
        _accept_more(spark, settings, contracts)
    rows = tables.bronze_rows(source.records)
    return query.start(spark, settings, NAME, rows, write, available_now, source.passing)


def _accept_more(spark: SparkSession, settings: Settings, contracts: Contracts) -> None:
    """What went while another gap was passed: it lies behind the query now, and after that gap.

    Whatever else is missing in Bronze had been read once, and is no gap of the broker's: of the
    closed range that is all but what begins where a gap ends.
    """
    begins = kafka.begin_offsets(settings, contracts.topics(settings.topics.events))
    closed = runs.closed_range(spark, settings)
    known = gaps.accepted(spark, settings, NAME)
    gone: list[gaps.Gap] = []
    committed = checkpoints.committed(checkpoints.SparkFiles(spark, settings, NAME))
    for hole in sorted(gaps.without(gaps.holes(spark, settings, {}, committed), known)):
        key = hole.topic, hole.partition
        before = [gap.end for gap in [*known, *gone] if (gap.topic, gap.partition) == key]
        follows = hole.begin in before
        is_open = closed.get(key, 0) <= hole.begin and min(before, default=hole.end) <= hole.begin
        if hole.end <= begins.get(key, 0) and (follows or is_open):
            gone.append(hole)
    if gone:
        gaps.accept(spark, settings, NAME, gone)


if __name__ == "__main__":
    from streaming.command import main

    main([NAME])
