"""An outcome in the words of the API: phase, reason, conditions. Nothing here is read back."""

from __future__ import annotations

from dataclasses import dataclass

from modelrollout.api import conditions
from modelrollout.api.conditions import Reason, Told, Type
from modelrollout.api.v1alpha1 import (
    ConditionStatus,
    ModelRolloutStatus,
    Phase,
    Verdict,
)
from modelrollout.core import times
from modelrollout.core.observation import Observation, Rollout

TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN
BAD_HEALTH = {
    Reason.GUARDRAIL_BREACHED,
    Reason.CANDIDATE_NOT_READY,
    Reason.CHECK_FAILED,
    Reason.SPLIT_MISMATCH,
}
MOVING = {Phase.PENDING, Phase.PREPARING, Phase.PROGRESSING, Phase.PAUSED, Phase.BAKING}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a pass concluded."""

    state: Phase
    reason: Reason
    message: str
    healthy: Reason = Reason.NOTHING_ON_TRIAL
    is_accepted: bool = True
    verdict: Verdict | None = None


def described(
    rollout: Rollout,
    seen: Observation,
    facts: ModelRolloutStatus,
    outcome: Outcome,
    *,
    is_settled: bool,
) -> ModelRolloutStatus:
    """The facts, with everything that is said about them."""
    now = times.as_time(seen.now)
    told = [
        _ready(outcome, is_settled=is_settled),
        _reconciling(outcome, is_settled=is_settled),
        _stalled(outcome),
        _accepted(outcome),
        _progressing(outcome),
        _healthy(outcome),
        _promoted(outcome),
        _route_synced(seen, is_settled=is_settled),
    ]
    step = facts.step
    return facts.model_copy(
        update={
            "observed_generation": rollout.generation,
            "phase": outcome.state,
            "reason": outcome.message[:1024],
            "sticky_by": seen.route.sticky_by,
            "step_text": None if step is None else f"{step + 1}/{facts.steps}",
            "verdict": outcome.verdict or facts.verdict,
            "conditions": conditions.conditions_of(
                told, rollout.status.conditions, rollout.generation, now
            ),
        }
    )


def _ready(outcome: Outcome, *, is_settled: bool) -> Told:
    is_ready = outcome.state is Phase.PROMOTED and is_settled
    return Type.READY, TRUE if is_ready else FALSE, outcome.reason, outcome.message


def _reconciling(outcome: Outcome, *, is_settled: bool) -> Told:
    is_promoting = outcome.state is Phase.PROMOTED and not is_settled
    is_moving = outcome.state in MOVING or outcome.state is Phase.ROLLING_BACK or is_promoting
    return Type.RECONCILING, TRUE if is_moving else FALSE, outcome.reason, outcome.message


def _stalled(outcome: Outcome) -> Told:
    is_stalled = outcome.state in {Phase.STALLED, Phase.ROLLED_BACK}
    return Type.STALLED, TRUE if is_stalled else FALSE, outcome.reason, outcome.message


def _accepted(outcome: Outcome) -> Told:
    if outcome.is_accepted:
        return Type.ACCEPTED, TRUE, Reason.ACCEPTED, "the spec is understood"
    return Type.ACCEPTED, FALSE, outcome.reason, outcome.message


def _progressing(outcome: Outcome) -> Told:
    status = TRUE if outcome.state in MOVING else FALSE
    return Type.PROGRESSING, status, outcome.reason, outcome.message


def _healthy(outcome: Outcome) -> Told:
    reason = outcome.healthy
    if reason in BAD_HEALTH:
        status = FALSE
    else:
        status = TRUE if reason is Reason.GUARDRAILS_HOLD else UNKNOWN
    return Type.HEALTHY, status, reason, outcome.message


def _promoted(outcome: Outcome) -> Told:
    if outcome.state is Phase.PROMOTED:
        return Type.PROMOTED, TRUE, Reason.PROMOTED, outcome.message
    if outcome.state in {Phase.ROLLING_BACK, Phase.ROLLED_BACK}:
        is_aborted = outcome.reason is Reason.ABORTED
        reason = Reason.ABORTED if is_aborted else Reason.ROLLED_BACK
        return Type.PROMOTED, FALSE, reason, outcome.message
    return Type.PROMOTED, UNKNOWN, Reason.IN_PROGRESS, outcome.message


def _route_synced(seen: Observation, *, is_settled: bool) -> Told:
    if is_settled:
        return Type.ROUTE_SYNCED, TRUE, Reason.IN_SYNC, "the gateway has accepted the weights"
    if seen.route.problem is not None:
        return Type.ROUTE_SYNCED, FALSE, seen.route.problem.reason, seen.route.problem.message
    said = seen.route.message or "the weights are on their way"
    return Type.ROUTE_SYNCED, FALSE, Reason.NOT_ACCEPTED, said
