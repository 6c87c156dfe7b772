"""
ModelRollout, version v1alpha1: what a user writes in `spec` and reads in `status`.

These types are the only source of the CRD: `api/crd.py` turns them into its schema, and the
docstring under a field is the text of `kubectl explain`. A `Rule` is stated twice, as CEL for
the API server and as Python for objects that reached the operator past it; a test feeds both
the same objects. Decimals are strings (the API conventions forbid floats in a spec), durations
are integers that end in `Seconds`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

GROUP = "modelrollout.dev"
VERSION = "v1alpha1"
KIND = "ModelRollout"
PLURAL = "modelrollouts"
API_VERSION = f"{GROUP}/{VERSION}"
FINALIZER = f"{GROUP}/traffic"
COMMAND = f"{GROUP}/command"
COMMAND_BY = f"{GROUP}/by"

DAY_SECONDS = 86_400
FULL_WEIGHT = 100


def _matching(pattern: str, max_length: int, message: str) -> Any:
    """A string of a form. The API server quotes the bare pattern; the message is for people."""
    rule = {"rule": f"self.matches(r'{pattern}')", "message": message}
    extra: dict[str, Any] = {"x-kubernetes-validations": [rule]}
    return Field(max_length=max_length, pattern=pattern, json_schema_extra=extra)


NAME = "a name is made of lower-case letters, digits, '-' and '.', and begins and ends with a letter or digit"
SERVICE_NAME = "a Service's name is made of lower-case letters, digits and '-', begins with a letter and ends with a letter or digit"
HOSTNAME = "a hostname is a DNS name in lower case, whose first label may be *"
GUARDRAIL_NAME = "a guardrail's name is made of lower-case letters, digits and '-', and begins and ends with a letter or digit"
METRIC_NAME = "a metric's name stands alone: matchers, functions and braces do not belong here"
LABEL_NAME = "a label's name is made of letters, digits and _, and does not begin with a digit"
DECIMAL = "a decimal number is written in digits and at most one point, for example 2 or 0.005"
DECIMAL_FORM = r"^(0|[1-9][0-9]*)(\.[0-9]+)?$"
RATE = "a rate is a decimal number above 0 and below 1, for example 0.01"

Name = Annotated[str, _matching(r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", 253, NAME)]
ServiceName = Annotated[str, _matching(r"^[a-z]([-a-z0-9]*[a-z0-9])?$", 63, SERVICE_NAME)]
Hostname = Annotated[
    str,
    _matching(
        r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$", 253, HOSTNAME
    ),
]
Text = Annotated[str, Field(max_length=512)]
Sentence = Annotated[str, Field(max_length=1024)]
MetricName = Annotated[str, _matching(r"^[a-zA-Z_:][a-zA-Z0-9_:]*$", 200, METRIC_NAME)]
LabelName = Annotated[str, _matching(r"^[a-zA-Z_][a-zA-Z0-9_]*$", 100, LABEL_NAME)]
Decimal = Annotated[str, _matching(DECIMAL_FORM, 20, DECIMAL)]
Rate = Annotated[str, _matching(r"^0\.[0-9]*[1-9][0-9]*$", 20, RATE)]
Time = Annotated[str, Field(max_length=40, json_schema_extra={"format": "date-time"})]


@dataclass(frozen=True, slots=True)
class Rule:
    """A condition between fields: `cel` for the API server, `holds` for Python, one message."""

    cel: str
    message: str
    holds: Callable[[Any], bool]


class ApiModel(BaseModel):
    """A piece of the API. Unknown fields are ignored: an older operator reads newer objects."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        alias_generator=to_camel,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )
    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _obey_rules(self) -> Self:
        for rule in self.rules:
            if not rule.holds(self):
                raise ValueError(rule.message)
        return self

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, without what is unset."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def sentence_of(invalid: ValidationError) -> str:
    """What is wrong with a spec first, and where."""
    first = invalid.errors()[0]
    where = ".".join(str(each) for each in first["loc"])
    return f"spec.{where}: {first['msg']}" if where else f"spec: {first['msg']}"


def _given(*values: object) -> int:
    return sum(value is not None for value in values)


# --- spec ---------------------------------------------------------------------------------


