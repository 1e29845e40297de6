"""Bronze: every record that the broker acknowledged, as it is, exactly once."""

from __future__ import annotations

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from lakehouse import gaps, kafka, tables
from lakehouse.contracts import Contracts
from lakehouse.settings import Settings
from streaming import query
from streaming.source import read_broker

NAME = "bronze"


def transform(records: DataFrame) -> DataFrame:
    """Raw records with the partition columns: date and hour of the broker's timestamp, UTC."""
    return records.withColumns({"date": F.to_date("timestamp"), "hour": F.hour("timestamp")})


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
        tables.append(batch, settings, table, (f"{table.full_name}:{app}", number))

    source = read_broker(spark, settings, contracts, NAME, table, accept_gap)
    if accept_gap:
        # What went while another gap was passed lies behind the query now.
        begins = kafka.begin_offsets(settings, contracts.topics(settings.topics.events))
        missing = gaps.without(gaps.holes(spark, settings), gaps.accepted(spark, settings, NAME))
        gone = [gap for gap in missing if gap.end <= begins.get((gap.topic, gap.partition), 0)]
        if gone:
            gaps.accept(spark, settings, NAME, gone)
    rows = transform(source.records)
    return query.start(spark, settings, NAME, rows, write, available_now, source.passing)


if __name__ == "__main__":
    from streaming.command import main

    main([NAME])
