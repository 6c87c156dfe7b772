"""
Native histograms in the form of classic ones: cumulative counts at or below given bounds.

A scrape of a native histogram lists its buckets that are not empty. In an exponential one of
schema s they lie between the bounds ±2^(i / 2^s) for all integers i, and one more holds what is
nearest to zero; in one with custom buckets (a classic histogram that was converted) the bounds
are the program's own. Which it is, and of which schema, is not told, only seen.

The resolution may be reduced at any time, by the program or by Prometheus, when the observations
spread over too many buckets: from schema s to s - 1. As 2^(i / 2^(s-1)) = 2^(2i / 2^s), every
second bound stays one, and the others vanish inside a bucket. So `offered_bounds` offers bounds
of a coarser schema than the one that is seen.

A bound inside a bucket has no count: nobody knows how much of the bucket lies below it. It is
never interpolated. Nor is there a careful side: to count the whole bucket as beyond the bound
makes harm out of nothing where it is the candidate's, and hides harm where it is stable's. Such
a scrape is left out by `classic`. As a histogram loses resolution because its observations spread,
a target that is left out is no random one, and what the others say of the version would be
flattering: while a target stays like that, `unreadable` says that the version cannot be read.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from modelrollout.core.evidence import Series

FINEST_SCHEMA = 2
"""Bounds of 2^(1/4) = 1.19 times each other; 160 buckets of it span twelve powers of ten."""
MOST_BOUNDS = 128
"""Of one sign: 32 octaves of the finest schema, which is from a microsecond to an hour."""
SCHEMAS = range(-4, 9)
TOLERANCE = 1e-9
"""Relative, between bounds that are equal: Prometheus' tables are not exact to the last digit."""
NEAR = 1e-6
"""Absolute, between an index and a whole number; neighbours are 1 apart in every schema."""

Edges = tuple[float, float]
"""Where a bucket begins and ends. Which end is part of it does not matter here."""


