"""
Pictures as SVG for a page: text stays text, colours are the page's, so that both follow light and dark.

Each is drawn twice, for wide pages and for narrow ones: letters keep their size on a phone.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any, Final

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from modelrollout.core.evidence import Kind
from modelrollout.core.trace import Trace
from modelrollout.report import words
from modelrollout.report.course import SHARES, Course, Curve, Traffic, length, limit_curve, started
from modelrollout.report.ecdf import Steps
from modelrollout.report.forest import Effect
from modelrollout.report.markup import Markup, tag

INK, MUTED, GRID = "#111111", "#777777", "#dddddd"
STABLE, CANDIDATE, BAD = "#0072b2", "#d55e00", "#aa0011"
COLOURS = {
    INK: "ink",
    MUTED: "muted",
    GRID: "grid",
    STABLE: "stable",
    CANDIDATE: "candidate",
    BAD: "bad",
}
"""By what they are called in the page's style sheet."""
STYLE: Final = {
    "svg.fonttype": "none",
    "svg.hashsalt": "modelrollout",
    "font.family": "DejaVu Sans",
    "text.parse_math": False,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titlepad": 8.0,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.major.size": 3.0,
    "ytick.major.size": 0.0,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "path.simplify": True,
}
BEYOND = 1.15
MINUTE, HOUR = 60.0, 3600.0
LONG_MINUTES = 150.0


@dataclass(frozen=True, slots=True)
class Size:
    """Of one of the two drawings, in points."""

    name: str
    width: float
    font: float

    @property
    def is_narrow(self) -> bool:
        """There is room for less."""
        return self.name == "narrow"


SIZES = (Size("wide", 680.0, 9.5), Size("narrow", 350.0, 10.0))
Draw = Callable[[Figure, Size], None]


def picture(name: str, title: str, height: float, draw: Draw) -> Markup:
    """Both drawings; `title` says for people who cannot see it what there is to see."""
    return tag("div", *(_svg(name, title, height, size, draw) for size in SIZES), class_="picture")


def _svg(name: str, title: str, height: float, size: Size, draw: Draw) -> Markup:
    given = STYLE | {"font.size": size.font, "axes.titlesize": size.font + 0.5}
    with mpl.rc_context(given), warnings.catch_warnings():
        # The page's own font has the letters that this one does not.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(figsize=(size.width / 72, height / 72), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure, size)
        out = StringIO()
        figure.savefig(
            out,
            format="svg",
            transparent=True,
            metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")),
        )
    return Markup(_inlined(out.getvalue(), f"{name}-{size.name}", title, size))


