"""A guardrail as something to measure: which counters, which bounds, which evidence to resume."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from modelrollout.api import presets
from modelrollout.api import v1alpha1 as api
from modelrollout.core.evidence import Kind, Matcher, Measure, Query, Selector, Split, Where
from modelrollout.core.observation import Workload
from modelrollout.stats.bounds import Bound

METHOD = "counts/3"
"""Names the mathematics of a checkpoint. Evidence of another method is not carried on."""


def measures_of(
    analysis: api.Analysis,
    namespace: str,
    rollout: str,
    stable: Workload,
    candidate: Workload,
    route_split: Split | None,
) -> tuple[Measure, ...]:
    """The guardrails that compare the versions; limits are not among them."""
    return tuple(
        _measure(each, _split(each, namespace, rollout, stable, candidate, route_split))
        for each in analysis.guardrails
        if each.limit is None
    )


def measures_anywhere(analysis: api.Analysis) -> tuple[Measure, ...]:
    """The guardrails with their defaults, where it does not matter which series they read."""
    nobody = Workload(
        version=api.VersionStatus(deployment="any", service="any", revision="any"),
        desired=0,
        available=0,
        endpoints=0,
        replica_sets=(),
    )
    return measures_of(analysis, "any", "any", nobody, nobody, None)


@lru_cache(maxsize=4096)
def _measure(given: api.Guardrail, split: Split) -> Measure:
    """The same in every pass, as long as spec and pods are."""
    guardrail = presets.expanded(given)
    assert guardrail.tolerance is not None
    assert guardrail.margin is not None
    kind, events, total = _counted(guardrail)
    distribution, mean, slices = guardrail.distribution, guardrail.mean, guardrail.slices
    return Measure(
        name=guardrail.name,
        query=Query(
            name=guardrail.name,
            kind=kind,
            events=events,
            total=total,
            stable=split.stable,
            candidate=split.candidate,
            slice_label=slices.label if slices else "",
        ),
        tolerance=Bound(*guardrail.tolerance.numbers()),
        margin=Bound(*guardrail.margin.numbers()),
        lower_is_worse=guardrail.direction is api.Direction.LOWER,
        required=guardrail.required,
        weight=float(guardrail.weight or 1),
        delay_seconds=float(guardrail.delay_seconds or 0),
        limits=tuple(float(each) for each in distribution.limits) if distribution else (),
        quantile=float(distribution.quantile) if distribution and distribution.quantile else None,
        largest=float(mean.max) if mean and mean.max else None,
        slices=slices.top if slices else 0,
        where=_where(guardrail),
        key=_key(guardrail),
    )


def coverage_query(namespace: str, rollout: str, seconds: float) -> str:
    """
    PromQL of the share of copied requests whose answers were compared, over the last seconds.

    What was not repeated on purpose (budget, back-pressure, other paths) is not missing. Names of
    objects have no quotes or backslashes in them.
    """
    of = f'{{namespace="{namespace}",rollout="{rollout}"}}[{max(1, math.ceil(seconds))}s]'
    received, skipped, pairs = (
        f"sum(increase(modelrollout_comparator_{each}_total{of}))"
        for each in ("received", "skipped", "pairs")
    )
    return f"{pairs} / ({received} - {skipped})"


def cohort_query(analysis: api.Analysis, split: Split | None) -> Query | None:
    """The cohort's requests and errors; None unless a guardrail counts those of others at the gateway."""
    if split is None or not split.cohort:
        return None
    for each in analysis.guardrails:
        if each.preset is api.Preset.ENVOY_ERRORS:
            query = _measure(each, split).query
            return replace(query, name="cohort", stable=split.cohort, candidate=split.cohort)
    return None


def warmup_query(measures: Sequence[Measure], *, is_mirror: bool) -> Query | None:
    """Of the first guardrail that counts requests in this step; None where none does."""
    silent = Where.ROUTE if is_mirror else Where.COMPARATOR
    for each in measures:
        counts = each.query.total is not None and not each.delay_seconds
        if counts and each.where is not silent:
            return replace(each.query, slice_label="")
    return None


