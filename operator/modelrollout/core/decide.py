"""
decide(rollout, observation) -> Plan: total, pure, without a clock.

Guards come first, one outcome each, worst news first. What a guard needs to know is in the
facts (status as it was, changed by this pass) and in the observation, nowhere else.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

from modelrollout.api import v1alpha1 as api
from modelrollout.api.conditions import Reason
from modelrollout.api.v1alpha1 import ModelRolloutStatus, Verdict
from modelrollout.core import (
    analysis,
    collect,
    commands,
    estimates,
    facts,
    limits,
    machine,
    scaling,
    status,
    traffic_split,
)
from modelrollout.core.analysis import Judgement
from modelrollout.core.doubts import doubts
from modelrollout.core.evidence import Measure
from modelrollout.core.forecast import Pods
from modelrollout.core.measures import can_count
from modelrollout.core.observation import CheckResult, Observation, Rollout, Workload
from modelrollout.core.plan import Note, Plan, Severity, Traffic, shares_of, traffic_of
from modelrollout.core.status import Outcome
from modelrollout.core.steps import Step, StepKind, step_of, steps_of

T = TypeVar("T")

SOON_SECONDS = 0.25
"""While the gateway takes up a weight: that takes a few tenths of a second."""
WAIT_SECONDS = 2.0
"""While pods start, or a cause that nobody announces may go away."""
SETTLE_SECONDS = 0.15
"""After a window's end: the time a scrape needs to be stored."""
CLOCK_SECONDS = 10.0
"""The clocks of two nodes differ by less."""


NOT_MADE = CheckResult(passed=False, message="has not been made yet")
COMPARATOR_STARTS = "waits until the comparator is ready"
COMPARATOR_AWAY = "the comparator is not ready: copies of requests are lost, users notice nothing"
MOST_WARNINGS = 16
SHARES = {StepKind.MIRROR, StepKind.WEIGHT}
"""Steps that change who gets what; the others keep it."""
UNHEALTHY = {
    Reason.METRICS_UNAVAILABLE,
    Reason.SPLIT_MISMATCH,
    Reason.CHECKING,
    Reason.COMPARATOR_NOT_READY,
}
"""Reasons to wait that say more of the candidate's health than the evidence so far."""


@dataclass(frozen=True, kw_only=True)
class _Pass:
    """What the guards look at."""

    rollout: Rollout
    spec: api.ModelRolloutSpec
    seen: Observation
    steps: tuple[Step, ...]
    intended: Traffic | None
    """What the last pass wanted, and the route was held against."""
    facts: ModelRolloutStatus
    notes: tuple[Note, ...] = ()
    early: int | None = None
    """The share that the command asks for and that there are no pods for yet."""
    ahead: int | None = None
    """The share that the candidate is to be scaled up for, if it is more than it has."""

    @property
    def now(self) -> float:
        return self.seen.now

    @cached_property
    def step(self) -> Step | None:
        """
        The present step: the one that status names, as long as it has the weight in force.

        When the list was edited and it has not, the weight in force is a step of its own, with
        the gate that every judged step has: the edit applies from the next step on.
        """
        if self.facts.candidate is None or self.facts.step is None:
            return None
        if self._is_listed:
            return self.steps[self.facts.step]
        weight, mirror = self.facts.weight.wanted, self.facts.mirror
        if mirror:
            return step_of(api.Step(mirror=mirror))
        if weight == 0:
            return Step(kind=StepKind.PAUSE, weight=0)
        return step_of(api.Step(weight=weight))

    @property
    def next_index(self) -> int:
        """The step after the present one; the number of steps after the last."""
        assert self.facts.step is not None
        if self._is_listed:
            return self.facts.step + 1
        share = (self.facts.weight.wanted, self.facts.mirror or 0)
        shares = [(each.weight, each.mirror) for each in self.steps]
        # What stands between two shares, an approval for one, is not left out by an edit of them.
        is_behind = [
            each.kind in SHARES and here <= share
            for each, here in zip(self.steps, shares, strict=True)
        ]
        return max((index + 1 for index, behind in enumerate(is_behind) if behind), default=0)

    @property
    def _is_listed(self) -> bool:
        index = self.facts.step
        return (
            index is not None
            and index < len(self.steps)
            and self.steps[index].weight == self.facts.weight.wanted
            and self.steps[index].mirror == (self.facts.mirror or 0)
        )

    @cached_property
    def is_settled(self) -> bool:
        """The traffic that the facts intend is in force."""
        return self.seen.route.is_settled and self.traffic == self.intended

    @cached_property
    def traffic(self) -> Traffic | None:
        """What the facts intend."""
        if shares_of(self.facts) == shares_of(self.rollout.status):
            return self.intended
        return traffic_of(self.facts, self.spec, self.rollout.name)

    @property
    def is_rejected(self) -> bool:
        """The wanted revision is the one that lost."""
        lost, wanted = self.facts.rejected, self.seen.candidate
        if lost is None or wanted is None:
            return False
        version = wanted.version
        return (lost.deployment, lost.revision) == (version.deployment, version.revision)

    def without_trial(self) -> _Pass:
        """Nothing on trial any more; the facts as they are if nothing was."""
        return (
            self if self.facts.candidate is None else self.with_facts(facts.withdrawn(self.facts))
        )

    def with_facts(self, new: ModelRolloutStatus, *notes: Note) -> _Pass:
        if new is self.facts and not notes:
            return self
        return replace(self, facts=new, notes=(*self.notes, *notes))


def decide(rollout: Rollout, seen: Observation) -> Plan:
    """What should be true next."""
    if rollout.is_deleting:
        return _restore(rollout, seen)
    if rollout.spec is None:
        return _not_understood(rollout, seen)
    here = _Pass(
        rollout=rollout,
        spec=rollout.spec,
        seen=seen,
        steps=steps_of(rollout.spec.strategy, is_revert=bool(rollout.status.is_revert)),
        intended=traffic_of(rollout.status, rollout.spec, rollout.name),
        facts=facts.with_first_stable(rollout.status, rollout.spec),
    )
    return _wanted(_stable_seen(_route_seen(_obey(here))))


