"""Each strategy from start to promotion and rollback, and what its steps promise."""

from __future__ import annotations

import asyncio

import pytest

from builders import ERRORS, a_rollout, a_spec, a_workload, an_observation
from modelrollout.api.conditions import Reason, Type
from modelrollout.api.v1alpha1 import Phase, Verdict
from modelrollout.core.observation import CheckResult, Comparator, Level, Route
from modelrollout.core.times import as_seconds
from modelrollout.metrics import with_metrics
from modelrollout.world import World
from past import Away
from walk import BAD, QUIET, Walk

FLIPS = {
    "name": "flips",
    "preset": "comparator/flips",
    "tolerance": {"absolute": "0.01"},
    "margin": {"absolute": "0.05"},
}
SHADOW = {
    "intent": "Equivalence",
    "idempotent": True,
    "paths": ["/"],
    "outputs": [{"name": "label", "path": "$.label", "exact": {}}],
}
ANSWERS = {"name": "answers", "http": {"path": "/"}}
READY = {"name": "ready", "http": {"path": "/ready"}}
MEMORY = {"name": "memory", "limit": {"query": "max(x)", "max": "1", "forSeconds": 0}}
PASSED = CheckResult(passed=True)
FAILED = CheckResult(passed=False, message="status 503, not 200")
NONE = Comparator()
STARTING = Comparator(exists=True, is_current=True)
DEAD = STARTING
RUNNING = Comparator(exists=True, is_current=True, is_ready=True)
V1, V2 = a_workload("ranker-v1", "s1"), a_workload("ranker-v2", "c1")
GONE = a_workload("ranker-v2", "c1", available=0, endpoints=0)
ALIKE = ((50.0, 3.0), (50.0, 3.0))
"""Pairs: as many in which only stable's repeat differed as in which only the candidate did."""
FLIPPING = ((50.0, 1.0), (50.0, 8.0))


def condition(plan, kind):
    (found,) = [each for each in plan.status.conditions if each.type == kind]
    return found.status.value, found.reason


def what(walk):
    """The history, the oldest first."""
    return [each.what for each in reversed(walk.status.history)]


def notes(walk):
    return [note.reason for plan in walk.plans for note in plan.notes]


def strategy(*steps, analysis=None, **given):
    """A spec whose judged steps ask for few requests."""
    listed = [
        {"minRequests": 10, **each} if "weight" in each or "mirror" in each else each
        for each in steps
    ]
    given |= {"steps": listed} if steps else {}
    found = {"strategy": {"bake": {"seconds": 10}} | given}
    if analysis is not None:
        found["analysis"] = a_spec()["analysis"] | analysis
    return found


def blue_green(**given):
    return Walk(spec=strategy(type="BlueGreen", **({"checks": [ANSWERS]} | given)))


def shadowed(*steps, guardrails=(FLIPS,), analysis=None, **given):
    told = {"guardrails": list(guardrails)} | (analysis or {})
    return Walk(spec=strategy(*steps, analysis=told, **given) | {"shadow": SHADOW})


def until(walk, is_reached, limit=400, **each):
    for _ in range(limit):
        plan = walk.step(**each)
        if is_reached(plan.status):
            return plan
    raise AssertionError(f"never: {walk.status.phase}, {walk.status.reason}")


def until_mirrored(walk, percent=20, **each):
    return until(
        walk,
        lambda it: it.mirror == percent and it.step_start_time,
        **({"traffic": ALIKE} | each),
    )


def until_approval(walk, **each):
    return until(walk, lambda it: "waits for approval" in it.reason, **each)


# --- blue/green -----------------------------------------------------------------------------


def test_a_blue_green_moves_all_users_in_one_move_and_promotes_after_the_bake():
    walk = blue_green()
    walk.until(Phase.BAKING, checks={"answers": PASSED})
    plan = walk.until(Phase.PROMOTED)
    assert walk.weights == [0, 100, 0]
    assert plan.traffic.stable.service == "ranker-v2"
    assert what(walk) == ["Started", "Promoted"]


def test_stable_stays_on_the_route_while_a_blue_green_bakes():
    walk = blue_green()
    plan = walk.until(Phase.BAKING, checks={"answers": PASSED})
    assert (plan.traffic.stable.service, plan.traffic.candidate.service) == (
        "ranker-v1",
        "ranker-v2",
    )


