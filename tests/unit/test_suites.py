"""Contracts as Great Expectations: each rule of the catalogue means the same in both."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import narwhals as nw
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import settings as profile
from hypothesis import strategies as st

from batch import quality, suites
from lakehouse import rules
from lakehouse.layouts import Layouts
from lakehouse.rules import Rule

TEXT = st.text(st.sampled_from("aAzZ09@.+-_ \n\r\té中\u0000"), max_size=8)
MAIL = st.from_regex(rf"\A{rules.EMAIL}\Z").map(lambda text: text[:300])
PHONE = st.from_regex(rf"\A{rules.E164}\Z")
TEXTS = st.lists(st.one_of(st.none(), TEXT, MAIL, PHONE, st.just("EUR\n"), st.just("EUR")))
MONEY = st.decimals(-1000, 1000, places=2, allow_nan=False)
AMOUNTS = st.lists(st.one_of(st.none(), MONEY))
MOMENTS = st.lists(st.one_of(st.none(), st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1))))
DECIMAL, MOMENT = pa.decimal128(12, 2), pa.timestamp("us")
# Every check of the catalogue, over a type that it is for.
USES: dict[str, tuple[Rule, pa.DataType, Any]] = {
    "one_of": (Rule("one_of", {"values": ["EUR", "a"]}), pa.string(), TEXTS),
    "between": (
        Rule("between", {"min": Decimal("-0.01"), "max": Decimal("500.00")}),
        DECIMAL,
        AMOUNTS,
    ),
    "length": (Rule("length", {"min": 1, "max": 3}), pa.string(), TEXTS),
    "matches": (Rule("matches", {"pattern": "[A-Z]{3}|[a-z]+"}), pa.string(), TEXTS),
    "email": (Rule("email", {}), pa.string(), TEXTS),
    "phone": (Rule("phone", {}), pa.string(), TEXTS),
    "not_before": (Rule("not_before", {"column": "other"}), MOMENT, MOMENTS),
}


def test_every_rule_has_a_use_here() -> None:
    assert set(USES) == set(rules.CHECKS)


@pytest.mark.parametrize("name", sorted(USES))
@profile(max_examples=10, deadline=None)
@given(data=st.data())
def test_a_rule_breaks_for_the_same_rows(name: str, data: st.DataObject) -> None:
    rule, kind, strategy = USES[name]
    values = data.draw(strategy)
    others = data.draw(st.permutations(values))
    columns = {"key": pa.array(range(len(values)), pa.int64())}
    columns |= {"value": pa.array(values, kind), "other": pa.array(others, kind)}
    frame = pa.table(columns).to_pandas(types_mapper=pd.ArrowDtype)
    checked = nw.from_native(frame).with_columns(
        met=rules.apply(rules.CHECKS, rule, nw.col("value"), nw.col)
    )
    broken = {
        row["key"]
        for row in checked.to_arrow().to_pylist()
        if row["value"] is not None and row["met"] is False
    }
    found: set[int] = set()
    suite = suites.Suite(Keyed, tuple(suites.of_rule("value", rule)), {}, (), None)  # type: ignore[arg-type]
    [(_, _, outcome)] = quality.validated([(suite, frame)], None, examples=len(values) + 1)
    for result in outcome.results:
        for entry in result.result.get("partial_unexpected_index_list") or []:
            keys = entry["key"]
            found |= set(keys) if isinstance(keys, list) else {keys}
    assert found == broken


@profile(max_examples=20, deadline=None)
@given(limit=MONEY)
@example(limit=Decimal("0.01"))
@example(limit=Decimal("0.07"))
def test_a_limit_itself_is_within(limit: Decimal) -> None:
    """0.01 is less than the float that stands for it, and 0.07 more."""
    cent = Decimal("0.01")
    values = [limit - cent, limit, limit + cent]
    columns = {"key": pa.array(range(3), pa.int64()), "value": pa.array(values, DECIMAL)}
    frame = pa.table(columns).to_pandas(types_mapper=pd.ArrowDtype)
    for end, beyond in (("min", 0), ("max", 2)):
        rule = Rule("between", {end: limit})
        suite = suites.Suite(Keyed, tuple(suites.of_rule("value", rule)), {}, (), None)  # type: ignore[arg-type]
        [(_, _, outcome)] = quality.validated([(suite, frame)], None)
        [result] = outcome.results
        assert result.result["unexpected_count"] == 1
        assert result.result["partial_unexpected_index_list"] == [{"key": [beyond]}]


class Keyed:
    """As much of a layout as a check asks for."""

    full_name = "gold.any"
    primary_key = ("key",)


def test_what_is_expected_of_a_dimension_and_of_a_fact(layouts: Layouts) -> None:
    users = suites.suite_of(layouts["gold.dim_users"])
    said = {
        (e.kind, *sorted(map(str, e.arguments.values())), e.critical) for e in users.expectations
    }
    for flag in ("user_key once", "customer_id, effective_from once", "customer_id in force once"):
        assert ("ExpectColumnValuesToBeInSet", "[True]", flag, True) in said
    assert ("ExpectColumnValuesToNotBeNull", "is_current", True) in said
    assert ("ExpectColumnValueLengthsToBeBetween", "20", "phone", True) in said
    assert {e.critical for e in users.expectations if "regex" in e.arguments} == {False}
    orders = suites.suite_of(layouts["gold.fact_orders"])
    assert orders.references == {
        "user_key": "dim_users",
        "location_key": "dim_location",
        "store_key": "dim_store",
        "time_key": "dim_time",
    }
    assert orders.in_force is None
    assert orders.fingerprint != users.fingerprint
    assert orders.fingerprint == suites.suite_of(layouts["gold.fact_orders"]).fingerprint


def test_moments_and_decimals_of_a_contract_are_arguments() -> None:
    since = Rule("between", {"min": datetime(2020, 1, 1, tzinfo=UTC)})
    [expectation] = suites.of_rule("at", since)
    assert expectation.arguments == {"column": "at", "min_value": datetime(2020, 1, 1, tzinfo=UTC)}
