"""
The kopf shell: every handler rings a bell, none does any work.

kopf lists and watches; what it sees is only a hint that something changed. `on.event` handlers
are the one kind of handler that leaves no trace on the objects (no finalizer, no annotation),
and kopf swallows their errors: so they put a key into the queue and return.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from pathlib import Path
from typing import Any, cast

import aiohttp
import kopf

from modelrollout import telemetry
from modelrollout.adapters.cluster import (
    DEPLOYMENTS,
    HTTP_ROUTES,
    ROLLOUTS,
    ROLLOUTS_METADATA,
    Object,
    Resource,
    metadata_of,
)
from modelrollout.api import v1alpha1 as api
from modelrollout.errors import Conflict
from modelrollout.queue import Queue
from modelrollout.reconcile import Key, reconcile
from modelrollout.settings import Settings
from modelrollout.world import World

LOG = logging.getLogger(__name__)
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
CONFLICT_SECONDS = 0.1

Trace = tuple[str | None, int | None, str | None, str | None]
"""Uid, generation, deletion and command of a ModelRollout: what others change in it."""


class Shell:
    """The queue, and what rings for which key. Nothing in here matters after a restart."""

    def __init__(self, world: World, settings: Settings) -> None:
        self._world = world
        self._settings = settings
        self._queue: Queue[Key] = Queue(
            self._work, settings.workers, itemgetter(0), telemetry.LATE_SECONDS.observe
        )
        self._traces: dict[Key, Trace] = {}
        self._references: dict[Key, frozenset[tuple[str, str, str]]] = {}
        self._listeners: dict[tuple[str, str, str], set[Key]] = defaultdict(set)

    async def run(self) -> None:
        """Watch, work and sweep, until one of them ends; that ends the process."""
        registry = kopf.OperatorRegistry()
        self._register(registry)
        sweep = asyncio.create_task(self._sweep(), name="sweep")
        try:
            await kopf.operator(
                registry=registry,
                clusterwide=not self._settings.namespaces,
                namespaces=self._settings.namespaces,
                standalone=True,
                # kopf would look up our user's name, and a numeric user has none.
                identity=self._settings.identity,  # type: ignore[arg-type]  # a NewType of str
            )
        finally:
            sweep.cancel()
            await self._queue.close()

    async def _work(self, key: Key) -> float | None:
        try:
            with telemetry.running(*key):
                done = await reconcile(key, self._world)
        except Conflict as conflict:
            LOG.info("looks again: %s", conflict)
            return CONFLICT_SECONDS
        except Exception:
            telemetry.PASS_FAILURES.inc()
            raise
        self._listen(key, done.references)
        return done.look_again_seconds

    def _listen(self, key: Key, references: frozenset[tuple[str, str, str]]) -> None:
        before = self._references.get(key, frozenset())
        for gone in before - references:
            self._listeners[gone].discard(key)
            if not self._listeners[gone]:
                del self._listeners[gone]
        for new in references - before:
            self._listeners[new].add(key)
        if references:
            self._references[key] = references
        else:
            # It is gone, or asks for nothing that could be listened to.
            self._references.pop(key, None)
            self._traces.pop(key, None)

    async def _sweep(self) -> None:
        """A watch that misses something can delay, never mislead."""
        while True:
            await asyncio.sleep(self._settings.sweep_seconds)
            found: list[Object] = []
            try:
                for namespace in self._settings.namespaces or (None,):
                    found += await self._world.cluster.list(ROLLOUTS_METADATA, namespace)
            except Exception as error:  # noqa: BLE001  # the next sweep is the retry
                LOG.warning("sweep failed: %s", error)
            else:
                self._look_at_all(found)

    def _look_at_all(self, found: Sequence[Object]) -> None:
        """The watch has our shard only: here the others' are seen, too."""
        others = set()
        for each in found:
            key = (each["metadata"]["namespace"], each["metadata"]["name"])
            is_ours = self._settings.shard.selects(each)
            if is_ours or key in self._traces:
                self._queue.add(key, is_patient=True)
            if not is_ours:
                others.add(key)
        telemetry.others(others)

    def _register(self, registry: kopf.OperatorRegistry) -> None:
        kopf.on.startup(registry=registry)(self._configure)
        kopf.on.login(registry=registry)(_login)
        kopf.on.event(*_address(ROLLOUTS), registry=registry)(self._rollout_changed)
        kopf.on.event(*_address(DEPLOYMENTS), registry=registry)(self._deployment_changed)
        kopf.on.event(*_address(HTTP_ROUTES), registry=registry)(self._route_changed)

    async def _configure(self, settings: kopf.OperatorSettings, **_: Any) -> None:
        if self._settings.shard.text:
            address = (ROLLOUTS.group, ROLLOUTS.plural)
            settings.watching.label_selectors[address] = self._settings.shard.text
        _configure(settings)

    async def _rollout_changed(self, body: kopf.Body, event: kopf.RawEvent, **_: Any) -> None:
        """Our own writes of status come back as events too: only what others change rings."""
        meta = body["metadata"]
        key = (meta["namespace"], meta["name"])
        command = (meta.get("annotations") or {}).get(api.COMMAND)
        trace = (meta.get("uid"), meta.get("generation"), meta.get("deletionTimestamp"), command)
        if event["type"] == "DELETED":
            # It is gone, or its labels are another shard's now; they may be ours again at once.
            self._traces.pop(key, None)
            self._queue.add(key)
        elif self._traces.get(key) != trace:
            self._traces[key] = trace
            # Of all that are listed at a start, those whose traffic is away from rest come first.
            is_at_rest = api.FINALIZER not in (meta.get("finalizers") or [])
            self._queue.add(key, is_patient=event["type"] is None and is_at_rest)

    async def _deployment_changed(self, body: kopf.Body, **_: Any) -> None:
        self._ring(DEPLOYMENTS, body)

    async def _route_changed(self, body: kopf.Body, **_: Any) -> None:
        self._ring(HTTP_ROUTES, body)

    def _ring(self, resource: Resource, body: kopf.Body) -> None:
        meta = body["metadata"]
        for key in self._listeners.get((resource.plural, meta["namespace"], meta["name"]), ()):
            self._queue.add(key)