class ModelIdentity(ApiModel):
    """Which model a version serves. A change of any of these is a new revision."""

    version: Text | None = None
    """version is the model's version as its registry calls it."""
    uri: Text | None = None
    """uri says where the model comes from, for example models:/ranker/12."""
    digest: Text | None = None
    """digest is the checksum of the model's artifact."""


UNFIT_FOR_SERVICE = re.compile(r"^[0-9]|[.]|^.{64}")


class Version(ApiModel):
    """One version of the model: a Deployment, and the Service in front of it."""

    rules = (
        Rule(
            "has(self.service) || !self.deployment.matches(r'^[0-9]|[.]|^.{64}')",
            "a Service cannot have this Deployment's name (a dot, a leading digit, or more than 63 characters): give service",
            lambda it: it.service is not None or not UNFIT_FOR_SERVICE.search(it.deployment),
        ),
    )
    deployment: Name
    """deployment names the Deployment that serves this version, in the rollout's namespace."""
    service: ServiceName | None = None
    """service names the Service in front of the Deployment. It defaults to the Deployment's name and is created when it does not exist."""
    model: ModelIdentity | None = None
    """model identifies the model that the Deployment serves."""


class GatewayReference(ApiModel):
    """A Gateway to attach the managed route to."""

    name: Name
    """name is the Gateway's name."""
    namespace: Name | None = None
    """namespace is the Gateway's namespace; it defaults to the rollout's. The Gateway decides through allowedRoutes whom it accepts."""
    section_name: Name | None = None
    """sectionName selects one listener of the Gateway."""


class DeletionPolicy(StrEnum):
    """What becomes of a managed route when the ModelRollout is deleted."""

    KEEP = "Keep"
    DELETE = "Delete"


class GatewayAPI(ApiModel):
    """Traffic through a Gateway API HTTPRoute: the user's (route) or the operator's (gateway)."""

    rules = (
        Rule(
            "has(self.route) != has(self.gateway)",
            "give exactly one of route (attach to your HTTPRoute) and gateway (the operator owns one)",
            lambda it: _given(it.route, it.gateway) == 1,
        ),
        Rule(
            "!has(self.rule) || has(self.route)",
            "rule names a rule of your own HTTPRoute: give route as well",
            lambda it: it.rule is None or it.route is not None,
        ),
        Rule(
            "!has(self.hostnames) || has(self.gateway)",
            "hostnames belong to a route that the operator owns: give gateway, not route",
            lambda it: it.hostnames is None or it.gateway is not None,
        ),
        Rule(
            "!has(self.deletionPolicy) || has(self.gateway)",
            "deletionPolicy belongs to a route that the operator owns: give gateway, not route",
            lambda it: it.deletion_policy is None or it.gateway is not None,
        ),
    )
    route: Name | None = None
    """route names an existing HTTPRoute in the rollout's namespace. Only the backendRefs of the two versions in one of its rules are edited."""
    rule: Name | None = None
    """rule is the name of the rule to edit. It may be left out when the HTTPRoute has a single rule."""
    gateway: GatewayReference | None = None
    """gateway makes the operator own an HTTPRoute of the rollout's name, attached to this Gateway."""
    hostnames: (
        Annotated[
            tuple[Hostname, ...],
            Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
        ]
        | None
    ) = None
    """hostnames of the route that the operator owns."""
    deletion_policy: DeletionPolicy | None = None
    """deletionPolicy says whether the route that the operator owns stays (Keep, the default) or goes (Delete) with the ModelRollout."""


class Traffic(ApiModel):
    """How users' requests reach the two versions."""

    gateway_api: Annotated[GatewayAPI, Field(alias="gatewayAPI")]
    """gatewayAPI moves traffic through a Gateway API HTTPRoute."""


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
            lambda it: _given(it.weight, it.pause_seconds) == 1,
        ),
        Rule(
            "has(self.weight) || !(has(self.minRequests) || has(self.minSeconds) || has(self.maxSeconds) || has(self.gate))",
            "minRequests, minSeconds, maxSeconds and gate belong to a weight step",
            lambda it: (
                it.weight is not None
                or not _given(it.min_requests, it.min_seconds, it.max_seconds, it.gate)
            ),
        ),
        Rule(
            "!has(self.weight) || self.weight != 100 || !(has(self.minRequests) || has(self.maxSeconds) || has(self.gate))",
            "minRequests, maxSeconds and gate do not apply at weight 100: stable gets no requests any more that the candidate could be compared with",
            lambda it: (
                it.weight != FULL_WEIGHT or not _given(it.min_requests, it.max_seconds, it.gate)
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
            Field(
                min_length=1, max_length=30, json_schema_extra={"x-kubernetes-list-type": "atomic"}
            ),
        ]
        | None
    ) = None
    """steps replace the default list. A last step of weight 100 is added when it is missing."""
    bake: Bake = Bake(seconds=300)
    """bake is the time at 100 % before promotion."""


