"""A histogram: which bucket a value is in, and what they add up to."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.histogram import Histogram


def test_a_histogram_counts_a_bound_in_the_bucket_that_it_ends() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.0, 1.0, 1.1, 2.0, 2.1, 100.0):
        histogram.observe(value)
    assert histogram.cumulative() == [(1.0, 2), (2.0, 4), (math.inf, 6)]
    assert histogram.total == 6
    assert histogram.sum == pytest.approx(106.2)


@given(st.lists(st.floats(0, 100)), st.lists(st.floats(0, 100), unique=True).map(sorted))
def test_a_histogram_is_how_many_values_are_not_above_each_bound(
    values: list[float], bounds: list[float]
) -> None:
    histogram = Histogram(bounds)
    for value in values:
        histogram.observe(value)
    assert histogram.cumulative() == [
        (bound, sum(value <= bound for value in values)) for bound in (*bounds, math.inf)
    ]
    assert histogram.total == len(values)
