"""The pictures of a report, each from numbers that are there already."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from modelrollout.core import times
from modelrollout.core.evidence import Kind
from modelrollout.core.trace import Trace
from modelrollout.report import words
from modelrollout.report.course import (
    SHARES,
    Course,
    Curve,
    Traffic,
    is_limited,
    length,
    limit_curve,
    started,
)
from modelrollout.report.drawing import BAD, CANDIDATE, GRID, INK, MUTED, STABLE, Size, picture
from modelrollout.report.ecdf import Steps
from modelrollout.report.forest import Effect
from modelrollout.report.markup import Markup

BEYOND = 1.15
MINUTE, HOUR = 60.0, 3600.0
LONG_MINUTES = 150.0
FULL = 100.0
DASHED, DOTTED = (0, (4, 2)), (0, (1, 2))
CLOSE = 0.03
"""Of the width: hairlines that are closer share a number."""
HIGH = 0.5
"""Shares above it are shown from 100 % down."""
DEPTH = 4.3
SHOWN = 1.4
"""Evidence beyond it is drawn there: it has decided."""
MANY_BOUNDS = 8


# --- time -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Clock:
    """The unit of time in which a rollout is shown, and from when to when."""

    zero: float
    seconds: float
    unit: str
    end: float

    def at(self, time: float) -> float:
        """Unix seconds, in it."""
        return (time - self.zero) / self.seconds

    def since(self, times: Sequence[float]) -> list[float]:
        """Seconds since the beginning, in it."""
        return [each / self.seconds for each in times]


def _clock(trace: Trace, last: float | None = None) -> _Clock:
    """Of the whole rollout, or up to a last second of it."""
    end = length(trace) if last is None else last
    if end <= 3 * MINUTE:
        seconds, unit = 1.0, "seconds"
    elif end <= LONG_MINUTES * MINUTE:
        seconds, unit = MINUTE, "minutes"
    else:
        seconds, unit = HOUR, "hours"
    return _Clock(zero=started(trace), seconds=seconds, unit=unit, end=max(end, 1.0) / seconds)


def _set_time(panel: Any, clock: _Clock, *, is_labelled: bool = True) -> None:
    panel.set_xlim(0, 1.01 * clock.end)
    panel.xaxis.set_major_locator(MaxNLocator(6))
    panel.grid(visible=True, axis="y", color=GRID, linewidth=0.6)
    if is_labelled:
        panel.set_xlabel(f"{clock.unit} since {times.clock(clock.zero)} UTC")
    else:
        panel.tick_params(labelbottom=False)


def _mark_steps(panel: Any, trace: Trace, clock: _Clock, *, is_named: bool) -> None:
    """A hairline where the share changed, and what it was changed to."""
    last = None
    for point in trace.points:
        share = point.mirror or point.weight
        at = clock.at(point.time)
        if last is not None and share != last and at < clock.end:
            panel.axvline(at, color=GRID, linewidth=0.8, zorder=0)
            if is_named and share:
                _note(panel, at, f"{share} %" + (" mirrored" if point.mirror else ""), MUTED)
        last = share
    _mark_end(panel, trace, clock)


def _mark_end(panel: Any, trace: Trace, clock: _Clock) -> None:
    if trace.ended is not None and clock.at(trace.ended) <= 1.001 * clock.end:
        colour = BAD if is_bad(trace) else INK
        panel.axvline(clock.at(trace.ended), color=colour, linewidth=1.2, linestyle=DASHED)


def _note(panel: Any, at: float, text: str, colour: str) -> None:
    """Above the panel, at a time."""
    where = panel.get_xaxis_transform()
    panel.text(at, 1.02, text, transform=where, color=colour, va="bottom", fontsize="small")


def is_bad(trace: Trace) -> bool:
    """Whether it ended otherwise than well."""
    return trace.ended is not None and trace.outcome != "Promoted"


# --- traffic --------------------------------------------------------------------------------


def timeline(trace: Trace, traffic: Traffic) -> Markup:
    """Weights as wanted and as accepted, and the requests that each version had."""
    clock = _clock(trace)

    def draw(figure: Figure, size: Size) -> None:
        ratios = [3, 2] if traffic.is_known else [1]
        panels = figure.subplots(len(ratios), 1, height_ratios=ratios, sharex=True, squeeze=False)
        weights, *rest = panels.flat
        _draw_weights(weights, trace, clock)
        weights.set_title("share of requests for the candidate", fontsize=size.font, pad=20)
        for requests in rest:
            _draw_requests(requests, traffic, clock)
            requests.set_title("requests per second", fontsize=size.font)
        for panel in (weights, *rest):
            _mark_end(panel, trace, clock)
            _set_time(panel, clock, is_labelled=panel is panels.flat[-1])

    said = "The candidate's share of the requests"
    if traffic.is_known:
        said += ", and the requests that each version answered"
    return picture("timeline", said, 300.0 if traffic.is_known else 190.0, draw)


def _draw_weights(panel: Any, trace: Trace, clock: _Clock) -> None:
    times = [clock.at(each.time) for each in trace.points]
    wanted = [float(each.weight) for each in trace.points]
    accepted = [
        math.nan if each.accepted is None else float(each.accepted) for each in trace.points
    ]
    mirrored = [float(each.mirror) for each in trace.points]
    if trace.ended is not None:
        times.append(clock.end)
        for values in (wanted, accepted, mirrored):
            values.append(0.0 if is_bad(trace) or values is mirrored else values[-1])
    step = {"drawstyle": "steps-post"}
    panel.fill_between(times, wanted, step="post", color=CANDIDATE, alpha=0.15, linewidth=0)
    panel.plot(times, wanted, color=CANDIDATE, **step)
    panel.plot(times, accepted, color=INK, linewidth=0.9, linestyle=DOTTED, **step)
    if any(mirrored):
        panel.plot(times, mirrored, color=MUTED, linestyle=DASHED, **step)
    for at, text, is_warning in _numbers(trace, clock):
        panel.axvline(at, color=BAD if is_warning else GRID, linewidth=0.8, zorder=0)
        _note(panel, at, text, BAD if is_warning else MUTED)
    panel.set_ylim(0, max(5.0, min(FULL + 4, 1.15 * max((*wanted, *mirrored), default=0.0))))
    panel.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))


def _numbers(trace: Trace, clock: _Clock) -> Iterator[tuple[float, str, bool]]:
    """Decisions as numbered in their table; those at about the same time together."""
    groups: list[list[int]] = []
    for index, each in enumerate(trace.decisions):
        first = trace.decisions[groups[-1][0]] if groups else None
        if first is not None and clock.at(each.time) - clock.at(first.time) < CLOSE * clock.end:
            groups[-1].append(index)
        else:
            groups.append([index])
    for group in groups:
        ends = f"{group[0] + 1}"
        if len(group) > 1:
            ends += f"\N{EN DASH}{group[-1] + 1}"
        decisions = [trace.decisions[each] for each in group]
        yield clock.at(decisions[0].time), ends, any(each.is_warning for each in decisions)


def _draw_requests(panel: Any, traffic: Traffic, clock: _Clock) -> None:
    times = clock.since(traffic.times)
    panel.plot(times, traffic.stable, color=STABLE)
    panel.plot(times, traffic.candidate, color=CANDIDATE)
    rates = [each for each in (*traffic.stable, *traffic.candidate) if math.isfinite(each)]
    highest = math.ceil(math.log10(max((*rates, 10.0))))
    lowest = min((math.floor(math.log10(each)) for each in rates if each > 0), default=0)
    panel.set_yscale("log")
    panel.set_ylim(10.0 ** min(lowest, highest - 1), 1.1 * 10.0**highest)
    panel.yaxis.set_major_locator(FixedLocator([10.0**each for each in range(lowest, highest + 1)]))
    panel.yaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))


# --- one guardrail --------------------------------------------------------------------------


def guardrail(trace: Trace, course: Course, index: int) -> Markup:
    """Both versions' figures with their bands, and the evidence that came of them."""
    given = course.guardrail
    clock = _clock(trace, course.stretches[-1].times[-1])

    def draw(figure: Figure, size: Size) -> None:
        figures, evidence = figure.subplots(2, 1, height_ratios=[5, 3], sharex=True)
        _draw_figures(figures, course, clock)
        figures.set_title(_figure_title(course), fontsize=size.font, pad=20)
        _draw_evidence(evidence, course, clock)
        evidence.set_title("evidence", fontsize=size.font)
        for panel in (figures, evidence):
            _mark_steps(panel, trace, clock, is_named=panel is figures)
            _set_time(panel, clock, is_labelled=panel is evidence)

    title = f"{given.name}: both versions over time with bands of 95 %, and the evidence"
    return picture(f"guardrail{index}", title, 340.0, draw)


