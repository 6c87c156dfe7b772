"""Requests of a simulated world, the counters that they move, and a Prometheus that scrapes them."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from scipy.special import ndtr

from modelrollout.adapters.prometheus import MAX_SPAN_SECONDS, MEMORY_SECONDS
from modelrollout.api.v1alpha1 import LabelOperator
from modelrollout.core import windows
from modelrollout.core.evidence import (
    Grid,
    Histogram,
    Kind,
    Matcher,
    Query,
    Reading,
    Selector,
    Series,
)
from modelrollout.errors import MetricsUnavailable
from modelrollout.simulation.cluster import CANDIDATE, NAME, NAMESPACE, STABLE

BUCKETS = (
    *(0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000),
    *(300000, 600000, 1800000, 3600000, math.inf),
)
"""Of Envoy's histograms, milliseconds."""
PLACES = 3
"""More backends than a route ever has on its way from one list to the next."""
VERSIONS = (STABLE, CANDIDATE)


@dataclass(frozen=True, kw_only=True)
class Version:
    """How a version answers."""

    error_rate: float = 0.01
    median_ms: float = 20.0
    sigma: float = 0.5
    """Of the logarithm of the latency."""
    slow_share: float = 0.0
    """Share of the answers that take longer by `slow_ms`."""
    slow_ms: float = 400.0
    accuracy: float = 0.97


def bucket_shares(version: Version, shift_ms: float = 0.0) -> np.ndarray:
    """The chance of each latency bucket."""
    above = np.maximum(np.asarray(BUCKETS[:-1]) - shift_ms, 1e-12)
    below = ndtr((np.log(above) - math.log(version.median_ms)) / version.sigma)
    return np.diff(below, prepend=0.0, append=1.0)


@dataclass
class Traffic:
    """
    Poisson requests through the gateway's pods, and every counter that they move.

    Counters live as long as the gateway: a place in the route keeps its own, whoever is in it.
    """

    versions: dict[str, Version]
    demand: Callable[[float], float]
    """Requests per second, at a time."""
    pods: int
    base: Callable[[float], float]
    """What both versions' error rates are multiplied by, at a time."""
    generator: np.random.Generator
    now: float
    services: list[str] = field(default_factory=lambda: [STABLE])
    shares: np.ndarray = field(default_factory=lambda: np.eye(PLACES)[0])

    def __post_init__(self) -> None:
        self.answered = np.zeros((self.pods, PLACES, 2), dtype=np.int64)
        """By pod, place, and whether it was an error."""
        self.latency = np.zeros((self.pods, PLACES, len(BUCKETS)), dtype=np.int64)
        self.judged = np.zeros((len(VERSIONS), 2), dtype=np.int64)
        """By version: predictions whose truth is known, and the wrong ones among them."""
        self.requests = np.zeros(len(VERSIONS), dtype=np.int64)
        self.bad = np.zeros(len(VERSIONS), dtype=np.int64)
        """Errors, slow answers and wrong ones; an answer that is two of it counts twice."""
        self._place()

    def shift(self, weights: dict[str, int]) -> None:
        """Other weights from now on."""
        self.services = list(weights)
        shares = np.zeros(PLACES)
        shares[: len(weights)] = list(weights.values())
        self.shares = shares / shares.sum()
        self._place()

    def _place(self) -> None:
        names = [*self.services, *[self.services[0]] * (PLACES - len(self.services))]
        placed = [self.versions[each] for each in names]
        self._whose = np.asarray([VERSIONS.index(each) for each in names])
        self._errors = np.asarray([each.error_rate for each in placed])
        self._wrong = np.asarray([1 - each.accuracy for each in placed])
        self._slow = np.asarray([each.slow_share for each in placed])
        self._body = np.asarray([bucket_shares(each) for each in placed])
        self._tail = np.asarray([bucket_shares(each, each.slow_ms) for each in placed])

    def advance(self, now: float) -> None:
        """Everything that users do until then."""
        expected = self.demand(now) * (now - self.now) / self.pods
        rates = np.minimum(self._errors * self.base(now), 1.0)
        self.now = now
        draw = self.generator
        sent = draw.multinomial(draw.poisson(expected, self.pods), self.shares)
        errors = draw.binomial(sent, rates)
        slow = draw.binomial(sent, self._slow)
        self.answered[..., 0] += sent - errors
        self.answered[..., 1] += errors
        self.latency += draw.multinomial(sent - slow, self._body)
        if slow.any():
            self.latency += draw.multinomial(slow, self._tail)
        judged = (sent - errors).sum(axis=0)
        wrong = draw.binomial(judged, self._wrong)
        bad = errors.sum(axis=0) + slow.sum(axis=0) + wrong
        np.add.at(self.judged, self._whose, np.stack([judged, wrong], axis=-1))
        np.add.at(self.requests, self._whose, sent.sum(axis=0))
        np.add.at(self.bad, self._whose, bad)

    def count_of(self, version: str) -> tuple[int, int]:
        """Requests that a version got so far, and how many of them it answered badly."""
        index = VERSIONS.index(version)
        return int(self.requests[index]), int(self.bad[index])


