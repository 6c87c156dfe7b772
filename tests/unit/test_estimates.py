"""What people are told beside the verdict: how the versions compare, and what is still needed."""

from __future__ import annotations

import numpy as np
import pytest

from builders import NOW, a_rollout, a_spec, an_observation, the_measures
from modelrollout.api.v1alpha1 import GuardrailStatus, IntervalKind, Verdict
from modelrollout.core import analysis, collect, estimates
from modelrollout.core.evidence import Counts, Past, Reading, Window
from modelrollout.stats.counts import Sample
from modelrollout.stats.intervals import difference_bounds, ratio_bounds
from modelrollout.stats.planning import remaining_requests

WRONG = {"events": {"metric": "wrong_total"}, "total": {"metric": "judged_total"}}
BY_RATIO = {"margin": {"ratio": "1.5"}, "tolerance": {"ratio": "1.25"}}
BY_DIFFERENCE = {"margin": {"absolute": "0.02"}, "tolerance": {"absolute": "0.01"}}


def told(guardrail, stable, candidate, windows=50, past=None, known=None):
    """The status of a guardrail after windows that all hold the same (exposure, *events)."""
    given = {"name": "it"} | guardrail
    rollout = a_rollout(analysis=a_spec()["analysis"] | {"guardrails": [given]})
    settings = rollout.spec.analysis
    [measure] = the_measures(rollout, an_observation())
    fresh = collect.fresh(measure, NOW)
    if past is not None:
        fresh = collect.prepared(measure, fresh, past, NOW)
    one, other = (Counts(n=each[0], k=tuple(each[1:])) for each in (stable, candidate))
    read = tuple(
        Window(start=NOW + 5 * i, end=NOW + 5 * i + 5, stable=one, candidate=other)
        for i in range(windows)
    )
    checkpoint = collect.collect(measure, fresh, Reading(windows=read, watermark=NOW + 5 * windows))
    judgement = analysis.judge(settings, [measure], {"it": checkpoint}, {}, {}, NOW)
    before = {} if known is None else {"it": known}
    found = estimates.with_estimates(
        judgement, rollout.spec, [measure], {"it": checkpoint}, known=before
    )
    return found.guardrails[0]


def limits(status):
    return tuple(float(each) for each in (status.interval.lower, status.interval.upper))


# --- the interval -------------------------------------------------------------------------------


def test_a_margin_that_is_a_ratio_is_told_as_a_ratio_and_others_as_a_difference():
    by_ratio = told({"proportion": WRONG} | BY_RATIO, (450.0, 9.0), (50.0, 1.0))
    by_difference = told({"proportion": WRONG} | BY_DIFFERENCE, (450.0, 9.0), (50.0, 1.0))

    assert by_ratio.interval.kind is IntervalKind.RATIO
    assert by_difference.interval.kind is IntervalKind.DIFFERENCE
    assert limits(by_ratio)[0] < 1 < limits(by_ratio)[1]
    assert limits(by_difference)[0] < 0 < limits(by_difference)[1]


@pytest.mark.parametrize("windows", range(10, 200, 10))
@pytest.mark.parametrize("bounds", [BY_RATIO, BY_DIFFERENCE], ids=["ratio", "difference"])
@pytest.mark.parametrize("events", [1.0, 2.0])
def test_the_interval_leaves_out_the_margin_when_safety_is_proved_and_the_tolerance_when_harm_is(
    bounds, windows, events
):
    status = told({"proportion": WRONG} | bounds, (450.0, 9.0), (50.0, events), windows)
    part = "ratio" if bounds is BY_RATIO else "absolute"
    low, high = limits(status)

    assert (high <= float(bounds["margin"][part])) == (float(status.safety) >= 1)
    assert (low >= float(bounds["tolerance"][part])) == (float(status.harm) >= 1)


