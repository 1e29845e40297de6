"""Facts: orders, their lines and payments from the events' last state, stock by day. Keys of
dimensions are put in later."""

from __future__ import annotations

from datetime import date

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from batch.star.dimensions import surrogate, time_key
from batch.star.history import latest
from lakehouse.metrics import net_amount
from lakehouse.sql import constant

# What stock is counted by.
PAIR = ("store_id", "product_id")
# For how long a count says what is there: one of a clock that stood at 1970 is not today's stock.
CARRIED_DAYS = 366
# States of an order whose money did not stay.
LOST = CANCELLED, RETURNED = "cancelled", "returned"


# Amounts in the reporting currency, by what they are in it.
REPORTED_ORDERS = {"reporting_total": "total", "reporting_net_total": "net_total"}
REPORTED_ITEMS = {"reporting_line_total": "line_total", "reporting_net_total": "net_total"}
REPORTED_PAYMENTS = {"reporting_net_amount": "net_amount"}


def _no_key() -> Column:
    return F.lit(None).cast("bigint")


def _not_yet(*amounts: str) -> dict[str, Column]:
    """What rates.reported puts in."""
    return dict.fromkeys(("reporting_currency", "reporting_rate", *amounts), F.lit(None))


def stayed(status: str) -> Column:
    """Whether an order's money stayed; that of an order whose state is not known did so far."""
    return F.coalesce(~F.col(status).isin(*LOST), F.lit(True))


def _if_stayed(status: str, amount: str) -> Column:
    return F.when(stayed(status), F.col(amount)).otherwise(F.lit(0)).cast("decimal(12,2)")


def orders(events: DataFrame) -> DataFrame:
    """fact_orders from the history of `order`, its keys of users, locations and stores null."""
    last = latest(events, "order_id")
    return last.withColumns(
        {
            "order_month": F.trunc("placed_at", "month"),
            "time_key": time_key("placed_at"),
            "status_at": F.col("_time"),
            "cancelled_at": F.when(F.col("status") == CANCELLED, F.col("_time")),
            "returned_at": F.when(F.col("status") == RETURNED, F.col("_time")),
            "net_total": _if_stayed("status", "total"),
            **dict.fromkeys(("user_key", "location_key", "store_key"), _no_key()),
            **_not_yet(*REPORTED_ORDERS),
        }
    )


def items(events: DataFrame) -> DataFrame:
    """fact_order_items from the history of `order_item`, what its order says still null."""
    last = latest(events, "order_id", "line_number")
    return last.withColumns(
        {
            "sold_at": F.col("_time"),
            "sold_month": F.trunc("_time", "month"),
            "time_key": time_key("_time"),
            "product_key": surrogate("product_id"),
            "user_key": _no_key(),
            **dict.fromkeys(_OF_ORDER, F.lit(None)),
            **_not_yet(*REPORTED_ITEMS),
        }
    )


# What a line has of the state of its order.
_OF_ORDER = ("order_status", "cancelled_quantity", "returned_quantity", "net_total")


def with_order(items: DataFrame, orders: DataFrame) -> DataFrame:
    """Lines with the user and state of their order, of which `orders` has all that there are."""
    known = orders.select(
        "order_id",
        F.col("user_key").alias("_user"),
        F.col("status").alias("_status"),
    )
    joined = items.drop("user_key", "order_status").join(known, "order_id", "left")
    named = joined.withColumnsRenamed({"_user": "user_key", "_status": "order_status"})

    def pieces(status: str) -> Column:
        is_so = F.col("order_status").eqNullSafe(F.lit(status))
        return F.when(is_so, F.col("quantity")).otherwise(F.lit(0))

    return named.withColumns(
        {
            "cancelled_quantity": pieces(CANCELLED),
            "returned_quantity": pieces(RETURNED),
            "net_total": _if_stayed("order_status", "line_total"),
        }
    )


def payments(events: DataFrame) -> DataFrame:
    """fact_payments from the history of `payment`, the key of its order's user still null."""
    net = net_amount(F.col("status"), F.col("amount"))
    return latest(events, "payment_id").withColumns(
        {
            "paid_at": F.col("_time"),
            "paid_month": F.trunc("_time", "month"),
            "time_key": time_key("_time"),
            "net_amount": F.coalesce(net, F.lit(0)).cast("decimal(12,2)"),
            "user_key": _no_key(),
            **_not_yet(*REPORTED_PAYMENTS),
        }
    )


def with_user(payments: DataFrame, orders: DataFrame) -> DataFrame:
    """Payments with the user of their order, of which `orders` has all that there are."""
    known = orders.select("order_id", "user_key")
    return payments.drop("user_key").join(known, "order_id", "left")


def stock(events: DataFrame, until: date) -> DataFrame:
    """fact_inventory from the history of `inventory`, the keys of its stores still null.

    A row for every day from a pair's first event to `until`, which is no earlier: the last event of
    the day, or that of an earlier one, carried forward for CARRIED_DAYS at most.
    """
    of_day = latest(events.withColumn("_day", F.to_date("_time")), *PAIR, "_day")
    next_day = F.lead("_day").over(Window.partitionBy(*PAIR).orderBy("_day"))
    last = F.least(
        F.coalesce(F.date_sub(next_day, 1), constant(until)), F.date_add("_day", CARRIED_DAYS)
    )
    days = of_day.withColumn("_last", last).withColumn(
        "snapshot_date", F.explode(F.sequence("_day", "_last"))
    )
    return days.withColumns(
        {
            "snapshot_month": F.trunc("snapshot_date", "month"),
            "product_key": surrogate("product_id"),
            "changed_at": F.col("_time"),
            "is_carried": F.col("snapshot_date") > F.col("_day"),
            "store_key": _no_key(),
        }
    )


def carried(stock: DataFrame, since: date, until: date) -> DataFrame:
    """Rows of fact_inventory of the days after `since` until `until`, from those of `since`."""
    days = F.sequence(F.date_add(constant(since), 1), constant(until))
    ahead = stock.where(F.col("snapshot_date") == constant(since)).drop("snapshot_date")
    counted = F.to_date("changed_at")
    return (
        ahead.withColumns(
            {"snapshot_date": F.explode(days), "is_carried": F.lit(True), "store_key": _no_key()}
        )
        .where(F.col("snapshot_date") <= F.date_add(counted, CARRIED_DAYS))
        .withColumn("snapshot_month", F.trunc("snapshot_date", "month"))
    )


def end_of_day(day: str) -> Column:
    """The last moment of a day, µs."""
    return F.date_add(day, 1).cast("timestamp") - F.expr("INTERVAL 1 MICROSECOND")
