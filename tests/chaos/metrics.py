"""A Prometheus that has scraped the data plane: raw series, read by the operator's own reader."""

from __future__ import annotations

import asyncio
import math
import re
from bisect import bisect_right
from collections.abc import Callable, Sequence

from chaos.plane import Plane, Pod
from modelrollout.adapters.prometheus import MAX_SPAN_SECONDS, MEMORY_SECONDS
from modelrollout.core import windows
from modelrollout.core.evidence import Grid, Histogram, Matcher, Query, Reading, Series
from modelrollout.errors import MetricsUnavailable

ANSWER_SECONDS = 0.01

Answer = tuple[Series, ...]
Distortion = Callable[[Answer], Answer]


def honest(answer: Answer) -> Answer:
    """As it was scraped."""
    return answer


class Prometheus:
    """Answers as the adapter of a real one does; faults change what it has stored."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self.is_down = False
        self.delay_seconds = ANSWER_SECONDS
        self.behind_seconds = 0.0
        """It answers with what it had so long ago."""
        self.distortion: Distortion = honest

    async def read(self, query: Query, grid: Grid, now: float) -> Reading:
        await self._answer()
        until = min(now, grid.watermark + max(MAX_SPAN_SECONDS, 2 * grid.width))
        since = grid.watermark - windows.lookback_seconds(grid)
        if until <= since:
            return Reading(watermark=grid.watermark)
        stable, candidate = (
            self._found(matchers, grid, since, until)
            for matchers in (query.stable, query.candidate)
        )
        samples = windows.Samples(
            stable=stable, candidate=candidate, until=until, is_events_metric_known=True
        )
        return windows.read(query, grid, samples, now)

    async def histogram(self, _query: Query, _start: float, _end: float) -> Histogram:
        raise AssertionError("no guardrail of these rollouts is a distribution")

    async def value(self, _expression: str, _namespace: str, _now: float) -> float | None:
        """The share of copies that were compared."""
        await self._answer()
        return 1.0

    async def _answer(self) -> None:
        await asyncio.sleep(self.delay_seconds)
        if self.is_down:
            raise MetricsUnavailable("Prometheus at prometheus cannot be reached.")
        self._plane.advance()

    def _found(
        self, matchers: Sequence[Matcher], grid: Grid, since: float, until: float
    ) -> windows.Found:
        pods = self._pods(matchers)
        total = self._between(pods, ("200", "500"), since, until)
        events = self._between(pods, ("500",), since, until)
        total_before: Answer = ()
        events_before: Answer = ()
        if windows.has_newcomers(grid, total, events):
            past = since - MEMORY_SECONDS
            total_before = _last(self._between(pods, ("200", "500"), past, since))
            events_before = _last(self._between(pods, ("500",), past, since))
        return windows.Found(
            total=total, events=events, total_before=total_before, events_before=events_before
        )

    def _pods(self, matchers: Sequence[Matcher]) -> list[Pod]:
        (pattern,) = [each.value for each in matchers if each.label == "pod"]
        return [each for each in self._plane.all_pods if re.fullmatch(pattern, each.name)]

    def _between(
        self, pods: Sequence[Pod], codes: Sequence[str], since: float, until: float
    ) -> Answer:
        """The series of these pods in (since, until], with whatever is wrong with them."""
        found = []
        until -= self.behind_seconds
        for each in pods:
            first, last = bisect_right(each.times, since), bisect_right(each.times, until)
            if first >= last:
                continue
            target = {"pod": each.name, "instance": each.name, "namespace": "shop", "job": "pods"}
            for code in codes:
                labels = tuple(sorted({**target, "code": code}.items()))
                values = tuple(
                    float(errors if code == "500" else requests - errors)
                    for requests, errors in each.counts[first:last]
                )
                found.append(
                    Series(labels=labels, times=tuple(each.times[first:last]), values=values)
                )
        return self.distortion(tuple(found))


def _last(answer: Answer) -> Answer:
    return tuple(
        Series(labels=each.labels, times=each.times[-1:], values=each.values[-1:])
        for each in answer
    )


# --- what a Prometheus can get wrong ------------------------------------------------------


def _each_value(change: Callable[[int, float], float]) -> Distortion:
    """Changes values by their place in time, so that the same sample is always as wrong."""

    def distort(answer: Answer) -> Answer:
        return tuple(
            Series(
                labels=each.labels,
                times=each.times,
                values=tuple(
                    change(int(time), value)
                    for time, value in zip(each.times, each.values, strict=True)
                ),
            )
            for each in answer
        )

    return distort


not_a_number = _each_value(lambda time, value: math.nan if time // 2 % 5 == 0 else value)
infinite = _each_value(lambda time, value: math.inf if time // 2 % 5 == 0 else value)
only_nonsense = _each_value(lambda _time, _value: math.nan)
backwards = _each_value(lambda time, value: value / 2 if time // 2 % 7 == 0 else value)
negative = _each_value(lambda time, value: -value if time // 2 % 7 == 0 else value)


def doubled(answer: Answer) -> Answer:
    """Each series twice, as two servers without a replica label give them."""
    return (*answer, *answer)


def halved(answer: Answer) -> Answer:
    """Only some of the series: a partial answer that nobody has marked."""
    return answer[::2]


def second_replica(answer: Answer) -> Answer:
    """Another server with gaps, told apart by its label."""

    def labelled(series: Series, replica: str) -> Series:
        labels = tuple(sorted({**dict(series.labels), "prometheus_replica": replica}.items()))
        kept = [
            index
            for index, time in enumerate(series.times)
            if replica == "a" or int(time) // 20 % 3 != 0
        ]
        times = tuple(series.times[index] for index in kept)
        return Series(
            labels=labels, times=times, values=tuple(series.values[index] for index in kept)
        )

    both = [labelled(each, replica) for replica in ("a", "b") for each in answer]
    return tuple(each for each in both if each.times)
