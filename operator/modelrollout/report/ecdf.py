"""Distributions as shares at or below each bound that was counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modelrollout.core.evidence import Histogram
from modelrollout.core.trace import Row
from modelrollout.report.course import SIDE
from modelrollout.stats.rates import share_bounds


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """One version's."""

    at: Row
    shares: Row
    lower: Row
    upper: Row


def of_thresholds(thresholds: Sequence[float], row: Row) -> Steps:
    """From the counts beyond the thresholds of a guardrail: exposure first."""
    total, *beyond = row
    return _steps(thresholds, total, [max(0.0, total - each) for each in beyond])


def of_histogram(histogram: Histogram) -> Steps:
    """From a whole one; what is beyond its last finite bound has no place on an axis."""
    total = histogram.cumulative[-1]
    return _steps(histogram.bounds[:-1], total, histogram.cumulative[:-1])


def _steps(bounds: Sequence[float], total: float, within: Sequence[float]) -> Steps:
    known = [min(each, total) for each in within]
    lower, upper = share_bounds([total] * len(known), known, SIDE)
    return Steps(
        at=tuple(bounds),
        shares=tuple(each / total for each in known),
        lower=lower,
        upper=upper,
    )