def limit(trace: Trace, course: Course, index: int) -> Markup:
    """The value that a limit looks at."""
    given = course.guardrail
    clock = _clock(trace)

    def draw(figure: Figure, size: Size) -> None:
        panel = figure.subplots()
        times, values = zip(*course.values, strict=True)
        panel.plot(clock.since(times), values, color=INK)
        panel.axhline(float(given.limit.split()[1]), color=BAD, linewidth=1.0, linestyle=DASHED)
        panel.set_title(f"value ({given.limit})", fontsize=size.font)
        _mark_steps(panel, trace, clock, is_named=False)
        _set_time(panel, clock)

    title = f"{given.name}: the value over time, and its limit"
    return picture(f"guardrail{index}", title, 180.0, draw)


def _figure_title(course: Course) -> str:
    given = course.guardrail
    match given.kind:
        case Kind.RATE:
            return "events per second"
        case Kind.MEAN:
            return "mean value"
        case Kind.PAIRED:
            return "answers that this side alone changed"
        case Kind.DISTRIBUTION if given.thresholds:
            unit = words.unit_of(given)
            uppers = (words.with_unit(given.thresholds[each], unit) for each in course.columns)
            one, other = uppers
            return f"answers above {one}" + (f" (stable) and {other} (candidate)" * (one != other))
        case _:
            return "requests with the event"


