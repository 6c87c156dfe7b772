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
from itertools import combinations, pairwise

from modelrollout.core.evidence import (
    Counts,
    Grid,
    Histogram,
    Kind,
    Matcher,
    Query,
    Reading,
    Selector,
    Series,
    Window,
)
from modelrollout.errors import MetricsUnavailable

LOOKBACK_SECONDS = 60.0
"""Read at least this much before the watermark: where differences start, what was there before."""
LOOKBACK_WINDOWS = 6
REACH_WINDOWS = 5
"""How far before its window a delta may begin, in windows; less than the look-back."""
REACH_SCRAPES = 3
"""The same for targets that are scraped more seldom than the grid is wide, in scrapes."""
PATIENCE_SCRAPES = 2
"""How long a silent target is waited for; Prometheus stores a scrape within one interval."""
PATIENCE_SECONDS = 2.0
MIN_RHYTHM = 4
"""So many gaps between scrapes make a scrape interval; a single one may be an absence."""
PUNCTUALITY = 0.9
"""The next scrape comes no earlier than this part of the interval after the last."""

TARGET_LABELS = frozenset({"namespace", "job", "instance", "pod"})
REPLICA_LABELS = frozenset({"prometheus_replica", "prometheus", "replica", "__replica__"})

Labels = tuple[tuple[str, str], ...]
Row = tuple[float, ...]
"""Values of one scrape: a counter's only value, or a histogram's +Inf and threshold buckets."""
Rows = dict[float, Row]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The raw series of one version, from the look-back before the watermark on."""

    total: tuple[Series, ...] = ()
    events: tuple[Series, ...] = ()
    total_before: tuple[Series, ...] = ()
    """The last sample of each series in a long time before the look-back; see `has_newcomers`."""
    events_before: tuple[Series, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Everything that was found for a query, as of `until`."""

    stable: Found
    candidate: Found
    until: float
    """The time of the query, Unix seconds: now, or earlier when the reader lags far behind."""
    is_events_metric_known: bool = False
    """Where no event was found: yet the metric exists, with other labels or without a value."""


@dataclass(frozen=True, slots=True)
class _Track:
    """One counter, or one histogram, of one target."""

    version: str
    target: Labels
    rows: Rows
    before: Row | None
    is_base: bool
    """Exposure is counted from it; without it the version was not seen."""


@dataclass(frozen=True, slots=True)
class _Delta:
    version: str
    time: float
    reach: float
    """Where its requests began, Unix seconds; minus infinity when that is not known."""
    n: float
    k: tuple[float, ...]
    is_base: bool
    is_restart: bool = False


@dataclass(frozen=True, slots=True)
class _Scene:
    """The samples, ordered."""

    tracks: tuple[_Track, ...]
    scrapes: Mapping[Labels, tuple[float, ...]]
    """Times at which each target was scraped, ascending."""
    complaint: str
    """What was wrong with the samples that had to be left out."""
    complained: float
    """The time of the last of them."""


def lookback_seconds(grid: Grid) -> float:
    """How long before the watermark the samples must begin."""
    return max(LOOKBACK_SECONDS, LOOKBACK_WINDOWS * grid.width)


def has_newcomers(grid: Grid, *answers: Sequence[Series]) -> bool:
    """Whether a series first shows after the watermark: then it must be asked what was before."""
    return any(each.times and each.times[0] > grid.watermark for some in answers for each in some)


def has_unheard_of_events(query: Query, samples: Samples) -> bool:
    """Whether no event was found, and only other proof can show that the name is right."""
    has_events = samples.stable.events or samples.candidate.events
    has_other_name = query.total is not None and query.events.metric != query.total.metric
    return has_other_name and not has_events


def snapshot(*answers: Sequence[Series]) -> tuple[tuple[Series, ...], ...]:
    """
    Answers as if all had been given at once; they are in the order in which they were asked for.

    A scrape that was stored between two questions is in the later answer only. It is taken out
    of that: events without their requests (or the reverse) would be lost for one of the two.
    """
    newest: dict[Labels, float] = {}
    consistent = []
    for answer in answers:
        cut = (_cut_at(each, newest) for each in answer)
        consistent.append(tuple(each for each in cut if each.times))
        seen: dict[Labels, float] = {}
        for each in answer:
            target = _target(each.labels)
            seen[target] = max(seen.get(target, -math.inf), each.times[-1])
        newest = seen | newest
    return tuple(consistent)


