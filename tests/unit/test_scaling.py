"""Who has how many pods when, pass by pass: before requests come, and after they are gone."""

from __future__ import annotations

from typing import Any

import pytest

from builders import a_spec
from fleet import FULL, Fleet
from modelrollout.api.conditions import Type
from modelrollout.api.v1alpha1 import Phase
from modelrollout.core.observation import Route
from modelrollout.core.plan import Plan
from walk import BAD, GOOD, QUIET, Walk

SCALING = {"scaling": {"minReplicas": 1, "warmSeconds": 600, "drainSeconds": 30}}
V2, V3 = ("ranker-v2", "c1"), ("ranker-v3", "x1")


class Scaled:
    """A walk through a fleet."""

    def __init__(self, fleet: Fleet, **spec: Any) -> None:
        self.fleet = fleet
        self.walk = Walk(spec=SCALING | spec)
        self.candidate = V2
        self.written: list[tuple[str, int]] = []
        """Deployments that were scaled, and to what."""

    @property
    def status(self):
        return self.walk.status

    def step(self, seconds: float = 5, **given: Any) -> Plan:
        assert len(self.walk.plans) < 1000, f"for ever: {self.status.reason}"
        seen = self.fleet.seen(self.status, self.candidate)
        plan = self.walk.step(seconds, **(seen | given))
        self.written += [(each.deployment, each.replicas) for each in plan.scales]
        self.fleet.follow(plan)
        return plan

    def until(self, phase: Phase, limit: int = 400, **given: Any) -> Plan:
        for _ in range(limit):
            plan = self.step(**given)
            if plan.status.phase is phase:
                return plan
        raise AssertionError(f"never {phase}: {self.status.phase}, {self.status.reason}")

    def until_weight(self, weight: int, **given: Any) -> Plan:
        for _ in range(200):
            plan = self.step(**given)
            if plan.status.weight.accepted == weight and plan.status.step_start_time:
                return plan
        raise AssertionError(f"never at {weight}: {self.status.reason}")

    def reason(self, kind: Type) -> str:
        (found,) = [each for each in self.status.conditions if each.type == kind]
        return found.reason


def fleet(**changes: Any) -> Fleet:
    return Fleet(**({"desired": {"ranker-v1": 10, "ranker-v2": 0, "ranker-v3": 0}} | changes))


def test_the_candidate_has_its_pods_before_each_share_of_requests():
    scaled = Scaled(fleet(starting=1))
    while scaled.status.phase is not Phase.PROMOTED:
        plan = scaled.step(traffic=GOOD)
        if scaled.status.candidate is not None:
            share = plan.status.weight.wanted
            assert scaled.fleet.ready["ranker-v2"] >= share / 10
            assert scaled.fleet.desired["ranker-v1"] == 10
    assert scaled.written == [("ranker-v2", 1), ("ranker-v2", 5), ("ranker-v2", 10)]
    assert scaled.walk.weights == [0, 10, 50, 100, 0]


def test_what_is_waited_for_is_said_and_is_nothing_against_the_candidate():
    scaled = Scaled(fleet(starting=2))
    scaled.until_weight(10)
    while not scaled.step().scales:
        pass
    assert scaled.status.reason == "scales ranker-v2 from 1 to 5 pods: 1 is ready"
    assert scaled.reason(Type.PROGRESSING) == "Scaling"
    assert scaled.reason(Type.HEALTHY) == "GuardrailsHold"
    scaled.step()
    assert scaled.status.reason == "scales ranker-v2 to 5 pods: 3 are ready"
    assert scaled.status.weight.wanted == 10


def test_evidence_against_the_candidate_counts_while_its_pods_start():
    scaled = Scaled(fleet(desired={"ranker-v1": 10, "ranker-v2": 1}, starting=0))
    while "to 5 pods" not in scaled.step().status.reason:
        pass
    assert scaled.until(Phase.ROLLING_BACK, traffic=BAD).traffic.is_rest


