"""Limits: plain thresholds on a value, and since when they have been exceeded."""

from __future__ import annotations

from modelrollout.api import v1alpha1 as api
from modelrollout.api.v1alpha1 import GuardrailCheckpoint, GuardrailStatus, Verdict
from modelrollout.core.observation import Level


def limit_status(
    guardrail: api.Guardrail,
    checkpoint: GuardrailCheckpoint | None,
    level: Level | None,
    now: float,
) -> GuardrailStatus:
    """What a limit says now. It fails when it was exceeded for as long as it allows."""
    assert guardrail.limit is not None
    limit = guardrail.limit
    if level is None or level.blind or level.value is None:
        said = level.blind if level and level.blind else "the expression has no result"
        return GuardrailStatus(name=guardrail.name, verdict=Verdict.NO_DATA, message=said)
    side = f"max {limit.max}" if limit.max is not None else f"min {limit.min}"
    message = f"{level.value:g}, {side} for {limit.for_seconds} s"
    since = checkpoint.beyond_since if checkpoint else None
    if since is None:
        return GuardrailStatus(name=guardrail.name, verdict=Verdict.PASS, message=message)
    has_failed = now - since >= limit.for_seconds
    verdict = Verdict.FAIL if has_failed else Verdict.INCONCLUSIVE
    return GuardrailStatus(
        name=guardrail.name,
        verdict=verdict,
        message=f"{message}; beyond it for {now - since:.0f} s",
    )


def track_limit(
    guardrail: api.Guardrail,
    checkpoint: GuardrailCheckpoint | None,
    level: Level | None,
    now: float,
) -> GuardrailCheckpoint:
    """Remember since when a limit has been exceeded. An unreadable level changes nothing."""
    before = checkpoint or GuardrailCheckpoint(name=guardrail.name, key="limit")
    if level is None or level.value is None or level.blind:
        return before
    if not _is_beyond(guardrail, level.value):
        return before.model_copy(update={"beyond_since": None})
    if before.beyond_since is not None:
        return before
    return before.model_copy(update={"beyond_since": now})


def _is_beyond(guardrail: api.Guardrail, value: float) -> bool:
    assert guardrail.limit is not None
    highest, lowest = guardrail.limit.max, guardrail.limit.min
    return (highest is not None and value > float(highest)) or (
        lowest is not None and value < float(lowest)
    )
