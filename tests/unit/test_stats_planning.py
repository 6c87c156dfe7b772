"""What a rollout will need, against brute force and against simulated medians."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from modelrollout.stats.bounds import Bound
from modelrollout.stats.counts import log_harm_of, log_mixture_of, log_safety_of
from modelrollout.stats.planning import (
    Outlook,
    chance_to_decide,
    expected_requests,
    information_limit,
    needed_requests,
    provable_absolute,
    provable_ratio,
    smallest_visible,
)

ALPHA = 0.05


def outlook(stable, candidate, weight=0.05):
    return Outlook(stable_rate=stable, candidate_rate=candidate, weight=weight)


def brute_force_limit(world, bound):
    base = np.concatenate([np.geomspace(1e-7, 0.9, 300_001), [world.stable_rate]])
    edge = bound.ratio * base + bound.absolute
    base, edge = base[edge < 1], edge[edge < 1]

    def divergence(p, q):
        return p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))

    ratio = (1 - world.weight) / world.weight
    per_request = divergence(world.candidate_rate, edge) + ratio * divergence(
        world.stable_rate, base
    )
    return math.log(1 / ALPHA) / per_request.min()


WORLDS = [
    (outlook(0.01, 0.015), Bound(1.0)),
    (outlook(0.01, 0.02), Bound(1.0)),
    (outlook(0.01, 0.02, 0.5), Bound(1.25)),
    (outlook(0.05, 0.08, 0.2), Bound(1.0, 0.01)),
    (outlook(0.01, 0.01), Bound(1.5)),
    (outlook(0.01, 0.01), Bound(1.0, 0.01)),
    (outlook(0.02, 0.04, 0.3), Bound(0.0, 0.025)),
]


@pytest.mark.parametrize(("world", "bound"), WORLDS)
def test_the_information_limit_is_the_least_divergence_to_the_bound(world, bound):
    expected = brute_force_limit(world, bound)
    assert information_limit(world, bound, ALPHA) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("candidate", "limit"), [(0.012, 16660), (0.015, 2903), (0.02, 817)])
def test_the_information_limit_of_the_published_table(candidate, limit):
    assert information_limit(outlook(0.01, candidate), Bound(1.0), ALPHA) == pytest.approx(
        limit, rel=1e-3
    )


def test_on_the_bound_nothing_can_be_decided():
    assert information_limit(outlook(0.01, 0.0125), Bound(1.25), ALPHA) > 1e12


def test_lower_is_worse_has_the_limit_of_the_exchanged_versions():
    world, exchanged = outlook(0.9, 0.8, 0.5), outlook(0.8, 0.9, 0.5)
    found = information_limit(world, Bound(1.05), ALPHA, lower_is_worse=True)
    assert found == pytest.approx(information_limit(exchanged, Bound(1.05), ALPHA), rel=1e-6)


def simulated_quantiles(world, bound, chances, runs=1000, looks=400):
    """Candidate requests until a decision, a look each twentieth of the limit."""
    generator = np.random.default_rng(20260405)
    width = max(1.0, information_limit(world, bound, ALPHA) / 20)
    evidence = log_harm_of if world.candidate_rate > 0.0125 else log_safety_of
    state, requests = 0.0, np.zeros(runs)
    decided = np.full(runs, np.inf)
    for _ in range(looks):
        n_c = generator.poisson(width, runs)
        n_b = generator.poisson(width * (1 - world.weight) / world.weight, runs)
        k_c = generator.binomial(n_c, world.candidate_rate)
        k_b = generator.binomial(n_b, world.stable_rate)
        usual = world.stable_rate if world.is_centred else 0.0
        state = state + evidence(np.stack([n_b, k_b, n_c, k_c], -1), bound, usual=usual)
        requests += n_c
        reached = log_mixture_of(state) >= math.log(1 / ALPHA)
        decided = np.where(reached, np.minimum(decided, requests), decided)
    return np.quantile(decided, chances, method="lower")


@pytest.mark.parametrize(("world", "bound"), WORLDS[:6])
def test_needed_requests_are_those_of_simulated_rollouts(world, bound):
    chances = (0.5, 0.8, 0.95)
    found = [needed_requests(world, bound, ALPHA, chance=c) for c in chances]
    assert np.allclose(found, simulated_quantiles(world, bound, chances), rtol=0.2)


CENTRED = [
    (replace(outlook(stable, candidate, weight), is_centred=True), bound)
    for stable, candidate, weight, bound in (
        (0.1, 0.15, 0.05, Bound(1.0)),
        (0.3, 0.36, 0.2, Bound(1.0)),
        (0.5, 0.55, 0.05, Bound(1.0)),
        (0.28, 0.33, 0.05, Bound(1.0)),
    )
]


@pytest.mark.parametrize(("world", "bound"), CENTRED)
def test_centred_bets_on_common_events_need_what_is_planned_and_less_than_others(world, bound):
    found = [needed_requests(world, bound, ALPHA, chance=c) for c in (0.5, 0.8, 0.95)]
    assert np.allclose(found, simulated_quantiles(world, bound, (0.5, 0.8, 0.95)), rtol=0.2)
    assert found[0] < 0.9 * needed_requests(replace(world, is_centred=False), bound, ALPHA)


@pytest.mark.parametrize(("world", "bound"), WORLDS)
def test_chance_and_needed_requests_are_inverse(world, bound):
    for chance in (0.1, 0.5, 0.9):
        requests = needed_requests(world, bound, ALPHA, chance=chance)
        assert chance_to_decide(world, bound, ALPHA, requests) == pytest.approx(chance, abs=1e-3)
    assert chance_to_decide(world, bound, ALPHA, 0) == 0


def test_more_requests_never_lower_the_chance():
    for world, bound in WORLDS:
        chances = [chance_to_decide(world, bound, ALPHA, n) for n in np.geomspace(1, 1e6, 60)]
        assert all(x <= y + 1e-6 for x, y in pairwise(chances))


def test_bursts_need_as_many_times_more_requests_as_they_are_dispersed():
    """Tempered by its dispersion the walk is the same in another unit of time."""
    for world, bound in WORLDS:
        calm = needed_requests(world, bound, ALPHA)
        bursty = needed_requests(replace(world, dispersion=4.0), bound, ALPHA)
        assert bursty == pytest.approx(4 * calm, rel=1e-3)


def test_a_common_event_is_planned_as_the_rare_one_that_is_counted_in_its_place():
    right = replace(outlook(0.98, 0.98, 0.2), counts_others=True)
    wrong = outlook(0.02, 0.02, 0.2)
    # At most 0.9 points fewer right answers is at most 0.9 points more wrong ones.
    found = needed_requests(right, Bound(1.0, 0.009), ALPHA, lower_is_worse=True)
    assert found == pytest.approx(needed_requests(wrong, Bound(1.0, 0.009), ALPHA), rel=1e-6)
    plain = replace(right, counts_others=False)
    assert found < needed_requests(plain, Bound(1.0, 0.009), ALPHA, lower_is_worse=True)
    least = provable_absolute(right, 1.0, ALPHA, 2000, lower_is_worse=True)
    assert least == pytest.approx(provable_absolute(wrong, 1.0, ALPHA, 2000), rel=1e-6)


def test_without_events_only_an_absolute_margin_can_be_planned():
    assert needed_requests(outlook(0.0, 0.0), Bound(2.0), ALPHA) == math.inf
    assert needed_requests(outlook(0.0, 0.0), Bound(1.0, 0.01), ALPHA) == pytest.approx(
        math.log(8 * 20) / 0.01, rel=0.25
    )


def test_the_smallest_visible_effect_is_seen_and_a_smaller_one_is_not():
    world, bound = outlook(0.01, 0.01), Bound(1.25)
    rate = smallest_visible(world, bound, ALPHA, 2000)
    assert 0.0125 < rate < 0.05
    assert chance_to_decide(outlook(0.01, rate), bound, ALPHA, 2000) == pytest.approx(0.8, abs=1e-3)
    assert smallest_visible(world, bound, ALPHA, 20_000) < rate
    assert math.isnan(smallest_visible(world, bound, ALPHA, 1))
    assert math.isnan(smallest_visible(outlook(0.9, 0.9), bound, ALPHA, 2000))


def test_the_smallest_visible_drop_lies_below_when_lower_is_worse():
    world = outlook(0.9, 0.9, 0.5)
    rate = smallest_visible(world, Bound(1.1), ALPHA, 2000, lower_is_worse=True)
    assert 0 < rate < 0.9 / 1.1


def test_the_provable_ratio_is_proved_and_shrinks_with_traffic():
    world = outlook(0.01, 0.01)
    ratio = provable_ratio(world, ALPHA, 2000)
    reached = chance_to_decide(world, Bound(ratio), ALPHA, 2000)
    assert reached == pytest.approx(0.8, abs=1e-3)
    assert 1 < provable_ratio(world, ALPHA, 20_000) < ratio
    assert provable_ratio(outlook(0.0, 0.0), ALPHA, 2000) == math.inf


@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize("ratio", [1.0, 1.5])
def test_the_provable_absolute_part_is_proved_and_shrinks_with_traffic(ratio, lower):
    world = outlook(0.3, 0.3, 0.5)
    absolute = provable_absolute(world, ratio, ALPHA, 500, lower_is_worse=lower)
    bound = Bound(ratio, absolute)
    reached = chance_to_decide(world, bound, ALPHA, 500, lower_is_worse=lower)
    assert reached == pytest.approx(0.8, abs=1e-3)
    more = provable_absolute(world, ratio, ALPHA, 5000, lower_is_worse=lower)
    assert 0 < more < absolute


def test_a_margin_that_no_rate_could_break_is_not_offered():
    assert provable_ratio(outlook(0.6, 0.6), ALPHA, 20) == math.inf
    assert provable_absolute(outlook(0.6, 0.6), 1.0, ALPHA, 5) == math.inf
    assert provable_absolute(outlook(0.6, 0.6), 2.0, ALPHA, 1e6) == math.inf
    assert provable_absolute(outlook(0.6, 0.6), 1.0, ALPHA, 5, lower_is_worse=True) == math.inf


def test_expected_requests_are_what_the_weight_brings():
    assert expected_requests(100.0, 0.05, 60.0) == pytest.approx(300)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: outlook(1.5, 0.1), r"rates must lie in \[0, 1\]: 1.5"),
        (lambda: outlook(0.1, 0.1, 1.0), "the weight must lie between 0 and 1, not 1.0"),
        (lambda: replace(outlook(0.1, 0.1), dispersion=0.5), "dispersion must be a finite number"),
        (lambda: information_limit(*WORLDS[0], 0.0), "alpha must lie between 0 and 1"),
        (lambda: needed_requests(*WORLDS[0], 0.05, chance=1.0), "chance must lie between 0 and 1"),
        (lambda: chance_to_decide(*WORLDS[0], 0.05, -1), "requests must be >= 0, not -1"),
        (lambda: smallest_visible(*WORLDS[0], 0.05, 9, chance=2.0), "chance must lie between"),
        (lambda: provable_ratio(WORLDS[0][0], 0.05, 9, chance=0.0), "chance must lie between"),
    ],
)
def test_what_cannot_be_planned_is_refused_with_its_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()
