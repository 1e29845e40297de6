"""Pieces of SQL: names, literals and cases as text, quoted in one place; values of Python's."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import Column

# From then on Python's dates and Java's are the same. PySpark takes older ones for Julian, and
# refuses those before the year 1000.
SAME_CALENDAR = 1583


def quoted(name: str) -> str:
    """A name as an identifier."""
    return "`{}`".format(name.replace("`", "``"))


def literal(value: str) -> str:
    """Text as a string literal."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def constant(value: Any) -> Column:
    """A value of Python's, a day or a moment of long ago as well."""
    from pyspark.sql import functions as F

    if not isinstance(value, date) or value.year >= SAME_CALENDAR:
        return F.lit(value)
    return F.lit(value.isoformat()).cast("timestamp" if isinstance(value, datetime) else "date")


def one_of(column: Column, values: Iterable[Any]) -> Column:
    """Whether a column has one of the values, days of long ago as well."""
    given = list(values)
    old = [v for v in given if isinstance(v, date) and v.year < SAME_CALENDAR]
    found = column.isin([value for value in given if value not in old])
    for value in old:
        found = found | (column == constant(value))
    return found


def when(*cases: tuple[str, str], otherwise: str = "NULL") -> str:
    """CASE over (condition, result) pairs; `otherwise` where there is none."""
    if not cases:
        return otherwise
    said = " ".join(f"WHEN {condition} THEN {result}" for condition, result in cases)
    return f"CASE {said} ELSE {otherwise} END"