# --- before the trial ---------------------------------------------------------------------


def _restore(rollout: Rollout, seen: Observation) -> Plan:
    """Deletion: all traffic to stable, wait until the gateway has it, then let go."""
    new = facts.withdrawn(rollout.status)
    traffic = traffic_of(new, rollout.spec, rollout.name)
    problem = seen.route.problem
    is_same = traffic == traffic_of(rollout.status, rollout.spec, rollout.name)
    # The gateway need not confirm it: an absent one must not keep the object for ever.
    is_done = traffic is None or problem is not None or (seen.route.in_sync and is_same)
    notes: tuple[Note, ...] = ()
    if (
        rollout.has_finalizer
        and problem is not None
        and problem.reason is not Reason.ROUTE_NOT_FOUND
    ):
        message = f"deleted without restoring the route: {problem.message}"
        notes = (Note(severity=Severity.WARNING, reason="RouteNotRestored", message=message),)
    return Plan(
        status=new,
        traffic=None if problem else traffic,
        finalizer=rollout.has_finalizer and not is_done,
        look_again_seconds=None if is_done else SOON_SECONDS,
        notes=notes,
    )


def _not_understood(rollout: Rollout, seen: Observation) -> Plan:
    """No traffic moves on a spec that was not understood."""
    outcome = Outcome(
        state=machine.State.STALLED,
        reason=Reason.INVALID_SPEC,
        message=f"the spec is not understood: {rollout.spec_error}",
        is_accepted=False,
    )
    return Plan(
        status=status.described(rollout, seen, rollout.status, outcome, is_settled=False),
        traffic=None,
        finalizer=rollout.has_finalizer,
        look_again_seconds=None,
    )


def _obey(here: _Pass) -> _Pass:
    """A command counts once, also where its annotation could not be removed at once."""
    given, command = here.rollout.command, here.rollout.order
    obeyed = None if given is None else given.identity
    if here.facts.obeyed != obeyed:
        here = here.with_facts(here.facts.model_copy(update={"obeyed": obeyed}))
    if command is None:
        return here
    following = None if here.step is None else here.next_index
    asked = commands.Asked(
        command=command,
        known=here.facts,
        candidate=here.seen.candidate,
        step=here.step,
        next_index=following or 0,
        next_step=dict(enumerate(here.steps)).get(following) if following else None,
        most_share=scaling.most_share(here.spec, here.facts, here.seen),
        now=here.now,
    )
    answer = commands.obeyed(asked)
    if isinstance(answer, commands.Early):
        # It is yet to be carried out.
        waiting = here.with_facts(here.facts.model_copy(update={"obeyed": None}))
        return replace(waiting, early=answer.share, ahead=answer.share)
    return here.with_facts(*answer)


def _route_seen(here: _Pass) -> _Pass:
    """Note what the gateway has accepted, and tell when somebody else edited the route."""
    weight = here.facts.weight
    if here.is_settled:
        accepted: int | None = weight.wanted
    else:
        accepted = None if not here.seen.route.in_sync else weight.accepted
    new = here.facts
    if accepted != weight.accepted:
        new = new.model_copy(update={"weight": weight.model_copy(update={"accepted": accepted})})
    was_in_force = here.rollout.status.weight.accepted == here.rollout.status.weight.wanted
    if here.seen.route.problem or here.seen.route.in_sync or not was_in_force:
        return here.with_facts(new)
    message = "the route was edited by somebody else; its weights are put back"
    return here.with_facts(new, Note(severity=Severity.WARNING, reason="Drift", message=message))


def _stable_seen(here: _Pass) -> _Pass:
    """Keep stable's revision current: a change of stable in place is adopted, and said."""
    stable, known = here.seen.stable, here.facts.stable
    if stable is None or known is None or stable.version == known:
        return here
    if stable.version.deployment != known.deployment:
        # A command of this very pass made another version stable.
        return here
    new = here.facts.model_copy(update={"stable": stable.version})
    if stable.version.service != known.service:
        new = new.model_copy(update={"retired": facts.with_retired(new, known)})
    if not known.revision or stable.version.revision == known.revision:
        return here.with_facts(new)
    message = (
        f"Deployment {known.deployment} is stable and was changed in place: its users have the "
        "change already, nothing could be compared. Give a change a Deployment of its own."
    )
    new = facts.recorded(new, "ChangedInPlace", stable.version, message, here.now)
    note = Note(severity=Severity.WARNING, reason="ChangedInPlace", message=message)
    return here.with_facts(new, note)


def _wanted(here: _Pass) -> Plan:
    """The wanted version is on trial, decided already, or new."""
    if here.seen.problem is not None:
        return _cannot(here)
    assert here.seen.candidate is not None
    wanted, known = here.seen.candidate.version, here.facts
    lost, stable = known.rejected, known.stable
    if lost is not None and here.is_rejected:
        return _rolled_back(here, lost)
    if stable is not None and stable.deployment == wanted.deployment:
        return _promoted(here)
    if known.candidate is None or known.candidate != wanted:
        return _begin(here, here.seen.candidate)
    return _trial(here)


def _cannot(here: _Pass) -> Plan:
    """What the spec names is missing or unfit: hold, unless the candidate is gone or fails."""
    problem = here.seen.problem
    assert problem is not None
    trial = here.facts.candidate
    if trial is not None and (here.facts.weight.wanted > 0 or here.facts.mirror):
        # A name that was mistyped in the spec is no news of the candidate on trial.
        is_gone = problem.reason is Reason.CANDIDATE_NOT_FOUND
        if is_gone and here.spec.candidate.deployment == trial.deployment:
            return _roll_back(here, Reason.CANDIDATE_NOT_READY, problem.message)
        if _nobody_answers_users(here):
            return _roll_back(here, Reason.CANDIDATE_NOT_READY, _nobody_answers(here))
        here, judgement = _judged(here)
        if judgement is not None and judgement.verdict is Verdict.FAIL:
            said = judgement.says(*judgement.culprits)
            return _roll_back(here, Reason.GUARDRAIL_BREACHED, said, judgement)
    outcome = Outcome(
        state=machine.State.STALLED,
        reason=problem.reason,
        message=problem.message,
        is_accepted=False,
    )
    return _plan(here, outcome, look_again=WAIT_SECONDS)


