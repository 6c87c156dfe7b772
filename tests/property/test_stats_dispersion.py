"""What must hold for the dispersion of any history."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelrollout.stats.dispersion import DOUBT, LEAST_PAIRS, LEAST_WIDE, WIDEST, dispersion

exposures = st.one_of(st.just(0.0), st.floats(1e-3, 1e4))
histories = st.lists(st.tuples(exposures, st.floats(0, 1e4)), max_size=130)
calm_or_not = st.lists(st.integers(0, 40), min_size=LEAST_PAIRS + 1, max_size=130)


@given(histories)
def test_dispersion_is_finite_and_at_least_one(windows):
    assert 1 <= dispersion(windows, widest=1) <= dispersion(windows) < math.inf


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


@given(histories)
def test_it_is_the_largest_over_windows_that_are_added_together(windows):
    found, width = [dispersion(windows, widest=1)], 2
    while width <= WIDEST and len(windows) // width >= LEAST_WIDE:
        parts = [windows[i : i + width] for i in range(0, len(windows) - width + 1, width)]
        wide = [tuple(map(math.fsum, zip(*part, strict=True))) for part in parts]
        found.append(dispersion(wide, widest=1))
        width *= 2
    assert dispersion(windows) == pytest.approx(max(found))


@given(histories, st.floats(0.01, 100))
def test_the_unit_of_exposure_does_not_matter(windows, unit):
    scaled = [(n * unit, k) for n, k in windows]
    found, again = dispersion(windows, caution=0), dispersion(scaled, caution=0)
    # An estimate on the edge of doubt may fall to either side of it by rounding.
    assert again == pytest.approx(found, rel=1e-6) or 1.0 in (found, again)


@given(histories)
def test_time_may_run_backwards(windows):
    found = dispersion(windows, widest=1)
    again = dispersion(windows[::-1], widest=1)
    assert again == pytest.approx(found, rel=1e-6) or 1.0 in (found, again)


@given(calm_or_not, st.integers(2, 9))
def test_events_that_come_in_pairs_or_more_have_so_many_times_the_dispersion(events, size):
    one = dispersion([(475.0, float(k)) for k in events], caution=0, widest=1)
    many = dispersion([(475.0, float(size * k)) for k in events], caution=0, widest=1)
    assert many == pytest.approx(size * one) if one > 1 else many >= 1
