"""Whatever happens in whatever order: the rules that no code path may break."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from builders import a_rollout, a_spec, a_workload
from modelrollout.api.conditions import Reason
from modelrollout.api.v1alpha1 import Phase, Verdict
from modelrollout.core.machine import TRANSITIONS
from modelrollout.core.observation import Problem, Route
from modelrollout.core.steps import steps_of
from walk import BAD, GOOD, QUIET, Walk

VERSIONS = [("ranker-v2", "c1"), ("ranker-v2", "c2"), ("ranker-v3", "x1"), ("ranker-v1", "s1")]
HUMAN = {"promote", "abort", "resume", "retry", "pause"}


class Rollouts(RuleBasedStateMachine):
    """A rollout in a world that does anything at any time."""

    @initialize(bake=st.sampled_from([0, 10, 60]), policy=st.sampled_from(["Pause", "Rollback"]))
    def begin(self, bake, policy):
        spec = a_spec()
        self.walk = Walk(
            spec={
                "strategy": spec["strategy"] | {"bake": {"seconds": bake}},
                "analysis": spec["analysis"] | {"onNoData": policy, "noDataTimeoutSeconds": 30},
            }
        )
        self.candidate = VERSIONS[0]
        self.before = None
        self.command = None

    def _pass(self, **seen):
        self.before = self.walk.status
        self.command = seen.get("command")
        seen.setdefault("candidate", a_workload(*self.candidate))
        self.candidate_ready = seen["candidate"].is_ready if seen["candidate"] else False
        self.problem = seen.get("problem")
        self.plan = self.walk.step(**seen)

    @rule(seconds=st.sampled_from([0.3, 5, 30]))
    def good_traffic(self, seconds):
        self._pass(seconds=seconds, traffic=GOOD)

    @rule()
    def much_good_traffic(self):
        for _ in range(12):
            self._pass(traffic=GOOD)
            self.check_all()

    @rule()
    def bad_traffic(self):
        self._pass(traffic=BAD)

    @rule(seconds=st.sampled_from([0.3, 5, 4000]))
    def no_traffic(self, seconds):
        self._pass(seconds=seconds, traffic=QUIET)

    @rule(seconds=st.sampled_from([5, 40]))
    def metrics_away(self, seconds):
        self._pass(seconds=seconds, blind="Prometheus does not answer")

    @rule(command=st.sampled_from([*sorted(HUMAN), "explode"]))
    def a_command(self, command):
        self._pass(command=command)

    @rule(version=st.sampled_from(VERSIONS))
    def another_candidate(self, version):
        self.candidate = version
        self._pass()

    @rule(available=st.sampled_from([0, 1]))
    def pods_not_ready(self, available):
        self._pass(candidate=a_workload(*self.candidate, available=available, endpoints=available))

    @rule()
    def route_edited_by_hand(self):
        self._pass(route=Route(in_sync=False, accepted=True))

    @rule()
    def gateway_refuses(self):
        self._pass(route=Route(in_sync=True, accepted=False, message="no"))

    @rule(reason=st.sampled_from([Reason.STABLE_NOT_FOUND, Reason.PROVIDER_NOT_FOUND]))
    def a_problem(self, reason):
        self._pass(problem=Problem(reason=reason, message="it is not there"))

    @rule()
    def the_candidate_is_deleted(self):
        problem = Problem(reason=Reason.CANDIDATE_NOT_FOUND, message="it is not there")
        self._pass(problem=problem, candidate=None)

    @rule()
    def deciding_again_at_once_changes_no_weight(self):
        if self.before is None:
            return
        weight = self.walk.status.weight.wanted
        self._pass(seconds=0, traffic=None, route=Route(in_sync=False, accepted=False))
        assert self.plan.status.weight.wanted <= weight

    @precondition(lambda self: self.before is not None)
    @invariant()
    def the_rules_hold(self):
        self.check_all()

    def check_all(self):
        self.weight_rises_only_with_a_met_gate()
        self.fail_means_no_traffic()
        self.a_rejected_revision_gets_no_traffic()
        self.no_traffic_to_pods_that_are_not_ready()
        self.the_finalizer_is_on_while_traffic_is_away()
        self.status_is_what_the_api_accepts()
        self.the_move_is_in_the_table()
        self.route_follows_status()

    def weight_rises_only_with_a_met_gate(self):
        old, new = self.before, self.plan.status
        has_risen = new.weight.wanted > old.weight.wanted
        if not has_risen or old.weight.wanted == 0 or self.command in HUMAN:
            return
        steps = steps_of(self.walk_strategy())
        assert steps[old.step].gate is not None
        assert new.verdict is Verdict.PASS

    def walk_strategy(self):
        return a_rollout(self.walk.status, **self.walk.spec).spec.strategy

    def fail_means_no_traffic(self):
        if any(each.verdict is Verdict.FAIL for each in self.plan.status.guardrails):
            assert self.plan.status.candidate is None or self.plan.status.checkpoint == ()
            assert self.plan.status.weight.wanted == 0
            assert self.plan.traffic is None or self.plan.traffic.is_rest

    def a_rejected_revision_gets_no_traffic(self):
        lost, now = self.plan.status.rejected, self.plan.status.candidate
        if lost is not None and now is not None:
            assert (lost.deployment, lost.revision) != (now.deployment, now.revision)

    def no_traffic_to_pods_that_are_not_ready(self):
        has_begun = self.before.weight.wanted == 0 and self.plan.status.weight.wanted > 0
        assert not has_begun or self.candidate_ready

    def the_finalizer_is_on_while_traffic_is_away(self):
        if self.plan.traffic is not None and not self.plan.traffic.is_rest:
            assert self.plan.finalizer

    def status_is_what_the_api_accepts(self):
        status = self.plan.status
        assert type(status).model_validate(status.to_dict()) == status
        assert len(status.history) <= 20
        assert len(status.retired) <= 20

    def the_move_is_in_the_table(self):
        old, new = self.before.phase, self.plan.status.phase
        assert old is new or new in TRANSITIONS[old], f"{old} -> {new}: {self.plan.status.reason}"

    def route_follows_status(self):
        status, traffic = self.plan.status, self.plan.traffic
        if traffic is None:
            return
        assert traffic.stable.service == status.stable.service
        assert traffic.weight == status.weight.wanted
        assert (traffic.candidate is None) == (status.weight.wanted == 0)
        assert traffic.stable.service not in traffic.retired


TestRollouts = Rollouts.TestCase
TestRollouts.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_every_phase_has_a_way_in_and_a_way_out():
    targets = {target for moves in TRANSITIONS.values() for target in moves}
    assert set(TRANSITIONS) == set(Phase)
    assert targets == set(Phase)