def _cut_at(series: Series, newest: Mapping[Labels, float]) -> Series:
    end = bisect_right(series.times, newest.get(_target(series.labels), math.inf))
    if end == len(series.times):
        return series
    return Series(labels=series.labels, times=series.times[:end], values=series.values[:end])


def read(query: Query, grid: Grid, samples: Samples, now: float) -> Reading:
    """The windows that ended since the grid's watermark, as far as they are complete."""
    is_history = now - samples.until > lookback_seconds(grid)
    opening, *edges = _edges(grid, samples.until)
    windows: tuple[Window, ...] = ()
    try:
        scene = _scene(query, samples)
        _refuse_what_is_absent(query, samples, scene)
        _refuse_slow_scrapes(query, grid, scene)
        horizon = samples.until if is_history else _horizon(grid, scene)
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


# --- from series to tracks ------------------------------------------------------------------


def _scene(query: Query, samples: Samples) -> _Scene:
    tracks: list[_Track] = []
    spoiled: dict[Labels, set[float]] = defaultdict(set)
    complaint, complained = "", -math.inf
    for version, found in (("stable", samples.stable), ("candidate", samples.candidate)):
        for selector, series in ((query.total, found.total), (query.events, found.events)):
            for time, target, sentence in _unusable(selector, version, series):
                spoiled[target].add(time)
                if time > complained:
                    complaint, complained = sentence, time
            _refuse_twins(selector, version, series)
        tracks += _tracks(query, version, found)
    # What is wrong with one series of a scrape taints the scrape: events and total stay in step.
    for each in tracks:
        for time in spoiled.get(each.target, ()):
            each.rows.pop(time, None)
    return _Scene(tuple(tracks), _scrapes(tracks), complaint, complained)


def _unusable(
    selector: Selector | None, version: str, series: Iterable[Series]
) -> Iterator[tuple[float, Labels, str]]:
    for each in series:
        # NaN and infinities fail the second comparison.
        if all(value >= 0 and value % 1 == 0 for value in each.values):
            continue
        for time, value in zip(each.times, each.values, strict=True):
            if not (value >= 0 and value % 1 == 0):
                metric = selector.metric if selector else ""
                sentence = (
                    f"The {version}'s {metric} has the value {value:g}, which is no count:"
                    " name a counter that grows by one for each request or event."
                )
                yield time, _target(each.labels), sentence


def _refuse_twins(selector: Selector | None, version: str, series: Iterable[Series]) -> None:
    """Two servers that scrape one target do so at different times; one server does it at once."""
    twins: dict[Labels, list[Series]] = defaultdict(list)
    for each in series:
        core = tuple(pair for pair in each.labels if pair[0] not in REPLICA_LABELS)
        if len(core) < len(each.labels):
            twins[core].append(each)
    for group in twins.values():
        for one, other in combinations(group, 2):
            overlap = one.times[0] < other.times[-1] and other.times[0] < one.times[-1]
            if overlap and set(one.times).isdisjoint(other.times):
                name = ", ".join(
                    sorted({label for label, _ in set(one.labels) ^ set(other.labels)})
                )
                raise MetricsUnavailable(
                    f"Two Prometheus servers report the {version}'s"
                    f" {selector.metric if selector else ''} (series that differ in {name} only),"
                    " which would count every request twice: let the query layer deduplicate them,"
                    f" or add a matcher for {name}."
                )


def _tracks(query: Query, version: str, found: Found) -> Iterator[_Track]:
    if query.total is not None:
        for labels, rows in _counters(found.total).items():
            before = _last(_counters(found.total_before).get(labels))
            yield _Track(version, _target(labels), rows, before, is_base=True)
    if query.kind is Kind.DISTRIBUTION:
        tracks = _histograms(query, version, found.events, (math.inf, *query.thresholds))
        earlier = _histograms(query, version, found.events_before, (math.inf,))
    else:
        tracks, earlier = _counters(found.events), _counters(found.events_before)
    for labels, rows in tracks.items():
        before = _last(earlier.get(labels))
        yield _Track(version, _target(labels), rows, before, is_base=query.total is None)


def _counters(series: Iterable[Series]) -> dict[Labels, Rows]:
    return {each.labels: dict(zip(each.times, zip(each.values), strict=True)) for each in series}


def _histograms(
    query: Query, version: str, series: Iterable[Series], bounds: Sequence[float]
) -> dict[Labels, Rows]:
    rows = {}
    for labels, buckets in _buckets(query.events.metric, series).items():
        missing = [each for each in bounds if each not in buckets]
        if missing:
            raise MetricsUnavailable(
                f"The {version}'s histogram {query.events.metric} has no bucket"
                f' le="{missing[0]:g}" ({_named(_target(labels))}): both versions must have the'
                " same buckets, and thresholds must be among them."
            )
        rows[labels] = _joined([buckets[each] for each in bounds])
    return rows


