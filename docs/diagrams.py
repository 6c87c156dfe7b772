"""
The diagrams of the documents, drawn: a forge draws Mermaid's text itself, the site has pictures.

So that nobody's browser has to fetch a program from another host. Drawn is what the documents use:
`flowchart LR` as inline SVG in the page's own colours, and `stateDiagram-v2` as a table of states.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise

FENCED = re.compile(r"^```mermaid\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
NODE = r"(\w+)(\(\[.*?\]\)|\[\(.*?\)\]|\{\{.*?\}\}|\[.*?\])?"
EDGE = re.compile(rf"^{NODE}\s+(?:(-->|-\.->)|--\s+(.+?)\s+-->|-\.\s+(.+?)\s+\.->)\s+{NODE}$")
MOVE = re.compile(r"^(\w+) --> (\w+): (.+)$")
LETTER, LINE, GAP, ROW = 7.0, 17.0, 34.0, 78.0
"""In pixels: a letter's width, a line of text, the space between columns, and a row."""
WRAP = 13
"""Letters of a node's line, where there is a space to break it at."""
CROWD = 4
"""So many arrows out of a node have their labels one after the other, not one above the other."""


@dataclass(slots=True, kw_only=True)
class Node:
    """A box, or a place that a long edge goes through."""

    lines: tuple[str, ...] = ()
    shape: str = "["
    layer: int = 0
    x: float = 0.0
    y: float = 0.0

    @property
    def width(self) -> float:
        """Of the box."""
        return 26 + LETTER * max(map(len, self.lines), default=0) if self.lines else 0.0

    @property
    def height(self) -> float:
        """Of the box."""
        return max(46.0, 16 + LINE * len(self.lines))


@dataclass(slots=True, kw_only=True)
class Edge:
    """An arrow. `path` has the nodes from its beginning to its end."""

    source: str
    target: str
    label: str
    is_dotted: bool
    is_back: bool = False
    path: list[str] = field(default_factory=list)


def drawn(page: str) -> str:
    """A page with pictures in place of its diagrams."""
    return FENCED.sub(lambda found: _picture(found[1]), page)


def _picture(text: str) -> str:
    kind, *lines = (each.strip() for each in text.strip().splitlines())
    match kind:
        case "flowchart LR":
            return _flowchart(lines)
        case "stateDiagram-v2":
            return _states(lines)
    raise ValueError(f"no diagram of this kind can be drawn: {kind}")


# --- states ---------------------------------------------------------------------------------------


def _states(lines: Sequence[str]) -> str:
    """Who can follow whom: a row for each state, a column for each one that can come next."""
    moves = [found.groups() for found in map(MOVE.match, lines) if found]
    states = dict.fromkeys([*(one for one, _, _ in moves), *(other for _, other, _ in moves)])
    why = {(one, other): said for one, other, said in moves}
    rows = [
        [
            name,
            *(
                f'<span title="{escape(why[name, to])}">●</span>' if (name, to) in why else ""
                for to in states
            ),
        ]
        for name in states
    ]
    head = "".join(f"<th>{each}</th>" for each in ("from \N{RIGHTWARDS ARROW} to", *states))
    body = "".join(
        f"<tr><th>{name}</th>" + "".join(f"<td>{each}</td>" for each in cells) + "</tr>"
        for name, *cells in rows
    )
    return f'<div class="diagram"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


# --- flowcharts -----------------------------------------------------------------------------------


def _flowchart(lines: Sequence[str]) -> str:
    nodes: dict[str, Node] = {}
    edges: list[Edge] = []
    for line in lines:
        found = EDGE.match(line)
        if found is None:
            raise ValueError(f"no edge of a flowchart: {line}")
        one, shape, arrow, label, dotted, other, other_shape = found.groups()
        _named(nodes, one, shape)
        _named(nodes, other, other_shape)
        is_dotted = arrow == "-.->" or dotted is not None
        edges.append(
            Edge(source=one, target=other, label=label or dotted or "", is_dotted=is_dotted)
        )
    _layered(nodes, edges)
    columns = _columns(nodes, edges)
    _placed(nodes, edges, columns)
    return _svg(nodes, edges)