@pytest.mark.parametrize(
    ("bounds", "worse", "better"),
    [
        (BY_RATIO | {"direction": "LowerIsWorse"}, 0.5, 1.0),
        (BY_DIFFERENCE | {"direction": "LowerIsWorse"}, -0.1, 0.0),
        (BY_DIFFERENCE, 0.1, 0.0),
    ],
    ids=["fewer, ratio", "fewer, difference", "more, difference"],
)
@pytest.mark.parametrize("share", [0.2, 0.8], ids=["rare", "common"])
def test_the_interval_is_of_the_candidate_against_stable_whatever_is_worse(
    bounds, worse, better, share
):
    """Where the event is common the others are counted: the figures are the event's."""
    past = Past(windows=(Counts(n=450.0, k=(450.0 * share,)),) * 20)
    sign = {"ratio": lambda p: share * p, "absolute": lambda p: share + p}
    for part, value in (("worse", worse), ("same", better)):
        kind = "ratio" if "ratio" in bounds["margin"] else "absolute"
        rate = sign[kind](value)
        status = told(
            {"proportion": WRONG} | bounds, (450.0, 450.0 * share), (50.0, 50.0 * rate), 200, past
        )
        low, high = limits(status)
        assert low < value < high, part
        if part == "worse":
            assert status.verdict is Verdict.FAIL
            assert not low < better < high


def test_an_average_with_a_largest_value_has_a_difference_in_its_own_unit():
    mean = {"sum": {"metric": "s_sum"}, "count": {"metric": "s_count"}, "max": "200"}
    bounds = {"margin": {"absolute": "10"}, "tolerance": {"absolute": "5"}}
    low, high = limits(told({"mean": mean} | bounds, (450.0, 4500.0), (50.0, 600.0), 100))
    assert low < 2 < high
    assert high - low < 10


def test_an_average_without_a_largest_value_has_a_difference_where_its_margin_is_one():
    mean = {"sum": {"metric": "s_sum"}, "count": {"metric": "s_count"}}
    one = {"margin": {"absolute": "10"}, "tolerance": {"absolute": "5"}}
    for direction in ("HigherIsWorse", "LowerIsWorse"):
        status = told({"mean": mean, "direction": direction} | one, (450.0, 4500.0), (50.0, 600.0))
        assert limits(status) == pytest.approx((2, 2))
    assert told({"mean": mean} | BY_RATIO, (450.0, 4500.0), (50.0, 600.0)).interval is None


def test_an_event_over_time_has_a_ratio():
    rate = {"rate": {"events": {"metric": "restarts_total"}}} | BY_RATIO
    low, high = limits(told(rate, (50.0, 1.0), (5.0, 0.1), 2000))
    assert low < 1 < high < 1.5


def test_before_anything_was_answered_nothing_is_told():
    status = told({"proportion": WRONG} | BY_RATIO, (450.0, 9.0), (0.0, 0.0))
    assert (status.interval, status.needed) == (None, None)


def test_without_an_event_a_ratio_has_no_upper_bound():
    status = told({"proportion": WRONG} | BY_RATIO, (450.0, 0.0), (50.0, 0.0))
    assert status.interval.upper is None
    assert status.needed is None


# --- when it is computed ------------------------------------------------------------------------


def test_an_interval_stays_until_requests_have_grown_by_a_tenth_or_the_verdict_is_another():
    guardrail = {"proportion": WRONG} | BY_RATIO
    first = told(guardrail, (450.0, 9.0), (50.0, 1.0), 100)
    mark = first.model_copy(update={"needed": 123_456})

    little = told(guardrail, (450.0, 9.0), (50.0, 1.0), 101, known=mark)
    much = told(guardrail, (450.0, 9.0), (50.0, 1.0), 111, known=mark)
    turned = mark.model_copy(update={"verdict": Verdict.NO_DATA})
    again = told(guardrail, (450.0, 9.0), (50.0, 1.0), 101, known=turned)

    assert (little.interval, little.needed) == (mark.interval, 123_456)
    assert much.needed != 123_456
    assert again.needed != 123_456


def test_what_is_not_compared_in_this_step_keeps_what_was_said():
    idle = GuardrailStatus(name="it", verdict=Verdict.INCONCLUSIVE)
    judgement = analysis.Judgement(
        verdict=Verdict.INCONCLUSIVE,
        guardrails=(idle,),
        culprits=(),
        requests=None,
        blind=(),
        untrusted=(),
    )
    spec = a_rollout().spec
    assert estimates.with_estimates(judgement, spec, (), {}, known={}).guardrails == (idle,)


