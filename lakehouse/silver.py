"""What a Silver row is made of: one function from raw records to classified ones.

The stream and whatever judges records by batch call `classify`, so that a record has the same
outcome on whichever way it comes.
"""

from __future__ import annotations

import narwhals as nw
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lakehouse.contracts import Contract, Contracts
from lakehouse.decode import decode, joined, problems, split
from lakehouse.sql import literal, quoted, when
from lakehouse.validate import broken, cleaned

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
    "rescued": "string",
}


def silver_schema(contracts: Contracts) -> dict[str, str]:
    """Column to Spark SQL type of silver.events."""
    return SILVER_COLUMNS | {c.name: c.spark_struct for c in contracts.values()}


def classify(
    records: DataFrame, contracts: Contracts, max_record_bytes: int, written_by: str
) -> DataFrame:
    """Every raw record as a row of silver.events, accepted or quarantined. Duplicates included.

    records: topic, partition, offset, timestamp, key, value.
    written_by: `stream` or a job (reconcile, replay, quarantine), kept with the row.
    Returns the columns of silver.events, and `value` for those who have to go on from the bytes.
    What filters the result has to materialise it first: pushed down into a plan of this width, a
    predicate on a computed column is written out many times over.
    """
    df = _validated(decode(records, contracts, max_record_bytes), contracts)
    good = F.col("violations").isNull()
    df = df.withColumn("outcome", F.when(good, ACCEPTED).otherwise(QUARANTINED))
    accepted = F.col("outcome") == ACCEPTED
    return df.select(
        *COORDINATES,
        "timestamp",
        F.to_date("timestamp").alias("date"),
        "entity",
        "outcome",
        split(F.col("violations")).alias("violations"),
        F.lit(written_by).alias("written_by"),
        "source",
        "id",
        "type",
        "time",
        "subject",
        "digest",
        "key",
        F.when(~accepted, F.col("value")).alias("raw"),
        F.when(accepted, F.col("rescued")).alias("rescued"),
        "value",
        *(F.when(accepted, F.col(name)).alias(name) for name in contracts),
    )


def _validated(df: DataFrame, contracts: Contracts) -> DataFrame:
    """Decoded records, clean, with all that is wrong with each in `violations`, as `joined`."""
    clean: dict[str, nw.Expr] = {}
    flags: dict[str, nw.Expr] = {}
    names: list[tuple[str, str]] = []
    for contract in contracts.values():
        column_of = nw.col(contract.name).struct.field
        if expressions := cleaned(contract, column_of):
            fields = {column.name: column_of(column.name) for column in contract.columns}
            clean[contract.name] = _struct(contract, fields | expressions)
        rules = broken(contract, column_of)
        if rules:
            named = {_name(*rule): expression for rule, expression in rules.items()}
            flags[_flags(contract)] = _struct(contract, named)
        mine = f"{quoted(contract.name)} IS NOT NULL"
        names.append((mine, joined(_names(contract, list(rules)))))
    frame = nw.from_native(df)
    # A step without expressions is an error, and contracts without cleaners or rules are none.
    for step in (clean, flags):
        if step:
            frame = frame.with_columns(**step)
    df = frame.to_native().withColumn("of_columns", F.expr(when(*names)))
    return df.withColumn("violations", F.expr(joined(["problems", "of_columns"])))


def _struct(contract: Contract, fields: dict[str, nw.Expr]) -> nw.Expr:
    """Fields as one struct, worked out for the contract's own rows alone."""
    return nw.when(~nw.col(contract.name).is_null()).then(nw.struct(**fields))


def _flags(contract: Contract) -> str:
    return f"{contract.name}__broken"


def _name(column: str, rule: str) -> str:
    return f"{column}.{rule}"


def _names(contract: Contract, rules: list[tuple[str, str]]) -> list[str]:
    """What is wrong with each column of a row, and every rule that it breaks; else null."""
    problem = {c.name: f"{quoted(problems(contract))}.{quoted(c.name)}" for c in contract.columns}
    names = [problem[c.name] for c in contract.columns if not contract.does_without(c)]
    for column, rule in rules:
        named = _name(column, rule)
        is_broken = f"{quoted(_flags(contract))}.{quoted(named)}"
        if rule == "required":
            # A column that could not be typed has its name already: missing is not another fault.
            is_broken += f" AND {problem[column]} IS NULL"
        names.append(when((is_broken, literal(named))))
    return names
