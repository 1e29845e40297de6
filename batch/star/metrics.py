"""Aggregates: what users have ordered, and what was sold by category and day."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from batch.star.facts import stayed

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
