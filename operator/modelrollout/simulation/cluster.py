"""The cluster of a simulated world: objects in memory, and a gateway that takes up routes."""

from __future__ import annotations

import json
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
from modelrollout.errors import Conflict, NotFound

NAMESPACE = "shop"
NAME = "ranker"
STABLE = "ranker-v1"
CANDIDATE = "ranker-v2"
PORT = 8080


@dataclass
class Store:
    """
    Objects as JSON texts, and the few verbs that a pass calls.

    It is a stand-in for tests of the decision logic, and not a fake API server: it knows no
    schemas, no defaults, no permissions and no watches. What it keeps of the real one is what
    decisions depend on: resourceVersion, generation, the conflicts, and who wrote a route when.
    """

    clock: Callable[[], float]
    disturb: Callable[[], None]
    """Called before and after each write; raises where the operator is to die."""
    texts: dict[tuple[str, str], str] = field(default_factory=dict)
    events: list[Object] = field(default_factory=list)
    statuses: list[tuple[float, Object]] = field(default_factory=list)
    """Every status of the ModelRollout that was stored, and when."""
    written: Callable[[Resource, Object], None] = lambda _resource, _body: None
    """Told of each object that was stored."""
    version: int = 0

    async def get(self, resource: Resource, _namespace: str, name: str) -> Object:
        """One object, or NotFound."""
        return self.live(resource, name)

    async def list(
        self, resource: Resource, _namespace: str | None = None, selector: str = ""
    ) -> list[Object]:
        """All objects of a kind that have the labels."""
        wanted = dict(each.split("=") for each in selector.split(",") if each)
        found = [
            json.loads(text) for (kind, _), text in self.texts.items() if kind == resource.plural
        ]
        return [each for each in found if wanted.items() <= each["metadata"]["labels"].items()]

    async def create(self, resource: Resource, _namespace: str, body: Object) -> Object:
        """A new object, or Conflict. Events are only kept."""
        with self._a_write():
            if resource == EVENTS:
                self.events.append(body)
                return body
            if (resource.plural, body["metadata"]["name"]) in self.texts:
                raise Conflict(f"{body['metadata']['name']} exists")
            return self.put(resource, body)

    async def patch(
        self, resource: Resource, _namespace: str, name: str, operations: Sequence[Object]
    ) -> Object:
        """A JSON Patch, or Conflict."""
        with self._a_write():
            body = self.live(resource, name)
            spec = json.dumps(body["spec"])
            for each in operations:
                _operate(body, each)
            if json.dumps(body["spec"]) != spec:
                self._sign(body)
            return self.put(resource, body)

    async def apply(self, resource: Resource, _namespace: str, name: str, body: Object) -> Object:
        """Server-side apply of an object that is ours as a whole."""
        with self._a_write():
            try:
                live = self.live(resource, name)
            except NotFound:
                live = named(name, generation=0)
            metadata = {**live["metadata"], **body["metadata"]}
            new = {**live, **body, "metadata": metadata}
            if new["spec"] != live.get("spec"):
                self._sign(new)
            return self.put(resource, new)

    def _sign(self, body: Object) -> None:
        """A new generation, written by the operator now; the API server keeps whole seconds."""
        time = datetime.fromtimestamp(int(self.clock()), UTC).isoformat()
        body["metadata"]["generation"] += 1
        body["metadata"]["managedFields"] = [{"manager": FIELD_MANAGER, "time": time}]

    async def replace_status(self, resource: Resource, body: Object) -> Object:
        """The status of an object as read, or Conflict."""
        with self._a_write():
            live = self.live(resource, body["metadata"]["name"])
            if live["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"]:
                raise Conflict("somebody else wrote first")
            self.statuses.append((self.clock(), body["status"]))
            return self.put(resource, {**live, "status": body["status"]})

    def live(self, resource: Resource, name: str) -> Object:
        """A copy of one object."""
        text = self.texts.get((resource.plural, name))
        if text is None:
            raise NotFound(f"{resource.plural} {name}")
        body: Object = json.loads(text)
        return body

    def put(self, resource: Resource, body: Object) -> Object:
        """Store an object, whatever is there."""
        self.version += 1
        body["metadata"]["resourceVersion"] = str(self.version)
        self.texts[resource.plural, body["metadata"]["name"]] = json.dumps(body, allow_nan=False)
        self.written(resource, body)
        return body

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
    shift: Callable[[dict[str, int]], None]
    """Weights by Service, in the order of the route, are in force from now on."""
    seen: int = 0

    def route_written(self, body: Object) -> None:
        """Take it up, unless it was only our own word about it."""
        generation = body["metadata"]["generation"]
        if generation > self.seen:
            self.seen = generation
            refs = body["spec"]["rules"][0]["backendRefs"]
            shares = {each["name"]: each.get("weight", 1) for each in refs}
            self.later(self.delay, lambda: self._take_up(generation, shares))

    def _take_up(self, generation: int, shares: dict[str, int]) -> None:
        self.shift(shares)
        live = self.store.live(HTTP_ROUTES, NAME)
        live["status"] = {"parents": [{"conditions": accepted(generation)}]}
        self.store.put(HTTP_ROUTES, live)


def accepted(generation: int) -> list[Object]:
    """What a gateway says of a route that it has taken up."""
    said = {"status": "True", "reason": "Fine", "observedGeneration": generation}
    return [{"type": each, **said} for each in ("Accepted", "ResolvedRefs")]


def furnish(store: Store, spec: Object) -> None:
    """Two versions that run, a route to the stable one, and the ModelRollout."""
    for version in (STABLE, CANDIDATE):
        for resource, body in _workload(version):
            store.put(resource, body)
    route = named(NAME, generation=1)
    ref = {"group": "", "kind": "Service", "name": STABLE, "port": PORT, "weight": 1}
    route["spec"] = {"rules": [{"backendRefs": [ref]}]}
    route["status"] = {"parents": [{"conditions": accepted(1)}]}
    store.put(HTTP_ROUTES, route)
    store.put(ROLLOUTS, {**named(NAME, generation=1), "spec": spec})


def _workload(version: str) -> Iterator[tuple[Resource, Object]]:
    labels = {"app": version}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"image": version}]}}
    yield (
        DEPLOYMENTS,
        {
            **named(version, generation=1),
            "spec": {"replicas": 2, "selector": {"matchLabels": labels}, "template": template},
            "status": {"observedGeneration": 1, "updatedReplicas": 2, "availableReplicas": 2},
        },
    )
    owned = named(f"{version}-abc", labels=labels, ownerReferences=[{"uid": f"uid-{version}"}])
    yield REPLICA_SETS, owned
    yield SERVICES, {**named(version), "spec": {"selector": labels, "ports": [{"port": PORT}]}}
    by_service = {"kubernetes.io/service-name": version}
    yield ENDPOINT_SLICES, {**named(version, labels=by_service), "endpoints": [{}, {}]}


def named(name: str, **metadata: Any) -> Object:
    """An object without anything but its name."""
    known = {"name": name, "namespace": NAMESPACE, "uid": f"uid-{name}", "labels": {}}
    return {"metadata": known | metadata}
