"""
How many requests are repeated: a budget, and less than it when the versions become slower.

The share that is admitted follows the arrivals, so that it is decided by a request's id alone
which ones are: the same by every replica, and all of a session's if they share an id. There is
no queue: what is not admitted is let go. Times are given, never asked for.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from statistics import median
from typing import Final

PERIOD: Final = 1.0
"""Seconds between two adjustments of the share."""
SLOWER: Final = 2.0
"""How many times its own recent best a version may take."""
SLACK_SECONDS: Final = 0.01
"""What a scheduler takes by itself; a model of a millisecond is not overloaded at three."""
ENOUGH: Final = 20
"""Answers that make a median worth comparing."""
REMEMBERED: Final = 60
"""Medians, of which a tenth may be better than the best; what was fast an hour ago says nothing now."""
BACK_OFF: Final = 0.7
RECOVERY: Final = 0.05
"""Of the budget, each period."""
FIRST: Final = 0.2
"""Of the budget, at the start: how fast a version can be is seen before it is loaded."""
BURST_SECONDS: Final = 0.25
"""What may come at once, in seconds of the rate."""
LEAST: Final = 1.0
"""Requests per second that are always tried: without answers nobody knows that it is over."""


@dataclass(slots=True)
class Slowness:
    """Whether a version answers more slowly than it lately could."""

    _seconds: list[float] = field(default_factory=list)
    _medians: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))

    def answered(self, seconds: float) -> None:
        """An answer took so long."""
        self._seconds.append(seconds)

    def looked_at(self) -> bool:
        """Whether the answers since the last look, if there were enough, were slow."""
        if len(self._seconds) < ENOUGH:
            return False
        now = median(self._seconds)
        self._seconds.clear()
        self._medians.append(now)
        # Not the least, which is chance where some answers take long and others do not.
        best = sorted(self._medians)[len(self._medians) // 10]
        return now > SLOWER * best + SLACK_SECONDS


@dataclass(slots=True)
class Throttle:
    """Additive increase, multiplicative decrease of the rate that is admitted."""

    budget: float
    """Requests per second, at most."""
    rate: float = field(init=False)
    share: float = 1.0
    """The share of the requests that is admitted now."""
    _tokens: float = field(init=False)
    _arrived: int = 0
    _period_began: float | None = None
    _filled: float = 0.0
    _is_overloaded: bool = False
    _slowness: dict[str, Slowness] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rate = self._tokens = max(FIRST * self.budget, LEAST)

    @property
    def is_held_back(self) -> bool:
        """Whether less than the budget is admitted, for the versions' sake."""
        return self.rate < self.budget

    def admits(self, now: float, place: float) -> bool:
        """Whether a request that falls at `place` is repeated."""
        self._arrived += 1
        self._adjust(now)
        if place >= self.share:
            return False
        self._fill(now)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def answered(self, version: str, seconds: float) -> None:
        """A version answered."""
        self._slowness.setdefault(version, Slowness()).answered(seconds)

    def overloaded(self) -> None:
        """A version said that it has too much to do, or did not answer in time."""
        self._is_overloaded = True

    def _fill(self, now: float) -> None:
        grown = (now - self._filled) * self.rate if self._filled else 0.0
        # Less than one request would never be admitted.
        self._tokens = min(max(self.rate * BURST_SECONDS, 1.0), self._tokens + grown)
        self._filled = now

    def _adjust(self, now: float) -> None:
        if self._period_began is None:
            self._period_began = now
        passed = now - self._period_began
        if passed < PERIOD:
            return
        arrivals = self._arrived / passed
        slow = [each.looked_at() for each in self._slowness.values()]
        if self._is_overloaded or any(slow):
            self.rate = max(min(self.rate, arrivals) * BACK_OFF, LEAST)
        else:
            self.rate = min(self.budget, self.rate + self.budget * RECOVERY)
        self.share = min(1.0, self.rate / arrivals)
        self._period_began, self._arrived, self._is_overloaded = now, 0, False


@dataclass(slots=True)
class Memory:
    """Bytes of bodies that are held at one time, requests and answers together."""

    most: int
    held: int = 0


@dataclass(slots=True)
class Hold:
    """What one request and its answers hold of the memory, given back in one piece."""

    memory: Memory
    _size: int = 0

    def take(self, size: int) -> bool:
        """Whether there was room, which is now taken."""
        if self.memory.held + size > self.memory.most:
            return False
        self.memory.held += size
        self._size += size
        return True

    def give_back(self) -> None:
        """Nothing of it is needed any more."""
        self.memory.held -= self._size
        self._size = 0
