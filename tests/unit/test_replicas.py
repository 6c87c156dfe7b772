"""Scaling by whole passes: what is asked of the API server's objects, and what is written to them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from builders import NOW, a_spec
from modelrollout.adapters.cluster import (
    AUTOSCALERS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    HTTP_ROUTES,
    PODS,
    ROLLOUTS,
    Object,
    Resource,
)
from modelrollout.adapters.routers.gateway_api import GatewayAPIRouter
from modelrollout.core.observation import CheckResult, Comparator
from modelrollout.errors import Conflict, MetricsUnavailable
from modelrollout.reconcile import reconcile
from modelrollout.simulation.cluster import Gateway, Store, furnish, named
from modelrollout.world import World

KEY = ("shop", "ranker")
BLUE_GREEN = {
    "type": "BlueGreen",
    "checks": [{"name": "answers", "http": {"path": "/"}}],
    "bake": {"seconds": 10},
}
QUOTA = 'pods "ranker-v2-x" is forbidden: exceeded quota: pods, requested: pods=1, used: pods=4'
FULL = "0/1 nodes are available: 1 Insufficient cpu."


class Elsewhere:
    """No metrics, nothing mirrored, every check passes."""

    async def read(self, *_: Any) -> Any:
        raise MetricsUnavailable("nobody counts")

    histogram = value = read

    async def observe(self, *_: Any) -> Comparator:
        return Comparator()

    async def run(self, *_: Any) -> CheckResult:
        return CheckResult(passed=True)

    async def deploy(self, *_: Any) -> None:
        raise AssertionError("nothing is mirrored")

    remove = deploy


class Objects(Store):
    """With a Scale as the API server has it: it leaves out a 0, and what is missing is null."""

    async def patch(
        self, resource: Resource, namespace: str, name: str, operations: Sequence[Object]
    ) -> Object:
        if resource.subresource:
            operations = [{**each, "value": each["value"] or 0} for each in operations]
        return await super().patch(resource, namespace, name, operations)


class Shop:
    """Two Deployments whose pods start at once, up to so many of each."""

    def __init__(self, pods: tuple[int, int], most: int = 100, **spec: Any) -> None:
        self.now = NOW
        self.most = most
        self.store = Objects(clock=lambda: self.now, disturb=lambda: None)
        given = a_spec(strategy=BLUE_GREEN, scaling={"warmSeconds": 60}) | spec
        furnish(
            self.store,
            {"metadata": {"name": "ranker", "namespace": "shop"}, "spec": given},
            pods,
        )
        self.gateway = Gateway(
            self.store, delay=0, later=lambda _, then: then(), shift=lambda _: None
        )
        self.store.written.append(self._written)
        elsewhere = Elsewhere()
        self.world = World(
            cluster=self.store,
            metrics={"default": elsewhere},
            router=GatewayAPIRouter(self.store, lambda: self.now),
            comparators=elsewhere,
            checker=elsewhere,
            clock=lambda: self.now,
        )

    def _written(self, resource: Resource, body: Object) -> None:
        if resource.plural == HTTP_ROUTES.plural:
            self.gateway.route_written(body)
        if resource.plural != DEPLOYMENTS.plural:
            return
        name, wanted = body["metadata"]["name"], min(body["spec"]["replicas"], self.most)
        if body["status"].get("availableReplicas") != wanted:
            status = {"updatedReplicas": wanted, "availableReplicas": wanted}
            status |= {"observedGeneration": body["metadata"]["generation"]}
            self.store.put(DEPLOYMENTS, {**body, "status": {**body["status"], **status}})
            endpoints = self.store.live(ENDPOINT_SLICES, name)
            self.store.put(ENDPOINT_SLICES, {**endpoints, "endpoints": [{}] * wanted})

    def run(self, seconds: float) -> None:
        """Passes until a time."""
        until = self.now + seconds
        while self.now < until:
            done = asyncio.run(reconcile(KEY, self.world))
            wait = done.look_again_seconds
            self.now = min(until, self.now + (until if wait is None else wait))

    @property
    def status(self) -> Any:
        return self.store.live(ROLLOUTS, "ranker")["status"]

    @property
    def replicas(self) -> tuple[int, int]:
        found = (self.store.live(DEPLOYMENTS, f"ranker-{each}") for each in ("v1", "v2"))
        one, other = (each["spec"]["replicas"] for each in found)
        return one, other


def test_a_release_begins_with_one_version_and_ends_with_the_other():
    shop = Shop(pods=(4, 0))
    shop.run(30)
    assert shop.status["phase"] == "Promoted"
    assert shop.replicas == (4, 4)
    shop.run(400)
    assert shop.replicas == (0, 4)
    assert shop.status["idle"] == []


def test_a_release_without_scaling_writes_to_no_deployment():
    shop = Shop(pods=(4, 2), scaling=None)
    shop.run(400)
    assert shop.status["phase"] == "Promoted"
    assert shop.replicas == (4, 2)


@pytest.mark.parametrize("version", ["apps/v1", None])
def test_a_deployment_with_an_autoscaler_is_left_to_it(version):
    shop = Shop(pods=(4, 1))
    target = {"kind": "Deployment", "name": "ranker-v2"}
    target |= {"apiVersion": version} if version else {}
    body = {**named("busy", "shop"), "spec": {"scaleTargetRef": target}}
    shop.store.put(AUTOSCALERS, body)
    shop.run(30)
    assert shop.status["phase"] == "Promoted"
    assert shop.replicas == (4, 1)


def test_an_autoscaler_of_something_else_of_that_name_is_no_reason_to_wait():
    shop = Shop(pods=(4, 1))
    target = {"kind": "StatefulSet", "name": "ranker-v2", "apiVersion": "apps/v1"}
    shop.store.put(AUTOSCALERS, {**named("busy", "shop"), "spec": {"scaleTargetRef": target}})
    shop.run(30)
    assert shop.replicas == (4, 4)


def test_a_quota_is_quoted_and_nothing_moves_until_there_is_room():
    shop = Shop(pods=(4, 0), most=2)
    live = shop.store.live(DEPLOYMENTS, "ranker-v2")
    failure = {"type": "ReplicaFailure", "status": "True", "message": QUOTA}
    live = {**live, "status": {**live["status"], "conditions": [failure]}}
    shop.store.put(DEPLOYMENTS, live)
    shop.run(30)
    assert (
        shop.status["reason"]
        == f"scales ranker-v2 to 4 pods: 2 are ready; there is no room: {QUOTA}"
    )
    assert {each["reason"] for each in shop.status["conditions"]} >= {"CapacityMissing"}
    assert shop.status["weight"]["wanted"] == 0
    shop.most = 100
    live = shop.store.live(DEPLOYMENTS, "ranker-v2")
    shop.store.put(DEPLOYMENTS, {**live, "status": {**live["status"], "conditions": []}})
    shop.run(30)
    assert shop.status["phase"] == "Promoted"


def a_pod(status: Object, name: str = "ranker-v2-x") -> Object:
    """Of the candidate's present ReplicaSet."""
    owner = {"kind": "ReplicaSet", "name": "ranker-v2-7c9d5b8f64"}
    pod = named(name, "shop", labels={"app": "ranker-v2"}, ownerReferences=[owner])
    return {**pod, "status": {"phase": "Pending", **status}}


