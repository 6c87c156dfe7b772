"""What a step can decide in time: against simulated rollouts, and against its own remedies."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import a_rollout, a_spec, an_observation, the_measures
from modelrollout.api.v1alpha1 import Gate
from modelrollout.core.evidence import Kind
from modelrollout.core.forecast import (
    CHANCE,
    TAILS,
    THRESHOLDS,
    Comparison,
    Pods,
    about,
    chance_of_each,
    chance_to_see,
    comparisons_of,
    edge_rate,
    forecasts,
    obstacle,
    sentence,
)
from modelrollout.core.steps import Step, StepKind
from modelrollout.stats.bounds import Bound
from modelrollout.stats.counts import complemented, log_harm_of, log_mixture_of, log_safety_of

RUNS = 800
WINDOW_SECONDS = 5


def a_step(weight=5, **changes):
    step = Step(
        kind=StepKind.WEIGHT, weight=weight, max_seconds=3600, min_requests=100, gate=Gate.PASS
    )
    return replace(step, **changes)


def a_comparison(**changes):
    errors = Comparison(
        name="errors",
        tolerance=Bound(1.5, 0.001),
        margin=Bound(2, 0.005),
        stable_rate=0.01,
        alpha=0.01,
        beta=0.05,
    )
    return replace(errors, **changes)


def the_forecast(comparison, step=None, requests_per_second=100.0):
    (found,) = forecasts(comparison, [step or a_step()], requests_per_second)
    return found


# --- against simulation ---------------------------------------------------------------------------


def simulated_seconds(comparison, step, requests_per_second, rate, *, harm):
    """When each of many rollouts has decided, in seconds; infinite after the deadline."""
    generator = np.random.default_rng(20260701)
    bound, lower = comparison.tolerance if harm else comparison.margin, comparison.lower_is_worse
    stable_rate = comparison.stable_rate
    if comparison.counts_others:
        _, bound, lower = complemented((), bound, lower_is_worse=lower)
        stable_rate, rate = 1 - stable_rate, 1 - rate
    evidence = log_harm_of if harm else log_safety_of
    usual = 0.0 if comparison.pods else stable_rate
    needed = -math.log(comparison.alpha if harm else comparison.beta)
    requests = requests_per_second * WINDOW_SECONDS
    state, decided = 0.0, np.full(RUNS, np.inf)
    for end in range(WINDOW_SECONDS, step.max_seconds + 1, WINDOW_SECONDS):
        n_c = generator.poisson(requests * step.weight / 100, RUNS)
        n_b = generator.poisson(requests * (1 - step.weight / 100), RUNS)
        k_c, k_b = generator.binomial(n_c, rate), generator.binomial(n_b, stable_rate)
        table = np.stack([n_b, k_b, n_c, k_c], axis=-1)
        state = state + evidence(table, bound, lower_is_worse=lower, usual=usual)
        reached = log_mixture_of(state) >= needed
        decided = np.where(reached, np.minimum(decided, end), decided)
        if np.isfinite(decided).mean() > 0.95:
            break
    return decided


WORLDS = [
    (a_comparison(), 5),
    (a_comparison(margin=Bound(2)), 20),
    (a_comparison(stable_rate=0.001), 20),
    (a_comparison(stable_rate=0.05), 50),
    (a_comparison(stable_rate=0.1, margin=Bound(1.25), beta=0.01), 25),
    (
        a_comparison(
            stable_rate=0.97,
            tolerance=Bound(1, 0.005),
            margin=Bound(1, 0.02),
            lower_is_worse=True,
            counts_others=True,
        ),
        10,
    ),
    (
        a_comparison(
            stable_rate=0.2, tolerance=Bound(1.1), margin=Bound(1.25), lower_is_worse=True
        ),
        20,
    ),
]


@pytest.mark.parametrize(("comparison", "weight"), WORLDS)
def test_the_seconds_that_a_proof_needs_are_those_of_simulated_rollouts(comparison, weight):
    step = a_step(weight, max_seconds=7200)
    decided = simulated_seconds(comparison, step, 40.0, comparison.stable_rate, harm=False)
    for chance in (0.5, 0.8, 0.9):
        found = the_forecast(replace(comparison, chance=chance), step, 40.0)
        simulated = np.quantile(decided, chance, method="lower")
        # A decision waits for the end of its window: half of one on average.
        assert found.needed_seconds + WINDOW_SECONDS / 2 == pytest.approx(simulated, rel=0.2)


def test_with_less_than_one_event_to_be_expected_the_median_is_rather_overestimated():
    """Half of the rollouts see none, and then all of those decide at once."""
    rare, step = a_comparison(stable_rate=0.001), a_step(max_seconds=7200)
    decided = simulated_seconds(rare, step, 40.0, rare.stable_rate, harm=False)
    for chance, most in ((0.5, 1.4), (0.8, 1.2)):
        found = the_forecast(replace(rare, chance=chance), step, 40.0).needed_seconds
        assert 1 < found / np.quantile(decided, chance, method="lower") < most


@pytest.mark.parametrize(("comparison", "weight"), WORLDS)
def test_the_smallest_visible_rate_is_found_by_the_deadline_in_simulated_rollouts(
    comparison, weight
):
    step = a_step(weight, max_seconds=600)
    rate = the_forecast(comparison, step, 40.0).visible_rate
    patient = replace(step, max_seconds=1200)
    decided = simulated_seconds(comparison, patient, 40.0, rate, harm=True)
    assert np.quantile(decided, CHANCE, method="lower") == pytest.approx(600, rel=0.2)
    assert chance_to_see(comparison, step, 40.0, rate) == pytest.approx(CHANCE, abs=1e-3)


@pytest.mark.parametrize("weight", [5, 20])
def test_the_slowest_answers_decide_what_a_distribution_needs(weight):
    """All gated thresholds together pass with the chance that was planned for p99 alone."""
    tails, cells = (0.5, 0.25, 0.1, 0.05, 0.01), (0.5, 0.25, 0.15, 0.05, 0.04, 0.01)
    slowest = a_comparison(tail=0.01, stable_rate=0.01, margin=Bound(2, 0.01))
    needed = the_forecast(slowest, a_step(weight)).needed_requests
    generator, looks = np.random.default_rng(20260702), 60
    state, passed = np.zeros((RUNS, len(tails), 8)), np.zeros(RUNS, dtype=bool)
    for _ in range(looks):
        columns = []
        for share in (1 - weight / 100, weight / 100):
            n = generator.poisson(needed / looks * share * 100 / weight, RUNS)
            beyond = generator.multinomial(n, cells)[:, ::-1].cumsum(axis=1)[:, -2::-1]
            columns += [np.broadcast_to(n[:, np.newaxis], beyond.shape), beyond]
        state += log_safety_of(np.stack(columns, axis=-1), slowest.margin, usual=tails)
        passed |= log_mixture_of(state).min(axis=1) >= -math.log(slowest.beta)
    assert passed.mean() == pytest.approx(CHANCE, abs=0.05)


# --- what would do --------------------------------------------------------------------------------


def is_in_time(comparison, step=None, requests_per_second=1.0):
    return the_forecast(comparison, step, requests_per_second).is_in_time


@pytest.mark.parametrize(
    "comparison",
    [
        a_comparison(margin=Bound(2)),
        a_comparison(),
        a_comparison(
            stable_rate=0.95, margin=Bound(1, 0.03), lower_is_worse=True, counts_others=True
        ),
        a_comparison(stable_rate=0.3, margin=Bound(1.1), lower_is_worse=True),
    ],
)
def test_each_remedy_does_by_itself_and_little_less_does_not(comparison):
    traffic, step = 1.5, a_step()
    remedy = the_forecast(comparison, step, traffic).remedy
    ratio, absolute = comparison.margin.ratio, comparison.margin.absolute
    assert (remedy.margin.ratio > ratio) != (remedy.margin.absolute > absolute)
    assert is_in_time(replace(comparison, margin=remedy.margin), step, traffic)
    less = Bound(
        max(ratio, 1 + 0.85 * (remedy.margin.ratio - 1)),
        max(absolute, 0.85 * remedy.margin.absolute),
    )
    assert not is_in_time(replace(comparison, margin=less), step, traffic)
    assert is_in_time(comparison, replace(step, max_seconds=remedy.seconds), traffic)
    shorter = replace(step, max_seconds=int(0.85 * remedy.seconds))
    assert not is_in_time(comparison, shorter, traffic)


def test_the_weight_that_would_do_is_the_smallest():
    comparison = a_comparison()
    weight = the_forecast(comparison, requests_per_second=4.0).remedy.weight
    assert is_in_time(comparison, a_step(weight), 4.0)
    assert not any(is_in_time(comparison, a_step(each), 4.0) for each in range(5, weight))


def test_without_events_only_an_absolute_margin_would_do():
    remedy = the_forecast(a_comparison(stable_rate=0.0, margin=Bound(2))).remedy
    assert remedy.margin.ratio == 2
    assert remedy.margin.absolute > 0
    assert remedy.weight is None
    assert remedy.seconds is None


def test_a_margin_that_no_candidate_could_break_is_no_remedy():
    comparison = a_comparison(stable_rate=0.3, margin=Bound(1.2))
    remedy = the_forecast(comparison, a_step(1, min_requests=0), 0.1).remedy
    assert remedy.margin is None
    assert remedy.seconds is not None


def test_what_takes_longer_than_the_longest_step_is_no_remedy():
    assert the_forecast(a_comparison(), requests_per_second=0.001).remedy.seconds is None


def test_a_step_for_which_harm_is_enough_waits_for_its_requests_only():
    no_harm = a_step(gate=Gate.NO_HARM)
    assert is_in_time(a_comparison(), no_harm, 1.0)
    late = the_forecast(a_comparison(), no_harm, 0.4)
    assert late.remedy.margin is None
    assert late.remedy.weight == 7
    assert late.remedy.seconds == 5000


def test_a_step_never_passes_before_its_requests_are_there():
    easy = a_comparison(margin=Bound(50))
    assert the_forecast(easy, requests_per_second=0.4).needed_requests < 72
    assert not is_in_time(easy, requests_per_second=0.4)


def test_nothing_waits_for_a_guardrail_that_is_not_required():
    assert is_in_time(a_comparison(required=False), requests_per_second=0.01)


# --- what it depends on ---------------------------------------------------------------------------


def test_a_delay_takes_its_time_from_the_step():
    plain, late = (the_forecast(a_comparison(delay_seconds=each)) for each in (0, 600))
    assert late.requests == pytest.approx(plain.requests * 5 / 6)
    assert late.needed_requests == plain.needed_requests
    assert late.needed_seconds == pytest.approx(plain.needed_seconds + 600)
    never = the_forecast(a_comparison(delay_seconds=4000))
    assert never.requests == 0
    assert never.visible_rate is None
    assert never.remedy.seconds > 4000


def test_events_over_time_are_counted_in_pod_seconds_whatever_the_weight_or_the_traffic():
    restarts = a_comparison(
        margin=Bound(2), stable_rate=0.001, pods=Pods(stable=8, candidate=2), chance=0.5
    )
    small, large = (the_forecast(restarts, a_step(each)) for each in (1, 50))
    assert small.requests == large.requests == 2 * 3600
    assert small.needed_requests == large.needed_requests
    assert small.min_requests == 0
    assert small.remedy.weight is None
    same = the_forecast(a_comparison(margin=Bound(2), stable_rate=0.001, chance=0.5), a_step(20))
    # A proportion's bets are centred, which is next to nothing where events are so rare.
    assert small.needed_requests == pytest.approx(same.needed_requests, rel=5e-3)


def test_bursts_need_as_many_times_more_requests():
    calm, bursty = (the_forecast(a_comparison(dispersion=each)) for each in (1.0, 3.0))
    assert bursty.needed_requests == pytest.approx(3 * calm.needed_requests, rel=1e-3)


def test_only_steps_in_which_both_versions_are_judged_have_a_forecast():
    pause = Step(kind=StepKind.PAUSE, weight=5, min_seconds=60)
    full = Step(kind=StepKind.WEIGHT, weight=100)
    found = forecasts(a_comparison(), [a_step(), pause, a_step(50), full], 100.0)
    assert [(each.step, each.weight) for each in found] == [(1, 5), (3, 50)]


traffics = st.floats(0.01, 1e5)


@settings(max_examples=25)
@given(traffics, st.floats(1.01, 10), st.floats(0.0001, 0.4), st.booleans())
def test_more_traffic_never_makes_a_step_later_or_blinder(traffic, factor, rate, lower):
    comparison = a_comparison(stable_rate=rate, lower_is_worse=lower)
    less, more = (
        the_forecast(comparison, requests_per_second=x) for x in (traffic, factor * traffic)
    )
    assert more.needed_seconds <= less.needed_seconds * (1 + 1e-9)
    assert more.is_in_time >= less.is_in_time
    edge = edge_rate(comparison, comparison.tolerance)
    if less.visible_rate is not None:
        assert abs(more.visible_rate - edge) <= abs(less.visible_rate - edge) + 1e-6


def test_required_guardrails_share_the_chance_to_miss():
    assert chance_of_each(1) == pytest.approx(0.8)
    assert chance_of_each(4) == pytest.approx(0.95)
    assert chance_of_each(0) == pytest.approx(0.8)


@pytest.mark.parametrize("traffic", [0.0, -1.0, math.nan, math.inf])
def test_traffic_must_be_a_number_above_0(traffic):
    with pytest.raises(ValueError, match="requests per second must be above 0"):
        forecasts(a_comparison(), [a_step()], traffic)


# --- from guardrails ------------------------------------------------------------------------------


def proportion(name, **changes):
    counters = {"events": {"metric": "bad_total"}, "total": {"metric": "all_total"}}
    return {"name": name, "proportion": counters} | changes


def measures(*guardrails):
    rollout = a_rollout(analysis=a_spec()["analysis"] | {"guardrails": list(guardrails)})
    return the_measures(rollout, an_observation())


def compared(*guardrails, pods=None, **stable_rates):
    return comparisons_of(
        measures(*guardrails),
        stable_rates,
        false_rollback_rate=0.01,
        false_promote_rate=0.05,
        pods=pods,
    )


def test_guardrails_share_the_error_budget_by_weight_and_the_chance_by_number():
    one, two = compared(
        proportion("one", weight="3"), proportion("two", required=False), one=0.01, two=0.02
    )
    assert (one.alpha, two.alpha) == (pytest.approx(0.0075), pytest.approx(0.0025))
    assert (one.chance, two.chance) == (pytest.approx(0.8), pytest.approx(0.8))
    both = compared(proportion("one"), proportion("two"), one=0.01, two=0.02)
    assert [each.chance for each in both] == pytest.approx([0.9, 0.9])
    assert (both[0].stable_rate, both[1].stable_rate) == (0.01, 0.02)


def test_slices_have_half_of_the_bet():
    (plain,) = compared(proportion("one"), one=0.01)
    (sliced,) = compared(proportion("one", slices={"label": "country"}), one=0.01)
    assert sliced.alpha == plain.alpha / 2


def test_a_distribution_is_looked_at_at_its_tails():
    found = compared({"name": "latency", "distribution": {"histogram": {"metric": "seconds"}}})
    assert [each.stable_rate for each in found] == list(TAILS)
    assert [each.label for each in found] == [f"latency beyond {q}" for q in ("p50", "p90", "p99")]
    assert {each.alpha for each in found} == {0.01 / THRESHOLDS}


def test_of_a_common_event_the_others_are_counted_as_the_operator_does():
    (rare,) = compared(proportion("one"), one=0.5)
    (common,) = compared(proportion("one"), one=0.51)
    assert (rare.counts_others, common.counts_others) == (False, True)


def test_events_over_time_need_the_number_of_pods():
    restarts = {"name": "restarts", "rate": {"events": {"metric": "restarts_total"}}}
    assert compared(restarts, restarts=0.001) == ()
    (found,) = compared(restarts, restarts=0.001, pods=Pods(stable=3, candidate=1))
    assert found.pods == Pods(stable=3, candidate=1)


def test_what_no_setting_tells_of_is_left_out_with_the_reason():
    mean = {"name": "score", "mean": {"sum": {"metric": "s"}, "count": {"metric": "c"}}}
    quantile = {
        "name": "p99",
        "distribution": {"histogram": {"metric": "seconds"}, "quantile": "0.99"},
    }
    found = measures(mean, quantile, proportion("one"))
    reasons = [obstacle(each) for each in found]
    assert "spread" in reasons[0]
    assert "shape" in reasons[1]
    assert reasons[2] == ""
    assert found[0].query.kind is Kind.MEAN
    assert [each.name for each in compared(mean, quantile, proportion("one"), one=0.1)] == ["one"]


# --- in words -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("comparison", "step", "traffic", "said"),
    [
        (
            a_comparison(margin=Bound(2), chance=0.9),
            a_step(),
            1.0,
            (
                "errors: step 1 (5 %) will see about 180 of the candidate's requests in 3600 s and needs"
                " about 2,420 to prove its margin; a margin of 7.4 x stable, or a maxSeconds of 49000"
                " would do"
            ),
        ),
        (
            a_comparison(),
            a_step(),
            100.0,
            (
                "errors: step 1 (5 %) will see about 18,000 of the candidate's requests in 3600 s and"
                " needs about 1,140 to prove its margin"
            ),
        ),
        (
            a_comparison(),
            a_step(gate=Gate.NO_HARM),
            0.4,
            (
                "errors: step 1 (5 %) will see about 72 of the candidate's requests in 3600 s and asks"
                " for 100; a weight of 7 %, or a maxSeconds of 5000 would do"
            ),
        ),
        (
            a_comparison(margin=Bound(50)),
            a_step(),
            0.4,
            (
                "errors: step 1 (5 %) will see about 72 of the candidate's requests in 3600 s and needs"
                " 100, its minRequests; a weight of 7 %, or a maxSeconds of 5000 would do"
            ),
        ),
        (
            a_comparison(margin=Bound(2), stable_rate=0.0),
            a_step(),
            0.1,
            (
                "errors: step 1 (5 %) will see about 18 of the candidate's requests in 3600 s and no"
                " number of them proves its margin; neither a margin nor a weight nor a maxSeconds"
                " alone would do"
            ),
        ),
        (
            a_comparison(
                name="accuracy",
                stable_rate=0.95,
                margin=Bound(1, 0.02),
                lower_is_worse=True,
                counts_others=True,
                delay_seconds=600.0,
            ),
            a_step(),
            10.0,
            (
                "accuracy: step 1 (5 %) will see about 1,500 of the candidate's requests in 3600 s"
                " without the first 600 s and needs about 2,010 to prove its margin; a margin of stable"
                " - 2.4 %, a weight of 7 %, or a maxSeconds of 4700 would do"
            ),
        ),
        (
            a_comparison(
                name="restarts",
                stable_rate=0.001,
                margin=Bound(1.5, 0.001),
                pods=Pods(stable=9, candidate=1),
            ),
            a_step(),
            10.0,
            (
                "restarts: step 1 (5 %) will see about 3,600 of the candidate's pod-seconds in 3600 s"
                " and needs about 11,700 to prove its margin; a margin of 1.5 x stable + 0.0028/s, or a"
                " maxSeconds of 12000 would do"
            ),
        ),
    ],
)
def test_a_forecast_is_a_sentence_with_its_numbers(comparison, step, traffic, said):
    assert sentence(comparison, the_forecast(comparison, step, traffic)) == said


@pytest.mark.parametrize(
    ("number", "text"),
    [(2651.2, "2,650"), (999.6, "1,000"), (42.04, "42"), (0.12345, "0.123"), (0.0, "0")],
)
def test_numbers_for_people_have_three_digits(number, text):
    assert about(number) == text
