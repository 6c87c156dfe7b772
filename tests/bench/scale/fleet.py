"""A fleet of ModelRollouts in a real API server, and what belongs to them where no controller runs."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import aiohttp

from kube_apiserver import ADMIN_TOKEN, ApiServer
from modelrollout.adapters.cluster import (
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    HTTP_ROUTES,
    REPLICA_SETS,
    ROLLOUTS,
    SERVICES,
    Object,
    Resource,
)

NAMESPACES = 50
BUSY_EVERY = 5
"""One of so many ModelRollouts has a candidate on trial."""
PORT = 8080
AT_ONCE = 32
ATTEMPTS = 6
LEASE_NAMESPACE = "modelrollout-system"

ROUTE_CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {
        "name": f"{HTTP_ROUTES.plural}.{HTTP_ROUTES.group}",
        "annotations": {"api-approved.kubernetes.io": "unapproved, a stand-in for tests"},
    },
    "spec": {
        "group": HTTP_ROUTES.group,
        "scope": "Namespaced",
        "names": {"plural": HTTP_ROUTES.plural, "singular": "httproute", "kind": "HTTPRoute"},
        "versions": [
            {
                "name": HTTP_ROUTES.version,
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "x-kubernetes-preserve-unknown-fields": True,
                    }
                },
            }
        ],
    },
}
"""Without Gateway API's rules: what is measured is how often it is read and written."""


@dataclass(frozen=True, slots=True)
class Member:
    """One ModelRollout of the fleet, by its number."""

    number: int

    @property
    def namespace(self) -> str:
        return f"team-{self.number % NAMESPACES:02}"

    @property
    def name(self) -> str:
        return f"model-{self.number:05}"

    @property
    def is_busy(self) -> bool:
        """Whether a candidate is on trial."""
        return self.number % BUSY_EVERY == 0

    @property
    def versions(self) -> tuple[str, ...]:
        """Its Deployments, stable first."""
        return (f"{self.name}-v1", f"{self.name}-v2")[: 1 + self.is_busy]


def busy(size: int) -> list[Member]:
    """Those of a fleet of this size that have a candidate on trial."""
    return [each for each in map(Member, range(size)) if each.is_busy]


def replica_set(deployment: str) -> str:
    """Its name."""
    return f"{deployment}-7c9d5b8f64"


class Client:
    """Requests of the API server, a bounded number at once."""

    def __init__(self, server: ApiServer) -> None:
        self._url = server.url
        self._places = asyncio.Semaphore(AT_ONCE)
        context = ssl._create_unverified_context()  # noqa: S323, SLF001  # on loopback, for a test
        self.session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {ADMIN_TOKEN}"},
            connector=aiohttp.TCPConnector(ssl=context, limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
        )

    async def close(self) -> None:
        await self.session.close()

    async def ask(self, method: str, path: str, body: Any = None, *, patch: str = "json") -> Object:
        """What the server is not ready for yet is asked again."""
        kind = f"application/{patch}-patch+json" if method == "PATCH" else "application/json"
        data = None if body is None else json.dumps(body)
        for attempt in range(ATTEMPTS):
            async with (
                self._places,
                self.session.request(
                    method, self._url + path, data=data, headers={"Content-Type": kind}
                ) as answer,
            ):
                text = await answer.text()
                # 404: it does not know a namespace yet that it has made.
                if answer.status not in {404, 429, 500, 503, 504}:
                    break
            await asyncio.sleep(0.1 * 2**attempt)
        if answer.status >= 400:
            raise RuntimeError(f"{method} {path}: {answer.status} {text[:500]}")
        found: Object = json.loads(text)
        return found

    async def text(self, path: str) -> str:
        async with self.session.get(self._url + path) as answer:
            return await answer.text()

    async def pages(self, resource: Resource) -> list[Object]:
        """All objects of a kind."""
        found: list[Object] = []
        token = ""
        while True:
            query = f"?limit=500&continue={token}" if token else "?limit=500"
            page = await self.ask("GET", f"{resource.root}/{resource.plural}{query}")
            found += page["items"]
            token = page["metadata"].get("continue", "")
            if not token:
                return found

    async def changes(self, resource: Resource) -> Any:
        """Lines of a watch from now on, for as long as it lasts."""
        page = await self.ask("GET", f"{resource.root}/{resource.plural}?limit=1")
        version = page["metadata"]["resourceVersion"]
        path = f"{resource.root}/{resource.plural}?watch=1&resourceVersion={version}"
        async with self.session.get(self._url + path) as answer:
            buffer = b""
            async for chunk in answer.content.iter_any():
                *lines, buffer = (buffer + chunk).split(b"\n")
                for each in lines:
                    yield json.loads(each)