def _rolled_back(here: _Pass, lost: api.Rejection) -> Plan:
    here = here.without_trial()
    is_aborted = lost.cause == Reason.ABORTED
    outcome = Outcome(
        state=_state(here),
        reason=Reason.ABORTED if is_aborted else Reason.ROLLED_BACK,
        message=lost.message,
        healthy=_health_of(lost.cause),
    )
    return _plan(here, outcome, look_again=None)


def _promoted(here: _Pass) -> Plan:
    here = here.without_trial()
    assert here.facts.stable is not None
    message = f"{here.facts.stable.deployment} is stable and has all traffic"
    outcome = Outcome(state=_state(here), reason=Reason.PROMOTED, message=message)
    return _plan(here, outcome, look_again=None)


def _begin(here: _Pass, candidate: Workload) -> Plan:
    old, new = here.facts.candidate, candidate.version
    what = "Started" if old is None else "Restarted"
    instead = "" if old is None else f" instead of {old.deployment} ({old.revision})"
    is_revert = here.spec.strategy.revert is api.Revert.IMMEDIATE and facts.was_stable(
        here.facts, new
    )
    verb = "revert to" if is_revert else "rollout of"
    message = f"{verb} {new.deployment} ({new.revision}){instead}"
    steps = steps_of(here.spec.strategy, is_revert=is_revert)
    begun = facts.on_trial(here.facts, new, len(steps), is_revert=is_revert)
    begun = facts.recorded(begun, what, new, message, here.now)
    note = Note(severity=Severity.NORMAL, reason=what, message=message)
    here = here.with_facts(begun, note, *_left_to_autoscaler(candidate))
    outcome = Outcome(
        state=_state(here),
        reason=Reason.PREPARING if old is None else Reason.RESTARTED,
        message=message,
        healthy=_health(here, Reason.PREPARING, None),
    )
    return _plan(here, outcome, look_again=SOON_SECONDS)


def _left_to_autoscaler(candidate: Workload) -> tuple[Note, ...]:
    """Told once, when it begins."""
    if not candidate.autoscaler:
        return ()
    name, scaler = candidate.version.deployment, candidate.autoscaler
    message = (
        f"Deployment {name} is scaled by HorizontalPodAutoscaler {scaler}: replicas are left to it"
    )
    return (Note(severity=Severity.NORMAL, reason="LeftToAutoscaler", message=message),)


# --- the trial ----------------------------------------------------------------------------


def _trial(here: _Pass) -> Plan:
    """The wanted version is on trial: judge, then the guards, worst news first."""
    candidate = here.seen.candidate
    assert candidate is not None
    here, judgement = _judged(_warmed_up(_on_time(here)))
    if judgement is not None and judgement.verdict is Verdict.FAIL:
        said = judgement.says(*judgement.culprits)
        return _roll_back(here, Reason.GUARDRAIL_BREACHED, said, judgement)
    if _nobody_answers_users(here):
        return _roll_back(here, Reason.CANDIDATE_NOT_READY, _nobody_answers(here), judgement)
    if here.facts.step is None:
        return _prepare(here, candidate)
    if here.facts.step_start_time is None:
        return _enter(here)
    if here.spec.paused and here.facts.pause is None:
        # The deadline waits as long: to unpause is to go on, not to be too late.
        here = here.with_facts(facts.resumed(here.facts, here.step, here.now))
    return _held(here, candidate, judgement) or _climb(here, judgement)


def _on_time(here: _Pass) -> _Pass:
    """
    A step that begins later than now, by a clock that was moved back, begins now.

    Until its time came again nothing would be judged, and nothing rolled back.
    """
    start, step = here.facts.step_start_time, here.step
    latest = here.now + here.spec.strategy.warmup_seconds + CLOCK_SECONDS
    if start is None or step is None or facts.as_seconds(start) <= latest:
        return here
    begun = facts.started(here.facts, step, here.now)
    return here.with_facts(begun.model_copy(update={"no_data_since_time": None}))


def _warmed_up(here: _Pass) -> _Pass:
    """With what the candidate has answered; when that is enough, its step begins now."""
    known, read, step = here.facts.warmup, here.seen.warmup, here.step
    if known is None or read is None or step is None:
        return here
    requests = known.requests + round(sum(each.candidate.n for each in read.windows))
    if requests >= (here.spec.strategy.warmup_requests or 0):
        begun = facts.started(here.facts, step, here.now)
        return here.with_facts(begun.model_copy(update={"warmup": None}))
    counted = api.WarmupStatus(
        requests=requests,
        until_time=facts.as_time(read.watermark),
        message=read.blind[:1024] or None,
    )
    return here.with_facts(here.facts.model_copy(update={"warmup": counted}))


def _held(here: _Pass, candidate: Workload, judgement: Judgement | None) -> Plan | None:
    """What keeps the rollout where it is; None when nothing does."""
    if here.facts.pause is not None or here.spec.paused:
        return _hold(here, Reason.PAUSED, _pause_message(here), judgement)
    if not here.is_settled:
        return _hold(here, Reason.WAITING_FOR_ROUTE, here.seen.route.message, judgement)
    if here.facts.split is not None and here.facts.split.mismatch_time is not None:
        said = traffic_split.message(here.facts.split, here.facts.weight.wanted)
        return _hold(here, Reason.SPLIT_MISMATCH, said, judgement)
    if judgement is not None and judgement.blind:
        return _blind(here, judgement)
    missing = _missing(here, candidate)
    if missing is not None and missing[0] is Reason.COMPARATOR_NOT_READY:
        return _blind(here, judgement)
    return None if missing is None else _hold(here, *missing, judgement)