def test_the_scheduler_is_quoted():
    shop = Shop(pods=(4, 0), most=2)
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    shop.store.put(PODS, a_pod({"conditions": [condition | {"message": FULL}]}))
    shop.run(30)
    assert shop.status["reason"].endswith(f"2 are ready; there is no room: {FULL}")


def waits_for(reason: str, message: str) -> Object:
    return {"name": "server", "state": {"waiting": {"reason": reason, "message": message}}}


def lacking(*pods: Object, **spec: Any) -> Shop:
    """One of the candidate's four pods is ready, and these are not."""
    shop = Shop(pods=(4, 4), most=1, **spec)
    shop.store.put(DEPLOYMENTS, shop.store.live(DEPLOYMENTS, "ranker-v2"))
    for each in pods:
        shop.store.put(PODS, each)
    shop.run(30)
    return shop


UNPULLED = 'Back-off pulling image "ranker:3": ErrImagePull: not found'


@pytest.mark.parametrize("scaling", [None, {"warmSeconds": 60}])
@pytest.mark.parametrize("key", ["containerStatuses", "initContainerStatuses"])
def test_the_kubelet_is_quoted(scaling, key):
    starting = a_pod({key: [waits_for("ContainerCreating", "")]}, "ranker-v2-a")
    failing = a_pod({key: [waits_for("ImagePullBackOff", UNPULLED)]}, "ranker-v2-b")
    shop = lacking(starting, failing, scaling=scaling)
    said = f"; pod ranker-v2-b: ImagePullBackOff: {UNPULLED}"
    assert shop.status["reason"].endswith(said)


def test_the_scheduler_is_quoted_also_where_nobody_scales():
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    shop = lacking(a_pod({"conditions": [condition | {"message": FULL}]}), scaling=None)
    assert shop.status["reason"] == f"1 of 4 pods of ranker-v2 are ready; {FULL}"


def test_what_a_pod_says_is_cut_short():
    endless = waits_for("ErrImagePull", "no\x1b" * 999)
    shop = lacking(a_pod({"containerStatuses": [endless]}), scaling=None)
    assert "ErrImagePull: no no" in shop.status["reason"]
    assert len(shop.status["reason"]) < 400
    assert shop.status["reason"].isprintable()


def test_who_scaled_in_the_meantime_is_looked_at_before_anything_is_written():
    shop = Shop(pods=(4, 1))
    asyncio.run(reconcile(KEY, shop.world))

    def somebody_scales() -> None:
        """Between what this pass has seen and its first write."""
        shop.store.disturb = lambda: None
        live = shop.store.live(DEPLOYMENTS, "ranker-v2")
        shop.store.put(DEPLOYMENTS, {**live, "spec": {**live["spec"], "replicas": 7}})

    shop.store.disturb = somebody_scales
    with pytest.raises(Conflict):
        asyncio.run(reconcile(KEY, shop.world))
    assert shop.replicas == (4, 7)
