"""Metrics by the minute, from what silver.events takes in and lets go of.

Whatever else changes Silver counts as well: what a reconcile brings late is added, what it finds to
be a conflict is taken off. Nothing here is not in Silver, so that a checkpoint that is lost, or
cannot be gone on from, is begun anew: its first batch counts what Silver has of the hours that Gold
has not closed, and of some before, and takes the place of what the table holds.
"""

from __future__ import annotations

import json
from contextlib import suppress

from pyspark.errors import StreamingQueryException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from lakehouse import checkpoints, metrics, tables
from lakehouse.contracts import Contracts
from lakehouse.errors import CheckpointError, StreamError, TableError
from lakehouse.settings import Settings
from lakehouse.silver import ACCEPTED
from lakehouse.sql import one_of
from streaming import query

NAME = checkpoints.METRICS
# A file of the checkpoint: how what it has was counted.
COUNTED = "counted"
MOST_FILES = 2**31 - 1
# After so many failures, and each so many more, it is begun anew: what passes by itself is waited
# for, and a column that came while it ran is no trouble after a restart.
FAILED_ANEW = 4
# An hour takes that long, and whoever brings late what belongs to it comes after its end.
HOUR_SECONDS = 3600


def transform(changes: DataFrame, contracts: Contracts, kept_hours: int) -> DataFrame:
    """Changes of silver.events to rows of silver.minute_metrics, each with all that it has by now.

    kept_hours: how long after its time an event is still counted; as long as its hour is open it
    always is.
    """
    kept = _kept_seconds(contracts, kept_hours)
    came = F.col("_change_type").isin("insert", "update_postimage")
    # One that was erased for a person says no time any more.
    accepted = changes.where((F.col("outcome") == ACCEPTED) & F.col("time").isNotNull())
    signed = accepted.withColumn("_sign", F.when(came, 1).otherwise(-1))
    # A clock that runs ahead, of who makes events as of who sends them, moves the watermark no
    # further than this one's: the window of such an event is not that of its minute.
    ahead = F.make_dt_interval(secs=F.lit(contracts.clock_tolerance_seconds))
    return (
        metrics.measured(signed, contracts, "_sign")
        .withColumn("seen", F.least("time", F.current_timestamp() + ahead))
        .withColumn("minute", F.date_trunc("minute", "time"))
        .withWatermark("seen", f"{kept} seconds")
        .groupBy(F.window("seen", "1 minute").alias("window"), "minute", *metrics.KEYS)
        .agg(*metrics.added(F.col("_sign")))
        .withColumn("window_start", F.col("window.start"))
        .withColumn("date", F.to_date("minute"))
    )


def start(
    spark: SparkSession,
    settings: Settings,
    contracts: Contracts,
    available_now: bool,
    failures: int = 0,
) -> query.Running:
    """Starts the query that writes silver.minute_metrics. Raises TableError where there is no
    Silver, and StreamError where it is not yet as its contracts say.

    failures: how often it has failed without a batch between.
    """
    files = checkpoints.SparkFiles(spark, settings, NAME)
    silver, table = tables.silver(contracts), tables.minutes()
    tables.read(spark, settings, silver)
    try:
        tables.check(spark, settings, silver)
    except TableError as error:
        # Which the query that writes it puts right.
        raise StreamError(f"stream {NAME}: {error}") from None
    made, counted = tables.ensure(spark, settings, table), metrics.fingerprint(contracts)
    failed = failures > 0 and failures % FAILED_ANEW == 0
    how = {} if made or failed else _how(files)
    if how.get("counted") != counted:
        files.clear()
        how = {"counted": counted, "begin": _begin(spark, settings, contracts)}
        files.write(COUNTED, json.dumps(how))

    def write(batch: DataFrame, _: str, number: int) -> None:
        # Worked out once, for its state is written along with it; and one file a day is enough.
        rows = batch.localCheckpoint().coalesce(1)
        if number == 0:
            tables.overwrite(rows.where("events != 0"), settings, table)
        else:
            _put(rows, settings, table)

    changes = spark.readStream.format("delta").option("readChangeFeed", "true")
    # The first batch takes the place of the table, so it has to have all that there is.
    changes = changes.option("maxFilesPerTrigger", MOST_FILES)
    read = changes.load(silver.path(settings))
    if how["begin"] is not None:
        read = read.where(F.col("time") >= F.lit(how["begin"]).cast("timestamp"))
    rows = transform(read, contracts, settings.stream.metrics_hours)
    trigger = settings.stream.metrics_trigger
    return query.start(
        spark,
        settings,
        NAME,
        rows,
        write,
        available_now,
        [],
        trigger=trigger,
        output="update",
        derived=True,
    )


def _kept_seconds(contracts: Contracts, kept_hours: int) -> int:
    return max(kept_hours * HOUR_SECONDS, contracts.watermark_seconds + HOUR_SECONDS)


def _begin(spark: SparkSession, settings: Settings, contracts: Contracts) -> str | None:
    """From which time of events on they are counted: of closed hours, which are Gold's, as many as
    may be open again. ISO 8601; None for all, where Gold has closed none.
    """
    hours = tables.Table(*metrics.HOURS, columns={})
    if not tables.is_there(spark, settings, hours):
        return None
    closed = tables.read(spark, settings, hours).where("is_closed")
    kept = F.make_dt_interval(secs=F.lit(_kept_seconds(contracts, settings.stream.metrics_hours)))
    text = F.date_format(F.max("hour") - kept, "yyyy-MM-dd'T'HH:mm:ss'Z'")
    [row] = closed.agg(text.alias("begin")).collect()
    return None if row.begin is None else str(row.begin)


def _how(files: checkpoints.SparkFiles) -> dict[str, str | None]:
    """What COUNTED says: `counted`, a fingerprint, and `begin`. Nothing where it is not known whose
    checkpoint it is, which Spark asks before there is a query."""
    try:
        checkpoints.query_id(files)
        return dict(json.loads(files.text(COUNTED) or "{}"))
    except (CheckpointError, ValueError):
        return {}


def count(spark: SparkSession, settings: Settings, contracts: Contracts) -> None:
    """Counts all that Silver has now; once more and anew where that fails.

    Raises StreamError where that fails, too.
    """
    failure = None
    for failures in (0, FAILED_ANEW):
        running = start(spark, settings, contracts, available_now=True, failures=failures)
        with suppress(StreamingQueryException):
            running.query.awaitTermination()
        failure = running.failure()
        if failure is None:
            return
    assert failure is not None
    raise failure


def _put(rows: DataFrame, settings: Settings, table: tables.Table) -> None:
    """Rows in the place of those of the same key; the same ones again change nothing."""
    from delta.tables import DeltaTable

    days = [row.date for row in rows.select("date").distinct().collect()]
    if not days:
        return
    # A constant first: no file of another day is read.
    on = one_of(F.col("old.date"), days)
    for name in ("date", "minute", "window_start", *metrics.KEYS):
        on = on & (F.col(f"old.{name}") == F.col(f"new.{name}"))
    values = {name: F.col(f"new.{name}") for name in table.columns}
    there = F.col("new.events") != 0

    def attempt() -> None:
        (
            DeltaTable.forPath(rows.sparkSession, table.path(settings))
            .alias("old")
            .merge(rows.alias("new"), on)
            .whenMatchedDelete(~there)
            .whenMatchedUpdate(set=dict(values))
            .whenNotMatchedInsert(there, values=dict(values))
            .execute()
        )

    tables.merge(settings, table, attempt)


if __name__ == "__main__":
    from streaming.command import main

    main([NAME])
