"""
Raw samples to counts: what both versions did over the same intervals, and nothing guessed.

A *target* is what Prometheus scrapes (an instance, a pod); all its series share their scrapes.
From one scrape of a target to its next, each series gives one *delta*, which belongs to the
window that holds the later scrape:

* the difference of the values; after a restart (a value fell) the new value alone;
* the whole value for a series that was born: its target was scraped just before without it, and
  Prometheus had not seen it for a long time before that either;
* nothing for the first scrape of a target: since when its counters run is not known, and the
  first moments of a new pod are not evidence. Nothing either where a delta reaches back before
  the step's start, or far before its window: it would not be concurrent with the rest of it.

A window is closed at the first edge of the grid by which both versions gave a delta. So an
outage, or a scrape interval longer than the grid's width, makes one wide window in which both
versions are counted over the same time, and never a window of zeros that nobody saw.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from modelrollout.core.evidence import (
    Counts,
    Grid,
    Kind,
    Matcher,
    Query,
    Reading,
    Selector,
    Window,
)
from modelrollout.core.samples import (
    LOOKBACK_SECONDS,
    LOOKBACK_WINDOWS,
    TARGET_LABELS,
    Found,
    Labels,
    Row,
    Samples,
    Scene,
    Track,
    has_newcomers,
    has_unheard_of_events,
    histogram,
    horizon_of,
    intervals,
    lookback_seconds,
    patience,
    scene_of,
    snapshot,
)
from modelrollout.errors import MetricsUnavailable

__all__ = [
    "LOOKBACK_SECONDS",
    "Found",
    "Samples",
    "has_newcomers",
    "has_unheard_of_events",
    "histogram",
    "lookback_seconds",
    "read",
    "snapshot",
]

REACH_WINDOWS = 5
"""How far before its window a delta may begin, in windows; less than the look-back."""
REACH_SCRAPES = 3
"""The same for targets that are scraped more seldom than the grid is wide, in scrapes."""


@dataclass(frozen=True, slots=True)
class _Delta:
    version: str
    target: Labels
    slice: str
    time: float
    reach: float
    """Where its requests began, Unix seconds; minus infinity when that is not known."""
    n: float
    k: tuple[float, ...]
    is_base: bool
    is_restart: bool = False


def read(query: Query, grid: Grid, samples: Samples, now: float) -> Reading:
    """The windows that ended since the grid's watermark, as far as they are complete."""
    is_history = now - samples.until > lookback_seconds(grid)
    opening, *edges = _edges(grid, samples.until)
    windows: tuple[Window, ...] = ()
    try:
        scene = scene_of(query, samples)
        _refuse_what_is_absent(query, samples, scene)
        _refuse_slow_scrapes(query, grid, scene)
        horizon = samples.until if is_history else horizon_of(grid, scene)
        settled = [each for each in edges if each <= horizon]
        windows = _windows(query, grid, scene, opening, settled)
        blind = "" if windows else _silence(query, grid, samples, scene)
    except MetricsUnavailable as error:
        blind = str(error)
    leave_behind = edges[-1] if is_history and edges else grid.watermark
    return Reading(
        windows=windows,
        watermark=windows[-1].end if windows else leave_behind,
        blind=blind,
        incomplete=sum(each.is_incomplete for each in windows),
    )


# --- deltas ---------------------------------------------------------------------------------


def _deltas(query: Query, scene: Scene, opening: float) -> Iterator[_Delta]:
    """What was counted at each scrape after `opening`."""
    scraped_before = {
        target: {later: sooner for sooner, later in pairwise(times)}
        for target, times in scene.scrapes.items()
    }
    for track in scene.tracks:
        previous: tuple[float, Row] | None = None
        for time, row in track.rows.items():
            if time > opening:
                reach = scraped_before[track.target].get(time, -math.inf)
                yield _delta(query, track, (time, row), previous, reach)
            previous = time, row
    if query.kind is Kind.RATE:
        yield from _exposures(scene, scraped_before, opening)