def test_replicas_are_left_alone_unless_asked_for():
    given = fleet(desired={"ranker-v1": 10, "ranker-v2": 1, "ranker-v3": 1})
    scaled = Scaled(given, scaling=None)
    scaled.until(Phase.PROMOTED)
    scaled.step(100_000)
    assert scaled.written == []
    assert scaled.status.replicas is None
    assert scaled.status.idle == ()


def test_scaling_that_is_not_wanted_any_more_leaves_everything_as_it_is():
    scaled = Scaled(fleet())
    scaled.until(Phase.PROMOTED)
    scaled.walk.spec = {"scaling": None}
    plan = scaled.step(100_000)
    assert plan.scales == ()
    assert plan.status.idle == ()


def test_a_blue_green_candidate_is_full_before_it_is_checked():
    strategy = {"type": "BlueGreen", "checks": [{"name": "answers", "http": {"path": "/"}}]}
    scaled = Scaled(fleet(starting=3), strategy=strategy)
    while scaled.fleet.ready["ranker-v2"] < 10:
        assert scaled.step().status.checks == ()
    assert scaled.written == [("ranker-v2", 10)]
    assert scaled.step().status.checks != ()


def test_a_blue_green_that_waits_for_approval_is_full_before_it_asks():
    scaled = Scaled(fleet(), strategy={"type": "BlueGreen", "onPass": "Hold"})
    scaled.until(Phase.PAUSED)
    assert scaled.fleet.ready["ranker-v2"] == 10
    assert scaled.step(command="approve").status.weight.wanted == 100


def test_a_candidate_never_has_fewer_pods_than_asked_for():
    scaled = Scaled(fleet(), scaling={"minReplicas": 3})
    scaled.until(Phase.PROMOTED)
    assert [count for _, count in scaled.written] == [3, 5, 10]


def test_a_candidate_with_more_pods_than_it_needs_keeps_them():
    scaled = Scaled(fleet(desired={"ranker-v1": 4, "ranker-v2": 20}))
    scaled.until(Phase.PROMOTED)
    assert scaled.written == []


def test_as_many_pods_as_stable_had_when_the_trial_began():
    scaled = Scaled(fleet())
    scaled.until_weight(10)
    scaled.fleet.desired["ranker-v1"] = scaled.fleet.ready["ranker-v1"] = 4
    scaled.until(Phase.PROMOTED)
    assert scaled.written[-1] == ("ranker-v2", 10)


def test_pods_that_somebody_took_away_from_a_candidate_with_users_come_back():
    scaled = Scaled(fleet())
    scaled.until_weight(50)
    scaled.fleet.desired["ranker-v2"] = scaled.fleet.ready["ranker-v2"] = 1
    plan = scaled.step()
    assert plan.scales[0].replicas == 5
    assert plan.status.reason == "scales ranker-v2 from 1 to 5 pods: 1 is ready"
    assert scaled.reason(Type.HEALTHY) == "CandidateNotReady"
    assert scaled.until(Phase.PROMOTED)


# --- autoscalers --------------------------------------------------------------------------


def test_an_autoscaler_is_never_fought():
    given = fleet(desired={"ranker-v1": 10, "ranker-v2": 2}, autoscaled={"ranker-v1", "ranker-v2"})
    scaled = Scaled(given)
    scaled.until(Phase.PROMOTED)
    for _ in range(100):
        scaled.step(60)
    assert scaled.written == []
    told = [note for plan in scaled.walk.plans for note in plan.notes]
    (left,) = [note.message for note in told if note.reason == "LeftToAutoscaler"]
    assert "HorizontalPodAutoscaler ranker-v2-autoscaler" in left


def test_the_pods_of_an_autoscaler_are_waited_for():
    given = fleet(desired={"ranker-v1": 10, "ranker-v2": 2}, autoscaled={"ranker-v2"})
    given.ready["ranker-v2"], given.starting = 1, 0
    scaled = Scaled(given)
    for _ in range(10):
        assert scaled.step().traffic.is_rest
    assert scaled.status.reason == "1 of 2 pods of ranker-v2 are ready"
    given.starting = 1
    assert scaled.until(Phase.PROMOTED)


