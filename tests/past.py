"""A history of pods that count, in memory or as text for a real Prometheus to remember."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from modelrollout.adapters.prometheus import MAX_SPAN_SECONDS, MEMORY_SECONDS
from modelrollout.api.v1alpha1 import LabelOperator
from modelrollout.core import windows
from modelrollout.core.evidence import Kind, Series
from modelrollout.errors import MetricsUnavailable

BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, math.inf)
LATENCY = (0.5, 0.3, 0.15, 0.04, 0.0095, 0.0005)
"""Shares of the answers in each bucket."""
HOLDS = {
    LabelOperator.EQUAL: lambda value, given: value == given,
    LabelOperator.NOT_EQUAL: lambda value, given: value != given,
    LabelOperator.MATCHES: lambda value, given: bool(re.fullmatch(given, value)),
    LabelOperator.NOT_MATCHES: lambda value, given: not re.fullmatch(given, value),
}


@dataclass(frozen=True, kw_only=True)
class Pod:
    """One pod: how much it answers, and how badly, at a time."""

    name: str
    per_second: Callable[[float], float] = lambda _: 10.0
    error_rate: Callable[[float], float] = lambda _: 0.01
    slow_share: float = 0.0
    """Of the answers, that take longer than a second."""
    since: float = -math.inf
    until: float = math.inf


@dataclass
class Past:
    """What was scraped, by metric."""

    series: dict[str, list[Series]] = field(default_factory=lambda: defaultdict(list))
    value_of: Callable[[float], float | None] = lambda _: None

    # --- as a source of metrics -----------------------------------------------------------------

    async def read(self, query, grid, now):
        until = min(now, grid.watermark + MAX_SPAN_SECONDS)
        since = grid.watermark - windows.lookback_seconds(grid)
        stable, candidate = (
            windows.Found(
                total=self._between(query.total, version, since, until),
                events=self._between(_counted(query), version, since, until),
                total_before=self._before(query.total, version, since),
                events_before=self._before(_counted(query), version, since),
            )
            for version in (query.stable, query.candidate)
        )
        samples = windows.Samples(
            stable=stable,
            candidate=candidate,
            until=until,
            is_events_metric_known=query.events.metric in self.series,
        )
        return windows.read(query, grid, samples, now)

    async def histogram(self, query, start, end):
        since = start - windows.LOOKBACK_SECONDS
        found = self._between(_counted(query), query.stable, since, end)
        return windows.histogram(query.events.metric, found, start)

    async def value(self, _expression, _namespace, now):
        return self.value_of(now)

    async def values(self, selector, label, start, end):
        found = self._between(selector, (), start, end)
        return frozenset(dict(each.labels).get(label, "") for each in found)

    def _between(self, selector, matchers, since, until):
        if selector is None:
            return ()
        wanted = (*selector.matchers, *matchers)
        found = (
            _cut(each, since, until)
            for each in self.series.get(selector.metric, ())
            if _is_match(dict(each.labels), wanted)
        )
        return tuple(each for each in found if each.times)

    def _before(self, selector, matchers, since):
        found = self._between(selector, matchers, since - MEMORY_SECONDS, since)
        return tuple(
            Series(labels=each.labels, times=each.times[-1:], values=each.values[-1:])
            for each in found
        )

    # --- as text --------------------------------------------------------------------------------

    def openmetrics(self) -> Iterator[str]:
        """Lines for `promtool tsdb create-blocks-from openmetrics`."""
        for metric, some in self.series.items():
            kind = "histogram" if metric.endswith("_bucket") else "counter"
            name = metric.removesuffix("_bucket").removesuffix("_total")
            yield f"# TYPE {name} {kind}"
            for each in some:
                labels = ",".join(f'{label}="{value}"' for label, value in each.labels)
                for time, value in zip(each.times, each.values, strict=True):
                    yield f"{metric}{{{labels}}} {value:g} {time:.3f}"
        yield "# EOF"


class Away:
    """A Prometheus that nobody can reach."""

    async def _refuse(self, *_):
        raise MetricsUnavailable("Prometheus at prometheus cannot be reached.")

    read = histogram = value = values = _refuse


def _counted(query):
    if query.kind is Kind.DISTRIBUTION:
        return type(query.events)(
            metric=f"{query.events.metric}_bucket", matchers=query.events.matchers
        )
    return query.events


def _cut(series, since, until):
    first, last = bisect_right(series.times, since), bisect_right(series.times, until)
    return Series(
        labels=series.labels, times=series.times[first:last], values=series.values[first:last]
    )


def _is_match(labels, matchers):
    return all(HOLDS[e.operator](labels.get(e.label, ""), e.value) for e in matchers)


def scraped(pods, start, end, *, every=5.0, seed=1, gaps=()) -> Past:
    """What Prometheus has of pods that were scraped from a time to another, but not in the gaps."""
    chance = np.random.default_rng(seed)
    past = Past()
    for pod in pods:
        phase = chance.uniform(0, every)
        times = np.arange(start + phase, end, every)
        times = times[(times >= pod.since) & (times <= pod.until)]
        sent = chance.poisson([pod.per_second(each) * every for each in times])
        errors = chance.binomial(sent, [pod.error_rate(each) for each in times])
        shares = np.asarray(LATENCY) * (1 - pod.slow_share)
        shares[-1] += pod.slow_share
        latency = chance.multinomial(sent, shares)
        seen = [not any(since < each <= until for since, until in gaps) for each in times]
        rounded = np.round(times, 3)[seen]
        common = {"pod": pod.name, "namespace": "shop", "instance": pod.name, "job": "pods"}

        def keep(metric, counts, common=common, rounded=rounded, seen=seen, **labels):
            past.series[metric].append(
                Series(
                    labels=tuple(sorted((common | labels).items())),
                    times=tuple(rounded.tolist()),
                    values=tuple(np.cumsum(counts)[seen].astype(float).tolist()),
                )
            )

        keep("model_requests_total", sent - errors, code="200")
        keep("model_requests_total", errors, code="500")
        for index, bound in enumerate(BOUNDS):
            below = latency[:, : index + 1].sum(axis=1)
            keep("model_latency_seconds_bucket", below, le=f"{bound:g}".replace("inf", "+Inf"))
    return past