def _named(nodes: dict[str, Node], name: str, shape: str | None) -> None:
    """A node has its text where it is mentioned first with one."""
    node = nodes.setdefault(name, Node(lines=(name,)))
    if shape:
        node.shape = re.sub(r"[^\[({].*", "", shape)
        words, lines = shape.strip("[](){}").split(" "), [""]
        for word in words:
            fits = len(lines[-1]) + len(word) < WRAP
            lines[-1:] = (
                [f"{lines[-1]} {word}".strip()] if fits or not lines[-1] else [lines[-1], word]
            )
        node.lines = tuple(lines)


def _layered(nodes: dict[str, Node], edges: Sequence[Edge]) -> None:
    """Each node right of those that lead to it, but for edges that close a circle."""
    done: list[str] = []
    for name in nodes:
        _visit(name, (), edges, done)
    for name in reversed(done):
        for each in edges:
            if each.source == name and not each.is_back:
                target = nodes[each.target]
                target.layer = max(target.layer, nodes[name].layer + 1)


def _visit(name: str, above: tuple[str, ...], edges: Sequence[Edge], done: list[str]) -> None:
    """Everything that can be reached from a node is done before it."""
    if name in done:
        return
    for each in edges:
        if each.source == name:
            each.is_back = each.target in {*above, name}
            if not each.is_back:
                _visit(each.target, (*above, name), edges, done)
    done.append(name)


def _columns(nodes: dict[str, Node], edges: Sequence[Edge]) -> list[list[str]]:
    """The nodes of each layer from top to bottom; a long edge has a place in each that it crosses."""
    for index, each in enumerate(edges):
        first, last = nodes[each.source].layer, nodes[each.target].layer
        between = [] if each.is_back else range(first + 1, last)
        through = [f"{index}:{layer}" for layer in between]
        nodes |= {name: Node(layer=layer) for name, layer in zip(through, between, strict=True)}
        each.path = [each.source, *through, each.target]
    count = 1 + max(each.layer for each in nodes.values())
    columns = [[name for name, each in nodes.items() if each.layer == n] for n in range(count)]
    for before, column in pairwise(columns):
        at = {name: index / max(1, len(before) - 1) for index, name in enumerate(before)}
        came: dict[str, list[float]] = {name: [] for name in column}
        for each in edges:
            for one, other in pairwise(each.path):
                if other in came and one in at:
                    came[other].append(at[one])
        column.sort(key=lambda name: sum(came[name]) / len(came[name]) if came[name] else 0.5)
    return columns


def _placed(nodes: dict[str, Node], edges: Sequence[Edge], columns: Sequence[list[str]]) -> None:
    tallest, x = max(map(len, columns)), 0.0
    for index, column in enumerate(columns):
        width = max(nodes[name].width for name in column)
        for row, name in enumerate(column):
            nodes[name].x = x + width / 2
            nodes[name].y = ROW * (row + (tallest - len(column)) / 2) + ROW / 2
        labels = [
            LETTER * len(e.label) for e in edges if nodes[e.source].layer == index and not e.is_back
        ]
        x += width + GAP + max(labels, default=0.0)


def _svg(nodes: dict[str, Node], edges: Sequence[Edge]) -> str:
    right = max(each.x + each.width / 2 for each in nodes.values())
    low = max(each.y + each.height / 2 for each in nodes.values())
    backs = [each for each in edges if each.is_back]
    height = low + 12 + 30 * len(backs)
    parts = [*_arrows(nodes, edges), *_arcs(nodes, backs, low), *_boxes(nodes)]
    return (
        f'<figure class="diagram" style="overflow-x:auto"><svg style="min-width:640px" viewBox="-2 0 {right + 4:.0f} {height:.0f}" width="{right + 4:.0f}"'
        f' role="img" font-size="13" fill="currentColor" text-anchor="middle">'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7"'
        ' orient="auto"><path d="M0 0L8 4L0 8z"/></marker></defs>'
        f"{''.join(parts)}</svg></figure>"
    )


