"""
What a world counts, and which of its counters each guardrail of a manifest reads.

The world exports what the manifest asks for, under the names and labels it asks for. What drives
a guardrail's counters is found by its role: by its preset or name, or by what WORLD.yaml says of
it under `guardrails`. A guardrail that nothing drives is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeVar

from modelrollout.api import v1alpha1 as api
from modelrollout.api.presets import PROPORTIONS, SPLIT_BY_ROUTE, expanded
from modelrollout.simulation.scenario import NORMAL_P99, Figure, Scenario, Version

Found = TypeVar("Found")

_Difference = tuple[int, int | None]
"""A column, or what it has more than another."""

ENVOY_BUCKETS: Final = (
    *(0.5, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10000.0),
    *(30000.0, 60000.0, 300000.0, 600000.0, 1800000.0, 3600000.0),
)
"""Of Envoy's histograms, milliseconds."""
USUAL_BUCKETS: Final = (
    *(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
)
"""Of a Python program that was not told otherwise, seconds."""
DECADE: Final = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
"""Bounds per power of ten, for a quantity without buckets of its own."""

REQUESTS, ANSWERED, BAD, ERRORS, WRONG = range(5)
"""
The first columns of the counters.

Requests; answers, which are those without an error; what was bad in any way; errors; and wrong
answers. Whether an answer was right becomes known late, and with it that there was one.
"""


class Site(StrEnum):
    """Where a guardrail is measured: what its targets are, and what tells the versions apart."""

    GATEWAY = "gateway"
    """One target; the versions are places in the route."""
    PODS = "pods"
    """Each pod of the versions."""
    EXPORTER = "exporter"
    """One target, which gives the version of each answer as a label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A lognormal quantity of one version."""

    median: float
    sigma: float
    """Of the logarithm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """Something measured of each request; counted at or below each edge."""

    column: int
    """Of the first edge."""
    bounds: tuple[float, ...]
    """Of the histogram's buckets, in its unit."""
    edges: tuple[float, ...]
    """The same in the quantity's: seconds, if it is the latency."""
    shapes: tuple[Shape, Shape]
    is_latency: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What happens to a request with a chance, or to a pod so often per second."""

    column: int
    rates: tuple[float, float]
    is_bad: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A number that comes with each request and is summed up; gamma-distributed."""

    column: int
    means: tuple[float, float]
    sds: tuple[float, float]
    largest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One series of each target: a column of the counters, or the difference of two."""

    labels: tuple[tuple[str, str], ...] = ()
    plus: int
    minus: int | None = None
    born: int | None = None
    """The series is there once this column is above 0; None: from the beginning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """The series that one guardrail reads."""

    site: Site
    version_label: str
    """At the exporter, the label with the version."""
    total: tuple[Line, ...]
    events: tuple[Line, ...]
    shares: tuple[float, float] | None
    """Of a proportion: the events among the requests of stable and of the candidate."""
    quantity: Quantity | None
    """Of a distribution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exports:
    """Everything that is counted in a world, and who reads it."""

    columns: int
    events: tuple[Event, ...]
    """Among requests."""
    rates: tuple[Event, ...]
    """Per pod and second."""
    quantities: tuple[Quantity, ...]
    values: tuple[Value, ...]
    by_guardrail: dict[str, Export]
    limits: dict[str, float]
    """The values of PromQL expressions."""

    @property
    def sites(self) -> frozenset[Site]:
        """Where anything is measured."""
        return frozenset(each.site for each in self.by_guardrail.values())


def exports_of(analysis: api.Analysis, scenario: Scenario) -> Exports:
    """ValueError names the guardrail that the world has nothing for, and the remedy."""
    names = [each.name for each in analysis.guardrails]
    for name in scenario.guardrails:
        if name not in names:
            known = ", ".join(names)
            raise ValueError(f"guardrails.{name}: the manifest has no such guardrail, only {known}")
    making = _Making(scenario)
    for each in analysis.guardrails:
        making.add(expanded(each))
    return making.done()


class _Making:
    """Columns are given out one after the other, guardrail by guardrail."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._columns = WRONG + 1
        self._events: list[Event] = []
        self._rates: list[Event] = []
        self._quantities: list[Quantity] = []
        self._values: list[Value] = []
        self._exports: dict[str, Export] = {}
        self._limits: dict[str, float] = {}

    def done(self) -> Exports:
        """All of it."""
        return Exports(
            columns=self._columns,
            events=tuple(self._events),
            rates=tuple(self._rates),
            quantities=tuple(self._quantities),
            values=tuple(self._values),
            by_guardrail=self._exports,
            limits=self._limits,
        )

    def add(self, guardrail: api.Guardrail) -> None:
        """One guardrail, with its defaults filled in."""
        asked = _Asked(guardrail, self._scenario)
        if guardrail.limit is not None:
            self._limits[guardrail.limit.query] = asked.value()
        else:
            self._exports[guardrail.name] = self._export(asked, guardrail)

    def _export(self, asked: _Asked, guardrail: api.Guardrail) -> Export:
        if guardrail.slices is not None:
            remedy = "leave slices out of the manifest to simulate"
            raise asked.error(f"the world's requests have no {guardrail.slices.label}: {remedy}")
        if guardrail.mean is not None:
            return self._mean(asked, guardrail.mean)
        if guardrail.rate is not None:
            return self._rate(asked)
        if guardrail.distribution is not None:
            return self._distribution(asked, guardrail.distribution)
        assert guardrail.proportion is not None
        return self._proportion(asked, guardrail.proportion)

    def _take(self, count: int = 1) -> int:
        """The first of so many new columns."""
        first = self._columns
        self._columns += count
        return first

    def _proportion(self, asked: _Asked, metrics: api.Proportion) -> Export:
        total, events, shares = self._counted(asked)
        counted: _Difference = (events, None)
        others: _Difference = (total, events)
        if asked.counts_the_good and not asked.has_figures:
            counted, others, shares = others, counted, _others(shares)
        if metrics.events.metric != metrics.total.metric:
            born = asked.born(total)
            one = Line(plus=counted[0], minus=counted[1], born=born)
            whole = [Line(plus=total, born=born)]
        else:
            # One metric with a label for the outcome: a series is born with its first count.
            one, rest = (
                Line(labels=(("outcome", name),), plus=plus, minus=minus, born=plus)
                for name, (plus, minus) in (("event", counted), ("other", others))
            )
            whole = [rest, one]
        return asked.export(tuple(whole), (one,), shares=shares)

    def _counted(self, asked: _Asked) -> tuple[int, int, tuple[float, float]]:
        """The columns of the requests and of what happens to some, and to how many of them."""
        if asked.has_figures:
            column, shares = self._take(), asked.rates(most=1.0)
            is_bad = not asked.counts_the_good
            self._events.append(Event(column=column, rates=shares, is_bad=is_bad))
            return REQUESTS, column, shares
        if asked.is_about_errors:
            return REQUESTS, ERRORS, asked.of_versions("errorRate", lambda it: it.error_rate)
        accuracy = asked.of_versions("accuracy", lambda it: it.accuracy)
        return ANSWERED, WRONG, _others(accuracy)

    def _distribution(self, asked: _Asked, metrics: api.Distribution) -> Export:
        is_latency = not asked.has_figures
        if is_latency:
            unit, buckets = asked.latency_scale(metrics.histogram.metric)
            shapes = asked.latencies()
        else:
            unit, shapes = 1.0, asked.shapes()
            buckets = _bounds_around(shapes)
        given = {*(asked.buckets or buckets), *(float(each) for each in metrics.limits)}
        bounds = tuple(sorted(given))
        column = self._take(len(bounds))
        edges = tuple(each / unit for each in bounds)
        quantity = Quantity(
            column=column, bounds=bounds, edges=edges, shapes=shapes, is_latency=is_latency
        )
        self._quantities.append(quantity)
        lines = [
            Line(labels=(("le", repr(bound)),), plus=column + index, born=asked.born(REQUESTS))
            for index, bound in enumerate(bounds)
        ]
        infinite = Line(labels=(("le", "+Inf"),), plus=REQUESTS, born=asked.born(REQUESTS))
        return asked.export((), (*lines, infinite), quantity=quantity)

    def _mean(self, asked: _Asked, metrics: api.Mean) -> Export:
        (one, one_sd), (other, other_sd) = asked.figures("mean", "sd")
        largest = float(metrics.max) if metrics.max else math.inf
        if max(one, other) > largest:
            raise asked.error(f"in {asked.place}, a mean exceeds the manifest's max of {largest:g}")
        column = self._take()
        self._values.append(
            Value(column=column, means=(one, other), sds=(one_sd, other_sd), largest=largest)
        )
        count, total = (Line(plus=each, born=asked.born(REQUESTS)) for each in (REQUESTS, column))
        return asked.export((count,), (total,))

    def _rate(self, asked: _Asked) -> Export:
        column, rates = self._take(), asked.rates(most=math.inf)
        self._rates.append(Event(column=column, rates=rates, is_bad=False))
        return asked.export((), (Line(plus=column),))


class _Asked:
    """What a guardrail asks for, and what the world says to it."""

    def __init__(self, guardrail: api.Guardrail, scenario: Scenario) -> None:
        self.guardrail = guardrail
        self.place = f"guardrails.{guardrail.name}"
        self._own = scenario.guardrails.get(guardrail.name)
        self._versions = {"stable": scenario.stable, "candidate": scenario.candidate}

    def error(self, said: str) -> ValueError:
        """One that names the guardrail."""
        return ValueError(f"guardrail {self.guardrail.name}: {said}")

    @property
    def site(self) -> Site:
        """Where it is measured."""
        if self.guardrail.preset in SPLIT_BY_ROUTE:
            return Site.GATEWAY
        return Site.EXPORTER if self.guardrail.version_label else Site.PODS

    @property
    def is_about_errors(self) -> bool:
        """Whether it counts failed requests."""
        return self.guardrail.preset in PROPORTIONS or self.guardrail.name == "errors"

    @property
    def counts_the_good(self) -> bool:
        """Whether fewer of its events are worse."""
        return self.guardrail.direction is api.Direction.LOWER

    @property
    def has_figures(self) -> bool:
        """Whether the world says something about this very guardrail."""
        return self._own is not None and bool(self._own.stable or self._own.candidate)

    @property
    def buckets(self) -> tuple[float, ...] | None:
        """The histogram's bounds, where they are given."""
        return self._own.buckets if self._own else None

    def born(self, column: int) -> int | None:
        """A pod's own counters are there from its start; others' when a version first shows."""
        return None if self.site is Site.PODS else column

    def export(
        self,
        total: tuple[Line, ...],
        events: tuple[Line, ...],
        *,
        shares: tuple[float, float] | None = None,
        quantity: Quantity | None = None,
    ) -> Export:
        """Its series, and what is true of the versions."""
        return Export(
            site=self.site,
            version_label=self.guardrail.version_label or "",
            total=total,
            events=events,
            shares=shares,
            quantity=quantity,
        )

    def value(self) -> float:
        """A limit's."""
        if self._own is None or self._own.value is None:
            raise self.error(f"PromQL cannot be simulated: give {self.place}.value, a constant")
        return self._own.value

    def of_versions(
        self, field: str, get: Callable[[Version], Found | None]
    ) -> tuple[Found, Found]:
        """A field of both versions."""
        stable, candidate = (
            self._known(get(version), name, field) for name, version in self._versions.items()
        )
        return stable, candidate

    def _known(self, found: Found | None, name: str, field: str) -> Found:
        if found is None:
            remedy = f"give {name}.{field}, or {self.place}.stable and .candidate"
            raise self.error(f"the world has no {field} of the {name}: {remedy}")
        return found

    def latencies(self) -> tuple[Shape, Shape]:
        """The versions' times to answer, seconds."""
        pair = self.of_versions("latency", lambda version: version.latency)
        stable, candidate = (_shape(each.median_seconds, each.p99_seconds) for each in pair)
        return stable, candidate

    def latency_scale(self, metric: str) -> tuple[float, tuple[float, ...]]:
        """Units per second of a latency histogram, and its bounds."""
        if self.guardrail.preset is api.Preset.ENVOY_LATENCY:
            return 1000.0, ENVOY_BUCKETS
        if metric.endswith(("_milliseconds", "_ms")):
            return 1000.0, tuple(1000 * each for each in USUAL_BUCKETS)
        if metric.endswith("_seconds") or self.guardrail.name == "latency":
            return 1.0, USUAL_BUCKETS
        remedy = f"give median and p99 in {self.place}.stable and .candidate"
        raise self.error(f"the world cannot tell what {metric} measures: {remedy}")

    def shapes(self) -> tuple[Shape, Shape]:
        """A quantity of the guardrail's own, in its histogram's unit."""
        pair = self.figures("median", "p99")
        if any(p99 <= median for median, p99 in pair):
            raise self.error(f"in {self.place}, p99 must exceed median")
        stable, candidate = (_shape(*each) for each in pair)
        return stable, candidate

    def rates(self, most: float) -> tuple[float, float]:
        """Events per request, or per second of a pod."""
        (stable,), (candidate,) = self.figures("rate")
        if max(stable, candidate) > most:
            raise self.error(f"in {self.place}, a share of the requests cannot exceed {most:g}")
        return stable, candidate

    def figures(self, *fields: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The guardrail's own figures, of stable and of the candidate."""
        stable, candidate = (
            self._fields(getattr(self._own, name, None), name, fields) for name in self._versions
        )
        return stable, candidate

    def _fields(
        self, figure: Figure | None, name: str, fields: tuple[str, ...]
    ) -> tuple[float, ...]:
        values = [getattr(figure, each, None) for each in fields]
        found = tuple(each for each in values if each is not None)
        if len(found) < len(fields):
            what = "a number" if fields == ("rate",) else " and ".join(fields)
            raise self.error(f"the world has no figures for it: give {self.place}.{name} {what}")
        return found


def _others(shares: tuple[float, float]) -> tuple[float, float]:
    stable, candidate = shares
    return 1 - stable, 1 - candidate


def _shape(median: float, p99: float) -> Shape:
    return Shape(median=median, sigma=math.log(p99 / median) / NORMAL_P99)


def _bounds_around(shapes: tuple[Shape, Shape]) -> tuple[float, ...]:
    """Buckets for a quantity that has none: a decade below the medians to one above the p99s."""
    low = math.floor(math.log10(min(each.median for each in shapes))) - 1
    largest = max(each.median * math.exp(each.sigma * NORMAL_P99) for each in shapes)
    high = math.ceil(math.log10(largest)) + 1
    return tuple(digit * 10.0**power for power in range(low, high) for digit in DECADE)
