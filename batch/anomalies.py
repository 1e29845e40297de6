"""What is unlike its own past: a robust z-score that a few odd values do not bend.

Modified z-score of Iglewicz and Hoaglin, How to Detect and Handle Outliers (1993): 0.6745 times the
distance to the median, over the median of these distances; above 3.5 is an outlier. Where more than
half of the past is one value that median is 0, and the mean of the distances, times 1.2533, stands
in for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, median

LIMIT = 3.5
# Fewer values than that say nothing about what is usual.
LEAST_PAST = 8


def score(value: float, past: Sequence[float]) -> float:
    """How far a value is from its past: 0 for the median, infinite where the past never changed."""
    middle = median(past)
    distance = abs(value - middle)
    if distance == 0:
        return 0.0
    distances = [abs(each - middle) for each in past]
    if typical := median(distances):
        return 0.6745 * distance / typical
    if mean := fmean(distances):
        return distance / (1.2533 * mean)
    return math.inf


def found(
    now: Mapping[str, float], past: Sequence[Mapping[str, float]]
) -> dict[str, tuple[float, float]]:
    """Metrics that are unlike their past: name to value and the median of the past."""
    odd = {}
    for name, value in now.items():
        known = [each[name] for each in past if name in each]
        if len(known) >= LEAST_PAST and score(value, known) > LIMIT:
            odd[name] = (value, median(known))
    return odd
