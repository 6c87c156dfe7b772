"""Rollouts at each place where somebody may look at them, walked to by the real decisions."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from builders import a_rollout, a_workload, an_observation, the_measures
from modelrollout.api.conditions import Reason
from modelrollout.api.v1alpha1 import Phase
from modelrollout.core.evidence import Counts, Reading, Window
from modelrollout.core.observation import Problem, Route
from walk import BAD, Walk

AT_GATEWAY = {"name": "errors", "preset": "envoy/errors"}
STAY = {"steps": [{"weight": 10, "minSeconds": 3600, "maxSeconds": 7200}]}
ANALYSIS = {"guardrails": [AT_GATEWAY], "intervalSeconds": 5}


def preparing() -> Walk:
    """The candidate's pods do not come."""
    walk = Walk()
    walk.until(Phase.PREPARING, candidate=a_workload("ranker-v2", "c1", available=0, endpoints=0))
    return walk


def progressing() -> Walk:
    """The first step, with some evidence."""
    walk = Walk()
    walk.until(Phase.PROGRESSING)
    for _ in range(3):
        walk.step()
    return walk


def paused() -> Walk:
    """By a human."""
    walk = progressing()
    walk.until(Phase.PAUSED, command="pause")
    return walk


def awaiting_approval() -> Walk:
    """An approval step."""
    steps = [{"weight": 10, "minRequests": 10}, {"approval": {}}, {"weight": 50}]
    walk = Walk(spec={"strategy": {"steps": steps}})
    walk.until(Phase.PAUSED)
    return walk


def blind() -> Walk:
    """Prometheus is away."""
    walk = progressing()
    for _ in range(5):
        walk.step(blind="Prometheus does not answer")
    return walk


def misrouted() -> Walk:
    """The gateway shares requests out as it likes."""
    walk = Walk(spec={"analysis": ANALYSIS, "strategy": STAY})
    for _ in range(40):
        walk.step(traffic=((400.0, 4.0), (100.0, 0.0)))
    return walk


def ill() -> Walk:
    """One half of stable's own pods fails."""
    walk = Walk(spec={"analysis": ANALYSIS})
    walk.until(Phase.PROGRESSING)
    for _ in range(20):
        measures = the_measures(a_rollout(walk.status, **walk.spec), an_observation())
        start = walk.status.checkpoint[0].watermark if walk.status.checkpoint else walk.now
        window = Window(
            start=start,
            end=start + 5,
            stable=Counts(n=450.0, k=(22.0,)),
            candidate=Counts(n=50.0, k=(10.0,)),
            halves=(Counts(n=225.0, k=(0.0,)), Counts(n=225.0, k=(22.0,))),
        )
        readings = {each.name: Reading(windows=(window,), watermark=start + 5) for each in measures}
        walk.step(measures=measures, readings=readings)
    return walk


def baking() -> Walk:
    """All traffic is on the candidate."""
    walk = progressing()
    walk.until(Phase.BAKING)
    return walk


def promoted() -> Walk:
    """It is stable now, and the gateway has it."""
    walk = baking()
    walk.until(Phase.PROMOTED)
    walk.step()
    return walk


def rolling_back() -> Walk:
    """The candidate has lost, and the gateway does not take up the route."""
    walk = progressing()
    away = Route(in_sync=False, accepted=False)
    walk.until(Phase.ROLLING_BACK, traffic=BAD)
    for _ in range(3):
        walk.step(route=away)
    return walk


def rolled_back() -> Walk:
    """All users are on stable again."""
    walk = progressing()
    walk.until(Phase.ROLLED_BACK, traffic=BAD)
    return walk


def aborted() -> Walk:
    """As a human wanted it."""
    walk = progressing()
    walk.until(Phase.ROLLED_BACK, command="abort")
    return walk


def stalled() -> Walk:
    """What the spec names is not there."""
    walk = Walk()
    missing = Problem(reason=Reason.ROUTE_NOT_FOUND, message="HTTPRoute ranker does not exist")
    walk.until(Phase.STALLED, problem=missing)
    return walk


WALKS: Mapping[str, Callable[[], Walk]] = {
    each.__name__: each
    for each in (
        preparing,
        progressing,
        paused,
        awaiting_approval,
        blind,
        misrouted,
        ill,
        baking,
        promoted,
        rolling_back,
        rolled_back,
        aborted,
        stalled,
    )
}
