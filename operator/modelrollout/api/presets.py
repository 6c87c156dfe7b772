"""
Guardrails whose metric names are known, and the differences that count when none are given.

A preset expands to the proportion or distribution that a user could have written. Names were
read from the running servers: e2e/workloads/README.md says where MLServer's metrics mislead.
"""

from __future__ import annotations

from modelrollout.api.v1alpha1 import (
    Difference,
    Direction,
    Distribution,
    Guardrail,
    LabelMatcher,
    LabelOperator,
    MetricSelector,
    Preset,
    Proportion,
)

INFER_PATH = LabelMatcher(label="path", operator=LabelOperator.MATCHES, value=".*/infer")
"""MLServer counts health checks as requests too; only inferences are compared."""

FLIPS = Proportion(
    events=MetricSelector(metric="modelrollout_comparator_flips_total"),
    total=MetricSelector(metric="modelrollout_comparator_paired_total"),
)
"""Of the mirrored requests that stable answered twice: answers that differ from stable's."""
PROPORTIONS = {
    Preset.ENVOY_ERRORS: Proportion(
        events=MetricSelector(
            metric="envoy_cluster_upstream_rq_xx",
            matchers=(LabelMatcher(label="envoy_response_code_class", value="5"),),
        ),
        total=MetricSelector(metric="envoy_cluster_upstream_rq_xx"),
    ),
    Preset.COMPARATOR_FLIPS: FLIPS,
    Preset.COMPARATOR_ACCURACY: Proportion(
        events=MetricSelector(metric="modelrollout_comparator_wrong_total"),
        total=MetricSelector(metric="modelrollout_comparator_labelled_total"),
    ),
    Preset.COMPARATOR_ERRORS: Proportion(
        events=MetricSelector(metric="modelrollout_comparator_failures_total"),
        total=MetricSelector(metric="modelrollout_comparator_answers_total"),
    ),
    Preset.MLSERVER_ERRORS: Proportion(
        events=MetricSelector(
            metric="rest_server_requests_total",
            matchers=(
                INFER_PATH,
                LabelMatcher(label="status_code", operator=LabelOperator.MATCHES, value="5.."),
            ),
        ),
        total=MetricSelector(metric="rest_server_requests_total", matchers=(INFER_PATH,)),
    ),
}
DISTRIBUTIONS = {
    Preset.ENVOY_LATENCY: Distribution(
        histogram=MetricSelector(metric="envoy_cluster_upstream_rq_time")
    ),
    Preset.COMPARATOR_LATENCY: Distribution(
        histogram=MetricSelector(metric="modelrollout_comparator_answer_seconds")
    ),
    Preset.MLSERVER_LATENCY: Distribution(
        histogram=MetricSelector(
            metric="rest_server_request_duration_seconds", matchers=(INFER_PATH,)
        )
    ),
}
SPLIT_BY_ROUTE = frozenset({Preset.ENVOY_ERRORS, Preset.ENVOY_LATENCY})
"""Measured at the gateway, where the versions differ by backend, not by pod."""
SPLIT_BY_COMPARATOR = frozenset(each for each in Preset if each.startswith("comparator/"))
"""Measured by the comparator, where the versions differ by the side that was asked."""

# What a careful SRE would not wake up for, and what must be excluded before more users see it.
TOLERANCE = Difference(ratio="1.5", absolute="0.001")
MARGIN = Difference(ratio="2", absolute="0.005")
TAIL_TOLERANCE = Difference(ratio="1.5", absolute="0.001")
TAIL_MARGIN = Difference(ratio="2", absolute="0.01")
# Of all requests, beyond what stable differs from itself.
FLIPS_TOLERANCE = Difference(absolute="0.002")
FLIPS_MARGIN = Difference(absolute="0.01")
# Of a value itself: a mean, or a quantile in seconds.
VALUE_TOLERANCE = Difference(ratio="1.1")
VALUE_MARGIN = Difference(ratio="1.25")


def expanded(guardrail: Guardrail) -> Guardrail:
    """The guardrail with its preset spelled out and every default filled in."""
    proportion = guardrail.proportion
    distribution = guardrail.distribution
    if guardrail.preset is not None:
        proportion = PROPORTIONS.get(guardrail.preset)
        distribution = DISTRIBUTIONS.get(guardrail.preset)
    if guardrail.limit is not None:
        return guardrail
    tolerance, margin = _differences(guardrail, is_tail=distribution is not None)
    return guardrail.model_copy(
        update={
            "proportion": proportion,
            "distribution": distribution,
            "direction": guardrail.direction or Direction.HIGHER,
            "tolerance": tolerance,
            "margin": margin,
        }
    )


def _differences(guardrail: Guardrail, *, is_tail: bool) -> tuple[Difference, Difference]:
    """Given differences win; a default is widened so that margin never lies below tolerance."""
    default_tolerance = TAIL_TOLERANCE if is_tail else TOLERANCE
    default_margin = TAIL_MARGIN if is_tail else MARGIN
    is_quantile = guardrail.distribution is not None and guardrail.distribution.quantile is not None
    if guardrail.mean is not None or is_quantile:
        default_tolerance, default_margin = VALUE_TOLERANCE, VALUE_MARGIN
    if guardrail.preset is Preset.COMPARATOR_FLIPS:
        default_tolerance, default_margin = FLIPS_TOLERANCE, FLIPS_MARGIN
    if guardrail.rate is not None:
        default_tolerance, default_margin = Difference(ratio="1.5"), Difference(ratio="2")
    tolerance = guardrail.tolerance
    margin = guardrail.margin
    if tolerance is None:
        tolerance = default_tolerance if margin is None else _smaller(default_tolerance, margin)
    if margin is None:
        margin = _larger(default_margin, tolerance)
    return tolerance, margin


def _smaller(one: Difference, other: Difference) -> Difference:
    (ratio, absolute), (other_ratio, other_absolute) = one.numbers(), other.numbers()
    return _difference(min(ratio, other_ratio), min(absolute, other_absolute))


def _larger(one: Difference, other: Difference) -> Difference:
    (ratio, absolute), (other_ratio, other_absolute) = one.numbers(), other.numbers()
    return _difference(max(ratio, other_ratio), max(absolute, other_absolute))


def _difference(ratio: float, absolute: float) -> Difference:
    return Difference(ratio=f"{ratio:.12g}", absolute=f"{absolute:.12f}".rstrip("0").rstrip("."))
