"""
decide(rollout, observation) -> Plan: total, pure, without a clock.

Guards come first, one outcome each, worst news first. What a guard needs to know is in the
facts (status as it was, changed by this pass) and in the observation, nowhere else.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

from modelrollout.api import v1alpha1 as api
from modelrollout.api.conditions import Reason
from modelrollout.api.v1alpha1 import Verdict
from modelrollout.core import (
    collect,
    estimates,
    facts,
    machine,
    scaling,
    status,
    times,
    traffic_split,
)
from modelrollout.core.analysis import Judgement
from modelrollout.core.doubts import doubts
from modelrollout.core.forecast import Pods
from modelrollout.core.measures import can_count
from modelrollout.core.notice import obeyed, on_time, route_seen, stable_seen, warmed_up
from modelrollout.core.observation import CheckResult, Observation, Rollout, Workload
from modelrollout.core.outcomes import (
    SOON_SECONDS,
    WAIT_SECONDS,
    health,
    health_of,
    hold,
    nobody_answers,
    nobody_answers_users,
    planned,
    readiness,
    state,
    with_obstacle,
)
from modelrollout.core.plan import Note, Plan, Severity, traffic_of
from modelrollout.core.present import Present
from modelrollout.core.status import Outcome
from modelrollout.core.steps import Step, StepKind, steps_of
from modelrollout.core.weighing import judged, uncovered

NOT_MADE = CheckResult(passed=False, message="has not been made yet")
COMPARATOR_STARTS = "waits until the comparator is ready"
COMPARATOR_AWAY = "the comparator is not ready: copies of requests are lost, users notice nothing"
MOST_WARNINGS = 16


def decide(rollout: Rollout, seen: Observation) -> Plan:
    """What should be true next."""
    if rollout.is_deleting:
        return _restore(rollout, seen)
    if rollout.spec is None:
        return _not_understood(rollout, seen)
    here = Present(
        rollout=rollout,
        spec=rollout.spec,
        seen=seen,
        steps=steps_of(rollout.spec.strategy, is_revert=bool(rollout.status.is_revert)),
        intended=traffic_of(rollout.status, rollout.spec, rollout.name),
        facts=facts.with_first_stable(rollout.status, rollout.spec),
    )
    return _wanted(stable_seen(route_seen(obeyed(here))))


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


def _wanted(here: Present) -> Plan:
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


def _cannot(here: Present) -> Plan:
    """What the spec names is missing or unfit: hold, unless the candidate is gone or fails."""
    problem = here.seen.problem
    assert problem is not None
    trial = here.facts.candidate
    if trial is not None and (here.facts.weight.wanted > 0 or here.facts.mirror):
        # A name that was mistyped in the spec is no news of the candidate on trial.
        is_gone = problem.reason is Reason.CANDIDATE_NOT_FOUND
        if is_gone and here.spec.candidate.deployment == trial.deployment:
            return _roll_back(here, Reason.CANDIDATE_NOT_READY, problem.message)
        if nobody_answers_users(here):
            return _roll_back(here, Reason.CANDIDATE_NOT_READY, nobody_answers(here))
        here, judgement = judged(here)
        if judgement is not None and judgement.verdict is Verdict.FAIL:
            said = judgement.says(*judgement.culprits)
            return _roll_back(here, Reason.GUARDRAIL_BREACHED, said, judgement)
    outcome = Outcome(
        state=machine.State.STALLED,
        reason=problem.reason,
        message=problem.message,
        is_accepted=False,
    )
    return planned(here, outcome, look_again=WAIT_SECONDS)


def _rolled_back(here: Present, lost: api.Rejection) -> Plan:
    here = here.without_trial()
    is_aborted = lost.cause == Reason.ABORTED
    outcome = Outcome(
        state=state(here),
        reason=Reason.ABORTED if is_aborted else Reason.ROLLED_BACK,
        message=lost.message,
        healthy=health_of(lost.cause),
    )
    return planned(here, outcome, look_again=None)


def _promoted(here: Present) -> Plan:
    here = here.without_trial()
    assert here.facts.stable is not None
    message = f"{here.facts.stable.deployment} is stable and has all traffic"
    outcome = Outcome(state=state(here), reason=Reason.PROMOTED, message=message)
    return planned(here, outcome, look_again=None)


def _begin(here: Present, candidate: Workload) -> Plan:
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
        state=state(here),
        reason=Reason.PREPARING if old is None else Reason.RESTARTED,
        message=message,
        healthy=health(here, Reason.PREPARING, None),
    )
    return planned(here, outcome, look_again=SOON_SECONDS)


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


def _trial(here: Present) -> Plan:
    """The wanted version is on trial: judge, then the guards, worst news first."""
    candidate = here.seen.candidate
    assert candidate is not None
    here, judgement = judged(warmed_up(on_time(here)))
    if judgement is not None and judgement.verdict is Verdict.FAIL:
        said = judgement.says(*judgement.culprits)
        return _roll_back(here, Reason.GUARDRAIL_BREACHED, said, judgement)
    if nobody_answers_users(here):
        return _roll_back(here, Reason.CANDIDATE_NOT_READY, nobody_answers(here), judgement)
    if here.facts.step is None:
        return _prepare(here, candidate)
    if here.facts.step_start_time is None:
        return _enter(here)
    if here.spec.paused and here.facts.pause is None:
        # The deadline waits as long: to unpause is to go on, not to be too late.
        here = here.with_facts(facts.resumed(here.facts, here.step, here.now))
    return _held(here, candidate, judgement) or _climb(here, judgement)


def _held(here: Present, candidate: Workload, judgement: Judgement | None) -> Plan | None:
    """What keeps the rollout where it is; None when nothing does."""
    if here.facts.pause is not None or here.spec.paused:
        return hold(here, Reason.PAUSED, _pause_message(here), judgement)
    if not here.is_settled:
        return hold(here, Reason.WAITING_FOR_ROUTE, here.seen.route.message, judgement)
    if here.facts.split is not None and here.facts.split.mismatch_time is not None:
        said = traffic_split.message(here.facts.split, here.facts.weight.wanted)
        return hold(here, Reason.SPLIT_MISMATCH, said, judgement)
    if judgement is not None and judgement.blind:
        return _blind(here, judgement)
    missing = _missing(here, candidate)
    if missing is not None and missing[0] is Reason.COMPARATOR_NOT_READY:
        return _blind(here, judgement)
    return None if missing is None else hold(here, *missing, judgement)


def _missing(here: Present, candidate: Workload) -> tuple[Reason, str] | None:
    """Who is not there to answer."""
    for share in (scaling.share_of(here.facts), here.early):
        lacking = None if share is None else _lacking(here, candidate, share)
        if lacking is not None:
            return lacking
    if here.lacks_comparator:
        return Reason.COMPARATOR_NOT_READY, COMPARATOR_AWAY
    return None


def _lacking(here: Present, candidate: Workload, share: int) -> tuple[Reason, str] | None:
    """What keeps the pods that a share of requests needs from answering; None when they can."""
    pods = scaling.pods_for(share, here.spec, here.facts, here.seen)
    if scaling.are_there(pods, candidate):
        return None
    said = scaling.waiting(pods, candidate) if pods else readiness(candidate)
    if candidate.unplaced:
        return Reason.CAPACITY_MISSING, f"{said}; there is no room: {candidate.unplaced}"
    said = with_obstacle(said, candidate) if pods else said
    return Reason.SCALING if pods else Reason.CANDIDATE_NOT_READY, said


def _roll_back(
    here: Present, reason: Reason, message: str, judgement: Judgement | None = None
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
        healthy=health_of(reason),
        verdict=judgement.verdict if judgement else None,
    )
    return planned(here, outcome, look_again=SOON_SECONDS)


def _prepare(here: Present, candidate: Workload) -> Plan:
    """No traffic before every pod is ready, and not before the route is at rest."""
    if (here.facts.pause is not None or here.spec.paused) and here.early is None:
        return hold(here, Reason.PAUSED, _pause_message(here), None)
    share = _first_share(here) if here.early is None else here.early
    here = replace(here, ahead=share)
    lacking = _lacking(here, candidate, share)
    if lacking is not None or not candidate.is_ready:
        return _unready(here, candidate, lacking)
    if not here.is_settled:
        waiting = here.seen.route.message or "waits until the route is at rest"
        return hold(here, Reason.WAITING_FOR_ROUTE, waiting, None)
    here = here if here.facts.is_revert else _checked(here)
    failing = [each for each in here.facts.checks if not each.passed]
    if failing:
        return _wait_for_checks(here, failing)
    return _step_to(_informed(here), 0)


def _first_share(here: Present) -> int:
    """The candidate is tried as large as it first meets requests: a blue/green in full."""
    return next(each.share for each in here.steps if each.share)


def _unready(here: Present, candidate: Workload, lacking: tuple[Reason, str] | None) -> Plan:
    """Some of its pods are not there yet, or never will be."""
    is_stuck = bool(candidate.stuck) or candidate.is_asleep
    reason, said = lacking or (Reason.CANDIDATE_NOT_READY, "")
    if reason is Reason.CAPACITY_MISSING or (reason is Reason.SCALING and not is_stuck):
        return hold(here, reason, said, None)
    outcome = Outcome(
        state=machine.State.STALLED if is_stuck else state(here),
        reason=Reason.CANDIDATE_NOT_READY if is_stuck else Reason.PREPARING,
        message=with_obstacle(candidate.stuck, candidate)
        if candidate.stuck
        else readiness(candidate),
        healthy=Reason.CANDIDATE_NOT_READY,
    )
    return planned(here, outcome, look_again=WAIT_SECONDS)


def _checked(here: Present) -> Present:
    """With what the user's checks of the candidate have found so far."""
    since = here.facts.check_since_time or times.as_time(here.now)
    known = {each.name: each for each in here.facts.checks}
    found = [
        _check_status(each, known.get(each.name), here, since) for each in here.spec.strategy.checks
    ]
    update = {"checks": tuple(found), "check_since_time": since if found else None}
    return here.with_facts(here.facts.model_copy(update=update))


