"""What makes a rollout doubtful: too little traffic, a wrong split, an ill stable, late labels."""

from __future__ import annotations

import pytest

from builders import ERRORS, a_rollout, an_observation, the_measures
from modelrollout.api import v1alpha1 as api
from modelrollout.api.conditions import Reason, Type
from modelrollout.core.evidence import Counts, Past, Reading, Window
from walk import BAD, GOOD, Walk

AT_GATEWAY = {"name": "errors", "preset": "envoy/errors"}


def analysis(**guardrail):
    return {"guardrails": [AT_GATEWAY | guardrail], "intervalSeconds": 5}


def past(requests, errors, windows=360):
    return Past(windows=tuple(Counts(n=requests, k=(errors,)) for _ in range(windows)))


def informed(spec, known):
    """A walk whose candidate is about to get its first step, and what stable did before."""
    walk = Walk(spec=spec)
    walk.until(api.Phase.PREPARING)
    for _ in range(10):
        rollout = a_rollout(walk.status, **spec)
        measures = the_measures(rollout, an_observation())
        walk.step(measures=measures, pasts={each.name: known for each in measures})
        if walk.status.step is not None:
            break
    return walk


def health(walk):
    return next(each for each in walk.status.conditions if each.type == Type.HEALTHY)


def test_traffic_that_cannot_decide_is_told_before_the_first_step():
    walk = informed({"analysis": analysis()}, past(5.0, 0.05))
    (warning,) = walk.status.warnings
    assert "step 1 (10 %)" in warning
    assert "would do" in warning
    told = [note for plan in walk.plans for note in plan.notes]
    assert [each.message for each in told if each.reason == "CannotDecideInTime"] == [warning]


def test_traffic_that_can_decide_is_no_warning():
    assert informed({"analysis": analysis()}, past(500.0, 5.0)).status.warnings == ()


def test_a_new_candidate_does_not_inherit_the_warnings():
    walk = informed({"analysis": analysis()}, past(5.0, 0.05))
    walk.until(api.Phase.ROLLED_BACK, command="abort")
    walk.step(command="retry")
    assert walk.status.warnings == ()


def test_the_evidence_begins_with_what_stable_did_before():
    walk = informed({"analysis": analysis()}, past(500.0, 5.0))
    (before,) = walk.status.checkpoint
    assert before.dispersion == (1.0,)
    for _ in range(5):
        walk.step()
    assert walk.status.checkpoint[0].windows > 0
    assert walk.status.checkpoint[0].dispersion == (1.0,)


def split_walk(candidate_requests):
    """At 10 %, the candidate gets so many of 500 requests in each window."""
    walk = Walk(spec={"analysis": analysis(), "strategy": STAY})
    traffic = ((500.0 - candidate_requests, 4.0), (candidate_requests, 0.0))
    for _ in range(40):
        walk.step(traffic=traffic)
    return walk


STAY = {"steps": [{"weight": 10, "minSeconds": 3600, "maxSeconds": 7200}]}


@pytest.mark.parametrize("requests", [47.0, 50.0, 53.0])
def test_a_split_about_as_asked_for_is_no_mismatch(requests):
    walk = split_walk(requests)
    assert walk.status.split is not None
    assert walk.status.split.mismatch_time is None


@pytest.mark.parametrize("requests", [20.0, 100.0])
def test_another_split_freezes_the_promotion_and_says_so_once(requests):
    walk = split_walk(requests)
    assert health(walk).reason == Reason.SPLIT_MISMATCH
    assert health(walk).status == "False"
    assert "instead of 10 %" in walk.status.reason
    told = [note.reason for plan in walk.plans for note in plan.notes]
    assert told.count("SplitMismatch") == 1
    for _ in range(300):
        walk.step()
    assert walk.status.weight.wanted == 10


def test_a_mismatch_does_not_keep_a_bad_version_in_traffic():
    walk = split_walk(100.0)
    assert walk.until(api.Phase.ROLLED_BACK, limit=40, traffic=BAD)


def test_two_halves_of_stable_that_differ_hold_the_rollout():
    walk = Walk(spec={"analysis": analysis()})
    walk.until(api.Phase.PROGRESSING)
    for _ in range(20):
        rollout = a_rollout(walk.status, **walk.spec)
        measures = the_measures(rollout, an_observation())
        start = walk.status.checkpoint[0].watermark if walk.status.checkpoint else walk.now
        ill = Window(
            start=start,
            end=start + 5,
            stable=Counts(n=450.0, k=(22.0,)),
            candidate=Counts(n=50.0, k=(10.0,)),
            halves=(Counts(n=225.0, k=(0.0,)), Counts(n=225.0, k=(22.0,))),
        )
        readings = {each.name: Reading(windows=(ill,), watermark=start + 5) for each in measures}
        walk.step(measures=measures, readings=readings)
    assert health(walk).reason == Reason.PLACEBO_FAILED
    assert walk.status.weight.wanted == 10
    told = [note.reason for plan in walk.plans for note in plan.notes]
    assert told.count("PlaceboFailed") == 1


def test_labels_that_come_late_still_roll_back_from_all_of_the_traffic():
    """At 100 % stable's labels of earlier requests come in for as long as the delay."""
    late = {"guardrails": [ERRORS | {"delaySeconds": 60}], "intervalSeconds": 5}
    walk = Walk(spec={"analysis": late})
    walk.until(api.Phase.BAKING, traffic=GOOD)
    rollout = a_rollout(walk.status, **walk.spec)
    measures = the_measures(rollout, an_observation())
    start = walk.status.checkpoint[0].watermark
    judged = Window(
        start=start,
        end=start + 5,
        stable=Counts(n=450.0, k=(4.0,)),
        candidate=Counts(n=450.0, k=(200.0,)),
    )
    readings = {each.name: Reading(windows=(judged,), watermark=start + 5) for each in measures}
    plan = walk.step(measures=measures, readings=readings)
    assert plan.status.phase is api.Phase.ROLLING_BACK
    assert plan.traffic.is_rest