def _missing(here: _Pass, candidate: Workload) -> tuple[Reason, str] | None:
    """Who is not there to answer."""
    for share in (scaling.share_of(here.facts), here.early):
        lacking = None if share is None else _lacking(here, candidate, share)
        if lacking is not None:
            return lacking
    if _lacks_comparator(here):
        return Reason.COMPARATOR_NOT_READY, COMPARATOR_AWAY
    return None


def _lacking(here: _Pass, candidate: Workload, share: int) -> tuple[Reason, str] | None:
    """What keeps the pods that a share of requests needs from answering; None when they can."""
    pods = scaling.pods_for(share, here.spec, here.facts, here.seen)
    if scaling.are_there(pods, candidate):
        return None
    said = scaling.waiting(pods, candidate) if pods else _readiness(candidate)
    if candidate.unplaced:
        return Reason.CAPACITY_MISSING, f"{said}; there is no room: {candidate.unplaced}"
    return Reason.SCALING if pods else Reason.CANDIDATE_NOT_READY, said


def _judged(here: _Pass) -> tuple[_Pass, Judgement | None]:
    """Count what was read, and weigh it."""
    seen = here.seen
    if here.facts.step_start_time is None or not (seen.measures or seen.levels):
        return here, None
    start = facts.as_seconds(here.facts.step_start_time)
    collected = {each.name: _collected(here, each, start) for each in seen.measures}
    before = {each.name: each for each in here.facts.checkpoint}
    limited = {each.name: each for each in here.spec.analysis.guardrails if each.limit is not None}
    for name, guardrail in limited.items():
        collected[name] = limits.track_limit(
            guardrail, before.get(name), seen.levels.get(name), here.now
        )
    judgement = analysis.judge(
        here.spec.analysis, seen.measures, collected, seen.readings, seen.levels, here.now
    )
    judgement = _as_far_as_covered(here, judgement)
    split = _split(here, start)
    judgement = estimates.with_estimates(
        judgement,
        here.spec,
        seen.measures,
        collected,
        known={each.name: each for each in here.facts.guardrails},
        split=split,
    )
    new = here.facts.model_copy(
        update={
            "checkpoint": tuple({**_named(here, before), **collected}.values()),
            "guardrails": tuple(_last_known(here, judgement).values()),
            "verdict": judgement.verdict,
            "requests": judgement.requests,
            "coverage": None if seen.coverage is None else f"{seen.coverage:.3f}",
            "split": split,
            "cohort": _cohort(here),
        }
    )
    if new.no_data_since_time and not judgement.blind and not _lacks_comparator(here):
        new = new.model_copy(update={"no_data_since_time": None})
    return here.with_facts(new, *_doubts(here, new, judgement)), judgement


def _split(here: _Pass, start: float) -> api.SplitStatus | None:
    """How requests were shared out; with sticky users those, as nobody knows what each one sends."""
    seen, known, weight = here.seen, here.facts.split, here.facts.weight.wanted
    now = facts.as_time(here.now)
    if here.spec.traffic.sticky is None:
        return traffic_split.counted(known, seen.measures, seen.readings, weight, start, now)
    counts_from = traffic_split.users_from(here.spec, weight, start)
    if seen.users is None or counts_from is None:
        return known
    until = facts.as_time(seen.users.watermark)
    return traffic_split.counted_users(known, seen.users, weight, counts_from, until, now)


def _cohort(here: _Pass) -> api.CohortStatus | None:
    """What its members got. It is told, and nothing else: they are not chosen by chance."""
    known, read = here.facts.cohort, here.seen.cohort
    if read is None:
        return known
    rows = [each.candidate for each in read.windows]
    return api.CohortStatus(
        requests=(known.requests if known else 0) + round(sum(each.n for each in rows)),
        errors=(known.errors if known else 0) + round(sum(each.k[0] for each in rows)),
        until_time=facts.as_time(read.watermark),
        message=read.blind[:1024] or None,
    )


def _as_far_as_covered(here: _Pass, judgement: Judgement) -> Judgement:
    """
    Copies that are lost are no random ones: the large and the slow go first.

    So where too many are missing, what the others say proves nothing good. What is bad is bad.
    """
    if judgement.verdict is Verdict.PASS and _uncovered(here, here.seen.coverage):
        return replace(judgement, verdict=Verdict.INCONCLUSIVE)
    return judgement


def _uncovered(here: _Pass, coverage: float | None) -> str:
    """That copies are missing, as the beginning of a sentence; empty if they are not."""
    if here.spec.shadow is None or not here.facts.mirror:
        return ""
    if coverage is None:
        return "how many of the copied requests were compared is not known yet; "
    least = float(here.spec.shadow.min_coverage)
    if coverage >= least:
        return ""
    return (
        f"{coverage:.1%} of the copied requests were compared, and minCoverage is {least:.0%}: "
        "modelrollout_comparator_unpaired_total has the reasons; "
    ).replace("%", " %")


def _last_known(here: _Pass, judgement: Judgement) -> dict[str, api.GuardrailStatus]:
    """What is said now; of guardrails with nothing to compare in this step what was said last."""
    return _named(
        here, {each.name: each for each in (*here.facts.guardrails, *judgement.guardrails)}
    )


def _named(here: _Pass, found: Mapping[str, T]) -> dict[str, T]:
    """Those whose guardrails the spec has, in its order."""
    names = [each.name for each in here.spec.analysis.guardrails]
    return {name: found[name] for name in names if name in found}


def _collected(here: _Pass, measure: Measure, start: float) -> api.GuardrailCheckpoint:
    seen = here.seen
    checkpoint = collect.resumed(measure, here.facts.checkpoint, start)
    if measure.name in seen.pasts:
        past = seen.pasts[measure.name]
        until = past.histogram.until if past.histogram else start
        watermark = _boundary(start, here.spec.analysis.interval_seconds, until)
        checkpoint = collect.prepared(measure, checkpoint, past, watermark)
    if measure.name in seen.readings:
        reading = seen.readings[measure.name]
        checkpoint = collect.collect(measure, checkpoint, reading, start + measure.delay_seconds)
    return checkpoint


