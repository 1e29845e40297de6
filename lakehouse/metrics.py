"""What is counted of events by type, region and currency: by the minute in the stream, by the hour
in Gold, and by both in the view that serves them.

All of it can be added up, so that minutes make an hour, and what a minute lacks or has too much can
be put right. So latencies are counted by how long they were at most: a percentile is told from such
counts, alike by each layer, as the smallest bound that enough of the events are within.
"""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING

from lakehouse.sql import when

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from lakehouse.contracts import Contracts

# What is counted by the hour in Gold, by the minute in the stream, and the view of both.
HOURS, MINUTES = ("gold", "agg_hourly_metrics"), ("silver", "minute_metrics")
SERVING = ("gold", "hourly_metrics")
KEYS = ("type", "region", "currency")
# Of an event whose contract marks no region, or that does not say it.
UNKNOWN = "unknown"
# ISO 4217 of what no currency is involved in.
NO_CURRENCY = "XXX"
# As the table's contract has it; what a region says beyond that is left out.
LONGEST_REGION = 100
# Of latencies, ms.
BOUNDS = (
    *(100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000),
    *(60_000, 300_000, 600_000, 3_600_000, 86_400_000),
)
WITHIN = {f"latency_le_{bound}": bound for bound in BOUNDS}
MONEY = "decimal(18,2)"
# An event may say that it is of the year 1: some hundred thousand of these are more than a bigint.
SUM_OF_TIME = "decimal(25,0)"
# What is counted, by column and Spark SQL type.
MEASURES = {
    "events": "bigint",
    "latency_sum_ms": SUM_OF_TIME,
    **dict.fromkeys(WITHIN, "bigint"),
    "revenue": MONEY,
}
# What is told of it, as SQL. Of whole numbers, so that no engine rounds them otherwise.
AVERAGE = "CAST(round(latency_sum_ms / events, 3) AS decimal(18,3))"
P95 = when(*((f"{name} * 100 >= events * 95", f"{bound}L") for name, bound in WITHIN.items()))


def net_amount(status: Column, amount: Column) -> Column:
    """What the shop has of a payment: negative for a refund, null where it has nothing."""
    from pyspark.sql import functions as F

    return F.when(status == "captured", amount).when(status == "refunded", -amount)


def fingerprint(contracts: Contracts) -> str:
    """What tells one way to count from another: metrics of one are no metrics of the other."""
    marks = [
        [c.name, column.name] for c in contracts.values() for column in c.columns if column.region
    ]
    counted = [marks, list(MEASURES), "payment" in contracts]
    return sha256(json.dumps(counted).encode()).hexdigest()[:16]


def measured(rows: DataFrame, contracts: Contracts, *more: str) -> DataFrame:
    """What is counted of each accepted row of silver.events: `time`, KEYS, `latency` (ms from its
    own time to the broker's, 0 where that is earlier), `revenue` (of payments), and more columns.

    An event belongs where the column says that its contract marks as region.
    """
    from pyspark.sql import functions as F

    def of(entity: str, column: str) -> Column:
        return F.when(F.col("entity") == entity, F.col(f"`{entity}`.`{column}`"))

    regions = [
        of(contract.name, column.name)
        for contract in contracts.values()
        for column in contract.columns
        if column.region
    ]
    currency = revenue = F.lit(None)
    payment = contracts.get("payment")
    if payment is not None and {"status", "amount", "currency"} <= {
        c.name for c in payment.columns
    }:
        net = net_amount(F.col("payment.status"), F.col("payment.amount"))
        currency = of("payment", "currency")
        revenue = F.when(F.col("entity") == "payment", F.coalesce(net, F.lit(0)))
    late = F.unix_millis("timestamp") - F.unix_millis("time")
    return rows.select(
        "time",
        "type",
        F.substring(F.coalesce(*regions, F.lit(UNKNOWN)), 1, LONGEST_REGION).alias("region"),
        F.coalesce(currency, F.lit(NO_CURRENCY)).alias("currency"),
        F.greatest(late, F.lit(0).cast("bigint")).alias("latency"),
        revenue.cast(MONEY).alias("revenue"),
        *more,
    )


def added(sign: Column) -> list[Column]:
    """MEASURES of what `measured` gives, for groupBy(…).agg. sign: 1 for what came, -1 for what
    went."""
    from pyspark.sql import functions as F

    one, latency = sign.cast("bigint"), F.col("latency")
    sums = {
        "events": one,
        "latency_sum_ms": one * latency.cast(SUM_OF_TIME),
        **{
            name: F.when(latency <= bound, one).otherwise(F.lit(0).cast("bigint"))
            for name, bound in WITHIN.items()
        },
        "revenue": one * F.col("revenue"),
    }
    return [F.sum(sums[name]).cast(kind).alias(name) for name, kind in MEASURES.items()]


def told() -> dict[str, Column]:
    """`latency_avg_ms` and `latency_p95_ms` (null where it is beyond all bounds) of MEASURES."""
    from pyspark.sql import functions as F

    return {"latency_avg_ms": F.expr(AVERAGE), "latency_p95_ms": F.expr(P95)}
