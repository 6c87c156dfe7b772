"""What happened and whether users are safe, in sentences that stand alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from modelrollout.api import v1alpha1 as api
from modelrollout.api.conditions import Reason
from modelrollout.core import times
from modelrollout.core.steps import StepKind
from modelrollout.core.times import as_seconds
from modelrollout.kubectl import advice, words
from modelrollout.kubectl.differences import Change, changes
from modelrollout.kubectl.failures import NotFound
from modelrollout.kubectl.seen import Seen

BEGUN = {"Started", "Restarted"}
ENDED = {"Promoted"} | {
    Reason.ROLLED_BACK,
    Reason.GUARDRAIL_BREACHED,
    Reason.CANDIDATE_NOT_READY,
    Reason.CHECK_FAILED,
    Reason.METRICS_UNAVAILABLE,
    Reason.INCONCLUSIVE,
    Reason.ABORTED,
}
SUFFERS = 0.5
"""Of the evidence that names a slice: enough to be shown."""
TO_GO_ON = re.compile(r"; (to go on: )?kubectl annotate modelrollout .*$")
CAUSES = {
    Reason.CANDIDATE_NOT_READY: "its pods were not there to answer",
    Reason.CHECK_FAILED: "it failed a check that comes before any user",
    Reason.METRICS_UNAVAILABLE: "its metrics were away for too long",
    Reason.INCONCLUSIVE: "the step's time was over and nothing was proved; nothing was shown against it",
}


class Level(StrEnum):
    """How a sentence is to be taken."""

    GOOD = "good"
    UNSURE = "unsure"
    BAD = "bad"


@dataclass(frozen=True, slots=True, kw_only=True)
class Safety:
    """Whether users are safe now."""

    level: Level
    sentence: str


def safety(seen: Seen) -> Safety:
    """The first thing that is asked in the night."""
    status = seen.status
    if status.phase is api.Phase.ROLLING_BACK:
        return _unsure(
            f"users are being moved back to {seen.stable}; the gateway has not confirmed it yet"
        )
    if not status.conditions:
        return _unsure("the operator has not looked at it yet; it may not be running")
    if status.candidate is None:
        level = Level.UNSURE if status.phase is api.Phase.STALLED else Level.GOOD
        return Safety(level=level, sentence=f"All users are on {seen.stable}.")
    weight = _users(seen)
    if weight == 0:
        copies = f"; {status.mirror} % of requests are copied" if status.mirror else ""
        said = f"No user is on {seen.candidate}{copies}. All are on {seen.stable}."
        return Safety(level=Level.GOOD, sentence=said)
    return _with_users(seen, f"{weight} % of users' requests go to {seen.candidate}")


def _with_users(seen: Seen, where: str) -> Safety:
    verdict = seen.status.verdict
    if seen.reason in {Reason.METRICS_UNAVAILABLE, Reason.SPLIT_MISMATCH, Reason.PLACEBO_FAILED}:
        return _unsure(f"{where}, and nobody can tell whether it is good")
    if seen.status.weight.wanted == api.FULL_WEIGHT:
        return _unsure(f"{where}; {seen.stable} stays ready, and nothing can be compared any more")
    if verdict is api.Verdict.PASS:
        said = f"{where}, and it is proved good enough for this step."
        return Safety(level=Level.GOOD, sentence=said)
    if verdict is api.Verdict.FAIL:
        said = f"{where}, and it is worse than {seen.stable}."
        return Safety(level=Level.BAD, sentence=said)
    return _unsure(f"{where}; nothing is shown against it, and not enough for it yet")


def _users(seen: Seen) -> int:
    """The weight that may be in force: what was wanted, unless the gateway still has more."""
    weight = seen.status.weight
    return max(weight.wanted, weight.accepted or 0)


def _unsure(sentence: str) -> Safety:
    return Safety(level=Level.UNSURE, sentence=f"{sentence[0].upper()}{sentence[1:]}.")


# --- one paragraph --------------------------------------------------------------------------------


def paragraph(seen: Seen) -> str:
    """What a reader must know who reads nothing else."""
    return " ".join(each for each in _sentences(seen) if each)


def _sentences(seen: Seen) -> Iterator[str]:
    status = seen.status
    if status.phase in {api.Phase.ROLLED_BACK, api.Phase.ROLLING_BACK} and status.rejected:
        yield from _rolled_back(seen, status.rejected)
        return
    if status.phase is api.Phase.PROMOTED:
        yield from _promoted(seen)
        return
    yield _where(seen)
    yield _compared(seen)
    yield from _waits(seen)
    yield safety(seen).sentence


def _rolled_back(seen: Seen, lost: api.Rejection) -> Iterator[str]:
    when = times.moment(as_seconds(lost.time))
    ended = next((each for each in seen.status.history if each.revision == lost.revision), None)
    if lost.cause == Reason.ABORTED:
        yield f"{_ended(lost.message)} That was at {when}; the evidence had not decided."
    else:
        place, found = _place(lost)
        yield f"{lost.deployment} was rolled back {place} at {when}, because {_cause(seen, lost, found)}"
    if any(e.verdict is api.Verdict.FAIL and e.harm is not None for e in seen.status.guardrails):
        yield _error_rate(seen)
    yield _exposed(seen, lost, ended)
    yield safety(seen).sentence
    yield f"Revision {lost.revision} is not tried again until it changes or somebody says retry."


def _cause(seen: Seen, lost: api.Rejection, found: str) -> str:
    breached = [each for each in seen.status.guardrails if each.verdict is api.Verdict.FAIL]
    if lost.cause == Reason.GUARDRAIL_BREACHED and breached:
        names = " and ".join(each.name for each in breached)
        one_by_one = "; ".join(_breach(seen, each, is_named=len(breached) > 1) for each in breached)
        return f"guardrail {names} failed: {one_by_one}."
    known = {str(each): said for each, said in CAUSES.items()}
    return _ended(f"{known[lost.cause]}: {found}" if lost.cause in known else found)


def _place(lost: api.Rejection) -> tuple[str, str]:
    """Where it was when it lost, and the sentence why, out of the operator's own message."""
    head = f"{lost.deployment} was rolled back "
    place, _, found = lost.message.removeprefix(head).partition(": ")
    return (place, found) if lost.message.startswith(head) else ("", lost.message)


