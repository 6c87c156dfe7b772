"""
What Prometheus remembers of a period, as the operator would have been told of it.

It is asked the operator's own questions, in the operator's own order: stable's past before the
first bet, then the windows of the grid from the watermark on. A window is handed out once, and
the same question with the same watermark has the same answer whenever it is asked; so the windows
of an hour, read at once, are those that were read every few seconds then.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Protocol

from modelrollout.api import v1alpha1 as api
from modelrollout.api.v1alpha1 import GuardrailCheckpoint, LabelOperator
from modelrollout.core import collect
from modelrollout.core.evidence import (
    Grid,
    Kind,
    Matcher,
    Measure,
    Selector,
    Split,
    Where,
    Window,
)
from modelrollout.core.measures import measures_of
from modelrollout.core.observation import Workload
from modelrollout.errors import MetricsUnavailable
from modelrollout.metrics import past_of
from modelrollout.world import MetricSource

CHOOSING_SECONDS = 60.0
"""Where stable answered too little before the period: how often it is asked whether it has now."""
WIDE = 2
"""A window of more than so many usual widths holds a gap: one version was not seen in between."""
ROUNDING = 1e-6

Advance = Callable[[float], object]
"""Called with the seconds of a guardrail's history that were read since it was called last."""


class Unfit(ValueError):
    """What was asked for does not fit the pods that there were; the sentence has the remedy."""


class Source(MetricSource, Protocol):
    """A Prometheus that can also be asked which pods there were: see adapters/prometheus.py."""

    async def values(
        self, selector: Selector, label: str, start: float, end: float
    ) -> frozenset[str]:
        """The values of a label that a metric's series had in a span."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """An interval (start, end], Unix seconds."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.end - self.start


@dataclass(frozen=True, slots=True, kw_only=True)
class Period(Span):
    """A time that is replayed, on a grid of windows that begins with it."""

    width: float
    """Of a window, seconds."""

    def edges(self) -> Iterator[float]:
        """The ends of the grid's windows: when the operator would have looked."""
        for index in range(1, math.floor((self.end - self.start) / self.width + ROUNDING) + 1):
            yield self.start + index * self.width


@dataclass(frozen=True, slots=True, kw_only=True)
class Pods:
    """What tells versions apart: the names of their pods, or the values of another label."""

    label: str
    namespace: str | None
    """That the series must have; None for any."""

    def matching(self, value: str) -> tuple[Matcher, ...]:
        """Matchers of those whose whole name matches a regular expression."""
        pods = Matcher(label=self.label, operator=LabelOperator.MATCHES, value=value)
        if self.namespace is None:
            return (pods,)
        return (Matcher(label="namespace", value=self.namespace), pods)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is to be replayed, and when."""

    analysis: api.Analysis
    namespace: str
    """The rollout's, to which the expressions of limits must be limited."""
    pods: Pods
    period: Period


@dataclass(frozen=True, slots=True, kw_only=True)
class Blind:
    """A span in which a guardrail could not be read, and why."""

    span: Span
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What the metrics said of one guardrail over a period."""

    checkpoint: GuardrailCheckpoint
    """Prepared from stable's past, without evidence yet."""
    windows: tuple[Window, ...]
    blind: tuple[Blind, ...]

    def why_blind(self, time: float) -> str:
        """Why nothing could be read then; empty where it could."""
        return next((b.why for b in self.blind if b.span.start < time <= b.span.end), "")

    def blind_share(self, period: Period) -> float:
        """The share of the time that no window covers: gaps count, and what was unreadable."""
        if not self.windows:
            return 1.0
        widths = [each.end - each.start for each in self.windows]
        usual = median(widths)
        seen = sum(min(each, WIDE * usual) for each in widths)
        # The scrapes that a period's ends cut through are not missing.
        missing = period.seconds - seen - WIDE * usual
        return max(0.0, missing) / period.seconds

    @property
    def incomplete_share(self) -> float:
        """The share of the windows in which a target is missing or counts in part only."""
        return sum(each.is_incomplete for each in self.windows) / max(1, len(self.windows))


def measures_between(question: Question, split: Split) -> tuple[Measure, ...]:
    """The guardrails that compare, with the versions told apart by the given matchers."""
    nobody = Workload(
        version=api.VersionStatus(deployment="none", service="none", revision="none"),
        desired=0,
        available=0,
        endpoints=0,
        replica_sets=(),
    )
    measures = measures_of(question.analysis, question.namespace, "", nobody, nobody, split)
    return tuple(between(each, split) for each in measures if each.where is not Where.COMPARATOR)


def between(measure: Measure, split: Split) -> Measure:
    """The guardrail, with other matchers for the versions."""
    query = replace(measure.query, stable=split.stable, candidate=split.candidate)
    return replace(measure, query=query)


async def pods_seen(
    source: Source,
    measures: Sequence[Measure],
    matchers: tuple[Matcher, ...],
    label: str,
    span: Span,
) -> frozenset[str]:
    """The pods of all series that any guardrail counts."""
    seen: set[str] = set()
    for measure in measures:
        query = measure.query
        base = query.total or query.events
        selector = replace(base, matchers=(*base.matchers, *matchers))
        selectors = [selector]
        if query.kind is Kind.DISTRIBUTION:
            selectors.append(replace(selector, metric=f"{selector.metric}_bucket"))
        for each in selectors:
            seen |= await source.values(each, label, span.start, span.end)
    return frozenset(seen - {""})


async def recorded(
    source: MetricSource, measure: Measure, period: Period, advance: Advance
) -> Record:
    """
    One guardrail over a period.

    Where Prometheus refuses, or is away, the rest of the period is blind: that says nothing of
    what it would have answered then.
    """
    watermark = period.start
    windows: list[Window] = []
    blind: list[Blind] = []
    checkpoint = collect.fresh(measure, period.start)
    try:
        checkpoint = await _prepared(source, measure, period)
        watermark = checkpoint.watermark
        query = collect.with_thresholds(measure.query, checkpoint)
        while watermark < period.end:
            grid = Grid(start=period.start, width=period.width, watermark=watermark)
            reading = await source.read(query, grid, period.end)
            windows += reading.windows
            is_over = reading.watermark <= watermark
            reached = period.end if is_over else reading.watermark
            if reading.blind:
                blind.append(Blind(span=Span(start=watermark, end=reached), why=reading.blind))
            advance(reached - watermark)
            watermark = reached
    except MetricsUnavailable as error:
        blind.append(Blind(span=Span(start=watermark, end=period.end), why=str(error)))
        advance(period.end - watermark)
    return Record(checkpoint=checkpoint, windows=tuple(windows), blind=tuple(blind))


async def _prepared(source: MetricSource, measure: Measure, period: Period) -> GuardrailCheckpoint:
    """From stable's past; a distribution waits until stable has answered enough."""
    checkpoint = collect.fresh(measure, period.start)
    grid = Grid(start=period.start, width=period.width, watermark=period.start)
    now, refusal = period.start, None
    while not collect.is_prepared(checkpoint) and now < period.end:
        now = min(now + CHOOSING_SECONDS, period.end)
        try:
            past = await past_of(measure, checkpoint, grid, source, now)
        except MetricsUnavailable as error:
            refusal = error
        else:
            until = past.histogram.until if past.histogram else period.start
            checkpoint = collect.prepared(measure, checkpoint, past, until)
            refusal = None
    if refusal is not None:
        raise refusal
    if not collect.is_prepared(checkpoint):
        return checkpoint.model_copy(update={"watermark": period.end})
    return checkpoint