@dataclass
class _Column:
    """One series: its values since it was born, one per scrape of its target."""

    labels: tuple[tuple[str, str], ...]
    times: list[float]
    """Of the target's scrapes, shared by its series."""
    birth: int
    values: list[float] = field(default_factory=list)

    def between(self, since: float, until: float) -> Series | None:
        """Its samples in (since, until], as a range query gives them."""
        start = max(bisect_right(self.times, since), self.birth)
        end = bisect_right(self.times, until)
        if start >= end:
            return None
        values = self.values[start - self.birth : end - self.birth]
        return Series(labels=self.labels, times=tuple(self.times[start:end]), values=tuple(values))


class Prometheus:
    """Scrapes the traffic's counters, and answers from them through `core.windows`."""

    def __init__(
        self, traffic: Traffic, *, ingest_seconds: float, is_away: Callable[[], bool]
    ) -> None:
        self.traffic = traffic
        self._ingest = ingest_seconds
        self._is_away = is_away
        self._times: dict[int, list[float]] = defaultdict(list)
        self._columns: dict[str, dict[tuple[int, object], _Column]] = defaultdict(dict)
        self._found: dict[object, tuple[int, list[_Column]]] = {}

    @property
    def targets(self) -> int:
        """The gateway's pods, and the exporter of what is known of the predictions."""
        return self.traffic.pods + 1

    def scrapes(self, target: int) -> tuple[float, ...]:
        """When a target was scraped."""
        return tuple(self._times[target])

    def sums(self, target: int, metric: str, **labels: str) -> tuple[float, ...]:
        """What a target had counted at each scrape, over all its series with these labels."""
        count = len(self._times[target])
        matchers = tuple(Matcher(label=name, value=value) for name, value in labels.items())
        columns = [
            column.values if not column.birth else [0.0] * column.birth + column.values
            for (owner, _), column in self._columns[metric].items()
            if owner == target and _is_match(column.labels, matchers)
        ]
        return tuple(sum(row) for row in zip([0.0] * count, *columns, strict=True))

    def scrape(self, target: int, now: float) -> None:
        """Store the counters of one target, as they are now."""
        times = self._times[target]
        times.append(round(now, 3))
        samples = self._gateway(target) if target < self.traffic.pods else self._exporter()
        for metric, key, labels, value in samples:
            columns = self._columns[metric]
            column = columns.get((target, key))
            if column is None:
                column = _Column(_labels(target, labels), times, birth=len(times) - 1)
                columns[target, key] = column
            column.values.append(value)

    def _gateway(self, pod: int) -> Iterator[tuple[str, object, dict[str, str], float]]:
        """Series are born with what they count: an error's with the first error."""
        answered = self.traffic.answered[pod].tolist()
        latency = np.cumsum(self.traffic.latency[pod], axis=-1).tolist()
        for place, (fine, errors) in enumerate(answered):
            name = f"httproute/{NAMESPACE}/{NAME}/rule/0/backend/{place}"
            cluster = {"envoy_cluster_name": name}
            for digit, count in (("2", fine), ("5", errors)):
                if count:
                    labels = {**cluster, "envoy_response_code_class": digit}
                    yield "envoy_cluster_upstream_rq_xx", (place, digit), labels, float(count)
            if fine + errors:
                for bound, count in zip(BUCKETS, latency[place], strict=True):
                    labels = {**cluster, "le": f"{bound:g}".replace("inf", "+Inf")}
                    metric = "envoy_cluster_upstream_rq_time_bucket"
                    yield metric, (place, bound), labels, float(count)

    def _exporter(self) -> Iterator[tuple[str, object, dict[str, str], float]]:
        """Both counters of a version are born with its first prediction."""
        for version, (judged, wrong) in zip(VERSIONS, self.traffic.judged.tolist(), strict=True):
            if judged:
                labels = {"version": version}
                yield "predictions_judged_total", version, labels, float(judged)
                yield "predictions_wrong_total", version, labels, float(wrong)

    async def read(self, query: Query, grid: Grid, now: float) -> Reading:
        """The windows since the grid's watermark."""
        self._answer()
        until = min(now, grid.watermark + MAX_SPAN_SECONDS)
        since = grid.watermark - windows.lookback_seconds(grid)
        stable, candidate = (
            self._version(query, matchers, grid, (since, min(until, now - self._ingest)))
            for matchers in (query.stable, query.candidate)
        )
        samples = windows.Samples(
            stable=stable,
            candidate=candidate,
            until=until,
            is_events_metric_known=query.events.metric in self._columns,
        )
        return windows.read(query, grid, samples, now)

    def _version(
        self, query: Query, matchers: tuple[Matcher, ...], grid: Grid, span: tuple[float, float]
    ) -> windows.Found:
        total: tuple[Series, ...] = ()
        total_before: tuple[Series, ...] = ()
        if query.total is not None:
            total, total_before = self._with_past(query.total, matchers, grid, span)
        asked = _buckets(query.events) if query.kind is Kind.DISTRIBUTION else query.events
        events, events_before = self._with_past(asked, matchers, grid, span)
        return windows.Found(
            total=total, events=events, total_before=total_before, events_before=events_before
        )

    def _with_past(
        self,
        selector: Selector,
        matchers: tuple[Matcher, ...],
        grid: Grid,
        span: tuple[float, float],
    ) -> tuple[tuple[Series, ...], tuple[Series, ...]]:
        since, until = span
        found = self._between(selector, matchers, since, until)
        if not windows.has_newcomers(grid, found):
            return found, ()
        past = self._between(selector, matchers, since - MEMORY_SECONDS, since)
        return found, tuple(
            Series(labels=each.labels, times=each.times[-1:], values=each.values[-1:])
            for each in past
        )

    async def histogram(self, query: Query, start: float, end: float) -> Histogram:
        """Stable's histogram over a span."""
        self._answer()
        since = start - windows.LOOKBACK_SECONDS
        found = self._between(_buckets(query.events), query.stable, since, end - self._ingest)
        return windows.histogram(query.events.metric, found, start)

    async def value(self, expression: str, _namespace: str, _now: float) -> float | None:
        """No PromQL is evaluated here."""
        raise MetricsUnavailable(f"This world has no value for {expression}.")

    def _answer(self) -> None:
        if self._is_away():
            raise MetricsUnavailable("Prometheus at prometheus cannot be reached.")

    def _between(
        self, selector: Selector, matchers: tuple[Matcher, ...], since: float, until: float
    ) -> tuple[Series, ...]:
        found = (each.between(since, until) for each in self._matching(selector, matchers))
        return tuple(each for each in found if each is not None)

    def _matching(self, selector: Selector, matchers: tuple[Matcher, ...]) -> list[_Column]:
        columns = self._columns[selector.metric]
        count, found = self._found.get((selector, matchers), (0, []))
        if count != len(columns):
            wanted = (*selector.matchers, *matchers)
            found = [each for each in columns.values() if _is_match(each.labels, wanted)]
            self._found[selector, matchers] = len(columns), found
        return found


def _buckets(selector: Selector) -> Selector:
    return Selector(metric=f"{selector.metric}_bucket", matchers=selector.matchers)


def _labels(target: int, labels: dict[str, str]) -> tuple[tuple[str, str], ...]:
    names = {"instance": f"10.0.0.{target}:9090", "job": "pods", "pod": f"pod-{target}"}
    return tuple(sorted({**names, "namespace": NAMESPACE, **labels}.items()))


def _is_match(labels: Iterable[tuple[str, str]], matchers: Iterable[Matcher]) -> bool:
    known = dict(labels)
    return all(_holds(known.get(each.label, ""), each) for each in matchers)


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