def _doubts(here: _Pass, new: ModelRolloutStatus, judgement: Judgement) -> tuple[Note, ...]:
    """What makes the evidence doubtful, told once."""
    notes = []
    known = {each.name for each in here.facts.guardrails if float(each.placebo or 0) >= 1}
    for each in judgement.untrusted:
        if each not in known:
            message = judgement.says(each)
            notes.append(Note(severity=Severity.WARNING, reason="PlaceboFailed", message=message))
    was_known = here.facts.split is not None and here.facts.split.mismatch_time is not None
    if new.split is not None and new.split.mismatch_time is not None and not was_known:
        message = traffic_split.message(new.split, new.weight.wanted)
        notes.append(Note(severity=Severity.WARNING, reason="SplitMismatch", message=message))
    return tuple(notes)


def _boundary(start: float, width: float, time: float) -> float:
    """The first edge of the grid that is not before a time."""
    return start + width * max(0, math.ceil((time - start) / width - 1e-6))


def _roll_back(
    here: _Pass, reason: Reason, message: str, judgement: Judgement | None = None
) -> Plan:
    lost = here.facts.candidate
    assert lost is not None
    where = "before the first step" if here.step is None else f"at {here.step.share_text}"
    sentence = f"{lost.deployment} was rolled back {where}: {message}"
    found = _outcome_of_test(here)
    if found:
        sentence = f"{sentence}; {found}"
    new = facts.rejected(here.facts, reason, sentence, here.now)
    note = Note(severity=Severity.WARNING, reason="RolledBack", message=sentence)
    here = here.with_facts(new, note)
    outcome = Outcome(
        state=machine.State.ROLLING_BACK,
        reason=Reason.ROLLING_BACK,
        message=sentence,
        healthy=_health_of(reason),
        verdict=judgement.verdict if judgement else None,
    )
    return _plan(here, outcome, look_again=SOON_SECONDS)


def _health_of(cause: str) -> Reason:
    known = {
        Reason.GUARDRAIL_BREACHED,
        Reason.CANDIDATE_NOT_READY,
        Reason.CHECK_FAILED,
        Reason.METRICS_UNAVAILABLE,
    }
    return Reason(cause) if cause in known else Reason.NOTHING_ON_TRIAL


def _prepare(here: _Pass, candidate: Workload) -> Plan:
    """No traffic before every pod is ready, and not before the route is at rest."""
    if (here.facts.pause is not None or here.spec.paused) and here.early is None:
        return _hold(here, Reason.PAUSED, _pause_message(here), None)
    share = _first_share(here) if here.early is None else here.early
    here = replace(here, ahead=share)
    lacking = _lacking(here, candidate, share)
    if lacking is not None or not candidate.is_ready:
        return _unready(here, candidate, lacking)
    if not here.is_settled:
        waiting = here.seen.route.message or "waits until the route is at rest"
        return _hold(here, Reason.WAITING_FOR_ROUTE, waiting, None)
    here = here if here.facts.is_revert else _checked(here)
    failing = [each for each in here.facts.checks if not each.passed]
    if failing:
        return _wait_for_checks(here, failing)
    return _step_to(_informed(here), 0)


def _first_share(here: _Pass) -> int:
    """The candidate is tried as large as it first meets requests: a blue/green in full."""
    return next(each.share for each in here.steps if each.share)


def _unready(here: _Pass, candidate: Workload, lacking: tuple[Reason, str] | None) -> Plan:
    """Some of its pods are not there yet, or never will be."""
    is_stuck = bool(candidate.stuck) or candidate.is_asleep
    reason, said = lacking or (Reason.CANDIDATE_NOT_READY, "")
    if reason is Reason.CAPACITY_MISSING or (reason is Reason.SCALING and not is_stuck):
        return _hold(here, reason, said, None)
    outcome = Outcome(
        state=machine.State.STALLED if is_stuck else _state(here),
        reason=Reason.CANDIDATE_NOT_READY if is_stuck else Reason.PREPARING,
        message=candidate.stuck or _readiness(candidate),
        healthy=Reason.CANDIDATE_NOT_READY,
    )
    return _plan(here, outcome, look_again=WAIT_SECONDS)


def _checked(here: _Pass) -> _Pass:
    """With what the user's checks of the candidate have found so far."""
    since = here.facts.check_since_time or facts.as_time(here.now)
    known = {each.name: each for each in here.facts.checks}
    found = [
        _check_status(each, known.get(each.name), here, since) for each in here.spec.strategy.checks
    ]
    update = {"checks": tuple(found), "check_since_time": since if found else None}
    return here.with_facts(here.facts.model_copy(update=update))


def _wait_for_checks(here: _Pass, failing: list[api.CheckStatus]) -> Plan:
    """They are repeated for a while: a model that has just started may need a moment."""
    since = here.facts.check_since_time
    assert since is not None
    said = "; ".join(f"check {each.name}: {each.message}" for each in failing)
    results = [here.seen.checks.get(each.name, NOT_MADE) for each in failing]
    is_over = here.now - facts.as_seconds(since) >= here.spec.strategy.check_seconds
    if any(each.is_final or (is_over and not each.is_running) for each in results):
        return _roll_back(here, Reason.CHECK_FAILED, said)
    return _hold(here, Reason.CHECKING, said, None)


def _check_status(
    check: api.Check, known: api.CheckStatus | None, here: _Pass, since: str
) -> api.CheckStatus:
    job = known.job if known else None
    if known is not None and known.passed:
        return api.CheckStatus(name=check.name, passed=True, job=job)
    if check.job is not None and job is None:
        job = _job_name(here, check.name, since)
    result = here.seen.checks.get(check.name, NOT_MADE)
    return api.CheckStatus(
        name=check.name, passed=result.passed, message=result.message[:1024], job=job
    )


def _job_name(here: _Pass, check: str, since: str) -> str:
    """Another one for each version and each attempt."""
    assert here.facts.candidate is not None
    identity = [here.rollout.uid, here.facts.candidate.revision, check, since]
    digest = hashlib.sha256("/".join(identity).encode()).hexdigest()[:10]
    return f"{here.rollout.name[:25]}-{check[:25]}-{digest}"