def test_a_limit_that_is_exceeded_in_the_bake_of_a_blue_green_undoes_it_in_one_move():
    walk = blue_green(analysis={"guardrails": [MEMORY]}, bake={"seconds": 3600})
    walk.until(Phase.BAKING, checks={"answers": PASSED}, levels={"memory": Level(value=0.5)})
    plan = walk.step(levels={"memory": Level(value=2.0)})
    assert plan.traffic.is_rest
    assert walk.weights == [0, 100, 0]
    assert plan.status.rejected.cause == Reason.GUARDRAIL_BREACHED
    assert "rolled back at 100 %" in plan.status.reason


def test_a_blue_green_without_a_ready_pod_in_the_bake_is_undone_at_once():
    walk = blue_green(bake={"seconds": 3600})
    walk.until(Phase.BAKING, checks={"answers": PASSED})
    plan = walk.step(candidate=GONE)
    assert plan.traffic.is_rest
    assert plan.status.rejected.cause == Reason.CANDIDATE_NOT_READY


def test_a_blue_green_that_holds_asks_before_the_first_user_meets_the_candidate():
    walk = Walk(spec=strategy(type="BlueGreen", onPass="Hold"))
    plan = until_approval(walk)
    assert plan.traffic.candidate is None
    assert plan.status.phase is Phase.PAUSED
    walk.step(command="approve")
    walk.until(Phase.PROMOTED)
    assert walk.weights == [0, 100, 0]


# --- checks ---------------------------------------------------------------------------------


def test_no_user_meets_a_candidate_before_every_check_has_passed():
    walk = blue_green(checks=[ANSWERS, READY], checkSeconds=60)
    for _ in range(8):
        plan = walk.step(checks={"answers": PASSED, "ready": FAILED})
        assert plan.traffic.candidate is None
    assert condition(plan, Type.PROGRESSING) == ("True", "Checking")
    assert plan.status.reason == "check ready: status 503, not 200"
    walk.until(Phase.BAKING, checks={"ready": PASSED})
    assert [each.passed for each in walk.status.checks] == [True, True]


def test_a_check_that_fails_for_too_long_rolls_back_before_the_first_step():
    walk = blue_green(checkSeconds=30)
    plan = walk.until(Phase.ROLLED_BACK, checks={"answers": FAILED})
    assert 0 not in walk.weights[1:]
    assert plan.status.reason == (
        "ranker-v2 was rolled back before the first step: check answers: status 503, not 200"
    )
    assert plan.status.rejected.cause == Reason.CHECK_FAILED
    assert condition(plan, Type.HEALTHY) == ("False", "CheckFailed")
    waited = as_seconds(plan.status.rejected.time) - as_seconds(plan.status.check_since_time)
    assert 30 <= waited < 40


def test_a_check_that_has_passed_is_not_asked_for_again():
    walk = blue_green(checks=[ANSWERS, READY], checkSeconds=30)
    until(
        walk,
        lambda it: [each.passed for each in it.checks] == [True, False],
        checks={"answers": PASSED, "ready": FAILED},
    )
    walk.until(Phase.BAKING, checks={"answers": FAILED, "ready": PASSED})
    walk.until(Phase.PROMOTED, checks={"answers": FAILED, "ready": FAILED})


def test_another_revision_has_to_pass_the_checks_anew():
    walk = blue_green()
    walk.until(Phase.BAKING, checks={"answers": PASSED})
    other = a_workload("ranker-v2", "c2")
    for _ in range(5):
        plan = walk.step(candidate=other, checks={"answers": FAILED})
        assert plan.traffic.candidate is None
    assert plan.status.reason == "check answers: status 503, not 200"


def test_a_retry_makes_the_checks_again():
    walk = blue_green(checkSeconds=30)
    walk.until(Phase.ROLLED_BACK, checks={"answers": FAILED})
    walk.step(command="retry")
    walk.until(Phase.PROMOTED, checks={"answers": PASSED})


