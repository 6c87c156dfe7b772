"""From windows of counts to a verdict with its numbers."""

from __future__ import annotations

import pytest

from builders import NOW, a_rollout, a_spec, an_observation, the_measures
from modelrollout.api import v1alpha1 as api
from modelrollout.api.v1alpha1 import Verdict
from modelrollout.core import analysis, collect, limits
from modelrollout.core.evidence import Counts, Histogram, Reading, Window
from modelrollout.core.observation import Level


def guardrails(*given):
    rollout = a_rollout(analysis=a_spec()["analysis"] | {"guardrails": list(given)})
    return rollout.spec.analysis, the_measures(rollout, an_observation())


def window(stable, candidate, start=NOW):
    return Window(
        start=start,
        end=start + 5,
        stable=Counts(n=stable[0], k=tuple(stable[1:])),
        candidate=Counts(n=candidate[0], k=tuple(candidate[1:])),
    )


def judged(settings, measures, given, levels=None, limits=(), now=NOW):
    checkpoints = {each.name: each for each in limits}
    for measure in measures:
        reading = Reading(windows=tuple(given), watermark=NOW + 5 * len(given))
        fresh = collect.fresh(measure, NOW)
        checkpoints[measure.name] = collect.collect(measure, fresh, reading)
    return analysis.judge(settings, measures, checkpoints, {}, levels or {}, now)


PROPORTION = {
    "name": "wrong",
    "proportion": {"events": {"metric": "wrong_total"}, "total": {"metric": "judged_total"}},
}


def test_an_event_that_is_seen_before_its_request_is_counted_and_breaks_nothing():
    settings, measures = guardrails(PROPORTION)
    found = judged(settings, measures, [window((0, 1), (0, 2)), window((90, 1), (10, 0))])
    assert found.verdict is Verdict.INCONCLUSIVE


def test_a_rate_may_have_more_events_than_seconds():
    rate = {"name": "restarts", "rate": {"events": {"metric": "restarts_total"}}}
    settings, measures = guardrails(rate)
    found = judged(settings, measures, [window((10, 0), (5, 60)), window((0, 0), (0, 1))])
    assert found.verdict is Verdict.FAIL
    assert "/s over 5 s" in found.guardrails[0].message


def test_fewer_good_answers_are_harm_when_lower_is_worse():
    clicks = {
        "name": "clicks",
        "proportion": {"events": {"metric": "clicks_total"}, "total": {"metric": "shown_total"}},
        "direction": "LowerIsWorse",
    }
    settings, measures = guardrails(clicks)
    worse = [window((900, 180), (100, 2), start=NOW + 5 * i) for i in range(10)]
    better = [window((900, 180), (100, 40), start=NOW + 5 * i) for i in range(10)]
    assert judged(settings, measures, worse).verdict is Verdict.FAIL
    assert judged(settings, measures, better).verdict is Verdict.PASS


def test_any_failing_guardrail_fails_and_is_named():
    other = PROPORTION | {"name": "other", "required": False}
    settings, measures = guardrails(PROPORTION, other)
    checkpoints = {}
    for measure, candidate in zip(measures, [(100, 1), (100, 40)], strict=True):
        reading = Reading(windows=(window((900, 9), candidate),), watermark=NOW + 5)
        fresh = collect.fresh(measure, NOW)
        checkpoints[measure.name] = collect.collect(measure, fresh, reading)
    found = analysis.judge(settings, measures, checkpoints, {}, {}, NOW)
    assert found.verdict is Verdict.FAIL
    assert found.culprits == ("other",)


def test_what_is_not_required_neither_passes_nor_blinds():
    optional = PROPORTION | {"name": "optional", "required": False}
    settings, measures = guardrails(PROPORTION, optional)
    checkpoints = {}
    for measure in measures:
        many = tuple(window((900, 90), (900, 90), start=NOW + 5 * i) for i in range(20))
        given = many if measure.required else ()
        reading = Reading(windows=given, watermark=NOW + 100)
        checkpoints[measure.name] = collect.collect(measure, collect.fresh(measure, NOW), reading)
    readings = {"optional": Reading(watermark=NOW, blind="it is not there")}
    found = analysis.judge(settings, measures, checkpoints, readings, {}, NOW)
    assert found.verdict is Verdict.PASS
    assert found.blind == ()
    assert [each.verdict for each in found.guardrails] == [Verdict.PASS, Verdict.NO_DATA]


def test_evidence_collected_with_other_settings_is_not_carried_on():
    _, (measure,) = guardrails(PROPORTION)
    _, (stricter,) = guardrails(PROPORTION | {"tolerance": {"ratio": "1.1"}})
    reading = Reading(windows=(window((900, 9), (100, 30)),), watermark=NOW + 5)
    stored = collect.collect(measure, collect.fresh(measure, NOW), reading)
    assert collect.resumed(measure, [stored], NOW) == stored
    assert collect.resumed(stricter, [stored], NOW) == collect.fresh(stricter, NOW)


def test_a_window_that_was_counted_is_not_counted_again():
    _, (measure,) = guardrails(PROPORTION)
    reading = Reading(windows=(window((900, 9), (100, 30)),), watermark=NOW + 5)
    once = collect.collect(measure, collect.fresh(measure, NOW), reading)
    assert collect.collect(measure, once, reading) == once


LATENCY = {"name": "latency", "distribution": {"histogram": {"metric": "seconds"}}}


def test_thresholds_wait_for_enough_of_stable_and_are_then_fixed():
    _, (measure,) = guardrails(LATENCY)
    fresh = collect.fresh(measure, NOW)
    bounds = (0.1, 0.2, 0.5, 1.0, float("inf"))
    few = Histogram(bounds=bounds, cumulative=(50, 80, 95, 99, 100))
    enough = Histogram(bounds=bounds, cumulative=(500, 800, 950, 990, 1000))
    assert collect.choose(measure, fresh, few, NOW + 5) == fresh
    chosen = collect.choose(measure, fresh, enough, NOW + 5)
    assert chosen.thresholds
    assert set(chosen.gated) <= set(chosen.thresholds)
    assert chosen.watermark == NOW + 5
    assert len(chosen.harm) == len(chosen.thresholds)


@pytest.mark.parametrize(
    ("value", "since", "verdict"),
    [
        (0.5, None, "Pass"),
        (2.0, NOW - 5, "Inconclusive"),
        (2.0, NOW - 30, "Fail"),
        (None, None, "NoData"),
    ],
)
def test_a_limit_fails_when_it_was_exceeded_for_long_enough(value, since, verdict):
    limit = {"name": "load", "limit": {"query": "x", "max": "1", "forSeconds": 30}}
    settings, measures = guardrails(limit)
    stored = api.GuardrailCheckpoint(name="load", key="limit", beyond_since=since)
    found = judged(settings, measures, [], {"load": Level(value=value)}, [stored])
    assert found.guardrails[0].verdict == verdict


def test_an_unreadable_limit_keeps_its_clock_running():
    (guardrail,) = guardrails({"name": "load", "limit": {"query": "x", "max": "1"}})[0].guardrails
    beyond = limits.track_limit(guardrail, None, Level(value=2.0), NOW)
    assert beyond.beyond_since == NOW
    assert limits.track_limit(guardrail, beyond, Level(value=None, blind="away"), NOW + 9) == beyond
    assert limits.track_limit(guardrail, beyond, Level(value=0.5), NOW + 9).beyond_since is None
