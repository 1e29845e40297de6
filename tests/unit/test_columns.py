"""Texts by the column, and what waits for its time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from producer.columns import Waiting, days, filled, instants, money, numbered, running, within

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The years 1700 to 2200.
MOMENTS = st.integers(-8_500_000_000_000, 7_250_000_000_000)


@given(moments=st.lists(MOMENTS, min_size=1))
def test_instants_are_those_of_the_calendar(moments: list[int]) -> None:
    wanted = [EPOCH + timedelta(milliseconds=ms) for ms in moments]
    spelt = [f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z" for moment in wanted]
    at = np.array(moments, np.int64)
    assert instants(at).to_pylist() == spelt
    assert days(at).to_pylist() == [text[:10] for text in spelt]


@given(cents=st.lists(st.integers(0, 10**12), min_size=1))
def test_money_and_numbers(cents: list[int]) -> None:
    column = np.array(cents, np.int64)
    assert money(column).to_pylist() == [f"{c // 100}.{c % 100:02d}" for c in cents]
    assert numbered("XY", column, 13).to_pylist() == [f"XY{c:013d}" for c in cents]


def test_a_template_is_filled_by_row() -> None:
    who = pa.array(["Åsa", '"'])
    found = filled("<<who>: <n>, <who>>", who=who, n=np.array([1, 2], np.int64))
    assert found.to_pylist() == ["<Åsa: 1, Åsa>", '<": 2, ">']


@given(sizes=st.lists(st.integers(0, 4), min_size=1))
def test_places_and_sums_within_groups(sizes: list[int]) -> None:
    groups = np.array(sizes, np.int64)
    assert within(groups).tolist() == [place for size in sizes for place in range(size)]
    ones = np.ones(groups.sum(), np.int64)
    assert running(ones, groups).tolist() == [place + 1 for size in sizes for place in range(size)]


@given(
    tables=st.lists(st.lists(st.integers(-400, 400)), min_size=1, max_size=6),
    span=st.integers(1, 200),
    step=st.integers(1, 300),
)
def test_what_waits_comes_once_and_in_order(tables: list[list[int]], span: int, step: int) -> None:
    """Before 1970, too, and whatever the spans: a row is taken when its time has come."""
    waiting, now, told = Waiting(span), -400, []
    number = 0
    wanted: list[tuple[int, int]] = []
    for times in tables:
        # Nothing is put whose time is over.
        later = [max(at, now) for at in times]
        rows = [(at, number + place) for place, at in enumerate(later)]
        number += len(rows)
        wanted += rows
        at, numbers = (pa.array([row[part] for row in rows], pa.int64()) for part in (0, 1))
        waiting.put(pa.table({"at": at, "number": numbers}))
        now += step
        told += taken(waiting, now)
        assert all(at < now for at, _ in told)
        assert sorted(told) == sorted(row for row in wanted if row[0] < now)
        assert told == sorted(told)
    assert told + taken(waiting, 10_000) == sorted(wanted)


def taken(waiting: Waiting, end: int) -> list[tuple[int, int]]:
    return [(row["at"], row["number"]) for row in waiting.before(end).to_pylist()]
