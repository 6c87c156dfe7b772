"""From what was concluded to a Plan: what is said, what is intended, when to look again."""

from __future__ import annotations

import math

from modelrollout.api.conditions import Reason
from modelrollout.api.v1alpha1 import Verdict
from modelrollout.core import machine, scaling, status
from modelrollout.core.analysis import Judgement
from modelrollout.core.observation import Workload
from modelrollout.core.plan import Plan
from modelrollout.core.present import Present
from modelrollout.core.status import Outcome

SOON_SECONDS = 0.25
"""While the gateway takes up a weight: that takes a few tenths of a second."""
WAIT_SECONDS = 2.0
"""While pods start, or a cause that nobody announces may go away."""
SETTLE_SECONDS = 0.15
"""After a window's end: the time a scrape needs to be stored."""
UNHEALTHY = {
    Reason.METRICS_UNAVAILABLE,
    Reason.SPLIT_MISMATCH,
    Reason.CHECKING,
    Reason.COMPARATOR_NOT_READY,
}
"""Reasons to wait that say more of the candidate's health than the evidence so far."""


def nobody_answers_users(here: Present) -> bool:
    """Users are sent to the candidate, and none of its pods is ready."""
    candidate = here.seen.candidate
    is_on_trial = candidate is not None and candidate.version == here.facts.candidate
    has_users = here.facts.weight.wanted > 0
    return is_on_trial and has_users and candidate is not None and candidate.endpoints == 0


def nobody_answers(here: Present) -> str:
    """That in a sentence."""
    assert here.facts.candidate is not None
    return f"no pod of {here.facts.candidate.deployment} is ready while users are sent to it"


def readiness(candidate: Workload) -> str:
    """What keeps its pods from answering, in a sentence."""
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
    return with_obstacle(
        f"{candidate.available} of {candidate.desired} pods of {name} are ready", candidate
    )


def with_obstacle(said: str, candidate: Workload) -> str:
    """The sentence, and what keeps pods from starting."""
    return f"{said}; {candidate.obstacle}" if candidate.obstacle else said


def hold(
    here: Present,
    reason: Reason,
    message: str,
    judgement: Judgement | None,
    at_most: float | None = None,
) -> Plan:
    """Stay where we are, and look again when the next window of evidence can be there."""
    is_paused = reason in {Reason.PAUSED, Reason.AWAITING_APPROVAL}
    outcome = Outcome(
        state=machine.State.PAUSED if is_paused else state(here),
        reason=reason,
        message=message,
        healthy=health(here, reason, judgement),
        verdict=judgement.verdict if judgement else None,
    )
    return planned(here, outcome, look_again=_next_look(here, at_most))


def planned(here: Present, outcome: Outcome, *, look_again: float | None) -> Plan:
    """The facts as they are now, and what follows from them. `look_again` in seconds, None for a cause only."""
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


def state(here: Present) -> machine.State:
    """The state that the facts say."""
    return machine.state_of(
        here.facts, here.steps, is_settled=here.is_settled, is_rejected=here.is_rejected
    )


def health(here: Present, reason: Reason, judgement: Judgement | None) -> Reason:
    """Of the candidate, while it is held for a reason."""
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


def health_of(cause: str) -> Reason:
    """Of a candidate that was rejected for a cause."""
    known = {
        Reason.GUARDRAIL_BREACHED,
        Reason.CANDIDATE_NOT_READY,
        Reason.CHECK_FAILED,
        Reason.METRICS_UNAVAILABLE,
    }
    return Reason(cause) if cause in known else Reason.NOTHING_ON_TRIAL


def _has_pods(here: Present, candidate: Workload) -> bool:
    """Those of its present share; those of a greater one may be on their way."""
    if here.facts.step is None:
        return candidate.is_ready
    pods = scaling.pods_for(scaling.share_of(here.facts), here.spec, here.facts, here.seen)
    return scaling.are_there(pods, candidate)


def _next_look(here: Present, at_most: float | None) -> float:
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


def _sooner(look_again: float | None, until_scaling: float | None) -> float | None:
    """There is no hurry with what is scaled down."""
    if until_scaling is None:
        return look_again
    wait = max(until_scaling, WAIT_SECONDS)
    return wait if look_again is None else min(look_again, wait)


def _comparator(here: Present) -> bool | None:
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
