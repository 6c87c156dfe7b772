"""Processes of the operator: its own queue and passes, over a connection that can go wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from chaos.apiserver import ApiServer
from chaos.clock import VirtualLoop
from chaos.metrics import Prometheus
from chaos.plane import Plane
from modelrollout.adapters.cluster import (
    DEPLOYMENTS,
    EVENTS,
    HTTP_ROUTES,
    ROLLOUTS,
    Object,
    Resource,
)
from modelrollout.adapters.comparator import Comparators
from modelrollout.adapters.routers.gateway_api import GatewayAPIRouter
from modelrollout.api import v1alpha1 as api
from modelrollout.core.observation import CheckResult
from modelrollout.errors import Conflict, NotFound
from modelrollout.queue import Queue
from modelrollout.reconcile import Key, reconcile
from modelrollout.world import World

CALL_SECONDS = 0.003
WATCH_SECONDS = 0.02
SWEEP_SECONDS = 300.0
CONFLICT_SECONDS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request to the API server."""

    number: int
    """Among all of the process."""
    write: int
    """Among its writes; 0 for a read."""
    verb: str
    resource: Resource
    name: str


Fault = Callable[[Call, Callable[[], Object]], Awaitable[Object]]
"""Carries a call out, or not."""


async def no_fault(_call: Call, do: Callable[[], Object]) -> Object:
    return do()


@dataclass
class Connection:
    """The verbs of the cluster adapter, for one process."""

    server: ApiServer
    fault: Fault = no_fault
    lag_seconds: float = 0.0
    """Reads are so much older than now."""
    is_dead: bool = False
    calls: list[Call] = field(default_factory=list)
    writes: int = 0

    async def get(self, resource: Resource, namespace: str, name: str) -> Object:
        return await self._call(
            "get", resource, name, lambda: self.server.get(resource, namespace, name, self._as_of)
        )

    async def list(
        self, resource: Resource, namespace: str | None = None, selector: str = ""
    ) -> list[Object]:
        def do() -> Object:
            found = self.server.list(resource, namespace, selector, self._as_of)
            return {"items": found}

        found: list[Object] = (await self._call("list", resource, selector, do))["items"]
        return found

    async def create(self, resource: Resource, namespace: str, body: Object) -> Object:
        assert namespace == "shop"
        name = body["metadata"].get("name", "")
        return await self._call(
            "create", resource, name, lambda: self.server.create(resource, namespace, body)
        )

    async def patch(
        self, resource: Resource, namespace: str, name: str, operations: Sequence[Object]
    ) -> Object:
        assert namespace == "shop"
        return await self._call(
            "patch",
            resource,
            name,
            lambda: self.server.patch(resource, namespace, name, operations),
        )

    async def apply(self, resource: Resource, namespace: str, name: str, body: Object) -> Object:
        assert namespace == "shop"
        return await self._call(
            "apply", resource, name, lambda: self.server.apply(resource, namespace, name, body)
        )

    async def delete(self, resource: Resource, namespace: str, name: str) -> None:
        assert namespace == "shop"

        def do() -> Object:
            self.server.delete(resource, namespace, name)
            return {}

        try:
            await self._call("delete", resource, name, do)
        except NotFound:
            return

    async def replace_status(self, resource: Resource, body: Object) -> Object:
        name = body["metadata"]["name"]
        return await self._call(
            "status", resource, name, lambda: self.server.replace_status(resource, body)
        )

    @property
    def _as_of(self) -> float | None:
        return self.server.now() - self.lag_seconds if self.lag_seconds else None

    async def _call(
        self, verb: str, resource: Resource, name: str, do: Callable[[], Object]
    ) -> Object:
        if self.is_dead:
            raise asyncio.CancelledError
        is_write = verb not in {"get", "list"} and resource != EVENTS
        self.writes += is_write
        call = Call(
            number=len(self.calls),
            write=self.writes if is_write else 0,
            verb=verb,
            resource=resource,
            name=name,
        )
        self.calls.append(call)
        await asyncio.sleep(CALL_SECONDS)
        return await self.fault(call, do)


class Checker:
    """Every check passes as soon as somebody answers."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane

    async def run(
        self, _check: api.HttpCheck, _namespace: str, service: str, _port: int
    ) -> CheckResult:
        await asyncio.sleep(CALL_SECONDS)
        return CheckResult(passed=self._plane.endpoints(service) > 0, message="refused")


class Operator:
    """One process: it lists, watches, sweeps and works its queue, as the shell does."""

    def __init__(
        self,
        loop: VirtualLoop,
        server: ApiServer,
        plane: Plane,
        prometheus: Prometheus,
        clock: Callable[[], float],
        fault: Fault = no_fault,
    ) -> None:
        self._loop = loop
        self.connection = Connection(server, fault)
        self.passes = 0
        self.is_watching = True
        self._queue: Queue[Key] = Queue(self._work)
        self._references: dict[Key, frozenset[tuple[str, str, str]]] = {}
        self._traces: dict[Key, object] = {}
        self._world = World(
            cluster=self.connection,
            metrics={"default": prometheus},
            router=GatewayAPIRouter(self.connection, clock),
            comparators=Comparators(self.connection, "modelrollout", "IfNotPresent"),
            checker=Checker(plane),
            clock=clock,
        )
        self._server = server
        server.listeners.append(self._changed)
        self._sweep()

    def die(self) -> None:
        """From now on nothing of it reaches the API server."""
        self.connection.is_dead = True
        self._server.listeners.remove(self._changed)

    async def close(self) -> None:
        """Take its tasks away."""
        if not self.connection.is_dead:
            self.die()
        await self._queue.close()

    async def _work(self, key: Key) -> float | None:
        self.passes += 1
        try:
            done = await reconcile(key, self._world)
        except Conflict:
            return CONFLICT_SECONDS
        self._references[key] = done.references
        return done.look_again_seconds

    def _sweep(self) -> None:
        if self.connection.is_dead:
            return
        self.list_all()
        self._loop.later(SWEEP_SECONDS, self._sweep)

    def list_all(self) -> None:
        """As a watch begins, and as a sweep looks."""
        for each in self._server.list(ROLLOUTS):
            self._queue.add((each["metadata"]["namespace"], each["metadata"]["name"]))

    def _changed(self, plural: str, before: Object | None, after: Object | None) -> None:
        body = after or before
        assert body is not None
        if self.is_watching:
            self._loop.later(WATCH_SECONDS, lambda: self._ring(plural, body, is_gone=after is None))

    def _ring(self, plural: str, body: Object, *, is_gone: bool) -> None:
        if self.connection.is_dead:
            return
        meta = body["metadata"]
        if plural == ROLLOUTS.plural:
            key = (meta["namespace"], meta["name"])
            command = meta.get("annotations", {}).get(api.COMMAND)
            trace = (meta["uid"], meta["generation"], meta.get("deletionTimestamp"), command)
            if self._traces.get(key) != trace or is_gone:
                self._traces[key] = trace
                self._queue.add(key)
        elif plural in {DEPLOYMENTS.plural, HTTP_ROUTES.plural}:
            address = (plural, meta["namespace"], meta["name"])
            for key, references in self._references.items():
                if address in references:
                    self._queue.add(key)