def _breach(seen: Seen, found: api.GuardrailStatus, *, is_named: bool = True) -> str:
    """A guardrail's figures of both versions, in a clause."""
    guardrail = seen.guardrails.get(found.name)
    name = f"{found.name}: " if is_named else ""
    told = words.FIGURES.match(found.message)
    if told is None:
        return f"{name}{found.message}"
    before = told["before"].replace("; overall ", "").strip()
    among = f"in {before} it suffers most; overall " if before else ""
    candidate = words.in_units(told["candidate"], guardrail)
    stable = words.in_units(told["stable"], guardrail)
    one, other = seen.compared
    return (
        f"{name}{among}it measured {candidate} on {one} and, at the same time, {stable} on {other}"
        f"{_times(found)}, where tolerated is {told['tolerance']}"
    )


def _times(found: api.GuardrailStatus) -> str:
    stable = float(found.stable.value) if found.stable and found.stable.value else 0
    candidate = float(found.candidate.value) if found.candidate and found.candidate.value else 0
    return f", {candidate / stable:.1f} times as much" if 0 < stable < candidate else ""


def _error_rate(seen: Seen) -> str:
    if seen.spec is None:
        return ""
    rate = float(seen.spec.analysis.false_rollback_rate)
    return f"At most {words.rate(rate)} of equally good candidates would be rolled back like this."


def _exposed(seen: Seen, lost: api.Rejection, ended: api.HistoryEntry | None) -> str:
    """How long it had users; nothing where the history does not reach so far."""
    begun = _begun(seen.status.history, lost.revision)
    if begun is None or ended is None:
        return ""
    lasted = times.duration(as_seconds(ended.time) - as_seconds(begun.time))
    requests = seen.status.requests
    counted = f", with at least {requests:,} requests in its last step" if requests else ""
    return f"It was on trial for {lasted}{counted}."


def _begun(history: tuple[api.HistoryEntry, ...], revision: str) -> api.HistoryEntry | None:
    """The newest beginning of a revision's trial."""
    return next((e for e in history if e.revision == revision and e.what in BEGUN), None)


