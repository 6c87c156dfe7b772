"""A Prometheus that answers from what was scraped in a simulated world."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import sub

import numpy as np
from numpy.typing import NDArray

from modelrollout.adapters.prometheus import MAX_SPAN_SECONDS, MEMORY_SECONDS
from modelrollout.api.v1alpha1 import LabelOperator
from modelrollout.core import windows
from modelrollout.core.evidence import Grid, Histogram, Matcher, Query, Reading, Series
from modelrollout.errors import MetricsUnavailable
from modelrollout.simulation.exports import Export, Exports, Line, Site
from modelrollout.simulation.scrapes import Scraper, Target

INGEST_SECONDS = 0.02
"""From a scrape until a query finds it."""

Labels = tuple[tuple[str, str], ...]
Lines = tuple[tuple[Labels, Line], ...]
Matchers = tuple[Matcher, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionNames:
    """What tells the versions apart in the metrics."""

    labels: tuple[str, str]
    """Values of a version label: stable's and the candidate's."""
    place_prefix: str
    """What the gateway calls a place, without its number."""

    def of_row(self, export: Export, row: int) -> dict[str, str]:
        """The labels of a row of counters; a pod's are its target's."""
        match export.site:
            case Site.GATEWAY:
                return {"envoy_cluster_name": f"{self.place_prefix}{row}"}
            case Site.EXPORTER:
                return {export.version_label: self.labels[row]}
            case Site.PODS:
                return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stream:
    """What a question finds in one row of a target's counters."""

    target: Target
    row: int
    """The how-manieth of the target's."""
    columns: NDArray[np.intp]
    """That its lines read."""
    total: Lines
    events: Lines
    """They name a column by its place among these."""


@dataclass(frozen=True, slots=True)
class _Found:
    """The series of one version."""

    total: tuple[Series, ...]
    events: tuple[Series, ...]


NOTHING = _Found((), ())


class Prometheus:
    """
    Answers through `core.windows`, as the adapter of the real one does.

    The version's matchers are applied to the labels of targets and rows. A guardrail's own
    matchers are not: its series are those that the world exports for it.
    """

    def __init__(
        self,
        exports: Exports,
        scraper: Scraper,
        names: VersionNames,
        is_away: Callable[[], bool],
    ) -> None:
        self._exports = exports
        self._scraper = scraper
        self._names = names
        self._is_away = is_away
        self._streams: dict[tuple[str, Matchers, tuple[float, ...]], tuple[int, list[_Stream]]] = {}

    async def read(self, query: Query, grid: Grid, now: float) -> Reading:
        """The windows since the grid's watermark."""
        self._answer(now)
        until = min(now, grid.watermark + max(MAX_SPAN_SECONDS, 2 * grid.width))
        since = grid.watermark - windows.lookback_seconds(grid)
        if until <= since:
            return Reading(watermark=grid.watermark)
        known = min(until, now - INGEST_SECONDS)
        stable, candidate = (
            self._version(query, matchers, grid, (since, known))
            for matchers in (query.stable, query.candidate)
        )
        samples = windows.Samples(
            stable=stable, candidate=candidate, until=until, is_events_metric_known=True
        )
        return windows.read(query, grid, samples, now)

    async def histogram(self, query: Query, start: float, end: float) -> Histogram:
        """Stable's histogram over a span."""
        self._answer(end)
        start = max(start, end - MAX_SPAN_SECONDS)
        if end <= start:
            return Histogram(bounds=(), cumulative=())
        since = start - windows.LOOKBACK_SECONDS
        found = self._between(query, query.stable, since, end - INGEST_SECONDS)
        return windows.histogram(query.events.metric, found.events, start)

    async def value(self, expression: str, _namespace: str, now: float) -> float | None:
        """The constant that the world gives for an expression."""
        self._answer(now)
        return self._exports.limits[expression]

    def _answer(self, now: float) -> None:
        if self._is_away():
            raise MetricsUnavailable("Prometheus at prometheus cannot be reached.")
        self._scraper.catch_up(now)

    def _version(
        self, query: Query, matchers: Matchers, grid: Grid, span: tuple[float, float]
    ) -> windows.Found:
        since, until = span
        found = self._between(query, matchers, since, until)
        past = NOTHING
        if windows.has_newcomers(grid, found.total, found.events):
            past = self._between(query, matchers, since - MEMORY_SECONDS, since)
        return windows.Found(
            total=found.total,
            events=found.events,
            total_before=tuple(_last(each) for each in past.total),
            events_before=tuple(_last(each) for each in past.events),
        )

    def _between(self, query: Query, matchers: Matchers, since: float, until: float) -> _Found:
        """The samples in (since, until], as range queries give them."""
        total: list[Series] = []
        events: list[Series] = []
        for stream in self._matching(query, matchers):
            target = stream.target
            first, last = bisect_right(target.times, since), bisect_right(target.times, until)
            if first == last:
                continue
            times = tuple(target.times[first:last])
            values = target.values.rows[first:last, stream.row].take(stream.columns, axis=1)
            columns = list(zip(*values.tolist(), strict=True))
            total += _series(stream.total, times, columns)
            events += _series(stream.events, times, columns)
        return _Found(tuple(total), tuple(events))

    def _matching(self, query: Query, matchers: Matchers) -> list[_Stream]:
        key = (query.name, matchers, query.thresholds)
        count, streams = self._streams.get(key, (0, []))
        if count != len(self._scraper.targets):
            streams = list(self._streams_of(query, matchers))
            self._streams[key] = len(self._scraper.targets), streams
        return streams

    def _streams_of(self, query: Query, matchers: Matchers) -> Iterator[_Stream]:
        export = self._exports.by_guardrail[query.name]
        wanted = {float(each) for each in query.thresholds}
        for target in self._scraper.targets:
            for index, row in enumerate(target.rows if target.site is export.site else ()):
                labels = {**target.labels, **self._names.of_row(export, row)}
                if _is_match(labels, matchers):
                    total = _labelled(labels, export.total)
                    events = _labelled(labels, _needed(export.events, wanted))
                    columns = sorted(_columns(line for _, line in (*total, *events)))
                    yield _Stream(
                        target=target,
                        row=index,
                        columns=np.array(columns, dtype=np.intp),
                        total=_placed(total, columns),
                        events=_placed(events, columns),
                    )


