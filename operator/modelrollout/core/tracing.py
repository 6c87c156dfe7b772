"""What one pass adds to the traces: a point, what it decided, where one rollout ends and another begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from modelrollout.api import v1alpha1 as api
from modelrollout.core import collect
from modelrollout.core.audit import BEGINS
from modelrollout.core.evidence import Kind, Measure
from modelrollout.core.observation import Observation, Rollout, Workload
from modelrollout.core.plan import Note, Plan, Severity
from modelrollout.core.trace import (
    Decision,
    Guardrail,
    Level,
    Point,
    Slice,
    Trace,
    Version,
    thinned,
)

TEXT_LENGTH = 512


def followed(
    known: Trace | None, rollout: Rollout, seen: Observation, plan: Plan, at_most: int
) -> tuple[Trace, ...]:
    """
    The trace of what is on trial, one pass on; where something else is on trial now, that too.

    `known` is what was recorded of it so far, if anything was.
    """
    before, after = rollout.status.candidate, plan.status.candidate
    is_same = before is not None and after is not None and _id(before) == _id(after)
    begins = [each for each in plan.notes if each.reason in BEGINS]
    found: list[Trace] = []
    if before is not None:
        old = known or _begun(before, rollout, seen, None)
        notes = [each for each in plan.notes if is_same or after is None or each not in begins]
        old = _with_pass(old, rollout, seen, plan, notes, at_most)
        found.append(old if is_same else _ended(old, rollout, seen, plan))
    if after is not None and not is_same:
        new = _begun(after, rollout, seen, seen.now)
        notes = begins if before is not None else list(plan.notes)
        found.append(_decided(new, rollout, seen, plan, notes))
    return tuple(found)


def is_decision(rollout: Rollout, plan: Plan) -> bool:
    """Whether the pass changed something that nobody should have to wait for in the record."""
    before, after = rollout.status, plan.status
    return bool(plan.notes) or before.step != after.step or before.candidate != after.candidate


def _id(version: api.VersionStatus) -> tuple[str, str]:
    return version.deployment, version.revision


def _begun(
    candidate: api.VersionStatus, rollout: Rollout, seen: Observation, began: float | None
) -> Trace:
    return Trace(
        namespace=rollout.namespace,
        rollout=rollout.name,
        uid=rollout.uid,
        candidate=_version(candidate, seen.candidate, rollout.spec),
        stable=None,
        began=began,
    )


def _version(
    known: api.VersionStatus, found: Workload | None, spec: api.ModelRolloutSpec | None
) -> Version:
    given = (spec.candidate, spec.stable) if spec is not None else ()
    models = [each.model for each in given if each.deployment == known.deployment]
    is_found = found is not None and _id(found.version) == _id(known)
    return Version(
        deployment=known.deployment,
        revision=known.revision,
        model=models[0] if models else None,
        images=found.images if found is not None and is_found else (),
    )


def _with_pass(
    trace: Trace,
    rollout: Rollout,
    seen: Observation,
    plan: Plan,
    notes: Sequence[Note],
    at_most: int,
) -> Trace:
    trace = _decided(trace, rollout, seen, plan, notes)
    points = (*trace.points, _point(rollout, seen, plan))
    return replace(trace, points=points if len(points) <= at_most else thinned(points, at_most))


def _decided(
    trace: Trace, rollout: Rollout, seen: Observation, plan: Plan, notes: Sequence[Note]
) -> Trace:
    if not notes:
        return trace
    # A command is obeyed before anything else is looked at: its answer is the first note.
    answer = plan.notes[0] if rollout.order is not None else None
    decisions = tuple(
        Decision(
            time=seen.now,
            what=each.reason,
            message=each.message[:TEXT_LENGTH],
            by=rollout.order.by[:TEXT_LENGTH] if rollout.order and each is answer else None,
            is_warning=each.severity is Severity.WARNING,
            # Who is promoted has all traffic, and is on trial no more.
            weight=api.FULL_WEIGHT if each.reason == "Promoted" else plan.status.weight.wanted,
        )
        for each in notes
    )
    return replace(trace, decisions=trace.decisions + decisions)


def _ended(trace: Trace, rollout: Rollout, seen: Observation, plan: Plan) -> Trace:
    lost, won = plan.status.rejected, plan.status.stable
    if won is not None and _id(won) == (trace.candidate.deployment, trace.candidate.revision):
        outcome, message = "Promoted", plan.status.reason
    elif lost is not None and lost != rollout.status.rejected:
        outcome, message = lost.cause, lost.message
    elif plan.status.candidate is not None:
        outcome, message = "Replaced", "another candidate took its place"
    else:
        outcome, message = "Withdrawn", "it is not asked for any more"
    return replace(
        described(trace, rollout, seen, plan), ended=seen.now, outcome=outcome, message=message
    )


# --- one point ------------------------------------------------------------------------------


def _point(rollout: Rollout, seen: Observation, plan: Plan) -> Point:
    """As the pass found it: what it counted belongs to the step that it may have ended."""
    before, after = rollout.status, plan.status
    has_moved = before.step != after.step or after.candidate is None
    told = before if has_moved else after
    in_force = told.step_start_time is not None
    return Point(
        time=seen.now,
        step=told.step,
        weight=told.weight.wanted,
        accepted=told.weight.accepted,
        mirror=told.mirror or 0,
        coverage=float(told.coverage) if told.coverage else None,
        requests=after.requests if after.requests is not None else before.requests,
        guardrails=_levels(rollout, seen, plan) if in_force else (),
    )


def _levels(rollout: Rollout, seen: Observation, plan: Plan) -> tuple[Level, ...]:
    counted = {each.name: each for each in plan.status.checkpoint or _counted(rollout, seen)}
    levels = []
    for each in plan.status.guardrails:
        checkpoint = counted.get(each.name)
        level = seen.levels.get(each.name)
        levels.append(
            Level(
                name=each.name,
                verdict=each.verdict,
                harm=float(each.harm) if each.harm else None,
                safety=float(each.safety) if each.safety else None,
                stable=checkpoint.stable if checkpoint else (),
                candidate=checkpoint.candidate if checkpoint else (),
                until=checkpoint.watermark if checkpoint else 0.0,
                value=level.value if level else None,
            )
        )
    return tuple(levels)


def _counted(rollout: Rollout, seen: Observation) -> tuple[api.GuardrailCheckpoint, ...]:
    """The counts that the last pass decided upon, which does not keep them."""
    stored = rollout.status.checkpoint
    return tuple(
        collect.collect(each, collect.resumed(each, stored, 0.0), seen.readings[each.name])
        for each in seen.measures
        if each.name in seen.readings
    )


# --- what is not a matter of time -----------------------------------------------------------


def described(trace: Trace, rollout: Rollout, seen: Observation, plan: Plan) -> Trace:
    """With what is known now of versions, guardrails and slices."""
    stable = rollout.status.stable
    spec = rollout.spec
    if spec is None or stable is None:
        return trace
    found = {each.name: each for each in trace.guardrails}
    counted = {each.name: each for each in plan.status.checkpoint or _counted(rollout, seen)}
    measures = {each.name: each for each in seen.measures}
    for each in spec.analysis.guardrails:
        if each.limit is not None:
            found[each.name] = _limit(each, each.limit)
        elif each.name in measures:
            found[each.name] = _guardrail(measures[each.name], counted.get(each.name))
    return replace(
        trace,
        stable=_version(stable, seen.stable, spec),
        is_revert=bool(rollout.status.is_revert or plan.status.is_revert),
        steps=plan.status.steps or rollout.status.steps,
        false_rollback_rate=float(spec.analysis.false_rollback_rate),
        false_promote_rate=float(spec.analysis.false_promote_rate),
        guardrails=tuple(found.values()),
        slices=_slices(plan) or trace.slices,
    )


def _limit(guardrail: api.Guardrail, limit: api.Limit) -> Guardrail:
    side = f"max {limit.max}" if limit.max is not None else f"min {limit.min}"
    return Guardrail(
        name=guardrail.name,
        kind=None,
        metric=limit.query[:TEXT_LENGTH],
        required=guardrail.required,
        limit=f"{side} for {limit.for_seconds} s",
    )


def _guardrail(measure: Measure, checkpoint: api.GuardrailCheckpoint | None) -> Guardrail:
    query = measure.query
    is_histogram = query.kind is Kind.DISTRIBUTION
    return Guardrail(
        name=measure.name,
        kind=query.kind,
        metric=query.events.metric,
        tolerance=measure.tolerance,
        margin=measure.margin,
        lower_is_worse=measure.lower_is_worse,
        required=measure.required,
        quantile=measure.quantile,
        thresholds=checkpoint.thresholds if checkpoint else (),
        dispersion=checkpoint.dispersion if checkpoint else (),
        slice_label=query.slice_label,
        matchers=(query.events.matchers, query.stable, query.candidate) if is_histogram else (),
    )


def _slices(plan: Plan) -> tuple[Slice, ...]:
    return tuple(
        Slice(
            guardrail=guardrail.name,
            name=each.name,
            harm=float(each.harm),
            stable=_row(each.stable),
            candidate=_row(each.candidate),
        )
        for guardrail in plan.status.guardrails
        for each in guardrail.slices
    )


def _row(estimate: api.Estimate) -> tuple[float, ...]:
    """Exposure and events."""
    n = float(estimate.requests)
    return (n, n * float(estimate.value)) if estimate.value is not None else (n,)