def test_a_pause_before_the_first_step_makes_no_check_fail():
    walk = blue_green(checkSeconds=30)
    walk.spec["paused"] = True
    for _ in range(20):
        plan = walk.step()
    assert plan.status.rejected is None
    walk.spec["paused"] = False
    assert walk.until(Phase.BAKING, checks={"answers": PASSED})


# --- approvals ------------------------------------------------------------------------------


def canary_with_approval(**given):
    steps = ({"weight": 10}, {"approval": {"message": "look at the answers"}}, {"weight": 50})
    return Walk(spec=strategy(*steps, **given))


def test_an_approval_keeps_the_weight_however_good_the_evidence_is():
    walk = canary_with_approval()
    plan = until_approval(walk)
    for _ in range(200):
        plan = walk.step()
        assert plan.traffic.weight == 10
    assert condition(plan, Type.PROGRESSING) == ("True", "AwaitingApproval")
    assert plan.status.phase is Phase.PAUSED
    assert "waits for approval at 10 %: look at the answers; kubectl annotate" in plan.status.reason


@pytest.mark.parametrize("policy", ["Promote", "Rollback"])
def test_no_deadline_ends_an_approval(policy):
    walk = canary_with_approval(analysis={"onInconclusive": policy})
    until_approval(walk)
    for _ in range(5):
        plan = walk.step(seconds=100_000, traffic=QUIET)
        assert plan.traffic.weight == 10
    assert plan.status.rejected is None


def test_an_approval_is_recorded_with_its_user():
    walk = canary_with_approval()
    until_approval(walk)
    plan = walk.step(command="approve")
    assert plan.traffic.weight == 50
    assert (plan.status.history[0].what, plan.status.history[0].by) == ("Approved", "ada")
    assert "by ada" in plan.status.history[0].message
    walk.until(Phase.PROMOTED)
    assert walk.weights == [0, 10, 50, 100, 0]


def test_guardrails_stay_armed_while_approval_is_waited_for():
    walk = canary_with_approval()
    until_approval(walk)
    plan = walk.until(Phase.ROLLING_BACK, traffic=BAD)
    assert plan.traffic.is_rest
    assert plan.status.rejected.cause == Reason.GUARDRAIL_BREACHED


def test_a_candidate_that_is_not_approved_is_aborted():
    walk = canary_with_approval()
    until_approval(walk)
    plan = walk.step(command="abort")
    assert plan.traffic.is_rest
    assert plan.status.history[0].by == "ada"


def test_an_approval_that_nobody_asked_for_is_ignored():
    walk = canary_with_approval()
    until(walk, lambda it: it.weight.accepted == 10 and it.step_start_time)
    plan = walk.step(command="approve", traffic=QUIET)
    assert plan.traffic.weight == 10
    assert [(each.reason, "no approval is asked for" in each.message) for each in plan.notes] == [
        ("CommandIgnored", True)
    ]


def test_an_approval_before_it_is_asked_for_does_not_count_later():
    walk = canary_with_approval()
    until(walk, lambda it: it.weight.accepted == 10 and it.step_start_time)
    walk.step(command="approve")
    until_approval(walk)
    assert walk.step().traffic.weight == 10


def test_two_approvals_in_a_row_need_two_humans_words():
    walk = Walk(spec=strategy({"approval": {}}, {"approval": {}}, {"weight": 50}))
    until_approval(walk)
    walk.step(command="approve")
    for _ in range(3):
        plan = walk.step()
    assert "waits for approval" in plan.status.reason
    walk.step(command="approve")
    until(walk, lambda it: it.weight.wanted == 50)
    assert what(walk).count("Approved") == 2


@pytest.mark.parametrize("command", ["approve", "skip-step"])
def test_a_paused_rollout_goes_on_by_resume_alone(command):
    walk = canary_with_approval()
    until_approval(walk)
    walk.step(command="pause")
    plan = walk.step(command=command)
    assert plan.traffic.weight == 10
    assert "resume it first" in plan.notes[0].message
    walk.step(command="resume")
    until_approval(walk)


@pytest.mark.parametrize("command", ["approve", "skip-step"])
def test_nobody_is_sent_to_a_candidate_that_is_not_ready_by_command(command):
    walk = canary_with_approval()
    until_approval(walk)
    plan = walk.step(command=command, candidate=a_workload("ranker-v2", "c1", available=1))
    assert plan.traffic.weight == 10
    assert [each.reason for each in plan.notes] == ["CommandIgnored"]


