"""
One rollout in a simulated world, on a virtual clock, by the operator's own passes.

Users, a gateway, a Prometheus and the API server's objects are simulated, with numpy's seeded
generator; `reconcile`, the router, the reader of counters and the statistics are the operator's.
The same manifest, world and seed give the same run, to the last request.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from modelrollout.adapters.cluster import HTTP_ROUTES, ROLLOUTS, Object, Resource
from modelrollout.adapters.routers.gateway_api import GatewayAPIRouter
from modelrollout.api import v1alpha1 as api
from modelrollout.api.conditions import Type
from modelrollout.api.v1alpha1 import Verdict
from modelrollout.core.observation import CheckResult, Comparator, Rollout
from modelrollout.core.steps import Step, steps_of
from modelrollout.drafts import Drafts
from modelrollout.reconcile import reconcile
from modelrollout.simulation.cluster import Gateway, Store, Weights, furnish, replica_set_of
from modelrollout.simulation.exports import Exports, Site, exports_of
from modelrollout.simulation.loop import InstantLoop, one_by_one
from modelrollout.simulation.metrics import Prometheus, VersionNames
from modelrollout.simulation.scenario import Scenario
from modelrollout.simulation.scrapes import Scraper, Target
from modelrollout.simulation.traffic import CANDIDATE, STABLE, Traffic
from modelrollout.world import Recorder, World

CREATED = 1_800_000_000.0
"""When the ModelRollout is created; times of a world are counted from here."""
PAST_SECONDS = 1920.0
"""Users are there before: so long, or so many windows, as the operator looks back."""
PAST_WINDOWS = 64
POD_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
"""What Kubernetes makes the ends of pods' names of."""
SLACK_SECONDS = 900.0
"""What a rollout may take beyond its steps: preparing, routes, restarts."""


class Decision(StrEnum):
    """How a rollout ended."""

    PROMOTED = "promoted"
    ROLLED_BACK = "rolledBack"
    INCONCLUSIVE = "inconclusive"


class Crash(Exception):
    """The operator is gone, between two writes or after one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One rollout, as it went."""

    decision: Decision
    seconds: float
    """Until it was rolled back or let through its last gate, or until it stopped undecided."""
    candidate_requests: int
    """Until then."""
    bad_requests: int
    """Bad answers among them; after a rollback, until the candidate got no more requests."""
    rollout_seconds: float
    """Until it was promoted or rolled back, the bake included."""
    reason: str
    """In one word, with the guardrails it speaks of."""
    message: str
    passes: int
    crashes: int


@dataclass(frozen=True, slots=True)
class _Moment:
    """What had happened by then."""

    seconds: float
    requests: int
    bad: int


class _Elsewhere:
    """What is no part of a simulated world: nothing is mirrored there, and every check passes."""

    async def observe(self, _rollout: Rollout, _known: api.ModelRolloutStatus) -> Comparator:
        return Comparator()

    async def deploy(self, _rollout: Rollout, _known: api.ModelRolloutStatus) -> None:
        pass

    async def remove(self, _rollout: Rollout) -> None:
        pass

    async def run(
        self, _check: api.HttpCheck, _namespace: str, _service: str, _port: int
    ) -> CheckResult:
        return CheckResult(passed=True)


