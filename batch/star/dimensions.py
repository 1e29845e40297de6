"""Dimensions: members by natural key, as they are now (SCD1) or as they were over time (SCD2).

A surrogate key is the first 60 bits of a SHA-256: of the natural key for a member's first row, of
the natural key and the row's effective_from for all later ones. So a member that is known from
facts alone (an inferred one) has the key that its first row will have.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from batch.star.history import committed_last, latest
from lakehouse.layouts import HOUR_PARTS, Layout

KEY_HEX_DIGITS = 15


def surrogate(natural: str, since: Column | None = None) -> Column:
    """The key of a row; since: its effective_from, None for a member's first row."""
    text = F.col(natural).cast("string")
    if since is not None:
        text = F.concat_ws("|", text, F.unix_micros(since).cast("string"))
    digits = F.substring(F.sha2(text, 256), 1, KEY_HEX_DIGITS)
    return F.conv(digits, 16, 10).cast("bigint")


def scd1(events: DataFrame, refs: DataFrame | None, layout: Layout, natural: str) -> DataFrame:
    """A row a member: the attributes of its last event.

    events: the entity's history. refs: natural keys that facts refer to. Returns the columns of
    layout; a member without events is inferred, with its attributes null.
    """
    if layout.hour_of is not None:
        # Which is the last one goes by that column, too.
        at = F.coalesce(layout.hour_of, "_time")
        parts = (F.year(at), F.month(at), F.dayofmonth(at), F.hour(at))
        made = {layout.hour_of: at, "_time": at, **dict(zip(HOUR_PARTS, parts, strict=True))}
        events = events.withColumns(made)
    if layout.of_changes is not None:
        rows = committed_last(events, layout.of_changes, natural)
    else:
        rows = latest(events, natural)
    rows = rows.withColumn("is_inferred", F.lit(False))
    if refs is not None:
        rows = rows.join(refs.select(natural).distinct(), natural, "full_outer")
    inferred = F.coalesce("is_inferred", F.lit(True))
    rows = rows.withColumns({layout.primary_key[0]: surrogate(natural), "is_inferred": inferred})
    return rows.select(*(column.name for column in layout.columns))


def scd2(events: DataFrame, refs: DataFrame | None, layout: Layout, natural: str) -> DataFrame:
    """A row for every state of a member, from its own time to that of the next.

    events: the entity's history. refs: natural key and `_at`, the time of the first fact that
    refers to it: a first row, also that of an inferred member, begins there if that is earlier.
    Events that change nothing make no row; null is a value like any other.
    """
    one_time = Window.partitionBy(natural, "_time").orderBy(
        *(F.col(name).desc() for name in ("_timestamp", "_topic", "_partition", "_offset"))
    )
    by_time = Window.partitionBy(natural).orderBy("_time")
    state = F.struct(*layout.attributes(natural))
    rows = (
        events.withColumn("_rank", F.row_number().over(one_time))
        .where("_rank = 1")
        .withColumn("_state", state)
        .withColumn("_number", F.row_number().over(by_time))
        .withColumn("_before", F.lag("_state").over(by_time))
        .where((F.col("_number") == 1) | ~F.col("_state").eqNullSafe(F.col("_before")))
        .withColumn("_number", F.row_number().over(by_time))
        .withColumn("effective_to", F.lead("_time").over(by_time))
    )
    if refs is None:
        rows = rows.withColumn("_at", F.lit(None).cast("timestamp"))
    else:
        rows = rows.join(refs, natural, "full_outer")
    inferred = F.col("_number").isNull()
    first = inferred | (F.col("_number") == 1)
    rows = rows.withColumn(
        "effective_from", F.when(first, F.least("_time", "_at")).otherwise(F.col("_time"))
    ).withColumns(
        {
            layout.primary_key[0]: F.when(first, surrogate(natural)).otherwise(
                surrogate(natural, F.col("effective_from"))
            ),
            "is_current": F.col("effective_to").isNull(),
            "is_inferred": inferred,
        }
    )
    return rows.select(*(column.name for column in layout.columns))


