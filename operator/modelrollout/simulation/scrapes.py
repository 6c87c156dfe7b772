"""When the targets of a simulated world are scraped, and which instant of its traffic that was."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from modelrollout.simulation.exports import ANSWERED, WRONG, Site
from modelrollout.simulation.scenario import Scenario
from modelrollout.simulation.traffic import Array, Growing, Traffic

LATENESS_SECONDS = 0.005
"""A scrape comes so much after its due time at most."""
LATE = [ANSWERED, WRONG]
"""What is known of an answer only when the truth about it is."""
ROUNDS = 64
"""So many scrapes of each target are drawn at once."""
PHASES = 8
"""Targets beyond so many are scraped when others are."""


@dataclass(slots=True, kw_only=True, eq=False)
class Target:
    """Something that is scraped."""

    labels: Mapping[str, str]
    site: Site
    rows: Sequence[int]
    """Of the site's counters."""
    base: Array
    """What its rows had counted before it was there."""
    times: list[float] = field(default_factory=list)
    """Of its scrapes, Unix seconds."""
    values: Growing = field(init=False)
    """By scrape, row and column."""

    def __post_init__(self) -> None:
        self.values = Growing(self.base.shape)

    def scraped(self, times: Sequence[float], values: Array) -> None:
        """More samples of each of its series, of what the rows have counted in all."""
        self.times += times
        self.values.append((values - self.base).clip(min=0.0))

    def forget_after(self, time: float) -> None:
        """As if it had not been scraped since."""
        keep = bisect_right(self.times, time)
        del self.times[keep:]
        self.values.cut(keep)


class Scraper:
    """Scrapes each target once per interval, at a time of its own, outside of the gaps."""

    def __init__(
        self,
        traffic: Traffic,
        targets: Sequence[Target],
        generator: np.random.Generator,
        *,
        began: float,
        scenario: Scenario,
        is_gap: Callable[[float], bool],
    ) -> None:
        self.targets = list(targets)
        """Those that are gone included."""
        self._traffic = traffic
        self._draw = generator
        self._began = began
        self._interval = scenario.scrape_seconds
        self._delay = scenario.label_delay_seconds
        self._is_gap = is_gap
        groups = min(PHASES, len(targets))
        self._groups = [list(targets[each::groups]) for each in range(groups)]
        self._phases = generator.uniform(0.0, self._interval - LATENESS_SECONDS, groups)
        self._due: list[tuple[float, int]] = []
        """Times, and who is scraped then."""
        self._next = 0
        """The first of them that was not drawn."""

    def catch_up(self, now: float) -> None:
        """Everything that is scraped until then, and some more ahead."""
        while self._next == 0 or self._due[self._next - 1][0] <= now:
            self._scrape_ahead()

    def freeze(self, now: float) -> None:
        """What happens after `now` is open again: something changes."""
        self.catch_up(now)
        self._traffic.cut(now)
        self._next = bisect_right(self._due, (now, math.inf))
        for group in self._groups:
            for each in group:
                each.forget_after(now)

    def replace(self, old: Target, new: Target) -> None:
        """From the last instant on another target is there."""
        self.targets.append(new)
        for group in self._groups:
            group[:] = [new if each is old else each for each in group]

    def _scrape_ahead(self) -> None:
        size = ROUNDS * len(self._groups)
        while len(self._due) < self._next + size:
            self._due += self._rounds(len(self._due) // len(self._groups))
        block = self._due[self._next : self._next + size]
        times = np.array([time for time, _ in block])
        first = self._traffic.drawn
        self._traffic.draw(times)
        instants = first + np.arange(size)
        late = self._traffic.index_at(times - self._delay) if self._delay else instants
        seen = [
            (index, group) for index, (time, group) in enumerate(block) if not self._is_gap(time)
        ]
        for group, targets in enumerate(self._groups):
            chosen = [index for index, who in seen if who == group]
            for target in targets:
                counters = self._traffic.counters(target.site)
                values = counters[instants[chosen]][:, target.rows]
                values[..., LATE] = counters[late[chosen]][:, target.rows][..., LATE]
                target.scraped(times[chosen].tolist(), values)
        self._next += size

    def _rounds(self, first: int) -> list[tuple[float, int]]:
        """The next so many rounds of scrapes; none begins before the one before it has ended."""
        groups = len(self._groups)
        begins = self._began + self._interval * np.arange(first, first + ROUNDS)[:, None]
        late = self._draw.uniform(0.0, LATENESS_SECONDS, (ROUNDS, groups))
        times = np.round(begins + self._phases + late, 3)
        return sorted(zip(times.ravel().tolist(), [*range(groups)] * ROUNDS, strict=True))
