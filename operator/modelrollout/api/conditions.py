"""Condition types and reasons, and how a condition changes: only a flip moves its time."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from modelrollout.api.v1alpha1 import Condition, ConditionStatus


class Type(StrEnum):
    """The conditions of a ModelRollout. The first three are kstatus's."""

    READY = "Ready"
    """All traffic is on one version that was wanted, and nothing is in progress."""
    RECONCILING = "Reconciling"
    """A rollout, a rollback or a restoration is under way."""
    STALLED = "Stalled"
    """Nothing more happens until a human acts."""
    ACCEPTED = "Accepted"
    """The spec is understood and what it names exists."""
    PROGRESSING = "Progressing"
    """The rollout is climbing its steps."""
    HEALTHY = "Healthy"
    """What the evidence says of the candidate."""
    PROMOTED = "Promoted"
    """How the rollout of the wanted candidate ended."""
    ROUTE_SYNCED = "RouteSynced"
    """The gateway has accepted the weights that were decided."""


class Reason(StrEnum):
    """Why a condition is what it is. docs/operations.md has a paragraph for each."""

    ACCEPTED = "Accepted"
    INVALID_SPEC = "InvalidSpec"
    CANDIDATE_NOT_FOUND = "CandidateNotFound"
    STABLE_NOT_FOUND = "StableNotFound"
    SELECTOR_OVERLAP = "SelectorOverlap"
    SERVICE_MISMATCH = "ServiceMismatch"
    ROUTE_NOT_FOUND = "RouteNotFound"
    ROUTE_NOT_MANAGED = "RouteNotManaged"
    PROVIDER_NOT_FOUND = "ProviderNotFound"
    ALREADY_CLAIMED = "AlreadyClaimed"

    PREPARING = "Preparing"
    ANALYSING = "Analysing"
    STEP_TOO_YOUNG = "StepTooYoung"
    PAUSED = "Paused"
    AWAITING_APPROVAL = "AwaitingApproval"
    CHECKING = "Checking"
    SCALING = "Scaling"
    CAPACITY_MISSING = "CapacityMissing"
    BAKING = "Baking"
    WAITING_FOR_ROUTE = "WaitingForRoute"
    ROLLING_BACK = "RollingBack"
    ROLLED_BACK = "RolledBack"
    ABORTED = "Aborted"
    PROMOTED = "Promoted"
    RESTARTED = "Restarted"

    GUARDRAILS_HOLD = "GuardrailsHold"
    GUARDRAIL_BREACHED = "GuardrailBreached"
    CANDIDATE_NOT_READY = "CandidateNotReady"
    NOT_ENOUGH_EVIDENCE = "NotEnoughEvidence"
    METRICS_UNAVAILABLE = "MetricsUnavailable"
    CHECK_FAILED = "CheckFailed"
    COMPARATOR_NOT_READY = "ComparatorNotReady"
    SPLIT_MISMATCH = "SplitMismatch"
    PLACEBO_FAILED = "PlaceboFailed"
    INCONCLUSIVE = "Inconclusive"
    IN_PROGRESS = "InProgress"
    NOTHING_ON_TRIAL = "NothingOnTrial"

    IN_SYNC = "InSync"
    NOT_ACCEPTED = "NotAcceptedByGateway"


Told = tuple[Type, ConditionStatus, Reason, str]
"""Type, status, reason and message of a condition."""


def conditions_of(
    told: Iterable[Told], old: Iterable[Condition], generation: int, now: str
) -> tuple[Condition, ...]:
    """The conditions as of now (RFC 3339) for a generation of the spec."""
    before = {each.type: each for each in old}
    return tuple(_condition(each, before.get(each[0]), generation, now) for each in told)


def _condition(told: Told, old: Condition | None, generation: int, now: str) -> Condition:
    """It keeps its old time when its status did not flip."""
    kind, status, reason, message = told
    message = message[:4096]
    if old and (status, reason, message, generation) == (
        old.status,
        old.reason,
        old.message,
        old.observed_generation,
    ):
        return old
    return Condition(
        type=kind,
        status=status,
        reason=reason,
        message=message,
        observed_generation=generation,
        last_transition_time=old.last_transition_time if old and old.status is status else now,
    )