def path_of(resource: Resource, namespace: str, name: str = "") -> str:
    """Of a namespace's objects, or of one."""
    whole = f"{resource.root}/namespaces/{namespace}/{resource.plural}"
    return f"{whole}/{name}" if name else whole


class Fleet:
    """Grows, and never shrinks but by `rest`."""

    def __init__(self, client: Client, interval_seconds: int) -> None:
        self._client = client
        self.interval_seconds = interval_seconds
        self.size = 0

    async def found(self) -> None:
        """Namespaces, and the stand-in for Gateway API."""
        await self._client.ask(
            "POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", ROUTE_CRD
        )
        for name in [LEASE_NAMESPACE, *(f"team-{each:02}" for each in range(NAMESPACES))]:
            body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            await self._client.ask("POST", "/api/v1/namespaces", body)
        served = f"{HTTP_ROUTES.root}/{HTTP_ROUTES.plural}"
        while '"items"' not in await self._client.text(served):  # noqa: ASYNC110  # another process
            await asyncio.sleep(0.2)

    async def grow(self, size: int, *, all_idle: bool = False) -> None:
        """Up to so many ModelRollouts."""
        new = [Member(each) for each in range(self.size, size)]
        # What a ModelRollout names is there before it is.
        await self._each(
            new, lambda each: self._furnish(each, is_busy=each.is_busy and not all_idle)
        )
        self.size = max(self.size, size)

    async def _furnish(self, member: Member, *, is_busy: bool) -> None:
        for name in member.versions[: 1 + is_busy]:
            await self._workload(member.namespace, name)
        await self._create(HTTP_ROUTES, member.namespace, _route(member))
        body = _rollout(member, self.interval_seconds, is_busy=is_busy)
        await self._create(ROLLOUTS, member.namespace, body)

    async def _workload(self, namespace: str, name: str) -> None:
        path = path_of(DEPLOYMENTS, namespace)
        made = await self._client.ask("POST", path, _deployment(name))
        for resource, body in _belongings(name, made["metadata"]["uid"]):
            await self._create(resource, namespace, body)
        await self._client.ask(
            "PATCH",
            f"{path}/{name}/status",
            {
                "status": {
                    "observedGeneration": 1,
                    "replicas": 2,
                    "updatedReplicas": 2,
                    "readyReplicas": 2,
                    "availableReplicas": 2,
                }
            },
            patch="merge",
        )

    async def _create(self, resource: Resource, namespace: str, body: Object) -> None:
        await self._client.ask("POST", path_of(resource, namespace), body)

    async def look_every(self, seconds: int) -> None:
        """Another interval for those on trial."""
        self.interval_seconds = seconds
        change = {"spec": {"analysis": {"intervalSeconds": seconds}}}
        await self._each(
            busy(self.size),
            lambda each: self._client.ask(
                "PATCH", path_of(ROLLOUTS, each.namespace, each.name), change, patch="merge"
            ),
        )

    async def rest(self) -> None:
        """Those on trial want what they have: all are idle."""
        await self._each(
            busy(self.size),
            lambda each: self._client.ask(
                "PATCH",
                path_of(ROLLOUTS, each.namespace, each.name),
                {"spec": {"candidate": {"deployment": each.versions[0]}}},
                patch="merge",
            ),
        )

    @staticmethod
    async def _each(members: list[Member], act: Callable[[Member], Awaitable[Any]]) -> None:
        queue = iter(members)

        async def work() -> None:
            for each in queue:
                await act(each)

        await asyncio.gather(*(work() for _ in range(AT_ONCE)))


async def take_up_routes(client: Client) -> None:
    """The gateway: says of each generation of each route that it is in force."""
    while True:
        for each in await client.pages(HTTP_ROUTES):
            await _answer(client, each)
        async for change in client.changes(HTTP_ROUTES):
            if change["type"] in {"ADDED", "MODIFIED"}:
                await _answer(client, change["object"])


