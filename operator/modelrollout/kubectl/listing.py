"""Many rollouts, a line for each. Only what is shown is looked at: 200 of them take no time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.text import Text

from modelrollout.core.times import as_seconds
from modelrollout.kubectl.printable import printable
from modelrollout.kubectl.server import Object

WIDE = 120
"""Columns from which there is room for the sentence why."""
PHASES = {
    "Promoted": "green",
    "RolledBack": "red",
    "RollingBack": "red",
    "Stalled": "yellow",
    "Paused": "yellow",
}
UNSEEN_SECONDS = 60
NOBODYS = "no operator has looked at it: none works here, or no shard selector matches its labels"
UNCUT = 10_000
GAP, NARROW_GAP = 3, 2
AGES = ((86_400, "d"), (3600, "h"), (60, "m"))


def console(*, is_cut: bool = True) -> Console:
    """To the standard output: colours on a terminal only, and not with NO_COLOR."""
    found = Console(highlight=False, emoji=False, markup=False)
    return found if is_cut else Console(highlight=False, emoji=False, markup=False, width=UNCUT)


def show(bodies: Sequence[Object], now: float, *, namespaces: bool, wide: bool) -> None:
    """Print them. What goes to a pipe is for programs, and is not cut."""
    is_piped = not console().is_terminal and "COLUMNS" not in os.environ
    out = console(is_cut=not (wide or is_piped))
    for line in listed(bodies, now, out.width, namespaces=namespaces, wide=wide):
        out.print(line, soft_wrap=True)


def listed(
    bodies: Sequence[Object], now: float, width: int, *, namespaces: bool, wide: bool
) -> Iterator[Text]:
    """A line for each, as kubectl does, with the sentence why where there is room for it."""
    heads = ["NAME", "STATE", "STEP", "WEIGHT", "VERDICT", "REQUESTS", "CANDIDATE", "AGE"]
    rows = [_row(each, now) for each in bodies]
    if namespaces:
        heads = ["NAMESPACE", *heads]
        rows = [
            [each["metadata"]["namespace"], *row] for each, row in zip(bodies, rows, strict=True)
        ]
    if wide:
        heads.append("STABLE")
        for each, row in zip(bodies, rows, strict=True):
            row.append(_at(each, "status", "stable", "deployment"))
    if wide or width >= WIDE:
        heads.append("REASON")
        for each, row in zip(bodies, rows, strict=True):
            row.append(_reason(each, now))
    state = heads.index("STATE")
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    is_roomy = sum(widths[:-1]) + GAP * len(widths) < width
    gap = GAP if is_roomy else NARROW_GAP
    widths = [each + gap for each in widths]
    yield _line(heads, widths, width, state, "bold")
    for row in rows:
        style = PHASES.get(row[state], "")
        yield _line(row, widths, width, state, style)


def _row(body: Object, now: float) -> list[str]:
    created = body["metadata"].get("creationTimestamp")
    return [
        body["metadata"]["name"],
        _at(body, "status", "phase") or "Pending",
        _at(body, "status", "stepText"),
        _at(body, "status", "weight", "wanted"),
        _at(body, "status", "verdict"),
        _at(body, "status", "requests"),
        _at(body, "spec", "candidate", "deployment"),
        _age(now - as_seconds(created)) if created else "",
    ]


def _reason(body: Object, now: float) -> str:
    """The sentence of who takes care of it; or that nobody does, which nobody else would say."""
    created = body["metadata"].get("creationTimestamp")
    is_old = created is not None and now - as_seconds(created) > UNSEEN_SECONDS
    return NOBODYS if is_old and not body.get("status") else _at(body, "status", "reason")


def _at(body: Object, *path: str) -> str:
    found: object = body
    for each in path:
        found = found.get(each) if isinstance(found, dict) else None
    return "" if found is None else " ".join(printable(str(found)).split())


def _line(cells: Sequence[str], widths: Sequence[int], width: int, state: int, style: str) -> Text:
    line = Text(no_wrap=True, overflow="ellipsis")
    for index, (cell, size) in enumerate(zip(cells, widths, strict=True)):
        is_last = index == len(cells) - 1
        line.append(cell if is_last else cell.ljust(size), style if index == state else "")
    line.rstrip()
    line.truncate(width, overflow="ellipsis")
    return line


def _age(seconds: float) -> str:
    """In one column: 12s, 5m, 2h, 3d."""
    for size, name in AGES:
        if seconds >= size:
            return f"{int(seconds // size)}{name}"
    return f"{max(0, int(seconds))}s"
