"""
Whatever a manifest, its annotations or the objects around it hold, a pass has an answer.

What the API server accepts, the operator understands; what it does not know, it refuses in words.
"""

from __future__ import annotations

import asyncio
import copy
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import NOW, a_spec, an_observation
from modelrollout.adapters.cluster import (
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    HTTP_ROUTES,
    REPLICA_SETS,
    ROLLOUTS,
    SERVICES,
)
from modelrollout.adapters.routers.gateway_api import GatewayAPIRouter
from modelrollout.api import v1alpha1 as api
from modelrollout.core.decide import decide
from modelrollout.errors import MetricsUnavailable, RolloutError
from modelrollout.observe import rollout_of
from modelrollout.reconcile import reconcile
from modelrollout.simulation.cluster import Store, furnish
from modelrollout.world import World

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.sampled_from(["0" * 20, "9" * 20, "../x", "a..b", "1e9", "0.5\n", "x" * 600, "٣"]),
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)
FULL_SPEC = a_spec(
    candidate={"deployment": "ranker-v2", "service": "ranker-v2", "model": {"version": "2"}},
    traffic={
        "gatewayAPI": {"route": "ranker", "rule": "main"},
        "sticky": {"header": "x-user"},
        "cohort": [{"cookie": "beta", "value": "1"}],
    },
    strategy={
        "type": "Canary",
        "steps": [{"mirror": 5}, {"weight": 10, "gate": "NoHarm"}, {"weight": 50}],
        "checks": [
            {
                "name": "answers",
                "http": {"path": "/v2", "json": [{"pointer": "/a", "equals": "1"}]},
            }
        ],
    },
    shadow={
        "intent": "Change",
        "idempotent": True,
        "paths": ["/v2"],
        "outputs": [{"name": "score", "path": "$.score", "numeric": {"absolute": "0.1"}}],
        "force": [{"field": "seed", "value": "1"}],
    },
    scaling={"minReplicas": 1},
)


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each part of a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (*at, key)
        if isinstance(inner, dict | list):
            yield from places(inner, (*at, key))


