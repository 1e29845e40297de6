"""The rule catalogue on values worked out by hand. The engines are held equal elsewhere."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import narwhals as nw
import pandas as pd
import pyarrow as pa
import pytest

from lakehouse import rules
from lakehouse.rules import Rule

CHECKS: list[tuple[str, dict[str, Any], list[Any], list[Any]]] = [
    ("email", {}, ["ann@example.com"], ["ann", "a@b", "a@@b.cd", "A@b.cd", "a b@c.de", "a@-b.de"]),
    ("phone", {}, ["+4915112345678"], ["+0491511234567", "4915112345678", "+49 151", "+49"]),
    ("length", {"min": 1, "max": 3}, ["a", "äöü", "😀😀😀"], ["", "abcd"]),
    ("matches", {"pattern": "[a-z]{2}"}, ["ab"], ["abc", "ab\n", "AB", ""]),
    ("matches", {"pattern": "[A-Z]*"}, ["A" * 100_000], ["A" * 100_000 + "!"]),
    # Whose text could be shared out in many ways, it has to be short: no million is tried.
    ("matches", {"pattern": "[A-Z]+[A-Z0-9]*"}, ["A" * 1_000], ["A" * 1_001, "A" * 999 + "!"]),
    ("matches", {"pattern": r"[+*][a-z]{1,64}\+"}, ["*ab+"], ["*ab"]),
    (
        "matches",
        {"pattern": "[0-9]+[.][0-9]{1,}[.][0-9]{0,999}[.][0-9]*"},
        ["1.2.3.4", f"{'1' * 94}.2.3.4"],
        [f"{'1' * 95}.2.3.4"],
    ),
    ("matches", {"pattern": "a*" * 9}, ["a" * 50], ["a" * 51]),
    ("one_of", {"values": ["x", "y"]}, ["x", "y"], ["X", "", "xy"]),
    ("between", {"min": 1, "max": 5}, [1, 5], [0, 6, -1]),
    (
        "between",
        {"min": Decimal("0.01")},
        [Decimal("0.01"), Decimal("99.00")],
        [Decimal("0.00"), Decimal("-1.00")],
    ),
]


def column(values: list[Any]) -> pd.DataFrame:
    kind = pa.array(values).type
    return pd.DataFrame({"v": pd.Series(values, dtype=pd.ArrowDtype(kind))})


def evaluate(catalogue: dict[str, rules.Check], rule: Rule, values: list[Any]) -> list[Any]:
    expression = rules.apply(catalogue, rule, nw.col("v"), nw.col)
    frame = nw.from_native(column(values)).select(result=expression).to_native()
    return [None if value is pd.NA else value for value in frame["result"].to_list()]


@pytest.mark.parametrize(("name", "arguments", "good", "bad"), CHECKS)
def test_checks(name: str, arguments: dict[str, Any], good: list[Any], bad: list[Any]) -> None:
    rule = Rule(name, arguments)
    assert evaluate(rules.CHECKS, rule, good) == [True] * len(good)
    assert evaluate(rules.CHECKS, rule, bad) == [False] * len(bad)


@pytest.mark.parametrize(
    ("name", "arguments", "before", "after"),
    [
        ("trim", {}, " \ta b\r\n", "a b"),
        ("trim", {}, "\u00a0a", "\u00a0a"),
        ("lower", {}, "AbC", "abc"),
        ("lower", {}, "İB", "İB"),
        ("upper", {}, "aß", "aß"),
        ("blank_to_null", {}, " \t", None),
        ("e164", {"country_code": "49"}, "0049 (151) 123-45", "+4915112345"),
        ("e164", {"country_code": "49"}, "0151/12345", "+4915112345"),
        ("e164", {"country_code": "49"}, "+49 151 12345", "+4915112345"),
        ("default", {"value_if_missing": "web"}, None, "web"),
        ("default", {"value_if_missing": "web"}, "app", "app"),
    ],
)
def test_cleaners(name: str, arguments: dict[str, Any], before: Any, after: Any) -> None:
    found = evaluate(rules.CLEANERS, Rule(name, arguments), [before, "x"])
    assert found[0] == after


@pytest.mark.parametrize(
    "pattern",
    [
        r"\d+",
        r"a\b",
        "(?=a)a",
        r"(a)\1",
        "a.b",
        "^a$",
        "[a",
        r"\w",
        "(?i)a",
        "[[]a",
        "a{",
        "a{,3}",
        r"\U00000041",
        r"x\Z",
        "[a&&b]",
        "a++",
        "a]",
        "a}",
    ],
)
def test_patterns_that_differ_by_engine_are_refused(pattern: str) -> None:
    assert rules.pattern_error(pattern) is not None


@pytest.mark.parametrize("pattern", ["[0-9]{3}", "(?:a|b)+", "[.]", r"\.x", "[^a-z]", "P[0-9]{5}"])
def test_safe_patterns_are_taken(pattern: str) -> None:
    assert rules.pattern_error(pattern) is None


def test_a_product_stands_in_for_what_is_missing_alone() -> None:
    kinds = {"v": pa.decimal128(14, 2), "price": pa.decimal128(10, 2), "count": pa.int32()}
    rows: list[tuple[Any, Any, Any]] = [
        (Decimal("5.00"), Decimal("2.50"), 3),
        (None, Decimal("2.50"), 3),
        (None, None, 3),
        (None, Decimal("2.50"), None),
        (None, Decimal("19.99"), 0),
    ]
    frame = pd.DataFrame(
        {
            name: pd.Series(list(values), dtype=pd.ArrowDtype(kind))
            for (name, kind), values in zip(kinds.items(), zip(*rows, strict=True), strict=True)
        }
    )
    rule = Rule("product", {"column": "price", "by": "count"})
    expression = rules.apply(rules.CLEANERS, rule, nw.col("v"), nw.col)
    found = nw.from_native(frame).select(result=expression).to_native()["result"].to_list()
    wanted = [Decimal("5.00"), Decimal("7.50"), None, None, Decimal("0.00")]
    assert [None if value is pd.NA else value for value in found] == wanted
