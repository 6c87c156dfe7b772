"""
Bounds for people: how many times worse, and by how much worse, the candidate can be.

They hold at every look, like the verdicts, because they are the bounds that the same evidence
rejects. The evidence behind a verdict is one point of them: the lower bound is above the
tolerance exactly when harm is proved, the upper below the margin exactly when safety is (while
higher is worse).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.optimize import brentq

from modelrollout.stats.counts import (
    Bound,
    log_harm_of,
    log_mixture_of,
    log_safety_of,
    table_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from modelrollout.stats.counts import Array, Sample

_RATIO_LIMIT: Final = math.log(1e4)


def ratio_bounds(
    samples: Sequence[Sample], alpha: float, *, margin: float = 1.5, dispersion: float = 1.0
) -> tuple[float, float]:
    """
    (lower, upper) for the candidate's rate over stable's; each holds with error rate alpha.

    For a ratio that is constant over the windows; if it changes, the upper bound is for some
    window's and the lower too. `margin` is the ratio around which the upper bound is sharpest.
    0 and infinity where nothing between 1e-4 and 1e4 is rejected. Raises ValueError for an alpha
    outside (0, 1), a margin not above 0 and a dispersion below 1. Source: the ratios that the
    evidence of `counts` does not reject; docs/statistics.md section 4.
    """
    _check(alpha, dispersion)
    if not (math.isfinite(margin) and margin > 0):
        raise ValueError(f"the margin must be a finite ratio above 0, not {margin}")
    table, needed = table_of(samples), math.log(1 / alpha)

    def harm(log_ratio: float) -> float:
        logs = log_harm_of(table, Bound(math.exp(log_ratio)))
        return float(log_mixture_of(logs.sum(axis=0) / dispersion)) - needed

    def safety(log_ratio: float) -> float:
        logs = log_safety_of(table, Bound(math.exp(log_ratio)), tuned_for=margin)
        return float(log_mixture_of(logs.sum(axis=0) / dispersion)) - needed

    lower, upper = _crossing(harm), _crossing(safety)
    return 0.0 if lower is None else math.exp(lower), math.inf if upper is None else math.exp(upper)


def difference_bounds(
    samples: Sequence[Sample], alpha: float, *, dispersion: float = 1.0
) -> tuple[float, float]:
    """
    (lower, upper) for the candidate's rate less stable's; each holds with error rate alpha.

    In events per unit of exposure, for a difference that is constant over the windows, else as
    `ratio_bounds`. Infinite where there is nothing to go by. The log of each bet is linear in
    the difference: with s at 0 and slope t, the bounds solve log mean exp(s - t x) = log 1/alpha.
    Errors and source as `ratio_bounds`.
    """
    _check(alpha, dispersion)
    table, needed = table_of(samples), math.log(1 / alpha)
    lower = _linear_crossing(*_line(log_harm_of, table, dispersion), needed)
    upper = _linear_crossing(*_line(log_safety_of, table, dispersion), needed)
    return -math.inf if lower is None else lower, math.inf if upper is None else upper


def _crossing(evidence: Callable[[float], float]) -> float | None:
    """Where monotone evidence crosses zero; None when it does not."""
    low, high = -_RATIO_LIMIT, _RATIO_LIMIT
    if evidence(low) * evidence(high) >= 0:
        return None
    return float(brentq(evidence, low, high, xtol=1e-9))


def _line(
    evidence: Callable[[Array, Bound], Array], table: Array, dispersion: float
) -> tuple[Array, Array]:
    """Intercepts and slopes of the log evidence in the absolute part, from its values at 1 and 2."""
    one, two = (evidence(table, Bound(1.0, x)).sum(axis=0) / dispersion for x in (1.0, 2.0))
    return 2 * one - two, one - two


def _linear_crossing(intercepts: Array, slopes: Array, needed: float) -> float | None:
    """The x with log mean exp(intercepts - slopes x) = needed; slopes have one sign."""
    used = slopes != 0
    if not used.any():
        return None
    sign = math.copysign(1.0, slopes[used][0])
    edges = (intercepts[used] - needed) / slopes[used] * sign
    reach = math.log(len(slopes)) / np.abs(slopes[used])
    low, high = float((edges - reach).max()), float(edges.max())

    def missing(x: float) -> float:
        return float(log_mixture_of(intercepts - slopes * sign * x)) - needed

    # With one line far above the others, or all alike, an end is the crossing but for rounding.
    if missing(low) <= 0:
        return sign * low
    return sign * (high if missing(high) >= 0 else float(brentq(missing, low, high, rtol=1e-9)))


def _check(alpha: float, dispersion: float) -> None:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, not {alpha}")
    if not (math.isfinite(dispersion) and dispersion >= 1):
        raise ValueError(f"dispersion must be a finite number >= 1, not {dispersion}")
