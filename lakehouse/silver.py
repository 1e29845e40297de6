"""What a Silver row is made of: one function from raw records to classified ones.

The stream and whatever judges records by batch call `classify`, so that a record has the same
outcome on whichever way it comes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import narwhals as nw
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lakehouse.contracts import Column, Contract, Contracts
from lakehouse.decode import DELETED_TYPE, decode, joined, problems, split
from lakehouse.rules import ARITHMETIC
from lakehouse.sql import literal, quoted, when
from lakehouse.validate import cleaned, kept

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
    """Decoded records, clean, with all that is wrong with each in `violations`, as `joined`.

    Rules alone are expressions of Narwhals: each of its steps is a call into the JVM, which take
    longer than all else that makes this plan.
    """
    clean: dict[str, nw.Expr] = {}
    good: dict[str, nw.Expr] = {}
    for contract in contracts.values():
        column_of = nw.col(contract.name).struct.field
        for column, expression in cleaned(contract, column_of).items():
            clean[_clean(contract, column)] = expression
        if rules := _rules(kept(contract, column_of)):
            # As one struct, worked out for the contract's own rows alone.
            mine = ~nw.col(contract.name).is_null()
            good[_kept(contract)] = nw.when(mine).then(nw.struct(**rules))
    df = _with_columns(df, clean)
    df = df.withColumns(
        {
            contract.name: F.expr(_struct(contract, clean))
            for contract in contracts.values()
            if any(_clean(contract, column.name) in clean for column in contract.columns)
        }
    ).drop(*clean)
    df = _with_columns(df, good)
    names = [
        (f"{quoted(contract.name)} IS NOT NULL", _broken(contract))
        for contract in contracts.values()
    ]
    df = df.withColumn("of_columns", F.expr(when(*names)))
    return df.withColumn("violations", F.expr(joined(["problems", "of_columns"])))


def _with_columns(df: DataFrame, expressions: dict[str, nw.Expr]) -> DataFrame:
    # A step without expressions is an error, and contracts without cleaners or rules are none.
    return nw.from_native(df).with_columns(**expressions).to_native() if expressions else df


def _rules(found: dict[str, dict[str, nw.Expr]]) -> dict[str, nw.Expr]:
    return {
        _name(column, rule): expression
        for column, rules in found.items()
        for rule, expression in rules.items()
    }


def _struct(contract: Contract, clean: Collection[str]) -> str:
    """A contract's columns as one struct, of those that are cleaned the clean ones."""
    parts = []
    for column in contract.columns:
        name = _clean(contract, column.name)
        value = f"{quoted(contract.name)}.{quoted(column.name)}"
        if name in clean:
            value = quoted(name)
        if any(rule.name in ARITHMETIC for rule in column.cleaners):
            value = f"try_cast({value} AS {column.spark_type})"
        parts += [literal(column.name), value]
    there = f"{quoted(contract.name)} IS NOT NULL"
    return when((there, f"named_struct({', '.join(parts)})"))


def _clean(contract: Contract, column: str) -> str:
    return f"{contract.name}__clean__{column}"


def _kept(contract: Contract) -> str:
    return f"{contract.name}__kept"


def _name(column: str, rule: str) -> str:
    return f"{column}.{rule}"


def _broken(contract: Contract) -> str:
    """All that is wrong with the columns of a row. Of one that was deleted its key alone counts: it
    is gone, whatever it was."""
    every = joined(_names(contract, contract.columns))
    if not contract.changes:
        return every
    keys = joined(_names(contract, [c for c in contract.columns if c.primary_key]))
    return when((f"endswith(type, {literal(DELETED_TYPE)})", keys), otherwise=every)


def _names(contract: Contract, columns: Sequence[Column]) -> list[str]:
    """What is wrong with each column of a row, and every rule that it breaks; else null."""
    problem = {c.name: f"{quoted(problems(contract))}.{quoted(c.name)}" for c in columns}
    names = [problem[c.name] for c in columns if not contract.does_without(c)]
    for column in columns:
        value = f"{quoted(contract.name)}.{quoted(column.name)}"
        if column.required:
            # A column that could not be typed has its name already: missing is not another fault.
            missing = f"{value} IS NULL AND {problem[column.name]} IS NULL"
            names.append(when((missing, literal(_name(column.name, "required")))))
        for rule in column.checks:
            name = _name(column.name, rule.name)
            is_broken = f"{value} IS NOT NULL AND NOT {quoted(_kept(contract))}.{quoted(name)}"
            names.append(when((is_broken, literal(name))))
    return names
