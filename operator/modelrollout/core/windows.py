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
from operator import attrgetter, lt, sub
from typing import NamedTuple

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
    Rhythm,
    Row,
    Samples,
    Scene,
    Times,
    Track,
    completed_at,
    has_newcomers,
    has_unheard_of_events,
    histogram,
    horizon_of,
    lookback_seconds,
    patience,
    rhythm_of,
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


class _Delta(NamedTuple):
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
    due = 0.0
    try:
        scene = scene_of(query, samples)
        _refuse_what_is_absent(query, samples, scene)
        rhythm = rhythm_of(grid, scene)
        _refuse_slow_scrapes(query, grid, rhythm)
        horizon = samples.until if is_history else horizon_of(scene, rhythm)
        settled = [each for each in edges if each <= horizon]
        if settled:
            windows = _windows(query, grid, scene, rhythm, opening, settled)
        blind = "" if windows else _silence(query, grid, samples, scene, rhythm)
        due = completed_at((windows[-1].end if windows else opening) + grid.width, scene, rhythm)
    except MetricsUnavailable as error:
        blind = str(error)
    leave_behind = edges[-1] if is_history and edges else grid.watermark
    return Reading(
        windows=windows,
        watermark=windows[-1].end if windows else leave_behind,
        due=due,
        blind=blind,
        incomplete=sum(each.is_incomplete for each in windows),
    )


# --- deltas ---------------------------------------------------------------------------------


def _deltas(query: Query, scene: Scene, opening: float) -> Iterator[_Delta]:
    """What was counted at each scrape after `opening`."""
    scraped_before = {
        target: _predecessors(times, opening) for target, times in scene.scrapes.items()
    }
    for track in scene.tracks:
        for at in range(bisect_right(track.times, opening), len(track.times)):
            yield _delta(query, track, at, scraped_before[track.target])
    if query.kind is Kind.RATE:
        yield from _exposures(scene, scraped_before)


def _predecessors(times: Times, opening: float) -> dict[float, float]:
    """For each scrape after `opening` the one before it; the first of all has none."""
    first = max(1, bisect_right(times, opening))
    return dict(zip(times[first:], times[first - 1 :], strict=False))


def _delta(query: Query, track: Track, at: int, scraped_before: Mapping[float, float]) -> _Delta:
    """What the track's `at`-th scrape adds to the one before it."""
    time, row = track.times[at], track.rows[at]
    old = track.rows[at - 1] if at else track.before
    reach, change, is_restart = scraped_before.get(time, -math.inf), row, False
    if old is not None:
        is_restart = any(map(lt, row, old))
        if not is_restart:
            # Without one before it goes on from where it was long ago: since when, nobody knows.
            reach = track.times[at - 1] if at else -math.inf
            change = tuple(map(sub, row, old))
    n, k = _counts(query, track, change)
    return _Delta(
        track.version, track.target, track.slice, time, reach, n, k, track.is_base, is_restart
    )


def _counts(query: Query, track: Track, change: Row) -> tuple[float, tuple[float, ...]]:
    """Exposure and events in a change of a track's row."""
    if query.kind is Kind.DISTRIBUTION:
        return change[0], tuple(change[0] - below for below in change[1:])
    if query.total is not None and track.is_base:
        return change[0], (0.0,)
    return 0.0, change


def _exposures(
    scene: Scene, scraped_before: Mapping[Labels, Mapping[float, float]]
) -> Iterator[_Delta]:
    """The seconds that each target was watched for."""
    seen: dict[tuple[str, Labels], set[float]] = defaultdict(set)
    for track in scene.tracks:
        seen[track.version, track.target].update(track.times)
    for (version, target), times in seen.items():
        for time, since in scraped_before[target].items() if times else ():
            if time in times:
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
    query: Query,
    grid: Grid,
    scene: Scene,
    rhythm: Rhythm,
    opening: float,
    edges: Sequence[float],
) -> tuple[Window, ...]:
    deltas = sorted(_deltas(query, scene, opening), key=_time)
    reach = _reach(grid, rhythm)
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


_time = attrgetter("time")


def _reach(grid: Grid, rhythm: Rhythm) -> float:
    """How many seconds before its window a delta may begin."""
    interval = max(rhythm.versions.values())
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
        _summed([each for each in stable if each.target not in odd], width),
        _summed([each for each in stable if each.target in odd], width),
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


def _summed(deltas: Sequence[_Delta], width: int) -> Counts:
    columns = zip((0.0,) * width, *(each.k for each in deltas), strict=True)
    # An event that was seen before its request can leave a rest below zero.
    return Counts(
        n=sum((each.n for each in deltas), 0.0), k=tuple(max(0.0, sum(each)) for each in columns)
    )


# --- what cannot be read --------------------------------------------------------------------


def _refuse_what_is_absent(query: Query, samples: Samples, scene: Scene) -> None:
    seen = {each.version for each in scene.tracks if each.is_base and each.times}
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


def _refuse_slow_scrapes(query: Query, grid: Grid, rhythm: Rhythm) -> None:
    for version, interval in rhythm.versions.items():
        if 2 * interval > lookback_seconds(grid):
            raise MetricsUnavailable(
                f"The {version}'s {_base(query).metric} is scraped every {interval:.0f} s, too"
                f" seldom for windows of {grid.width:g} s: set spec.analysis.intervalSeconds to at"
                f" least {math.ceil(2 * interval / LOOKBACK_WINDOWS)}."
            )


def _silence(query: Query, grid: Grid, samples: Samples, scene: Scene, rhythm: Rhythm) -> str:
    """Why there was no window, unless it is only too early for one."""
    for version, interval in rhythm.versions.items():
        own = (each for each in scene.tracks if each.version == version and each.is_base)
        newest = max(each.times[-1] for each in own if each.times)
        if samples.until - newest > patience(interval):
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
