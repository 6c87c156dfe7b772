"""How the facts in status change: one small function per decision, each of old facts to new."""

from __future__ import annotations

from modelrollout.api.v1alpha1 import (
    GuardrailCheckpoint,
    HistoryEntry,
    ModelRolloutSpec,
    ModelRolloutStatus,
    PauseStatus,
    Rejection,
    VersionStatus,
    WeightStatus,
    service_of,
)
from modelrollout.core import traffic_split
from modelrollout.core.steps import Step
from modelrollout.core.times import as_time

HISTORY_LENGTH = 20
RETIRED_LENGTH = 20
NO_STEP = {
    "step": None,
    "step_text": None,
    "step_start_time": None,
    "step_deadline_time": None,
    "weight": WeightStatus(),
    "mirror": None,
    "coverage": None,
    "warmup": None,
    "verdict": None,
    "requests": None,
    "no_data_since_time": None,
    "pause": None,
    "replicas": None,
}


def recorded(
    facts: ModelRolloutStatus,
    what: str,
    version: VersionStatus,
    message: str,
    now: float,
    by: str | None = None,
) -> ModelRolloutStatus:
    """With one more line of history; `by` is the user who asked for it."""
    entry = HistoryEntry(
        time=as_time(now),
        what=what,
        deployment=version.deployment,
        revision=version.revision,
        message=message[:1024],
        by=by or None,
    )
    return facts.model_copy(update={"history": (entry, *facts.history)[:HISTORY_LENGTH]})


def with_first_stable(facts: ModelRolloutStatus, spec: ModelRolloutSpec) -> ModelRolloutStatus:
    """Facts that know their stable version: the spec's, until something was promoted."""
    known = facts.stable
    if known is not None and (facts.previous is not None or facts.candidate is not None):
        return facts
    model = spec.stable.model
    given = VersionStatus(
        deployment=spec.stable.deployment,
        service=service_of(spec.stable),
        revision=known.revision if known and known.deployment == spec.stable.deployment else "",
        model_version=model.version if model else None,
    )
    if known == given:
        return facts
    is_left = known is not None and known.service != given.service
    retired = with_retired(facts, known) if is_left else facts.retired
    return facts.model_copy(update={"stable": given, "retired": retired})


def was_stable(facts: ModelRolloutStatus, version: VersionStatus) -> bool:
    """Whether users had this very revision before, as far back as history goes."""
    known = [(each.deployment, each.revision) for each in facts.history if each.what == "Promoted"]
    if facts.previous is not None:
        known.append((facts.previous.deployment, facts.previous.revision))
    return (version.deployment, version.revision) in known


def on_trial(
    facts: ModelRolloutStatus, candidate: VersionStatus, steps: int, *, is_revert: bool
) -> ModelRolloutStatus:
    """A new candidate, before its first step, without evidence and without traffic."""
    return facts.model_copy(
        update={
            **NO_STEP,
            "retired": with_retired(facts, facts.candidate),
            "candidate": candidate,
            "steps": steps,
            "is_revert": is_revert or None,
            "checks": (),
            "check_since_time": None,
            "guardrails": (),
            "checkpoint": (),
            "warnings": (),
            "split": None,
            "cohort": None,
        }
    )


def at_step(facts: ModelRolloutStatus, index: int, step: Step) -> ModelRolloutStatus:
    """At a step whose weight is yet to be accepted by the gateway."""
    is_same = facts.weight.wanted == step.weight
    accepted = facts.weight.accepted if is_same else None
    was = facts.split
    return facts.model_copy(
        update={
            "step": index,
            "step_start_time": None,
            "step_deadline_time": None,
            "weight": WeightStatus(wanted=step.weight, accepted=accepted),
            "mirror": step.mirror or None,
            "coverage": None,
            "warmup": None,
            "requests": 0,
            "split": was if is_same else traffic_split.at_new_step(was, facts.weight.wanted),
        }
    )