def in_force(
    facts: DataFrame, dimension: DataFrame, layout: Layout, natural: str, at: str
) -> DataFrame:
    """Facts with the surrogate key of the row in force at their time `at`.

    A key that a fact has stays where the dimension's rows are not those of its member.
    """
    key = layout.primary_key[0]
    rows = dimension.select(
        F.col(natural).alias("_member"),
        F.col(key).alias("_key"),
        F.col("effective_from").alias("_from"),
        F.col("effective_to").alias("_to"),
    )
    then = (
        (F.col(natural) == F.col("_member"))
        & (F.col(at) >= F.col("_from"))
        & (F.col("_to").isNull() | (F.col(at) < F.col("_to")))
    )
    joined = facts.join(rows, then, "left").withColumn(key, F.coalesce("_key", key))
    return joined.drop("_member", "_key", "_from", "_to")


def hours(spark: SparkSession, years: list[int], layout: Layout) -> DataFrame:
    """dim_time: every hour, UTC, of the years."""
    begins = spark.createDataFrame([(year,) for year in years], "year int")
    span = F.sequence(
        F.make_timestamp(F.col("year"), F.lit(1), F.lit(1), F.lit(0), F.lit(0), F.lit(0)),
        F.make_timestamp(F.col("year"), F.lit(12), F.lit(31), F.lit(23), F.lit(0), F.lit(0)),
        F.expr("INTERVAL 1 HOUR"),
    )
    starts = begins.select("year", F.explode(span).alias("starts_at"))
    day = F.to_date("starts_at")
    monday_is_one = F.weekday(day) + 1
    return starts.withColumns(
        {
            "time_key": time_key("starts_at"),
            "day": day,
            "quarter": F.quarter(day),
            "month": F.month(day),
            "day_of_month": F.dayofmonth(day),
            "hour": F.hour("starts_at"),
            "iso_week": F.weekofyear(day),
            "day_of_week": monday_is_one,
            "is_weekend": monday_is_one >= 6,
        }
    ).select(*(column.name for column in layout.columns))


def days(
    spark: SparkSession, years: list[int], layout: Layout, fiscal_year_start: int
) -> DataFrame:
    """dim_date: every day of the years. fiscal_year_start: a month, 1 to 12."""
    begins = spark.createDataFrame([(year,) for year in years], "year int")
    first, last = (F.make_date(F.col("year"), F.lit(m), F.lit(d)) for m, d in ((1, 1), (12, 31)))
    rows = begins.select("year", F.explode(F.sequence(first, last)).alias("day"))
    day, month, monday_is_one = F.col("day"), F.month("day"), F.weekday("day") + 1
    fiscal_month = fiscal_month_of(month, fiscal_year_start)
    # That of the calendar year's first months began the year before.
    ends_later = (month >= fiscal_year_start) & F.lit(fiscal_year_start > 1)
    return rows.withColumns(
        {
            "date_key": F.date_format(day, "yyyyMMdd").cast("int"),
            "quarter": F.quarter(day),
            "month": month,
            "day_of_month": F.dayofmonth(day),
            "day_of_year": F.dayofyear(day),
            "iso_year": F.date_part(F.lit("YEAROFWEEK"), day),
            "iso_week": F.weekofyear(day),
            "day_of_week": monday_is_one,
            "is_weekend": monday_is_one >= 6,
            "is_month_end": day == F.last_day(day),
            "fiscal_year": F.col("year") + ends_later.cast("int"),
            "fiscal_quarter": F.ceil(fiscal_month / 3).cast("int"),
            "fiscal_month": fiscal_month,
        }
    ).select(*(column.name for column in layout.columns))


def fiscal_month_of(month: Column, fiscal_year_start: int) -> Column:
    """1 to 12 from the month, 1 to 12, in which the fiscal year begins."""
    return F.pmod(month - fiscal_year_start, F.lit(12)) + 1


def time_key(moment: str) -> Column:
    """The hour of a moment as yyyymmddhh, the key of dim_time."""
    return F.date_format(moment, "yyyyMMddHH").cast("bigint")