def _inlined(text: str, prefix: str, title: str, size: Size) -> str:
    """What belongs into a page of a file of its own: no prologue, no names that others have, too."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r'id="([^"]*)"', rf'id="{prefix}-\1"', text)
    text = re.sub(r'href="#([^"]*)"', rf'href="#{prefix}-\1"', text)
    text = re.sub(r"url\(#([^)]*)\)", rf"url(#{prefix}-\1)", text)
    for colour, name in COLOURS.items():
        text = text.replace(colour, f"var(--{name})")
    viewbox = re.search(r'viewBox="[^"]*"', text)
    assert viewbox is not None
    head = f'<svg class="{size.name}" {viewbox.group()} role="img" xmlns:xlink="http://www.w3.org/1999/xlink">'
    body = text[text.index(">") + 1 :].strip()
    return head + tag("title", title) + body


# --- what all have --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Scale:
    """The unit of time in which a rollout is shown."""

    seconds: float
    unit: str


def _scale(trace: Trace) -> _Scale:
    seconds = length(trace)
    if seconds <= 3 * MINUTE:
        return _Scale(1.0, "seconds")
    return _Scale(MINUTE, "minutes") if seconds <= LONG_MINUTES * MINUTE else _Scale(HOUR, "hours")


def _set_time(panel: Any, trace: Trace, *, is_labelled: bool = True) -> None:
    scale = _scale(trace)
    panel.set_xlim(0, max(1e-9, 1.01 * length(trace) / scale.seconds))
    panel.xaxis.set_major_locator(MaxNLocator(6))
    panel.grid(visible=True, axis="y", color=GRID, linewidth=0.6)
    if is_labelled:
        panel.set_xlabel(f"{scale.unit} since {words.clock(started(trace))} UTC")
    else:
        panel.tick_params(labelbottom=False)


def _mark_steps(panel: Any, trace: Trace, *, is_named: bool) -> None:
    """A hairline where the share changed, and what it was changed to."""
    scale, zero = _scale(trace).seconds, started(trace)
    last = None
    for point in trace.points:
        share = point.mirror or point.weight
        if last is not None and share != last:
            at = (point.time - zero) / scale
            panel.axvline(at, color=GRID, linewidth=0.8, zorder=0)
            if is_named:
                said = f" {share} %" + (" mirrored" if point.mirror else "")
                panel.text(
                    at,
                    1.0,
                    said,
                    transform=panel.get_xaxis_transform(),
                    color=MUTED,
                    va="bottom",
                    fontsize="small",
                )
        last = share
    if trace.ended is not None:
        panel.axvline(
            length(trace) / scale,
            color=BAD if is_bad(trace) else INK,
            linewidth=1.2,
            linestyle=(0, (4, 2)),
        )


def is_bad(trace: Trace) -> bool:
    """Whether it ended otherwise than well."""
    return trace.ended is not None and trace.outcome != "Promoted"


def _legend(panel: Any, size: Size, columns: int = 4) -> None:
    panel.legend(
        loc="upper left",
        bbox_to_anchor=(0.0, -0.02),
        ncols=2 if size.is_narrow else columns,
        fontsize="small",
        labelcolor=INK,
        borderaxespad=0.0,
        handlelength=1.6,
        columnspacing=1.4,
    )


def _percent_axis(axis: Any) -> None:
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g} %"))


# --- the course of the weights --------------------------------------------------------------


def timeline(trace: Trace, traffic: Traffic) -> Markup:
    """Weights as wanted and as accepted, and the requests that each version had."""

    def draw(figure: Figure, size: Size) -> None:
        weights, requests = figure.subplots(2, 1, height_ratios=[3, 2], sharex=True)
        _draw_weights(weights, trace, size)
        scale = _scale(trace).seconds
        for curve, colour, name in (
            (traffic.stable, STABLE, "stable"),
            (traffic.candidate, CANDIDATE, "candidate"),
        ):
            requests.plot([each / scale for each in traffic.times], curve, color=colour, label=name)
        _mark_steps(requests, trace, is_named=False)
        _set_time(requests, trace)
        requests.set_yscale("symlog", linthresh=1.0)
        requests.set_ylim(bottom=0)
        top = max((*traffic.stable, *traffic.candidate, 1.0))
        ticks = [0.0, *(10.0**each for each in range(math.ceil(math.log10(top)) + 1))]
        requests.yaxis.set_major_locator(FixedLocator(ticks))
        requests.yaxis.set_minor_locator(NullLocator())
        requests.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        requests.set_title("requests per second", fontsize=size.font)
        figure.align_ylabels()

    return picture(
        "timeline",
        "The candidate's share of the requests over time, and the requests that each version answered",
        300.0,
        draw,
    )


def _draw_weights(panel: Any, trace: Trace, size: Size) -> None:
    scale, zero = _scale(trace).seconds, started(trace)
    times = [(each.time - zero) / scale for each in trace.points]
    wanted = [float(each.weight) for each in trace.points]
    accepted = [
        float(each.accepted) if each.accepted is not None else math.nan for each in trace.points
    ]
    mirrored = [float(each.mirror) for each in trace.points]
    if trace.ended is not None:
        times.append(length(trace) / scale)
        for values in (wanted, accepted, mirrored):
            values.append(0.0 if is_bad(trace) or values is mirrored else values[-1])
    panel.fill_between(times, wanted, step="post", color=CANDIDATE, alpha=0.15, linewidth=0)
    panel.plot(times, wanted, drawstyle="steps-post", color=CANDIDATE, label="weight wanted")
    panel.plot(
        times,
        accepted,
        drawstyle="steps-post",
        color=INK,
        linewidth=0.9,
        linestyle=(0, (1, 2)),
        label="accepted by the gateway",
    )
    if any(mirrored):
        panel.plot(
            times,
            mirrored,
            drawstyle="steps-post",
            color=MUTED,
            linestyle=(0, (5, 2)),
            label="mirrored copies",
        )
    _mark_decisions(panel, trace)
    _set_time(panel, trace, is_labelled=False)
    panel.set_ylim(0, max(10.0, 1.25 * max((*wanted, *mirrored), default=0.0)))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
    panel.set_title("share of requests that the candidate answers", fontsize=size.font)
    panel.legend(
        loc="lower left",
        bbox_to_anchor=(0, 0.72),
        fontsize="small",
        labelcolor=INK,
        borderaxespad=0.2,
    )


def _mark_decisions(panel: Any, trace: Trace) -> None:
    """Numbered as in the table of decisions."""
    scale, zero = _scale(trace).seconds, started(trace)
    least = length(trace) / scale * 0.02
    last = -math.inf
    for index, each in enumerate(trace.decisions, start=1):
        at = (each.time - zero) / scale
        if at - last < least:
            continue
        last = at
        panel.axvline(at, color=BAD if each.is_warning else GRID, linewidth=0.8, zorder=0)
        panel.text(
            at,
            0.97,
            f" {index}",
            transform=panel.get_xaxis_transform(),
            color=BAD if each.is_warning else MUTED,
            va="top",
            fontsize="small",
        )


# --- one guardrail --------------------------------------------------------------------------


def guardrail(trace: Trace, course: Course, index: int) -> Markup:
    """Both versions' figures with their bands, and the evidence that came of them."""
    given = course.guardrail

    def draw(figure: Figure, size: Size) -> None:
        figures, evidence = figure.subplots(2, 1, height_ratios=[5, 3], sharex=True)
        _draw_figures(figures, trace, course)
        figures.set_title(_figure_title(course), fontsize=size.font)
        _draw_evidence(evidence, trace, course)
        evidence.set_title("evidence, as a share of what decides", fontsize=size.font)
        for panel in (figures, evidence):
            _mark_steps(panel, trace, is_named=panel is figures)
        _set_time(figures, trace, is_labelled=False)
        _set_time(evidence, trace)

    title = f"{given.name}: both versions over time with bands of 95 %, and the evidence"
    return picture(f"guardrail{index}", title, 340.0, draw)


