"""Amounts in the currency that is reported in, by the rate of their day."""

from __future__ import annotations

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from batch.star.history import latest

RATE, AMOUNT = "decimal(18,8)", "decimal(18,2)"


def spans(events: DataFrame, reporting: str) -> DataFrame:
    """From when to when a rate holds, from the history of `exchange_rate`.

    Returns `_currency`, `_rate`, `_first` and `_next`: days; the next one has another rate, and is
    null for the last one.
    """
    of_day = latest(events.where(F.col("reporting_currency") == reporting), "currency", "rate_date")
    following = F.lead("rate_date").over(Window.partitionBy("currency").orderBy("rate_date"))
    return of_day.select(
        F.col("currency").alias("_currency"),
        F.col("rate").alias("_rate"),
        F.col("rate_date").alias("_first"),
        following.alias("_next"),
    )


def reported(
    facts: DataFrame, rates: DataFrame, reporting: str, at: str, amounts: dict[str, str]
) -> DataFrame:
    """Facts with `reporting_currency`, `reporting_rate`, and amounts in it, to two places.

    rates: as of `spans`. at: the fact's time. amounts: columns by what they are in that currency.
    Both are null where no rate of that day, nor of one before, is known.
    """
    day = F.to_date(at)
    then = (
        (F.col("currency") == F.col("_currency"))
        & (day >= F.col("_first"))
        & (F.col("_next").isNull() | (day < F.col("_next")))
    )
    joined = facts.join(F.broadcast(rates), then, "left")
    its_own = F.col("currency") == reporting
    rate = F.when(its_own, F.lit(1)).otherwise(F.col("_rate")).cast(RATE)
    return (
        joined.withColumns({"reporting_rate": rate, "reporting_currency": F.lit(reporting)})
        .withColumns(
            {
                name: F.round(F.col(amount) * F.col("reporting_rate"), 2).cast(AMOUNT)
                for name, amount in amounts.items()
            }
        )
        .drop("_currency", "_rate", "_first", "_next")
    )
