"""The cluster of a simulated world: objects in memory, and a gateway that takes up routes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from modelrollout.adapters.cluster import (
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    EVENTS,
    FIELD_MANAGER,
    HTTP_ROUTES,
    REPLICA_SETS,
    ROLLOUTS,
    SERVICES,
    Object,
    Resource,
)
from modelrollout.adapters.routers.gateway_api import managed
from modelrollout.api import v1alpha1 as api
from modelrollout.core.facts import with_first_stable
from modelrollout.core.plan import traffic_of
from modelrollout.errors import Conflict, NotFound
from modelrollout.observe import rollout_of

REPLICA_SET_HASH = "7c9d5b8f64"

Weights = list[tuple[str, int]]
"""Service and weight by place."""


@dataclass
class Store:
    """
    Objects, and the few verbs that a pass calls.

    It is a stand-in for the decision logic, and not a fake API server: it knows no schemas, no
    defaults, no permissions and no watches. What it keeps of the real one is what decisions
    depend on: resourceVersion, generation, the conflicts, and who wrote a route when. Objects are
    handed out as they are stored, because a pass changes nothing that it has read.
    """

    clock: Callable[[], float]
    disturb: Callable[[], None]
    """Called before and after each write; raises where the operator is to die."""
    written: list[Callable[[Resource, Object], None]] = field(default_factory=list)
    """Told of each object that was stored."""
    events: list[Object] = field(default_factory=list)
    _objects: dict[str, dict[str, Object]] = field(default_factory=dict)
    """By plural and name."""
    _lists: dict[str, dict[str, list[Object]]] = field(default_factory=dict)
    """What was listed, by plural and selector, until an object of the kind is written."""
    _version: int = 0

    async def get(self, resource: Resource, _namespace: str, name: str) -> Object:
        """One object, or NotFound."""
        return self.live(resource, name)

    async def list(
        self, resource: Resource, _namespace: str | None = None, selector: str = ""
    ) -> list[Object]:
        """All objects of a kind that have the labels."""
        known = self._lists.setdefault(resource.plural, {})
        if selector not in known:
            wanted = dict(each.split("=") for each in selector.split(",") if each)
            known[selector] = [
                each
                for each in self._objects.get(resource.plural, {}).values()
                if wanted.items() <= each["metadata"]["labels"].items()
            ]
        return known[selector]

    async def create(self, resource: Resource, _namespace: str, body: Object) -> Object:
        """A new object, or Conflict. Events are only kept."""
        with self._a_write():
            if resource == EVENTS:
                self.events.append(body)
                return body
            if body["metadata"]["name"] in self._objects.get(resource.plural, {}):
                raise Conflict(f"{body['metadata']['name']} exists")
            return self.put(resource, body)

    async def patch(
        self, resource: Resource, _namespace: str, name: str, operations: Sequence[Object]
    ) -> Object:
        """A JSON Patch, or Conflict."""
        with self._a_write():
            live = self.live(resource, name)
            body = copy.deepcopy(live)
            for each in operations:
                _operate(body, each)
            if body["spec"] != live["spec"]:
                body = self._signed(body)
            return self.put(resource, body)

    async def apply(self, resource: Resource, namespace: str, name: str, body: Object) -> Object:
        """Server-side apply of an object that is ours as a whole."""
        with self._a_write():
            live = self._objects.get(resource.plural, {}).get(name) or named(
                name, namespace, generation=0
            )
            new = {**live, **body, "metadata": {**live["metadata"], **body["metadata"]}}
            if new["spec"] != live.get("spec"):
                new = self._signed(new)
            return self.put(resource, new)

    async def delete(self, resource: Resource, _namespace: str, name: str) -> None:
        """Remove an object, if it is there."""
        with self._a_write():
            self._objects.get(resource.plural, {}).pop(name, None)
            self._lists.pop(resource.plural, None)

    async def replace_status(self, resource: Resource, body: Object) -> Object:
        """The status of an object as read, or Conflict."""
        with self._a_write():
            live = self.live(resource, body["metadata"]["name"])
            if live["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"]:
                raise Conflict("somebody else wrote first")
            return self.put(resource, {**live, "status": body["status"]})

    def live(self, resource: Resource, name: str) -> Object:
        """One object as it is stored, or NotFound."""
        try:
            return self._objects[resource.plural][name]
        except KeyError:
            raise NotFound(f"{resource.plural} {name}") from None

    def put(self, resource: Resource, body: Object) -> Object:
        """Store an object, whatever is there."""
        self._version += 1
        body = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self._version)}}
        self._objects.setdefault(resource.plural, {})[body["metadata"]["name"]] = body
        self._lists.pop(resource.plural, None)
        for tell in self.written:
            tell(resource, body)
        return body

    def _signed(self, body: Object) -> Object:
        """A new generation, written by the operator now; the API server keeps whole seconds."""
        time = datetime.fromtimestamp(int(self.clock()), UTC).isoformat()
        known = body["metadata"]
        fields = [{"manager": FIELD_MANAGER, "time": time}]
        metadata = {**known, "generation": known["generation"] + 1, "managedFields": fields}
        return {**body, "metadata": metadata}

    @contextmanager
    def _a_write(self) -> Iterator[None]:
        self.disturb()
        yield
        self.disturb()


def _operate(body: Object, operation: Object) -> None:
    """One operation of a JSON Patch on objects and lists that are there."""
    *path, last = [
        each.replace("~1", "/").replace("~0", "~") for each in operation["path"].split("/")[1:]
    ]
    parent: Any = body
    for each in path:
        parent = parent[int(each) if isinstance(parent, list) else each]
    key = int(last) if isinstance(parent, list) else last
    match operation["op"]:
        case "test":
            if parent[key] != operation["value"]:
                raise Conflict(f"test of {operation['path']} failed")
        case "replace" | "add":
            parent[key] = operation["value"]
        case "remove":
            del parent[key]
        case other:
            raise ValueError(other)


@dataclass
class Gateway:
    """Takes up each generation of the route after a delay: then it says so, and its weights are in force."""

    store: Store
    delay: float
    later: Callable[[float, Callable[[], None]], None]
    """Do something so many seconds from now."""
    shift: Callable[[Weights], None]
    """These weights are in force from now on."""
    seen: int = 1
    """The newest generation that it knows of; the world begins with the first in force."""

    def route_written(self, body: Object) -> None:
        """Take it up, unless it was only our own word about it."""
        generation = body["metadata"]["generation"]
        if generation > self.seen:
            self.seen = generation
            self.later(self.delay, lambda: self._take_up(body))

    def _take_up(self, body: Object) -> None:
        refs = body["spec"]["rules"][0]["backendRefs"]
        self.shift([(each["name"], each.get("weight", 1)) for each in refs])
        live = self.store.live(HTTP_ROUTES, body["metadata"]["name"])
        status = accepted(body["metadata"]["generation"])
        self.store.put(HTTP_ROUTES, {**live, "status": status})


def accepted(generation: int) -> Object:
    """What a gateway says of a route that it has taken up."""
    said = {"status": "True", "reason": "Fine", "observedGeneration": generation}
    conditions = [{"type": each, **said} for each in ("Accepted", "ResolvedRefs")]
    return {"parents": [{"conditions": conditions}]}


def furnish(store: Store, manifest: Object, pods: tuple[int, int]) -> None:
    """What the manifest names, running and at rest, and the ModelRollout itself."""
    meta = manifest["metadata"]
    name, namespace = meta["name"], meta["namespace"]
    # Kept as it was understood: parsing it again in each pass would tell nothing new.
    spec = api.ModelRolloutSpec.model_validate(manifest["spec"])
    store.put(ROLLOUTS, {**named(name, namespace, generation=1), "spec": spec})
    for version, count in zip((spec.stable, spec.candidate), pods, strict=True):
        for resource, body in _workload(version, namespace, spec.port, count):
            store.put(resource, body)
    route = _route(store.live(ROLLOUTS, name), spec)
    known = named(route["metadata"]["name"], namespace, generation=1)
    metadata = {**known["metadata"], **route["metadata"]}
    store.put(HTTP_ROUTES, {**route, "metadata": metadata, "status": accepted(1)})


def _route(body: Object, spec: api.ModelRolloutSpec) -> Object:
    """All traffic to stable: the user's route as a user writes it, or ours as we do."""
    given = spec.traffic.gateway_api
    if given.route is None:
        rollout = rollout_of(body)
        traffic = traffic_of(with_first_stable(rollout.status, spec), spec, rollout.name)
        assert traffic is not None
        return managed(rollout, traffic)
    service = api.service_of(spec.stable)
    ref = {"group": "", "kind": "Service", "name": service, "port": spec.port, "weight": 1}
    rule = {"backendRefs": [ref]} | ({"name": given.rule} if given.rule else {})
    return {"metadata": {"name": given.route}, "spec": {"rules": [rule]}}