def _draw_figures(panel: Any, course: Course, clock: _Clock) -> None:
    for stretch in course.stretches:
        times = clock.since(stretch.times)
        for curve, colour in ((stretch.stable, STABLE), (stretch.candidate, CANDIDATE)):
            if curve.lower:
                band = {"color": colour, "alpha": 0.18, "linewidth": 0}
                panel.fill_between(times, curve.lower, curve.upper, **band)
            panel.plot(times, curve.values, color=colour)
        line = _tolerated(course, stretch.stable)
        panel.plot(times[: len(line)], line, color=BAD, linewidth=1.0, linestyle=DASHED)
    panel.set_ylim(*_range(course))
    panel.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    if course.guardrail.kind in SHARES:
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g} %"))


def _tolerated(course: Course, stable: Curve) -> Sequence[float]:
    tolerance = course.guardrail.tolerance
    if tolerance is None or not is_limited(course):
        return ()
    return limit_curve(tolerance, stable.values, course.guardrail)


def _range(course: Course) -> tuple[float, float]:
    """What is worth showing: the first bands of a step are as wide as everything."""
    lows, highs = [0.0], [0.0]
    for stretch in course.stretches:
        for curve in (stretch.stable, stretch.candidate):
            late = len(curve.values) // 4
            half = len(curve.values) // 2
            lows += [*curve.values[late:], *curve.lower[half : half + 1]]
            highs += [*curve.values[late:], *curve.upper[half : half + 1]]
        highs += list(_tolerated(course, stretch.stable))[-1:]
    lowest = min(lows[1:], default=0.0)
    if course.guardrail.kind in SHARES and lowest > HIGH:
        return max(0.0, 1 - BEYOND * (1 - lowest)), 1.0
    return min(0.0, BEYOND * lowest), BEYOND * max(highs) or 1.0


def _draw_evidence(panel: Any, course: Course, clock: _Clock) -> None:
    panel.axhline(1.0, color=MUTED, linewidth=0.8)
    panel.plot(clock.since(course.times), _clipped(course.harm), color=BAD)
    for stretch in course.stretches:
        first, last = stretch.times[0], stretch.times[-1]
        found = [
            (at, each)
            for at, each in zip(course.times, course.safety, strict=True)
            if first <= at <= last
        ]
        times, values = zip(*found, strict=True) if found else ((), ())
        line = {"color": INK, "linewidth": 1.2, "linestyle": DASHED}
        panel.plot(clock.since(times), _clipped(values), **line)
    panel.set_ylim(-1.1, SHOWN + 0.1)
    panel.yaxis.set_major_locator(FixedLocator([-1.0, 0.0, 1.0]))
    names = {-1.0: "against", 0.0: "none", 1.0: "decides"}
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: names.get(value, "")))