def _informed(here: _Pass) -> _Pass:
    """With what stable's past tells: what the first bet rests on, and what cannot be decided."""
    seen = here.seen
    assert seen.stable is not None
    assert seen.candidate is not None
    prepared = {
        each.name: collect.prepared(
            each, collect.fresh(each, here.now), seen.pasts[each.name], here.now
        )
        for each in seen.measures
        if each.name in seen.pasts
    }
    pods = Pods(stable=seen.stable.available, candidate=seen.candidate.available)
    late = doubts(here.spec.analysis, here.steps, seen.measures, prepared, seen.pasts, pods)
    warnings = [("CannotDecideInTime", each[:1024]) for each in late]
    sticky = here.spec.traffic.sticky
    if sticky is not None and sticky.users is None:
        warnings.insert(0, ("AssignmentNotChecked", traffic_split.UNCHECKED))
    new = here.facts.model_copy(
        update={
            "checkpoint": tuple(prepared.values()),
            "warnings": tuple(message for _, message in warnings[:MOST_WARNINGS]),
        }
    )
    notes = [
        Note(severity=Severity.WARNING, reason=reason, message=message)
        for reason, message in warnings
    ]
    return here.with_facts(new, *notes)


def _step_to(here: _Pass, index: int, judgement: Judgement | None = None) -> Plan:
    step, candidate = here.steps[index], here.seen.candidate
    here = replace(here, ahead=step.share)
    assert here.facts.candidate is not None
    assert candidate is not None
    lacking = _lacking(here, candidate, step.share)
    if lacking is not None:
        return _hold(here, *lacking, judgement)
    if step.mirror and not here.seen.comparator.is_ready:
        return _hold(here, Reason.COMPARATOR_NOT_READY, COMPARATOR_STARTS, None)
    message = _announcement(step, here.facts.candidate.deployment)
    here = _compared(here)
    message = f"step {index + 1} of {len(here.steps)}: {message}"
    note = Note(severity=Severity.NORMAL, reason="StepStarted", message=message)
    here = here.with_facts(facts.at_step(here.facts, index, step), note)
    if here.is_settled:
        return _enter(here)
    return _hold(here, Reason.WAITING_FOR_ROUTE, message, None)


def _compared(here: _Pass) -> _Pass:
    """With how an A/B test came out, when its step is left."""
    found = _outcome_of_test(here)
    tried = here.facts.candidate
    assert tried is not None
    if not found or here.step is None or not here.step.is_judged:
        return here
    new = facts.recorded(here.facts, "Compared", tried, found, here.now)
    note = Note(severity=Severity.NORMAL, reason="Compared", message=found)
    return here.with_facts(new, note)


def _outcome_of_test(here: _Pass) -> str:
    """What an A/B test has found so far; at 100 % what it had found. Empty for other strategies."""
    known, weight = here.facts, here.facts.weight.wanted
    is_test = here.spec.strategy.type is api.StrategyType.AB_TEST and not known.is_revert
    if not is_test or known.candidate is None or not weight:
        return ""
    if weight < api.FULL_WEIGHT:
        return estimates.report(known)
    tried = ("Compared", known.candidate.revision)
    found = (each.message for each in known.history if (each.what, each.revision) == tried)
    return next(found, "")


def _announcement(step: Step, name: str) -> str:
    match step.kind:
        case StepKind.WEIGHT:
            return f"{step.weight} % of requests go to {name}"
        case StepKind.MIRROR:
            return f"{step.mirror} % of requests are mirrored to {name}"
        case StepKind.APPROVAL:
            return f"approval is asked for at {step.weight} %"
        case _:
            return f"{step.kind} of {step.min_seconds} s at {step.weight} %"


def _enter(here: _Pass) -> Plan:
    """The step begins when the gateway has its share: time and evidence count from there."""
    step = here.step
    assert step is not None
    if not here.is_settled:
        waiting = (
            here.seen.route.message or f"waits until the gateway has accepted {step.share_text}"
        )
        return _hold(here, Reason.WAITING_FOR_ROUTE, waiting, None)
    strategy, is_first = here.spec.strategy, _is_first_share(here)
    start = here.now + (strategy.warmup_seconds if is_first else 0)
    here = here.with_facts(facts.started(here.facts, step, start))
    is_counted = is_first and strategy.warmup_requests is not None and step.is_judged
    if is_counted and can_count(here.spec.analysis, is_mirror=step.mirror > 0):
        warmup = api.WarmupStatus(until_time=facts.as_time(start))
        here = here.with_facts(here.facts.model_copy(update={"warmup": warmup}))
    if step.kind is StepKind.APPROVAL:
        return _hold(here, Reason.AWAITING_APPROVAL, _approval_message(here, step), None)
    return _hold(here, Reason.ANALYSING, f"{step.share_text} is in force", None)


def _is_first_share(here: _Pass) -> bool:
    """Before this step the candidate got no requests at all."""
    assert here.facts.step is not None
    earlier = here.steps[: here.facts.step]
    return not any(each.weight or each.mirror for each in earlier)


def _approval_message(here: _Pass, step: Step) -> str:
    asked = f": {step.message}" if step.message else ""
    how = f"{_command(here, 'approve')} (or abort)"
    found = _outcome_of_test(here)
    return f"waits for approval at {step.weight} %{asked}; {how}{found and f'; {found}'}"


def _command(here: _Pass, verb: str) -> str:
    name = here.rollout.name
    return f"kubectl annotate modelrollout {name} {api.COMMAND}={verb} {api.COMMAND_BY}=YOU"


def _lacks_comparator(here: _Pass) -> bool:
    """Requests are copied, and nobody is there to compare the answers."""
    return bool(here.facts.mirror) and not here.seen.comparator.is_ready