def test_a_canary_that_holds_asks_once_before_all_users():
    steps = ({"weight": 10}, {"weight": 50}, {"approval": {}})
    for given in (steps, steps[:2]):
        walk = Walk(spec=strategy(*given, onPass="Hold"))
        plan = until_approval(walk)
        assert plan.traffic.weight == 50
        walk.step(command="approve")
        walk.until(Phase.PROMOTED)
        assert walk.weights == [0, 10, 50, 100, 0]


# --- skip-step ------------------------------------------------------------------------------


def test_a_skipped_step_is_recorded_and_the_next_one_is_judged():
    walk = Walk(spec=strategy({"weight": 10}, {"weight": 50}))
    until(walk, lambda it: it.weight.accepted == 10 and it.step_start_time)
    plan = walk.step(command="skip-step", traffic=QUIET)
    assert plan.traffic.weight == 50
    assert (plan.status.history[0].what, plan.status.history[0].by) == ("StepSkipped", "ada")
    for _ in range(50):
        assert walk.step(traffic=QUIET).traffic.weight == 50


def test_to_skip_the_bake_is_to_promote():
    walk = Walk(spec=strategy({"weight": 50}, bake={"seconds": 3600}))
    walk.until(Phase.BAKING)
    plan = walk.step(command="skip-step")
    assert plan.status.phase is Phase.PROMOTED
    assert plan.status.history[0].by == "ada"


def test_there_is_nothing_to_skip_before_the_first_step():
    walk = blue_green()
    walk.step()
    plan = walk.step(command="skip-step", checks={"answers": FAILED})
    assert plan.traffic.candidate is None
    assert "no step has begun" in plan.notes[0].message


# --- reverts --------------------------------------------------------------------------------


def promoted(**given):
    """A rollout after which ranker-v2 is stable and ranker-v1 was."""
    walk = Walk(spec=strategy({"weight": 10}, {"weight": 50}, **given))
    walk.until(Phase.PROMOTED, checks={"answers": PASSED})
    walk.step()
    walk.plans.clear()
    return walk


def test_a_version_that_was_stable_before_comes_back_in_one_move():
    walk = promoted(checks=[ANSWERS])
    plan = walk.step(candidate=V1)
    assert "revert to ranker-v1" in plan.status.reason
    walk.until(Phase.PROMOTED, candidate=V1, checks={"answers": FAILED})
    assert walk.weights == [0, 100, 0]
    assert walk.status.stable.deployment == "ranker-v1"


def test_a_revert_by_steps_is_judged_like_any_other_version():
    walk = promoted(revert="Steps")
    walk.until(Phase.PROMOTED, candidate=V1)
    assert walk.weights == [0, 10, 50, 100, 0]


def test_a_version_that_has_changed_since_it_was_stable_is_no_revert():
    walk = promoted()
    changed = a_workload("ranker-v1", "s2")
    walk.until(Phase.PROMOTED, candidate=changed)
    assert walk.weights == [0, 10, 50, 100, 0]


def test_a_rejected_version_is_no_revert():
    walk = Walk(spec=strategy({"weight": 10}))
    until(walk, lambda it: it.weight.accepted == 10 and it.step_start_time)
    walk.until(Phase.ROLLED_BACK, traffic=BAD)
    walk.step(command="retry")
    walk.plans.clear()
    walk.until(Phase.PROMOTED)
    assert 10 in walk.weights


def test_a_revert_asks_nobody_and_waits_for_ready_pods():
    walk = blue_green_promoted()
    waiting = a_workload("ranker-v1", "s1", available=1)
    for _ in range(3):
        assert walk.step(candidate=waiting).traffic.candidate is None
    walk.until(Phase.PROMOTED, candidate=V1)
    assert walk.weights == [0, 100, 0]


def blue_green_promoted():
    walk = Walk(spec=strategy(type="BlueGreen", onPass="Hold"))
    until_approval(walk)
    walk.step(command="approve")
    walk.until(Phase.PROMOTED)
    walk.step()
    walk.plans.clear()
    return walk