def _promoted(seen: Seen) -> Iterator[str]:
    status = seen.status
    ended = next((each for each in status.history if each.what == "Promoted"), None)
    if ended is None or status.stable is None or ended.deployment != status.stable.deployment:
        yield f"{seen.stable} is stable and has all traffic; nothing is on trial."
        return
    begun = _begun(status.history, ended.revision)
    lasted = (
        f" after {times.duration(as_seconds(ended.time) - as_seconds(begun.time))}" if begun else ""
    )
    by = f", by {ended.by}'s command and whatever the evidence said" if ended.by else ""
    previous = f" in place of {status.previous.deployment}" if status.previous else ""
    when = times.moment(as_seconds(ended.time))
    yield f"{ended.deployment} was promoted at {when}{lasted}{by}: it has all traffic{previous}."
    passed = [each for each in status.guardrails if each.verdict is api.Verdict.PASS]
    if passed and not ended.by:
        proved = ", ".join(_against(seen, each) for each in passed)
        yield f"In the last step that could be compared it was proved within its margins: {proved}."


def _against(seen: Seen, found: api.GuardrailStatus) -> str:
    guardrail = seen.guardrails.get(found.name)
    if found.candidate is None:
        return f"{found.name} {found.message}"
    candidate, stable = (words.figure(e, guardrail) for e in (found.candidate, found.stable))
    return f"{found.name} {candidate} against {stable} of stable"


def _compared(seen: Seen) -> str:
    """How the A/B test of the version on trial came out, if it has."""
    trial = seen.status.candidate
    found = (each for each in seen.status.history if each.what == "Compared")
    told = next((each for each in found if trial and each.revision == trial.revision), None)
    return _ended(told.message) if told else ""


def _where(seen: Seen) -> str:
    status = seen.status
    if status.candidate is None:
        return f"{seen.stable} has all traffic, and nothing is on trial ({status.phase})."
    if status.step is None:
        return f"{seen.candidate} is about to be tried against {seen.stable}, and has no traffic."
    age = seen.step_seconds
    since = f" for {times.duration(age)}" if age is not None else ""
    share = f"a mirror of {status.mirror} %" if status.mirror else f"{status.weight.wanted} %"
    return f"{seen.candidate} is on trial against {seen.stable}: step {status.step_text}, at {share}{since}."


def _waits(seen: Seen) -> Iterator[str]:
    """What it waits for, in the operator's words, and until when."""
    if said := operator_says(seen):
        yield f"The operator says: {_ended(said)}"
    deadline = seen.status.step_deadline_time
    is_open = seen.status.pause is None and seen.reason == Reason.NOT_ENOUGH_EVIDENCE
    if deadline and is_open and seen.spec:
        left = times.duration(as_seconds(deadline) - seen.now)
        then = seen.spec.analysis.on_inconclusive.value.lower()
        yield f"If nothing is proved in {left}, the policy says: {then}."


def operator_says(seen: Seen) -> str:
    """Its sentence, in units, and without the command that it spells out: there is a shorter one."""
    said = TO_GO_ON.sub("", seen.status.reason)
    for each in seen.status.guardrails:
        told = words.in_units(each.message, seen.guardrails.get(each.name))
        said = said.replace(each.message, told)
    return said


def _ended(said: str) -> str:
    return said.rstrip(".") + "."


# --- an earlier one -------------------------------------------------------------------------------


def entries_at(seen: Seen, revision: str) -> tuple[api.HistoryEntry, ...]:
    """The history of a revision, or of a Deployment, the oldest first."""
    history = seen.status.history
    found = [e for e in history if e.revision.startswith(revision) or e.deployment == revision]
    if not found:
        known = dict.fromkeys(f"{each.revision} ({each.deployment})" for each in history)
        has = f"it has {', '.join(known)}" if known else "it is empty"
        raise NotFound(f"the history of {seen.name} has no revision {revision}: {has}")
    return tuple(reversed(found))


def told(entries: tuple[api.HistoryEntry, ...]) -> api.HistoryEntry:
    """How it ended the last time; its last entry, if it has not."""
    return next((each for each in reversed(entries) if each.what in ENDED), entries[-1])


