"""Distances of histograms against scipy, and their reference against simulation."""

import math

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import chi2, entropy, ks_2samp, kstwobign, multinomial

from modelrollout.stats.counts import HARM_POINTS
from modelrollout.stats.drift import (
    jensen_shannon,
    jensen_shannon_by_chance,
    kolmogorov_smirnov,
    kolmogorov_smirnov_by_chance,
    log_bins,
    population_stability,
    population_stability_by_chance,
)
from modelrollout.stats.histograms import log_harm

REFERENCE, CURRENT = (120, 340, 280, 160, 100), (90, 300, 300, 190, 120)
SHARES = np.full(10, 0.1)


def test_the_stability_index_is_the_symmetrised_divergence():
    p, q = np.add(REFERENCE, 0.5), np.add(CURRENT, 0.5)
    assert population_stability(REFERENCE, CURRENT) == pytest.approx(entropy(p, q) + entropy(q, p))


def test_the_jensen_shannon_divergence_is_that_of_scipy():
    expected = jensenshannon(REFERENCE, CURRENT, base=2) ** 2
    assert jensen_shannon(REFERENCE, CURRENT) == pytest.approx(expected)
    assert jensen_shannon((1, 0), (0, 1)) == pytest.approx(1.0)


def test_the_kolmogorov_distance_is_that_of_the_values_when_bins_are_values():
    p, q = np.cumsum(REFERENCE) / 1000, np.cumsum(CURRENT) / 1000
    assert kolmogorov_smirnov(REFERENCE, CURRENT) == pytest.approx(max(abs(p - q)))
    assert kolmogorov_smirnov((5, 0), (0, 5)) == 1.0


def test_the_kolmogorov_distance_is_that_of_scipy():
    one, other = (np.repeat(np.arange(5), counts) for counts in (REFERENCE, CURRENT))
    expected = ks_2samp(one, other).statistic
    assert kolmogorov_smirnov(REFERENCE, CURRENT) == pytest.approx(expected)


def test_equal_shares_have_no_distance_whatever_the_size():
    for distance in (jensen_shannon, kolmogorov_smirnov):
        assert distance((10, 30), (100, 300)) == pytest.approx(0.0, abs=1e-15)


def test_the_references_are_the_published_distributions():
    scale = 1 / 500 + 1 / 2000
    expected = scale * chi2.ppf(0.95, 9)
    assert population_stability_by_chance(500, 2000, 10, 0.95) == pytest.approx(expected)
    expected /= 8 * math.log(2)
    assert jensen_shannon_by_chance(500, 2000, 10, 0.95) == pytest.approx(expected)
    expected = math.sqrt(scale) * kstwobign.ppf(0.95)
    assert kolmogorov_smirnov_by_chance(500, 2000, 0.95) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("distance", "reference", "least"),
    [
        (population_stability, population_stability_by_chance, 0.035),
        (jensen_shannon, jensen_shannon_by_chance, 0.035),
        (kolmogorov_smirnov, lambda n, m, _, level: kolmogorov_smirnov_by_chance(n, m, level), 0.0),
    ],
)
def test_equal_histograms_exceed_their_reference_as_often_as_it_says(distance, reference, least):
    """2,000 pairs: three standard errors of a share of 5 % are 1.5 %."""
    generator = np.random.default_rng(20260409)
    pairs = generator.multinomial(800, SHARES, 2000), generator.multinomial(400, SHARES, 2000)
    limit = reference(800, 400, 10, 0.95)
    share = np.mean([distance(p, q) > limit for p, q in zip(*pairs, strict=True)])
    assert least <= share <= 0.065


@pytest.mark.parametrize("shares", [(0.2, 0.3, 0.5), (0.02, 0.9, 0.08)])
def test_evidence_of_the_bins_together_expects_at_most_one_without_drift(shares):
    """Exactly, over all histograms of three bins: bins of one histogram depend on each other."""
    n, m = 7, 4

    def histograms(total):
        return [(i, j, total - i - j) for i in range(total + 1) for j in range(total - i + 1)]

    for ratio, current in ((1.0, shares), (1.25, (1.25 * shares[0], shares[1], None))):
        others = 1 - sum(x for x in current if x is not None)
        now = tuple(others if x is None else x for x in current)
        expected = sum(
            multinomial.pmf(a, n, shares)
            * multinomial.pmf(b, m, now)
            * math.exp(log_harm(log_bins(a, b, ratio=ratio)))
            for a in histograms(n)
            for b in histograms(m)
        )
        assert expected <= 1 + 1e-9


def test_evidence_per_bin_finds_a_shift_and_is_quiet_without_one():
    generator = np.random.default_rng(20260410)
    shifted = SHARES + 0.15 * (np.arange(10) == 9) - 0.15 / 10
    for shares, found in ((SHARES, False), (shifted, True)):
        total = np.zeros((10, HARM_POINTS))
        for _ in range(40):
            window = generator.multinomial(450, SHARES), generator.multinomial(50, shares)
            total += log_bins(*window)
        assert (log_harm([tuple(state) for state in total]) > math.log(100)) == found


def test_a_window_without_observations_says_nothing():
    assert log_bins((0, 0), (0, 0)) == ((0.0,) * HARM_POINTS,) * 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: population_stability((1, 2), (1, 2, 3)), "2 bins cannot be compared with 3"),
        (lambda: jensen_shannon((1,), (1,)), "at least two bins, not 1"),
        (lambda: kolmogorov_smirnov((0, 0), (1, 2)), "without observations"),
        (lambda: jensen_shannon((1, -1), (1, 2)), "counts per bin must be finite and >= 0"),
        (lambda: log_bins((1, 2), (1,)), "2 bins cannot be compared with 1"),
        (lambda: population_stability_by_chance(0, 1, 10, 0.9), "need observations, not 0 and 1"),
        (lambda: jensen_shannon_by_chance(1, 1, 1, 0.9), "at least two bins, not 1"),
        (lambda: kolmogorov_smirnov_by_chance(1, 1, 1.0), "the level must lie between 0 and 1"),
    ],
)
def test_what_has_no_distance_is_refused_with_its_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()
