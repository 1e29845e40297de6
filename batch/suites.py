"""What a table of Gold has to meet, worked out from its contract, as Great Expectations has it.

Critical, so that the table is not published: its columns; primary keys, `required` and lengths of
texts; that a surrogate key is one of the table that it references; of an SCD2 dimension, one row in
force a member, and one that begins at a time; and rules, where they are not of severity `warning`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any

import narwhals as nw

from lakehouse.rules import E164, EMAIL, Rule

if TYPE_CHECKING:
    from lakehouse.contracts import Column
    from lakehouse.layouts import Layout

# `$` would let a line end pass in Python and Java, and their words for the very end differ.
WHOLE = r"^(?:{})(?![\s\S])"


@dataclass(frozen=True)
class Expectation:
    """kind, arguments: a class of great_expectations.expectations, and what it is made with."""

    kind: str
    arguments: Mapping[str, Any]
    critical: bool = True


@dataclass(frozen=True)
class Suite:
    """What is expected of one table.

    references: column to the table whose keys it has. unique: columns that no two rows share; of
    those with `in_force` only rows in force count. All three are looked at in columns of their own,
    true where all is well: `marked` and `counted` add them.
    """

    layout: Layout
    expectations: tuple[Expectation, ...]
    references: Mapping[str, str]
    unique: tuple[tuple[str, ...], ...]
    in_force: str | None

    @cached_property
    def fingerprint(self) -> str:
        """A hash that changes with what is expected."""
        said = [(e.kind, sorted(e.arguments.items()), e.critical) for e in self.expectations]
        return hashlib.sha256(json.dumps(said, default=str).encode()).hexdigest()[:16]

    def marked(self, frame: Any, keys: Mapping[str, Any]) -> Any:
        """A pandas or Spark frame with what is known of its references.

        keys: the primary key of each table that is referenced, by the table's name, as a frame of
        the same kind.
        """
        rows = nw.from_native(frame)
        for column, table in self.references.items():
            known = nw.from_native(keys[table])
            known = known.select(nw.col(known.columns[0]).alias(column)).unique()
            known = known.with_columns(_known=nw.lit(True))
            rows = rows.join(known, on=column, how="left")
            # A fact whose order is not known yet refers to nobody.
            found = nw.when(~nw.col(column).is_null()).then(~nw.col("_known").is_null())
            rows = rows.with_columns(found.alias(_known(column, table))).drop("_known")
        return rows.to_native()

    def counted(self, frame: Any) -> Any:
        """A pandas or Spark frame with whether keys stand once. (By Narwhals: on Spark, Great
        Expectations finds no keys of rows that are not unique.)"""
        once = {_once(key): nw.len().over(*key) == 1 for key in self.unique}
        if self.in_force is not None:
            current = nw.col("is_current").cast(nw.Int64).sum().over(self.in_force)
            once[_in_force(self.in_force)] = nw.when(nw.col("is_current")).then(current == 1)
        return nw.from_native(frame).with_columns(**once).to_native()


def _known(column: str, table: str) -> str:
    return f"{column} is in {table}"


def _once(columns: tuple[str, ...]) -> str:
    return f"{', '.join(columns)} once"


def _in_force(natural: str) -> str:
    return f"{natural} in force once"


def suite_of(layout: Layout) -> Suite:
    """The suite of a table of Gold."""
    references = {c.name: c.references for c in layout.columns if c.references is not None}
    in_force = layout.natural_key if layout.scd == 2 else None
    unique = [layout.primary_key]
    if in_force is not None:
        unique.append((in_force, "effective_from"))
    flags = [_once(key) for key in unique]
    flags += [_in_force(in_force)] if in_force is not None else []
    flags += [_known(*pair) for pair in references.items()]
    expectations = [
        *(each for column in layout.columns for each in _of_column(column)),
        *(
            Expectation("ExpectColumnValuesToBeInSet", {"column": flag, "value_set": [True]})
            for flag in flags
        ),
    ]
    return Suite(layout, tuple(expectations), references, tuple(unique), in_force)


def _of_column(column: Column) -> list[Expectation]:
    here = {"column": column.name}
    found = []
    if column.required:
        found.append(Expectation("ExpectColumnValuesToNotBeNull", here))
    if column.max_length is not None:
        longest = here | {"max_value": column.max_length}
        found.append(Expectation("ExpectColumnValueLengthsToBeBetween", longest))
    for rule in column.checks:
        found += of_rule(column.name, rule)
    return found


def of_rule(column: str, rule: Rule) -> list[Expectation]:
    """A rule of the catalogue, over a column, in the words of Great Expectations."""
    given = rule.arguments

    def expect(kind: str, **arguments: Any) -> Expectation:
        return Expectation(kind, {"column": column, **arguments}, rule.critical)

    def whole(pattern: str) -> Expectation:
        return expect("ExpectColumnValuesToMatchRegex", regex=WHOLE.format(pattern))

    def long(**limits: int) -> Expectation:
        return expect("ExpectColumnValueLengthsToBeBetween", **limits)

    if rule.name == "one_of":
        return [expect("ExpectColumnValuesToBeInSet", value_set=list(given["values"]))]
    if rule.name == "between":
        limits = {f"{end}_value": _limit(given[end], end) for end in ("min", "max") if end in given}
        return [expect("ExpectColumnValuesToBeBetween", **limits)]
    if rule.name == "length":
        return [long(min_value=given.get("min", 0), max_value=given["max"])]
    if rule.name == "matches":
        return [whole(given["pattern"])]
    if rule.name == "email":
        return [whole(EMAIL), long(max_value=254)]
    if rule.name == "phone":
        return [whole(E164)]
    if rule.name == "not_before":
        pair = {"column_A": column, "column_B": given["column"], "or_equal": True}
        pair["ignore_row_if"] = "either_value_is_missing"
        return [Expectation("ExpectColumnPairValuesAToBeGreaterThanB", pair, rule.critical)]
    raise ValueError(f"rule {rule.name!r} has no expectation that stands for it")


def _limit(limit: Any, end: str) -> Any:
    """A limit that Great Expectations takes, which knows no decimals: the nearest float on its far
    side. The float of 0.01 is more than that, and 0.01 would be below it."""
    if not isinstance(limit, Decimal):
        return limit
    number = float(limit)
    if end == "min":
        return number if Decimal(number) <= limit else math.nextafter(number, -math.inf)
    return number if Decimal(number) >= limit else math.nextafter(number, math.inf)