async def _answer(client: Client, route: Object) -> None:
    meta = route["metadata"]
    parents = route.get("status", {}).get("parents", [])
    known = [c["observedGeneration"] for p in parents for c in p["conditions"]]
    if min(known, default=0) >= meta["generation"]:
        return
    conditions = [
        {
            "type": kind,
            "status": "True",
            "reason": kind,
            "message": "",
            "observedGeneration": meta["generation"],
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
        for kind in ("Accepted", "ResolvedRefs")
    ]
    answered = {
        "controllerName": "gateway.example/controller",
        "parentRef": {"name": "public"},
        "conditions": conditions,
    }
    path = path_of(HTTP_ROUTES, meta["namespace"], meta["name"]) + "/status"
    await client.ask("PATCH", path, {"status": {"parents": [answered]}}, patch="merge")


# --- objects ------------------------------------------------------------------------------


def _deployment(name: str) -> Object:
    """About as large as people's are."""
    labels = {"app": name, "app.kubernetes.io/part-of": "models", "team": "ranking"}
    probe = {"httpGet": {"path": "/v2/health/ready", "port": PORT}, "periodSeconds": 5}
    container = {
        "name": "server",
        "image": f"registry.example/models/{name}:1.4.2",
        "ports": [{"name": "http", "containerPort": PORT}],
        "env": [{"name": f"SETTING_{each}", "value": f"value-{each}"} for each in range(12)],
        "readinessProbe": probe,
        "livenessProbe": probe,
        "resources": {"requests": {"cpu": "2", "memory": "4Gi"}, "limits": {"memory": "4Gi"}},
        "volumeMounts": [{"name": "model", "mountPath": "/mnt/model", "readOnly": True}],
    }
    pod = {"containers": [container], "volumes": [{"name": "model", "emptyDir": {}}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def _belongings(name: str, uid: str) -> Iterator[tuple[Resource, Object]]:
    """ReplicaSet, Service and endpoints."""
    labels = {"app": name}
    owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name, "uid": uid}
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [{"name": "server", "image": "registry.example/model"}]},
    }
    yield (
        REPLICA_SETS,
        {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {
                "name": replica_set(name),
                "labels": labels,
                "ownerReferences": [{**owner, "controller": True}],
            },
            "spec": {"replicas": 2, "selector": {"matchLabels": labels}, "template": template},
        },
    )
    ports = [{"name": "http", "port": PORT, "targetPort": PORT}]
    yield (
        SERVICES,
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name},
            "spec": {"selector": labels, "ports": ports, "clusterIP": "None"},
        },
    )
    yield (
        ENDPOINT_SLICES,
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": PORT}],
            "endpoints": [
                {"addresses": [f"10.0.0.{each}"], "conditions": {"ready": True}} for each in (1, 2)
            ],
        },
    )


def _route(member: Member) -> Object:
    ref = {"group": "", "kind": "Service", "name": member.versions[0], "port": PORT, "weight": 1}
    return {
        "apiVersion": f"{HTTP_ROUTES.group}/{HTTP_ROUTES.version}",
        "kind": "HTTPRoute",
        "metadata": {"name": member.name},
        "spec": {
            "parentRefs": [{"name": "public"}],
            "hostnames": [f"{member.name}.example"],
            "rules": [{"matches": [{"path": {"value": "/"}}], "backendRefs": [ref]}],
        },
    }


def _rollout(member: Member, interval_seconds: int, *, is_busy: bool) -> Object:
    """Three guardrails, one of them a histogram; its one step lasts for longer than the bench."""
    stable, candidate = member.versions[0], member.versions[-1 if is_busy else 0]
    accuracy = {
        "events": {"metric": "predictions_wrong_total"},
        "total": {"metric": "predictions_judged_total"},
    }
    return {
        "apiVersion": f"{ROLLOUTS.group}/{ROLLOUTS.version}",
        "kind": "ModelRollout",
        "metadata": {"name": member.name},
        "spec": {
            "stable": {"deployment": stable},
            "candidate": {"deployment": candidate},
            "port": PORT,
            "traffic": {"gatewayAPI": {"route": member.name}},
            "strategy": {"steps": [{"weight": 50, "minSeconds": 36_000, "maxSeconds": 72_000}]},
            "analysis": {
                "intervalSeconds": interval_seconds,
                "guardrails": [
                    {"name": "errors", "preset": "envoy/errors"},
                    {"name": "latency", "preset": "envoy/latency"},
                    {"name": "accuracy", "proportion": accuracy, "versionLabel": "version"},
                ],
            },
        },
    }
