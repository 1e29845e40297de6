"""The rules of the contracts over typed columns: cleaning, then checks. One code, two engines.

A violation is named `column.rule`. A column that could not be typed has its problem already
(lakehouse.decode), and is not called missing as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import narwhals as nw

from lakehouse import rules
from lakehouse.contracts import Column, Contract

Frame = TypeVar("Frame", nw.LazyFrame[Any], nw.DataFrame[Any])


@dataclass(frozen=True)
class Violation:
    """A boolean column of a validated frame, and the violation that it stands for."""

    flag: str
    name: str
    column: str


def validate(
    frame: Frame,
    contracts: Iterable[Contract],
    named: Callable[[Contract, Column], str],
) -> tuple[Frame, dict[str, list[Violation]]]:
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

        value_of = partial(_column, contract, named)

        for column in contract.columns:
            value = value_of(column.name)
            for cleaner in column.cleaners:
                value = rules.apply(rules.CLEANERS, cleaner, value, value_of)
            if column.cleaners:
                cleaned[named(contract, column)] = nw.when(mine).then(value)
            broken = {}
            if column.required:
                broken["required"] = mine & value_of(column.name).is_null()
            for check in column.checks:
                value = value_of(column.name)
                good = rules.apply(rules.CHECKS, check, value, value_of)
                broken[check.name] = ~value.is_null() & ~good
            for rule, expression in broken.items():
                flag = f"broken__{named(contract, column)}__{rule}"
                flags[flag] = expression
                found.append(Violation(flag, f"{column.name}.{rule}", column.name))
    # A step without expressions is an error, and contracts without cleaners or rules are none.
    for step in (cleaned, flags):
        if step:
            frame = frame.with_columns(**step)
    return frame, violations


def _column(contract: Contract, named: Callable[[Contract, Column], str], name: str) -> nw.Expr:
    return nw.col(named(contract, contract.column(name)))
