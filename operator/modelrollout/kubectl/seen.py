"""A ModelRollout as the plugin has read it, with the pods of its two versions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from modelrollout.api import v1alpha1 as api
from modelrollout.api.conditions import Reason, Type
from modelrollout.core.steps import Step, steps_of
from modelrollout.core.times import as_seconds
from modelrollout.kubectl.failures import Failure
from modelrollout.kubectl.printable import printable

Object = dict[str, Any]
OVER = {api.Phase.PROMOTED, api.Phase.ROLLED_BACK}


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One ModelRollout at one moment."""

    body: Object
    spec: api.ModelRolloutSpec | None
    """None where this version of the plugin does not understand it."""
    status: api.ModelRolloutStatus
    steps: tuple[Step, ...]
    deployments: Mapping[str, Object | None] = field(default_factory=dict)
    """The Deployments of its versions by name; None for one that is gone, absent if not readable."""
    now: float

    @property
    def name(self) -> str:
        """Of the ModelRollout."""
        return str(self.body["metadata"]["name"])

    @property
    def namespace(self) -> str:
        """In which all of it is."""
        return str(self.body["metadata"]["namespace"])

    @property
    def route(self) -> str:
        """The HTTPRoute that carries the weights."""
        if self.spec is None or self.spec.traffic.gateway_api.route is None:
            return self.name
        return self.spec.traffic.gateway_api.route

    @property
    def stable(self) -> str:
        """The Deployment that users have."""
        if self.status.stable is not None:
            return self.status.stable.deployment
        return self.spec.stable.deployment if self.spec else "stable"

    @property
    def candidate(self) -> str:
        """The Deployment on trial; else the one that lost, if it is still wanted; else the wanted one."""
        status = self.status
        if status.candidate is not None:
            return status.candidate.deployment
        if status.rejected is not None and status.phase is not api.Phase.PROMOTED:
            return status.rejected.deployment
        return self.spec.candidate.deployment if self.spec else "candidate"

    @property
    def compared(self) -> tuple[str, str]:
        """Whom the guardrails speak of: the candidate first, then stable."""
        status = self.status
        is_promoted = status.phase is api.Phase.PROMOTED and status.candidate is None
        if is_promoted and status.stable is not None and status.previous is not None:
            return status.stable.deployment, status.previous.deployment
        return self.candidate, self.stable

    @property
    def is_over(self) -> bool:
        """It ended, and the gateway has taken up how."""
        return self.status.phase in OVER and self.is_current

    @property
    def is_current(self) -> bool:
        """The operator has looked at this generation of the spec."""
        return bool(self.status.observed_generation >= self.body["metadata"].get("generation", 0))

    @property
    def reason(self) -> str:
        """Why it is where it is, in one word of the runbook."""
        if self.status.phase in {api.Phase.ROLLED_BACK, api.Phase.ROLLING_BACK}:
            return self.status.rejected.cause if self.status.rejected else Reason.ROLLED_BACK
        if self.status.pause is not None and self.status.pause.cause == "NoData":
            return Reason.METRICS_UNAVAILABLE
        if self.status.pause is not None and self.status.pause.cause == "Inconclusive":
            return Reason.INCONCLUSIVE
        health = self.condition(Type.HEALTHY)
        if health is not None and health.reason == Reason.PLACEBO_FAILED:
            return Reason.PLACEBO_FAILED
        found = self.condition(Type.READY)
        return found.reason if found else Reason.PREPARING

    @property
    def guardrails(self) -> Mapping[str, api.Guardrail]:
        """As the spec has them, by name."""
        return {each.name: each for each in self.spec.analysis.guardrails} if self.spec else {}

    @property
    def step(self) -> Step | None:
        """The present one; None before the first, and when the list was edited under it."""
        index = self.status.step
        is_listed = index is not None and index < len(self.steps)
        return self.steps[index] if index is not None and is_listed else None

    def condition(self, kind: Type) -> api.Condition | None:
        """One of its conditions."""
        return next((each for each in self.status.conditions if each.type == kind), None)

    @property
    def step_seconds(self) -> float | None:
        """How long the present step has been in force."""
        since = self.status.step_start_time
        return None if since is None else max(0.0, self.now - as_seconds(since))

    @property
    def requests_per_second(self) -> float | None:
        """The candidate's in this step."""
        age = self.step_seconds
        if not age or not self.status.requests:
            return None
        return self.status.requests / age


def seen(body: Object, now: float, deployments: Mapping[str, Object | None] | None = None) -> Seen:
    """Make sense of an object; a Failure where it is from another world."""
    body = printable(body)
    try:
        status = api.ModelRolloutStatus.model_validate(body.get("status") or {})
    except ValidationError as invalid:
        said = api.sentence_of(invalid).replace("spec.", "status.", 1)
        raise Failure(
            f"this version of the plugin does not understand the object: {said}"
        ) from invalid
    try:
        spec = api.ModelRolloutSpec.model_validate(body.get("spec") or {})
    except ValidationError:
        spec = None
    is_revert = bool(status.is_revert)
    return Seen(
        body=body,
        spec=spec,
        status=status,
        steps=steps_of(spec.strategy, is_revert=is_revert) if spec else (),
        deployments=printable(dict(deployments or {})),
        now=now,
    )


def versions_of(body: Object) -> tuple[str, ...]:
    """The Deployments that it speaks of, to be looked at."""
    spec, status = body.get("spec") or {}, body.get("status") or {}
    told = [status.get("stable"), status.get("candidate")]
    told += [status.get("rejected"), status.get("previous"), spec.get("candidate")]
    return tuple(dict.fromkeys(each["deployment"] for each in told if each))
