"""Whole rollouts of every strategy: what is asked for, what humans do meanwhile, how it ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from builders import ERRORS, a_spec
from modelrollout.adapters.cluster import Object

GOOD, BAD = 0.01, 0.3
"""Error rates; stable's is the good one."""
STEP = {"minRequests": 2000}
STICKY = {"sticky": {"header": "x-user-id"}}
COHORT = {"cohort": [{"header": "x-beta", "value": "1"}]}
SCALING = {"scaling": {"minReplicas": 1, "warmSeconds": 20, "drainSeconds": 5}}
CHECKS = [{"name": "answers", "http": {"path": "/"}}]
SHADOW = {
    "shadow": {
        "intent": "Equivalence",
        "idempotent": True,
        "paths": ["/"],
        "outputs": [{"name": "label", "path": "$.label", "exact": {}}],
    }
}

Seen = Callable[[Object], bool]
"""Of a status: whether it is time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """What a human does once when something is seen."""

    when: Seen
    command: str = ""
    delete: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """A rollout."""

    name: str
    spec: dict[str, Any]
    ending: str
    """Promoted, RolledBack or Deleted."""
    errors: float = GOOD
    """The candidate's."""
    approves: bool = False
    """A human approves whenever asked."""
    acts: tuple[Act, ...] = ()
    """In this order."""

    @property
    def is_good(self) -> bool:
        return self.errors == GOOD

    @property
    def route(self) -> str:
        return str(self.spec["traffic"]["gatewayAPI"].get("route", "ranker"))


def _spec(
    strategy: dict[str, Any], traffic: dict[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    route: dict[str, Any] = {"gatewayAPI": {"route": "ranker", "rule": "main"}}
    return a_spec(
        strategy={"bake": {"seconds": 10}, **strategy},
        traffic=route | (traffic or {}),
        analysis={
            "guardrails": [ERRORS],
            "intervalSeconds": 5,
            "noDataTimeoutSeconds": 120,
            "onNoData": "Rollback",
        },
        **more,
    )


def _weights(*weights: int) -> dict[str, Any]:
    return {"steps": [{"weight": each, **STEP} for each in weights]}


def _at(step: int, **more: Any) -> Seen:
    """In a step that has begun."""

    def seen(status: Object) -> bool:
        has_begun = "stepStartTime" in status and status.get("step") == step
        return has_begun and all(status.get(key) == value for key, value in more.items())

    return seen


def _phase(phase: str) -> Seen:
    return lambda status: status.get("phase") == phase


def _pause(status: Object) -> bool:
    return "pause" in status


CANARY = _spec(_weights(10, 50), COHORT)
LONG_STEP = {"steps": [{"weight": 20, **STEP, "minSeconds": 300}]}
MIXED = _spec(
    {
        "steps": [
            {"weight": 10, **STEP},
            {"approval": {}},
            {"weight": 50, **STEP},
            {"pauseSeconds": 10},
        ]
    },
    STICKY | COHORT,
    **SCALING,
)
BLUE_GREEN = _spec({"type": "BlueGreen", "checks": CHECKS, "warmupSeconds": 3}, COHORT)
SHADOWED = _spec(
    {"type": "Shadow", "steps": [{"mirror": 50, **STEP}, {"weight": 20, **STEP}]},
    **SHADOW,
    **SCALING,
)
AB_TEST = _spec({"type": "ABTest", "steps": [{"weight": 50, **STEP}]}, STICKY)
MANAGED = a_spec(
    **_spec(_weights(20))
    | {"traffic": {"gatewayAPI": {"gateway": {"name": "gateway"}, "hostnames": ["a.example"]}}}
)

STORIES = {
    each.name: each
    for each in (
        Story(name="canary", spec=CANARY, ending="Promoted"),
        Story(name="canary, bad", spec=CANARY, ending="RolledBack", errors=BAD),
        Story(name="sticky canary", spec=MIXED, ending="Promoted", approves=True),
        Story(name="sticky canary, bad", spec=MIXED, ending="RolledBack", errors=BAD),
        Story(name="blue/green", spec=BLUE_GREEN, ending="Promoted"),
        Story(
            name="blue/green, aborted",
            spec=BLUE_GREEN,
            ending="RolledBack",
            acts=(Act(when=_phase("Baking"), command="abort"),),
        ),
        Story(name="shadow", spec=SHADOWED, ending="Promoted", approves=True),
        Story(name="shadow, bad", spec=SHADOWED, ending="RolledBack", errors=BAD),
        Story(name="A/B test", spec=AB_TEST, ending="Promoted"),
        Story(name="A/B test, bad", spec=AB_TEST, ending="RolledBack", errors=BAD),
        Story(name="managed route", spec=MANAGED, ending="Promoted"),
        Story(name="managed route, bad", spec=MANAGED, ending="RolledBack", errors=BAD),
        Story(
            name="deleted canary",
            spec=_spec(LONG_STEP, STICKY | COHORT),
            ending="Deleted",
            acts=(Act(when=_at(0), delete=True),),
        ),
        Story(
            name="deleted shadow",
            spec=_spec(
                {"steps": [{"mirror": 50, "minSeconds": 300}, *LONG_STEP["steps"]]}, **SHADOW
            ),
            ending="Deleted",
            acts=(Act(when=_at(0), delete=True),),
        ),
        Story(
            name="commanded canary",
            spec=_spec(LONG_STEP, COHORT),
            ending="Promoted",
            acts=(
                Act(when=_at(0), command="pause"),
                Act(when=_pause, command="resume"),
                Act(when=lambda status: "pause" not in status, command="abort"),
                Act(when=_phase("RolledBack"), command="retry"),
                Act(when=_at(0), command="skip-step"),
                Act(when=_phase("Baking"), command="promote"),
            ),
        ),
    )
}
