"""Aggregates: what users have ordered, what was sold by category and day, what came by the hour."""

from __future__ import annotations

from datetime import datetime

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from batch.star import rates
from batch.star.facts import stayed
from lakehouse import metrics
from lakehouse.contracts import Contracts
from lakehouse.sql import constant

# Wide enough for the sum of a hundred million of the largest amounts that a contract takes.
SUM = "decimal(18,2)"
UNKNOWN = "unknown"


def _reporting() -> list[Column]:
    """A sum that lacks what has no rate as yet would be too small in silence."""
    amount = F.col("reporting_net_total")
    whole = F.when(F.count_if(amount.isNull()) == 0, F.sum(amount))
    currency = F.max("reporting_currency").alias("reporting_currency")
    return [currency, whole.cast(SUM).alias("reporting_revenue")]


def users(orders: DataFrame, dim_users: DataFrame) -> DataFrame:
    """agg_user_metrics of the customers whose orders these are, which have to be all of theirs."""
    totals = orders.groupBy("customer_id", "currency").agg(
        F.count("*").alias("orders"),
        F.count_if(~stayed("status")).alias("lost_orders"),
        F.sum("item_count").alias("items"),
        F.sum("total").cast(SUM).alias("gross"),
        F.sum("net_total").cast(SUM).alias("revenue"),
        F.min("placed_at").alias("first_order_at"),
        F.max("placed_at").alias("last_order_at"),
        *_reporting(),
    )
    current = dim_users.where("is_current").select("customer_id", "user_key")
    return totals.join(current, "customer_id")


def categories(items: DataFrame, dim_product: DataFrame) -> DataFrame:
    """agg_category_metrics of the days whose lines these are, which have to be all of theirs."""
    category = dim_product.select("product_id", "category_id")
    sold = items.join(category, "product_id", "left").withColumns(
        {
            "category_id": F.coalesce("category_id", F.lit(UNKNOWN)),
            "sales_date": F.to_date("sold_at"),
        }
    )
    return sold.groupBy("category_id", "sales_date", "currency").agg(
        F.count_distinct("order_id").alias("orders"),
        F.sum("quantity").alias("units"),
        F.sum("line_total").cast(SUM).alias("gross"),
        F.sum("net_total").cast(SUM).alias("revenue"),
        *_reporting(),
    )


def hours(
    events: DataFrame,
    contracts: Contracts,
    open_from: datetime | None,
    known_rates: DataFrame,
    reporting: str,
) -> DataFrame:
    """agg_hourly_metrics of the hours whose accepted rows of silver.events these are, which have to
    be all of theirs. open_from: the first hour that is not closed; None where none is.
    """
    by_hour = (
        metrics.measured(events, contracts)
        .groupBy(F.date_trunc("hour", "time").alias("hour"), *metrics.KEYS)
        .agg(*metrics.added(F.lit(1)))
        .withColumns(metrics.told())
        .withColumn("is_closed", is_closed(open_from))
    )
    return rates.reported(
        by_hour, known_rates, reporting, "hour", {"reporting_revenue": "revenue"}
    ).drop("reporting_rate")


def is_closed(open_from: datetime | None) -> Column:
    """Whether `hour` is before that one."""
    return F.lit(False) if open_from is None else F.col("hour") < constant(open_from)


def open_from(rows: DataFrame, watermark_seconds: int, now: datetime) -> datetime | None:
    """The first hour that the watermark has not passed, from accepted rows of silver.events; None
    without any.

    now: when Silver was as these rows have it. A clock that runs ahead, of who makes events as of
    who sends them, closes no hour that has not passed by then.
    """
    at = F.max(F.least("time", "timestamp", F.lit(now)))
    delay = F.make_dt_interval(secs=F.lit(watermark_seconds))
    days = rows.where(F.col("date") <= F.to_date(F.lit(now)))
    newest = days.agg(F.max("date").alias("date")).collect()[0].date
    for some in (rows.where(F.col("date") >= constant(newest)), rows):
        last, hour = some.agg(at, F.date_trunc("hour", at - delay)).collect()[0]
        # What came on an earlier day cannot be later than that day.
        if last is not None and (newest is None or last.date() >= newest):
            break
    found: datetime | None = hour
    return found