# --- A/B test -------------------------------------------------------------------------------


def ab_test(*steps, **given):
    spec = strategy(*steps, type="ABTest", **given)
    sticky = {"traffic": {"gatewayAPI": {"route": "ranker"}, "sticky": {"header": "x-user"}}}
    return Walk(spec=spec | sticky)


def test_an_ab_test_has_one_weight_and_keeps_its_users_until_it_is_decided():
    walk = ab_test()
    plan = until(walk, lambda it: it.weight.accepted == 50 and it.step_start_time)
    assert plan.traffic.sticky.header == "x-user"
    salt = plan.traffic.salt
    walk.until(Phase.BAKING)
    assert {plan.traffic.salt for plan in walk.plans if plan.traffic.weight} == {salt}
    walk.until(Phase.PROMOTED)
    assert walk.weights == [0, 50, 100, 0]


def test_an_ab_test_that_is_lost_is_rolled_back():
    walk = ab_test({"weight": 30})
    until(walk, lambda it: it.weight.accepted == 30 and it.step_start_time)
    plan = walk.until(Phase.ROLLING_BACK, traffic=BAD)
    assert plan.traffic.is_rest
    assert walk.weights == [0, 30, 0]


def test_an_ab_test_that_nothing_decides_runs_for_two_weeks():
    walk = ab_test()
    until(walk, lambda it: it.weight.accepted == 50 and it.step_start_time)
    day = 86_400
    for _ in range(13):
        assert walk.step(seconds=day, traffic=QUIET).status.phase is Phase.PROGRESSING
    plan = walk.until(Phase.PAUSED, seconds=day, traffic=QUIET, limit=3)
    assert "not decided in 1209600 s" in plan.status.reason


def test_another_release_is_tried_by_other_users_first():
    walk = ab_test()
    first = until(walk, lambda it: it.weight.wanted == 50).traffic.salt
    other = a_workload("ranker-v2", "c2")
    second = until(walk, lambda it: it.weight.wanted == 50 and it.step == 0, candidate=other)
    assert second.traffic.salt != first


# --- warm-up --------------------------------------------------------------------------------


def test_the_warm_up_is_no_part_of_the_first_step():
    walk = Walk(spec=strategy({"weight": 10, "minSeconds": 30}, {"weight": 50}, warmupSeconds=60))
    plan = until(walk, lambda it: it.step_start_time)
    assert plan.traffic.weight == 10
    assert as_seconds(plan.status.step_start_time) == walk.now + 60
    began = walk.now
    until(walk, lambda it: it.weight.wanted == 50)
    assert walk.now - began >= 90


def test_only_the_first_share_is_warmed_up():
    walk = Walk(
        spec=strategy({"pauseSeconds": 5}, {"weight": 10}, {"weight": 50}, warmupSeconds=60)
    )
    until(walk, lambda it: it.weight.accepted == 10 and it.step_start_time)
    assert as_seconds(walk.status.step_start_time) == walk.now + 60
    until(walk, lambda it: it.weight.accepted == 50 and it.step_start_time)
    assert as_seconds(walk.status.step_start_time) == walk.now


def world(walk):
    """A Prometheus that would say why if it was asked."""
    return World(
        cluster=None,
        metrics={"default": Away()},
        router=None,
        comparators=None,
        checker=None,
        clock=lambda: walk.now,
    )


def asked(walk):
    """What a pass asks of the metrics now."""
    seen = an_observation(walk.now)
    rollout = a_rollout(walk.status, **walk.spec)
    return asyncio.run(with_metrics(rollout, walk.status, seen, None, world(walk)))


def test_nothing_but_limits_is_asked_of_the_metrics_in_the_warm_up():
    analysis = {"guardrails": [ERRORS, MEMORY]}
    walk = Walk(spec=strategy({"weight": 10}, warmupSeconds=60, analysis=analysis))
    until(walk, lambda it: it.step_start_time, levels={"memory": Level(value=0.5)})
    seen = asked(walk)
    assert (seen.measures, set(seen.levels)) == ((), {"memory"})
    walk.now += 61
    assert set(asked(walk).readings) == {"errors"}