def changed(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    """The value with one part replaced; `...` takes it away."""
    found = copy.deepcopy(value)
    inner = found
    for key in place[:-1]:
        inner = inner[key]
    if new is ...:
        del inner[place[-1]]
    else:
        inner[place[-1]] = new
    return found


SPECS = st.builds(
    changed,
    st.just(FULL_SPEC),
    st.sampled_from(list(places(FULL_SPEC))),
    st.one_of(st.just(...), JSON, SCALARS),
)


def body_of(spec: Any, **annotations: str) -> dict[str, Any]:
    meta = {"namespace": "shop", "name": "ranker", "uid": "u-1", "generation": 1}
    return {"metadata": {**meta, "annotations": annotations}, "spec": spec}


@settings(max_examples=300)
@given(spec=st.one_of(SPECS, JSON))
def test_any_spec_is_understood_or_refused_in_a_sentence(spec):
    rollout = rollout_of(body_of(spec))
    plan = decide(rollout, an_observation())

    assert (rollout.spec is None) == bool(rollout.spec_error)
    assert plan.status.reason
    assert plan.status.conditions


@settings(max_examples=200)
@given(command=st.text(max_size=300), by=st.text(max_size=300), notify=st.text(max_size=300))
def test_any_annotation_is_a_command_or_is_told_to_be_none(command, by, notify):
    given = {api.COMMAND: command, api.COMMAND_BY: by, api.NOTIFY: notify}
    rollout = rollout_of(body_of(FULL_SPEC, **given))
    plan = decide(rollout, an_observation())

    assert plan.command_done
    assert all(len(each.message) < 2048 for each in plan.notes)
    assert plan.notes[0].message


@settings(max_examples=100)
@given(status=JSON)
def test_a_status_that_is_not_ours_is_refused_in_a_sentence(status):
    try:
        found = rollout_of(body_of(FULL_SPEC) | {"status": status}).status
    except RolloutError as refused:
        assert "was written by another version" in str(refused)  # noqa: PT017  # or none at all
    else:
        assert isinstance(found, api.ModelRolloutStatus)


# --- what the API server accepts ------------------------------------------------------------


def is_accepted(kube: Any, spec: Any) -> bool:
    """By the real API server, in a dry run that asks for no unknown fields."""
    metadata = {"name": "ranker", "namespace": "default"}
    body = {"apiVersion": api.API_VERSION, "kind": api.KIND, "metadata": metadata, "spec": spec}
    path = f"/apis/{api.API_VERSION}/namespaces/default/{api.PLURAL}?dryRun=All"
    headers = {"Authorization": "Bearer admin", "Content-Type": "application/json"}
    request = urllib.request.Request(  # noqa: S310  # loopback
        kube.url + path, data=json.dumps(body).encode(), headers=headers
    )
    context = ssl._create_unverified_context()  # noqa: S323, SLF001  # a server on loopback
    try:
        with urllib.request.urlopen(request, timeout=10, context=context):  # noqa: S310
            return True
    except urllib.error.HTTPError as refused:
        if refused.code in {400, 422}:
            return False
        raise


def test_the_api_server_accepts_the_whole_spec(kube):
    assert is_accepted(kube, FULL_SPEC)


@settings(max_examples=200)
@given(spec=SPECS)
def test_what_the_api_server_accepts_is_understood(kube, spec):
    if is_accepted(kube, spec):
        rollout = rollout_of(body_of(without_nulls(spec)))

        assert rollout.spec is not None, rollout.spec_error


def without_nulls(value: Any) -> Any:
    """As the API server stores it: a null is nothing."""
    if isinstance(value, dict):
        return {key: without_nulls(each) for key, each in value.items() if each is not None}
    return [without_nulls(each) for each in value] if isinstance(value, list) else value


# --- objects with less in them --------------------------------------------------------------

OPTIONAL = [
    (ROLLOUTS, "metadata.annotations"),
    (ROLLOUTS, "status"),
    (DEPLOYMENTS, "status"),
    (DEPLOYMENTS, "status.observedGeneration"),
    (DEPLOYMENTS, "status.updatedReplicas"),
    (DEPLOYMENTS, "status.availableReplicas"),
    (DEPLOYMENTS, "spec.replicas"),
    (DEPLOYMENTS, "spec.selector.matchLabels"),
    (DEPLOYMENTS, "spec.template.metadata.labels"),
    (REPLICA_SETS, "metadata.ownerReferences"),
    (SERVICES, "spec.selector"),
    (SERVICES, "spec.ports"),
    (ENDPOINT_SLICES, "endpoints"),
    (HTTP_ROUTES, "metadata.labels"),
    (HTTP_ROUTES, "status"),
    (HTTP_ROUTES, "status.parents"),
    (HTTP_ROUTES, "status.parents.0.conditions"),
    (HTTP_ROUTES, "status.parents.0.conditions.0.observedGeneration"),
    (HTTP_ROUTES, "spec.rules.0.backendRefs"),
    (HTTP_ROUTES, "spec.rules.0.backendRefs.0.kind"),
    (HTTP_ROUTES, "spec.rules.0.backendRefs.0.group"),
    (HTTP_ROUTES, "spec.rules.0.backendRefs.0.weight"),
]


class Blind:
    """A Prometheus that is away, checks that nobody makes, and no comparator."""

    async def read(self, *_: Any) -> Any:
        raise MetricsUnavailable("away")

    histogram = value = run = deploy = remove = read


async def passes(store: Store, time: list[float]) -> None:
    blind: Any = Blind()
    world = World(
        cluster=store,
        metrics={"default": blind},
        router=GatewayAPIRouter(store, lambda: time[0]),
        comparators=blind,
        checker=blind,
        clock=lambda: time[0],
    )
    for _ in range(4):
        await reconcile(("shop", "ranker"), world)
        time[0] += 3


@pytest.mark.parametrize(
    ("resource", "path"), OPTIONAL, ids=[f"{kind.plural} {path}" for kind, path in OPTIONAL]
)
def test_an_object_without_what_is_optional_is_no_error(resource, path):
    time = [NOW]
    store = Store(clock=lambda: time[0], disturb=lambda: None)
    metadata = {"name": "ranker", "namespace": "shop"}
    furnish(store, {"metadata": metadata, "spec": a_spec()}, (2, 2))
    place = tuple(int(part) if part.isdecimal() else part for part in path.split("."))
    name = "ranker" if resource in {ROLLOUTS, HTTP_ROUTES} else "ranker-v2"
    name += "-7c9d5b8f64" if resource == REPLICA_SETS else ""
    live = store.live(resource, name)
    if place in set(places(live)):
        live = changed(live, place, ...)
    store.put(resource, live)

    asyncio.run(passes(store, time))

    status = store.live(ROLLOUTS, "ranker")["status"]
    assert status["reason"]