def can_count(analysis: api.Analysis, *, is_mirror: bool) -> bool:
    """Whether a guardrail counts requests in a mirror step, or in one at a weight."""
    nobody = Split(stable=(), candidate=())
    measures = [_measure(each, nobody) for each in analysis.guardrails if each.limit is None]
    return warmup_query(measures, is_mirror=is_mirror) is not None


def users_query(
    given: api.UserCounter, namespace: str, stable: Workload, candidate: Workload
) -> Query:
    """How many users each version got."""
    counter = Selector(metric=given.metric, matchers=_matchers(given.matchers))
    one, other = (
        _by_pod(namespace, each)
        if given.version_label is None
        else _by_label(given.version_label, namespace, each)
        for each in (stable, candidate)
    )
    return Query(
        name="users",
        kind=Kind.PROPORTION,
        total=counter,
        events=counter,
        stable=one,
        candidate=other,
    )


def _where(guardrail: api.Guardrail) -> Where:
    if guardrail.preset in presets.SPLIT_BY_ROUTE:
        return Where.ROUTE
    return Where.COMPARATOR if guardrail.preset in presets.SPLIT_BY_COMPARATOR else Where.PODS


def _counted(guardrail: api.Guardrail) -> tuple[Kind, Selector, Selector | None]:
    """What is counted: its kind, its events and, where they are counted apart, its exposure."""
    if guardrail.proportion is not None:
        given = guardrail.proportion
        is_paired = guardrail.preset is api.Preset.COMPARATOR_FLIPS
        kind = Kind.PAIRED if is_paired else Kind.PROPORTION
        return kind, _selector(given.events), _selector(given.total)
    if guardrail.mean is not None:
        return Kind.MEAN, _selector(guardrail.mean.sum), _selector(guardrail.mean.count)
    if guardrail.rate is not None:
        return Kind.RATE, _selector(guardrail.rate.events), None
    assert guardrail.distribution is not None
    return Kind.DISTRIBUTION, _selector(guardrail.distribution.histogram), None


def _selector(given: api.MetricSelector) -> Selector:
    return Selector(metric=given.metric, matchers=_matchers(given.matchers))


def _matchers(given: Sequence[api.LabelMatcher]) -> tuple[Matcher, ...]:
    return tuple(
        Matcher(label=each.label, operator=each.operator, value=each.value) for each in given
    )


def _split(
    guardrail: api.Guardrail,
    namespace: str,
    rollout: str,
    stable: Workload,
    candidate: Workload,
    route_split: Split | None,
) -> Split:
    if guardrail.preset in presets.SPLIT_BY_ROUTE and route_split is not None:
        return route_split
    if guardrail.preset in presets.SPLIT_BY_COMPARATOR:
        return Split(
            stable=_by_side("stable", namespace, rollout),
            candidate=_by_side("candidate", namespace, rollout),
        )
    if guardrail.version_label is not None:
        return Split(
            stable=_by_label(guardrail.version_label, namespace, stable),
            candidate=_by_label(guardrail.version_label, namespace, candidate),
        )
    return Split(stable=_by_pod(namespace, stable), candidate=_by_pod(namespace, candidate))


def _by_side(side: str, namespace: str, rollout: str) -> tuple[Matcher, ...]:
    return (
        Matcher(label="namespace", value=namespace),
        Matcher(label="rollout", value=rollout),
        Matcher(label="side", value=side),
    )


def _by_label(label: str, namespace: str, workload: Workload) -> tuple[Matcher, ...]:
    version = workload.version
    return (
        Matcher(label="namespace", value=namespace),
        Matcher(label=label, value=version.model_version or version.deployment),
    )


def _by_pod(namespace: str, workload: Workload) -> tuple[Matcher, ...]:
    """Pods are named after their ReplicaSet, five characters added."""
    names = "|".join(re.escape(each) for each in sorted(workload.replica_sets))
    return (
        Matcher(label="namespace", value=namespace),
        Matcher(
            label="pod", operator=api.LabelOperator.MATCHES, value=f"(?:{names})-[a-z0-9]{{5}}"
        ),
    )


def _key(guardrail: api.Guardrail) -> str:
    settings: Mapping[str, object] = guardrail.to_dict()
    text = json.dumps([METHOD, settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
