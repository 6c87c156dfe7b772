"""Whole rollouts, pass by pass, with what the world answers chosen by the test."""

from __future__ import annotations

import pytest

from builders import a_spec, a_workload
from modelrollout.api.conditions import Reason, Type
from modelrollout.api.v1alpha1 import Phase, Verdict
from modelrollout.core.observation import Problem, Route
from walk import BAD, QUIET, Walk


def condition(plan, kind):
    (found,) = [each for each in plan.status.conditions if each.type == kind]
    return found.status.value, found.reason


def analysis(**changes):
    return a_spec()["analysis"] | changes


def at_weight(weight, **spec):
    walk = Walk(spec=spec)
    for _ in range(200):
        plan = walk.step()
        if plan.status.weight.accepted == weight and plan.status.step_start_time:
            return walk
    raise AssertionError(f"never at {weight}: {walk.status.reason}")


def test_a_good_candidate_climbs_every_step_and_is_promoted():
    walk = Walk()
    plan = walk.until(Phase.PROMOTED)
    assert walk.weights == [0, 10, 50, 100, 0]
    assert plan.traffic.stable.service == "ranker-v2"
    plan = walk.step()
    assert condition(plan, Type.READY) == ("True", "Promoted")
    assert condition(plan, Type.PROMOTED) == ("True", "Promoted")
    assert plan.status.stable.deployment == "ranker-v2"
    assert plan.finalizer is False


def test_a_bad_candidate_loses_its_traffic_in_the_pass_that_sees_it():
    walk = at_weight(10)
    plan = walk.until(Phase.ROLLING_BACK, traffic=BAD)
    assert plan.traffic.candidate is None
    assert "ranker-v2" in plan.traffic.retired
    assert "errors: candidate 50.00 % of" in plan.status.reason
    plan = walk.step(0.3)
    assert plan.status.phase is Phase.ROLLED_BACK
    assert condition(plan, Type.PROMOTED) == ("False", "RolledBack")
    assert condition(plan, Type.HEALTHY) == ("False", "GuardrailBreached")
    assert condition(plan, Type.STALLED)[0] == "True"
    assert plan.finalizer is False


def test_a_rejected_revision_stays_away_until_it_changes():
    walk = at_weight(10)
    walk.until(Phase.ROLLED_BACK, traffic=BAD)
    for _ in range(20):
        assert walk.step().traffic.candidate is None
    plan = walk.step(candidate=a_workload("ranker-v2", "c2"))
    assert plan.status.phase is Phase.PREPARING


def test_retry_tries_a_rejected_revision_again():
    walk = at_weight(10)
    walk.until(Phase.ROLLED_BACK, traffic=BAD)
    plan = walk.step(command="retry")
    assert plan.command_done
    assert plan.status.candidate.deployment == "ranker-v2"
    assert walk.until(Phase.PROMOTED).status.rejected is None


def test_no_traffic_before_every_pod_is_ready():
    walk = Walk()
    waiting = a_workload("ranker-v2", "c1", available=1, endpoints=1)
    for _ in range(10):
        plan = walk.step(candidate=waiting)
        assert plan.traffic.candidate is None
    assert plan.status.reason == "1 of 2 pods of ranker-v2 are ready"
    assert condition(plan, Type.HEALTHY) == ("False", "CandidateNotReady")


def test_a_candidate_that_never_becomes_ready_is_reported_and_heals():
    walk = Walk()
    stuck = a_workload("ranker-v2", "c1", available=0, endpoints=0, stuck="it does not start")
    walk.step(candidate=stuck)
    plan = walk.step(candidate=stuck)
    assert plan.status.phase is Phase.STALLED
    assert condition(plan, Type.STALLED) == ("True", "CandidateNotReady")
    assert walk.until(Phase.PROGRESSING)


def test_a_candidate_without_a_ready_pod_loses_its_traffic_at_once():
    walk = at_weight(50)
    plan = walk.step(candidate=a_workload("ranker-v2", "c1", available=0, endpoints=0))
    assert plan.traffic.candidate is None
    assert condition(plan, Type.HEALTHY) == ("False", "CandidateNotReady")