def _needed(lines: Iterable[Line], thresholds: set[float]) -> Iterator[Line]:
    """Of a histogram whose thresholds are known, only those and the infinite bucket are read."""
    for each in lines:
        bound = dict(each.labels).get("le")
        if not thresholds or bound in {None, "+Inf"} or float(bound or 0) in thresholds:
            yield each


def _columns(lines: Iterable[Line]) -> set[int]:
    read = {column for each in lines for column in (each.plus, each.minus, each.born)}
    return {each for each in read if each is not None}


def _labelled(labels: dict[str, str], lines: Iterable[Line]) -> Lines:
    return tuple((tuple(sorted({**labels, **dict(each.labels)}.items())), each) for each in lines)


def _placed(lines: Lines, columns: Sequence[int]) -> Lines:
    """The lines, with places among the columns instead of these."""

    def place(column: int | None) -> int | None:
        return None if column is None else columns.index(column)

    return tuple(
        (
            labels,
            replace(
                line,
                plus=columns.index(line.plus),
                minus=place(line.minus),
                born=place(line.born),
            ),
        )
        for labels, line in lines
    )


def _series(
    lines: Lines, times: tuple[float, ...], columns: Sequence[tuple[float, ...]]
) -> Iterator[Series]:
    for labels, line in lines:
        values = columns[line.plus]
        if line.minus is not None:
            values = tuple(map(sub, values, columns[line.minus]))
        if line.born is None or columns[line.born][0]:
            yield Series(labels=labels, times=times, values=values)
        elif columns[line.born][-1]:
            first = next(index for index, each in enumerate(columns[line.born]) if each)
            yield Series(labels=labels, times=times[first:], values=values[first:])


def _last(series: Series) -> Series:
    return Series(labels=series.labels, times=series.times[-1:], values=series.values[-1:])


def _is_match(labels: dict[str, str], matchers: Iterable[Matcher]) -> bool:
    return all(_holds(labels.get(each.label, ""), each) for each in matchers)


def _holds(value: str, matcher: Matcher) -> bool:
    match matcher.operator:
        case LabelOperator.EQUAL:
            return value == matcher.value
        case LabelOperator.NOT_EQUAL:
            return value != matcher.value
        case LabelOperator.MATCHES:
            return re.fullmatch(matcher.value, value) is not None
        case LabelOperator.NOT_MATCHES:
            return re.fullmatch(matcher.value, value) is None
