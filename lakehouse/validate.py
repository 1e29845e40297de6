"""The rules of the contracts over typed columns: cleaning first, then checks. One code, two engines.

A violation is named `column.rule`. A column that could not be typed has its problem already
(lakehouse.decode), and is not called missing as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import narwhals as nw

from lakehouse import rules
from lakehouse.contracts import Column, Contract


@dataclass(frozen=True)
class Violation:
    """A boolean column of a validated frame, and the violation that it stands for."""

    flag: str
    name: str
    column: str


def validate(
    frame: nw.LazyFrame[object] | nw.DataFrame[object],
    contracts: Iterable[Contract],
    named: Callable[[Contract, Column], str],
) -> tuple[nw.LazyFrame[object] | nw.DataFrame[object], dict[str, list[Violation]]]:
    """Cleans columns in place and adds one flag a rule, true where it is broken.

    frame: `entity`, and the typed columns of the contracts, null in rows of another entity.
    named: what a contract's column is called in the frame.
    Returns the frame and, for each contract by name, what its flags stand for.
    """
    cleaned: dict[str, nw.Expr] = {}
    flags: dict[str, nw.Expr] = {}
    violations: dict[str, list[Violation]] = {}
    for contract in contracts:
        mine = nw.col("entity") == contract.name
        found = violations.setdefault(contract.name, [])

        def value_of(name: str, contract: Contract = contract) -> nw.Expr:
            return nw.col(named(contract, contract.column(name)))

        def add(
            column: Column,
            rule: str,
            broken: nw.Expr,
            contract: Contract = contract,
            found: list[Violation] = found,
        ) -> None:
            flag = f"broken__{named(contract, column)}__{len(found)}"
            flags[flag] = broken
            found.append(Violation(flag, f"{column.name}.{rule}", column.name))

        for column in contract.columns:
            value = value_of(column.name)
            for cleaner in column.cleaners:
                value = rules.apply(rules.CLEANERS, cleaner, value, value_of)
            if column.cleaners:
                cleaned[named(contract, column)] = nw.when(mine).then(value)
            if column.required:
                add(column, "required", mine & value_of(column.name).is_null())
            for check in column.checks:
                good = rules.apply(rules.CHECKS, check, value_of(column.name), value_of)
                add(column, check.name, ~good)
    return frame.with_columns(**cleaned).with_columns(**flags), violations