class LabelOperator(StrEnum):
    """How a label's value is compared."""

    EQUAL = "="
    NOT_EQUAL = "!="
    MATCHES = "=~"
    NOT_MATCHES = "!~"


class LabelMatcher(ApiModel):
    """One condition on a label of a metric."""

    label: LabelName
    """label is the label's name."""
    operator: LabelOperator = LabelOperator.EQUAL
    """operator compares as in PromQL."""
    value: Text
    """value to compare with."""


class MetricSelector(ApiModel):
    """The series of one metric. It is never free PromQL, so that raw counts can be read."""

    metric: MetricName
    """metric is the metric's full name; of a histogram, the name without _bucket."""
    matchers: Annotated[
        tuple[LabelMatcher, ...],
        Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
    ] = ()
    """matchers narrow the series down."""


class Proportion(ApiModel):
    """A share of requests: errors, wrong answers, abstentions."""

    events: MetricSelector
    """events is the counter of the requests with the event."""
    total: MetricSelector
    """total is the counter of all requests."""


class EventRate(ApiModel):
    """Events per second of a pod's life: restarts, out-of-memory kills, timeouts."""

    events: MetricSelector
    """events is the counter of the events."""


class Mean(ApiModel):
    """The average of a value: a score, tokens per answer, a price."""

    sum: MetricSelector
    """sum is the counter that grows by the values; none of them is negative."""
    count: MetricSelector
    """count is the counter of the values."""
    max: Decimal | None = None
    """max is the largest value there can be. With it the comparison is exact at any number of requests; without it, it begins after 30 windows."""


class Slices(ApiModel):
    """Groups of requests that are also watched one by one."""

    label: LabelName
    """label of the metric whose values are the slices, for example country."""
    top: Annotated[int, Field(ge=1, le=20)] = 10
    """top is how many slices are watched: those with most requests when the evidence begins."""


