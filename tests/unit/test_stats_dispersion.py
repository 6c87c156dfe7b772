"""
Overdispersion estimated from stable's own windows.

Bursts are geometric with mean 3, so that E[size^2] / E[size] = 5.
"""

import math

import numpy as np
import pytest
from scipy.stats import binom, poisson

from modelrollout.stats.dispersion import LEAST_PAIRS, dispersion, dispersion_of_halves


def bursts(generator, causes, size, windows=4000):
    """Events of `causes` causes per window, each bringing a geometric number of mean `size`."""
    count = generator.poisson(causes, windows)
    extra = generator.negative_binomial(np.maximum(count, 1), 1 / size)
    return [(500.0, float(k)) for k in count + np.where(count > 0, extra, 0)]


@pytest.mark.parametrize("causes", [0.05, 0.5, 5.0, 50.0])
def test_bursts_are_measured_however_rare_they_are(causes):
    found = dispersion(bursts(np.random.default_rng(1), causes, 3), caution=0.0, widest=1)
    assert found == pytest.approx(5.0, rel=0.12)


def lasting(generator, seconds, windows=2880, width=5.0, causes_per_window=1.5):
    """Each of a burst's events falls anywhere into the `seconds` after its begin."""
    begins = generator.uniform(0, windows * width, generator.poisson(causes_per_window * windows))
    times = np.repeat(begins, generator.geometric(1 / 3, len(begins)))
    times += generator.uniform(0, seconds, len(times))
    counts, _ = np.histogram(times, bins=windows, range=(0, windows * width))
    return [(500.0, float(k)) for k in counts]


@pytest.mark.parametrize("seconds", [2, 20, 60])
def test_a_burst_that_is_cut_up_by_windows_is_measured_at_a_larger_width(seconds):
    """Four hours; with windows of 5 s a burst of 20 s seems to be none."""
    windows = lasting(np.random.default_rng(6), seconds)
    assert dispersion(windows, caution=0.0, widest=16) == pytest.approx(5.0, rel=0.25)
    assert dispersion(windows, caution=0.0, widest=1) < {2: 4.5, 20: 1.3, 60: 1.3}[seconds]


def test_what_narrow_windows_say_is_not_enough_for_wide_ones():
    """The rule: windows of 30 s are not tempered by what windows of 5 s showed."""
    narrow = lasting(np.random.default_rng(7), 20)
    wide = [tuple(map(sum, zip(*narrow[i : i + 6], strict=True))) for i in range(0, 2880, 6)]
    assert dispersion(wide, caution=0.0, widest=1) > 2.5 * dispersion(narrow, widest=1)
    assert dispersion(narrow, widest=16) == pytest.approx(dispersion(wide), rel=0.35)


def test_a_burst_shorter_than_a_window_loses_little_at_its_edges():
    windows = lasting(np.random.default_rng(8), 0.5)
    assert dispersion(windows, caution=0.0, widest=1) > 0.85 * 5


# --- halves -----------------------------------------------------------------------------------


def together(one, other):
    return [(*x, *y) for x, y in zip(one, other, strict=True)]


def halves(generator, rates, difference=0.0):
    """Independent events of both halves at these rates per window; one has more of them."""
    one, other = (generator.poisson(rates * (1 + sign * difference)) for sign in (1, -1))
    return [(250.0, float(k), 250.0, float(j)) for k, j in zip(one, other, strict=True)]


@pytest.mark.parametrize("seconds", [0.01, 5, 20])
def test_bursts_of_one_half_are_measured_however_long_they_last(seconds):
    generator = np.random.default_rng(11)
    windows = together(*(lasting(generator, seconds, causes_per_window=0.8) for _ in range(2)))
    assert dispersion_of_halves(windows, caution=0.0) == pytest.approx(5.0, rel=0.3)


def test_halves_of_unequal_size_are_measured_too():
    generator = np.random.default_rng(12)
    many = lasting(generator, 5, causes_per_window=1.6)
    few = [(n / 4, k) for n, k in lasting(generator, 5, causes_per_window=0.4)]
    assert dispersion_of_halves(together(many, few), caution=0.0) == pytest.approx(5.0, rel=0.3)


WINDOWS = np.arange(720)
SWINGS = 2.5 * (1 + 0.8 * np.sin(2 * np.pi * WINDOWS / 24))
INCIDENT = np.where((WINDOWS >= 300) & (WINDOWS < 420), 7.5, 2.5)


@pytest.mark.parametrize("rates", [SWINGS, INCIDENT], ids=["two minutes", "incident"])
def test_a_rate_that_moves_for_both_halves_is_no_burst_although_stable_alone_cannot_tell(rates):
    """By 80 % in two minutes; three times as many errors for ten minutes."""
    generator = np.random.default_rng(13)
    drawn = [halves(generator, rates) for _ in range(21)]
    whole = [[(n + m, k + j) for n, k, m, j in windows] for windows in drawn]
    assert np.median([dispersion(windows, widest=16) for windows in whole]) > 4
    assert np.median([dispersion(windows) for windows in whole]) < 2
    assert np.median([dispersion_of_halves(windows) for windows in drawn]) == 1.0


def test_halves_that_differ_always_are_no_burst():
    """The placebo is about these."""
    rates = np.full(720, 120.0)
    generator = np.random.default_rng(14)
    drawn = [halves(generator, rates, difference=0.1) for _ in range(21)]
    assert np.median([dispersion_of_halves(windows) for windows in drawn]) == 1.0