def test_a_candidate_that_dies_in_the_warm_up_loses_its_users():
    walk = Walk(spec=strategy({"weight": 10}, warmupSeconds=60))
    until(walk, lambda it: it.step_start_time)
    assert walk.step(candidate=GONE).traffic.is_rest


# --- mirror steps ---------------------------------------------------------------------------


def test_a_shadow_sends_no_user_to_the_candidate_before_a_human_approves():
    walk = shadowed(type="Shadow")
    plan = until_approval(walk, traffic=ALIKE)
    assert any(each.traffic.mirror for each in walk.plans)
    assert all(each.traffic.candidate is None for each in walk.plans)
    assert plan.traffic.is_rest
    walk.step(command="approve")
    walk.until(Phase.PROMOTED)
    assert walk.weights == [0, 100, 0]


def test_a_shadow_that_promotes_asks_nobody():
    walk = shadowed({"mirror": 100}, type="Shadow", onPass="Promote")
    walk.until(Phase.PROMOTED, traffic=ALIKE)
    assert walk.weights == [0, 100, 0]


def test_a_mirror_step_copies_the_share_and_keeps_the_cohort_on_stable():
    walk = shadowed({"mirror": 20}, {"weight": 10}, guardrails=[FLIPS, ERRORS])
    cohort = [{"header": "x-beta", "value": "1"}]
    walk.spec["traffic"] = {"gatewayAPI": {"route": "ranker"}, "cohort": cohort}
    plan = until_mirrored(walk)
    mirror = plan.traffic.mirror
    assert (mirror.service, mirror.percent) == ("ranker-comparator", 20)
    assert (plan.traffic.candidate, plan.traffic.cohort, plan.traffic.weight) == (None, (), 0)
    assert plan.finalizer
    plan = until(walk, lambda it: it.weight.wanted == 10)
    assert plan.traffic.mirror is None
    assert [each.header for each in plan.traffic.cohort] == ["x-beta"]


def test_the_comparator_is_there_before_the_first_copy():
    walk = shadowed({"mirror": 20})
    plan = walk.step(comparator=NONE)
    assert plan.comparator is True
    for found in (NONE, STARTING, STARTING, STARTING):
        plan = walk.step(comparator=found)
        assert plan.traffic.mirror is None
    assert condition(plan, Type.PROGRESSING) == ("True", "ComparatorNotReady")
    assert plan.comparator is None
    assert walk.step(comparator=RUNNING).traffic.mirror.percent == 20


def test_a_comparator_of_other_versions_is_made_anew():
    walk = shadowed({"mirror": 20})
    until_mirrored(walk)
    assert walk.step(traffic=ALIKE, comparator=Comparator(exists=True)).comparator is True


def test_the_comparator_goes_when_the_gateway_sends_no_copies_any_more():
    walk = shadowed({"mirror": 20}, {"weight": 10}, guardrails=[FLIPS, ERRORS])
    until_mirrored(walk)
    plan = until(walk, lambda it: it.weight.wanted == 10, traffic=ALIKE)
    assert plan.comparator is None
    waiting = Route(in_sync=True, accepted=False)
    assert walk.step(route=waiting).comparator is None
    assert walk.step().comparator is False
    assert walk.step(comparator=NONE).comparator is None


@pytest.mark.parametrize("command", ["abort", "promote"])
def test_the_comparator_goes_when_the_trial_ends(command):
    walk = shadowed({"mirror": 20})
    until_mirrored(walk)
    plan = walk.step(command=command)
    assert plan.traffic.mirror is None
    assert plan.comparator is None
    assert walk.step().comparator is False


def test_the_comparator_stays_between_two_mirror_steps():
    walk = shadowed({"mirror": 20}, {"pauseSeconds": 60}, {"mirror": 100})
    until_mirrored(walk)
    until_mirrored(walk, percent=100)
    assert all(plan.comparator is not False for plan in walk.plans)


def test_a_comparator_that_dies_is_said_and_nothing_goes_on():
    walk = shadowed({"mirror": 20})
    until_mirrored(walk)
    for _ in range(10):
        plan = walk.step(comparator=DEAD, blind="no series")
        assert plan.traffic.mirror.percent == 20
    assert "the comparator is not ready: copies of requests are lost" in plan.status.reason
    assert plan.status.rejected is None
    walk.until(Phase.PROMOTED, traffic=ALIKE)