class Distribution(ApiModel):
    """A Prometheus histogram, compared at several thresholds of its tail, or at one quantile."""

    rules = (
        Rule(
            "!has(self.quantile) || !has(self.limits) || self.limits.size() == 0",
            "limits are thresholds of the whole tail: leave them out, or leave quantile out",
            lambda it: it.quantile is None or not it.limits,
        ),
    )

    histogram: MetricSelector
    """histogram is the metric, without _bucket."""
    limits: Annotated[
        tuple[Decimal, ...],
        Field(max_length=4, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
    ] = ()
    """limits are bucket bounds that matter to you (an SLO), in the histogram's unit; they are compared in any case."""
    quantile: Rate | None = None
    """quantile compares the versions at this quantile alone, for example 0.99; tolerance and margin then speak of its value (ratio 1.1: at most 1.1 times as slow), as finely as the buckets allow."""


class Limit(ApiModel):
    """A plain threshold on a PromQL expression: no comparison, no statistics."""

    rules = (
        Rule(
            "has(self.max) != has(self.min)",
            "give exactly one of max and min",
            lambda it: _given(it.max, it.min) == 1,
        ),
    )
    query: Annotated[str, Field(min_length=1, max_length=2048)]
    """query is a PromQL expression with one result. Every selector in it must have the matcher namespace="<the rollout's namespace>"."""
    max: Decimal | None = None
    """max is the highest value that is not a failure."""
    min: Decimal | None = None
    """min is the lowest value that is not a failure."""
    for_seconds: Annotated[int, Field(ge=0, le=DAY_SECONDS)] = 30
    """forSeconds is how long the value must stay beyond the limit before it fails."""


class Difference(ApiModel):
    """A difference between the versions: candidate against ratio times stable plus absolute."""

    rules = (
        Rule(
            "has(self.ratio) || has(self.absolute)",
            "give a ratio, an absolute, or both",
            lambda it: _given(it.ratio, it.absolute) > 0,
        ),
        Rule(
            "!has(self.ratio) || !self.ratio.startsWith('0')",
            "ratio must be at least 1",
            lambda it: it.ratio is None or float(it.ratio) >= 1,
        ),
    )
    ratio: Decimal | None = None
    """ratio multiplies stable's rate; 1.5 allows half as much again."""
    absolute: Decimal | None = None
    """absolute is added to stable's rate; 0.005 allows half a percentage point."""

    def numbers(self) -> tuple[float, float]:
        """Ratio and absolute part as numbers; what is not given does not change the rate."""
        return float(self.ratio or 1), float(self.absolute or 0)


class Direction(StrEnum):
    """Which way is worse."""

    HIGHER = "HigherIsWorse"
    LOWER = "LowerIsWorse"


class Preset(StrEnum):
    """Guardrails whose metric names are known."""

    ENVOY_ERRORS = "envoy/errors"
    ENVOY_LATENCY = "envoy/latency"
    MLSERVER_ERRORS = "mlserver/errors"
    MLSERVER_LATENCY = "mlserver/latency"


def _sources(guardrail: Guardrail) -> int:
    return _given(
        guardrail.preset,
        guardrail.proportion,
        guardrail.rate,
        guardrail.distribution,
        guardrail.mean,
        guardrail.limit,
    )


def _comparative(guardrail: Guardrail) -> tuple[object, ...]:
    """What only a comparison of the versions can use."""
    return (
        guardrail.tolerance,
        guardrail.margin,
        guardrail.direction,
        guardrail.version_label,
        guardrail.slices,
        guardrail.weight,
        guardrail.delay_seconds,
    )


def _cel_number(path: str, default: str) -> str:
    return f"(has({path}) ? double({path}) : {default})"


def _cel_margin_covers_tolerance() -> str:
    parts = [("ratio", "1.0"), ("absolute", "0.0")]
    covers = " && ".join(
        f"{_cel_number(f'self.margin.{part}', default)} >= {_cel_number(f'self.tolerance.{part}', default)}"
        for part, default in parts
    )
    # That a number is malformed is said by a rule of its own.
    paths = [f"self.{side}.{part}" for part, _ in parts for side in ("margin", "tolerance")]
    malformed = ", ".join(f"has({path}) && !{path}.matches(r'{DECIMAL_FORM}')" for path in paths)
    return f"!has(self.tolerance) || !has(self.margin) || [{malformed}].exists(x, x) || ({covers})"


def _margin_covers_tolerance(guardrail: Guardrail) -> bool:
    if guardrail.margin is None or guardrail.tolerance is None:
        return True
    margin, tolerance = guardrail.margin.numbers(), guardrail.tolerance.numbers()
    return margin[0] >= tolerance[0] and margin[1] >= tolerance[1]


class Guardrail(ApiModel):
    """One metric that must not get worse."""

    rules = (
        Rule(
            "[has(self.preset), has(self.proportion), has(self.rate), has(self.distribution), has(self.mean), has(self.limit)].filter(x, x).size() == 1",
            "give exactly one of preset, proportion, rate, distribution, mean and limit",
            lambda it: _sources(it) == 1,
        ),
        Rule(
            "!has(self.limit) || !(has(self.tolerance) || has(self.margin) || has(self.direction) || has(self.versionLabel) || has(self.slices) || has(self.weight) || has(self.delaySeconds))",
            "a limit is a plain threshold: tolerance, margin, direction, versionLabel, slices, weight and delaySeconds do not apply",
            lambda it: it.limit is None or not _given(*_comparative(it)),
        ),
        Rule(
            "!has(self.rate) || !has(self.slices)",
            "slices need requests to share out: a rate counts events over the life of a pod",
            lambda it: it.rate is None or it.slices is None,
        ),
        Rule(
            "!has(self.weight) || !self.weight.matches(r'^[0.]*$')",
            "weight must be above 0: a guardrail without a share of the error budget can never fail",
            lambda it: it.weight is None or float(it.weight) > 0,
        ),
        Rule(
            "!has(self.direction) || !has(self.distribution) || !has(self.distribution.quantile) || self.direction == 'HigherIsWorse'",
            "a quantile is compared upwards: leave direction out",
            lambda it: (
                it.distribution is None
                or it.distribution.quantile is None
                or it.direction is not Direction.LOWER
            ),
        ),
        Rule(
            _cel_margin_covers_tolerance(),
            "margin must not be below tolerance, neither in ratio (1 if left out) nor in absolute (0 if left out): what is tolerated cannot be asked to be excluded",
            _margin_covers_tolerance,
        ),
        Rule(
            "!has(self.margin) || (has(self.margin.ratio) && !self.margin.ratio.matches(r'^1([.]0+)?$')) || (has(self.margin.absolute) && !self.margin.absolute.matches(r'^0([.]0+)?$'))",
            "margin must leave some room, by a ratio above 1 or an absolute above 0: that two versions are exactly equal cannot be proved",
            lambda it: it.margin is None or it.margin.numbers() != (1, 0),
        ),
        Rule(
            "!has(self.versionLabel) || !has(self.preset) || !self.preset.startsWith('envoy/')",
            "the envoy presets tell the versions apart by the route: leave versionLabel out",
            lambda it: (
                it.version_label is None or it.preset is None or not it.preset.startswith("envoy/")
            ),
        ),
    )
    name: Annotated[str, _matching(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", 63, GUARDRAIL_NAME)]
    """name of the guardrail, unique in the list."""
    preset: Preset | None = None
    """preset is a guardrail whose metrics are known."""
    proportion: Proportion | None = None
    """proportion compares a share of requests."""
    rate: EventRate | None = None
    """rate compares events per pod-second."""
    distribution: Distribution | None = None
    """distribution compares the tails of a histogram."""
    mean: Mean | None = None
    """mean compares averages."""
    limit: Limit | None = None
    """limit is a plain threshold on a PromQL expression."""
    slices: Slices | None = None
    """slices are groups of requests that are watched one by one, too: a version that fails one of them fails."""
    direction: Direction | None = None
    """direction says which way is worse. It defaults to HigherIsWorse."""
    tolerance: Difference | None = None
    """tolerance is the difference that is not worth a rollback."""
    margin: Difference | None = None
    """margin is the difference that must be excluded before the next step."""
    version_label: LabelName | None = None
    """versionLabel is the label whose value tells the versions apart: the model's version where it is given, else the Deployment's name. Without it, samples belong to a version by their pod label."""
    required: bool = True
    """required guardrails must pass before the next step; others can only fail."""
    weight: Decimal | None = None
    """weight is the guardrail's share of falseRollbackRate, relative to the others'. It defaults to 1; a larger share is found out sooner."""
    delay_seconds: Annotated[int, Field(ge=1, le=30 * DAY_SECONDS)] | None = None
    """delaySeconds is how long after a request its event is known (a label, a click). In each step only what comes later than this can prove the guardrail."""


class OnInconclusive(StrEnum):
    """What to do when a step's maxSeconds pass without proof either way."""

    PAUSE = "Pause"
    ROLLBACK = "Rollback"
    PROMOTE = "Promote"


class OnNoData(StrEnum):
    """What to do when the metrics stay away."""

    HOLD = "Hold"
    PAUSE = "Pause"
    ROLLBACK = "Rollback"


class Analysis(ApiModel):
    """What is measured, and how sure the operator must be."""

    rules = (
        Rule(
            "self.guardrails.exists(g, !has(g.required) || g.required)",
            "at least one guardrail must be required, or nothing would ever have to be proved",
            lambda it: any(g.required for g in it.guardrails),
        ),
        Rule(
            "self.guardrails.all(g, self.guardrails.exists_one(h, h.name == g.name))",
            "two guardrails have the same name",
            lambda it: len({g.name for g in it.guardrails}) == len(it.guardrails),
        ),
    )
    guardrails: Annotated[
        tuple[Guardrail, ...],
        Field(
            min_length=1,
            max_length=16,
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
            },
        ),
    ]
    """guardrails are the metrics that must not get worse."""
    false_rollback_rate: Rate = "0.01"
    """falseRollbackRate bounds the chance that a rollout of an equally good candidate is rolled back, however long it runs."""
    false_promote_rate: Rate = "0.05"
    """falsePromoteRate bounds the chance that a step passes a candidate that is worse than a margin."""
    interval_seconds: Annotated[int, Field(ge=1, le=3600)] = 5
    """intervalSeconds is the length of a window of evidence and the time between two looks. Not less than the scrape interval."""
    on_inconclusive: OnInconclusive = OnInconclusive.PAUSE
    """onInconclusive decides when a step's maxSeconds are over without proof."""
    on_no_data: OnNoData = OnNoData.PAUSE
    """onNoData decides when metrics were unreadable for noDataTimeoutSeconds. Until then the rollout holds."""
    no_data_timeout_seconds: Annotated[int, Field(ge=1, le=30 * DAY_SECONDS)] = 600
    """noDataTimeoutSeconds is how long missing metrics only hold the rollout."""
    provider: Name = "default"
    """provider names a Prometheus that the administrator configured."""


class ModelRolloutSpec(ApiModel):
    """What the user wants: this candidate, reached safely."""

    rules = (
        # The same Deployment may be both: after a promotion that is how one goes back.
        Rule(
            "self.candidate.deployment == self.stable.deployment || (has(self.candidate.service) ? self.candidate.service : self.candidate.deployment) != (has(self.stable.service) ? self.stable.service : self.stable.deployment)",
            "candidate and stable name the same Service: each version needs a Service of its own",
            lambda it: (
                it.candidate.deployment == it.stable.deployment
                or service_of(it.candidate) != service_of(it.stable)
            ),
        ),
    )
    candidate: Version
    """candidate is the version you want. Changing it starts a rollout."""
    stable: Version
    """stable is the version users have now. It is used only until the operator has promoted something itself."""
    port: Annotated[int, Field(ge=1, le=65535)]
    """port of the versions' Services."""
    traffic: Traffic
    """traffic says how requests reach the versions."""
    strategy: Strategy = Strategy()
    """strategy is the list of steps."""
    analysis: Analysis
    """analysis says what is measured and how sure the operator must be."""
    paused: bool = False
    """paused holds the rollout where it is; guardrails stay armed."""


def service_of(version: Version) -> str:
    """The Service in front of a version: the one named, else the Deployment's namesake."""
    return version.service or version.deployment


# --- status -------------------------------------------------------------------------------


class Phase(StrEnum):
    """For people. Nothing reads it: conditions are the interface."""

    PENDING = "Pending"
    PREPARING = "Preparing"
    PROGRESSING = "Progressing"
    PAUSED = "Paused"
    BAKING = "Baking"
    PROMOTED = "Promoted"
    ROLLING_BACK = "RollingBack"
    ROLLED_BACK = "RolledBack"
    STALLED = "Stalled"


class Verdict(StrEnum):
    """What the evidence says of one guardrail, or of all."""

    PASS = "Pass"  # noqa: S105  # a verdict, not a password
    FAIL = "Fail"
    INCONCLUSIVE = "Inconclusive"
    NO_DATA = "NoData"


class VersionStatus(ApiModel):
    """One version as the operator knows it."""

    deployment: Name
    """deployment that serves it."""
    service: Name
    """service in front of it."""
    revision: Text
    """revision is the hash of pod template and model identity."""
    model_version: Text | None = None
    """modelVersion as given in the spec."""


class WeightStatus(ApiModel):
    """The candidate's percentage of requests."""

    wanted: Annotated[int, Field(ge=0, le=FULL_WEIGHT)] = 0
    """wanted is the weight that the operator decided on."""
    accepted: Annotated[int, Field(ge=0, le=FULL_WEIGHT)] | None = None
    """accepted is the weight that the gateway last confirmed."""


class Estimate(ApiModel):
    """One version's figures over the present step, for people."""

    requests: Annotated[int, Field(ge=0)] = 0
    """requests counted."""
    value: Annotated[str, Field(max_length=32)] | None = None
    """value is the rate of events among them."""


class SliceStatus(ApiModel):
    """What is known of one slice of a guardrail."""

    name: Text
    """name is the value of the slices' label."""
    harm: Annotated[str, Field(max_length=16)]
    """harm is the evidence that the candidate is worse in this slice, as a share of what names it."""
    stable: Estimate
    """stable version's figures in this step."""
    candidate: Estimate
    """candidate version's figures in this step."""


class GuardrailStatus(ApiModel):
    """What is known of one guardrail."""

    name: Text
    """name of the guardrail."""
    verdict: Verdict
    """verdict of this guardrail."""
    message: Sentence = ""
    """message is the verdict in a sentence with numbers."""
    stable: Estimate | None = None
    """stable version's figures in this step."""
    candidate: Estimate | None = None
    """candidate version's figures in this step."""
    harm: Annotated[str, Field(max_length=16)] | None = None
    """harm is the evidence that the candidate is worse, as a share of what a rollback needs (1 decides)."""
    safety: Annotated[str, Field(max_length=16)] | None = None
    """safety is the evidence that the candidate is within its margin, as a share of what the next step needs (1 decides)."""
    placebo: Annotated[str, Field(max_length=16)] | None = None
    """placebo is the evidence that one half of stable's pods is worse than the other, as a share of what makes the guardrail untrusted (1 decides)."""
    slices: Annotated[
        tuple[SliceStatus, ...],
        Field(max_length=20, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
    ] = ()
    """slices one by one, the worst first."""


class Rejection(ApiModel):
    """A candidate that lost. It is not tried again until it changes or a retry is asked for."""

    deployment: Name
    """deployment of the rejected version."""
    service: Name
    """service of the rejected version."""
    revision: Text
    """revision that was rejected."""
    cause: Text
    """cause is the reason in one word."""
    message: Sentence
    """message is the reason in a sentence."""
    time: Time
    """time of the decision."""


class PauseStatus(ApiModel):
    """Why the rollout waits for a human."""

    cause: Text
    """cause is Command, Inconclusive or NoData."""
    message: Sentence
    """message says who or what paused it and how to go on."""
    time: Time
    """time when it was paused."""


class HistoryEntry(ApiModel):
    """Something that was decided."""

    time: Time
    """time of the decision."""
    what: Text
    """what happened, in one word."""
    deployment: Name
    """deployment that it happened to."""
    revision: Text
    """revision that it happened to."""
    message: Sentence
    """message explains it."""


Points = Annotated[tuple[float, ...], Field(max_length=64)]


class Counted(StrEnum):
    """Which outcome the evidence is made of."""

    EVENTS = "Events"
    OTHERS = "Others"


class SliceCheckpoint(ApiModel):
    """The evidence of one slice."""

    name: Text
    """name is the value of the slices' label."""
    harm: Annotated[tuple[Points, ...], Field(max_length=8)] = ()
    """harm evidence, as of the guardrail."""
    stable: Annotated[tuple[float, ...], Field(max_length=9)] = ()
    """stable version's exposure and events in this step."""
    candidate: Annotated[tuple[float, ...], Field(max_length=9)] = ()
    """candidate version's exposure and events in this step."""


class GuardrailCheckpoint(ApiModel):
    """The evidence of one guardrail, as compact as it can be resumed from."""

    name: Text
    """name of the guardrail."""
    key: Text
    """key is a digest of what the evidence was collected with; other settings start anew."""
    watermark: float = 0
    """watermark is the end of the last window that was counted, in Unix seconds."""
    thresholds: Annotated[tuple[float, ...], Field(max_length=8)] = ()
    """thresholds of a distribution."""
    gated: Annotated[tuple[float, ...], Field(max_length=8)] = ()
    """gated are the thresholds that must be proved safe."""
    thinning: float | None = None
    """thinning is, where a quantile is compared, how many times fewer of stable's answers lie beyond the margin's threshold than beyond stable's own."""
    harm: Annotated[tuple[Points, ...], Field(max_length=8)] = ()
    """harm evidence: log e per threshold and mixture point."""
    safety: Annotated[tuple[Points, ...], Field(max_length=8)] = ()
    """safety evidence of this step."""
    stable: Annotated[tuple[float, ...], Field(max_length=9)] = ()
    """stable version's exposure and events in this step."""
    candidate: Annotated[tuple[float, ...], Field(max_length=9)] = ()
    """candidate version's exposure and events in this step."""
    windows: Annotated[int, Field(ge=0)] = 0
    """windows counted in this step."""
    dispersion: Annotated[tuple[float, ...], Field(max_length=8)] = ()
    """dispersion is the factor by which events come in bursts, per threshold; empty until stable's history was read."""
    counted: Counted = Counted.EVENTS
    """counted is the rarer outcome: the events, or all other requests."""
    placebo: Annotated[tuple[Points, ...], Field(max_length=16)] = ()
    """placebo is the harm evidence between two halves of stable's pods, both ways."""
    slices: Annotated[
        tuple[SliceCheckpoint, ...],
        Field(
            max_length=20,
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
            },
        ),
    ] = ()
    """slices and their evidence."""
    beyond_since: float | None = None
    """beyondSince is since when a limit has been exceeded, in Unix seconds."""


class SplitStatus(ApiModel):
    """Whether requests reach the versions in the shares that were asked for."""

    stable: Annotated[int, Field(ge=0)] = 0
    """stable version's requests at this step's weight."""
    candidate: Annotated[int, Field(ge=0)] = 0
    """candidate version's requests at this step's weight."""
    earlier: Annotated[str, Field(max_length=32)] = "0"
    """earlier is the evidence of a mismatch in the steps before, as log e."""
    mismatch_time: Time | None = None
    """mismatchTime is when it was proved that they do not; it stays until the next candidate."""


class ConditionStatus(StrEnum):
    """The three values of a condition."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(ApiModel):
    """A metav1.Condition."""

    type: Annotated[str, Field(max_length=316)]
    """type of the condition."""
    status: ConditionStatus
    """status is True, False or Unknown."""
    observed_generation: Annotated[int, Field(ge=0)]
    """observedGeneration is the generation of the spec that the condition speaks of."""
    last_transition_time: Time
    """lastTransitionTime is when status last changed."""
    reason: Annotated[str, Field(max_length=1024, min_length=1)]
    """reason in one CamelCase word."""
    message: Annotated[str, Field(max_length=4096)] = ""
    """message for people."""


class ModelRolloutStatus(ApiModel):
    """What the operator knows and intends. Facts first; phase and reason are for people."""

    observed_generation: Annotated[int, Field(ge=0)] = 0
    """observedGeneration is the generation of the spec that this status speaks of."""
    phase: Phase = Phase.PENDING
    """phase sums it up for people. Use conditions in programs."""
    reason: Sentence = ""
    """reason is what happens and why, in one sentence with numbers."""
    stable: VersionStatus | None = None
    """stable is the version that users have."""
    candidate: VersionStatus | None = None
    """candidate is the version on trial, while it is on trial."""
    previous: VersionStatus | None = None
    """previous is the version that stable replaced."""
    rejected: Rejection | None = None
    """rejected is the candidate that lost last."""
    retired: Annotated[
        tuple[ServiceName, ...],
        Field(max_length=20, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
    ] = ()
    """retired are Services that the operator took off the route; it keeps them off."""
    step: Annotated[int, Field(ge=0)] | None = None
    """step is the index of the present step, from 0; absent before the first."""
    steps: Annotated[int, Field(ge=0)] | None = None
    """steps is how many there are, the bake included."""
    step_text: Text | None = None
    """stepText is the step for people: 2/6."""
    step_start_time: Time | None = None
    """stepStartTime is when the gateway had accepted this step's weight."""
    step_deadline_time: Time | None = None
    """stepDeadlineTime is when analysis.onInconclusive decides."""
    weight: WeightStatus = WeightStatus()
    """weight of the candidate."""
    verdict: Verdict | None = None
    """verdict over all required guardrails in this step."""
    requests: Annotated[int, Field(ge=0)] | None = None
    """requests that the candidate answered in this step."""
    no_data_since_time: Time | None = None
    """noDataSinceTime is since when metrics have been unreadable."""
    pause: PauseStatus | None = None
    """pause is set while the rollout waits for a human."""
    guardrails: Annotated[
        tuple[GuardrailStatus, ...],
        Field(
            max_length=16,
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
            },
        ),
    ] = ()
    """guardrails one by one."""
    warnings: Annotated[
        tuple[Sentence, ...],
        Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
    ] = ()
    """warnings say, before the first step, what these settings and this traffic cannot decide."""
    split: SplitStatus | None = None
    """split compares the shares of requests with the weights; absent where no guardrail counts at the gateway."""
    history: Annotated[
        tuple[HistoryEntry, ...],
        Field(max_length=20, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
    ] = ()
    """history of decisions, the newest first."""
    checkpoint: Annotated[
        tuple[GuardrailCheckpoint, ...],
        Field(
            max_length=16,
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
            },
        ),
    ] = ()
    """checkpoint is the evidence to resume from."""
    conditions: Annotated[
        tuple[Condition, ...],
        Field(
            max_length=16,
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
            },
        ),
    ] = ()
    """conditions: Ready, Reconciling, Stalled, Accepted, Progressing, Healthy, Promoted, RouteSynced."""