def _buckets(metric: str, series: Iterable[Series]) -> dict[Labels, dict[float, Series]]:
    """The buckets of each histogram by upper bound; bounds are numbers, however written."""
    histograms: dict[Labels, dict[float, Series]] = defaultdict(dict)
    for each in series:
        bound = dict(each.labels).get("le", "")
        try:
            upper = float(bound)
        except ValueError:
            raise MetricsUnavailable(
                f'{metric}_bucket has a series with le="{bound}": it is not a classic histogram.'
            ) from None
        labels = tuple(pair for pair in each.labels if pair[0] != "le")
        histograms[labels][upper] = each
    return histograms


def _joined(columns: Sequence[Series]) -> Rows:
    """One row for each scrape that has all the columns."""
    times = columns[0].times
    if all(each.times == times for each in columns):
        return dict(zip(times, zip(*(each.values for each in columns), strict=True), strict=True))
    values = [dict(zip(each.times, each.values, strict=True)) for each in columns]
    return {
        time: tuple(each[time] for each in values)
        for time in times
        if all(time in each for each in values)
    }


def _last(rows: Rows | None) -> Row | None:
    return rows[max(rows)] if rows else None


def _target(labels: Labels) -> Labels:
    return tuple(pair for pair in labels if pair[0] in TARGET_LABELS)


def _scrapes(tracks: Iterable[_Track]) -> dict[Labels, tuple[float, ...]]:
    times: dict[Labels, set[float]] = defaultdict(set)
    for each in tracks:
        times[each.target].update(each.rows)
    return {target: tuple(sorted(some)) for target, some in times.items() if some}


# --- how often targets are scraped ----------------------------------------------------------