def test_missing_metrics_hold_and_then_pause():
    walk = at_weight(10)
    plan = walk.step(blind="Prometheus does not answer")
    assert condition(plan, Type.HEALTHY) == ("Unknown", "MetricsUnavailable")
    for _ in range(100):
        plan = walk.step(blind="Prometheus does not answer")
        assert plan.traffic.weight == 10
    plan = walk.until(Phase.PAUSED, blind="Prometheus does not answer")
    assert "no metrics for 600 s" in plan.status.reason
    walk.step(command="resume")
    assert walk.until(Phase.PROMOTED)


def test_missing_metrics_roll_back_where_that_is_the_policy():
    walk = at_weight(10, analysis=analysis(onNoData="Rollback", noDataTimeoutSeconds=30))
    plan = walk.until(Phase.ROLLING_BACK, blind="Prometheus does not answer")
    assert condition(plan, Type.HEALTHY) == ("Unknown", "MetricsUnavailable")


def test_evidence_that_was_collected_before_an_outage_is_kept():
    walk = at_weight(10)
    walk.step()
    before = walk.status.checkpoint[0].harm
    for _ in range(5):
        walk.step(blind="away")
    assert walk.status.checkpoint[0].harm == before


def test_without_enough_evidence_nothing_moves_and_the_deadline_pauses():
    walk = at_weight(10)
    plan = walk.until(Phase.PAUSED, limit=1000, traffic=QUIET)
    assert walk.weights == [0, 10]
    assert "not decided in 3600 s" in plan.status.reason


@pytest.mark.parametrize(
    ("policy", "phase"), [("Rollback", Phase.ROLLING_BACK), ("Promote", Phase.BAKING)]
)
def test_an_undecided_step_does_as_the_policy_says(policy, phase):
    walk = at_weight(10, analysis=analysis(onInconclusive=policy))
    assert walk.until(phase, limit=2000, traffic=QUIET)


def test_abort_takes_all_traffic_back_and_remembers_who():
    walk = at_weight(50)
    plan = walk.step(command="abort")
    assert plan.traffic.candidate is None
    assert condition(plan, Type.PROMOTED) == ("False", "Aborted")
    assert "by ada" in plan.status.reason
    assert walk.step(0.3).status.phase is Phase.ROLLED_BACK


def test_a_pause_holds_but_does_not_disarm():
    walk = at_weight(10)
    walk.step(command="pause")
    for _ in range(50):
        plan = walk.step()
        assert plan.traffic.weight == 10
    assert plan.status.phase is Phase.PAUSED
    assert walk.until(Phase.ROLLING_BACK, traffic=BAD)


def test_promote_by_command_moves_everything_at_once():
    walk = at_weight(10)
    plan = walk.step(command="promote")
    assert plan.traffic.stable.service == "ranker-v2"
    assert plan.traffic.is_rest


def test_promote_is_refused_while_the_candidate_is_not_ready():
    walk = at_weight(10)
    plan = walk.step(command="promote", candidate=a_workload("ranker-v2", "c1", available=1))
    assert plan.traffic.weight == 10
    assert [note.reason for note in plan.notes] == ["CommandIgnored"]


def test_an_unknown_command_changes_nothing_and_is_answered():
    walk = at_weight(10)
    plan = walk.step(command="explode")
    assert plan.traffic.weight == 10
    assert "unknown command" in plan.notes[0].message
    assert plan.command_done


def test_a_new_revision_goes_back_to_stable_before_it_starts():
    walk = at_weight(50)
    plan = walk.step(candidate=a_workload("ranker-v2", "c2"))
    assert plan.traffic.candidate is None
    assert plan.status.checkpoint == ()
    plan = walk.step(candidate=a_workload("ranker-v2", "c2"))
    assert plan.traffic.weight == 10


def test_another_deployment_mid_rollout_retires_the_first_one():
    walk = at_weight(50)
    plan = walk.step(candidate=a_workload("ranker-v3", "x1"))
    assert plan.traffic.candidate is None
    assert "ranker-v2" in plan.traffic.retired


def test_wanting_stable_again_mid_rollout_withdraws_the_candidate():
    walk = at_weight(50)
    plan = walk.step(candidate=a_workload("ranker-v1", "s1"))
    assert plan.traffic.candidate is None
    assert walk.step(0.3, candidate=a_workload("ranker-v1", "s1")).status.phase is Phase.PROMOTED


