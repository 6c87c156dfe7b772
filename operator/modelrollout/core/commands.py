"""What a human asked for by annotation, as a change of facts. Asking twice changes nothing."""

from __future__ import annotations

from dataclasses import dataclass

from modelrollout.api.conditions import Reason
from modelrollout.api.v1alpha1 import FULL_WEIGHT, ModelRolloutStatus
from modelrollout.core import facts
from modelrollout.core.observation import Command, Verb, Workload
from modelrollout.core.plan import Note, Severity
from modelrollout.core.steps import Step, StepKind

Answer = tuple[ModelRolloutStatus, Note]
"""The facts after the command, and an Event that says what it did or why it did nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Early:
    """The command stays where it is until there are pods for the share that it asks for."""

    share: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A command, and where the rollout is when it comes."""

    command: Command
    known: ModelRolloutStatus
    candidate: Workload | None
    step: Step | None
    next_index: int
    next_step: Step | None
    """None before the first step and after the last."""
    most_share: int | None
    """The greatest share that there are pods for; None where the operator does not scale them."""
    now: float

    def ignored(self, why: str) -> Answer:
        """Nothing changes."""
        message = f"command {self.command.text!r} was ignored: {why}"
        return self.known, Note(severity=Severity.WARNING, reason="CommandIgnored", message=message)

    def said(self, what: str) -> str:
        """What happened, and who asked for it."""
        return f"{what} by {self.command.by}" if self.command.by else f"{what} by annotation"

    @property
    def has_ready_candidate(self) -> bool:
        """Users could be sent to the version on trial, or its pods are the operator's to start."""
        seen = self.candidate
        if seen is None or seen.version != self.known.candidate:
            return False
        return seen.is_ready or self.most_share is not None

    def is_early_for(self, share: int) -> bool:
        """The pods that so many requests need are yet to start."""
        return self.most_share is not None and share > self.most_share


def obeyed(asked: Asked) -> Answer | Early:
    """Carry the command out."""
    if asked.command.verb is None:
        return asked.ignored(f"unknown command; there are {', '.join(Verb)}")
    return COMMANDS[asked.command.verb](asked)


def _told(reason: str, message: str) -> Note:
    return Note(severity=Severity.NORMAL, reason=reason, message=message)


def _abort(asked: Asked) -> Answer:
    known = asked.known
    if known.candidate is None:
        return asked.ignored("no candidate is on trial")
    message = asked.said(f"{known.candidate.deployment} was aborted")
    new = facts.rejected(known, Reason.ABORTED, message, asked.now, asked.command.by)
    return new, _told("Aborted", message)


def _pause(asked: Asked) -> Answer:
    known = asked.known
    if known.candidate is None:
        return asked.ignored("no candidate is on trial; use spec.paused to wait")
    message = asked.said("paused")
    new = facts.recorded(known, "Paused", known.candidate, message, asked.now, asked.command.by)
    return facts.paused(new, "Command", message, asked.now), _told("Paused", message)


def _resume(asked: Asked) -> Answer:
    known = asked.known
    if known.candidate is None or known.pause is None:
        return asked.ignored("the rollout is not paused")
    message = asked.said("resumed")
    new = facts.recorded(known, "Resumed", known.candidate, message, asked.now, asked.command.by)
    return facts.resumed(new, asked.step, asked.now), _told("Resumed", message)


def _retry(asked: Asked) -> Answer:
    known, lost = asked.known, asked.known.rejected
    if lost is None:
        return asked.ignored("no version was rejected")
    message = asked.said(f"retry of {lost.deployment}")
    entry = known.stable or known.previous
    if entry is not None:
        tried = entry.model_copy(update={"deployment": lost.deployment, "revision": lost.revision})
        known = facts.recorded(known, "Retried", tried, message, asked.now, asked.command.by)
    return known.model_copy(update={"rejected": None}), _told("Retried", message)


def _promote(asked: Asked) -> Answer | Early:
    known = asked.known
    if known.candidate is None:
        return asked.ignored("no candidate is on trial")
    if not asked.has_ready_candidate:
        return asked.ignored(f"{known.candidate.deployment} is not ready")
    if asked.is_early_for(FULL_WEIGHT):
        return Early(share=FULL_WEIGHT)
    message = asked.said(f"{known.candidate.deployment} was promoted")
    return facts.promoted(known, message, asked.now, asked.command.by), _told("Promoted", message)


def _approve(asked: Asked) -> Answer | Early:
    if asked.step is None or asked.step.kind is not StepKind.APPROVAL:
        return asked.ignored("no approval is asked for now")
    return _moved_on(asked, "Approved", "was approved")


def _skip_step(asked: Asked) -> Answer | Early:
    if asked.step is None:
        return asked.ignored("no step has begun")
    if asked.next_step is None:
        return _promote(asked)
    return _moved_on(asked, "StepSkipped", "was skipped")


def _moved_on(asked: Asked, what: str, done: str) -> Answer | Early:
    known = asked.known
    assert known.candidate is not None
    assert known.step is not None
    assert asked.next_step is not None
    if known.pause is not None:
        return asked.ignored("the rollout is paused: resume it first")
    if not asked.has_ready_candidate:
        return asked.ignored(f"{known.candidate.deployment} is not ready")
    if asked.is_early_for(asked.next_step.share):
        return Early(share=asked.next_step.share)
    message = asked.said(f"step {known.step + 1} of {known.candidate.deployment} {done}")
    new = facts.recorded(known, what, known.candidate, message, asked.now, asked.command.by)
    return facts.at_step(new, asked.next_index, asked.next_step), _told(what, message)


GOES_UP = frozenset({Verb.PROMOTE, Verb.APPROVE, Verb.SKIP_STEP})
"""They can ask for a greater share, and may have to wait for its pods."""
COMMANDS = {
    Verb.ABORT: _abort,
    Verb.PAUSE: _pause,
    Verb.RESUME: _resume,
    Verb.RETRY: _retry,
    Verb.PROMOTE: _promote,
    Verb.APPROVE: _approve,
    Verb.SKIP_STEP: _skip_step,
}
