"""
Traces of rollouts, kept beside them: one ConfigMap for each ModelRollout, with its last rollouts.

A pass hands over what it saw and goes on. Memory has what was added since the last write only: a
write reads what there is, joins the two, and writes it back, so that whoever leads next goes on
with it. Losing a write costs points of a picture, and nothing else.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from modelrollout.adapters.cluster import CONFIG_MAPS, Object, Resource, owner_of
from modelrollout.core.observation import Observation, Rollout
from modelrollout.core.plan import Plan
from modelrollout.core.trace import Trace, decoded, encoded, joined, trace_of
from modelrollout.core.tracing import described, followed, is_decision
from modelrollout.errors import NotFound, Refused, RolloutError

LOG = logging.getLogger(__name__)
KEPT = 5
"""Rollouts of one ModelRollout."""
TAIL_POINTS = 24
"""Between two writes."""
LEAST_SECONDS = 120.0
SHARE_OF_AGE = 0.1
"""Writes are less frequent in a long rollout, whose points are further apart."""
RETRY_SECONDS = 15.0
CLOSE_SECONDS = 5.0

Key = tuple[str, str]


class Objects(Protocol):
    """What is needed of the Kubernetes API: see adapters/cluster.py."""

    async def get(self, resource: Resource, namespace: str, name: str) -> Object:
        """One object, or NotFound."""

    async def create(self, resource: Resource, namespace: str, body: Object) -> Object:
        """A new object, or Conflict."""

    async def patch(
        self, resource: Resource, namespace: str, name: str, operations: Sequence[Object]
    ) -> Object:
        """A JSON Patch, or Conflict."""


@dataclass(slots=True)
class _Tail:
    """What was seen of a ModelRollout since the last write."""

    traces: tuple[Trace, ...] = ()
    """The last one is of what is on trial, unless it has ended."""
    owner: Object = field(default_factory=dict)
    due: float = 0.0
    is_decided: bool = False
    """Something was decided that nobody writes yet."""
    task: asyncio.Task[None] | None = None

    @property
    def open(self) -> Trace | None:
        """The one that goes on."""
        return self.traces[-1] if self.traces and self.traces[-1].ended is None else None


class Recorder:
    """All traces."""

    def __init__(self, cluster: Objects, retry_seconds: float = RETRY_SECONDS) -> None:
        self._cluster = cluster
        self._retry_seconds = retry_seconds
        self._tails: dict[Key, _Tail] = {}

    def record(self, rollout: Rollout, seen: Observation, plan: Plan) -> None:
        """Take a pass for later. Never waits, never fails."""
        key = (rollout.namespace, rollout.name)
        try:
            self._record(key, rollout, seen, plan)
        except Exception:  # a picture less
            LOG.exception("trace of %s/%s not kept", *key)
            self._tails.pop(key, None)

    async def settle(self) -> None:
        """Wait for the writes that have begun."""
        tasks = [each.task for each in self._tails.values() if each.task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self, patience_seconds: float = CLOSE_SECONDS) -> None:
        """Write what there is while patience lasts: who leads next goes on with it."""
        writing = asyncio.create_task(self._write_all())
        await asyncio.wait({writing}, timeout=patience_seconds)
        for each in (writing, *(tail.task for tail in self._tails.values())):
            if each is not None:
                each.cancel()

    async def _write_all(self) -> None:
        await self.settle()
        for key, tail in list(self._tails.items()):
            if tail.traces:
                self._begin_write(key, tail)
        await self.settle()

    def _record(self, key: Key, rollout: Rollout, seen: Observation, plan: Plan) -> None:
        if rollout.is_deleting:
            # The ConfigMap goes with it.
            self._tails.pop(key, None)
            return
        tail = self._tails.get(key)
        is_idle = rollout.status.candidate is None and plan.status.candidate is None
        if tail is None:
            if is_idle:
                return
            tail = self._tails.setdefault(key, _Tail())
        if not is_idle:
            ended = tail.traces[:-1] if tail.open else tail.traces
            tail.traces = ended + followed(tail.open, rollout, seen, plan, TAIL_POINTS)
        is_due = is_decision(rollout, plan) and not is_idle
        tail.owner = owner_of(rollout)
        if is_due:
            tail.due, tail.is_decided = 0.0, True
        if tail.task is None and tail.traces and seen.now >= tail.due:
            began = tail.traces[-1].began or seen.now
            tail.due = seen.now + max(LEAST_SECONDS, SHARE_OF_AGE * (seen.now - began))
            if tail.open is not None:
                known = described(tail.traces[-1], rollout, seen, plan)
                tail.traces = (*tail.traces[:-1], known)
            self._begin_write(key, tail)

    def _begin_write(self, key: Key, tail: _Tail) -> None:
        name = f"trace of {key[0]}/{key[1]}"
        tail.task = asyncio.create_task(self._write(key, tail), name=name)

    async def _write(self, key: Key, tail: _Tail) -> None:
        pending, is_decided = tail.traces, tail.is_decided
        tail.is_decided = False
        tail.traces = tuple(_without_content(each) for each in pending if each.ended is None)
        try:
            stored = await self._store(key, pending, tail.owner)
        except RolloutError as error:
            LOG.warning("trace of %s/%s not written: %s", *key, error)
            tail.traces = _rejoined(pending, tail.traces)
            tail.is_decided |= is_decided
            if not isinstance(error, Refused):
                self._look_again(key, tail, self._retry_seconds)
        else:
            tail.traces = _rejoined(stored, tail.traces)
            if not tail.traces:
                self._tails.pop(key, None)
            self._look_again(key, tail, 0.0)
        finally:
            tail.task = None

    def _look_again(self, key: Key, tail: _Tail, seconds: float) -> None:
        """After the end of a rollout, no pass may come for long that would write it."""

        def look() -> None:
            if tail.is_decided and tail.task is None and self._tails.get(key) is tail:
                self._begin_write(key, tail)

        asyncio.get_running_loop().call_later(seconds, look)

    async def _store(self, key: Key, pending: Sequence[Trace], owner: Object) -> tuple[Trace, ...]:
        """Write, and say how the open trace goes on."""
        namespace, rollout = key
        name = trace_of(rollout)
        try:
            live: Object | None = await self._cluster.get(CONFIG_MAPS, namespace, name)
        except NotFound:
            live = None
        if live is not None and not _is_of(live, owner):
            raise Refused(f"ConfigMap {name} exists and is not this operator's: rename it")
        files: dict[str, str] = dict((live or {}).get("binaryData") or {})
        begun = [_continued(files, each) for each in pending]
        changed = {each.name: base64.b64encode(encoded(each)).decode() for each in begun}
        kept = dict(sorted((files | changed).items())[-KEPT:])
        if live is None:
            await self._cluster.create(CONFIG_MAPS, namespace, _config_map(key, kept, owner))
        else:
            operations = _operations(live, kept, changed)
            await self._cluster.patch(CONFIG_MAPS, namespace, name, operations)
        return tuple(_without_content(each) for each in begun if each.ended is None)


def _continued(files: dict[str, str], part: Trace) -> Trace:
    """With what is stored of the same rollout."""
    # Others may write to it: as many as are kept are looked at, and nothing that is larger.
    for name in sorted(files, reverse=True)[:KEPT]:
        if part.began is not None and name != part.name:
            continue
        try:
            known = decoded(base64.b64decode(files[name], validate=True))
        except (ValueError, binascii.Error):
            continue
        if known.ended is None and known.candidate.revision == part.candidate.revision:
            return joined(known, part)
    if part.began is not None:
        return part
    return replace(part, began=part.points[0].time if part.points else 0.0)


def _without_content(trace: Trace) -> Trace:
    return replace(trace, points=(), decisions=(), slices=(), guardrails=())


def _rejoined(first: Sequence[Trace], then: Sequence[Trace]) -> tuple[Trace, ...]:
    """What is to be written yet, and what was added meanwhile to the last of it."""
    if not first or not then or first[-1].ended is not None:
        return (*first, *then)
    return (*first[:-1], joined(first[-1], then[0]), *then[1:])


def _is_of(live: Object, owner: Object) -> bool:
    owners = live["metadata"].get("ownerReferences") or []
    return any(each.get("uid") == owner["uid"] for each in owners)


def _config_map(key: Key, files: dict[str, str], owner: Object) -> Object:
    metadata = {
        "name": trace_of(key[1]),
        "namespace": key[0],
        "labels": {"app.kubernetes.io/managed-by": "modelrollout"},
        "ownerReferences": [owner],
    }
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "binaryData": files}


def _operations(live: Object, kept: dict[str, str], changed: dict[str, str]) -> list[Object]:
    """Only from what was read: who wrote since is read first."""
    version = live["metadata"]["resourceVersion"]
    operations: list[Object] = [
        {"op": "test", "path": "/metadata/resourceVersion", "value": version}
    ]
    files = live.get("binaryData") or {}
    if not files:
        return [*operations, {"op": "add", "path": "/binaryData", "value": kept}]
    return [
        *operations,
        *({"op": "remove", "path": f"/binaryData/{each}"} for each in files if each not in kept),
        *(
            {"op": "add", "path": f"/binaryData/{each}", "value": value}
            for each, value in changed.items()
            if each in kept
        ),
    ]