def _clipped(values: Sequence[float]) -> list[float]:
    return [max(-1.0, min(each, SHOWN)) for each in values]


# --- distributions --------------------------------------------------------------------------


def ecdf(name: str, unit: str, stable: Steps, candidate: Steps, index: int) -> Markup:
    """Which share of the answers had come by when; the axis makes room for the last per cent."""

    def draw(figure: Figure, size: Size) -> None:
        panel = figure.subplots()
        for steps, colour, marker in ((stable, STABLE, "o"), (candidate, CANDIDATE, "s")):
            heights = [_depth(1 - each) for each in steps.shares]
            if steps.lower:
                panel.vlines(
                    steps.at,
                    [_depth(1 - each) for each in steps.lower],
                    [_depth(1 - each) for each in steps.upper],
                    color=colour,
                    alpha=0.35,
                    linewidth=4,
                )
            panel.plot(
                steps.at,
                heights,
                color=colour,
                marker=marker,
                markersize=4,
                linewidth=1.2,
            )
        panel.set_xscale("log")
        panel.xaxis.set_minor_locator(NullLocator())
        values = sorted({*stable.at, *candidate.at})
        shown = (
            values
            if len(values) <= MANY_BOUNDS
            else values[:: math.ceil(len(values) / MANY_BOUNDS)]
        )
        panel.xaxis.set_major_locator(FixedLocator(shown))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.set_xlabel(f"value{f' ({unit})' if unit else ''}")
        levels = (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999)
        panel.yaxis.set_major_locator(FixedLocator([_depth(1 - each) for each in levels]))
        panel.yaxis.set_major_formatter(
            FuncFormatter(lambda value, _: f"{100 * (1 - 10**-value):.4g} %")
        )
        panel.set_ylim(0, DEPTH)
        panel.grid(visible=True, axis="y", color=GRID, linewidth=0.6)
        panel.set_title("answers at or below the value", fontsize=size.font)

    return picture(
        f"ecdf{index}",
        f"{name}: the share of answers at or below each value, for both versions",
        230.0,
        draw,
    )


def _depth(tail: float) -> float:
    """0 for all, 1 for a tenth, 2 for a hundredth."""
    return min(DEPTH, -math.log10(max(tail, 1e-9)))


# --- slices ---------------------------------------------------------------------------------


def forest(name: str, effects: Sequence[Effect], index: int) -> Markup:
    """How many times stable's rate the candidate's is, slice by slice."""
    height = 60.0 + 20.0 * len(effects)
    finite = [
        value
        for each in effects
        for value in (each.low, each.high, each.ratio)
        if 0 < value < math.inf
    ]
    low, high = max(0.05, min((*finite, 0.5)) / 1.2), min(50.0, max((*finite, 2.0)) * 1.2)

    def draw(figure: Figure, size: Size) -> None:
        panel = figure.subplots()
        for place, each in enumerate(effects):
            colour = BAD if each.is_named else INK
            ends = [min(max(end, low), high) for end in (each.low, each.high)]
            panel.plot(ends, [place, place], color=colour, linewidth=1.2)
            if low <= each.ratio <= high:
                panel.plot(
                    [each.ratio],
                    [place],
                    color=colour,
                    marker="D" if each.is_whole else "o",
                    markersize=6 if each.is_whole else 5,
                )
        panel.axvline(1.0, color=MUTED, linewidth=0.8)
        panel.set_xscale("log")
        panel.set_xlim(low, high)
        ticks = [each for each in (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50) if low <= each <= high]
        panel.xaxis.set_major_locator(FixedLocator(ticks))
        panel.xaxis.set_minor_locator(NullLocator())
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.set_yticks(
            range(len(effects)),
            [_short(each.name, 18 if size.is_narrow else 40) for each in effects],
            color=INK,
        )
        panel.set_ylim(len(effects) - 0.5, -0.5)
        panel.set_xlabel("candidate's rate over stable's")
        panel.grid(visible=True, axis="x", color=GRID, linewidth=0.6)

    return picture(
        f"forest{index}",
        f"{name}: the candidate's rate over stable's, for each slice",
        height,
        draw,
    )


def _short(text: str, at_most: int) -> str:
    shown = "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)
    return shown if len(shown) <= at_most else shown[: at_most - 1] + "\N{HORIZONTAL ELLIPSIS}"
