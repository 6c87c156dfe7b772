"""Numbers and times as people read them, with their units."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from modelrollout.core.evidence import Kind
from modelrollout.core.trace import Guardrail, Row, Trace
from modelrollout.stats.bounds import Bound

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
NOT_LARGER = 1e-4
UNITS = (("milliseconds", "ms"), ("_ms", "ms"), ("rq_time", "ms"), ("seconds", "s"), ("bytes", "B"))
"""By a part of the metric's name; the longest words first."""


def moment(seconds: float) -> str:
    """A time of day, in UTC."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def day(seconds: float) -> str:
    """A date, in UTC."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"


def clock(seconds: float) -> str:
    """A time of day alone."""
    return f"{datetime.fromtimestamp(seconds, UTC):%H:%M:%S}"


def span(seconds: float) -> str:
    """A length of time, in two units at most."""
    whole = max(0, round(seconds))
    if whole < MINUTE:
        return f"{whole} s"
    if whole < HOUR:
        return _two(whole, 60, "min", 1, "s")
    if whole < DAY:
        return _two(whole, 3600, "h", 60, "min")
    return _two(whole, 86_400, "d", 3600, "h")


def _two(whole: int, large: int, one: str, small: int, other: str) -> str:
    first, rest = divmod(whole, large)
    second = rest // small
    return f"{first} {one} {second} {other}" if second else f"{first} {one}"


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