# --- what is still needed -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bounds", "events"),
    [(BY_RATIO, 1.0), (BY_RATIO, 2.0), (BY_DIFFERENCE, 1.0), (BY_DIFFERENCE, 2.5)],
    ids=["safe, ratio", "harmful, ratio", "safe, difference", "harmful, difference"],
)
def test_as_many_requests_as_are_needed_decide(bounds, events):
    guardrail = {"proportion": WRONG} | bounds
    status = told(guardrail, (450.0, 9.0), (50.0, events), 10)
    assert status.verdict is Verdict.INCONCLUSIVE
    more = status.needed / 50

    assert told(guardrail, (450.0, 9.0), (50.0, events), 10 + int(0.9 * more)).needed
    late = told(guardrail, (450.0, 9.0), (50.0, events), 11 + int(1.1 * more))
    assert late.verdict in {Verdict.PASS, Verdict.FAIL}
    assert late.needed is None


# --- the sums of a step -------------------------------------------------------------------------


def looks(generator, shares, rates, windows):
    """Windows of 500 requests, by turns of the candidate's share and of both versions' rate."""
    candidate = generator.poisson(500 * shares, windows)
    stable = generator.poisson(500 * (1 - shares), windows)
    rows = zip(
        stable,
        generator.binomial(stable, rates),
        candidate,
        generator.binomial(candidate, rates),
        strict=True,
    )
    return [Sample(*map(float, row)) for row in rows]


def pooled(samples):
    rows = [(s.stable_n, s.stable_k, s.candidate_n, s.candidate_k) for s in samples]
    return [Sample(*np.sum(rows, axis=0))]


def far_apart(samples):
    """How far the bounds of sums are from those of windows: of the ratio, and of the width."""
    ratios = np.log([ratio_bounds(pooled(samples), 0.05), ratio_bounds(samples, 0.05)])
    sums, windows = (np.array(difference_bounds(each, 0.05)) for each in (pooled(samples), samples))
    return np.abs(ratios[0] - ratios[1]).max(), np.abs(sums - windows).max() / np.ptp(windows)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("swing", [0.0, 0.8], ids=["steady", "rates swing"])
def test_with_a_constant_share_a_steps_sums_say_what_its_windows_say(share, swing):
    generator = np.random.default_rng(20261121)
    rates = 0.02 * (1 + swing * np.sin(np.arange(200) / 20))
    found = [far_apart(looks(generator, np.full(200, share), rates, 200)) for _ in range(10)]
    assert np.max(found, axis=0) == pytest.approx((0, 0), abs=0.06)


def test_where_share_and_rate_swing_together_sums_mislead_and_windows_do_not():
    """Simpson's paradox: why windows are never added together before they are bet on."""
    generator = np.random.default_rng(20261121)
    swing = np.sin(np.arange(1500) / 20)
    samples = looks(generator, 0.1 * (1 + 0.5 * swing), 0.02 * (1 + 0.8 * swing), 1500)
    assert ratio_bounds(samples, 0.05)[0] < 1
    assert ratio_bounds(pooled(samples), 0.05)[0] > 1


def test_the_bounds_of_sums_hold_at_every_look():
    """200 runs of equal versions; each bound is missed in at most 5 %."""
    generator = np.random.default_rng(20261121)
    missed = np.zeros(4)
    for _ in range(200):
        samples = looks(generator, np.full(120, 0.1), np.full(120, 0.02), 120)
        seen = [pooled(samples[:t]) for t in (2, 5, 10, 20, 40, 80, 120)]
        ratios = np.array([ratio_bounds(each, 0.05) for each in seen])
        differences = np.array([difference_bounds(each, 0.05) for each in seen])
        missed += (
            (ratios[:, 0] > 1).any(),
            (ratios[:, 1] < 1).any(),
            (differences[:, 0] > 0).any(),
            (differences[:, 1] < 0).any(),
        )
    assert missed.max() <= 0.05 * 200


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: remaining_requests([[0.0]], [[1.0]], 10, 0), "alpha must lie between 0 and 1"),
        (lambda: remaining_requests([[0.0]], [[1.0]], 0, 0.05), "at least one request"),
    ],
)
def test_what_cannot_be_extrapolated_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_evidence_that_is_there_needs_nothing_and_one_that_falls_never_comes():
    grown = [[0.5, 1.0], [-0.5, 0.0]]
    enough, never = remaining_requests([[4.0, 4.0], [0.0, 0.0]], grown, 10, 0.05)
    assert (enough, never) == (0, float("inf"))