def test_deletion_restores_the_route_before_it_lets_go():
    walk = at_weight(50)
    assert walk.finalizer
    plan = walk.step(deleting=True)
    assert plan.finalizer
    assert plan.traffic.is_rest
    plan = walk.step(0.3, deleting=True)
    assert plan.finalizer is False


def test_deletion_lets_go_when_the_route_is_gone():
    walk = at_weight(50)
    problem = Problem(reason=Reason.ROUTE_NOT_FOUND, message="gone")
    gone = Route(in_sync=False, accepted=False, problem=problem)
    assert walk.step(deleting=True, route=gone).finalizer is False


def test_a_missing_candidate_is_said_and_moves_nothing():
    walk = Walk()
    problem = Problem(reason=Reason.CANDIDATE_NOT_FOUND, message="Deployment ranker-v2 is missing")
    plan = walk.step(problem=problem, candidate=None)
    assert condition(plan, Type.ACCEPTED) == ("False", "CandidateNotFound")
    assert plan.traffic.is_rest
    assert walk.until(Phase.PROMOTED)


def test_a_candidate_that_is_deleted_mid_step_is_rolled_back():
    walk = at_weight(50)
    problem = Problem(reason=Reason.CANDIDATE_NOT_FOUND, message="Deployment ranker-v2 is missing")
    plan = walk.step(problem=problem, candidate=None)
    assert plan.traffic.candidate is None


def test_a_route_edited_by_hand_is_put_back_and_told_once():
    walk = at_weight(50)
    notes = []
    for _ in range(3):
        plan = walk.step(0.3, route=Route(in_sync=False, accepted=True))
        notes += [note.reason for note in plan.notes]
        assert plan.traffic.weight == 50
    assert notes == ["Drift"]


def test_a_weight_that_the_gateway_does_not_accept_starts_no_step():
    walk = Walk()
    walk.step()
    walk.step()
    refused = Route(in_sync=True, accepted=False, message="the gateway says Accepted=False")
    for _ in range(10):
        plan = walk.step(route=refused)
        assert plan.status.step_start_time is None
    assert condition(plan, Type.ROUTE_SYNCED) == ("False", "NotAcceptedByGateway")


def test_harm_evidence_survives_a_step_and_safety_evidence_does_not():
    walk = at_weight(10)
    walk.step()
    before = walk.status.checkpoint[0]
    while walk.status.weight.wanted == 10:
        before = walk.status.checkpoint[0]
        walk.step()
    while walk.status.step_start_time is None:
        walk.step(0.3)
    after = walk.status.checkpoint[0]
    assert after.harm != tuple((0.0,) * len(row) for row in after.harm)
    assert after.windows == 0
    assert before.windows > 0
    assert set(after.safety[0]) == {0.0}


def test_verdicts_are_shown_with_their_numbers():
    walk = at_weight(10)
    plan = walk.step()
    (shown,) = plan.status.guardrails
    assert shown.verdict in {Verdict.INCONCLUSIVE, Verdict.PASS}
    assert shown.candidate.requests == 50
    assert shown.message.startswith("candidate 0.00 % of 50, stable 0.89 % of 450")


def test_a_change_of_stable_in_place_is_adopted_and_said():
    walk = Walk()
    walk.until(Phase.PROMOTED)
    walk.step()
    changed = a_workload("ranker-v2", "c9")
    plan = walk.step(stable=changed, candidate=changed)
    assert plan.status.phase is Phase.PROMOTED
    assert plan.status.stable.revision == "c9"
    assert [note.reason for note in plan.notes] == ["ChangedInPlace"]


def test_until_something_was_promoted_stable_is_what_the_spec_says():
    walk = at_weight(10)
    walk.until(Phase.ROLLED_BACK, traffic=BAD)
    walk.spec = {"stable": {"deployment": "ranker-v0"}}
    plan = walk.step(stable=a_workload("ranker-v0", "z1"))
    assert plan.traffic.stable.service == "ranker-v0"
    assert "ranker-v1" in plan.traffic.retired