def _blind(here: _Pass, judgement: Judgement | None) -> Plan:
    """
    Nothing can be found out: hold, and after a while do as the policy says.

    Metrics of required guardrails are missing, or the comparator is.
    """
    since = here.facts.no_data_since_time or facts.as_time(here.now)
    here = here.with_facts(here.facts.model_copy(update={"no_data_since_time": since}))
    away = COMPARATOR_AWAY if _lacks_comparator(here) else ""
    unread = judgement.says(*judgement.blind) if judgement and judgement.blind else ""
    said = "; ".join(each for each in (away, unread) if each)
    patience = here.spec.analysis.no_data_timeout_seconds
    is_over = here.now - facts.as_seconds(since) >= patience
    policy = here.spec.analysis.on_no_data
    if is_over and policy is api.OnNoData.ROLLBACK:
        said = f"no metrics for {patience} s; {said}"
        return _roll_back(here, Reason.METRICS_UNAVAILABLE, said, judgement)
    if is_over and policy is api.OnNoData.PAUSE:
        return _pause(here, "NoData", f"no metrics for {patience} s; {said}", judgement)
    reason = Reason.COMPARATOR_NOT_READY if away else Reason.METRICS_UNAVAILABLE
    return _hold(here, reason, said, judgement)


def _climb(here: _Pass, judgement: Judgement | None) -> Plan:
    """Nothing speaks against the candidate: on, when the step's gate is met."""
    step = here.step
    assert step is not None
    assert here.facts.step_start_time is not None
    age = here.now - facts.as_seconds(here.facts.step_start_time)
    if step.kind is StepKind.APPROVAL:
        said = _approval_message(here, step)
        return _hold(here, Reason.AWAITING_APPROVAL, said, judgement)
    if here.facts.warmup is not None:
        # That limits hold, which is all that is looked at, proves nothing.
        return _wait_for_evidence(here, step, judgement)
    if age < step.min_seconds:
        said = f"{step.kind} at {step.share_text} for {step.min_seconds - age:.0f} s more"
        is_bake = step.kind is StepKind.BAKE
        reason = Reason.BAKING if is_bake else Reason.STEP_TOO_YOUNG
        return _hold(here, reason, said, judgement, step.min_seconds - age)
    if step.is_judged and not _gate_is_met(step, judgement):
        return _wait_for_evidence(here, step, judgement)
    if here.next_index < len(here.steps):
        return _step_to(here, here.next_index, judgement)
    return _promote(here, judgement)


def _warmup_text(here: _Pass, warmup: api.WarmupStatus) -> str:
    wanted = here.spec.strategy.warmup_requests or 0
    why = f"; {warmup.message}" if warmup.message else ""
    return f"warms up: {warmup.requests:,} of {wanted:,} requests of the candidate{why}"


def _gate_is_met(step: Step, judgement: Judgement | None) -> bool:
    if judgement is None or _has_too_few_requests(step, judgement):
        return False
    if step.gate is api.Gate.PASS:
        return judgement.verdict is Verdict.PASS
    return judgement.verdict in {Verdict.PASS, Verdict.INCONCLUSIVE}


def _has_too_few_requests(step: Step, judgement: Judgement) -> bool:
    """Where no guardrail counts requests, there are none to ask for."""
    return judgement.requests is not None and judgement.requests < step.min_requests


def _wait_for_evidence(here: _Pass, step: Step, judgement: Judgement | None) -> Plan:
    """Not enough evidence: wait, until the deadline makes it a decision."""
    deadline = here.facts.step_deadline_time
    if here.facts.warmup is not None:
        said = _warmup_text(here, here.facts.warmup)
    elif judgement is None:
        said = "waits for the first window of evidence"
    elif _has_too_few_requests(step, judgement):
        said = f"{judgement.requests:,} of {step.min_requests:,} requests; {judgement.says()}"
    else:
        open_ones = [e.name for e in judgement.guardrails if e.verdict is not Verdict.PASS]
        said = _uncovered(here, here.seen.coverage) + judgement.says(*open_ones)
    if deadline is None or here.now < facts.as_seconds(deadline):
        return _hold(here, Reason.NOT_ENOUGH_EVIDENCE, said, judgement)
    said = f"not decided in {step.max_seconds} s at {step.share_text}; {said}"
    match here.spec.analysis.on_inconclusive:
        case api.OnInconclusive.PAUSE:
            return _pause(here, "Inconclusive", said, judgement)
        case api.OnInconclusive.ROLLBACK:
            return _roll_back(here, Reason.INCONCLUSIVE, said, judgement)
        case api.OnInconclusive.PROMOTE:
            return _step_to(here, here.next_index, judgement)


def _pause(here: _Pass, cause: str, message: str, judgement: Judgement | None) -> Plan:
    new = facts.paused(here.facts, cause, message, here.now)
    note = Note(severity=Severity.WARNING, reason="Paused", message=message)
    here = here.with_facts(new, note)
    return _hold(here, Reason.PAUSED, _pause_message(here), judgement)


def _pause_message(here: _Pass) -> str:
    if here.facts.pause is not None:
        return f"{here.facts.pause.message}; to go on: {_command(here, 'resume')}"
    return "spec.paused is true; set it to false to go on"


def _promote(here: _Pass, judgement: Judgement | None) -> Plan:
    won = here.facts.candidate
    assert won is not None
    message = f"{won.deployment} ({won.revision}) has all traffic"
    found = _outcome_of_test(here)
    if found:
        message = f"{message}; {found}"
    new = facts.promoted(here.facts, message, here.now)
    here = here.with_facts(new, Note(severity=Severity.NORMAL, reason="Promoted", message=message))
    outcome = Outcome(
        state=_state(here),
        reason=Reason.PROMOTED,
        message=message,
        verdict=judgement.verdict if judgement else None,
    )
    return _plan(here, outcome, look_again=SOON_SECONDS)


# --- outcomes -----------------------------------------------------------------------------


def _nobody_answers_users(here: _Pass) -> bool:
    """Users are sent to the candidate, and none of its pods is ready."""
    candidate = here.seen.candidate
    is_on_trial = candidate is not None and candidate.version == here.facts.candidate
    has_users = here.facts.weight.wanted > 0
    return is_on_trial and has_users and candidate is not None and candidate.endpoints == 0


