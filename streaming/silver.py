"""Silver: every record's outcome in one commit a micro-batch; duplicates are left out.

Records are validated before they are deduplicated, so that a bad one cannot stand in for a good one
with the same id, and so that no bad time can move the watermark. Quarantined ones pass the same
operator, under their coordinates and without a time, which it never drops: one input, read once.

An event later than the watermark is dropped here. It is in Bronze, and batch.reconcile gives it its
outcome.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from lakehouse import checkpoints, tables
from lakehouse.contracts import Contracts
from lakehouse.errors import FrozenError
from lakehouse.settings import Settings
from lakehouse.silver import ACCEPTED, COORDINATES, classify
from streaming import edition, query
from streaming.edition import Edition
from streaming.source import read_broker

NAME = "silver"
METRICS = "silver"


def transform(records: DataFrame, contracts: Contracts, max_record_bytes: int) -> DataFrame:
    """Raw records to rows of silver.events, one for each (source, id) within the watermark."""
    rows = classify(records, contracts, max_record_bytes, "stream").drop("value")
    accepted = F.col("outcome") == ACCEPTED
    # The length keeps ("a", "bc") and ("ab", "c") apart. 16 bytes of SHA-256 are the state's key.
    identity = F.concat_ws(":", F.length("source"), "source", "id")
    coordinates = F.concat_ws(":", F.lit("coordinates"), *COORDINATES)
    key = F.unhex(
        F.substring(F.sha2(F.when(accepted, identity).otherwise(coordinates), 256), 1, 32)
    )
    # A clock that runs ahead, of who makes events as of who sends them, moves the watermark no
    # further than this one's. (Spark keeps the time of a batch, for when it is run again.)
    now = F.current_timestamp() + F.make_dt_interval(secs=F.lit(contracts.clock_tolerance_seconds))
    return (
        rows.withColumn("dedup_key", key)
        .withColumn("event_time", F.when(accepted, F.least("time", now)))
        .withWatermark("event_time", f"{contracts.watermark_seconds} seconds")
        .dropDuplicatesWithinWatermark(["dedup_key"])
        .drop("dedup_key", "event_time")
        .observe(
            METRICS,
            F.count_if(accepted).alias("accepted"),
            F.count_if(~accepted).alias("quarantined"),
            F.min("timestamp").cast("double").alias("oldest"),
        )
    )


def start(
    spark: SparkSession,
    settings: Settings,
    contracts: Contracts,
    available_now: bool,
    accept_gap: bool = False,
) -> query.Running:
    """Starts the query that writes silver.events.

    A batch that was cut off under other rules than those of now is ended under its own first.
    """
    files = checkpoints.SparkFiles(spark, settings, NAME)
    now = edition.current(settings, contracts)
    begun = edition.begun(files)

    def under(rules: Edition, last: int | None = None) -> query.Running:
        table = tables.silver(rules.contracts)

        def write(batch: DataFrame, app: str, number: int) -> None:
            of = checkpoints.application(table.full_name, app)
            tables.append(batch, settings, table, (of, number))

        source = read_broker(spark, settings, rules.contracts, NAME, table, accept_gap)
        rows = transform(source.records, rules.contracts, rules.max_record_bytes)
        rows = tables.conform(rows, tables.read(spark, settings, table).schema)
        if last is None:
            edition.keep(files, rules)
        give_up = partial(edition.give_up, files, rules, begun)
        passing = source.passing
        return query.start(
            spark, settings, NAME, rows, write, available_now, passing, give_up, last
        )

    kept = edition.newest(files) if begun is not None else None
    if begun is not None and kept is not None and not kept.same_rules(now):
        with suppress(FrozenError):  # of which nothing was written
            query.finish(under(kept, begun), files, begun)
    return under(now)


if __name__ == "__main__":
    from streaming.command import main

    main([NAME])