def _address(resource: Resource) -> tuple[str, str, str]:
    return resource.group, resource.version, resource.plural


def _configure(settings: kopf.OperatorSettings) -> None:
    settings.peering.standalone = True
    settings.scanning.disabled = True
    settings.posting.enabled = False
    settings.persistence.finalizer = f"{api.GROUP}/kopf"
    settings.persistence.diffbase_storage = _NoDifferences()
    # A worker keeps the object that it saw last for so long; there is one for each object listed.
    settings.queueing.idle_timeout = 0.1
    settings.networking.connect_timeout = 5
    settings.networking.request_timeout = 30
    settings.networking.error_backoffs = (1, 2, 4, 8)
    settings.watching.connect_timeout = 10
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.inactivity_timeout = 75
    settings.watching.reconnect_backoff = 1.0
    settings.watching.chunk_size = 500
    settings.process.ultimate_exiting_timeout = 20


class _NoDifferences(kopf.DiffBaseStorage):
    """
    Nobody asks kopf what has changed: it need not copy each object that it sees to compare it.

    The API server's generation says it, and leaves nothing on the object.
    """

    def build(self, **_: Any) -> kopf.BodyEssence:
        return cast("kopf.BodyEssence", {})

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        """Nothing."""


async def _login(**kwargs: Any) -> kopf.AiohttpSession | None:
    """
    The pod's own identity, with an expiration that moves; what is listed and watched is metadata.

    kopf gives up for good when a re-login after a 401 returns equal credentials; one transient
    401 would end the process. The moving time also follows the token's rotation.
    """
    if SERVICE_ACCOUNT.exists():  # noqa: ASYNC240  # a stat of a memory-backed mount
        info: kopf.ConnectionInfo | None = _of_pod()
    else:
        info = kopf.login_with_kubeconfig(**kwargs)
    if info is None:
        return None
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=info.as_ssl_context()),
        headers=info.as_http_headers(),
        middlewares=(_metadata_only,),
        response_class=_Listed,
        proxy=info.proxy_url,
        trust_env=info.trust_env,
    )
    return kopf.AiohttpSession(
        aiohttp_session=session,
        server=info.server,
        default_namespace=info.default_namespace,
        expiration=info.expiration,
    )


class _Listed(aiohttp.ClientResponse):
    """The API server says null for no metadata at all, which kopf takes for no list."""

    async def json(self, **kwargs: Any) -> Any:
        found = await super().json(**kwargs)
        is_null = isinstance(found, dict) and "items" in found and found["items"] is None
        return {**found, "items": []} if is_null else found


async def _metadata_only(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """A bell needs a name and a generation, not what is in the object."""
    is_watch = "watch" in request.url.query
    request.headers["Accept"] = metadata_of("" if is_watch else "List")
    return await handler(request)


def _of_pod() -> kopf.ConnectionInfo:
    host = os.environ["KUBERNETES_SERVICE_HOST"]
    host = f"[{host}]" if ":" in host else host
    now = datetime.now(UTC)  # noqa: TID251  # kopf compares it with its own clock
    return kopf.ConnectionInfo(
        server=f"https://{host}:{os.environ['KUBERNETES_SERVICE_PORT']}",
        ca_path=str(SERVICE_ACCOUNT / "ca.crt"),
        token=(SERVICE_ACCOUNT / "token").read_text().strip(),
        scheme="Bearer",
        default_namespace=(SERVICE_ACCOUNT / "namespace").read_text().strip(),
        expiration=now + timedelta(minutes=5),
    )
