"""
Error rates and speed of the evidence from counts, in two simulated hours with a look per window.

Fixed seeds, so a run either always passes or always fails; every bound on an error rate is held
against the upper 99 % Clopper-Pearson limit of what was counted, not against the count itself.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import beta

from modelrollout.stats.counts import Bound, log_harm_of, log_mixture_of, log_safety_of

ALPHA = 0.05
REQUESTS_PER_SECOND = 100.0
TWO_HOURS = 7200

few_and_many = pytest.mark.parametrize("runs", [1000, pytest.param(10_000, marks=pytest.mark.slow)])


@dataclass(frozen=True, kw_only=True)
class World:
    """Rates, weight and causes of events; each a number or a function of the seconds passed."""

    stable: Any = 0.01
    candidate: Any = 0.01
    weight: Any = 0.05
    burst: float = 1.0
    """Mean events per cause; above 1 the number is geometric."""
    seconds: int = TWO_HOURS
    width: int = 5


def at(value, second):
    return value(second) if callable(value) else value


def events(generator, exposures, rate, burst):
    if burst == 1:
        return generator.binomial(exposures, rate)
    causes = generator.poisson(exposures * rate / burst)
    extra = generator.negative_binomial(np.maximum(causes, 1), 1 / burst)
    return causes + np.where(causes > 0, extra, 0)


def windows(world, runs, seed):
    """Per window the counts of all runs, shape (runs, 4)."""
    generator = np.random.default_rng(seed)
    for second in range(0, world.seconds, world.width):
        weight, requests = at(world.weight, second), REQUESTS_PER_SECOND * world.width
        stable_n = generator.poisson(requests * (1 - weight), runs)
        candidate_n = generator.poisson(requests * weight, runs)
        stable_k = events(generator, stable_n, at(world.stable, second), world.burst)
        candidate_k = events(generator, candidate_n, at(world.candidate, second), world.burst)
        yield np.stack([stable_n, stable_k, candidate_n, candidate_k], axis=-1)


def requests_until(evidence, world, bound, runs, *, dispersion=1.0):
    """Candidate requests when the evidence first reached 1 / alpha; infinite where it never did."""
    state, requests = 0.0, np.zeros(runs)
    decided = np.full(runs, np.inf)
    for counts in windows(world, runs, 20260401):
        state = state + evidence(counts, bound) / dispersion
        requests += counts[:, 2]
        reached = log_mixture_of(state) >= math.log(1 / ALPHA)
        decided = np.where(reached, np.minimum(decided, requests), decided)
        if np.isfinite(decided).all():
            break
    return decided


def upper_limit(decided):
    """The 99 % upper Clopper-Pearson limit of the share of runs that were decided."""
    hits, runs = int(np.isfinite(decided).sum()), len(decided)
    return float(beta.ppf(0.99, hits + 1, runs - hits))


def lower_limit(decided):
    """The 99 % lower Clopper-Pearson limit of the share of runs that were decided."""
    hits, runs = int(np.isfinite(decided).sum()), len(decided)
    return float(beta.ppf(0.01, hits, runs - hits + 1))


def information_limit(world, bound):
    """Candidate requests that any test of level alpha needs on average, by brute force."""
    base = np.geomspace(1e-5, 0.5, 400_001)
    allowed = np.minimum(bound.ratio * base + bound.absolute, 1 - 1e-9)

    def divergence(p, q):
        return p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))

    ratio = (1 - world.weight) / world.weight
    per_request = divergence(world.candidate, allowed) + ratio * divergence(world.stable, base)
    return math.log(1 / ALPHA) / per_request.min()


def drifting_rate(second):
    """1 % rising to 3 % in two hours."""
    return 0.01 + 0.02 * second / TWO_HOURS


def rising_weight(second):
    """5, 25 and 50 %, forty minutes each."""
    return (0.05, 0.25, 0.5)[min(2, second // 2400)]


@few_and_many
def test_equal_versions_are_rarely_rolled_back(runs):
    decided = requests_until(log_harm_of, World(), Bound(1.0), runs)
    assert upper_limit(decided) <= ALPHA


@few_and_many
def test_a_candidate_exactly_at_the_tolerance_is_rarely_rolled_back(runs):
    for bound, rate in ((Bound(1.25), 0.0125), (Bound(1.0, 0.005), 0.015)):
        decided = requests_until(log_harm_of, World(candidate=rate), bound, runs)
        assert upper_limit(decided) <= ALPHA


@few_and_many
def test_a_drifting_base_rate_with_changing_weights_rolls_nothing_back(runs):
    world = World(stable=drifting_rate, candidate=drifting_rate, weight=rising_weight)
    decided = requests_until(log_harm_of, world, Bound(1.0), runs)
    assert upper_limit(decided) <= ALPHA


def test_adding_windows_up_before_testing_would_fail_under_drift():
    """Why windows are bet on one by one: the pooled counts of equal versions look unequal."""
    world = World(stable=drifting_rate, candidate=drifting_rate, weight=rising_weight)
    pooled = sum(windows(world, 200, 20260402))
    assert (log_mixture_of(log_harm_of(pooled, Bound(1.0))) >= math.log(1 / ALPHA)).all()


@few_and_many
def test_half_the_traffic_rolls_equal_versions_back_no_more_often(runs):
    decided = requests_until(log_harm_of, World(weight=0.5), Bound(1.0), runs)
    assert upper_limit(decided) <= ALPHA


AT_THE_MARGIN = ((Bound(1.5), 0.015), (Bound(1.0, 0.01), 0.02))


def test_a_candidate_at_the_margin_is_not_promoted_more_often_than_allowed():
    """About 4 %: too near to alpha for an upper limit from 1,000 runs, so the lower one is used."""
    for bound, rate in AT_THE_MARGIN:
        decided = requests_until(log_safety_of, World(candidate=rate), bound, 1000)
        assert lower_limit(decided) <= ALPHA


@pytest.mark.slow
def test_a_candidate_at_the_margin_is_rarely_promoted():
    for bound, rate in AT_THE_MARGIN:
        decided = requests_until(log_safety_of, World(candidate=rate), bound, 10_000)
        assert upper_limit(decided) <= ALPHA


@few_and_many
def test_bursts_are_held_by_tempering_and_only_by_tempering(runs):
    """Geometric bursts of mean 3: their index of dispersion is 2 * 3 - 1 = 5."""
    world = World(burst=3.0)
    tempered = requests_until(log_harm_of, world, Bound(1.0), runs, dispersion=5.0)
    assert upper_limit(tempered) <= ALPHA
    plain = requests_until(log_harm_of, World(burst=3.0), Bound(1.0), min(runs, 1000))
    assert np.isfinite(plain).mean() > 0.25


@pytest.mark.parametrize("ratio", [1.5, 2.0, 5.0])
def test_a_regression_is_found_near_the_information_limit(ratio):
    """Median at most 1.5 times the limit, and one window more where the limit is below a few."""
    world = World(candidate=0.01 * ratio)
    decided = requests_until(log_harm_of, world, Bound(1.0), 1000)
    window = REQUESTS_PER_SECOND * world.width * world.weight
    limit = information_limit(world, Bound(1.0))
    assert np.median(decided) <= 1.5 * limit + (window if limit < 5 * window else 0)


@pytest.mark.parametrize("bound", [Bound(1.5), Bound(2.0), Bound(1.0, 0.01)])
def test_a_good_candidate_is_promoted_near_the_information_limit(bound):
    decided = requests_until(log_safety_of, World(), bound, 1000)
    assert np.median(decided) <= 1.35 * information_limit(World(), bound)


@pytest.mark.parametrize(
    ("ratio", "expected"), [(1.2, 16660), (1.5, 2903), (2.0, 817), (5.0, 79.9)]
)
def test_the_information_limit_is_the_one_of_the_tables(ratio, expected):
    limit = information_limit(World(candidate=0.01 * ratio), Bound(1.0))
    assert limit == pytest.approx(expected, rel=1e-3)


def test_the_least_favourable_base_rate_is_found():
    """The grid of `information_limit` against a numerical minimum."""
    p, r, w = 0.01, 2.0, 19.0

    def per_request(q):
        bits = [(0.02, r * q / 2, 1.0), (p, q, w)]
        return sum(
            c * (a * math.log(a / b) + (1 - a) * math.log((1 - a) / (1 - b))) for a, b, c in bits
        )

    least = minimize_scalar(per_request, bounds=(1e-4, 0.2), method="bounded").fun
    limit = information_limit(World(candidate=0.02), Bound(1.0))
    assert limit == pytest.approx(math.log(20) / least, rel=1e-5)