def _arrows(nodes: dict[str, Node], edges: Sequence[Edge]) -> Iterator[str]:
    """Each leaves and reaches its boxes at a place of its own."""
    forward = [each for each in edges if not each.is_back]
    for each in forward:
        begin = _port(nodes, each, [it for it in forward if it.source == each.source], first=True)
        end = _port(nodes, each, [it for it in forward if it.target == each.target], first=False)
        one, other = nodes[each.source], nodes[each.target]
        points = [
            (one.x + one.width / 2, begin),
            *((nodes[name].x, nodes[name].y) for name in each.path[1:-1]),
            (other.x - other.width / 2 - 1, end),
        ]
        path = f"M{points[0][0]:.0f} {points[0][1]:.0f}"
        for (x, y), (to, at) in pairwise(points):
            middle = (x + to) / 2
            path += f"C{middle:.0f} {y:.0f} {middle:.0f} {at:.0f} {to:.0f} {at:.0f}"
        yield _line(path, is_dotted=each.is_dotted)
        (x, y), (to, at) = points[:2]
        beside = [it for it in forward if it.source == each.source]
        part = 0.5 if len(beside) < CROWD else 0.36 + 0.28 * beside.index(each) / (len(beside) - 1)
        rise = 3 * part**2 - 2 * part**3
        yield _label(each.label, x + (to - x) * part, y + (at - y) * rise)


def _port(nodes: dict[str, Node], edge: Edge, beside: Sequence[Edge], *, first: bool) -> float:
    node = nodes[edge.source if first else edge.target]
    inner = 1 if first else -2
    ordered = sorted(beside, key=lambda each: nodes[each.path[inner]].y)
    step = min(17.0, (node.height - 4) / max(1, len(ordered)))
    return node.y + step * (ordered.index(edge) - (len(ordered) - 1) / 2)


def _arcs(nodes: dict[str, Node], backs: Sequence[Edge], low: float) -> Iterator[str]:
    """What goes back goes below everything."""
    for index, each in enumerate(backs):
        one, other = nodes[each.source], nodes[each.target]
        y = low + 22 + 30 * index
        path = (
            f"M{one.x:.0f} {one.y + one.height / 2:.0f}C{one.x:.0f} {y:.0f} {one.x:.0f} {y:.0f} {one.x - 30:.0f} {y:.0f}"
            f"L{other.x + 30:.0f} {y:.0f}C{other.x:.0f} {y:.0f} {other.x:.0f} {y:.0f} {other.x:.0f} {other.y + other.height / 2 + 1:.0f}"
        )
        yield _line(path, is_dotted=each.is_dotted)
        yield _label(each.label, (one.x + other.x) / 2, y)


def _line(path: str, *, is_dotted: bool) -> str:
    dashes = ' stroke-dasharray="3 4"' if is_dotted else ""
    return f'<path d="{path}" fill="none" stroke="currentColor" opacity=".65" marker-end="url(#tip)"{dashes}/>'


def _label(text: str, x: float, y: float) -> str:
    if not text:
        return ""
    width = LETTER * len(text) + 4
    paper = f'<rect x="{x - width / 2:.0f}" y="{y - 9:.0f}" width="{width:.0f}" height="18" fill="var(--md-default-bg-color, Canvas)"/>'
    return f'{paper}<text x="{x:.0f}" y="{y + 4:.0f}" font-size="12">{escape(text)}</text>'


def _boxes(nodes: dict[str, Node]) -> Iterator[str]:
    for each in nodes.values():
        if not each.lines:
            continue
        radius = {"([": each.height / 2, "{{": 14.0, "[(": 4.0}.get(each.shape, 4.0)
        left, top = each.x - each.width / 2, each.y - each.height / 2
        thick = 2 if each.shape == "{{" else 1
        yield (
            f'<rect x="{left:.0f}" y="{top:.0f}" width="{each.width:.0f}" height="{each.height:.0f}" rx="{radius:.0f}"'
            f' fill="var(--md-code-bg-color, Canvas)" stroke="currentColor" stroke-width="{thick}"/>'
        )
        if each.shape == "[(":
            yield f'<path d="M{left:.0f} {top + 6:.0f}h{each.width:.0f}" stroke="currentColor" opacity=".5"/>'
        first = each.y + 4 - LINE * (len(each.lines) - 1) / 2
        for index, line in enumerate(each.lines):
            yield f'<text x="{each.x:.0f}" y="{first + LINE * index:.0f}">{escape(line)}</text>'