def _delta(
    query: Query,
    track: Track,
    current: tuple[float, Row],
    previous: tuple[float, Row] | None,
    scraped_before: float,
) -> _Delta:
    time, row = current
    old = previous[1] if previous else track.before
    reach, change, is_restart = scraped_before, row, False
    if old is not None:
        is_restart = any(value < was for value, was in zip(row, old, strict=False))
        if not is_restart:
            # Without `previous` it goes on from where it was long ago: since when, nobody knows.
            reach = previous[0] if previous else -math.inf
            change = tuple(value - was for value, was in zip(row, old, strict=False))
    n, k = _counts(query, track, change)
    where = track.version, track.target, track.slice
    return _Delta(*where, time, reach, n, k, is_base=track.is_base, is_restart=is_restart)


def _counts(query: Query, track: Track, change: Row) -> tuple[float, tuple[float, ...]]:
    """Exposure and events in a change of a track's row."""
    if query.kind is Kind.DISTRIBUTION:
        return change[0], tuple(change[0] - below for below in change[1:])
    if query.total is not None and track.is_base:
        return change[0], (0.0,)
    return 0.0, change


def _exposures(
    scene: Scene, scraped_before: Mapping[Labels, Mapping[float, float]], opening: float
) -> Iterator[_Delta]:
    """The seconds that each target was watched for."""
    seen: dict[tuple[str, Labels], set[float]] = defaultdict(set)
    for track in scene.tracks:
        seen[track.version, track.target].update(track.rows)
    for (version, target), times in seen.items():
        for time in times:
            since = scraped_before[target].get(time)
            if time > opening and since is not None:
                where = version, target, ""
                yield _Delta(*where, time, since, time - since, (0.0,), is_base=True)


# --- windows --------------------------------------------------------------------------------


def _edges(grid: Grid, until: float) -> Iterator[float]:
    """The edge at the watermark, then the ends of the grid's windows up to a time."""
    # A watermark that was rounded on its way through a status is the edge next to it.
    index = max(0, math.ceil((grid.watermark - grid.start - 1e-6) / grid.width))
    yield grid.start + index * grid.width
    while (edge := grid.start + (index := index + 1) * grid.width) <= until:
        yield edge


def _windows(
    query: Query, grid: Grid, scene: Scene, opening: float, edges: Iterable[float]
) -> tuple[Window, ...]:
    deltas = sorted(_deltas(query, scene, opening), key=_time)
    reach = _reach(grid, scene)
    windows: list[Window] = []
    opened, first = opening, 0
    for edge in edges:
        last = bisect_right(deltas, edge, key=_time)
        concurrent = opened - reach
        usable = [each for each in deltas[first:last] if each.reach >= max(grid.start, concurrent)]
        if {each.version for each in usable if each.is_base} == {"stable", "candidate"}:
            is_incomplete = any(
                each.is_restart or each.reach < concurrent for each in deltas[first:last]
            ) or any(
                _is_missing(times, concurrent, opened, edge) for times in scene.scrapes.values()
            )
            windows.append(_window(opened, edge, usable, is_incomplete=is_incomplete))
            opened, first = edge, last
    return tuple(windows)


def _time(delta: _Delta) -> float:
    return delta.time


def _reach(grid: Grid, scene: Scene) -> float:
    """How many seconds before its window a delta may begin."""
    interval = max(intervals(grid, scene).values())
    wanted = max(REACH_WINDOWS * grid.width, REACH_SCRAPES * interval)
    return min(wanted, lookback_seconds(grid))


def _is_missing(times: Sequence[float], since: float, opened: float, edge: float) -> bool:
    """Whether a target that gave a sample from `since` to `opened` gave none up to `edge`."""
    index = bisect_right(times, opened)
    was_there = index > 0 and times[index - 1] >= since
    is_there = index < len(times) and times[index] <= edge
    return was_there and not is_there


def _window(opened: float, edge: float, deltas: Sequence[_Delta], *, is_incomplete: bool) -> Window:
    stable = [each for each in deltas if each.version == "stable"]
    candidate = [each for each in deltas if each.version == "candidate"]
    width = len(deltas[0].k)
    return Window(
        start=opened,
        end=edge,
        stable=_summed(stable, width),
        candidate=_summed(candidate, width),
        halves=_halved(stable, width),
        slices=_sliced(stable, candidate, width),
        is_incomplete=is_incomplete,
    )


def _halved(stable: Sequence[_Delta], width: int) -> tuple[Counts, Counts] | None:
    """Every other target by name: which half it is in says nothing about it."""
    odd = set(sorted({each.target for each in stable})[1::2])
    if not odd:
        return None
    return (
        _summed((each for each in stable if each.target not in odd), width),
        _summed((each for each in stable if each.target in odd), width),
    )


