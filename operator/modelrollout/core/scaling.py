"""
How many pods the versions are to have, where spec.scaling leaves that to the operator.

The candidate gets its pods before its share of requests, and keeps them while it is on trial.
Stable is left alone. A version that gets no requests any more is idle: a candidate that was given
up loses its pods once it is drained, a former stable version by halves once it need not be kept
warm. What follows when is a function of facts, spec and time; a HorizontalPodAutoscaler is never
fought.
"""

from __future__ import annotations

import math

from modelrollout.api.v1alpha1 import (
    FULL_WEIGHT,
    IdleStatus,
    ModelRolloutSpec,
    ModelRolloutStatus,
    Scaling,
)
from modelrollout.core.observation import Observation, Workload
from modelrollout.core.plan import Scale
from modelrollout.core.times import as_seconds, as_time

HALVING_SECONDS = 60.0
IDLE_LENGTH = 20


# --- up: the candidate on trial -----------------------------------------------------------


def pods_for(
    share: int, spec: ModelRolloutSpec, facts: ModelRolloutStatus, seen: Observation
) -> int:
    """The pods that a share of requests needs; 0 where they are not the operator's to count."""
    candidate, total = _on_trial(facts, seen), _total(facts, seen)
    if spec.scaling is None or candidate is None or candidate.autoscaler or total is None:
        return 0
    return max(spec.scaling.min_replicas, math.ceil(total * share / FULL_WEIGHT))


def are_there(pods: int, candidate: Workload) -> bool:
    """So many pods can answer; of 0 it is asked that the Deployment has what it wants."""
    return candidate.is_ready if pods == 0 else _ready(candidate) >= pods


def most_share(spec: ModelRolloutSpec, facts: ModelRolloutStatus, seen: Observation) -> int | None:
    """The greatest share that the candidate has the pods for; None where they are not counted."""
    candidate = _on_trial(facts, seen)
    if candidate is None or not pods_for(0, spec, facts, seen):
        return None
    shares = range(FULL_WEIGHT + 1)
    enough = [each for each in shares if are_there(pods_for(each, spec, facts, seen), candidate)]
    return max(enough, default=-1)


def waiting(pods: int, candidate: Workload) -> str:
    """What is waited for, in a sentence."""
    name, ready = candidate.version.deployment, _ready(candidate)
    since = f"from {candidate.desired} " if candidate.desired < pods else ""
    noun, verb = "pod" if pods == 1 else "pods", "is" if ready == 1 else "are"
    return f"scales {name} {since}to {pods} {noun}: {ready} {verb} ready"


def _ready(candidate: Workload) -> int:
    """Pods that are available, and that requests can reach."""
    return min(candidate.available, candidate.endpoints)


def _on_trial(facts: ModelRolloutStatus, seen: Observation) -> Workload | None:
    trial, found = facts.candidate, seen.candidate
    if trial is None or found is None or found.version.deployment != trial.deployment:
        return None
    return found


def _total(facts: ModelRolloutStatus, seen: Observation) -> int | None:
    """The pods that all requests need: as many as stable had when the trial began."""
    if facts.replicas is not None or seen.stable is None:
        return facts.replicas
    return seen.stable.desired


# --- down: versions without requests ------------------------------------------------------


def followed(
    before: ModelRolloutStatus,
    facts: ModelRolloutStatus,
    spec: ModelRolloutSpec,
    seen: Observation,
    *,
    is_settled: bool,
) -> ModelRolloutStatus:
    """The facts after a pass, with those that scaling rests on; none of them where there is none."""
    if spec.scaling is None:
        has_none = facts.replicas is None and not facts.idle
        return facts if has_none else facts.model_copy(update={"replicas": None, "idle": ()})
    total = None if facts.candidate is None else _total(facts, seen)
    users = {each.deployment for each in (facts.stable, facts.candidate) if each is not None}
    idle = [
        each
        for each in (*_left(before, facts, seen), *_still(facts, seen))
        if each.deployment not in users
    ]
    if is_settled:
        idle = [_since(each, seen.now) for each in idle]
    return facts.model_copy(update={"replicas": total, "idle": tuple(idle[:IDLE_LENGTH])})


