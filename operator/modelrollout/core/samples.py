"""
Raw samples put in order: which counter of which target had which value at which scrape.

A *target* is what Prometheus scrapes (an instance, a pod); all its series share their scrapes.
A *track* is one counter, or one histogram, of one target. What is malformed is refused here, or
left out with a complaint that `windows` shows where nothing else could be read.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, chain, combinations, pairwise
from operator import sub
from typing import NamedTuple

from modelrollout.core.evidence import Grid, Histogram, Kind, Query, Selector, Series
from modelrollout.errors import MetricsUnavailable

LOOKBACK_SECONDS = 60.0
"""Read at least this much before the watermark: where differences start, what was there before."""
LOOKBACK_WINDOWS = 6
PATIENCE_SCRAPES = 2
"""How long a silent target is waited for; Prometheus stores a scrape within one interval."""
PATIENCE_SECONDS = 2.0
MIN_RHYTHM = 4
"""So many gaps between scrapes make a scrape interval; a single one may be an absence."""
PUNCTUALITY = 0.9
"""The next scrape comes no earlier than this part of the interval after the last."""

TARGET_LABELS = frozenset({"namespace", "job", "instance", "pod"})
REPLICA_LABELS = frozenset({"prometheus_replica", "prometheus", "replica", "__replica__"})
LABELS_KEPT = 4096
"""Of so many series it is remembered what their labels say: the same ones come in every pass."""

Labels = tuple[tuple[str, str], ...]
Times = tuple[float, ...]
"""Of scrapes, Unix seconds, ascending."""
Row = tuple[float, ...]
"""Values of one scrape: a counter's only value, or a histogram's +Inf and threshold buckets."""
Rows = tuple[Times, tuple[Row, ...]]
"""When it was scraped, and what it was then."""


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


class Track(NamedTuple):
    """One counter, or one histogram, of one target."""

    version: str
    target: Labels
    slice: str
    """The value of the label that the query is sliced by; empty where it has none."""
    times: Times
    rows: tuple[Row, ...]
    """One for each of the times."""
    before: Row | None
    is_base: bool
    """Exposure is counted from it; without it the version was not seen."""


@dataclass(frozen=True, slots=True)
class Scene:
    """The samples, ordered."""

    tracks: tuple[Track, ...]
    scrapes: Mapping[Labels, Times]
    """When each target was scraped."""
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


# --- from series to tracks ------------------------------------------------------------------


def scene_of(query: Query, samples: Samples) -> Scene:
    """The samples of both versions in order; what is wrong with single scrapes is left out."""
    tracks: list[Track] = []
    spoiled: dict[Labels, set[float]] = defaultdict(set)
    complaint, complained = "", -math.inf
    for version, found in (("stable", samples.stable), ("candidate", samples.candidate)):
        for selector, series in ((query.total, found.total), (query.events, found.events)):
            is_sum = query.kind is Kind.MEAN and selector is query.events
            for time, target, sentence in _unusable(selector, version, series, is_sum=is_sum):
                spoiled[target].add(time)
                if time > complained:
                    complaint, complained = sentence, time
            _refuse_twins(selector, version, series)
        tracks += _tracks(query, version, found)
    if spoiled:
        # What is wrong with one series of a scrape taints it: events and total stay in step.
        tracks = [_without(each, spoiled[each.target]) for each in tracks]
    return Scene(tuple(tracks), _scrapes(tracks), complaint, complained)


def _without(track: Track, spoiled: set[float]) -> Track:
    kept = [at for at, time in enumerate(track.times) if time not in spoiled]
    return track._replace(
        times=tuple(track.times[at] for at in kept),
        rows=tuple(track.rows[at] for at in kept),
    )


def _unusable(
    selector: Selector | None, version: str, series: Iterable[Series], *, is_sum: bool
) -> Iterator[tuple[float, Labels, str]]:
    for each in series:
        if _are_usable(each.values, is_sum=is_sum):
            continue
        for time, value in zip(each.times, each.values, strict=True):
            if not _are_usable((value,), is_sum=is_sum):
                metric = selector.metric if selector else ""
                what = "sum of values that are not negative" if is_sum else "count"
                remedy = "a sum that only grows" if is_sum else "a counter that grows by one"
                sentence = (
                    f"The {version}'s {metric} has the value {value:g}, which is no {what}:"
                    f" name {remedy} for each request or event."
                )
                yield time, _target(each.labels), sentence


def _are_usable(values: Sequence[float], *, is_sum: bool) -> bool:
    """Neither NaN nor infinity is finite or an integer; this runs over every sample there is."""
    is_number = math.isfinite if is_sum else float.is_integer
    return all(map(is_number, values)) and min(values, default=0.0) >= 0


def _refuse_twins(selector: Selector | None, version: str, series: Iterable[Series]) -> None:
    """Two servers that scrape one target do so at different times; one server does it at once."""
    twins: dict[Labels, list[Series]] = defaultdict(list)
    for each in series:
        core = _without_replica(each.labels)
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


@lru_cache(maxsize=LABELS_KEPT)
def _without_replica(labels: Labels) -> Labels:
    return tuple(pair for pair in labels if pair[0] not in REPLICA_LABELS)


def _tracks(query: Query, version: str, found: Found) -> Iterator[Track]:
    if query.total is not None:
        totals = _counters(found.total_before)
        for labels, rows in _counters(found.total).items():
            yield _track(query, version, labels, rows, totals.get(labels), is_base=True)
    if query.kind is Kind.DISTRIBUTION:
        tracks = _histograms(query, version, found.events, (math.inf, *query.thresholds))
        earlier = _histograms(query, version, found.events_before, (math.inf,))
    else:
        tracks, earlier = _counters(found.events), _counters(found.events_before)
    for labels, rows in tracks.items():
        yield _track(query, version, labels, rows, earlier.get(labels), is_base=query.total is None)


def _track(
    query: Query, version: str, labels: Labels, rows: Rows, earlier: Rows | None, *, is_base: bool
) -> Track:
    sliced = dict(labels).get(query.slice_label, "") if query.slice_label else ""
    before = earlier[1][-1] if earlier and earlier[1] else None
    return Track(version, _target(labels), sliced, *rows, before, is_base)


def _counters(series: Iterable[Series]) -> dict[Labels, Rows]:
    return {each.labels: (each.times, tuple(zip(each.values))) for each in series}


def _histograms(
    query: Query, version: str, series: Iterable[Series], bounds: Sequence[float]
) -> dict[Labels, Rows]:
    rows = {}
    for labels, buckets in _buckets(query.events.metric, series).items():
        missing = [each for each in bounds if each not in buckets]
        if missing:
            raise MetricsUnavailable(
                f"The {version}'s histogram {query.events.metric} has no bucket"
                f' le="{missing[0]:g}" ({named(_target(labels))}): both versions must have the'
                " same buckets, and thresholds must be among them."
            )
        rows[labels] = _joined([buckets[each] for each in bounds])
    return rows


def _buckets(metric: str, series: Iterable[Series]) -> dict[Labels, dict[float, Series]]:
    """The buckets of each histogram by upper bound; bounds are numbers, however written."""
    histograms: dict[Labels, dict[float, Series]] = defaultdict(dict)
    for each in series:
        try:
            labels, upper = _bucket(each.labels)
        except ValueError:
            bound = dict(each.labels).get("le", "")
            raise MetricsUnavailable(
                f'{metric}_bucket has a series with le="{bound}": it is not a classic histogram.'
            ) from None
        histograms[labels][upper] = each
    return histograms


@lru_cache(maxsize=LABELS_KEPT)
def _bucket(labels: Labels) -> tuple[Labels, float]:
    """Which histogram a series is a bucket of, and its upper bound."""
    upper = float(dict(labels).get("le", ""))
    return tuple(pair for pair in labels if pair[0] != "le"), upper


def _joined(columns: Sequence[Series]) -> Rows:
    """One row for each scrape that has all the columns."""
    times = columns[0].times
    if all(each.times == times for each in columns):
        return times, tuple(zip(*(each.values for each in columns), strict=True))
    values = [dict(zip(each.times, each.values, strict=True)) for each in columns]
    common = tuple(time for time in times if all(time in each for each in values))
    return common, tuple(tuple(each[time] for each in values) for time in common)


def named(target: Labels) -> str:
    """A target in words."""
    return ", ".join(f'{label}="{value}"' for label, value in target)


@lru_cache(maxsize=LABELS_KEPT)
def _target(labels: Labels) -> Labels:
    return tuple(pair for pair in labels if pair[0] in TARGET_LABELS)


def _scrapes(tracks: Iterable[Track]) -> dict[Labels, Times]:
    seen: dict[Labels, set[Times]] = defaultdict(set)
    for each in tracks:
        if each.times:
            seen[each.target].add(each.times)
    return {target: _union(some) for target, some in seen.items()}


def _union(some: set[Times]) -> Times:
    """All the times. Mostly there is one set of them, as series of a target are scraped together."""
    return next(iter(some)) if len(some) == 1 else tuple(sorted({*chain(*some)}))


# --- how often targets are scraped ----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rhythm:
    """Median seconds between two scrapes, where there are enough to tell."""

    versions: Mapping[str, float]
    """Over all targets of a version."""
    targets: Mapping[Labels, float]


def rhythm_of(grid: Grid, scene: Scene) -> Rhythm:
    """How often everything is scraped; what is too new to tell, as often as the others."""
    gaps = {target: [*map(sub, times[1:], times)] for target, times in scene.scrapes.items()}
    overall = _median(chain(*gaps.values()), grid.width)
    seen: dict[str, set[Labels]] = {"stable": set(), "candidate": set()}
    for each in scene.tracks:
        if each.times:
            seen[each.version].add(each.target)
    return Rhythm(
        {
            version: _median(chain(*(gaps[each] for each in targets)), overall)
            for version, targets in seen.items()
        },
        {target: _median(some, overall) for target, some in gaps.items()},
    )


def _median(gaps: Iterable[float], default: float) -> float:
    ordered = sorted(gaps)
    return ordered[len(ordered) // 2] if len(ordered) >= MIN_RHYTHM else default


def patience(interval: float) -> float:
    """How many seconds a target may be silent before it is not waited for."""
    return max(PATIENCE_SECONDS, PATIENCE_SCRAPES * interval)


def horizon_of(scene: Scene, rhythm: Rhythm) -> float:
    """
    Up to when nothing can be added any more, Unix seconds.

    Each target is known up to just before its next scrape. One that stayed silent for its
    patience is not waited for. Patience is measured on the newest sample of all, not on the
    clock: a clock that is ahead, or a store that is behind, must not turn into lost samples.
    """
    latest = max((times[-1] for times in scene.scrapes.values()), default=-math.inf)
    known = []
    for target, times in scene.scrapes.items():
        interval = rhythm.targets[target]
        if times[-1] >= latest - patience(interval):
            known.append(times[-1] + PUNCTUALITY * interval)
    return min(known, default=-math.inf)


def completed_at(edge: float, scene: Scene, rhythm: Rhythm) -> float:
    """When the scrapes come that complete what ends at an edge, if targets keep their rhythm; Unix seconds."""
    latest = edge
    for target, times in scene.scrapes.items():
        interval = rhythm.targets[target]
        late = edge - PUNCTUALITY * interval - times[-1]
        # An interval of 0 is that of samples which all have one time: nobody knows when the next comes.
        if late > 0 < interval:
            latest = max(latest, times[-1] + math.ceil(late / interval) * interval)
    return latest


# --- histograms -----------------------------------------------------------------------------


def histogram(metric: str, series: Iterable[Series], start: float) -> Histogram:
    """What a version's histogram grew by between its samples from `start` on, over all targets."""
    histograms = list(_buckets(metric, series).values())
    if not histograms:
        raise MetricsUnavailable(
            f"No series of {metric}_bucket was found for the stable version: check the metric's"
            " name and labels. It must be a histogram, classic or native, by its name without _bucket."
        )
    bounds = sorted(set.intersection(*(set(each) for each in histograms)))
    if math.inf not in bounds:
        raise MetricsUnavailable(f'A histogram of {metric} has no bucket le="+Inf".')
    cumulative = [0.0] * len(bounds)
    for each in histograms:
        times, rows = _joined([each[bound] for bound in bounds])
        for sooner, later in pairwise(rows[bisect_left(times, start) :]):
            is_restart = any(value < was for value, was in zip(later, sooner, strict=True))
            for index, value in enumerate(later):
                cumulative[index] += value - (0.0 if is_restart else sooner[index])
    # A restart that no bound's count shows leaves more below a bound than below the next one.
    return Histogram(bounds=tuple(bounds), cumulative=tuple(accumulate(cumulative, max)))