def test_a_pair_of_windows_expects_its_own_events_exactly():
    """Independent Poisson counts of equal rate, exposures 30 and 70, by summation."""
    n, m, rate = 30.0, 70.0, 0.05
    k, j = np.arange(40)[:, None], np.arange(40)[None, :]
    chances = poisson.pmf(k, n * rate) * poisson.pmf(j, m * rate)
    square = ((k * m - j * n) ** 2 / (n * m) * chances).sum()
    # Neighbours are independent with the same mean, so the square of a difference is the sum.
    assert square == pytest.approx(((k + j) * chances).sum())


def all_of_a_proportion(n, m, rate):
    """Counts of two groups of requests, each with the event or without, and their chances."""
    k, j = np.arange(n + 1)[:, None], np.arange(m + 1)[None, :]
    return k, j, binom.pmf(k, n, rate) * binom.pmf(j, m, rate)


@pytest.mark.parametrize("rate", [0.01, 0.3, 0.9])
def test_of_a_proportion_a_pair_of_windows_expects_less_the_more_common_the_event_is(rate):
    """By summation over binomial counts of equal rate, exposures 12 and 30."""
    n, m = 12, 30
    k, j, chances = all_of_a_proportion(n, m, rate)
    square = ((k * m - j * n) ** 2 / (n * m) * chances).sum()
    total = n + m
    assert ((k + j) * (total - k - j) / (total - 1) * chances).sum() == pytest.approx(square)
    assert square == pytest.approx(total * rate * (1 - rate))


@pytest.mark.parametrize("rate", [0.02, 0.5, 0.97])
def test_independent_requests_have_dispersion_one_however_common_the_event_is(rate):
    generator = np.random.default_rng(15)
    exposures = generator.integers(50, 500, 6000)
    events = generator.binomial(exposures, rate)
    windows = [(float(n), float(k)) for n, k in zip(exposures, events, strict=True)]
    halves = [(*one, *other) for one, other in zip(windows[::2], windows[1::2], strict=True)]
    for function, table in ((dispersion, windows), (dispersion_of_halves, halves)):
        found = function(table, of_proportion=True, caution=0.0, widest=1)
        assert found == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("rate", [0.02, 0.5, 0.9])
def test_requests_that_share_their_outcome_by_fives_have_dispersion_five(rate):
    """Rare, common or usual: where half of them have the event, counts alone vary by 2.5."""
    generator = np.random.default_rng(16)
    windows = [(500.0, 5.0 * k) for k in generator.binomial(100, rate, 4000)]
    found = dispersion(windows, of_proportion=True, caution=0.0, widest=1)
    assert found == pytest.approx(5.0, rel=0.08)
    halves = [(*one, *other) for one, other in zip(windows[::2], windows[1::2], strict=True)]
    found = dispersion_of_halves(halves, of_proportion=True, caution=0.0, widest=1)
    assert found == pytest.approx(5.0, rel=0.12)


def test_where_every_request_has_the_event_nothing_varies():
    assert dispersion([(50.0, 50.0)] * 40, of_proportion=True) == 1.0


def test_windows_without_one_half_say_nothing():
    assert dispersion_of_halves([(10.0, 8.0, 0.0, 0.0), (10.0, 0.0, 10.0, 8.0)] * 50) == 1.0
    assert dispersion_of_halves([]) == 1.0


# --- what both have in common -----------------------------------------------------------------


@pytest.mark.parametrize("windows", [60, 120, 720])
def test_calm_counts_are_seldom_taken_for_bursts(windows):
    generator = np.random.default_rng(10)
    counts = generator.poisson(5, (200, windows))
    found = [dispersion([(500.0, float(k)) for k in row]) for row in counts]
    found += [
        dispersion_of_halves(
            [(250.0, float(k), 250.0, float(j)) for k, j in zip(a, b, strict=True)]
        )
        for a, b in zip(*generator.poisson(2.5, (2, 200, windows)), strict=True)
    ]
    assert np.mean(np.array(found) > 1) < 0.15
    assert np.mean(found) < 1.15


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
    found = [dispersion(bursts(generator, 1.5, 3, windows), widest=1) for _ in range(400)]
    assert 0.7 < np.mean(np.array(found) > 5.0) < 0.95
    assert np.mean(found) < 5.0 * (1 + 6 / windows**0.5)


def test_caution_costs_little_when_the_history_is_long():
    generator = np.random.default_rng(5)
    windows = [(500.0, float(k)) for k in generator.poisson(5, 1440)]
    assert dispersion(windows) < 1.12


def test_counts_that_are_none_are_refused():
    with pytest.raises(ValueError, match="at least one window must be looked at at a time, not 0"):
        dispersion([], widest=0)
    with pytest.raises(ValueError, match="caution must be a finite number >= 0, not -1"):
        dispersion([], caution=-1)
    with pytest.raises(ValueError, match="stable's counts must be finite and >= 0, not n=1, k=-1"):
        dispersion([(1, -1)])
    with pytest.raises(ValueError, match="stable's counts must be finite and >= 0, not n=inf, k=0"):
        dispersion_of_halves([(1, 0, math.inf, 0)])
    with pytest.raises(ValueError, match="stable has more events than requests: n=1, k=2"):
        dispersion([(5, 1), (1, 2)], of_proportion=True)
