"""
Error rates and speed of the evidence, in two simulated hours with a look per window.

Fixed seeds, so a run either always passes or always fails; every bound on an error rate is held
against the upper 99 % Clopper-Pearson limit of what was counted, not against the count itself.
"""

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import beta, lognorm, norm

from modelrollout.stats.bounds import Bound
from modelrollout.stats.combine import log_with_slices
from modelrollout.stats.counts import log_harm_of, log_mixture_of, log_safety_of
from modelrollout.stats.dispersion import dispersion, dispersion_of_halves
from modelrollout.stats.histograms import choose_quantile

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
    lasts: float = 0.0
    """Seconds after a cause over which its events are spread evenly."""
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


def shares_of_windows(world):
    """Of a cause's events: into its own window, and into each later one."""
    width, lasts = world.width, world.lasts
    if not lasts:
        return np.ones(1)
    edges = np.arange(math.ceil(lasts / width) + 2) * width
    # The distribution of a uniform time within the window plus a uniform delay.
    corners = [(0, 1), (width, -1), (lasts, -1), (width + lasts, 1)]
    below = sum(sign * np.maximum(edges - x, 0) ** 2 for x, sign in corners) / (2 * width * lasts)
    return np.diff(below)


def windows(world, runs, seed):
    """Per window the counts of all runs, shape (runs, 4)."""
    generator = np.random.default_rng(seed)
    shares = shares_of_windows(world)
    pending = np.zeros((2, runs, len(shares)))
    for second in range(0, world.seconds, world.width):
        weight, requests = at(world.weight, second), REQUESTS_PER_SECOND * world.width
        stable_n = generator.poisson(requests * (1 - weight), runs)
        candidate_n = generator.poisson(requests * weight, runs)
        stable_k = events(generator, stable_n, at(world.stable, second), world.burst)
        candidate_k = events(generator, candidate_n, at(world.candidate, second), world.burst)
        if world.lasts:
            pending += generator.multinomial([stable_k, candidate_k], shares)
            stable_k, candidate_k = pending[..., 0].copy()
            pending = np.roll(pending, -1, axis=-1)
            pending[..., -1] = 0
        yield np.stack([stable_n, stable_k, candidate_n, candidate_k], axis=-1)


def requests_until(evidence, world, bound, runs, *, dispersion=1.0):
    """Candidate requests when the evidence first reached 1 / alpha; infinite where it never did."""
    state, requests = 0.0, np.zeros(runs)
    decided = np.full(runs, np.inf)
    for counts in windows(world, runs, 20260401):
        state = state + evidence(counts, bound) / np.reshape(dispersion, (-1, 1))
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
    return float(beta.ppf(0.01, hits, runs - hits + 1)) if hits else 0.0


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


def measured_dispersion(world, runs):
    """(of stable, of its halves): what the hour before said of each run."""
    past = windows(replace(world, weight=0.5, seconds=3600), runs, 20260414)
    halves = np.stack([*past], axis=1)
    whole = halves[..., :2] + halves[..., 2:]
    return np.array(
        [
            [function([*map(tuple, run)]) for run in table.tolist()]
            for function, table in ((dispersion, whole), (dispersion_of_halves, halves))
        ]
    )


@pytest.mark.parametrize(("lasts", "rate"), [(0.0, 0.01), (5.0, 0.01), (20.0, 0.01), (20.0, 0.001)])
def test_bursts_are_held_by_what_the_hour_before_has_shown(lasts, rate):
    world = World(stable=rate, candidate=rate, burst=3.0, lasts=lasts)
    measured = measured_dispersion(world, 1000).max(axis=0)
    alarms = requests_until(log_harm_of, world, Bound(1.0), 1000, dispersion=measured)
    assert upper_limit(alarms) <= ALPHA