@pytest.mark.parametrize(
    ("policy", "phase"), [("Pause", Phase.PAUSED), ("Rollback", Phase.ROLLING_BACK)]
)
@pytest.mark.parametrize("guardrails", [[FLIPS], [ERRORS]], ids=["flips", "counted by the pods"])
def test_a_comparator_that_stays_away_ends_as_the_policy_for_missing_metrics_says(
    policy, phase, guardrails
):
    analysis = {"onNoData": policy, "noDataTimeoutSeconds": 60}
    walk = shadowed({"mirror": 20}, guardrails=guardrails, analysis=analysis)
    until_mirrored(walk, traffic=QUIET)
    began = walk.now
    blind = "no series" if guardrails == [FLIPS] else ""
    plan = walk.until(phase, comparator=DEAD, blind=blind, traffic=QUIET, limit=30)
    assert 60 <= walk.now - began < 80
    assert "the comparator is not ready" in plan.status.reason


def test_a_candidate_that_flips_beyond_the_noise_is_rolled_back_and_no_user_met_it():
    walk = shadowed({"mirror": 20})
    until_mirrored(walk)
    plan = walk.until(Phase.ROLLING_BACK, traffic=FLIPPING)
    assert "rolled back at a mirror of 20 %: flips: candidate 16.00 % of" in plan.status.reason
    assert plan.traffic.is_rest
    assert walk.weights == [0]


def test_an_equal_candidate_passes_however_noisy_stable_is():
    for noise in (0.0, 5.0, 25.0):
        walk = shadowed({"mirror": 100}, type="Shadow")
        pairs = ((100.0, noise), (100.0, noise))
        plan = until_approval(walk, traffic=pairs, limit=2000)
        assert plan.status.rejected is None


def test_a_mirror_without_answers_to_compare_proves_nothing():
    walk = shadowed({"mirror": 20, "maxSeconds": 600})
    until_mirrored(walk)
    plan = walk.until(Phase.PAUSED, traffic=QUIET, limit=200)
    assert "not decided in 600 s at a mirror of 20 %" in plan.status.reason


def test_a_mirror_goes_on_when_a_pod_of_the_candidate_is_missing_but_does_not_pass():
    """No user is there to suffer: the rollout waits."""
    walk = shadowed({"mirror": 20})
    until_mirrored(walk)
    for _ in range(50):
        plan = walk.step(traffic=ALIKE, candidate=GONE, measures=())
        assert plan.traffic.mirror.percent == 20
    assert plan.status.rejected is None
    assert condition(plan, Type.HEALTHY) == ("False", "CandidateNotReady")


# --- one error budget -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("coverage", "says"),
    [
        (None, "how many of the copied requests were compared is not known yet; "),
        (0.612, "61.2 % of the copied requests were compared, and minCoverage is 80 %: "),
    ],
)
def test_what_is_left_of_lost_copies_proves_nothing(coverage, says):
    walk = shadowed({"mirror": 20}, type="Shadow")
    until_mirrored(walk)
    for _ in range(60):
        plan = walk.step(traffic=ALIKE, coverage=coverage)
        assert plan.status.mirror == 20
    assert plan.status.guardrails[0].verdict is Verdict.PASS
    assert plan.status.verdict is Verdict.INCONCLUSIVE
    assert plan.status.reason.startswith(says)
    assert plan.status.coverage == (None if coverage is None else "0.612")
    assert until_approval(walk, traffic=ALIKE, coverage=0.8)


def test_lost_copies_save_no_candidate_that_flips():
    walk = shadowed({"mirror": 20})
    until_mirrored(walk)
    plan = walk.until(Phase.ROLLING_BACK, traffic=FLIPPING, coverage=0.1)
    assert "flips: candidate" in plan.status.reason


ENVOY = {"name": "errors", "preset": "envoy/errors"}
WORSE = ((450.0, 4.0), (50.0, 2.0))
SUSPICIOUS = ((50.0, 1.0), (50.0, 7.0))


