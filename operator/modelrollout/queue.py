"""
The work queue: keyed, deduplicating, one worker per key, a bounded number of workers in all.

A key that is added while it is being worked on is worked on once more afterwards. A pass says
when it wants the next one; a pass that failed is tried again after a back-off of its own, with
jitter, so that a broken object neither spins nor delays the others.

A tenant has at most half of the workers: one whose passes all wait for something slow leaves the
other half to the others.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

LOG = logging.getLogger(__name__)
K = TypeVar("K", bound=Hashable)

FIRST_BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 60.0


class Queue(Generic[K]):
    """Calls `work(key)`; the number it returns is when to call it again (None: only when added)."""

    def __init__(
        self,
        work: Callable[[K], Awaitable[float | None]],
        workers: int = 16,
        tenant_of: Callable[[K], Hashable] = lambda key: key,
    ) -> None:
        self._work = work
        self._slots = asyncio.Semaphore(workers)
        self._most_per_tenant = max(1, workers // 2)
        self._tenant_of = tenant_of
        # They are there while somebody works for the tenant, or waits to.
        self._shares: WeakValueDictionary[Hashable, asyncio.Semaphore] = WeakValueDictionary()
        self._tasks: dict[K, asyncio.Task[None]] = {}
        self._bells: dict[K, asyncio.Event] = {}
        self._failures: dict[K, int] = {}

    def add(self, key: K) -> None:
        """Look at this key soon."""
        bell = self._bells.setdefault(key, asyncio.Event())
        bell.set()
        if key not in self._tasks:
            self._tasks[key] = asyncio.create_task(self._drive(key, bell), name=f"rollout {key}")

    def __len__(self) -> int:
        return len(self._tasks)

    async def close(self) -> None:
        """Stop after what is being worked on is cancelled."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _drive(self, key: K, bell: asyncio.Event) -> None:
        try:
            while True:
                bell.clear()
                delay = await self._attempt(key)
                if delay is None and not bell.is_set():
                    return
                await self._sleep(bell, delay)
        finally:
            self._tasks.pop(key, None)
            self._bells.pop(key, None)

    @staticmethod
    async def _sleep(bell: asyncio.Event, delay: float | None) -> None:
        try:
            await asyncio.wait_for(bell.wait(), delay)
        except TimeoutError:
            return

    async def _attempt(self, key: K) -> float | None:
        async with self._share_of(key), self._slots:
            try:
                delay = await self._work(key)
            except Exception as error:  # noqa: BLE001  # whatever it is, other keys go on
                return self._backoff(key, error)
        self._failures.pop(key, None)
        return delay

    def _share_of(self, key: K) -> asyncio.Semaphore:
        """The tenant's own slots: who waits for one of them keeps none of the others'."""
        return self._shares.setdefault(
            self._tenant_of(key), asyncio.Semaphore(self._most_per_tenant)
        )

    def _backoff(self, key: K, error: Exception) -> float:
        count = self._failures.get(key, 0)
        self._failures[key] = count + 1
        longest: float = min(LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2 ** min(count, 10))
        delay = longest * random.uniform(0.5, 1)  # noqa: S311  # spreads load, hides nothing
        LOG.warning("pass failed: %s; again in %.1f s", error, delay, extra={"key": str(key)})
        return delay