class Scrape(NamedTuple):
    """A native histogram at one time (Unix seconds): `n` observations, and where they lie."""

    time: float
    n: float
    buckets: Mapping[Edges, float]
    """Observations in each that has any. A NaN is in no bucket: it is beyond every bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeHistogram:
    """The scrapes of one histogram of one target, ascending in time."""

    labels: tuple[tuple[str, str], ...]
    """Sorted, without `__name__`."""
    scrapes: tuple[Scrape, ...]


def classic(histograms: Iterable[NativeHistogram], bounds: Iterable[float]) -> tuple[Series, ...]:
    """
    The series that a classic histogram with these bounds (and +Inf) would have.

    They are exact: a scrape in which some bound lies inside a bucket is in none of them. All of
    them have the same times, so a restart, when the count or any of them falls, is one for all.
    """
    ascending = sorted(bounds)
    places: dict[Edges, int | None] = {}
    series = []
    for each in histograms:
        rows = [(scrape.time, _cumulative(scrape, ascending, places)) for scrape in each.scrapes]
        usable = [(time, row) for time, row in rows if row is not None]
        if usable:
            times, values = zip(*usable, strict=True)
            columns = zip((*ascending, math.inf), zip(*values, strict=True), strict=True)
            series += [_bucket(each, bound, times, column) for bound, column in columns]
    return tuple(series)


def _cumulative(
    scrape: Scrape, ascending: Sequence[float], places: dict[Edges, int | None]
) -> tuple[float, ...] | None:
    """Counts at or below each bound, then all; None where a bound lies inside a bucket."""
    counts = [0.0] * (len(ascending) + 1)
    for edges, n in scrape.buckets.items():
        if edges not in places:
            places[edges] = _place(edges, ascending)
        place = places[edges]
        if place is None:
            return None
        counts[place] += n
    return (*accumulate(counts[:-1]), scrape.n)


def _place(edges: Edges, ascending: Sequence[float]) -> int | None:
    """Index of the first bound at or above a bucket; None where one lies inside of it."""
    if any(_is_inside(bound, edges) for bound in ascending):
        return None
    return sum(_is_below(bound, edges[1]) for bound in ascending)


def _is_inside(bound: float, edges: Edges) -> bool:
    return _is_below(edges[0], bound) and _is_below(bound, edges[1])


def _is_below(one: float, other: float) -> bool:
    return one < other and not math.isclose(one, other, rel_tol=TOLERANCE)


def _bucket(
    histogram: NativeHistogram, bound: float, times: tuple[float, ...], values: tuple[float, ...]
) -> Series:
    le = "+Inf" if math.isinf(bound) else repr(bound)
    return Series(labels=tuple(sorted((*histogram.labels, ("le", le)))), times=times, values=values)


def unreadable(
    histograms: Iterable[NativeHistogram], thresholds: Sequence[float], since: float, whose: str
) -> str:
    """
    Why a version cannot be read, as a sentence; empty if it can.

    It cannot be while a threshold lies inside a bucket of the last scrape of some target. Targets
    that gave no scrape after `since` (Unix seconds) are gone, and hold nobody up.
    """
    for each in histograms:
        last = each.scrapes[-1]
        if last.time > since:
            for edges in last.buckets:
                for threshold in thresholds:
                    if _is_inside(threshold, edges):
                        return _refusal(each, threshold, edges, whose)
    return ""


def _refusal(histogram: NativeHistogram, threshold: float, edges: Edges, whose: str) -> str:
    labels = dict(histogram.labels)
    target = labels.get("pod") or labels.get("instance", "")
    return (
        f"The threshold {threshold:g} lies inside a bucket from {edges[0]:g} to {edges[1]:g} of"
        f" {whose} ({target}), a native histogram, so what is beyond it cannot be counted: both"
        " versions must have buckets that end there, and enough of them that their resolution is"
        " not reduced. Raise the limit on buckets, in the program or in Prometheus"
        " (native_histogram_bucket_limit), or start anew: a rollout chooses its thresholds at its"
        " start."
    )


# --- bounds to choose thresholds from -------------------------------------------------------


def offered_bounds(histograms: Iterable[NativeHistogram]) -> tuple[float, ...]:
    """
    Finite bounds, ascending, at which all the scrapes can be counted.

    Where exponential buckets are seen, they are the bounds of the next coarser schema (no finer
    than FINEST_SCHEMA) from the lowest that is seen on, and beyond the highest: that one halving
    of the resolution leaves them bounds, and that a limit beyond all that was seen so far is near
    one. Buckets of a factor of two or more may as well be custom ones, of which nothing is known
    beyond what is seen: there the bounds are those that are seen.
    """
    seen = {edges for each in histograms for scrape in each.scrapes for edges in scrape.buckets}
    positive = [each for each in seen if each[0] > 0]
    negative = [(-upper, -lower) for lower, upper in seen if upper < 0]
    schema = _schema(positive + negative)
    if schema is None or schema <= 0:
        offered = {bound for each in seen for bound in each}
    else:
        coarser = min(schema - 1, FINEST_SCHEMA)
        offered = {bound for each in seen if each[0] <= 0 <= each[1] for bound in each}
        offered.update(_grid(positive, coarser))
        offered.update(-bound for bound in _grid(negative, coarser))
    usable = (each for each in offered if not any(_is_inside(each, edges) for edges in seen))
    return tuple(sorted(filter(math.isfinite, usable)))


def _schema(buckets: Sequence[Edges]) -> int | None:
    """The coarsest schema of positive exponential buckets; None where others are among them."""
    if any(math.isinf(upper) for _, upper in buckets):
        return None
    own = [each for each in map(_own_schema, buckets) if each is not None]
    coarsest = min(own, default=None)
    if coarsest is None:
        return None
    # Inside one of its buckets all others lie: finer ones, and one that the zero bucket cuts off.
    has_others = any(_indices(each, coarsest)[1:-1] for each in buckets)
    return None if has_others else coarsest


def _own_schema(edges: Edges) -> int | None:
    """The schema in which a positive bucket is exactly one; None if it is one in no schema."""
    for schema in SCHEMAS:
        lower, upper = (_index(each, schema) for each in edges)
        if upper - lower == 1 and lower.is_integer():
            return schema
    return None


def _index(bound: float, schema: int) -> float:
    """Where a positive bound lies among a schema's; a whole number if it is one of them."""
    index = math.log2(bound) * 2.0**schema
    nearest = float(round(index))
    return nearest if math.isclose(index, nearest, rel_tol=0, abs_tol=NEAR) else index


def _indices(edges: Edges, schema: int) -> range:
    """From the last of a schema's bounds at or below a positive bucket to the first at or above."""
    lower, upper = (_index(each, schema) for each in edges)
    return range(math.floor(lower), math.ceil(upper) + 1)


def _grid(buckets: Sequence[Edges], schema: int) -> list[float]:
    """As many bounds as are allowed from the lowest bucket on; coarser, if they would not do."""
    if not buckets:
        return []
    whole = min(lower for lower, _ in buckets), max(upper for _, upper in buckets)
    while len(indices := _indices(whole, schema)) > MOST_BOUNDS:
        schema -= 1
    exponents = (each / 2.0**schema for each in range(indices[0], indices[0] + MOST_BOUNDS))
    return [2.0**each for each in exponents if each < sys.float_info.max_exp]
