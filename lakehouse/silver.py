"""What a Silver row is made of: one function from raw records to classified ones.

The stream, the reconcile job and the replay all call `classify`, so that a record has the same
outcome on whichever way it comes.
"""

from __future__ import annotations

import narwhals as nw
from pyspark.sql import Column as SparkColumn
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lakehouse.contracts import Contract, Contracts
from lakehouse.decode import decode, flat
from lakehouse.validate import Violation, validate

ACCEPTED = "accepted"
QUARANTINED = "quarantined"
CONFLICT = "conflict"
COORDINATES = ["topic", "partition", "offset"]
# The columns of silver.events before its one struct an entity.
SILVER_COLUMNS = {
    "topic": "string",
    "partition": "int",
    "offset": "bigint",
    "timestamp": "timestamp",
    "date": "date",
    "entity": "string",
    "outcome": "string",
    "violations": "array<string>",
    "written_by": "string",
    "source": "string",
    "id": "string",
    "type": "string",
    "time": "timestamp",
    "subject": "string",
    "digest": "string",
    "key": "binary",
    "raw": "binary",
}


def silver_schema(contracts: Contracts) -> dict[str, str]:
    """Column to Spark SQL type of silver.events."""
    return SILVER_COLUMNS | {c.name: c.spark_struct for c in contracts.values()}


def classify(
    records: DataFrame, contracts: Contracts, max_record_bytes: int, written_by: str
) -> DataFrame:
    """Every raw record as a row of silver.events, accepted or quarantined. Duplicates included.

    records: topic, partition, offset, timestamp, key, value.
    written_by: `stream` or `reconcile`, kept with the row.
    Returns the columns of silver.events, and `value` for those who have to go on from the bytes.
    What filters the result has to materialise it first: pushed down into a plan of this width, a
    predicate on a computed column is written out many times over.
    """
    decoded = decode(records, contracts, max_record_bytes)
    frame, found = validate(nw.from_native(decoded), contracts.values(), flat)
    df: DataFrame = frame.to_native()
    df = df.withColumn("violations", _violations(contracts, found))
    good = F.size("violations") == 0
    df = df.withColumn("outcome", F.when(good, ACCEPTED).otherwise(QUARANTINED))
    accepted = F.col("outcome") == ACCEPTED
    return df.select(
        *COORDINATES,
        "timestamp",
        F.to_date("timestamp").alias("date"),
        "entity",
        "outcome",
        "violations",
        F.lit(written_by).alias("written_by"),
        "source",
        "id",
        "type",
        "time",
        "subject",
        "digest",
        "key",
        F.when(~accepted, F.col("value")).alias("raw"),
        "value",
        *(_struct(contract, accepted) for contract in contracts.values()),
    )


def _struct(contract: Contract, accepted: SparkColumn) -> SparkColumn:
    fields = F.struct(*(F.col(flat(contract, c)).alias(c.name) for c in contract.columns))
    mine = accepted & (F.col("entity") == contract.name)
    return F.when(mine, fields).alias(contract.name)


def _violations(contracts: Contracts, found: dict[str, list[Violation]]) -> SparkColumn:
    problems = F.col("problems")
    result = problems
    # Where there is no object, one name says it: not one more for each column that it lacks.
    has_data = ~F.arrays_overlap(problems, F.array(F.lit("data.required"), F.lit("data.type")))
    for contract in contracts.values():
        broken = []
        for violation in found[contract.name]:
            is_broken = F.col(violation.flag)
            if violation.name.endswith(".required"):
                # `x.type` says it already; x.required would be a second name for one fault.
                typed = [
                    F.array_contains(problems, f"{violation.column}.{what}")
                    for what in ("type", "format", "overflow", "precision")
                ]
                is_broken = is_broken & ~(typed[0] | typed[1] | typed[2] | typed[3])
            broken.append(F.when(is_broken, violation.name))
        if broken:
            result = F.when(
                (F.col("entity") == contract.name) & has_data,
                F.concat(problems, F.array_compact(F.array(*broken))),
            ).otherwise(result)
    return result
