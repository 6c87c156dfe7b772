"""Numbers as people read them, with their units."""

from __future__ import annotations

import math

from modelrollout.core.evidence import Kind
from modelrollout.core.trace import Guardrail, Row, Trace
from modelrollout.stats.bounds import Bound

NOT_LARGER = 1e-4
UNITS = (("milliseconds", "ms"), ("_ms", "ms"), ("rq_time", "ms"), ("seconds", "s"), ("bytes", "B"))
"""By a part of the metric's name; the longest words first."""


def percent(share: float) -> str:
    """A share, with as many digits as it needs; no line ends before its sign."""
    if not math.isfinite(share):
        return "unknown"
    digits = 0 if share == 0 else 1 if abs(share) >= 0.1 else 2 if abs(share) >= 0.001 else 3  # noqa: PLR2004
    return f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%"


def number(value: float) -> str:
    """A count with commas, anything else with three digits."""
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"  # noqa: PLR2004


def unit_of(guardrail: Guardrail) -> str:
    """The unit of a distribution's values, as its metric's name has it; empty where it has none."""
    return next((unit for part, unit in UNITS if part in guardrail.metric), "")


def with_unit(value: float, unit: str) -> str:
    """A value of a histogram."""
    return f"{value:g} {unit}".rstrip()


def share_of(guardrail: Guardrail, row: Row, column: int) -> str:
    """A version's figure."""
    if len(row) < column + 2 or row[0] <= 0:
        return "no requests"
    value = row[column + 1] / row[0]
    match guardrail.kind:
        case Kind.RATE:
            return f"{value:.3g} per s"
        case Kind.MEAN:
            return f"{value:.4g}"
        case _:
            return percent(value)


def exposure_of(guardrail: Guardrail, row: Row) -> str:
    """What it was counted in."""
    total = number(row[0]) if row else "0"
    match guardrail.kind:
        case Kind.RATE:
            return f"{total} s"
        case Kind.PAIRED:
            return f"{total} pairs"
        case Kind.MEAN:
            return f"{total} values"
        case _:
            return f"{total} requests"


def bound(given: Bound, guardrail: Guardrail) -> str:
    """What the candidate may do, in words."""
    is_share = guardrail.kind is not Kind.MEAN and guardrail.quantile is None
    absolute = percent(given.absolute) if is_share else f"{given.absolute:g}"
    if guardrail.kind is Kind.RATE:
        absolute = f"{given.absolute:g} per s"
    if guardrail.lower_is_worse:
        less = f" \N{MINUS SIGN} {absolute}" if given.absolute else ""
        return f"stable / {given.ratio:g}{less}" if given.ratio != 1 else f"stable{less}"
    if given.ratio == 0:
        return absolute
    times = "stable" if given.ratio == 1 else f"{given.ratio:g} \N{MULTIPLICATION SIGN} stable"
    return f"{times} + {absolute}" if given.absolute else times


def candidate_requests(trace: Trace) -> float:
    """Requests that the candidate answered while versions were compared, by the guardrail that saw most."""
    totals: dict[tuple[str, int | None], float] = {}
    kinds = {each.name: each.kind for each in trace.guardrails}
    for point in trace.points:
        for level in point.guardrails:
            if level.candidate and kinds.get(level.name) in {Kind.PROPORTION, Kind.DISTRIBUTION}:
                key = (level.name, point.step)
                totals[key] = max(totals.get(key, 0.0), level.candidate[0])
    names = {name for name, _ in totals}
    return max(
        (sum(n for (each, _), n in totals.items() if each == name) for name in names), default=0.0
    )
