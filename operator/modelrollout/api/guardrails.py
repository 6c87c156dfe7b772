"""What is measured, and how sure the operator must be, as a user writes it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from modelrollout.api.fields import (
    DAY_SECONDS,
    DECIMAL_FORM,
    GUARDRAIL_NAME,
    ApiModel,
    Decimal,
    LabelName,
    MetricName,
    Name,
    Rate,
    Rule,
    Text,
    atomic,
    given,
    keyed,
    matching,
)


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
        atomic(16),
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
        atomic(4),
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
            lambda it: given(it.max, it.min) == 1,
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
            lambda it: given(it.ratio, it.absolute) > 0,
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
    COMPARATOR_FLIPS = "comparator/flips"
    COMPARATOR_ERRORS = "comparator/errors"
    COMPARATOR_LATENCY = "comparator/latency"
    COMPARATOR_ACCURACY = "comparator/accuracy"


def _sources(guardrail: Guardrail) -> int:
    return given(
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


def _beyond_flips(guardrail: Guardrail) -> int:
    tolerance, margin = guardrail.tolerance, guardrail.margin
    return given(
        tolerance and tolerance.ratio,
        margin and margin.ratio,
        guardrail.direction,
        guardrail.slices,
    )


def _are_shares(guardrail: Guardrail) -> bool:
    given = (guardrail.tolerance, guardrail.margin)
    return all(each is None or each.numbers()[1] < 1 for each in given)


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
            lambda it: it.limit is None or not given(*_comparative(it)),
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
            "!has(self.versionLabel) || !has(self.preset) || self.preset.startsWith('mlserver/')",
            "the envoy presets tell the versions apart by the route, the comparator's by the call: leave versionLabel out",
            lambda it: (
                it.version_label is None or it.preset is None or it.preset.startswith("mlserver/")
            ),
        ),
        Rule(
            "!has(self.preset) || self.preset != 'comparator/flips' || !((has(self.tolerance) && has(self.tolerance.ratio)) || (has(self.margin) && has(self.margin.ratio)) || has(self.direction) || has(self.slices))",
            "flips are counted beyond the noise floor, where a ratio has no meaning: give tolerance and margin as absolute, and neither direction nor slices",
            lambda it: it.preset is not Preset.COMPARATOR_FLIPS or not _beyond_flips(it),
        ),
        Rule(
            "!has(self.preset) || self.preset != 'comparator/flips' || ((!has(self.tolerance) || !has(self.tolerance.absolute) || self.tolerance.absolute.startsWith('0')) && (!has(self.margin) || !has(self.margin.absolute) || self.margin.absolute.startsWith('0')))",
            "flips are a share of the requests: tolerance and margin must be below 1, for example absolute: '0.01'",
            lambda it: it.preset is not Preset.COMPARATOR_FLIPS or _are_shares(it),
        ),
    )
    name: Annotated[str, matching(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", 63, GUARDRAIL_NAME)]
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


MOST_SLICES = 30
"""Of all guardrails together: the evidence of each is kept in status, which has to stay small."""


class Analysis(ApiModel):
    """What is measured, and how sure the operator must be."""

    rules = (
        Rule(
            f"self.guardrails.map(g, has(g.slices) ? (has(g.slices.top) ? g.slices.top : 10) : 0).sum() <= {MOST_SLICES}",
            f"all guardrails together may have at most {MOST_SLICES} slices, as their evidence is kept in status: lower slices.top (10 if left out)",
            lambda it: sum(each.slices.top for each in it.guardrails if each.slices) <= MOST_SLICES,
        ),
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
        keyed("name", 16, at_least=1),
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