def _nobody_answers(here: _Pass) -> str:
    assert here.facts.candidate is not None
    return f"no pod of {here.facts.candidate.deployment} is ready while users are sent to it"


def _readiness(candidate: Workload) -> str:
    name = candidate.version.deployment
    if candidate.is_asleep:
        return (
            f"Deployment {name} is scaled to 0, where HorizontalPodAutoscaler "
            f"{candidate.autoscaler} does nothing: kubectl scale deployment/{name} --replicas=1"
        )
    if candidate.desired == 0:
        return f"Deployment {name} is scaled to 0"
    if candidate.available >= candidate.desired:
        return f"Service {candidate.version.service} has no ready endpoint for {name}"
    return f"{candidate.available} of {candidate.desired} pods of {name} are ready"


def _state(here: _Pass) -> machine.State:
    return machine.state_of(
        here.facts, here.steps, is_settled=here.is_settled, is_rejected=here.is_rejected
    )


def _hold(
    here: _Pass,
    reason: Reason,
    message: str,
    judgement: Judgement | None,
    at_most: float | None = None,
) -> Plan:
    """Stay where we are, and look again when the next window of evidence can be there."""
    is_paused = reason in {Reason.PAUSED, Reason.AWAITING_APPROVAL}
    outcome = Outcome(
        state=machine.State.PAUSED if is_paused else _state(here),
        reason=reason,
        message=message,
        healthy=_health(here, reason, judgement),
        verdict=judgement.verdict if judgement else None,
    )
    return _plan(here, outcome, look_again=_next_look(here, at_most))


def _health(here: _Pass, reason: Reason, judgement: Judgement | None) -> Reason:
    candidate = here.seen.candidate
    if candidate is not None and not _has_pods(here, candidate):
        return Reason.CANDIDATE_NOT_READY
    if reason in UNHEALTHY:
        return reason
    if judgement is not None and judgement.untrusted and judgement.verdict is not Verdict.FAIL:
        return Reason.PLACEBO_FAILED
    if judgement is None:
        return Reason.NOT_ENOUGH_EVIDENCE
    return {
        Verdict.PASS: Reason.GUARDRAILS_HOLD,
        Verdict.FAIL: Reason.GUARDRAIL_BREACHED,
        Verdict.INCONCLUSIVE: Reason.NOT_ENOUGH_EVIDENCE,
        Verdict.NO_DATA: Reason.METRICS_UNAVAILABLE,
    }[judgement.verdict]


def _has_pods(here: _Pass, candidate: Workload) -> bool:
    """Those of its present share; those of a greater one may be on their way."""
    if here.facts.step is None:
        return candidate.is_ready
    pods = scaling.pods_for(scaling.share_of(here.facts), here.spec, here.facts, here.seen)
    return scaling.are_there(pods, candidate)


def _next_look(here: _Pass, at_most: float | None) -> float:
    """Right after the next window can be complete; at once while the route is on its way."""
    if not here.is_settled:
        return SOON_SECONDS
    if here.facts.step is None or here.facts.step_start_time is None:
        return WAIT_SECONDS
    interval = here.spec.analysis.interval_seconds
    expected = dict.fromkeys(here.seen.pasts, 0.0)
    expected |= {name: each.due for name, each in here.seen.readings.items()}
    due = min(
        (
            max(each.watermark + interval, expected[each.name])
            for each in here.facts.checkpoint
            if each.name in expected
        ),
        default=here.now + interval,
    )
    wait = due + SETTLE_SECONDS - here.now
    if wait < -WAIT_SECONDS:
        # Long overdue: the metrics are away, and asking more often does not bring them back.
        wait = WAIT_SECONDS
    limit = min(interval + SETTLE_SECONDS, math.inf if at_most is None else at_most)
    return max(min(wait, limit), SOON_SECONDS)


def _plan(here: _Pass, outcome: Outcome, *, look_again: float | None) -> Plan:
    traffic = here.traffic
    is_away = traffic is not None and not traffic.is_rest
    stable = here.seen.stable
    has_stable = stable is not None and stable.endpoints > 0
    if here.seen.route.problem is not None or not (has_stable or here.is_settled):
        # No write: the route cannot be edited, or it would send users where nobody answers.
        traffic, look_again = None, WAIT_SECONDS
    elif not here.is_settled:
        look_again = SOON_SECONDS if look_again is None else min(look_again, SOON_SECONDS)
    known = scaling.followed(
        here.rollout.status, here.facts, here.spec, here.seen, is_settled=here.is_settled
    )
    return Plan(
        status=status.described(
            here.rollout, here.seen, known, outcome, is_settled=here.is_settled
        ),
        traffic=traffic,
        is_written=here.seen.route.in_sync and traffic == here.intended,
        finalizer=is_away or (here.rollout.has_finalizer and not here.is_settled),
        look_again_seconds=_sooner(
            look_again, scaling.seconds_to_next(here.spec, known, here.seen)
        ),
        command_done=here.rollout.command is not None and here.early is None,
        services=here.seen.missing_services,
        comparator=_comparator(here),
        scales=scaling.scales(here.ahead, here.spec, known, here.seen, is_settled=here.is_settled),
        notes=here.notes,
    )


def _sooner(look_again: float | None, until_scaling: float | None) -> float | None:
    """There is no hurry with what is scaled down."""
    if until_scaling is None:
        return look_again
    wait = max(until_scaling, WAIT_SECONDS)
    return wait if look_again is None else min(look_again, wait)


def _comparator(here: _Pass) -> bool | None:
    """It is there while something is mirrored, and from when that is next: what to do about it."""
    known = here.facts
    is_on_trial = known.candidate is not None
    seen = here.seen.comparator
    if is_on_trial and here.seen.problem is not None:
        return None
    upcoming = 0 if known.step is None else here.next_index if is_on_trial else len(here.steps)
    is_next = upcoming < len(here.steps) and here.steps[upcoming].mirror > 0
    if is_on_trial and (known.mirror or is_next):
        return None if seen.is_current else True
    # Copies may still be under way until the gateway has taken up the route without them.
    return False if seen.exists and here.is_settled else None
