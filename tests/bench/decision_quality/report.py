"""The table as Markdown, and the bars that the engine has to clear."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from bench.decision_quality.measure import STRICT_ALPHA, Outcome, Promotion, Row
from bench.decision_quality.methods import ENGINE, KAYENTA, ORACLE, WINDOW_MEANS
from bench.decision_quality.whole import WORLD, Whole
from bench.decision_quality.worlds import ALPHA
from modelrollout.stats.bounds import Bound

MOST_TO_DETECT = 1.5
MOST_TO_PROMOTE = 1.35
DETECTED = ("1 %, 1.5 times", "1 %, 2 times")
PROMOTED = (Bound(1.5), Bound(2.0), Bound(1.0, 0.01), Bound(2.0, 0.005))
ENOUGH_RUNS = 2000

VERDICTS = {True: "pass", False: "**FAIL**", None: "too few runs"}

Equals: TypeAlias = dict[str, tuple[Outcome, Outcome]]
"""Of equal versions: what the engine did at 5 %, and at 1 %."""

HEADING = (
    "world and method",
    "false decisions (at most)",
    "missed",
    "candidate requests: median",
    "95 %",
    "bad answers",
    "x limit",
)
COLUMNS = {
    ENGINE: "engine",
    "threshold, Flagger's settings": "Flagger",
    "threshold, Argo's settings": "Argo",
    KAYENTA: "Kayenta",
    "z-test at each look": "z-test",
    "confidence sequence, requests": "CS, requests",
    WINDOW_MEANS: "CS, means",
    ORACLE: "oracle",
}
"""Short names; Kayenta's judge looks at a latency's mean."""
PROMOTION_HEADING = (
    "margin",
    "promoted though on the margin (at most)",
    "undecided",
    "candidate requests: median",
    "95 %",
    "x limit",
)


@dataclass(frozen=True, kw_only=True)
class Bar:
    """Something that must hold, and whether it does."""

    what: str
    is_met: bool | None
    """None where there are too few runs to tell."""
    found: str


def table(rows: Iterable[Row]) -> Iterator[str]:
    """One line for each method in each world; who does not hold its rate is in brackets."""
    yield from _heading(HEADING)
    world = ""
    for row in rows:
        if row.world != world:
            world = row.world
            yield _line(f"**{world}** (limit {_number(row.limit)})", *[""] * (len(HEADING) - 1))
        yield _line(
            row.method,
            f"{_percent(row.false)} ({_percent(row.false_at_most)})",
            _percent(row.missed),
            _speed(row),
            _number(row.p95),
            _number(row.bad),
            f"{row.ratio:.2f}" if math.isfinite(row.ratio) else "",
        )


def summaries(rows: Sequence[Row]) -> Iterator[str]:
    """Two small tables with a column for each method: false decisions, and median requests."""
    worlds = list(dict.fromkeys(row.world for row in rows))
    named = {(row.world, row.method): row for row in rows}
    for title, cell in (("false decisions", _false), ("median requests", _speed)):
        yield from _heading((title, *COLUMNS.values()))
        for world in worlds:
            found = [named.get((world, method)) for method in COLUMNS]
            yield _line(world, *(cell(row) if row else "" for row in found))
        yield ""


def _false(row: Row) -> str:
    return _percent(row.false)


def _speed(row: Row) -> str:
    """In brackets where the method does not hold its rate, bold where it is faster and does."""
    text = _number(row.median)
    if row.is_faster:
        return f"**{text}**"
    return text if row.holds else f"({text})"


def promotion_table(promotions: Iterable[Promotion]) -> Iterator[str]:
    """One line for each margin."""
    yield from _heading(PROMOTION_HEADING)
    for each in promotions:
        yield _line(
            said(each.margin),
            f"{_percent(each.false)} ({_percent(each.false_at_most)})",
            _percent(each.undecided),
            _number(each.median),
            _number(each.p95),
            f"{each.median / each.limit:.2f}",
        )


def whole_line(found: Whole, rows: Sequence[Row]) -> str:
    """What the whole operator did in one of the worlds, beside its line of the table."""
    row = next(each for each in rows if each.world == WORLD and each.method == ENGINE)
    return (
        f"The whole operator in '{WORLD}', {found.runs} rollouts: {_percent(found.missed)} missed,"
        f" median {_number(found.median)}, 95 % {_number(found.p95)};"
        f" by windows {_percent(row.missed)}, {_number(row.median)}, {_number(row.p95)}."
    )


def bars(rows: Sequence[Row], equal: Equals, promotions: Sequence[Promotion]) -> Iterator[Bar]:
    """Each bar of which something was measured."""
    yield from false_decision_bars(equal)
    yield from _speeds(rows)
    yield from _promotions(promotions)
    yield from rival_bars(rows)


def false_decision_bars(equal: Equals) -> Iterator[Bar]:
    for versions, (plain, strict) in equal.items():
        for alpha, outcome in ((ALPHA, plain), (STRICT_ALPHA, strict)):
            at_least, at_most = outcome.limits()
            yield Bar(
                what=f"equal versions, {versions}: rolled back in at most {_percent(alpha)}",
                is_met=True if at_most <= alpha else False if at_least > alpha else None,
                found=f"{_percent(outcome.share)}, with 99 % confidence at most {_percent(at_most)}",
            )


def _speeds(rows: Sequence[Row]) -> Iterator[Bar]:
    for row in rows:
        if row.method == ENGINE and row.world in DETECTED:
            yield Bar(
                what=f"{row.world}: median at most {MOST_TO_DETECT} x limit",
                is_met=row.ratio <= MOST_TO_DETECT,
                found=f"{_number(row.median)} of {_number(row.limit)}, {row.ratio:.2f} x",
            )


def _promotions(promotions: Sequence[Promotion]) -> Iterator[Bar]:
    for each in promotions:
        if each.margin in PROMOTED:
            ratio = each.median / each.limit
            yield Bar(
                what=f"promoted within {said(each.margin)}: median at most {MOST_TO_PROMOTE} x limit",
                is_met=ratio <= MOST_TO_PROMOTE,
                found=f"{_number(each.median)} of {_number(each.limit)}, {ratio:.2f} x",
            )


def rival_bars(rows: Sequence[Row]) -> Iterator[Bar]:
    faster = [each for each in rows if each.is_faster]
    for row in faster:
        ours = next(
            each.median for each in rows if each.world == row.world and each.method == ENGINE
        )
        yield Bar(
            what="nobody who holds its rate is faster by more than 10 %",
            is_met=False,
            found=f"{row.world}: {row.method}, {_number(row.median)}, ours {_number(ours)}",
        )
    if rows and not faster:
        yield Bar(
            what="nobody who holds its rate is faster by more than 10 %",
            is_met=True,
            found="nobody",
        )


def bar_lines(found: Iterable[Bar]) -> Iterator[str]:
    """Markdown."""
    yield from _heading(("bar", "", "measured"))
    for bar in found:
        yield _line(bar.what, VERDICTS[bar.is_met], bar.found)


def said(bound: Bound) -> str:
    """A bound in words."""
    if not bound.absolute:
        return f"{bound.ratio:g} x stable"
    points = f"{100 * bound.absolute:g} points"
    return f"stable + {points}" if bound.ratio == 1 else f"{bound.ratio:g} x stable + {points}"


def _heading(columns: Sequence[str]) -> Iterator[str]:
    yield _line(*columns)
    yield "|" + "---|" * len(columns)


def _line(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share < 0.995 else f"{100 * share:.0f} %"


def _number(value: float) -> str:
    return f"{value:,.0f}" if math.isfinite(value) else "never"
