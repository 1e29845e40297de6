"""The rules of a contract over its typed columns: cleaning, then checks. One code, every engine.

A violation is named `column.rule`.
"""

from __future__ import annotations

from collections.abc import Callable

import narwhals as nw

from lakehouse import rules
from lakehouse.contracts import Contract

ColumnOf = Callable[[str], nw.Expr]


def cleaned(contract: Contract, column_of: ColumnOf) -> dict[str, nw.Expr]:
    """Columns that have cleaners, by name, clean. column_of: the column of a name, as it came."""
    result = {}
    for column in contract.columns:
        value = column_of(column.name)
        for cleaner in column.cleaners:
            value = rules.apply(rules.CLEANERS, cleaner, value, column_of)
        if column.cleaners:
            result[column.name] = value
    return result


def kept(contract: Contract, column_of: ColumnOf) -> dict[str, dict[str, nw.Expr]]:
    """By column and rule, whether a value that is there keeps it. column_of: the column of a name,
    clean. `required` is not among them: every engine has its own word for a missing value.
    """
    return {
        column.name: {
            check.name: rules.apply(rules.CHECKS, check, column_of(column.name), column_of)
            for check in column.checks
        }
        for column in contract.columns
    }