def limit(trace: Trace, course: Course, index: int) -> Markup:
    """The value that a limit looks at."""
    given = course.guardrail

    def draw(figure: Figure, size: Size) -> None:
        panel = figure.subplots()
        scale = _scale(trace).seconds
        panel.plot(
            [at / scale for at, _ in course.values], [each for _, each in course.values], color=INK
        )
        panel.axhline(
            float(given.limit.split()[1]), color=BAD, linewidth=1.0, linestyle=(0, (4, 2))
        )
        panel.set_title(f"value ({given.limit})", fontsize=size.font)
        _mark_steps(panel, trace, is_named=False)
        _set_time(panel, trace)

    return picture(
        f"guardrail{index}", f"{given.name}: the value over time, and its limit", 180.0, draw
    )


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
            one, other = (words.with_unit(given.thresholds[each], unit) for each in course.columns)
            return (
                f"answers above {one}"
                if one == other
                else f"answers above {one} (stable) and {other} (candidate)"
            )
        case _:
            return "requests with the event"


def _draw_figures(panel: Any, trace: Trace, course: Course) -> None:
    given, scale = course.guardrail, _scale(trace).seconds
    tops = []
    for stretch in course.stretches:
        times = [each / scale for each in stretch.times]
        is_first = stretch is course.stretches[0]
        for curve, colour, name in (
            (stretch.stable, STABLE, "stable"),
            (stretch.candidate, CANDIDATE, "candidate"),
        ):
            if curve.lower:
                panel.fill_between(
                    times, curve.lower, curve.upper, color=colour, alpha=0.18, linewidth=0
                )
            panel.plot(times, curve.values, color=colour, label=name if is_first else None)
        bounds = [(given.tolerance, (0, (4, 2)), "tolerated", BAD)]
        if given.quantile is None and given.kind is not Kind.PAIRED:
            for bound, dashes, name, colour in bounds:
                if bound is not None:
                    line = limit_curve(bound, stretch.stable.values, given)
                    panel.plot(
                        times[: len(line)],
                        line,
                        color=colour,
                        linewidth=1.0,
                        linestyle=dashes,
                        label=name if is_first else None,
                    )
                    tops += line[-1:]
        tops += [_top(stretch.stable), _top(stretch.candidate)]
    if tops and max(tops) > 0:
        lowest = min(_bottom(each) for s in course.stretches for each in (s.stable, s.candidate))
        is_high = given.kind in SHARES and lowest > 0.5  # noqa: PLR2004
        panel.set_ylim(
            (max(0.0, 1 - BEYOND * (1 - lowest)), 1)
            if is_high
            else (min(0.0, lowest), BEYOND * max(tops))
        )
    if given.kind in SHARES:
        _percent_axis(panel.yaxis)
    panel.yaxis.set_major_locator(MaxNLocator(5))
    panel.legend(
        loc="upper right",
        ncols=3,
        fontsize="small",
        labelcolor=INK,
        borderaxespad=0.2,
        handlelength=1.6,
    )


