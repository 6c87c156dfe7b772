"""From a trace to what its pictures show: stretches of time in which the same share was in force."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from modelrollout.core.evidence import Kind
from modelrollout.core.trace import Guardrail, Level, Point, Row, Trace
from modelrollout.report.columns import columns, is_counted
from modelrollout.stats.bounds import Bound
from modelrollout.stats.rates import share_bounds

SIDE = 0.025
"""Each side of a band of 95 %."""
FINE = 1e6
"""A rate is a share of so many instants in a second."""
SHARES = frozenset({Kind.PROPORTION, Kind.DISTRIBUTION, Kind.PAIRED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One version's figure over time, with its band where there is one."""

    values: Row
    lower: Row
    upper: Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A step, as far as it was judged."""

    step: int
    share: int
    times: Row
    """Seconds since the rollout began."""
    stable: Curve
    candidate: Curve
    rows: tuple[Row, Row]
    """Counts at its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """One guardrail."""

    guardrail: Guardrail
    columns: tuple[int, int]
    """Which threshold is shown: stable's and the candidate's."""
    stretches: tuple[Stretch, ...]
    times: Row
    harm: Row
    safety: Row
    values: tuple[tuple[float, float], ...]
    """Of a limit: seconds since the rollout began, and the value."""
    last: Level | None

    @property
    def totals(self) -> tuple[Row, Row]:
        """Counts of both versions over all steps."""
        sides = zip(*(each.rows for each in self.stretches), strict=True)
        stable, candidate = (
            (tuple(sum(column) for column in zip(*rows, strict=True)) for rows in sides)
            if self.stretches
            else ((), ())
        )
        return stable, candidate


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Requests per second that each version answered in the time up to each moment."""

    times: Row
    stable: Row
    candidate: Row

    @property
    def is_known(self) -> bool:
        """Some step was counted twice."""
        return any(map(math.isfinite, (*self.stable, *self.candidate)))


def courses_of(trace: Trace) -> tuple[Course, ...]:
    """All guardrails, in the order in which they were first judged."""
    return tuple(_course(trace, each) for each in trace.guardrails)


def started(trace: Trace) -> float:
    """When it began, as far as is known."""
    if trace.began is not None:
        return trace.began
    return trace.points[0].time if trace.points else 0.0


def length(trace: Trace) -> float:
    """Seconds that it took, or has taken so far."""
    ends = [trace.ended] if trace.ended else [each.time for each in trace.points[-1:]]
    return max(0.0, ends[0] - started(trace)) if ends else 0.0


def _course(trace: Trace, guardrail: Guardrail) -> Course:
    found = [
        (point, level)
        for point in trace.points
        for level in point.guardrails
        if level.name == guardrail.name
    ]
    counted = [(point, level) for point, level in found if is_counted(guardrail, level)]
    shown = columns(guardrail, counted[-1][1] if counted else None)
    stretches = tuple(
        _stretch(trace, guardrail, shown, list(group))
        for _, group in groupby(counted, key=lambda pair: pair[0].step)
    )
    judged = [(point, each) for point, each in counted if each.harm is not None]
    zero = started(trace)
    return Course(
        guardrail=guardrail,
        columns=shown,
        stretches=stretches,
        times=tuple(point.time - zero for point, _ in judged),
        harm=tuple(each.harm or 0.0 for _, each in judged),
        safety=tuple(each.safety or 0.0 for _, each in judged),
        values=tuple(
            (point.time - zero, each.value) for point, each in found if each.value is not None
        ),
        last=found[-1][1] if found else None,
    )


def _stretch(
    trace: Trace,
    guardrail: Guardrail,
    shown: tuple[int, int],
    found: Sequence[tuple[Point, Level]],
) -> Stretch:
    last_point, last = found[-1]
    return Stretch(
        step=last_point.step or 0,
        share=last_point.mirror or last_point.weight,
        times=tuple(point.time - started(trace) for point, _ in found),
        stable=_curve(guardrail, [each.stable for _, each in found], shown[0]),
        candidate=_curve(guardrail, [each.candidate for _, each in found], shown[1]),
        rows=(last.stable, last.candidate),
    )


def _curve(guardrail: Guardrail, rows: Sequence[Row], column: int) -> Curve:
    n = [each[0] for each in rows]
    k = [each[column + 1] for each in rows]
    values = tuple(events / total for events, total in zip(k, n, strict=True))
    if guardrail.kind is Kind.MEAN:
        return Curve(values=values, lower=(), upper=())
    scale = FINE if guardrail.kind is Kind.RATE else 1.0
    # Programs do not export two counters at one instant: there were at least as many requests.
    totals = [max(total * scale, events) for total, events in zip(n, k, strict=True)]
    phi = (guardrail.dispersion[column : column + 1] or guardrail.dispersion[:1] or (1.0,))[0]
    lower, upper = share_bounds(totals, k, SIDE, dispersion=max(1.0, phi))
    return Curve(
        values=values,
        lower=tuple(each * scale for each in lower),
        upper=tuple(each * scale for each in upper),
    )


def is_limited(course: Course) -> bool:
    """A quantile's two tails, and pairs, are held against each other as they are."""
    given = course.guardrail
    is_plain = given.quantile is None and given.kind is not Kind.PAIRED
    return given.tolerance is not None and is_plain


def limit_curve(bound: Bound, stable: Row, guardrail: Guardrail) -> Row:
    """Where the candidate's figure would be at a bound, were stable's what was seen of it."""
    if guardrail.lower_is_worse:
        return tuple(each / bound.ratio - bound.absolute for each in stable) if bound.ratio else ()
    return tuple(bound.ratio * each + bound.absolute for each in stable)


def traffic_of(trace: Trace) -> Traffic:
    """By the guardrail that counted most requests."""
    kinds = {each.name: each.kind for each in trace.guardrails}
    sums: dict[str, float] = {}
    for point in trace.points:
        for level in point.guardrails:
            if kinds.get(level.name) in {Kind.PROPORTION, Kind.DISTRIBUTION} and level.stable:
                sums[level.name] = max(sums.get(level.name, 0.0), level.stable[0])
    if not sums:
        return Traffic(times=(), stable=(), candidate=())
    name = max(sums, key=lambda each: sums[each])
    rows = [
        (level.until, point.step, level.stable[0], level.candidate[0])
        for point in trace.points
        for level in point.guardrails
        if level.name == name and level.stable and level.candidate
    ]
    return _rates(rows, started(trace))


def _rates(rows: Sequence[tuple[float, int | None, float, float]], zero: float) -> Traffic:
    """With a gap between steps, whose counts begin anew."""
    found: list[tuple[float, float, float]] = []
    for _, group in groupby(rows, key=lambda row: row[1]):
        steady = [each for each in group if each[2] > 0 or each[3] > 0]
        for (before, _, n, m), (now, _, k, j) in pairwise(steady):
            if now > before and k >= n and j >= m:
                seconds = now - before
                found.append((now - zero, (k - n) / seconds, (j - m) / seconds))
        found.append((math.nan, math.nan, math.nan))
    times, stable, candidate = zip(*found, strict=True) if found else ((), (), ())
    return Traffic(times=times, stable=stable, candidate=candidate)