def started(facts: ModelRolloutStatus, step: Step, now: float) -> ModelRolloutStatus:
    """The step's share is in force: time and evidence count from a moment, Unix seconds."""
    return facts.model_copy(
        update={
            "step_start_time": as_time(now),
            "step_deadline_time": _deadline(step, now),
            "checkpoint": tuple(evidence_at_step(each, now) for each in facts.checkpoint),
        }
    )


def evidence_at_step(checkpoint: GuardrailCheckpoint, watermark: float) -> GuardrailCheckpoint:
    """Harm evidence is kept, everything that belongs to one step starts anew."""
    slices = tuple(
        each.model_copy(update={"stable": _zeros(each.stable), "candidate": _zeros(each.candidate)})
        for each in checkpoint.slices
    )
    return checkpoint.model_copy(
        update={
            "safety": tuple(_zeros(row) for row in checkpoint.safety),
            "stable": _zeros(checkpoint.stable),
            "candidate": _zeros(checkpoint.candidate),
            "slices": slices,
            "windows": 0,
            "watermark": watermark,
        }
    )


def _zeros(row: tuple[float, ...]) -> tuple[float, ...]:
    return (0.0,) * len(row)


def rejected(
    facts: ModelRolloutStatus, cause: str, message: str, now: float, by: str | None = None
) -> ModelRolloutStatus:
    """The candidate has lost: no traffic, no step, and its revision remembered."""
    assert facts.candidate is not None
    lost = facts.candidate
    rejection = Rejection(
        deployment=lost.deployment,
        service=lost.service,
        revision=lost.revision,
        cause=cause,
        message=message[:1024],
        time=as_time(now),
    )
    kept = {key: value for key, value in NO_STEP.items() if key not in {"verdict", "requests"}}
    return recorded(facts, cause, lost, message, now, by).model_copy(
        update={
            **kept,
            "candidate": None,
            "is_revert": None,
            "rejected": rejection,
            "retired": with_retired(facts, lost),
            "checkpoint": (),
        }
    )


def promoted(
    facts: ModelRolloutStatus, message: str, now: float, by: str | None = None
) -> ModelRolloutStatus:
    """The candidate is stable now."""
    assert facts.candidate is not None
    won = facts.candidate
    retired = tuple(each for each in with_retired(facts, facts.stable) if each != won.service)
    return recorded(facts, "Promoted", won, message, now, by).model_copy(
        update={
            **NO_STEP,
            "verdict": facts.verdict,
            "candidate": None,
            "is_revert": None,
            "stable": won,
            "previous": facts.stable,
            "rejected": None,
            "retired": retired,
            "checkpoint": (),
        }
    )


def withdrawn(facts: ModelRolloutStatus) -> ModelRolloutStatus:
    """No candidate is wanted any more; nothing is held against the one that was on trial."""
    return facts.model_copy(
        update={
            **NO_STEP,
            "candidate": None,
            "is_revert": None,
            "retired": with_retired(facts, facts.candidate),
            "checkpoint": (),
        }
    )


def paused(facts: ModelRolloutStatus, cause: str, message: str, now: float) -> ModelRolloutStatus:
    """Waiting for a human."""
    pause = PauseStatus(cause=cause, message=message[:1024], time=as_time(now))
    return facts.model_copy(update={"pause": pause})


def resumed(facts: ModelRolloutStatus, step: Step | None, now: float) -> ModelRolloutStatus:
    """Going on: the deadline of the step and the patience with the metrics begin anew."""
    return facts.model_copy(
        update={
            "pause": None,
            "step_deadline_time": _deadline(step, now),
            "no_data_since_time": None,
        }
    )


def _deadline(step: Step | None, now: float) -> str | None:
    if step is None or step.max_seconds is None:
        return None
    return as_time(now + step.max_seconds)


def with_retired(facts: ModelRolloutStatus, version: VersionStatus | None) -> tuple[str, ...]:
    """The Services to keep off the route, with one more."""
    if version is None or version.service in facts.retired:
        return facts.retired
    return (version.service, *facts.retired)[:RETIRED_LENGTH]