def replica_set_of(version: api.Version) -> str:
    """The name of the ReplicaSet that a version's Deployment owns."""
    return f"{version.deployment}-{REPLICA_SET_HASH}"


def _workload(
    version: api.Version, namespace: str, port: int, pods: int
) -> Iterator[tuple[Resource, Object]]:
    name, service = version.deployment, api.service_of(version)
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"image": name}]}}
    yield (
        DEPLOYMENTS,
        {
            **named(name, namespace, generation=1),
            "spec": {"replicas": pods, "selector": {"matchLabels": labels}, "template": template},
            "status": {
                "observedGeneration": 1,
                "updatedReplicas": pods,
                "availableReplicas": pods,
            },
        },
    )
    owner = {"ownerReferences": [{"uid": f"uid-{name}"}]}
    yield REPLICA_SETS, named(replica_set_of(version), namespace, labels=labels, **owner)
    yield (
        SERVICES,
        {**named(service, namespace), "spec": {"selector": labels, "ports": [{"port": port}]}},
    )
    by_service = {"kubernetes.io/service-name": service}
    yield (
        ENDPOINT_SLICES,
        {**named(service, namespace, labels=by_service), "endpoints": [{}] * pods},
    )


def named(name: str, namespace: str, **metadata: Any) -> Object:
    """An object without anything but its name."""
    known = {"name": name, "namespace": namespace, "uid": f"uid-{name}", "labels": {}}
    return {"metadata": known | metadata}