def test_without_halves_bursts_that_last_longer_than_two_windows_are_not_held():
    """And windows that are as long as the bursts are: what to do where there are no halves."""
    narrow = World(burst=3.0, lasts=20.0)
    wide = replace(narrow, width=20)
    shares = {}
    for world in (narrow, wide):
        measured, _ = measured_dispersion(world, 500)
        decided = requests_until(log_harm_of, world, Bound(1.0), 500, dispersion=measured)
        shares[world.width] = np.isfinite(decided).mean()
    assert shares[5] > 0.15
    assert shares[20] <= ALPHA


def swinging_rate(second):
    """1 %, up and down by 80 % in two minutes."""
    return 0.01 * (1 + 0.8 * math.sin(2 * math.pi * second / 120))


def test_a_base_rate_that_swings_is_not_tempered_and_need_not_be():
    world = World(stable=swinging_rate, candidate=swinging_rate)
    measured = measured_dispersion(world, 1000).max(axis=0)
    assert np.median(measured) < 2
    assert upper_limit(requests_until(log_harm_of, world, Bound(1.0), 1000)) <= ALPHA


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


@pytest.mark.parametrize("usual", [0.1, 0.3, 0.6])
def test_centred_bets_hold_their_rates_whatever_they_are_centred_on(usual):
    world = World(stable=0.3, candidate=0.3)
    decided = requests_until(partial(log_harm_of, usual=usual), world, Bound(1.0), 1000)
    assert upper_limit(decided) <= ALPHA
    edge = World(stable=0.3, candidate=0.375)
    decided = requests_until(partial(log_safety_of, usual=usual), edge, Bound(1.25), 1000)
    assert lower_limit(decided) <= ALPHA


def common_and_drifting(second):
    """10 % rising to 30 % in two hours."""
    return 10 * drifting_rate(second)


def test_centred_bets_hold_their_rate_while_a_common_event_drifts_and_weights_change():
    world = World(stable=common_and_drifting, candidate=common_and_drifting, weight=rising_weight)
    decided = requests_until(partial(log_harm_of, usual=0.1), world, Bound(1.0), 1000)
    assert upper_limit(decided) <= ALPHA


@pytest.mark.parametrize(("rate", "ratio"), [(0.1, 1.5), (0.3, 1.2), (0.5, 1.1)])
def test_a_common_event_is_found_near_the_information_limit_by_centred_bets_alone(rate, ratio):
    world, runs = World(stable=rate, candidate=rate * ratio), 500
    limit = information_limit(world, Bound(1.0))
    centred = requests_until(partial(log_harm_of, usual=rate), world, Bound(1.0), runs)
    plain = requests_until(log_harm_of, world, Bound(1.0), runs)
    assert np.median(centred) <= 1.5 * limit < np.median(plain)


@pytest.mark.parametrize(("rate", "margin"), [(0.1, 1.25), (0.3, 1.25), (0.5, 1.1)])
def test_of_a_common_event_a_good_candidate_is_promoted_near_the_information_limit(rate, margin):
    world, bound = World(stable=rate, candidate=rate), Bound(margin)
    decided = requests_until(partial(log_safety_of, usual=rate), world, bound, 500)
    assert np.median(decided) <= 1.35 * information_limit(world, bound)


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


# --- a quantile -------------------------------------------------------------------------------

LATENCY = lognorm(math.log(4) / norm.ppf(0.99), scale=0.08)
"""Median 80 ms, p99 320 ms."""
BUCKETS = tuple(0.01 * 1.2**i for i in range(36))
P99 = choose_quantile(
    (*BUCKETS, math.inf),
    [*np.round(1e6 * LATENCY.cdf(BUCKETS)), 1e6],
    0.99,
    tolerance=Bound(1.1),
    margin=Bound(1.5),
)
log_p99_safety_of = partial(log_safety_of, tuned_for=P99.thinning)


def slower_by(factor, upper):
    """The tails of stable, and of a candidate all of whose answers take `factor` times as long."""
    return World(stable=LATENCY.sf(P99.lower), candidate=LATENCY.sf(upper / factor))