def _sliced(
    stable: Iterable[_Delta], candidate: Iterable[_Delta], width: int
) -> dict[str, tuple[Counts, Counts]]:
    groups: dict[str, tuple[list[_Delta], list[_Delta]]] = defaultdict(lambda: ([], []))
    for version, deltas in enumerate((stable, candidate)):
        for each in deltas:
            if each.slice:
                groups[each.slice][version].append(each)
    return {
        name: (_summed(ours, width), _summed(theirs, width))
        for name, (ours, theirs) in sorted(groups.items())
    }


def _summed(deltas: Iterable[_Delta], width: int) -> Counts:
    n, k = 0.0, [0.0] * width
    for each in deltas:
        n += each.n
        for index, value in enumerate(each.k):
            k[index] += value
    # An event that was seen before its request can leave a rest below zero.
    return Counts(n=n, k=tuple(max(0.0, each) for each in k))


# --- what cannot be read --------------------------------------------------------------------


def _refuse_what_is_absent(query: Query, samples: Samples, scene: Scene) -> None:
    seen = {each.version for each in scene.tracks if each.is_base and each.rows}
    for version, matchers in (("stable", query.stable), ("candidate", query.candidate)):
        if version in seen:
            continue
        if scene.complaint:
            raise MetricsUnavailable(scene.complaint)
        name = _shown(_base(query), matchers)
        raise MetricsUnavailable(
            f"No series of {name} was found for the {version}: check the metric's name and labels"
            f" and that Prometheus scrapes the {version}'s targets.{_hint(query)}"
        )
    if has_unheard_of_events(query, samples) and not samples.is_events_metric_known:
        raise MetricsUnavailable(
            f"No series of {query.events.metric} was found for either version, and a name that does"
            " not exist must not read as zero events: check the metric's name, let the program"
            f" export it as 0 from its start, or count the events by labels of {_base(query).metric}."
        )


def _hint(query: Query) -> str:
    if query.kind is not Kind.DISTRIBUTION:
        return ""
    return " It must be a histogram, classic or native, by its name without _bucket."


def _refuse_slow_scrapes(query: Query, grid: Grid, scene: Scene) -> None:
    for version, interval in intervals(grid, scene).items():
        if 2 * interval > lookback_seconds(grid):
            raise MetricsUnavailable(
                f"The {version}'s {_base(query).metric} is scraped every {interval:.0f} s, too"
                f" seldom for windows of {grid.width:g} s: set spec.analysis.intervalSeconds to at"
                f" least {math.ceil(2 * interval / LOOKBACK_WINDOWS)}."
            )


def _silence(query: Query, grid: Grid, samples: Samples, scene: Scene) -> str:
    """Why there was no window, unless it is only too early for one."""
    rhythm = intervals(grid, scene)
    for version in ("stable", "candidate"):
        rows = (each.rows for each in scene.tracks if each.version == version and each.is_base)
        newest = max(max(each) for each in rows if each)
        if samples.until - newest > patience(rhythm[version]):
            if scene.complained > newest:
                return scene.complaint
            return (
                f"The {version} has given no sample of {_base(query).metric} for"
                f" {samples.until - newest:.0f} s: Prometheus does not scrape its targets, or they"
                " are gone; see the target page of Prometheus."
            )
    if samples.until - grid.watermark > 2 * lookback_seconds(grid):
        return (
            f"For {samples.until - grid.watermark:.0f} s no target of both versions has given"
            f" {_base(query).metric} in two scrapes in a row: its labels"
            f" {', '.join(sorted(TARGET_LABELS))} must not change from scrape to scrape."
        )
    return ""


def _base(query: Query) -> Selector:
    """The series without which a version was not seen."""
    if query.kind is Kind.DISTRIBUTION:
        return Selector(metric=f"{query.events.metric}_bucket", matchers=query.events.matchers)
    return query.total or query.events


def _shown(selector: Selector, matchers: Sequence[Matcher]) -> str:
    both = (*selector.matchers, *matchers)
    conditions = ", ".join(f'{each.label}{each.operator}"{each.value}"' for each in both)
    return f"{selector.metric}{{{conditions}}}" if conditions else selector.metric
