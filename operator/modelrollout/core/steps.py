"""A strategy as the list of steps it names."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from modelrollout.api import v1alpha1

DEFAULT_WEIGHTS = {v1alpha1.StrategyType.CANARY: (1, 5, 20, 50, 100)}
DEFAULT_MAX_SECONDS = 3600
DEFAULT_MIN_REQUESTS = 100
"""A verdict on fewer is possible in theory, but nobody would believe it."""


class StepKind(StrEnum):
    """What happens in a step."""

    WEIGHT = "weight"
    PAUSE = "pause"
    BAKE = "bake"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One rung with nothing left to default."""

    kind: StepKind
    weight: int
    min_seconds: int = 0
    max_seconds: int | None = None
    """None: the step ends by time alone."""
    min_requests: int = 0
    gate: v1alpha1.Gate | None = None
    """None: nothing is asked of the guardrails but that they do not fail."""

    @property
    def is_judged(self) -> bool:
        """Whether evidence can be asked for: both versions get traffic."""
        return self.gate is not None


def steps_of(strategy: v1alpha1.Strategy) -> tuple[Step, ...]:
    """The steps, the last weight 100 and the bake included."""
    if strategy.steps is None:
        given = tuple(v1alpha1.Step(weight=each) for each in DEFAULT_WEIGHTS[strategy.type])
    else:
        given = strategy.steps
    steps: list[Step] = []
    for each in given:
        steps.append(step_of(each, weight=steps[-1].weight if steps else 0))
    if steps[-1].weight < v1alpha1.FULL_WEIGHT:
        steps.append(step_of(v1alpha1.Step(weight=v1alpha1.FULL_WEIGHT), weight=0))
    steps.append(Step(kind=StepKind.BAKE, weight=100, min_seconds=strategy.bake.seconds))
    return tuple(steps)


def step_of(given: v1alpha1.Step, weight: int = 0) -> Step:
    """A step with its defaults; a pause keeps the `weight` before it."""
    if given.weight is None:
        return Step(kind=StepKind.PAUSE, weight=weight, min_seconds=given.pause_seconds or 0)
    if given.weight == v1alpha1.FULL_WEIGHT:
        # Stable gets no requests any more: there is nothing to compare with.
        return Step(kind=StepKind.WEIGHT, weight=100, min_seconds=given.min_seconds or 0)
    return Step(
        kind=StepKind.WEIGHT,
        weight=given.weight,
        min_seconds=given.min_seconds or 0,
        max_seconds=given.max_seconds or max(DEFAULT_MAX_SECONDS, given.min_seconds or 0),
        min_requests=DEFAULT_MIN_REQUESTS if given.min_requests is None else given.min_requests,
        gate=given.gate or v1alpha1.Gate.PASS,
    )