def test_buckets_by_factors_of_1_2_test_for_a_factor_of_1_2_when_1_1_is_asked():
    assert P99.tolerance_factor == pytest.approx(1.2)
    assert P99.margin_factor == pytest.approx(1.2**3)


@pytest.mark.parametrize("factor", [1.0, P99.tolerance_factor])
def test_a_p99_at_the_tolerated_factor_rolls_back_rarely(factor):
    world = slower_by(factor, P99.tolerance_upper)
    assert upper_limit(requests_until(log_harm_of, world, Bound(1.0), 1000)) <= ALPHA


@pytest.mark.parametrize("factor", [1.5, 2.0])
def test_a_p99_beyond_the_tolerated_factor_is_found_near_the_information_limit(factor):
    world = slower_by(factor, P99.tolerance_upper)
    limit = information_limit(world, Bound(1.0))
    decided = requests_until(log_harm_of, world, Bound(1.0), 500)
    assert np.median(decided) <= 1.5 * limit + REQUESTS_PER_SECOND * world.width * world.weight


def test_an_equal_p99_is_proved_near_the_information_limit_because_it_was_known_where_to_look():
    world = slower_by(1.0, P99.margin_upper)
    decided = requests_until(log_p99_safety_of, world, Bound(1.0), 500)
    untuned = requests_until(log_safety_of, world, Bound(1.0), 500)
    assert np.median(decided) <= 1.35 * information_limit(world, Bound(1.0))
    assert np.median(untuned) > 2 * np.median(decided)


def test_a_p99_at_the_margin_is_not_promoted_more_often_than_allowed():
    world = slower_by(P99.margin_factor, P99.margin_upper)
    assert lower_limit(requests_until(log_p99_safety_of, world, Bound(1.0), 1000)) <= ALPHA


# --- slices -----------------------------------------------------------------------------------

SLICES = 10
NAMES = [str(i) for i in range(SLICES)]
EVEN = np.full(SLICES, 0.1)


