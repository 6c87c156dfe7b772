"""A ModelRollout and what a pass sees of the world around it: whole by default, changed by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from modelrollout.api import v1alpha1 as api
from modelrollout.core.evidence import (
    Counts,
    Kind,
    Matcher,
    Measure,
    Query,
    Reading,
    Selector,
    Window,
)
from modelrollout.core.measures import measures_of
from modelrollout.core.observation import Command, Observation, Rollout, Route, Verb, Workload

NOW = 1_800_000_000.0
ERRORS = {
    "name": "errors",
    "proportion": {
        "events": {
            "metric": "model_requests_total",
            "matchers": [{"label": "code", "value": "500"}],
        },
        "total": {"metric": "model_requests_total"},
    },
    "tolerance": {"ratio": "1.5"},
    "margin": {"ratio": "2", "absolute": "0.01"},
}


def a_spec(**changes: Any) -> dict[str, Any]:
    """A spec as a user writes it."""
    spec: dict[str, Any] = {
        "candidate": {"deployment": "ranker-v2"},
        "stable": {"deployment": "ranker-v1"},
        "port": 8080,
        "traffic": {"gatewayAPI": {"route": "ranker"}},
        "strategy": {
            "steps": [{"weight": 10, "minRequests": 10}, {"weight": 50, "minRequests": 10}],
            "bake": {"seconds": 10},
        },
        "analysis": {"guardrails": [ERRORS], "intervalSeconds": 5},
    }
    return spec | changes


def a_rollout(
    status: api.ModelRolloutStatus | None = None,
    *,
    command: str | None = None,
    deleting: bool = False,
    finalizer: bool = False,
    **spec: Any,
) -> Rollout:
    """The ModelRollout as read."""
    verb = Verb(command) if command in set(Verb) else None
    return Rollout(
        namespace="shop",
        name="ranker",
        uid="u-1",
        generation=1,
        spec=api.ModelRolloutSpec.model_validate(a_spec(**spec)),
        spec_error="",
        status=status or api.ModelRolloutStatus(),
        has_finalizer=finalizer,
        is_deleting=deleting,
        command=Command(text=command, by="ada", verb=verb) if command else None,
    )


def a_workload(deployment: str, revision: str = "r1", **changes: Any) -> Workload:
    """A version with two ready pods."""
    version = api.VersionStatus(deployment=deployment, service=deployment, revision=revision)
    ready = Workload(
        version=version,
        desired=2,
        available=2,
        endpoints=2,
        replica_sets=(f"{deployment}-abc",),
    )
    return replace(ready, **changes)


def an_observation(now: float = NOW, **changes: Any) -> Observation:
    """Both versions ready, the route as intended and accepted, no metrics asked for."""
    seen = Observation(
        now=now,
        stable=a_workload("ranker-v1", "s1"),
        candidate=a_workload("ranker-v2", "c1"),
        route=Route(in_sync=True, accepted=True),
    )
    return replace(seen, **changes)


def the_measures(rollout: Rollout, seen: Observation) -> tuple[Measure, ...]:
    """The guardrails as observe would ask for them."""
    assert rollout.spec is not None
    assert seen.stable is not None
    assert seen.candidate is not None
    return measures_of(
        rollout.spec.analysis, rollout.namespace, rollout.name, seen.stable, seen.candidate, None
    )


def windows(
    start: float, count: int, stable: tuple[float, float], candidate: tuple[float, float]
) -> tuple[Window, ...]:
    """Windows of five seconds that all hold the same (requests, events) per version."""
    return tuple(
        Window(
            start=start + 5 * index,
            end=start + 5 * (index + 1),
            stable=Counts(n=stable[0], k=(stable[1],)),
            candidate=Counts(n=candidate[0], k=(candidate[1],)),
        )
        for index in range(count)
    )


def a_reading(given: tuple[Window, ...], watermark: float | None = None) -> Reading:
    """Windows as read; an empty reading needs its watermark."""
    return Reading(windows=given, watermark=given[-1].end if given else watermark or NOW)


def a_query(kind: Kind = Kind.PROPORTION, **changes: Any) -> Query:
    """A question about two pods' counters."""
    query = Query(
        name="errors",
        kind=kind,
        total=Selector(metric="requests_total") if kind is Kind.PROPORTION else None,
        events=Selector(metric="errors_total"),
        stable=(Matcher(label="version", value="v1"),),
        candidate=(Matcher(label="version", value="v2"),),
    )
    return replace(query, **changes)
