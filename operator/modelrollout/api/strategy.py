"""The steps between no traffic and all of it, as a user writes them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from modelrollout.api.fields import (
    CHECK_NAME,
    CHECK_PATH,
    DAY_SECONDS,
    FULL_WEIGHT,
    POINTER,
    ApiModel,
    JsonText,
    Name,
    Rule,
    Sentence,
    atomic,
    given,
    keyed,
    matching,
)


class Gate(StrEnum):
    """What a step asks of the guardrails before the next one."""

    PASS = "Pass"  # noqa: S105  # a verdict, not a password
    NO_HARM = "NoHarm"


class Approval(ApiModel):
    """A wait for a human."""

    message: Sentence | None = None
    """message tells the one who approves what to look at."""


def _judged_only(step: Step) -> int:
    return given(step.min_requests, step.min_seconds, step.max_seconds, step.gate)


class Step(ApiModel):
    """One rung of the ladder: a share of requests to hold and judge, or a wait."""

    rules = (
        Rule(
            "[has(self.weight), has(self.mirror), has(self.approval), has(self.pauseSeconds)].filter(x, x).size() == 1",
            "a step is exactly one of weight, mirror, approval and pauseSeconds",
            lambda it: given(it.weight, it.mirror, it.approval, it.pause_seconds) == 1,
        ),
        Rule(
            "has(self.weight) || has(self.mirror) || !(has(self.minRequests) || has(self.minSeconds) || has(self.maxSeconds) || has(self.gate))",
            "minRequests, minSeconds, maxSeconds and gate belong to a weight or a mirror step",
            lambda it: it.weight is not None or it.mirror is not None or not _judged_only(it),
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
    mirror: Annotated[int, Field(ge=1, le=FULL_WEIGHT)] | None = None
    """mirror is the percentage of requests that are copied to the comparator, which asks both versions; users get stable's answers. See spec.shadow."""
    approval: Approval | None = None
    """approval keeps the present weight until a human says approve (or abort); guardrails stay armed."""
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


class HttpMethod(StrEnum):
    """Methods of a check."""

    GET = "GET"
    POST = "POST"


class Expectation(ApiModel):
    """What one place in a JSON answer must hold."""

    pointer: Annotated[str, matching(r"^(/[^/]*)*$", 200, POINTER)]
    """pointer is a JSON Pointer (RFC 6901), for example /outputs/0/datatype."""
    equals: JsonText
    """equals is the expected value as JSON: 3, true, or "FP32" with its quotes."""


class HttpCheck(ApiModel):
    """A request to the candidate's own Service."""

    rules = (
        Rule(
            "!has(self.body) || (has(self.method) && self.method == 'POST')",
            "a body is sent by method POST: set method: POST, or leave body out",
            lambda it: it.body is None or it.method is HttpMethod.POST,
        ),
    )
    path: Annotated[str, matching(r"^/[!\"$-~]*$", 512, CHECK_PATH)]
    """path of the request, with its query."""
    method: HttpMethod = HttpMethod.GET
    """method of the request."""
    body: Annotated[str, Field(max_length=8192)] | None = None
    """body of the request, as it is sent. Its content type is application/json."""
    status: Annotated[int, Field(ge=200, le=599)] = 200
    """status that the answer must have."""
    json_: Annotated[tuple[Expectation, ...], atomic(16)] = Field(default=(), alias="json")
    """json lists what the answer must hold."""
    timeout_seconds: Annotated[int, Field(ge=1, le=30)] = 5
    """timeoutSeconds is how long an answer may take."""


class JobCheck(ApiModel):
    """A Job that is made from a CronJob of yours, as kubectl create job --from does."""

    cron_job: Name
    """cronJob names a CronJob in the rollout's namespace, suspended if it is for checks only. Its containers find the candidate in MODELROLLOUT_CANDIDATE, MODELROLLOUT_SERVICE, MODELROLLOUT_PORT and MODELROLLOUT_REVISION."""
    timeout_seconds: Annotated[int, Field(ge=1, le=DAY_SECONDS)] = 3600
    """timeoutSeconds is how long the Job may take, as its activeDeadlineSeconds; a shorter one of the template's stays."""


