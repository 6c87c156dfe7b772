"""Whatever happens in whatever order: the rules that no code path may break."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from builders import ERRORS, a_rollout
from fleet import Fleet
from modelrollout.api.conditions import Reason
from modelrollout.api.v1alpha1 import Phase, Verdict
from modelrollout.core.machine import TRANSITIONS
from modelrollout.core.observation import CheckResult, Comparator, Problem, Route
from modelrollout.core.steps import StepKind, steps_of
from walk import BAD, GOOD, QUIET, Walk

VERSIONS = [("ranker-v2", "c1"), ("ranker-v2", "c2"), ("ranker-v3", "x1"), ("ranker-v1", "s1")]
HUMAN = {"promote", "abort", "resume", "retry", "pause", "approve", "skip-step"}
FLIPS = {"name": "flips", "preset": "comparator/flips", "margin": {"absolute": "0.1"}}
SHADOW = {
    "shadow": {
        "intent": "Equivalence",
        "idempotent": True,
        "paths": ["/"],
        "outputs": [{"name": "label", "path": "$.label", "exact": {}}],
    }
}
BETA = {
    "traffic": {"gatewayAPI": {"route": "ranker"}, "cohort": [{"header": "x-beta", "value": "1"}]}
}
STICKY = {"traffic": {"gatewayAPI": {"route": "ranker"}, "sticky": {"cookie": "user"}}}
CHECKS = [{"name": "answers", "http": {"path": "/"}}]
SCALINGS = {
    "none": {},
    "usual": {"scaling": {}},
    "hasty": {"scaling": {"minReplicas": 3, "warmSeconds": 0, "drainSeconds": 0}},
    "short": {"scaling": {"minReplicas": 1, "warmSeconds": 60, "drainSeconds": 5}},
}
DEPLOYMENTS = ["ranker-v1", "ranker-v2", "ranker-v3"]


def steps(*given):
    return {"steps": [{"minRequests": 10, **each} if "weight" in each else each for each in given]}


STRATEGIES = {
    "canary": (steps({"weight": 10}, {"weight": 50}), BETA),
    "canary with approvals": (
        steps({"weight": 10}, {"approval": {}}, {"weight": 50}, {"pauseSeconds": 20})
        | {"warmupRequests": 120},
        STICKY,
    ),
    "blue/green": ({"type": "BlueGreen", "checks": CHECKS, "checkSeconds": 30}, {}),
    "blue/green with approval": ({"type": "BlueGreen", "onPass": "Hold"}, BETA),
    "shadow": ({"type": "Shadow", "steps": [{"mirror": 100, "minRequests": 10}]}, SHADOW),
    "shadow, then canary": (
        steps({"mirror": 20}, {"pauseSeconds": 10}, {"mirror": 100}, {"weight": 10})
        | {"checks": CHECKS, "warmupSeconds": 20, "revert": "Steps"},
        SHADOW | BETA,
    ),
    "a/b test": ({"type": "ABTest"}, STICKY),
}


class Rollouts(RuleBasedStateMachine):
    """A rollout of any strategy in a world that does anything at any time."""

    @initialize(
        strategy=st.sampled_from(sorted(STRATEGIES)),
        bake=st.sampled_from([0, 10, 60]),
        policy=st.sampled_from(["Pause", "Rollback"]),
        scaling=st.sampled_from(sorted(SCALINGS)),
        pods=st.sampled_from([0, 1, 4]),
    )
    def begin(self, strategy, bake, policy, scaling, pods):
        given, more = STRATEGIES[strategy]
        guardrails = [ERRORS, FLIPS] if "shadow" in more else [ERRORS]
        self.walk = Walk(
            spec={
                **more,
                **SCALINGS[scaling],
                "strategy": given | {"bake": {"seconds": bake}},
                "analysis": {
                    "guardrails": guardrails,
                    "intervalSeconds": 5,
                    "onNoData": policy,
                    "noDataTimeoutSeconds": 30,
                },
            }
        )
        is_scaled = scaling != "none"
        others = dict.fromkeys(DEPLOYMENTS[1:], pods if is_scaled else 2)
        self.fleet = Fleet(desired={"ranker-v1": 4, **others})
        self.candidate = VERSIONS[0]
        self.before = None
        self.command = None
        self.waiting = None
        self.comparator = Comparator(exists=True, is_current=True, is_ready=True)
        self.passing = True

    def _pass(self, **seen):
        self.before = self.walk.status
        self.on_route = self.walk.route
        seen.setdefault("command", self.waiting)
        seen = self.fleet.seen(self.before, self.candidate) | seen
        seen.setdefault("comparator", self.comparator)
        names = [each.name for each in self.walk_spec().strategy.checks]
        seen["checks"] = {each: CheckResult(passed=self.passing) for each in names}
        self.candidate_ready = seen["candidate"].is_ready if seen["candidate"] else False
        self.problem = seen.get("problem")
        self.seen = seen
        self.plan = self.walk.step(**seen)
        self.fleet.follow(self.plan)
        is_done = self.plan.command_done
        self.command, self.waiting = (seen["command"], None) if is_done else (None, seen["command"])

    @rule(exists=st.booleans(), ready=st.booleans())
    def the_comparator_comes_and_goes(self, exists, ready):
        self.comparator = Comparator(exists=exists, is_current=exists, is_ready=exists and ready)
        self._pass()

    @rule(passing=st.booleans())
    def checks_turn_out(self, passing):
        self.passing = passing
        self._pass()

    @rule()
    def the_rollout_is_deleted(self):
        """Only looked at: what follows a deletion is not this object's any more."""
        walk = copy.copy(self.walk)
        walk.plans = []
        plan = walk.step(deleting=True)
        assert plan.traffic is None or plan.traffic.is_rest
        assert (
            plan.traffic is None or plan.traffic.stable.service == self.walk.status.stable.service
        )

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
        found = self.fleet.workload(*self.candidate)
        fewer = min(available, found.available)
        self._pass(candidate=replace(found, available=fewer, endpoints=fewer))

    @rule(room=st.sampled_from([0, 6, 1000]), starting=st.sampled_from([1, 1000]))
    def the_cluster_fills_or_grows(self, room, starting):
        self.fleet.room, self.fleet.starting = room, starting
        self._pass()

    @rule(name=st.sampled_from(DEPLOYMENTS))
    def an_autoscaler_comes_or_goes(self, name):
        self.fleet.autoscaled ^= {name}
        self._pass()

    @rule(name=st.sampled_from(DEPLOYMENTS), pods=st.sampled_from([0, 1, 7]))
    def somebody_scales(self, name, pods):
        self.fleet.desired[name] = pods
        self.fleet.ready[name] = min(pods, self.fleet.ready[name])
        self._pass()

    @rule(asked=st.booleans())
    def scaling_is_asked_for_or_not(self, asked):
        self.walk.spec["scaling"] = {"warmSeconds": 60} if asked else None
        self._pass()

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
        self.share_grows_only_with_a_met_gate()
        self.no_metrics_hold()
        self.fail_means_no_traffic()
        self.a_mirror_sends_nobody_to_the_candidate()
        self.a_cohort_is_there_with_the_candidate_only()
        self.a_mirror_begins_with_a_comparator_that_is_ready()
        self.the_comparator_outlives_the_mirror()
        self.a_rejected_revision_gets_no_traffic()
        self.no_traffic_to_pods_that_are_not_ready()
        self.a_share_comes_after_its_pods()
        self.nobody_with_requests_is_scaled_down()
        self.nothing_is_scaled_that_is_not_ours_to_scale()
        self.the_finalizer_is_on_while_traffic_is_away()
        self.status_is_what_the_api_accepts()
        self.the_move_is_in_the_table()
        self.route_follows_status()

    def share_grows_only_with_a_met_gate(self):
        """By a judged step's own evidence, a check's answer, a time, or a human's word."""
        old, new = self.before, self.plan.status
        if old.candidate is None or old.candidate != new.candidate or old.step == new.step:
            return
        if new.step is None or self.command in HUMAN:
            return
        if old.step is None:
            has_passed = all(each.passed for each in new.checks)
            assert new.is_revert or (has_passed and len(new.checks) == len(self.names_of_checks()))
            return
        left = self.steps_of(old)[old.step]
        assert left.kind is not StepKind.APPROVAL
        if left.is_judged:
            assert new.verdict is Verdict.PASS
            assert old.warmup is None

    def names_of_checks(self):
        return [each.name for each in self.walk_spec().strategy.checks]

    def steps_of(self, status):
        return steps_of(self.walk_spec().strategy, is_revert=bool(status.is_revert))

    def walk_spec(self):
        return a_rollout(self.walk.status, **self.walk.spec).spec

    def no_metrics_hold(self):
        """Nothing goes on without evidence where evidence is asked for."""
        if self.plan.status.no_data_since_time and self.command not in HUMAN:
            assert self.plan.status.weight.wanted <= self.before.weight.wanted

    def fail_means_no_traffic(self):
        failed = [e for e in self.plan.status.guardrails if e.verdict is Verdict.FAIL]
        if failed:
            assert self.plan.status.candidate is None or self.plan.status.checkpoint == ()
            assert self.plan.status.weight.wanted == 0
            assert self.plan.traffic is None or self.plan.traffic.is_rest

    def a_mirror_sends_nobody_to_the_candidate(self):
        status, traffic = self.plan.status, self.plan.traffic
        if status.mirror:
            assert status.weight.wanted == 0
            assert traffic is None or (traffic.candidate is None and traffic.cohort == ())

    def a_cohort_is_there_with_the_candidate_only(self):
        traffic = self.plan.traffic
        if traffic is not None and traffic.candidate is None:
            assert traffic.cohort == ()
            assert traffic.sticky is None

    def a_mirror_begins_with_a_comparator_that_is_ready(self):
        """Unless a human skipped to it."""
        if self.plan.status.mirror and not self.before.mirror and self.command not in HUMAN:
            assert self.comparator.is_ready

    def the_comparator_outlives_the_mirror(self):
        traffic = self.plan.traffic
        if self.plan.comparator is False:
            assert traffic is None or traffic.mirror is None

    def a_rejected_revision_gets_no_traffic(self):
        lost, now = self.plan.status.rejected, self.plan.status.candidate
        if lost is not None and now is not None:
            assert (lost.deployment, lost.revision) != (now.deployment, now.revision)

    def no_traffic_to_pods_that_are_not_ready(self):
        has_begun = self.before.weight.wanted == 0 and self.plan.status.weight.wanted > 0
        assert not has_begun or self.candidate_ready or self.counts_pods()

    def counts_pods(self):
        """The candidate's pods are the operator's to start."""
        found = self.seen["candidate"]
        return self.walk_spec().scaling is not None and found is not None and not found.autoscaler

    def share_of(self, status):
        return max(status.weight.wanted, status.mirror or 0)

    def a_share_comes_after_its_pods(self):
        """As many as it needs of those that stable had when the trial began."""
        old, new = self.before, self.plan.status
        if old.candidate is None or not self.counts_pods():
            return
        is_promoted = new.stable.deployment == old.candidate.deployment
        share = 100 if is_promoted else self.share_of(new)
        if share <= self.share_of(old) and not is_promoted:
            return
        total = self.seen["stable"].desired if old.replicas is None else old.replicas
        needed = max(self.walk_spec().scaling.min_replicas, math.ceil(total * share / 100))
        assert min(self.seen["candidate"].available, self.seen["candidate"].endpoints) >= needed

    def nobody_with_requests_is_scaled_down(self):
        """Nor stable in the bake, nor a candidate before its first request."""
        down = {each.deployment for each in self.plan.scales if each.replicas < each.before}
        on_trial = (self.before.stable, self.before.candidate)
        users = {each.deployment for each in on_trial if each is not None}
        now = (self.plan.status.stable, self.plan.status.candidate)
        users |= {each.deployment for each in now if each is not None}
        for traffic in (self.on_route, self.plan.traffic):
            if traffic is not None:
                backends = (traffic.stable, traffic.candidate)
                users |= {each.service for each in backends if each is not None}
        assert not down & users
        route = self.seen.get("route")
        assert not down or route is None or (route.in_sync and route.accepted)

    def nothing_is_scaled_that_is_not_ours_to_scale(self):
        scaled = {each.deployment for each in self.plan.scales}
        assert not scaled or self.walk_spec().scaling is not None
        assert not scaled & self.fleet.autoscaled
        up = {each.deployment for each in self.plan.scales if each.replicas > each.before}
        trial = self.plan.status.candidate
        assert up <= ({trial.deployment} if trial else set())

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
TestRollouts.settings = settings(max_examples=1000, stateful_step_count=50, deadline=None)


def test_every_phase_has_a_way_in_and_a_way_out():
    targets = {target for moves in TRANSITIONS.values() for target in moves}
    assert set(TRANSITIONS) == set(Phase)
    assert targets == set(Phase)
