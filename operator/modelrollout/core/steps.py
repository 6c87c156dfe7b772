"""A strategy as the list of steps it names."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from modelrollout.api import v1alpha1

DAY_SECONDS = v1alpha1.DAY_SECONDS
DEFAULT_STEPS = {
    v1alpha1.StrategyType.CANARY: tuple(v1alpha1.Step(weight=each) for each in (1, 5, 20, 50)),
    v1alpha1.StrategyType.BLUE_GREEN: (),
    v1alpha1.StrategyType.SHADOW: (v1alpha1.Step(mirror=100),),
    v1alpha1.StrategyType.AB_TEST: (v1alpha1.Step(weight=50, max_seconds=14 * DAY_SECONDS),),
}
DEFAULT_MAX_SECONDS = 3600
DEFAULT_MIN_REQUESTS = 100
"""A verdict on fewer is possible in theory, but nobody would believe it."""


class StepKind(StrEnum):
    """What happens in a step."""

    MIRROR = "mirror"
    WEIGHT = "weight"
    APPROVAL = "approval"
    PAUSE = "pause"
    BAKE = "bake"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One rung with nothing left to default."""

    kind: StepKind
    weight: int
    mirror: int = 0
    min_seconds: int = 0
    max_seconds: int | None = None
    """None: the step ends by time alone, or by a human."""
    min_requests: int = 0
    gate: v1alpha1.Gate | None = None
    """None: nothing is asked of the guardrails but that they do not fail."""
    message: str = ""
    """For the human whose approval is asked."""

    @property
    def is_judged(self) -> bool:
        """Whether evidence can be asked for: both versions get requests."""
        return self.gate is not None

    @property
    def share(self) -> int:
        """The percentage of requests that the candidate answers, for users or for the comparator."""
        return max(self.weight, self.mirror)

    @property
    def share_text(self) -> str:
        """The share of requests that the candidate gets, in words."""
        return f"a mirror of {self.mirror} %" if self.mirror else f"{self.weight} %"


@lru_cache(maxsize=1024)
def steps_of(strategy: v1alpha1.Strategy, *, is_revert: bool = False) -> tuple[Step, ...]:
    """The steps, the last weight 100 and the bake included. A revert has no others."""
    given = DEFAULT_STEPS[strategy.type] if strategy.steps is None else strategy.steps
    if is_revert:
        given = ()
    steps: list[Step] = []
    for each in given:
        steps.append(step_of(each, weight=steps[-1].weight if steps else 0))
    if not steps or steps[-1].weight < v1alpha1.FULL_WEIGHT:
        steps.append(step_of(v1alpha1.Step(weight=v1alpha1.FULL_WEIGHT)))
    if _holds(strategy) and not is_revert:
        steps = _with_approval(steps)
    steps.append(Step(kind=StepKind.BAKE, weight=100, min_seconds=strategy.bake.seconds))
    return tuple(steps)


def weights_of(strategy: v1alpha1.Strategy) -> tuple[int, ...]:
    """The weights at which both versions have users, the smallest first."""
    weights = {each.weight for each in steps_of(strategy)}
    return tuple(sorted(each for each in weights if 0 < each < v1alpha1.FULL_WEIGHT))


def _holds(strategy: v1alpha1.Strategy) -> bool:
    is_shadow = strategy.type is v1alpha1.StrategyType.SHADOW
    default = v1alpha1.OnPass.HOLD if is_shadow else v1alpha1.OnPass.PROMOTE
    return (strategy.on_pass or default) is v1alpha1.OnPass.HOLD


def _with_approval(steps: list[Step]) -> list[Step]:
    """With a human's word right before 100 %, where the list does not ask for it already."""
    last = next(index for index, each in enumerate(steps) if each.weight == v1alpha1.FULL_WEIGHT)
    before, rest = steps[:last], steps[last:]
    if before and before[-1].kind is StepKind.APPROVAL:
        return steps
    weight = before[-1].weight if before else 0
    return [*before, Step(kind=StepKind.APPROVAL, weight=weight), *rest]


def step_of(given: v1alpha1.Step, weight: int = 0) -> Step:
    """A step with its defaults; a wait keeps the `weight` before it, and ends a mirror."""
    if given.approval is not None:
        said = given.approval.message or ""
        return Step(kind=StepKind.APPROVAL, weight=weight, message=said)
    if given.pause_seconds is not None:
        return Step(kind=StepKind.PAUSE, weight=weight, min_seconds=given.pause_seconds)
    if given.weight == v1alpha1.FULL_WEIGHT:
        # Stable gets no requests any more: there is nothing to compare with.
        return Step(kind=StepKind.WEIGHT, weight=100, min_seconds=given.min_seconds or 0)
    return Step(
        kind=StepKind.WEIGHT if given.mirror is None else StepKind.MIRROR,
        weight=given.weight or 0,
        mirror=given.mirror or 0,
        min_seconds=given.min_seconds or 0,
        max_seconds=given.max_seconds or max(DEFAULT_MAX_SECONDS, given.min_seconds or 0),
        min_requests=DEFAULT_MIN_REQUESTS if given.min_requests is None else given.min_requests,
        gate=given.gate or v1alpha1.Gate.PASS,
    )
