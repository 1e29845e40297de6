"""Gaps, against sets of offsets."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from lakehouse.gaps import RETIRED, VACANT, Gap, ahead, joined, without

gaps = st.lists(
    st.builds(
        lambda partition, begin, length: Gap("t", partition, begin, begin + length),
        st.integers(0, 1),
        st.integers(0, 20),
        st.integers(1, 8),
    ),
    max_size=4,
)


def offsets(of: list[Gap]) -> set[tuple[int, int]]:
    return {(gap.partition, offset) for gap in of for offset in range(gap.begin, gap.end)}


@given(gaps, gaps)
def test_without_leaves_what_is_in_no_known_gap(found: list[Gap], known: list[Gap]) -> None:
    rest = without(found, known)
    assert offsets(rest) == offsets(found) - offsets(known)
    assert all(gap.records > 0 for gap in rest)


@given(gaps, st.data())
def test_joined_are_the_same_offsets_in_ranges_that_do_not_touch(
    found: list[Gap], data: st.DataObject
) -> None:
    found = [replace(gap, why=data.draw(st.sampled_from([RETIRED, VACANT]))) for gap in found]
    for why in (RETIRED, VACANT):
        mine = [gap for gap in joined(found) if gap.why == why]
        assert offsets(mine) == offsets([gap for gap in found if gap.why == why])
        for one, other in pairwise(mine):
            assert one.partition < other.partition or one.end < other.begin


def test_what_a_broker_let_go_of() -> None:
    positions = {("t", 0): 10, ("t", 1): 0, ("t", 2): 7, ("t", 3): 5}
    begins = {("t", 0): 10, ("t", 1): 3, ("t", 2): 0, ("t", 3): 5, ("t", 4): 9}
    ends = {("t", 0): 12, ("t", 1): 3, ("t", 2): 4, ("t", 3): 5, ("t", 4): 9}
    expired, short = ahead(positions, begins, ends)
    assert expired == [Gap("t", 1, 0, 3)]
    assert str(expired[0]) == "topic t partition 1: offsets 0 to 2 (3 records)"
    [line] = short
    assert line.startswith("topic t partition 2 ends at offset 4, and was read up to 7 before")
