"""
The work queue: keyed, deduplicating, one worker per key, a bounded number of workers in all.

A key that is added while it is being worked on is worked on once more afterwards. A pass says
when it wants the next one; a pass that failed is tried again after a back-off of its own, with
jitter, so that a broken object neither spins nor delays the others.

Who is looked at for no other cause than that it is there comes after all who have one: a fleet
that is listed at a start, or swept, keeps no rollout on trial waiting.

A tenant has at most half of the workers: one whose passes all wait for something slow leaves the
other half to the others. Tenants take turns.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

LOG = logging.getLogger(__name__)
K = TypeVar("K", bound=Hashable)

FIRST_BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 60.0


@dataclass(slots=True)
class _Due:
    """When a key is to be worked on, and how."""

    since: float
    is_patient: bool
    bell: asyncio.Event = field(default_factory=asyncio.Event)


class Queue(Generic[K]):
    """
    Calls `work(key)`; the number it returns is when to call it again (None: only when added).

    `late` is told how long after it was due each call begins; those of the patient are never due.
    """

    def __init__(
        self,
        work: Callable[[K], Awaitable[float | None]],
        workers: int = 16,
        tenant_of: Callable[[K], Hashable] = lambda key: key,
        late: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        self._work = work
        self._late = late
        self._places: _Places[K] = _Places(workers, tenant_of)
        self._tasks: dict[K, asyncio.Task[None]] = {}
        self._due: dict[K, _Due] = {}
        self._failures: dict[K, int] = {}

    def add(self, key: K, *, is_patient: bool = False) -> None:
        """Look at this key soon; or, when it has no cause, after all that have one."""
        now = asyncio.get_running_loop().time()
        if key not in self._due:
            self._due[key] = due = _Due(since=now, is_patient=is_patient)
            self._tasks[key] = asyncio.create_task(self._drive(key, due), name=f"rollout {key}")
        elif not is_patient:
            # Who is here is looked at in any case: only a cause makes it sooner.
            self._hurry(key, now)

    def _hurry(self, key: K, now: float) -> None:
        due = self._due[key]
        if due.is_patient or not due.bell.is_set():
            due.since = now
        due.is_patient = False
        due.bell.set()
        self._places.hurry(key)

    def __len__(self) -> int:
        return len(self._tasks)

    async def close(self) -> None:
        """Stop after what is being worked on is cancelled."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _drive(self, key: K, due: _Due) -> None:
        now = asyncio.get_running_loop().time
        try:
            while True:
                async with self._places.taken(key, is_patient=due.is_patient):
                    if not due.is_patient:
                        self._late(max(0.0, now() - due.since))
                    due.is_patient = False
                    due.bell.clear()
                    delay = await self._attempt(key)
                if due.bell.is_set():
                    continue
                if delay is None:
                    return
                due.since = now() + delay
                await self._sleep(due.bell, delay)
        finally:
            self._tasks.pop(key, None)
            self._due.pop(key, None)

    @staticmethod
    async def _sleep(bell: asyncio.Event, delay: float) -> None:
        try:
            await asyncio.wait_for(bell.wait(), delay)
        except TimeoutError:
            return

    async def _attempt(self, key: K) -> float | None:
        try:
            delay = await self._work(key)
        except Exception as error:  # noqa: BLE001  # whatever it is, other keys go on
            return self._backoff(key, error)
        self._failures.pop(key, None)
        return delay

    def _backoff(self, key: K, error: Exception) -> float:
        count = self._failures.get(key, 0)
        self._failures[key] = count + 1
        longest: float = min(LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2 ** min(count, 10))
        delay = longest * random.uniform(0.5, 1)  # noqa: S311  # spreads load, hides nothing
        LOG.warning("pass failed: %s; again in %.1f s", error, delay, extra={"key": str(key)})
        return delay


_Line = dict[Hashable, dict[K, "asyncio.Future[None]"]]
"""Who waits for a place, by tenant; the tenant whose turn it is comes first."""


class _Places(Generic[K]):
    """As many as there are workers."""

    def __init__(self, count: int, tenant_of: Callable[[K], Hashable]) -> None:
        self._free = count
        self._most_per_tenant = max(1, count // 2)
        self._tenant_of = tenant_of
        self._taken: Counter[Hashable] = Counter()
        self._hasty: _Line[K] = {}
        self._patient: _Line[K] = {}

    @asynccontextmanager
    async def taken(self, key: K, *, is_patient: bool) -> AsyncIterator[None]:
        """Wait for a place, and leave it in the end."""
        tenant = self._tenant_of(key)
        place = asyncio.get_running_loop().create_future()
        _stand_in(self._patient if is_patient else self._hasty, tenant, key, place)
        self._admit()
        try:
            await place
            yield
        finally:
            if place.done() and not place.cancelled():
                self._leave(tenant)
            else:
                for line in (self._hasty, self._patient):
                    _step_out(line, tenant, key)

    def hurry(self, key: K) -> None:
        """Whoever waits patiently waits with the others now."""
        tenant = self._tenant_of(key)
        place = _step_out(self._patient, tenant, key)
        if place is not None:
            _stand_in(self._hasty, tenant, key, place)

    def _leave(self, tenant: Hashable) -> None:
        self._free += 1
        self._taken[tenant] -= 1
        if not self._taken[tenant]:
            del self._taken[tenant]
        self._admit()

    def _admit(self) -> None:
        """Give away all that is free, as far as somebody may have it."""
        for line in (self._hasty, self._patient):
            while self._free and (tenant := self._whose_turn(line)) is not None:
                key = next(iter(line[tenant]))
                place = _step_out(line, tenant, key)
                if tenant in line:
                    line[tenant] = line.pop(tenant)
                if place is not None and not place.cancelled():
                    self._free -= 1
                    self._taken[tenant] += 1
                    place.set_result(None)

    def _whose_turn(self, line: _Line[K]) -> Hashable | None:
        return next((each for each in line if self._taken[each] < self._most_per_tenant), None)


def _stand_in(line: _Line[K], tenant: Hashable, key: K, place: asyncio.Future[None]) -> None:
    line.setdefault(tenant, {})[key] = place


def _step_out(line: _Line[K], tenant: Hashable, key: K) -> asyncio.Future[None] | None:
    place = line.get(tenant, {}).pop(key, None)
    if tenant in line and not line[tenant]:
        del line[tenant]
    return place
