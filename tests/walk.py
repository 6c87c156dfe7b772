"""A rollout over many passes, with the world's answers chosen by the test: status is fed back."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from builders import NOW, a_reading, a_rollout, a_workload, an_observation, the_measures, windows
from modelrollout.api import v1alpha1 as api
from modelrollout.core.audit import Record, records
from modelrollout.core.decide import decide
from modelrollout.core.evidence import Reading, Where
from modelrollout.core.observation import Comparator, Observation, Rollout, Route
from modelrollout.core.plan import Plan, traffic_of

GOOD = ((450.0, 4.0), (50.0, 0.0))
BAD = ((450.0, 4.0), (50.0, 25.0))
QUIET = ((0.0, 0.0), (0.0, 0.0))


@dataclass
class Walk:
    """The facts carried from pass to pass, as the cluster would."""

    spec: dict[str, Any] = field(default_factory=dict)
    status: api.ModelRolloutStatus = field(default_factory=api.ModelRolloutStatus)
    now: float = NOW
    finalizer: bool = False
    route: Any = None
    """The traffic that the gateway has."""
    plans: list[Plan] = field(default_factory=list)
    told: list[Record] = field(default_factory=list)
    """The audit trail."""
    passes: list[tuple[Rollout, Observation, Plan]] = field(default_factory=list)
    """All that a recorder is given."""

    def step(
        self,
        seconds: float = 5,
        *,
        traffic: tuple[tuple[float, float], tuple[float, float]] | None = GOOD,
        blind: str = "",
        command: str | None = None,
        deleting: bool = False,
        **seen: Any,
    ) -> Plan:
        """One pass, `seconds` after the last one; `seen` replaces what it sees, metrics included."""
        self.now += seconds
        rollout = a_rollout(
            self.status,
            command=command,
            deleting=deleting,
            finalizer=self.finalizer,
            **self.spec,
        )
        observation = self._observation(seen)
        if "measures" not in seen:
            observation = self._with_metrics(rollout, observation, traffic, blind)
        plan = decide(rollout, observation)
        self.told += records(rollout, observation, plan)
        self.passes.append((rollout, observation, plan))
        self.status, self.finalizer = plan.status, plan.finalizer
        if plan.traffic is not None:
            self.route = plan.traffic
        self.plans.append(plan)
        return plan

    def _observation(self, seen: dict[str, Any]) -> Observation:
        spec = a_rollout(self.status, **self.spec).spec
        in_force = self.route == traffic_of(self.status, spec, "ranker") and self.route is not None
        given: dict[str, Any] = {"route": Route(in_sync=in_force, accepted=in_force)}
        given["comparator"] = Comparator(exists=True, is_current=True, is_ready=True)
        given["coverage"] = 1.0 if self.status.mirror else None
        given |= seen
        stable = self.status.stable
        if stable is not None and stable.revision and "stable" not in seen:
            given["stable"] = a_workload(stable.deployment, stable.revision)
        return an_observation(self.now, **given)

    def _with_metrics(
        self, rollout: Any, observation: Observation, traffic: Any, blind: str
    ) -> Observation:
        status = self.status
        candidate = observation.candidate
        is_judged = (
            status.step_start_time is not None
            and candidate is not None
            and status.candidate == candidate.version
            and (0 < status.weight.wanted < 100 or status.mirror)
        )
        if not is_judged:
            return observation
        if status.warmup is not None:
            counted = Reading(watermark=self.now, blind=blind or "nothing was answered")
            if traffic is not None and not blind:
                counted = a_reading(windows(self.now - 5, 1, *traffic))
            return replace(observation, warmup=counted)
        idle = Where.ROUTE if status.mirror else Where.COMPARATOR
        measures = tuple(
            replace(each, is_idle=each.where is idle) for each in the_measures(rollout, observation)
        )
        readings = {}
        for each in measures:
            if each.is_idle:
                continue
            stored = [c for c in status.checkpoint if c.name == each.name]
            mark = stored[0].watermark if stored else self.now - 5
            if blind or traffic is None:
                readings[each.name] = Reading(watermark=mark, blind=blind)
            else:
                readings[each.name] = a_reading(windows(mark, 1, *traffic))
        return replace(observation, measures=measures, readings=readings)

    def until(self, phase: api.Phase, limit: int = 400, **each: Any) -> Plan:
        """Passes until the phase is reached."""
        for _ in range(limit):
            plan = self.step(**each)
            if plan.status.phase is phase:
                return plan
        reached = self.status
        raise AssertionError(f"never {phase}: {reached.phase}, {reached.reason}")

    @property
    def weights(self) -> list[int]:
        """The weights planned, without repetition."""
        found: list[int] = []
        for plan in self.plans:
            if plan.traffic is not None and (not found or found[-1] != plan.traffic.weight):
                found.append(plan.traffic.weight)
        return found
