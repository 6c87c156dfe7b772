"""Overdispersion estimated from stable's own windows."""

import math

import numpy as np
import pytest

from modelrollout.stats.dispersion import LEAST_PAIRS, dispersion


def bursts(generator, causes, size, windows=4000):
    """Events of `causes` causes per window, each bringing a geometric number of mean `size`."""
    count = generator.poisson(causes, windows)
    extra = generator.negative_binomial(np.maximum(count, 1), 1 / size)
    return [(500.0, float(k)) for k in count + np.where(count > 0, extra, 0)]


@pytest.mark.parametrize("causes", [0.05, 0.5, 5.0, 50.0])
def test_bursts_are_measured_however_rare_they_are(causes):
    """Geometric with mean 3: E[size^2] / E[size] = 5."""
    found = dispersion(bursts(np.random.default_rng(1), causes, 3), caution=0.0)
    assert found == pytest.approx(5.0, rel=0.12)


def test_independent_events_have_dispersion_about_one():
    generator = np.random.default_rng(2)
    windows = [(500.0, float(k)) for k in generator.poisson(4, 4000)]
    assert dispersion(windows, caution=0.0) == pytest.approx(1.0, abs=0.06)


def test_unequal_exposures_and_a_slow_drift_are_not_dispersion():
    generator = np.random.default_rng(3)
    exposures = generator.integers(50, 2000, 4000).astype(float)
    rates = 0.01 * (1 + np.sin(np.arange(4000) / 600) / 2)
    windows = list(zip(exposures, generator.poisson(exposures * rates).astype(float), strict=True))
    assert dispersion(windows, caution=0.0) == pytest.approx(1.0, abs=0.07)


def test_each_pair_expects_its_own_events_exactly():
    """Given k + k' the split is binomial, and the square is then summed exactly."""
    n, m, total = 30.0, 70.0, 6
    expected = 0.0
    for k in range(total + 1):
        chance = math.comb(total, k) * 0.3**k * 0.7 ** (total - k)
        expected += chance * (k * m - (total - k) * n) ** 2 / (n * m)
    assert expected == pytest.approx(total)


def test_a_pair_repeated_has_the_dispersion_of_its_formula():
    windows = [(10.0, 8.0), (10.0, 0.0)] * 10
    assert dispersion(windows) == pytest.approx(8.0)


def test_too_little_to_go_by_is_no_dispersion():
    windows = [(10.0, 8.0), (10.0, 0.0)] * (LEAST_PAIRS // 2)
    assert dispersion(windows[:LEAST_PAIRS]) == 1.0
    assert dispersion([]) == 1.0
    assert dispersion([(10.0, 0.0)] * 100) == 1.0
    assert dispersion([(0.0, 0.0)] * 100) == 1.0


def test_it_is_never_below_one():
    assert dispersion([(10.0, 5.0)] * 50) == 1.0


@pytest.mark.parametrize("windows", [60, 1000])
def test_caution_errs_upwards_about_as_often_as_a_standard_error_should(windows):
    generator = np.random.default_rng(4)
    found = [dispersion(bursts(generator, 1.5, 3, windows)) for _ in range(400)]
    assert 0.7 < np.mean(np.array(found) > 5.0) < 0.95
    assert np.mean(found) < 5.0 * (1 + 6 / windows**0.5)


def test_caution_costs_little_when_the_history_is_long():
    generator = np.random.default_rng(5)
    windows = [(500.0, float(k)) for k in generator.poisson(5, 1440)]
    assert dispersion(windows) < 1.12


def test_counts_that_are_none_are_refused():
    with pytest.raises(ValueError, match="caution must be a finite number >= 0, not -1"):
        dispersion([], caution=-1)
    with pytest.raises(ValueError, match="stable's counts must be finite and >= 0, not n=1, k=-1"):
        dispersion([(1, -1)])
