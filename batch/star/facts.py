"""Facts: orders and their lines, from the events' last state, keys of dimensions put in later."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from batch.star.dimensions import surrogate, time_key
from batch.star.history import latest

# States of an order whose money did not stay.
LOST = ("cancelled", "returned")


def orders(events: DataFrame) -> DataFrame:
    """fact_orders from the history of `order`, its keys of users and locations still null."""
    last = latest(events, "order_id")
    return last.withColumns(
        {
            "order_month": F.trunc("placed_at", "month"),
            "time_key": time_key("placed_at"),
            "status_at": F.col("_time"),
            "user_key": F.lit(None).cast("bigint"),
            "location_key": F.lit(None).cast("bigint"),
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
            "user_key": F.lit(None).cast("bigint"),
            "order_status": F.lit(None).cast("string"),
        }
    )


def with_order(items: DataFrame, orders: DataFrame) -> DataFrame:
    """Lines with the user and status of their order, of which `orders` has all that there are."""
    known = orders.select(
        "order_id",
        F.col("user_key").alias("_user"),
        F.col("status").alias("_status"),
    )
    joined = items.drop("user_key", "order_status").join(known, "order_id", "left")
    return joined.withColumnsRenamed({"_user": "user_key", "_status": "order_status"})
