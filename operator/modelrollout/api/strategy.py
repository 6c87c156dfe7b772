"""The steps between no traffic and all of it, as a user writes them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from modelrollout.api.fields import DAY_SECONDS, FULL_WEIGHT, ApiModel, Rule, atomic, given


class Gate(StrEnum):
    """What a step asks of the guardrails before the next one."""

    PASS = "Pass"  # noqa: S105  # a verdict, not a password
    NO_HARM = "NoHarm"


class Step(ApiModel):
    """One rung of the ladder: a weight to hold and judge, or a pause."""

    rules = (
        Rule(
            "has(self.weight) != has(self.pauseSeconds)",
            "a step is either a weight or a pauseSeconds",
            lambda it: given(it.weight, it.pause_seconds) == 1,
        ),
        Rule(
            "has(self.weight) || !(has(self.minRequests) || has(self.minSeconds) || has(self.maxSeconds) || has(self.gate))",
            "minRequests, minSeconds, maxSeconds and gate belong to a weight step",
            lambda it: (
                it.weight is not None
                or not given(it.min_requests, it.min_seconds, it.max_seconds, it.gate)
            ),
        ),
        Rule(
            "!has(self.weight) || self.weight != 100 || !(has(self.minRequests) || has(self.maxSeconds) || has(self.gate))",
            "minRequests, maxSeconds and gate do not apply at weight 100: stable gets no requests any more that the candidate could be compared with",
            lambda it: (
                it.weight != FULL_WEIGHT or not given(it.min_requests, it.max_seconds, it.gate)
            ),
        ),
        Rule(
            "!has(self.minSeconds) || !has(self.maxSeconds) || self.minSeconds <= self.maxSeconds",
            "minSeconds must not exceed maxSeconds",
            lambda it: (
                it.min_seconds is None or it.max_seconds is None or it.min_seconds <= it.max_seconds
            ),
        ),
    )
    weight: Annotated[int, Field(ge=1, le=FULL_WEIGHT)] | None = None
    """weight is the percentage of requests sent to the candidate."""
    pause_seconds: Annotated[int, Field(ge=1, le=30 * DAY_SECONDS)] | None = None
    """pauseSeconds keeps the present weight for this long; guardrails stay armed."""
    min_requests: Annotated[int, Field(ge=0, le=1_000_000_000)] | None = None
    """minRequests is how many requests the candidate must have answered in this step, at least."""
    min_seconds: Annotated[int, Field(ge=0, le=30 * DAY_SECONDS)] | None = None
    """minSeconds is the shortest time this step lasts, whatever the evidence says."""
    max_seconds: Annotated[int, Field(ge=1, le=30 * DAY_SECONDS)] | None = None
    """maxSeconds is the time after which analysis.onInconclusive decides. It defaults to 3600."""
    gate: Gate | None = None
    """gate is what the next step needs: Pass (the default: every required guardrail is proved within its margin) or NoHarm (requests and time, and nothing against the candidate)."""


class Bake(ApiModel):
    """The time after 100 % in which stable stays ready and a failure still rolls back."""

    seconds: Annotated[int, Field(ge=0, le=30 * DAY_SECONDS)]
    """seconds at 100 % before the candidate is promoted."""


class StrategyType(StrEnum):
    """Names of default lists of steps."""

    CANARY = "Canary"


def _weights(steps: tuple[Step, ...]) -> list[int]:
    return [step.weight for step in steps if step.weight is not None]


def _last_gate_passes(steps: tuple[Step, ...]) -> bool:
    below = [step for step in steps if step.weight is not None and step.weight < FULL_WEIGHT]
    return not below or below[-1].gate is not Gate.NO_HARM


class Strategy(ApiModel):
    """The steps between no traffic and all of it."""

    rules = (
        Rule(
            "!has(self.steps) || self.steps.filter(s, has(s.weight)).map(s, s.weight).isSorted()",
            "weights must rise from step to step",
            lambda it: it.steps is None or _weights(it.steps) == sorted(_weights(it.steps)),
        ),
        Rule(
            "!has(self.steps) || self.steps.filter(s, has(s.weight)).all(s, self.steps.filter(t, has(t.weight) && t.weight == s.weight).size() == 1)",
            "two steps have the same weight: use pauseSeconds or minSeconds to stay longer",
            lambda it: it.steps is None or len(set(_weights(it.steps))) == len(_weights(it.steps)),
        ),
        Rule(
            "!has(self.steps) || self.steps.exists(s, has(s.weight) && s.weight < 100)",
            "steps must hold at least one weight below 100: at 100 there is nothing to compare the candidate with",
            lambda it: it.steps is None or any(each < FULL_WEIGHT for each in _weights(it.steps)),
        ),
        Rule(
            "!has(self.steps) || !self.steps.exists(s, has(s.weight) && s.weight < 100 && has(s.gate) && s.gate == 'NoHarm' && !self.steps.exists(t, has(t.weight) && t.weight < 100 && t.weight > s.weight))",
            "the last step before 100 must have gate Pass: NoHarm is for small first steps",
            lambda it: it.steps is None or _last_gate_passes(it.steps),
        ),
    )
    type: StrategyType = StrategyType.CANARY
    """type names the default list of steps. Canary: 1, 5, 20, 50, 100."""
    steps: (
        Annotated[
            tuple[Step, ...],
            atomic(30, at_least=1),
        ]
        | None
    ) = None
    """steps replace the default list. A last step of weight 100 is added when it is missing."""
    bake: Bake = Bake(seconds=300)
    """bake is the time at 100 % before promotion."""