def _top(curve: Curve) -> float:
    """How far up is worth showing: the first bands are as wide as everything."""
    late = len(curve.values) // 4
    return max((*curve.values[late:], *curve.upper[len(curve.upper) // 2 :][:1]), default=0.0)


def _bottom(curve: Curve) -> float:
    late = len(curve.values) // 4
    return min((*curve.values[late:], *curve.lower[len(curve.lower) // 2 :][:1]), default=0.0)


def _draw_evidence(panel: Any, trace: Trace, course: Course) -> None:
    scale = _scale(trace).seconds
    times = [each / scale for each in course.times]
    panel.plot(
        times,
        [max(-1.0, min(each, 1.4)) for each in course.harm],
        color=BAD,
        label="that it is worse",
    )
    for stretch in course.stretches:
        inside = [
            (at, each)
            for at, each in zip(course.times, course.safety, strict=True)
            if stretch.times[0] <= at <= stretch.times[-1]
        ]
        panel.plot(
            [at / scale for at, _ in inside],
            [max(-1.0, min(each, 1.4)) for _, each in inside],
            color=INK,
            linewidth=1.2,
            linestyle=(0, (4, 1.5)),
            label="that it is safe" if stretch is course.stretches[0] else None,
        )
    panel.axhline(1.0, color=MUTED, linewidth=0.8)
    panel.set_ylim(-1.1, 1.5)
    panel.yaxis.set_major_locator(FixedLocator([-1, 0, 1]))
    panel.yaxis.set_major_formatter(
        FuncFormatter(
            lambda value, _: {0.0: "0", 1.0: "decides"}.get(
                value, f"{value:g}".replace("-", "\N{MINUS SIGN}")
            )
        )
    )
    panel.legend(
        loc="lower right",
        ncols=2,
        fontsize="small",
        labelcolor=INK,
        borderaxespad=0.2,
        handlelength=1.6,
    )


# --- distributions --------------------------------------------------------------------------


def ecdf(name: str, unit: str, stable: Steps, candidate: Steps, index: int) -> Markup:
    """Which share of the answers had come by when; the axis makes room for the last per cent."""

    def draw(figure: Figure, size: Size) -> None:
        panel = figure.subplots()
        for steps, colour, label, marker in (
            (stable, STABLE, "stable", "o"),
            (candidate, CANDIDATE, "candidate", "s"),
        ):
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
                label=label,
                marker=marker,
                markersize=4,
                linewidth=1.2,
            )
        panel.set_xscale("log")
        panel.xaxis.set_minor_locator(NullLocator())
        values = sorted({*stable.at, *candidate.at})
        shown = values if len(values) <= 8 else values[:: math.ceil(len(values) / 8)]  # noqa: PLR2004
        panel.xaxis.set_major_locator(FixedLocator(shown))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.set_xlabel(f"value{f' ({unit})' if unit else ''}")
        levels = (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999)
        panel.yaxis.set_major_locator(FixedLocator([_depth(1 - each) for each in levels]))
        panel.yaxis.set_major_formatter(
            FuncFormatter(lambda value, _: f"{100 * (1 - 10**-value):.4g} %")
        )
        panel.set_ylim(0, 4.3)
        panel.grid(visible=True, axis="y", color=GRID, linewidth=0.6)
        panel.set_title("answers at or below the value", fontsize=size.font)
        panel.legend(loc="upper left", fontsize="small", labelcolor=INK)

    return picture(
        f"ecdf{index}",
        f"{name}: the share of answers at or below each value, for both versions",
        230.0,
        draw,
    )


def _depth(tail: float) -> float:
    """0 for all, 1 for a tenth, 2 for a hundredth."""
    return min(4.3, -math.log10(max(tail, 1e-9)))


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