class Simulation:
    """One rollout in one world."""

    def __init__(
        self,
        manifest: Object,
        scenario: Scenario,
        seed: int | tuple[int, ...],
        recorder: Recorder | None = None,
    ) -> None:
        self._spec, self.exports = checked(manifest, scenario)
        self._scenario = scenario
        self._meta = manifest["metadata"]
        self.now = CREATED
        requests, self._fate, self._doom = np.random.default_rng(seed).spawn(3)
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._look_at = CREATED
        self._down_until = CREATED
        self.passes = 0
        self.crashes = 0
        self.shifts: list[tuple[float, bool]] = []
        """For each change of weights: the candidate's share then, and whether our finalizer was on."""
        self._pods: list[Target] = []
        self.traffic, self.scraper = self._users(requests)
        self.store = Store(clock=self.clock, disturb=self._disturb)
        furnish(
            self.store,
            {**manifest, "spec": self._spec.to_dict()},
            (scenario.stable.pods, scenario.candidate.pods),
        )
        self._gateway = Gateway(
            self.store, scenario.propagation_seconds, later=self._later, shift=self._shift
        )
        self.store.written.append(self._written)
        names = _split_names(self._spec, self._meta)
        prometheus = Prometheus(self.exports, self.scraper, names, self._is_away)
        self._world = World(
            cluster=self.store,
            metrics={self._spec.analysis.provider: prometheus},
            router=GatewayAPIRouter(self.store, self.clock),
            comparators=_Elsewhere(),
            checker=_Elsewhere(),
            clock=self.clock,
            recorder=recorder,
            together=one_by_one,
        )
        self._schedule_restart()

    def clock(self) -> float:
        """Unix seconds, virtual."""
        return self.now

    @property
    def rollout(self) -> Object:
        """The ModelRollout, as stored."""
        return self.store.live(ROLLOUTS, self._meta["name"])

    @property
    def status(self) -> Object:
        """Its status."""
        status: Object = self.rollout.get("status", {})
        return status

    # --- the rollout ----------------------------------------------------------------------

    def run(self) -> Result:
        """Until it is decided and everything is at rest, or nothing more happens by itself."""
        return InstantLoop().run(self._run())

    async def _run(self) -> Result:
        end = CREATED + longest_seconds(self._spec, self._scenario)
        through: _Moment | None = None
        decided: _Moment | None = None
        while self._look_at < end and "pause" not in self.status:
            if self._agenda and self._agenda[0][0] <= self._look_at:
                self.now, _, act = heapq.heappop(self._agenda)
                act()
                continue
            self.now = self._look_at
            await self._look()
            if through is None and self.status.get("weight", {}).get("wanted") == api.FULL_WEIGHT:
                through = self._moment()
            if decided is None and self.decision() is not Decision.INCONCLUSIVE:
                decided = self._moment()
        return self._result(through, decided or self._moment())

    async def _look(self) -> None:
        """One pass, as the work queue would start it."""
        self.passes += 1
        self._look_at = math.inf
        try:
            done = await reconcile((self._meta["namespace"], self._meta["name"]), self._world)
        except Crash:
            self.crashes += 1
            self._world = replace(self._world, drafts=Drafts())
            self._down_until = self.now + self._scenario.operator_restart_seconds
            self._look_at = self._down_until
        else:
            if done.look_again_seconds is not None:
                self._look_at = min(self._look_at, self.now + done.look_again_seconds)

    def decision(self) -> Decision:
        """What the stored status has decided."""
        if self.status.get("rejected"):
            return Decision.ROLLED_BACK
        stable = self.status.get("stable", {}).get("deployment")
        is_promoted = stable == self._spec.candidate.deployment
        return Decision.PROMOTED if is_promoted else Decision.INCONCLUSIVE

    def _moment(self) -> _Moment:
        self.scraper.freeze(self.now)
        return _Moment(self.now - CREATED, *self.traffic.count_of(CANDIDATE))

    def _result(self, through: _Moment | None, ended: _Moment) -> Result:
        decision = self.decision()
        # At 100 % nothing is compared any more: the last gate was the decision.
        decided = through if through and decision is Decision.PROMOTED else ended
        bad = self._moment().bad if decision is Decision.ROLLED_BACK else decided.bad
        return Result(
            decision=decision,
            seconds=decided.seconds,
            candidate_requests=decided.requests,
            bad_requests=bad,
            rollout_seconds=ended.seconds,
            reason=_reason(self.status, decision),
            message=self.status.get("reason", ""),
            passes=self.passes,
            crashes=self.crashes,
        )

    # --- what happens without the operator ------------------------------------------------

    def _users(self, generator: np.random.Generator) -> tuple[Traffic, Scraper]:
        scenario, interval = self._scenario, self._spec.analysis.interval_seconds
        began = CREATED - max(PAST_SECONDS, PAST_WINDOWS * interval) - scenario.label_delay_seconds
        traffic = Traffic(self.exports, scenario, generator, began=began, created=CREATED)
        targets, sites = [], self.exports.sites
        if Site.PODS in sites:
            self._pods = [self._pod(each, traffic) for each in range(len(traffic.version_of))]
            targets += self._pods
        if Site.EXPORTER in sites:
            targets.append(_target("exporter", self._meta["namespace"], Site.EXPORTER, traffic))
        if Site.GATEWAY in sites or not targets:
            targets.append(_target("gateway", "gateways", Site.GATEWAY, traffic))
        scraper = Scraper(
            traffic, targets, self._fate, began=began, scenario=scenario, is_gap=self._is_gap
        )
        return traffic, scraper

    def _pod(self, pod: int, traffic: Traffic) -> Target:
        """A new pod, whose counters begin at 0."""
        version = (self._spec.stable, self._spec.candidate)[traffic.version_of[pod]]
        letters = self._fate.choice(list(POD_LETTERS), 5)
        name = f"{replica_set_of(version)}-{''.join(letters)}"
        return _target(name, self._meta["namespace"], Site.PODS, traffic, [pod])

    def _schedule_restart(self) -> None:
        rate = self._scenario.pod_restarts * len(self.traffic.version_of) / 3600
        if rate > 0:
            self._later(self._fate.exponential(1 / rate), self._restart_a_pod)

    def _restart_a_pod(self) -> None:
        pod = int(self._fate.integers(len(self.traffic.version_of)))
        self.scraper.freeze(self.now)
        self.traffic.replace_pod(pod)
        if self._pods:
            old, self._pods[pod] = self._pods[pod], self._pod(pod, self.traffic)
            self.scraper.replace(old, self._pods[pod])
        self._schedule_restart()

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (self.now + seconds, next(self._order), act))

    def _shift(self, weights: Weights) -> None:
        self.scraper.freeze(self.now)
        candidate = api.service_of(self._spec.candidate)
        versions = [
            (CANDIDATE if service == candidate else STABLE, weight) for service, weight in weights
        ]
        self.traffic.shift(versions)
        share = sum(weight for version, weight in versions if version == CANDIDATE)
        has_finalizer = bool(self.rollout["metadata"].get("finalizers"))
        self.shifts.append((share / sum(weight for _, weight in versions), has_finalizer))

    def _written(self, resource: Resource, body: Object) -> None:
        """A route that changes is a reason to look, as the watch has it."""
        if resource == HTTP_ROUTES:
            self._gateway.route_written(body)
            self._look_at = max(self._down_until, min(self._look_at, self.now + 0.01))

    def _is_gap(self, now: float) -> bool:
        return any(each.holds(now - CREATED) for each in self._scenario.gaps)

    def _is_away(self) -> bool:
        silent = any(each.holds(self.now - CREATED) for each in self._scenario.silences)
        return silent or self._is_gap(self.now)

    def _disturb(self) -> None:
        is_due = self.now - CREATED >= self._scenario.operator_crashes_from_seconds
        if is_due and self._doom.random() < self._scenario.operator_crashes:
            raise Crash


