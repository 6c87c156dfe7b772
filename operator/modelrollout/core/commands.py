"""What a human asked for by annotation, as a change of facts. Asking twice changes nothing."""

from __future__ import annotations

from modelrollout.api.conditions import Reason
from modelrollout.api.v1alpha1 import ModelRolloutStatus
from modelrollout.core import facts
from modelrollout.core.observation import Command, Verb, Workload
from modelrollout.core.plan import Note, Severity
from modelrollout.core.steps import Step


def obeyed(
    command: Command,
    known: ModelRolloutStatus,
    candidate: Workload | None,
    step: Step | None,
    now: float,
) -> tuple[ModelRolloutStatus, Note]:
    """The facts after the command, and an Event that says what it did or why it did nothing."""
    match command.verb:
        case Verb.ABORT:
            return _abort(command, known, now)
        case Verb.PAUSE:
            return _pause(command, known, now)
        case Verb.RESUME:
            return _resume(command, known, step, now)
        case Verb.RETRY:
            return _retry(command, known, now)
        case Verb.PROMOTE:
            return _promote(command, known, candidate, now)
        case None:
            verbs = ", ".join(Verb)
            return known, _ignored(command, f"unknown command; there are {verbs}")


def _said(command: Command, what: str) -> str:
    return f"{what} by {command.by}" if command.by else f"{what} by annotation"


def _ignored(command: Command, why: str) -> Note:
    message = f"command {command.text!r} was ignored: {why}"
    return Note(severity=Severity.WARNING, reason="CommandIgnored", message=message)


def _told(reason: str, message: str) -> Note:
    return Note(severity=Severity.NORMAL, reason=reason, message=message)


def _abort(
    command: Command, known: ModelRolloutStatus, now: float
) -> tuple[ModelRolloutStatus, Note]:
    if known.candidate is None:
        return known, _ignored(command, "no candidate is on trial")
    message = _said(command, f"{known.candidate.deployment} was aborted")
    return facts.rejected(known, Reason.ABORTED, message, now), _told("Aborted", message)


def _pause(
    command: Command, known: ModelRolloutStatus, now: float
) -> tuple[ModelRolloutStatus, Note]:
    if known.candidate is None:
        return known, _ignored(command, "no candidate is on trial; use spec.paused to wait")
    message = _said(command, "paused")
    new = facts.recorded(known, "Paused", known.candidate, message, now)
    return facts.paused(new, "Command", message, now), _told("Paused", message)


def _resume(
    command: Command, known: ModelRolloutStatus, step: Step | None, now: float
) -> tuple[ModelRolloutStatus, Note]:
    if known.candidate is None or known.pause is None:
        return known, _ignored(command, "the rollout is not paused")
    message = _said(command, "resumed")
    new = facts.recorded(known, "Resumed", known.candidate, message, now)
    return facts.resumed(new, step, now), _told("Resumed", message)


def _retry(
    command: Command, known: ModelRolloutStatus, now: float
) -> tuple[ModelRolloutStatus, Note]:
    lost = known.rejected
    if lost is None:
        return known, _ignored(command, "no version was rejected")
    message = _said(command, f"retry of {lost.deployment}")
    entry = known.stable or known.previous
    if entry is not None:
        tried = entry.model_copy(update={"deployment": lost.deployment, "revision": lost.revision})
        known = facts.recorded(known, "Retried", tried, message, now)
    return known.model_copy(update={"rejected": None}), _told("Retried", message)


def _promote(
    command: Command, known: ModelRolloutStatus, candidate: Workload | None, now: float
) -> tuple[ModelRolloutStatus, Note]:
    if known.candidate is None:
        return known, _ignored(command, "no candidate is on trial")
    if candidate is None or candidate.version != known.candidate or not candidate.is_ready:
        return known, _ignored(command, f"{known.candidate.deployment} is not ready")
    message = _said(command, f"{known.candidate.deployment} was promoted")
    return facts.promoted(known, message, now), _told("Promoted", message)
