"""An event loop whose time passes only when nothing else is left to do: hours take milliseconds."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import selectors
from collections.abc import Callable
from typing import Any

BEGAN = 1_800_000_000.0
"""Unix seconds; times of a run are counted from here."""


class _Patience(selectors.SelectSelector):
    """Waits by moving the clock on."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        assert timeout is not None, "everybody waits for somebody, and nobody for a time"
        self.now += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop; its time is seconds since the run began."""

    def __init__(self) -> None:
        self._patience = _Patience()
        super().__init__(self._patience)
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def time(self) -> float:
        return self._patience.now

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        """Do something so many seconds from now, in the order in which it was asked for."""
        due = self.time() + seconds
        heapq.heappush(self._agenda, (due, next(self._order), act))
        self.call_at(due, self._act)

    def _act(self) -> None:
        _, _, act = heapq.heappop(self._agenda)
        act()