def sliced_windows(stable, candidate, shares, runs):
    """Per window of 30 s the counts of all slices, shape (runs, slices, 4)."""
    generator = np.random.default_rng(20260415)
    for _ in range(TWO_HOURS // 30):
        requests = REQUESTS_PER_SECOND * 30 * shares
        stable_n = generator.poisson(0.95 * requests, (runs, SLICES))
        candidate_n = generator.poisson(0.05 * requests, (runs, SLICES))
        stable_k = generator.binomial(stable_n, stable)
        candidate_k = generator.binomial(candidate_n, candidate)
        yield np.stack([stable_n, stable_k, candidate_n, candidate_k], axis=-1)


def requests_until_with_slices(stable, candidate, shares, runs):
    """As `requests_until`: of all requests alone, and with half of the bet on the slices."""
    whole, parts, requests = 0.0, 0.0, np.zeros(runs)
    alone, sliced = np.full((2, runs), np.inf)
    for counts in sliced_windows(stable, candidate, shares, runs):
        whole = whole + log_harm_of(counts.sum(axis=1), Bound(1.0))
        parts = parts + log_harm_of(counts, Bound(1.0))
        requests += counts[..., 2].sum(axis=-1)
        of_all, of_each = log_mixture_of(whole), log_mixture_of(parts)
        both = [
            log_with_slices(one, dict(zip(NAMES, row, strict=True)), SLICES)
            for one, row in zip(of_all, of_each, strict=True)
        ]
        for decided, evidence in ((alone, of_all), (sliced, np.array(both))):
            reached = (evidence >= math.log(1 / ALPHA)) & np.isinf(decided)
            decided[reached] = requests[reached]
    return alone, sliced


def test_equal_versions_with_unequal_slices_are_rarely_rolled_back():
    rates, shares = np.geomspace(0.002, 0.05, SLICES), np.geomspace(0.4, 0.02, SLICES)
    _, sliced = requests_until_with_slices(rates, rates, shares / shares.sum(), 1000)
    assert upper_limit(sliced) <= ALPHA


def test_a_slice_that_suffers_is_found_where_the_whole_hardly_shows_it():
    """One request in ten has five times as many errors: 1.4 times as many of all."""
    rates = np.full(SLICES, 0.01)
    alone, sliced = requests_until_with_slices(rates, rates * ([5] + [1] * 9), EVEN, 200)
    assert np.median(sliced) < np.median(alone) / 2


def test_watching_slices_costs_little_when_all_of_them_suffer():
    rates = np.full(SLICES, 0.01)
    alone, sliced = requests_until_with_slices(rates, 1.5 * rates, EVEN, 200)
    assert np.median(sliced) < 1.25 * np.median(alone)


# --- the placebo ------------------------------------------------------------------------------


def steady(rate):
    return lambda _, runs, pods: lambda _: np.full((runs, pods), rate)


def differing(spread):
    """Each pod has a rate of its own: lognormal with mean 0.01."""

    def draw(generator, runs, pods):
        rates = 0.01 * np.exp(generator.normal(-(spread**2) / 2, spread, (runs, pods)))
        return lambda _: rates

    return draw


def ill_for_five_minutes(*, together):
    """Each pod has ten times as many errors once, for five minutes."""

    def draw(generator, runs, pods):
        begins = generator.uniform(0, TWO_HOURS - 300, (runs, 1 if together else pods))
        return lambda second: np.where(
            (begins <= second) & (second < begins + 300), 0.1, np.full((runs, pods), 0.01)
        )

    return draw


def placebo_alarms(world, tolerance, *, pods=10, runs=500):
    """
    Runs in which two halves of stable's pods were told apart, a look each 30 s.

    Pods are dealt out in turn; the evidence is the mean of both directions'.
    """
    generator = np.random.default_rng(20260416)
    rates = world(generator, runs, pods)
    states, alarmed = np.zeros((2, runs, 1)), np.full(runs, np.inf)
    for second in range(0, TWO_HOURS, 30):
        n = generator.poisson(0.95 * REQUESTS_PER_SECOND * 30 / pods, (runs, pods))
        k = generator.binomial(n, rates(second))
        even, odd = (np.stack([n[:, i::2].sum(1), k[:, i::2].sum(1)], -1) for i in (0, 1))
        table = np.stack([np.hstack([even, odd]), np.hstack([odd, even])])
        states = states + log_harm_of(table, Bound(tolerance))
        evidence = log_mixture_of(log_mixture_of(states).T)
        alarmed[evidence >= math.log(1 / ALPHA)] = second
    return alarmed


def test_a_placebo_of_equal_pods_alarms_rarely():
    assert upper_limit(placebo_alarms(steady(0.01), 1.0, runs=1000)) <= ALPHA
    assert upper_limit(placebo_alarms(steady(0.01), 1.5)) <= ALPHA


def test_a_placebo_finds_that_pods_differ_and_the_default_tolerance_allows_it():
    assert lower_limit(placebo_alarms(differing(0.2), 1.0)) > 0.4
    assert upper_limit(placebo_alarms(differing(0.2), 1.5)) <= ALPHA
    assert lower_limit(placebo_alarms(differing(0.3), 1.5, pods=2)) > 2 * ALPHA


def test_a_placebo_finds_what_hits_pods_at_different_times_and_not_what_hits_all_at_once():
    apart, together = (ill_for_five_minutes(together=x) for x in (False, True))
    assert lower_limit(placebo_alarms(apart, 1.0)) > 0.9
    assert lower_limit(placebo_alarms(apart, 1.5)) > 0.3
    assert upper_limit(placebo_alarms(together, 1.0, runs=1000)) <= ALPHA