def earlier(entries: tuple[api.HistoryEntry, ...]) -> str:
    """What became of it, out of the history."""
    last = told(entries)
    by = f" (asked for by {last.by})" if last.by else ""
    when = times.moment(as_seconds(last.time))
    before = reversed(entries[: entries.index(last)])
    begun = next((each for each in before if each.what in BEGUN), entries[0])
    lasted = times.duration(as_seconds(last.time) - as_seconds(begun.time))
    said = f"{_ended(last.message)} That was at {when}{by}, {lasted} after it began."
    return said if last.what in ENDED else f"{said} It has not ended."


# --- what to do -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Next:
    """What to do next, for this rollout."""

    sentence: str
    commands: tuple[str, ...]
    reason: str


def next_steps(seen: Seen) -> Next:
    """The advice for its reason, with its names, without commands that would be pointless now."""
    is_moving = seen.status.phase is api.Phase.ROLLING_BACK
    reason = Reason.ROLLING_BACK if is_moving else seen.reason
    told = advice.advice_for(reason)
    names = {
        "name": seen.name,
        "namespace": seen.namespace,
        "stable": seen.stable,
        "candidate": seen.candidate,
        "route": seen.route,
    }
    commands = [each for each in told.commands if _has_a_point(each, seen)]
    return Next(
        sentence=told.sentence.format(**names),
        commands=tuple(each.format(**names) for each in commands),
        reason=reason,
    )


def _has_a_point(command: str, seen: Seen) -> bool:
    status = seen.status
    if command == advice.RETRY:
        return status.rejected is not None
    if command == advice.RESUME:
        return status.pause is not None
    if command in {advice.ABORT, advice.PROMOTE}:
        return status.candidate is not None
    return True


def offers(seen: Seen) -> tuple[str, ...]:
    """The commands that can be given now, as words."""
    status = seen.status
    if status.candidate is None:
        return ("retry",) if status.rejected is not None else ()
    step = seen.step
    found = ["abort"]
    if step is not None and step.kind is StepKind.APPROVAL and status.pause is None:
        found.append("approve")
    found.append("resume" if status.pause is not None else "pause")
    if step is not None and status.pause is None:
        found.append("skip-step")
    return (*found, "promote")


# --- for programs ---------------------------------------------------------------------------------


def changed(seen: Seen) -> list[Change] | str:
    """What differs between the two versions, or the sentence why that cannot be told."""
    candidate, stable = seen.compared
    found = [seen.deployments.get(each) for each in (stable, candidate)]
    for name, deployment in zip((stable, candidate), found, strict=True):
        if deployment is None:
            is_gone = name in seen.deployments
            return f"not known: Deployment {name} {'is gone' if is_gone else 'cannot be read'}"
    one, other = found
    assert one is not None
    assert other is not None
    return changes(one, other, (_model(seen, stable), _model(seen, candidate)))


def _model(seen: Seen, deployment: str) -> dict[str, str]:
    """The model's identity, where the spec still has it."""
    if seen.spec is None:
        return {}
    for version in (seen.spec.candidate, seen.spec.stable):
        if version.deployment == deployment and version.model is not None:
            return version.model.to_dict()
    return {}


def span(seen: Seen) -> tuple[float, float]:
    """When the last trial began and ended; now, if it has not."""
    history = seen.status.history
    begun = next((each for each in history if each.what in BEGUN), None)
    ended = next((each for each in history if each.what in ENDED), None)
    first = as_seconds(begun.time) if begun else seen.now
    last = as_seconds(ended.time) if ended and seen.status.candidate is None else seen.now
    return first, max(first, last)


def document(seen: Seen, found: list[Change] | str) -> dict[str, Any]:
    """All of `why` for a program."""
    told = next_steps(seen)
    safe = safety(seen)
    return {
        "namespace": seen.namespace,
        "name": seen.name,
        "phase": str(seen.status.phase),
        "reason": str(seen.reason),
        "paragraph": paragraph(seen),
        "safety": {"level": str(safe.level), "message": safe.sentence},
        "guardrails": [each.to_dict() for each in seen.status.guardrails],
        "changes": found if isinstance(found, str) else [asdict(each) for each in found],
        "next": {"message": told.sentence, "commands": list(told.commands)},
        "history": [each.to_dict() for each in seen.status.history],
    }