def _interval(timelines: Iterable[Sequence[float]], default: float) -> float:
    """Median seconds between two scrapes, if there are enough to tell."""
    gaps = sorted(later - sooner for times in timelines for sooner, later in pairwise(times))
    return gaps[len(gaps) // 2] if len(gaps) >= MIN_RHYTHM else default


def _intervals(grid: Grid, scene: _Scene) -> dict[str, float]:
    """Of each version, over all its targets."""
    overall = _interval(scene.scrapes.values(), grid.width)
    targets = {
        version: {each.target for each in scene.tracks if each.version == version and each.rows}
        for version in ("stable", "candidate")
    }
    return {
        version: _interval((scene.scrapes[each] for each in some), overall)
        for version, some in targets.items()
    }


def _patience(interval: float) -> float:
    return max(PATIENCE_SECONDS, PATIENCE_SCRAPES * interval)


def _horizon(grid: Grid, scene: _Scene) -> float:
    """
    Up to when nothing can be added any more, Unix seconds.

    Each target is known up to just before its next scrape. One that stayed silent for its
    patience is not waited for. Patience is measured on the newest sample of all, not on the
    clock: a clock that is ahead, or a store that is behind, must not turn into lost samples.
    """
    latest = max((times[-1] for times in scene.scrapes.values()), default=-math.inf)
    overall = _interval(scene.scrapes.values(), grid.width)
    known = []
    for times in scene.scrapes.values():
        interval = _interval((times,), overall)
        if times[-1] >= latest - _patience(interval):
            known.append(times[-1] + PUNCTUALITY * interval)
    return min(known, default=-math.inf)


# --- deltas ---------------------------------------------------------------------------------


def _deltas(query: Query, scene: _Scene, opening: float) -> Iterator[_Delta]:
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
    track: _Track,
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
    return _Delta(track.version, time, reach, n, k, is_base=track.is_base, is_restart=is_restart)


def _counts(query: Query, track: _Track, change: Row) -> tuple[float, tuple[float, ...]]:
    """Exposure and events in a change of a track's row."""
    if query.kind is Kind.DISTRIBUTION:
        return change[0], tuple(change[0] - below for below in change[1:])
    if query.kind is Kind.PROPORTION and track.is_base:
        return change[0], (0.0,)
    return 0.0, change


def _exposures(
    scene: _Scene, scraped_before: Mapping[Labels, Mapping[float, float]], opening: float
) -> Iterator[_Delta]:
    """The seconds that each target was watched for."""
    seen: dict[tuple[str, Labels], set[float]] = defaultdict(set)
    for track in scene.tracks:
        seen[track.version, track.target].update(track.rows)
    for (version, target), times in seen.items():
        for time in times:
            since = scraped_before[target].get(time)
            if time > opening and since is not None:
                yield _Delta(version, time, since, time - since, (0.0,), is_base=True)


# --- windows --------------------------------------------------------------------------------


def _edges(grid: Grid, until: float) -> Iterator[float]:
    """The edge at the watermark, then the ends of the grid's windows up to a time."""
    # A watermark that was rounded on its way through a status is the edge next to it.
    index = max(0, math.ceil((grid.watermark - grid.start - 1e-6) / grid.width))
    yield grid.start + index * grid.width
    while (edge := grid.start + (index := index + 1) * grid.width) <= until:
        yield edge


def _windows(
    query: Query, grid: Grid, scene: _Scene, opening: float, edges: Iterable[float]
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


def _reach(grid: Grid, scene: _Scene) -> float:
    """How many seconds before its window a delta may begin."""
    interval = max(_intervals(grid, scene).values())
    wanted = max(REACH_WINDOWS * grid.width, REACH_SCRAPES * interval)
    return min(wanted, lookback_seconds(grid))


def _is_missing(times: Sequence[float], since: float, opened: float, edge: float) -> bool:
    """Whether a target that gave a sample from `since` to `opened` gave none up to `edge`."""
    index = bisect_right(times, opened)
    was_there = index > 0 and times[index - 1] >= since
    is_there = index < len(times) and times[index] <= edge
    return was_there and not is_there


def _window(opened: float, edge: float, deltas: Sequence[_Delta], *, is_incomplete: bool) -> Window:
    return Window(
        start=opened,
        end=edge,
        stable=_summed(each for each in deltas if each.version == "stable"),
        candidate=_summed(each for each in deltas if each.version == "candidate"),
        is_incomplete=is_incomplete,
    )


def _summed(deltas: Iterable[_Delta]) -> Counts:
    n, columns = zip(*((each.n, each.k) for each in deltas), strict=True)
    return Counts(n=sum(n), k=tuple(max(0.0, sum(each)) for each in zip(*columns, strict=True)))


# --- what cannot be read --------------------------------------------------------------------


def _refuse_what_is_absent(query: Query, samples: Samples, scene: _Scene) -> None:
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
    return " It must be a classic histogram; native histograms are not read yet."


def _refuse_slow_scrapes(query: Query, grid: Grid, scene: _Scene) -> None:
    for version, interval in _intervals(grid, scene).items():
        if 2 * interval > lookback_seconds(grid):
            raise MetricsUnavailable(
                f"The {version}'s {_base(query).metric} is scraped every {interval:.0f} s, too"
                f" seldom for windows of {grid.width:g} s: set spec.analysis.intervalSeconds to at"
                f" least {math.ceil(2 * interval / LOOKBACK_WINDOWS)}."
            )


def _silence(query: Query, grid: Grid, samples: Samples, scene: _Scene) -> str:
    """Why there was no window, unless it is only too early for one."""
    intervals = _intervals(grid, scene)
    for version in ("stable", "candidate"):
        rows = (each.rows for each in scene.tracks if each.version == version and each.is_base)
        newest = max(max(each) for each in rows if each)
        if samples.until - newest > _patience(intervals[version]):
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


def _named(target: Labels) -> str:
    return ", ".join(f'{label}="{value}"' for label, value in target)


# --- histograms -----------------------------------------------------------------------------


def histogram(metric: str, series: Iterable[Series], start: float) -> Histogram:
    """What a version's histogram grew by between its samples from `start` on, over all targets."""
    histograms = list(_buckets(metric, series).values())
    if not histograms:
        raise MetricsUnavailable(
            f"No series of {metric}_bucket was found for the stable version: check the metric's"
            " name and labels. It must be a classic histogram; native histograms are not read yet."
        )
    bounds = sorted(set.intersection(*(set(each) for each in histograms)))
    if math.inf not in bounds:
        raise MetricsUnavailable(f'A histogram of {metric} has no bucket le="+Inf".')
    cumulative = [0.0] * len(bounds)
    for each in histograms:
        rows = _joined([each[bound] for bound in bounds])
        for (_, sooner), (_, later) in pairwise(row for row in rows.items() if row[0] >= start):
            is_restart = any(value < was for value, was in zip(later, sooner, strict=True))
            for index, value in enumerate(later):
                cumulative[index] += value - (0.0 if is_restart else sooner[index])
    return Histogram(bounds=tuple(bounds), cumulative=tuple(cumulative))
