"""The picture of a plan: the chance that a step finds out a candidate, against its rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator, PercentFormatter

from modelrollout.core.forecast import (
    CHANCE,
    Comparison,
    Forecast,
    about,
    chance_to_see,
    edge_rate,
    forecasts,
    percent,
)
from modelrollout.core.steps import Step

TICKS: Final = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
FEW_TICKS_FROM: Final = 30
"""Of a logarithmic axis: in each decade, up to such a factor between its ends."""
POINTS: Final = 160
COLUMNS: Final = 2
LOG_FROM: Final = 5
"""Rates that differ by a larger factor are shown on a logarithmic axis."""
# Told apart without colours, too: a print is often grey.
STYLES: Final = ("-", "--", "-.", ":")
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X")


def draw(
    comparisons: Sequence[Comparison], steps: Sequence[Step], requests_per_second: float, path: Path
) -> None:
    """Write the picture as PNG or SVG; the same plan gives the same file."""
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "modelrollout", "font.size": 9}):
        figure = figure_of(comparisons, steps, requests_per_second)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def figure_of(
    comparisons: Sequence[Comparison], steps: Sequence[Step], requests_per_second: float
) -> Figure:
    """One panel for each comparison, with a line for each judged step."""
    columns = min(COLUMNS, len(comparisons))
    rows = math.ceil(len(comparisons) / columns)
    figure = Figure(figsize=(5.6 * columns, 4.4 * rows), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"{about(requests_per_second)} requests per second (dotted: {percent(CHANCE)})")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for panel, comparison in zip(panels, comparisons, strict=False):
        _draw_panel(panel, comparison, steps, requests_per_second)
    for unused in panels[len(comparisons) :]:
        unused.set_axis_off()
    return figure


def _draw_panel(
    panel: Any, comparison: Comparison, steps: Sequence[Step], requests_per_second: float
) -> None:
    stable = comparison.rate_text(comparison.stable_rate)
    panel.set_title(f"{comparison.label}: stable {stable}", fontweight="bold")
    edge = edge_rate(comparison, comparison.tolerance)
    if not 0 < edge < 1:
        panel.text(0.5, 0.5, "no rate is worse than the tolerance", ha="center", va="center")
        panel.set_axis_off()
        return
    found = forecasts(comparison, steps, requests_per_second)
    near, far = _range(comparison, edge, found)
    is_log = near * LOG_FROM < far
    for index, each in enumerate(found):
        step, rates = steps[each.step - 1], _spread(edge, far, is_log=is_log)
        chances = [chance_to_see(comparison, step, requests_per_second, x) for x in rates]
        panel.plot(rates, chances, **_style(index, len(found)), label=_label(comparison, each))
    _mark(panel, comparison, near, edge)
    _set_axes(panel, comparison, (near, far), is_log=is_log)


def _range(comparison: Comparison, edge: float, found: Sequence[Forecast]) -> tuple[float, float]:
    """From stable's rate to beyond the worst that a step needs, as far as there are rates."""
    seen = [each.visible_rate for each in found if each.visible_rate is not None]
    if comparison.lower_is_worse:
        far = min(seen, default=0.0)
        return comparison.stable_rate, max(0.0, far - 0.3 * (edge - far))
    far = max(seen, default=1.0)
    return comparison.stable_rate or edge / 2, min(1.0, far + 0.3 * (far - edge))


def _spread(edge: float, far: float, *, is_log: bool) -> list[float]:
    """Rates from just beyond the edge, evenly on the axis."""
    shares = [max(index / (POINTS - 1), 1e-6) for index in range(POINTS)]
    if is_log:
        return [edge * (far / edge) ** each for each in shares]
    return [edge + (far - edge) * each for each in shares]


def _style(index: int, lines: int) -> dict[str, Any]:
    return {
        "color": mpl.colormaps["viridis"](0.75 * index / max(1, lines - 1)),
        "linestyle": STYLES[index % len(STYLES)],
        "marker": MARKERS[index % len(MARKERS)],
        "markersize": 4,
        "markevery": (5 * (index % 4), 20),
    }


def _label(comparison: Comparison, found: Forecast) -> str:
    what = "pod-seconds" if comparison.pods else "requests"
    return f"step {found.step}, {found.weight} %: {about(found.requests)} {what}"


def _mark(panel: Any, comparison: Comparison, near: float, edge: float) -> None:
    tolerance = f"tolerated: up to {comparison.bound_text(comparison.tolerance)}"
    panel.axvspan(near, edge, color="0.9", zorder=0)
    panel.axvline(edge, color="black", linewidth=1.2, label=tolerance)
    panel.axhline(CHANCE, color="0.5", linewidth=0.8, linestyle=(0, (1, 3)))


def _set_axes(
    panel: Any, comparison: Comparison, limits: tuple[float, float], *, is_log: bool
) -> None:
    panel.set_xlabel(_rate_label(comparison))
    panel.set_ylabel("chance to detect by the deadline (%)")
    panel.set_xlim(*limits)
    panel.set_ylim(0, 1.02)
    panel.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=""))
    if is_log:
        panel.set_xscale("log")
        is_short = limits[1] < FEW_TICKS_FROM * limits[0]
        panel.xaxis.set_major_locator(LogLocator(subs=TICKS if is_short else (1.0,)))
        panel.xaxis.set_minor_locator(NullLocator())
    scale = 1 if comparison.pods else 100
    panel.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{scale * rate:.3g}"))
    panel.grid(visible=True, color="0.85", linewidth=0.6)
    panel.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, fontsize=8, frameon=False
    )


def _rate_label(comparison: Comparison) -> str:
    if comparison.pods:
        return "candidate's events (per pod-second)"
    if comparison.tail is not None:
        return f"candidate's answers beyond stable's {comparison.quantile} (%)"
    return "candidate's requests with the event (%)"
