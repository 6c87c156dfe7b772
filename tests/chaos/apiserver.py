"""
An API server in memory: what a controller's correctness depends on, and nothing else.

It keeps resourceVersions and generations, refuses writes that are based on an older object, keeps
objects with finalizers until these are gone, collects what has lost its owner, and remembers each
version of each object, so that somebody can be given an old one.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from modelrollout.adapters.cluster import EVENTS, FIELD_MANAGER, ROLLOUTS, Object, Resource
from modelrollout.errors import Conflict, NotFound, Refused

Address = tuple[str, str, str]
"""Plural, namespace, name."""
Listener = Callable[[str, Object | None, Object | None], None]
"""Told of plural, the object before and after."""


class ApiServer:
    """Objects, all their versions, and who is to be told of changes."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._versions: dict[Address, list[tuple[float, Object | None]]] = defaultdict(list)
        self._latest = 0
        self._uids = 0
        self.events: list[Object] = []
        self.listeners: list[Listener] = []
        self.terminating: set[str] = set()
        """Namespaces in which nothing may be created any more."""

    def now(self) -> float:
        """Unix seconds, by its own clock."""
        return self._clock()

    # --- reading --------------------------------------------------------------------------

    def get(
        self, resource: Resource, namespace: str, name: str, as_of: float | None = None
    ) -> Object:
        """An object as it is, or as it was."""
        found = self._at((resource.plural, namespace, name), as_of)
        if found is None:
            raise NotFound(f"{resource.plural} {name}")
        return found

    def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        selector: str = "",
        as_of: float | None = None,
    ) -> list[Object]:
        """All of a kind with these labels."""
        wanted = dict(each.split("=") for each in selector.split(",") if each)
        return [
            body
            for body in self._all(resource.plural, namespace, as_of)
            if wanted.items() <= body["metadata"].get("labels", {}).items()
        ]

    def _all(
        self, plural: str, namespace: str | None, as_of: float | None = None
    ) -> Iterator[Object]:
        for address in list(self._versions):
            if address[0] == plural and namespace in {None, address[1]}:
                body = self._at(address, as_of)
                if body is not None:
                    yield body

    def _at(self, address: Address, as_of: float | None) -> Object | None:
        versions = self._versions.get(address, [])
        if as_of is None:
            return versions[-1][1] if versions else None
        return next((body for time, body in reversed(versions) if time <= as_of), None)

    def everything(self) -> dict[Address, Object]:
        """All objects that there are."""
        latest = {address: self._at(address, None) for address in self._versions}
        return {address: body for address, body in latest.items() if body is not None}

    # --- writing --------------------------------------------------------------------------

    def create(self, resource: Resource, namespace: str, body: Object) -> Object:
        if namespace in self.terminating:
            raise Refused(f"403 the namespace {namespace} is being terminated")
        if resource == EVENTS:
            self.events.append(body)
            return body
        address = (resource.plural, namespace, body["metadata"]["name"])
        if self._at(address, None) is not None:
            raise Conflict(f"409 {resource.plural} {address[2]} exists")
        self._uids += 1
        fresh = {
            "namespace": namespace,
            "uid": f"uid-{self._uids}",
            "generation": 1,
            "labels": {},
            "creationTimestamp": self._time(),
        }
        metadata = {**fresh, **body["metadata"]}
        return self._store(address, {**body, "metadata": metadata})

    def patch(
        self, resource: Resource, namespace: str, name: str, operations: Sequence[Object]
    ) -> Object:
        live = self.get(resource, namespace, name)
        body = copy.deepcopy(live)
        if resource.subresource == "scale" and not body["spec"].get("replicas", 1):
            del body["spec"]["replicas"]  # as the API server shows a scale of 0
        for each in operations:
            _operate(body, each)
        if resource == ROLLOUTS and "status" in live:
            body["status"] = live["status"]
        return self._replaced(resource, live, body)

    def apply(self, resource: Resource, namespace: str, name: str, body: Object) -> Object:
        try:
            live = self.get(resource, namespace, name)
        except NotFound:
            created = {**body, "metadata": {**body["metadata"], **self._signature()}}
            return self.create(resource, namespace, created)
        metadata = {**live["metadata"], **body["metadata"]}
        return self._replaced(resource, live, {**live, **body, "metadata": metadata})

    def replace_status(self, resource: Resource, body: Object) -> Object:
        meta = body["metadata"]
        live = self.get(resource, meta["namespace"], meta["name"])
        if live["metadata"]["resourceVersion"] != meta["resourceVersion"]:
            raise Conflict("409 the object has been modified")
        if live.get("status") == body["status"]:
            return live
        return self.put(resource, {**live, "status": body["status"]})

    def delete(self, resource: Resource, namespace: str, name: str) -> None:
        address = (resource.plural, namespace, name)
        live = self.get(resource, namespace, name)
        if live["metadata"].get("finalizers"):
            if "deletionTimestamp" not in live["metadata"]:
                metadata = {**live["metadata"], "deletionTimestamp": self._time()}
                self._store(address, {**live, "metadata": metadata})
        else:
            self._remove(address)

    def collect(self) -> None:
        """Take away what belongs to nobody that is still there."""
        uids = {each["metadata"]["uid"] for each in self.everything().values()}
        for address, body in self.everything().items():
            owners = body["metadata"].get("ownerReferences", [])
            if owners and not any(each["uid"] in uids for each in owners):
                self._remove(address)

    def put(self, resource: Resource, body: Object) -> Object:
        """What controllers and tests write: an object, whatever is there."""
        meta = body["metadata"]
        return self._store((resource.plural, meta["namespace"], meta["name"]), body)

    def change(self, resource: Resource, namespace: str, name: str, **spec: Any) -> Object:
        """Somebody else than the operator edits fields of a spec."""
        live = self.get(resource, namespace, name)
        return self._next_generation(resource, live, {**live, "spec": {**live["spec"], **spec}})

    def _replaced(self, resource: Resource, live: Object, body: Object) -> Object:
        """As the operator wrote it."""
        if body == live:
            return live
        if body.get("spec") != live.get("spec"):
            body = {**body, "metadata": {**body["metadata"], **self._signature()}}
        return self._next_generation(resource, live, body)

    def _next_generation(self, resource: Resource, live: Object, body: Object) -> Object:
        meta = body["metadata"]
        if body.get("spec") != live.get("spec"):
            meta = {**meta, "generation": live["metadata"]["generation"] + 1}
        stored = self.put(resource, {**body, "metadata": meta})
        if meta.get("deletionTimestamp") and not meta.get("finalizers"):
            self._remove((resource.plural, meta["namespace"], meta["name"]))
        return stored

    def _signature(self) -> Object:
        return {"managedFields": [{"manager": FIELD_MANAGER, "time": self._time()}]}

    def _time(self) -> str:
        """In whole seconds, as the API server keeps it."""
        return datetime.fromtimestamp(int(self._clock()), UTC).isoformat()

    def _store(self, address: Address, body: Object) -> Object:
        self._latest += 1
        before = self._at(address, None)
        body = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self._latest)}}
        self._versions[address].append((self._clock(), body))
        self._tell(address[0], before, body)
        return body

    def _remove(self, address: Address) -> None:
        gone = self._at(address, None)
        assert gone is not None
        self._versions[address].append((self._clock(), None))
        self._tell(address[0], gone, None)

    def _tell(self, plural: str, before: Object | None, after: Object | None) -> None:
        for each in list(self.listeners):
            each(plural, before, after)


def _operate(body: Object, operation: Object) -> None:
    """One operation of a JSON Patch."""
    *path, last = [
        each.replace("~1", "/").replace("~0", "~") for each in operation["path"].split("/")[1:]
    ]
    parent: Any = body
    for each in path:
        parent = parent[int(each) if isinstance(parent, list) else each]
    key: Any = int(last) if isinstance(parent, list) else last
    match operation["op"]:
        case "test":
            if parent.get(key) != operation["value"]:
                raise Conflict(f"422 test of {operation['path']} failed")
        case "replace" | "add":
            parent[key] = operation["value"]
        case "remove":
            if key not in parent:
                raise Refused(f"422 {operation['path']} is missing")
            del parent[key]
        case other:
            raise ValueError(other)