def test_stable_does_not_change_under_a_trial_nor_after_a_promotion():
    walk = at_weight(10)
    walk.spec = {"stable": {"deployment": "ranker-v0"}}
    assert walk.step().traffic.stable.service == "ranker-v1"
    walk.until(Phase.PROMOTED)
    assert walk.step().traffic.stable.service == "ranker-v2"


def steps(*weights):
    spec = a_spec()["strategy"]
    return {"strategy": spec | {"steps": [{"weight": each} for each in weights]}}


@pytest.mark.parametrize("edited", [[50], [5], [1, 2, 5, 50, 60]])
def test_an_edit_of_the_steps_never_skips_the_gate_of_the_weight_in_force(edited):
    walk = at_weight(10, **steps(1, 10, 50))
    walk.spec = steps(*edited)
    for _ in range(100):
        plan = walk.step(traffic=QUIET)
        assert plan.traffic.weight == 10
        assert plan.status.phase is Phase.PROGRESSING


def test_an_edit_of_the_steps_applies_from_the_next_step_on():
    walk = at_weight(10, **steps(1, 10, 50))
    walk.spec = steps(5, 30, 60)
    walk.until(Phase.PROMOTED)
    assert walk.weights == [0, 1, 10, 30, 60, 100, 0]


def test_a_mistyped_candidate_does_not_condemn_the_one_on_trial():
    walk = at_weight(10)
    walk.spec = {"candidate": {"deployment": "ranker-v22"}}
    problem = Problem(reason=Reason.CANDIDATE_NOT_FOUND, message="Deployment ranker-v22 is missing")
    plan = walk.step(problem=problem, candidate=None)
    assert plan.status.rejected is None
    assert plan.traffic.weight == 10
    walk.spec = {}
    assert walk.until(Phase.PROMOTED)


def test_guardrails_that_count_no_requests_ask_for_none():
    rate = {"name": "restarts", "rate": {"events": {"metric": "restarts_total"}}}
    walk = Walk(spec={"analysis": analysis(guardrails=[rate])})
    assert walk.until(Phase.PROMOTED, traffic=((1000.0, 100.0), (1000.0, 100.0)))


def test_the_deadline_waits_while_the_spec_is_paused():
    walk = at_weight(10, analysis=analysis(onInconclusive="Rollback"))
    walk.spec["paused"] = True
    for _ in range(3):
        walk.step(2000, traffic=QUIET)
    walk.spec["paused"] = False
    assert walk.step(traffic=QUIET).status.phase is Phase.PROGRESSING


def test_no_user_is_sent_to_a_stable_version_without_a_ready_pod():
    walk = at_weight(50)
    dead = a_workload("ranker-v1", "s1", available=0, endpoints=0)
    plan = walk.step(command="abort", stable=dead)
    assert plan.status.rejected is not None
    assert plan.traffic is None
    assert walk.step(stable=a_workload("ranker-v1", "s1")).traffic.is_rest


def test_a_candidate_without_a_ready_pod_loses_its_users_whatever_else_is_wrong():
    walk = at_weight(50)
    problem = Problem(reason=Reason.PROVIDER_NOT_FOUND, message="no such provider")
    dead = a_workload("ranker-v2", "c1", available=0, endpoints=0)
    assert walk.step(problem=problem, candidate=dead).traffic.is_rest


def test_deletion_does_not_wait_for_a_gateway_that_is_away():
    walk = at_weight(50)
    walk.step(deleting=True)
    away = Route(in_sync=True, accepted=False, message="nobody answers")
    assert walk.step(deleting=True, route=away).finalizer is False


def test_a_command_counts_once_though_its_annotation_stays():
    """Its removal may fail, and an operator may die before it: a step is skipped once."""
    walk = at_weight(10)
    plan = walk.step(command="skip-step", traffic=None)
    assert plan.status.weight.wanted == 50
    for _ in range(5):
        plan = walk.step(command="skip-step", traffic=None)
        assert plan.command_done
        assert plan.status.weight.wanted == 50
    walk.step(traffic=None)
    assert walk.step(command="skip-step", traffic=None).status.weight.wanted == 100


def test_evidence_decides_while_a_command_that_was_obeyed_stays():
    walk = at_weight(10)
    walk.step(command="resume")
    plan = walk.until(Phase.ROLLING_BACK, command="resume", traffic=BAD)
    assert "errors: candidate" in plan.status.reason