def test_an_autoscaler_that_does_nothing_at_0_is_named_with_what_to_do():
    scaled = Scaled(fleet(autoscaled={"ranker-v2"}))
    scaled.step()
    plan = scaled.step()
    assert plan.status.phase is Phase.STALLED
    assert "kubectl scale deployment/ranker-v2 --replicas=1" in plan.status.reason
    assert scaled.written == []


# --- a cluster that is full ---------------------------------------------------------------


def test_a_full_cluster_holds_the_rollout_in_the_schedulers_words_and_heals():
    scaled = Scaled(fleet(room=13))
    scaled.until_weight(10)
    for _ in range(50):
        plan = scaled.step()
        assert plan.traffic.weight == 10
    assert scaled.reason(Type.PROGRESSING) == "CapacityMissing"
    assert FULL in plan.status.reason
    assert scaled.reason(Type.HEALTHY) == "GuardrailsHold"
    scaled.fleet.room = 100
    assert scaled.until(Phase.PROMOTED)


def test_a_full_cluster_lets_nothing_begin():
    scaled = Scaled(fleet(room=10))
    for _ in range(10):
        assert scaled.step().traffic.is_rest
    assert scaled.reason(Type.PROGRESSING) == "CapacityMissing"
    assert scaled.status.phase is Phase.PREPARING


# --- commands -----------------------------------------------------------------------------


def test_a_promotion_by_command_waits_for_its_pods():
    scaled = Scaled(fleet(starting=3))
    scaled.until_weight(10)
    plan = scaled.step(command="promote")
    while not plan.command_done:
        assert plan.status.weight.wanted == 10
        assert "to 10 pods" in plan.status.reason
        plan = scaled.step(command="promote", traffic=QUIET)
    assert plan.status.stable.deployment == "ranker-v2"
    assert scaled.fleet.ready["ranker-v2"] == 10


def test_a_candidate_that_fails_while_a_promotion_waits_is_rolled_back():
    scaled = Scaled(fleet(room=12))
    scaled.until_weight(10)
    plan = scaled.until(Phase.ROLLING_BACK, command="promote", traffic=BAD)
    assert plan.traffic.is_rest
    plan = scaled.step(command="promote")
    assert plan.command_done
    assert "no candidate is on trial" in plan.notes[0].message


def test_a_promotion_waits_for_pods_before_the_first_step_too():
    scaled = Scaled(fleet())
    scaled.step()
    assert scaled.step(command="promote").scales[0].replicas == 10
    assert scaled.step(command="promote").status.stable.deployment == "ranker-v2"


def test_an_approval_waits_for_the_pods_of_what_it_lets_through():
    steps = [{"weight": 10, "minRequests": 10}, {"approval": {}}, {"weight": 50}]
    scaled = Scaled(fleet(starting=2), strategy=a_spec()["strategy"] | {"steps": steps})
    scaled.until(Phase.PAUSED)
    assert scaled.fleet.desired["ranker-v2"] == 1
    plan = scaled.step(command="approve")
    assert not plan.command_done
    while not plan.command_done:
        assert plan.status.weight.wanted == 10
        plan = scaled.step(command="approve")
    assert plan.status.weight.wanted == 50
    assert scaled.fleet.ready["ranker-v2"] == 5


# --- down ---------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["abort", "guardrail"])
def test_a_candidate_that_lost_is_drained_before_it_is_scaled_to_0(how):
    scaled = Scaled(fleet())
    scaled.until_weight(50)
    lost = {"command": "abort"} if how == "abort" else {"traffic": BAD}
    plan = scaled.step(**lost)
    while plan.status.candidate is not None:
        plan = scaled.step(**lost)
    scaled.step(1)
    since = scaled.walk.now
    before = len(scaled.written)
    while len(scaled.written) == before:
        plan = scaled.step(plan.look_again_seconds)
    assert 30 <= scaled.walk.now - since <= 33
    assert scaled.written[-1] == ("ranker-v2", 0)
    assert scaled.step().status.idle == ()


