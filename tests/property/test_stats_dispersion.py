"""What must hold for the dispersion of any history."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelrollout.stats.dispersion import (
    DOUBT,
    LEAST_PAIRS,
    LEAST_WIDE,
    dispersion,
    dispersion_of_halves,
)

exposures = st.one_of(st.just(0.0), st.floats(1e-3, 1e4))
histories = st.lists(st.tuples(exposures, st.floats(0, 1e4)), max_size=130)
halved = st.lists(
    st.tuples(exposures, st.floats(0, 1e4), exposures, st.floats(0, 1e4)), max_size=130
)
either = st.one_of(
    st.tuples(st.just(dispersion), histories), st.tuples(st.just(dispersion_of_halves), halved)
)
calm_or_not = st.lists(st.integers(0, 40), min_size=LEAST_PAIRS + 1, max_size=130)


proportion = st.tuples(exposures, st.floats(0, 1)).map(lambda each: (each[0], each[0] * each[1]))
proportions = st.one_of(
    st.tuples(st.just(dispersion), st.lists(proportion, max_size=130)),
    st.tuples(
        st.just(dispersion_of_halves),
        st.lists(st.tuples(proportion, proportion).map(lambda two: two[0] + two[1]), max_size=130),
    ),
)


def nearly(found, again):
    """An estimate on the edge of doubt may fall to either side of it by rounding."""
    return again == pytest.approx(found, rel=1e-6) or 1.0 in (found, again)


@given(either)
def test_dispersion_is_finite_and_at_least_one(problem):
    function, windows = problem
    assert 1 <= function(windows, widest=1) <= function(windows, widest=16) < math.inf


@given(calm_or_not, st.floats(0, 3))
def test_at_one_width_it_is_the_mean_square_of_successive_differences(events, caution):
    """The Allan factor of equal exposures, and its standard error, by numpy."""
    k = np.array(events, dtype=float)
    squares, sums = np.diff(k) ** 2, k[1:] + k[:-1]
    pairs = int((sums > 0).sum())
    expected = 1.0
    if pairs >= LEAST_PAIRS:
        ratio = squares.sum() / sums.sum()
        error = np.sqrt(2 * ((squares - ratio * sums) ** 2).sum()) / sums.sum()
        if ratio > 1 + DOUBT * math.sqrt(3 / pairs):
            expected = ratio + caution * error
    found = dispersion([(475.0, x) for x in k], caution=caution, widest=1)
    assert found == pytest.approx(expected)


@given(st.lists(st.tuples(*[st.integers(0, 40)] * 2), min_size=LEAST_PAIRS + 1, max_size=130))
def test_of_equal_halves_it_is_that_of_their_difference_by_numpy(events):
    k, j = np.array(events, dtype=float).T
    squares, sums = np.diff(k - j) ** 2, (k + j)[1:] + (k + j)[:-1]
    used = sums > 0
    expected = 1.0
    if used.sum() >= LEAST_PAIRS:
        ratio = squares.sum() / sums.sum()
        if ratio > 1 + DOUBT * math.sqrt(3 / used.sum()):
            expected = ratio
    found = dispersion_of_halves([(9.0, a, 9.0, b) for a, b in events], caution=0, widest=1)
    assert found == pytest.approx(expected)


@given(either, st.sampled_from((2, 7, 16)))
def test_it_is_the_largest_over_windows_that_are_added_together(problem, widest):
    function, windows = problem
    found, width = [function(windows, widest=1)], 2
    while width <= widest and len(windows) // width >= LEAST_WIDE:
        parts = [windows[i : i + width] for i in range(0, len(windows) - width + 1, width)]
        wide = [tuple(map(math.fsum, zip(*part, strict=True))) for part in parts]
        found.append(function(wide, widest=1))
        width *= 2
    assert nearly(function(windows, widest=widest), max(found))


@given(either, st.floats(0.01, 100))
def test_the_unit_of_exposure_does_not_matter(problem, unit):
    function, windows = problem
    scaled = [tuple(x * (1 if i % 2 else unit) for i, x in enumerate(w)) for w in windows]
    assert nearly(function(windows, caution=0, widest=1), function(scaled, caution=0, widest=1))


@given(either)
def test_time_may_run_backwards(problem):
    function, windows = problem
    assert nearly(function(windows, widest=1), function(windows[::-1], widest=1))


@given(proportions)
def test_of_a_proportion_it_is_never_below_that_of_a_rate(problem):
    """It varies less by itself, so what it does vary is the more."""
    function, windows = problem
    found = function(windows, of_proportion=True, caution=0, widest=1)
    assert 1 <= found < math.inf
    of_rate = function(windows, caution=0, widest=1)
    varying = sum(0 < sum(each[1::2]) < sum(each[::2]) for each in windows)
    assert found >= of_rate * (1 - 1e-9) or varying < len(windows)


@given(proportions)
def test_of_a_proportion_either_outcome_may_be_counted(problem):
    function, windows = problem
    others = [
        tuple(w[i] if i % 2 == 0 else w[i - 1] - w[i] for i in range(len(w))) for w in windows
    ]
    found = function(windows, of_proportion=True, caution=0, widest=1)
    again = function(others, of_proportion=True, caution=0, widest=1)
    assert again == pytest.approx(found, rel=1e-3) or 1.0 in (found, again)


@given(halved)
def test_halves_have_no_order(windows):
    turned = [(m, j, n, k) for n, k, m, j in windows]
    assert nearly(dispersion_of_halves(windows), dispersion_of_halves(turned))


@given(calm_or_not, st.integers(2, 9))
def test_events_that_come_in_pairs_or_more_have_so_many_times_the_dispersion(events, size):
    one = dispersion([(475.0, float(k)) for k in events], caution=0, widest=1)
    many = dispersion([(475.0, float(size * k)) for k in events], caution=0, widest=1)
    assert many == pytest.approx(size * one) if one > 1 else many >= 1