def _left(
    before: ModelRolloutStatus, facts: ModelRolloutStatus, seen: Observation
) -> list[IdleStatus]:
    """Who may have had requests before this pass and is not to get any after it."""
    trial, was = before.candidate, before.stable
    if trial is None:
        return []
    if facts.stable is None or facts.stable.deployment != trial.deployment:
        return [IdleStatus(deployment=trial.deployment)]
    if was is None or seen.stable is None or seen.stable.version.deployment != was.deployment:
        return []
    return [IdleStatus(deployment=was.deployment, replicas=seen.stable.desired)]


def _still(facts: ModelRolloutStatus, seen: Observation) -> list[IdleStatus]:
    """Those that have pods left which nobody else counts."""
    found = {name: each for name, each in seen.idle.items() if each.desired and not each.autoscaler}
    return [each for each in facts.idle if each.deployment in found]


def _since(idle: IdleStatus, now: float) -> IdleStatus:
    if idle.since_time is not None:
        return idle
    return idle.model_copy(update={"since_time": as_time(now)})


def _target(idle: IdleStatus, scaling: Scaling, now: float) -> int | None:
    """The pods that it may have at most now; None for as many as it has."""
    over = _seconds_over(idle, scaling, now)
    if over is None or over < 0:
        return None
    if idle.replicas is None:
        return 0
    return idle.replicas >> (1 + int(over // HALVING_SECONDS))


def _seconds_over(idle: IdleStatus, scaling: Scaling, now: float) -> float | None:
    """Since it may be scaled down, negative before; None while it may still get requests."""
    if idle.since_time is None:
        return None
    keeps = scaling.drain_seconds
    if idle.replicas is not None:
        keeps = max(keeps, scaling.warm_seconds)
    return now - as_seconds(idle.since_time) - keeps


# --- what to write, and when to look again ------------------------------------------------


def scales(
    ahead: int | None,
    spec: ModelRolloutSpec,
    facts: ModelRolloutStatus,
    seen: Observation,
    *,
    is_settled: bool,
) -> tuple[Scale, ...]:
    """The Deployments to scale now, for the share that the candidate has and the one `ahead`."""
    if spec.scaling is None:
        return ()
    candidate, share = _on_trial(facts, seen), _wanted_share(facts, ahead)
    found = []
    if candidate is not None and share is not None:
        pods = pods_for(share, spec, facts, seen)
        if candidate.desired < pods:
            found.append(_scale(candidate.version.deployment, candidate.desired, pods))
    for each in facts.idle if is_settled else ():
        was, target = seen.idle.get(each.deployment), _target(each, spec.scaling, seen.now)
        if was is not None and target is not None and was.desired > target:
            found.append(_scale(each.deployment, was.desired, target))
    return tuple(found)


def seconds_to_next(
    spec: ModelRolloutSpec, facts: ModelRolloutStatus, seen: Observation
) -> float | None:
    """Until an idle version may lose pods next; 0 while it is not known how many it has."""
    if spec.scaling is None:
        return None
    return min((_wait(each, spec.scaling, seen) for each in facts.idle), default=None)


def share_of(facts: ModelRolloutStatus) -> int:
    """The percentage of requests that the candidate is meant to answer now."""
    return max(facts.weight.wanted, facts.mirror or 0)


def _wanted_share(facts: ModelRolloutStatus, ahead: int | None) -> int | None:
    return ahead if facts.step is None else max(share_of(facts), ahead or 0)


def _scale(deployment: str, before: int, replicas: int) -> Scale:
    return Scale(deployment=deployment, before=before, replicas=replicas)


def _wait(idle: IdleStatus, scaling: Scaling, seen: Observation) -> float:
    over = _seconds_over(idle, scaling, seen.now)
    if over is None or idle.deployment not in seen.idle:
        return 0
    if over < 0:
        return -over
    return 0 if idle.replicas is None else HALVING_SECONDS - over % HALVING_SECONDS
