"""Bounds to show: they are where the evidence crosses, and they hold at all looks."""

import math

import numpy as np
import pytest
from scipy.stats import beta

from modelrollout.stats.bounds import Bound
from modelrollout.stats.combine import log_mixture
from modelrollout.stats.counts import Sample, log_harm, log_safety
from modelrollout.stats.intervals import difference_bounds, ratio_bounds

WINDOWS = [Sample(950, 10, 50, 2), Sample(1900, 25, 100, 4), Sample(900, 8, 100, 1)] * 20
EVENTFUL = [Sample(900, 9, 300, 9)] * 20


@pytest.mark.parametrize("dispersion", [1.0, 3.0])
@pytest.mark.parametrize("windows", [WINDOWS, EVENTFUL])
def test_at_the_lower_ratio_harm_is_just_proved_and_at_the_upper_safety(windows, dispersion):
    low, _ = ratio_bounds(windows, 0.05, dispersion=dispersion)
    harm = log_mixture(log_harm(windows, Bound(low), dispersion=dispersion))
    assert harm == pytest.approx(math.log(20), abs=1e-5)
    _, high = ratio_bounds(windows, 0.05, dispersion=dispersion)
    _, high = ratio_bounds(windows, 0.05, margin=high, dispersion=dispersion)
    _, again = ratio_bounds(windows, 0.05, margin=high, dispersion=dispersion)
    safety = log_mixture(log_safety(windows, Bound(again), dispersion=dispersion))
    assert safety == pytest.approx(math.log(20), abs=0.1)


@pytest.mark.parametrize("margin", [1.5, 2.0, 4.0, 8.0])
def test_the_upper_ratio_is_below_the_margin_exactly_when_safety_is_proved(margin):
    for windows in (WINDOWS, EVENTFUL, WINDOWS[:9]):
        proved = log_mixture(log_safety(windows, Bound(margin))) >= math.log(20)
        assert (ratio_bounds(windows, 0.05, margin=margin)[1] <= margin) == proved


@pytest.mark.parametrize("dispersion", [1.0, 2.0])
@pytest.mark.parametrize("windows", [WINDOWS, EVENTFUL])
def test_at_the_bounds_of_the_difference_the_evidence_is_just_enough(windows, dispersion):
    low, high = difference_bounds(windows, 0.05, dispersion=dispersion)
    safety = log_safety(windows, Bound(1.0, high), dispersion=dispersion)
    assert log_mixture(safety) == pytest.approx(math.log(20), abs=1e-6)
    if low > 0:
        harm = log_harm(windows, Bound(1.0, low), dispersion=dispersion)
        assert log_mixture(harm) == pytest.approx(math.log(20), abs=1e-6)
    assert low < high


def test_a_difference_for_which_one_bet_has_all_the_evidence_has_bounds():
    upside_down = [Sample(145, 0, 1581, 1581), Sample(2916, 2916, 842, 0)]
    assert all(-1 < bound < 1 for bound in difference_bounds(upside_down, 0.05))


def test_bounds_enclose_the_plain_estimates():
    low, high = ratio_bounds(EVENTFUL, 0.05)
    assert low < 3.0 < high
    low, high = difference_bounds(EVENTFUL, 0.05)
    assert low < 0.02 < high


def test_without_anything_read_everything_is_possible():
    assert ratio_bounds([], 0.05) == (0.0, math.inf)
    assert difference_bounds([], 0.05) == (-math.inf, math.inf)


def test_without_events_of_stable_the_ratio_has_no_upper_bound():
    windows = [Sample(950, 0, 50, 5)] * 10
    low, high = ratio_bounds(windows, 0.05)
    assert low > 10
    assert high == math.inf
    low, high = difference_bounds(windows, 0.05)
    assert 0.04 < low < 0.1 < high < 0.25


def test_without_events_at_all_the_difference_is_bounded_by_exposure():
    low, high = difference_bounds([Sample(9500, 0, 500, 0)], 0.05)
    assert 3 / 500 < high < 6 / 500
    assert low < 0


def test_bounds_hold_at_every_look():
    """150 runs; each bound missed in at most 5 %: the lower 99 % limit does not say otherwise."""
    generator = np.random.default_rng(20260411)
    missed = np.zeros(4)
    for _ in range(150):
        n_b, n_c = generator.poisson(900, 100), generator.poisson(300, 100)
        k_b, k_c = generator.binomial(n_b, 0.02), generator.binomial(n_c, 0.03)
        windows = [Sample(*map(float, row)) for row in zip(n_b, k_b, n_c, k_c, strict=True)]
        seen = [windows[:t] for t in (2, 10, 40, 100)]
        ratios = np.array([ratio_bounds(w, 0.05) for w in seen])
        differences = np.array([difference_bounds(w, 0.05) for w in seen])
        missed += (
            (ratios[:, 0] > 1.5).any(),
            (ratios[:, 1] < 1.5).any(),
            (differences[:, 0] > 0.01).any(),
            (differences[:, 1] < 0.01).any(),
        )
    assert beta.ppf(0.01, np.maximum(missed, 1), 151 - missed).max() <= 0.05


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ratio_bounds([], 0.0), "alpha must lie between 0 and 1"),
        (lambda: ratio_bounds([], 0.05, margin=0.0), "margin must be a finite ratio above 0"),
        (lambda: difference_bounds([], 0.05, dispersion=0.5), "dispersion must be a finite number"),
    ],
)
def test_what_has_no_bounds_is_refused_with_its_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()