def looks_until_rolled_back(*guardrails, pairs=QUIET):
    """In a weight step, after a mirror step with three looks at pairs."""
    walk = shadowed({"mirror": 20}, {"weight": 10}, guardrails=guardrails)
    until_mirrored(walk, traffic=QUIET)
    for _ in range(3):
        walk.step(traffic=pairs)
    walk.step(command="skip-step")
    until(walk, lambda it: it.weight.accepted == 10 and it.step_start_time, traffic=QUIET)
    walk.plans.clear()
    walk.until(Phase.ROLLING_BACK, traffic=WORSE, limit=2000)
    return len(walk.plans)


def test_what_the_comparator_found_counts_on_when_users_are_on_the_candidate():
    suspected = looks_until_rolled_back(FLIPS, ENVOY, pairs=SUSPICIOUS)
    assert suspected < looks_until_rolled_back(FLIPS, ENVOY)


def test_a_guardrail_keeps_its_share_of_the_error_budget_where_it_has_nothing_to_compare():
    failures = {"name": "failures", "preset": "comparator/errors", "weight": "20"}
    lighter = failures | {"weight": "0.1"}
    assert looks_until_rolled_back(lighter, ENVOY) < looks_until_rolled_back(failures, ENVOY)


def test_what_was_said_of_a_guardrail_is_still_shown_where_it_has_nothing_to_compare():
    walk = shadowed({"mirror": 20}, {"weight": 10}, guardrails=[FLIPS, ENVOY])
    until_mirrored(walk)
    until(walk, lambda it: it.weight.accepted == 10 and it.step_start_time, traffic=ALIKE)
    walk.step()
    flips, errors = walk.status.guardrails
    assert flips.verdict == "Pass"
    assert errors.candidate.requests == 50


# --- an edit of the steps -------------------------------------------------------------------


def edited(walk, *given):
    walk.spec |= strategy(*given)


def test_an_edit_amid_a_mirror_step_does_not_skip_its_gate():
    walk = shadowed({"mirror": 20}, {"mirror": 100})
    until_mirrored(walk, traffic=QUIET)
    edited(walk, {"mirror": 50})
    for _ in range(50):
        plan = walk.step(traffic=QUIET)
        assert plan.traffic.mirror.percent == 20
    assert plan.status.phase is Phase.PROGRESSING


def test_an_edit_amid_a_mirror_step_applies_from_the_next_step_on():
    walk = shadowed({"mirror": 20}, {"mirror": 100})
    until_mirrored(walk)
    edited(walk, {"mirror": 10}, {"mirror": 50}, {"approval": {}})
    until_approval(walk, traffic=ALIKE)
    copied = [each.traffic.mirror.percent for each in walk.plans if each.traffic.mirror]
    assert sorted(set(copied)) == [20, 50]


@pytest.mark.parametrize(
    "given",
    [
        ({"mirror": 30}, {"approval": {}}, {"weight": 10}),
        ({"mirror": 10}, {"approval": {}}, {"weight": 10}),
        ({"approval": {}}, {"mirror": 50}, {"weight": 10}),
    ],
)
def test_an_edit_of_a_mirror_step_does_not_get_past_an_approval(given):
    walk = shadowed({"mirror": 20}, *given[1:], guardrails=[FLIPS, ERRORS])
    until_mirrored(walk)
    edited(walk, *given)
    until_approval(walk, traffic=ALIKE)
    assert walk.weights == [0]


@pytest.mark.parametrize("weight", [5, 20])
def test_an_edit_of_a_weight_does_not_get_past_an_approval(weight):
    walk = Walk(spec=strategy({"weight": 10}, {"approval": {}}, {"weight": 50}))
    until(walk, lambda it: it.weight.accepted == 10 and it.step_start_time)
    edited(walk, {"weight": weight}, {"approval": {}}, {"weight": 50})
    until_approval(walk)
    assert 50 not in walk.weights


def test_a_mirror_that_is_edited_away_ends_with_its_evidence():
    walk = shadowed({"mirror": 20}, guardrails=[FLIPS, ERRORS])
    until_mirrored(walk)
    edited(walk, {"weight": 10})
    walk.spec["analysis"] = a_spec()["analysis"]
    until(walk, lambda it: it.weight.wanted == 10, traffic=ALIKE)
    assert walk.status.mirror is None