class Check(ApiModel):
    """Something that the candidate must show before any user meets it."""

    rules = (
        Rule(
            "has(self.http) != has(self.job)",
            "a check is exactly one of http and job",
            lambda it: given(it.http, it.job) == 1,
        ),
    )
    name: Annotated[str, matching(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", 63, CHECK_NAME)]
    """name of the check, unique in the list."""
    http: HttpCheck | None = None
    """http sends one request to the candidate's Service and looks at the answer."""
    job: JobCheck | None = None
    """job runs a Job once; it passes when the Job is complete, and fails for good when the Job does."""


class StrategyType(StrEnum):
    """Names of default lists of steps."""

    CANARY = "Canary"
    BLUE_GREEN = "BlueGreen"
    SHADOW = "Shadow"
    AB_TEST = "ABTest"


class OnPass(StrEnum):
    """What follows when every gate below 100 was met."""

    PROMOTE = "Promote"
    HOLD = "Hold"


class Revert(StrEnum):
    """How a version that was stable not long ago comes back."""

    IMMEDIATE = "Immediate"
    STEPS = "Steps"


def _weights(steps: tuple[Step, ...]) -> list[int]:
    return [step.weight for step in steps if step.weight is not None]


def _is_compared(step: Step) -> bool:
    """Both versions answer requests in it."""
    return step.mirror is not None or (step.weight is not None and step.weight < FULL_WEIGHT)


def _last_gate_passes(steps: tuple[Step, ...]) -> bool:
    compared = [step for step in steps if _is_compared(step)]
    return not compared or compared[-1].gate is not Gate.NO_HARM


def _mirrors_come_first(steps: tuple[Step, ...]) -> bool:
    kinds = [step.mirror is not None for step in steps if _is_compared(step) or step.weight]
    return kinds == sorted(kinds, reverse=True)


COMPARED = "(has(s.mirror) || (has(s.weight) && s.weight < 100))"


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
            "!has(self.steps) || !self.steps.exists(s, has(s.mirror)) || self.steps.filter(s, has(s.mirror) || has(s.weight)).map(s, has(s.mirror) ? 0 : 1).isSorted()",
            "mirror steps come before the first weight: users on the candidate are not to be mirrored as well",
            lambda it: it.steps is None or _mirrors_come_first(it.steps),
        ),
        Rule(
            f"!has(self.steps) || (has(self.type) && self.type == 'BlueGreen') || self.steps.exists(s, {COMPARED})",
            "steps must hold at least one mirror, or one weight below 100: at 100 there is nothing to compare the candidate with (a BlueGreen may do without)",
            lambda it: (
                it.steps is None
                or it.type is StrategyType.BLUE_GREEN
                or any(map(_is_compared, it.steps))
            ),
        ),
        Rule(
            f"!has(self.steps) || self.steps.filter(s, {COMPARED}).size() == 0 || self.steps.filter(s, {COMPARED}).map(s, has(s.gate) ? s.gate : 'Pass')[self.steps.filter(s, {COMPARED}).size() - 1] != 'NoHarm'",
            "the last step before 100 must have gate Pass: NoHarm is for small first steps",
            lambda it: it.steps is None or _last_gate_passes(it.steps),
        ),
        Rule(
            "!(has(self.type) && self.type == 'ABTest') || !has(self.steps) || self.steps.filter(s, has(s.weight) && s.weight < 100).size() == 1",
            "an ABTest has one weight below 100: users must not change sides while it runs",
            lambda it: (
                it.type is not StrategyType.AB_TEST
                or it.steps is None
                or len([each for each in _weights(it.steps) if each < FULL_WEIGHT]) == 1
            ),
        ),
        Rule(
            "!(has(self.type) && self.type == 'Shadow') || !has(self.steps) || self.steps.exists(s, has(s.mirror))",
            "a Shadow has at least one mirror step: add {mirror: 100}, or choose type Canary",
            lambda it: (
                it.type is not StrategyType.SHADOW
                or it.steps is None
                or any(each.mirror is not None for each in it.steps)
            ),
        ),
        Rule(
            "!(has(self.type) && self.type == 'BlueGreen') || !has(self.steps) || !self.steps.exists(s, has(s.weight) && s.weight < 100)",
            "a BlueGreen moves all users at once: leave weights below 100 out, or choose type Canary",
            lambda it: (
                it.type is not StrategyType.BLUE_GREEN
                or it.steps is None
                or all(each == FULL_WEIGHT for each in _weights(it.steps))
            ),
        ),
        Rule(
            "!has(self.checks) || self.checks.all(c, self.checks.exists_one(d, d.name == c.name))",
            "two checks have the same name",
            lambda it: len({each.name for each in it.checks}) == len(it.checks),
        ),
    )
    type: StrategyType = StrategyType.CANARY
    """type names the default list of steps. Canary: weights 1, 5, 20, 50, 100. BlueGreen: 100 in one move. Shadow: mirror 100, then 100. ABTest: weight 50 until decided, for at most 14 days, then 100."""
    steps: Annotated[tuple[Step, ...], atomic(30, at_least=1)] | None = None
    """steps replace the default list. A last step of weight 100 is added when it is missing."""
    checks: Annotated[tuple[Check, ...], keyed("name", 8)] = ()
    """checks must pass before the first step. An http check that fails is repeated for checkSeconds, then the candidate is rolled back; a Job is waited for, and not repeated."""
    check_seconds: Annotated[int, Field(ge=1, le=DAY_SECONDS)] = 60
    """checkSeconds is how long failing checks are repeated."""
    warmup_seconds: Annotated[int, Field(ge=0, le=DAY_SECONDS)] = 0
    """warmupSeconds is the time after the first mirror or weight took effect that is no evidence, for either version: caches fill, code is compiled."""
    warmup_requests: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    """warmupRequests is how many requests the candidate answers first, after warmupSeconds, that are no evidence, for either version. They are counted by the first proportion or mean among the guardrails; at 100 %, or without one, there is no such warm-up."""
    on_pass: OnPass | None = None
    """onPass says what follows when every gate was met: Promote (weight 100), or Hold (wait for a human's approval first; the default of a Shadow)."""
    revert: Revert = Revert.IMMEDIATE
    """revert says how a candidate comes back that was stable before: Immediate (100 % in one move) or Steps."""
    bake: Bake = Bake(seconds=300)
    """bake is the time at 100 % before promotion."""