def _wait_for_checks(here: Present, failing: list[api.CheckStatus]) -> Plan:
    """They are repeated for a while: a model that has just started may need a moment."""
    since = here.facts.check_since_time
    assert since is not None
    said = "; ".join(f"check {each.name}: {each.message}" for each in failing)
    results = [here.seen.checks.get(each.name, NOT_MADE) for each in failing]
    is_over = here.now - times.as_seconds(since) >= here.spec.strategy.check_seconds
    if any(each.is_final or (is_over and not each.is_running) for each in results):
        return _roll_back(here, Reason.CHECK_FAILED, said)
    return hold(here, Reason.CHECKING, said, None)


def _check_status(
    check: api.Check, known: api.CheckStatus | None, here: Present, since: str
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


def _job_name(here: Present, check: str, since: str) -> str:
    """Another one for each version and each attempt."""
    assert here.facts.candidate is not None
    identity = [here.rollout.uid, here.facts.candidate.revision, check, since]
    digest = hashlib.sha256("/".join(identity).encode()).hexdigest()[:10]
    return f"{here.rollout.name[:25]}-{check[:25]}-{digest}"


def _informed(here: Present) -> Present:
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


def _step_to(here: Present, index: int, judgement: Judgement | None = None) -> Plan:
    step, candidate = here.steps[index], here.seen.candidate
    here = replace(here, ahead=step.share)
    assert here.facts.candidate is not None
    assert candidate is not None
    lacking = _lacking(here, candidate, step.share)
    if lacking is not None:
        return hold(here, *lacking, judgement)
    if step.mirror and not here.seen.comparator.is_ready:
        return hold(here, Reason.COMPARATOR_NOT_READY, COMPARATOR_STARTS, None)
    message = _announcement(step, here.facts.candidate.deployment)
    here = _compared(here)
    message = f"step {index + 1} of {len(here.steps)}: {message}"
    note = Note(severity=Severity.NORMAL, reason="StepStarted", message=message)
    here = here.with_facts(facts.at_step(here.facts, index, step), note)
    if here.is_settled:
        return _enter(here)
    return hold(here, Reason.WAITING_FOR_ROUTE, message, None)


def _compared(here: Present) -> Present:
    """With how an A/B test came out, when its step is left."""
    found = _outcome_of_test(here)
    tried = here.facts.candidate
    assert tried is not None
    if not found or here.step is None or not here.step.is_judged:
        return here
    new = facts.recorded(here.facts, "Compared", tried, found, here.now)
    note = Note(severity=Severity.NORMAL, reason="Compared", message=found)
    return here.with_facts(new, note)


def _outcome_of_test(here: Present) -> str:
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


def _enter(here: Present) -> Plan:
    """The step begins when the gateway has its share: time and evidence count from there."""
    step = here.step
    assert step is not None
    if not here.is_settled:
        waiting = (
            here.seen.route.message or f"waits until the gateway has accepted {step.share_text}"
        )
        return hold(here, Reason.WAITING_FOR_ROUTE, waiting, None)
    strategy, is_first = here.spec.strategy, _is_first_share(here)
    start = here.now + (strategy.warmup_seconds if is_first else 0)
    here = here.with_facts(facts.started(here.facts, step, start))
    is_counted = is_first and strategy.warmup_requests is not None and step.is_judged
    if is_counted and can_count(here.spec.analysis, is_mirror=step.mirror > 0):
        warmup = api.WarmupStatus(until_time=times.as_time(start))
        here = here.with_facts(here.facts.model_copy(update={"warmup": warmup}))
    if step.kind is StepKind.APPROVAL:
        return hold(here, Reason.AWAITING_APPROVAL, _approval_message(here, step), None)
    return hold(here, Reason.ANALYSING, f"{step.share_text} is in force", None)


def _is_first_share(here: Present) -> bool:
    """Before this step the candidate got no requests at all."""
    assert here.facts.step is not None
    earlier = here.steps[: here.facts.step]
    return not any(each.weight or each.mirror for each in earlier)


def _approval_message(here: Present, step: Step) -> str:
    asked = f": {step.message}" if step.message else ""
    how = f"{_command(here, 'approve')} (or abort)"
    found = _outcome_of_test(here)
    return f"waits for approval at {step.weight} %{asked}; {how}{found and f'; {found}'}"


def _command(here: Present, verb: str) -> str:
    name = here.rollout.name
    return f"kubectl annotate modelrollout {name} {api.COMMAND}={verb} {api.COMMAND_BY}=YOU"


def _blind(here: Present, judgement: Judgement | None) -> Plan:
    """
    Nothing can be found out: hold, and after a while do as the policy says.

    Metrics of required guardrails are missing, or the comparator is.
    """
    since = here.facts.no_data_since_time or times.as_time(here.now)
    here = here.with_facts(here.facts.model_copy(update={"no_data_since_time": since}))
    away = COMPARATOR_AWAY if here.lacks_comparator else ""
    unread = judgement.says(*judgement.blind) if judgement and judgement.blind else ""
    said = "; ".join(each for each in (away, unread) if each)
    patience = here.spec.analysis.no_data_timeout_seconds
    is_over = here.now - times.as_seconds(since) >= patience
    policy = here.spec.analysis.on_no_data
    if is_over and policy is api.OnNoData.ROLLBACK:
        said = f"no metrics for {patience} s; {said}"
        return _roll_back(here, Reason.METRICS_UNAVAILABLE, said, judgement)
    if is_over and policy is api.OnNoData.PAUSE:
        return _pause(here, "NoData", f"no metrics for {patience} s; {said}", judgement)
    reason = Reason.COMPARATOR_NOT_READY if away else Reason.METRICS_UNAVAILABLE
    return hold(here, reason, said, judgement)


def _climb(here: Present, judgement: Judgement | None) -> Plan:
    """Nothing speaks against the candidate: on, when the step's gate is met."""
    step = here.step
    assert step is not None
    assert here.facts.step_start_time is not None
    age = here.now - times.as_seconds(here.facts.step_start_time)
    if step.kind is StepKind.APPROVAL:
        said = _approval_message(here, step)
        return hold(here, Reason.AWAITING_APPROVAL, said, judgement)
    if here.facts.warmup is not None:
        # That limits hold, which is all that is looked at, proves nothing.
        return _wait_for_evidence(here, step, judgement)
    if age < step.min_seconds:
        said = f"{step.kind} at {step.share_text} for {step.min_seconds - age:.0f} s more"
        is_bake = step.kind is StepKind.BAKE
        reason = Reason.BAKING if is_bake else Reason.STEP_TOO_YOUNG
        return hold(here, reason, said, judgement, step.min_seconds - age)
    if step.is_judged and not _gate_is_met(step, judgement):
        return _wait_for_evidence(here, step, judgement)
    if here.next_index < len(here.steps):
        return _step_to(here, here.next_index, judgement)
    return _promote(here, judgement)


def _warmup_text(here: Present, warmup: api.WarmupStatus) -> str:
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


def _wait_for_evidence(here: Present, step: Step, judgement: Judgement | None) -> Plan:
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
        said = uncovered(here, here.seen.coverage) + judgement.says(*open_ones)
    if deadline is None or here.now < times.as_seconds(deadline):
        return hold(here, Reason.NOT_ENOUGH_EVIDENCE, said, judgement)
    said = f"not decided in {step.max_seconds} s at {step.share_text}; {said}"
    match here.spec.analysis.on_inconclusive:
        case api.OnInconclusive.PAUSE:
            return _pause(here, "Inconclusive", said, judgement)
        case api.OnInconclusive.ROLLBACK:
            return _roll_back(here, Reason.INCONCLUSIVE, said, judgement)
        case api.OnInconclusive.PROMOTE:
            return _step_to(here, here.next_index, judgement)


def _pause(here: Present, cause: str, message: str, judgement: Judgement | None) -> Plan:
    new = facts.paused(here.facts, cause, message, here.now)
    note = Note(severity=Severity.WARNING, reason="Paused", message=message)
    here = here.with_facts(new, note)
    return hold(here, Reason.PAUSED, _pause_message(here), judgement)


def _pause_message(here: Present) -> str:
    if here.facts.pause is not None:
        return f"{here.facts.pause.message}; to go on: {_command(here, 'resume')}"
    return "spec.paused is true; set it to false to go on"


def _promote(here: Present, judgement: Judgement | None) -> Plan:
    won = here.facts.candidate
    assert won is not None
    message = f"{won.deployment} ({won.revision}) has all traffic"
    found = _outcome_of_test(here)
    if found:
        message = f"{message}; {found}"
    new = facts.promoted(here.facts, message, here.now)
    here = here.with_facts(new, Note(severity=Severity.NORMAL, reason="Promoted", message=message))
    outcome = Outcome(
        state=state(here),
        reason=Reason.PROMOTED,
        message=message,
        verdict=judgement.verdict if judgement else None,
    )
    return planned(here, outcome, look_again=SOON_SECONDS)
