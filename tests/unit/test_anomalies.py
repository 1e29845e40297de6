"""The robust z-score, by values worked out by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch import anomalies

VALUES = st.floats(-1e6, 1e6, allow_nan=False)


def test_scores_by_hand() -> None:
    # Median 14, distances 4 2 1 0 1 2 86: their median is 2.
    past = [10.0, 12.0, 13.0, 14.0, 15.0, 16.0, 100.0]
    assert anomalies.score(14.0, past) == 0
    assert anomalies.score(20.0, past) == pytest.approx(0.6745 * 6 / 2)
    assert anomalies.score(100.0, past) == pytest.approx(0.6745 * 86 / 2)
    # More than half of the past is one value: median 5, distances 0 0 0 0 8, their mean 1.6.
    assert anomalies.score(9.0, [5.0, 5.0, 5.0, 5.0, 13.0]) == pytest.approx(4 / (1.2533 * 1.6))
    assert anomalies.score(5.1, [5.0] * 8) == math.inf
    assert anomalies.score(5.0, [5.0] * 8) == 0


@given(st.lists(VALUES, min_size=8), VALUES, st.floats(0.5, 8), st.floats(-100, 100))
def test_a_score_does_not_depend_on_the_unit(
    past: list[float], value: float, scale: float, shift: float
) -> None:
    one = anomalies.score(value, past)
    other = anomalies.score(value * scale + shift, [each * scale + shift for each in past])
    distances = sorted(abs(each - sorted(past)[len(past) // 2]) for each in past)
    # Where the distances are all but nothing, adding a shift rounds them away.
    if distances[len(past) // 2] > 1e-3 and math.isfinite(one):
        assert other == pytest.approx(one, rel=1e-3, abs=1e-3)


def test_only_what_has_a_past_is_unusual() -> None:
    past = [{"rows": float(100 + n)} for n in range(8)]
    # Median 103.5, distances 3.5 2.5 1.5 0.5 twice: their median is 2, so 3.5 begins at 10.4 away.
    assert anomalies.found({"rows": 113.0, "mean total": 9.0}, past) == {}
    assert anomalies.found({"rows": 115.0}, past) == {"rows": (115.0, 103.5)}
    assert anomalies.found({"rows": 115.0}, past[1:]) == {}
