"""
Figures as SVG for a page: text stays text, colours are the page's, so that both follow light and dark.

Each is drawn twice, for wide pages and for narrow ones: letters keep their size on a phone.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO
from typing import Final

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

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
    "figure.facecolor": "none",
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "path.simplify": True,
}


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