def simulate(manifest: Object, scenario: Scenario, seed: int | tuple[int, ...]) -> Result:
    """One rollout."""
    return Simulation(manifest, scenario, seed).run()


def checked(manifest: Object, scenario: Scenario) -> tuple[api.ModelRolloutSpec, Exports]:
    """What is simulated, and what the world exports for it; ValueError says what cannot be."""
    spec = api.ModelRolloutSpec.model_validate(manifest["spec"])
    if spec.paused:
        raise ValueError("spec.paused is true: nothing would happen; set it to false")
    if spec.candidate.deployment == spec.stable.deployment:
        raise ValueError("spec.candidate is the stable version: name another Deployment to try")
    steps = steps_of(spec.strategy)
    if any(each.mirror for each in steps):
        raise ValueError(
            "spec.strategy has a mirror step, and answers are not simulated: leave it out here"
        )
    if not any(each.is_judged for each in steps):
        raise ValueError("spec.strategy compares the versions in no step: there is nothing to see")
    return _without_people(spec, steps), exports_of(spec.analysis, scenario)


def _without_people(spec: api.ModelRolloutSpec, steps: Sequence[Step]) -> api.ModelRolloutSpec:
    """The same evidence, with requests for users, approvals as soon as asked for, all pods there."""
    given = spec.strategy.steps or tuple(
        api.Step(weight=each.weight, max_seconds=each.max_seconds)
        for each in steps
        if each.is_judged
    )
    strategy = {
        "type": api.StrategyType.CANARY,
        "steps": tuple(each for each in given if each.approval is None),
        "on_pass": api.OnPass.PROMOTE,
    }
    return spec.model_copy(
        update={
            "traffic": spec.traffic.model_copy(update={"sticky": None, "cohort": ()}),
            "strategy": spec.strategy.model_copy(update=strategy),
            "scaling": None,
        }
    )


def longest_seconds(spec: api.ModelRolloutSpec, scenario: Scenario) -> float:
    """After so long a rollout that has not ended will not end by itself."""
    steps = sum(max(each.min_seconds, each.max_seconds or 0) for each in steps_of(spec.strategy))
    blind = sum(
        each.to_seconds - each.from_seconds for each in (*scenario.gaps, *scenario.silences)
    )
    return steps + blind + spec.analysis.no_data_timeout_seconds + SLACK_SECONDS


def _target(
    name: str, namespace: str, site: Site, traffic: Traffic, rows: Sequence[int] | None = None
) -> Target:
    """Something that begins to count now: in all rows of its site, or in the given ones."""
    counted = traffic.counters(site)[-1]
    rows = range(len(counted)) if rows is None else rows
    labels = {"pod": name, "instance": f"{name}:9090", "job": "pods", "namespace": namespace}
    return Target(labels=labels, site=site, rows=rows, base=counted[list(rows)])


def _split_names(spec: api.ModelRolloutSpec, meta: Object) -> VersionNames:
    """As `core.measures` and the router call the versions."""
    stable, candidate = (
        (each.model.version if each.model else None) or each.deployment
        for each in (spec.stable, spec.candidate)
    )
    route = spec.traffic.gateway_api.route or meta["name"]
    return VersionNames(
        labels=(stable, candidate),
        place_prefix=f"httproute/{meta['namespace']}/{route}/rule/0/backend/",
    )


def _reason(status: Object, decision: Decision) -> str:
    """The final reason in one word, and the guardrails that it speaks of."""
    if decision is Decision.PROMOTED:
        return "Promoted"
    if decision is Decision.ROLLED_BACK:
        cause, speaking = status["rejected"]["cause"], {Verdict.FAIL}
    else:
        told = {each["type"]: each["reason"] for each in status.get("conditions", [])}
        cause = status.get("pause", {}).get("cause") or told.get(Type.HEALTHY, "NothingHappened")
        speaking = {Verdict.INCONCLUSIVE, Verdict.NO_DATA}
    named = [each["name"] for each in status.get("guardrails", []) if each["verdict"] in speaking]
    return f"{cause}: {', '.join(named)}" if named else str(cause)