def test_nobody_is_scaled_down_while_the_gateway_may_still_send_requests():
    scaled = Scaled(fleet())
    scaled.until_weight(50)
    before = list(scaled.written)
    scaled.step(command="abort")
    for _ in range(100):
        scaled.step(60, route=Route(in_sync=True, accepted=False, message="not yet"))
    assert scaled.written == before


def test_a_former_stable_version_is_kept_warm_and_then_halved_each_minute():
    scaled = Scaled(fleet())
    scaled.until(Phase.PROMOTED)
    scaled.written.clear()
    plan = scaled.step(1)
    since, found = scaled.walk.now, []
    while scaled.status.idle:
        plan = scaled.step(plan.look_again_seconds)
        found += [(scaled.walk.now - since, each.replicas) for each in plan.scales]
    assert [count for _, count in found] == [5, 2, 1, 0]
    assert [round(moment) for moment, _ in found] == [600, 660, 720, 780]
    assert {name for name, _ in scaled.written} == {"ranker-v1"}


def test_what_an_operator_that_was_away_has_missed_is_made_up_for():
    scaled = Scaled(fleet())
    scaled.until(Phase.PROMOTED)
    scaled.step(1)
    scaled.written.clear()
    scaled.step(600 + 2 * 60 + 5)
    assert scaled.written == [("ranker-v1", 1)]


def test_stable_keeps_its_pods_through_the_bake():
    scaled = Scaled(fleet(), strategy=a_spec()["strategy"] | {"bake": {"seconds": 5000}})
    scaled.until(Phase.BAKING)
    scaled.step(4000)
    assert scaled.fleet.desired["ranker-v1"] == 10
    assert scaled.status.idle == ()


def test_a_revert_scales_up_first():
    scaled = Scaled(fleet())
    scaled.until(Phase.PROMOTED)
    scaled.step(1)
    scaled.step(600 + 60 + 5)
    assert scaled.fleet.desired["ranker-v1"] == 2
    scaled.candidate = ("ranker-v1", "s1")
    scaled.written.clear()
    scaled.until(Phase.BAKING)
    assert scaled.written == [("ranker-v1", 10)]
    assert scaled.status.idle == ()
    assert scaled.until(Phase.PROMOTED).status.stable.deployment == "ranker-v1"


def test_a_revert_to_a_warm_version_waits_for_no_pod():
    scaled = Scaled(fleet())
    scaled.until(Phase.PROMOTED)
    scaled.step(60)
    scaled.candidate = ("ranker-v1", "s1")
    scaled.written.clear()
    scaled.until(Phase.BAKING)
    assert scaled.written == []


def test_a_new_revision_of_a_deployment_takes_it_out_of_the_scaling_down():
    scaled = Scaled(fleet())
    scaled.until_weight(50)
    scaled.step(command="abort")
    scaled.step(5)
    assert [each.deployment for each in scaled.status.idle] == ["ranker-v2"]
    scaled.candidate = ("ranker-v2", "c2")
    scaled.step(5)
    assert scaled.status.idle == ()
    scaled.until(Phase.PROMOTED)
    assert ("ranker-v2", 0) not in scaled.written


def test_a_candidate_that_another_one_takes_the_place_of_is_scaled_to_0():
    scaled = Scaled(fleet())
    scaled.until_weight(50)
    scaled.candidate = V3
    scaled.until(Phase.PROMOTED)
    for _ in range(20):
        scaled.step(5)
    assert ("ranker-v2", 0) in scaled.written
    assert ("ranker-v3", 10) in scaled.written


def test_a_deployment_that_is_gone_is_not_waited_for():
    scaled = Scaled(fleet())
    scaled.until(Phase.PROMOTED)
    scaled.step(1)
    del scaled.fleet.desired["ranker-v1"]
    assert scaled.step(1).status.idle == ()


def test_a_version_that_a_human_scaled_further_down_is_not_scaled_up_again():
    scaled = Scaled(fleet())
    scaled.until(Phase.PROMOTED)
    scaled.step(1)
    scaled.fleet.desired["ranker-v1"] = 1
    scaled.written.clear()
    scaled.step(600)
    assert scaled.written == []
