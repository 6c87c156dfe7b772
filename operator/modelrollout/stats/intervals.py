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

from modelrollout.stats.bounds import Bound
from modelrollout.stats.counts import log_harm_of, log_mixture_of, log_safety_of, table_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from modelrollout.stats.counts import Array, Sample

_RATIO_LIMIT: Final = math.log(1e4)
# A crossing is looked for among so many points, then between two of them, and so on: a few array
# operations, and none of the 23 MiB that scipy.optimize takes.
_FRACTIONS: Final = np.arange(17.0) / 16
_ROUNDS: Final = 4
_NEWTON_STEPS: Final = 60
_PRECISION: Final = 1e-12


def ratio_bounds(
    samples: Sequence[Sample],
    alpha: float,
    *,
    upper_alpha: float | None = None,
    margin: float = 1.5,
    dispersion: float = 1.0,
) -> tuple[float, float]:
    """
    (lower, upper) for the candidate's rate over stable's; each holds with error rate alpha.

    The upper one with `upper_alpha`, where that is given. For a ratio that is constant over the
    windows; if it changes, the upper bound is for some window's and the lower too. `margin` is the
    ratio around which the upper bound is sharpest. 0 and infinity where nothing between 1e-4 and
    1e4 is rejected. Raises ValueError for an alpha outside (0, 1), a margin not above 0 and a
    dispersion below 1. Source: the ratios that the evidence of `counts` does not reject;
    docs/statistics.md section 4.
    """
    lower_needed, upper_needed = _needed(alpha, upper_alpha, dispersion)
    if not (math.isfinite(margin) and margin > 0):
        raise ValueError(f"the margin must be a finite ratio above 0, not {margin}")
    table, equal = table_of(samples), Bound()

    def scaled(log_ratios: Array) -> Array:
        """A ratio to stable's rate is none to the rate of so many times fewer requests."""
        tables = np.repeat(table[np.newaxis], len(log_ratios), axis=0)
        tables[..., 0] /= np.exp(log_ratios)[:, np.newaxis]
        return tables

    def harm(log_ratios: Array) -> Array:
        logs = log_harm_of(scaled(log_ratios), equal).sum(axis=1)
        return log_mixture_of(logs / dispersion) - lower_needed

    def safety(log_ratios: Array) -> Array:
        logs = log_safety_of(scaled(log_ratios), equal, tuned_for=margin).sum(axis=1)
        return log_mixture_of(logs / dispersion) - upper_needed

    lower, upper = (_crossing(each, -_RATIO_LIMIT, _RATIO_LIMIT) for each in (harm, safety))
    return 0.0 if lower is None else math.exp(lower), math.inf if upper is None else math.exp(upper)


def difference_bounds(
    samples: Sequence[Sample],
    alpha: float,
    *,
    upper_alpha: float | None = None,
    dispersion: float = 1.0,
) -> tuple[float, float]:
    """
    (lower, upper) for the candidate's rate less stable's; each holds with error rate alpha.

    In events per unit of exposure, for a difference that is constant over the windows, else as
    `ratio_bounds`. Infinite where there is nothing to go by. The log of each bet is linear in
    the difference: with s at 0 and slope t, the bounds solve log mean exp(s - t x) = log 1/alpha.
    Errors and source as `ratio_bounds`.
    """
    lower_needed, upper_needed = _needed(alpha, upper_alpha, dispersion)
    table = table_of(samples)
    lower = _linear_crossing(*_line(log_harm_of, table, dispersion), lower_needed)
    upper = _linear_crossing(*_line(log_safety_of, table, dispersion), upper_needed)
    return -math.inf if lower is None else lower, math.inf if upper is None else upper


def _crossing(evidence: Callable[[Array], Array], low: float, high: float) -> float | None:
    """Where monotone evidence crosses zero; None when it does not."""
    for _ in range(_ROUNDS):
        points = low + (high - low) * _FRACTIONS
        values = evidence(points)
        is_above = values >= 0
        if is_above[0] == is_above[-1]:
            return None
        after = int((is_above != is_above[0]).argmax())
        low, high = float(points[after - 1]), float(points[after])
    before, beyond = float(values[after - 1]), float(values[after])
    return low + (high - low) * before / (before - beyond)


def _line(
    evidence: Callable[[Array, Bound], Array], table: Array, dispersion: float
) -> tuple[Array, Array]:
    """Intercepts and slopes of the log evidence in the absolute part: the slope needs no events."""
    quiet = table.copy()
    quiet[:, 1] = quiet[:, 3] = 0
    logs = evidence(np.stack((table, quiet)), Bound(1.0, 1.0)).sum(axis=1) / dispersion
    return logs[0] - logs[1], -logs[1]


def _linear_crossing(intercepts: Array, slopes: Array, needed: float) -> float | None:
    """
    The x with log mean exp(intercepts - slopes x) = needed; slopes have one sign.

    Newton's method: the left side is convex, so that from where it is too large no step goes too far.
    """
    used = slopes != 0
    if not used.any():
        return None
    sign = math.copysign(1.0, slopes[used][0])
    falls = slopes * sign
    reach = intercepts[used] - needed - math.log(len(slopes))
    x = float((reach / falls[used]).max())
    for _ in range(_NEWTON_STEPS):
        logs = intercepts - falls * x
        total = float(log_mixture_of(logs))
        fall = float(np.exp(logs - total) @ falls) / len(falls)
        step = (total - needed) / fall if fall > 0 else 0.0
        x += step
        if step <= _PRECISION * abs(x):
            break
    return sign * x


def _needed(alpha: float, upper_alpha: float | None, dispersion: float) -> tuple[float, float]:
    """The log evidence from which a value is rejected, for the lower bound and for the upper."""
    alphas = (alpha, alpha if upper_alpha is None else upper_alpha)
    for each in alphas:
        if not 0 < each < 1:
            raise ValueError(f"alpha must lie between 0 and 1, not {each}")
    if not (math.isfinite(dispersion) and dispersion >= 1):
        raise ValueError(f"dispersion must be a finite number >= 1, not {dispersion}")
    return math.log(1 / alphas[0]), math.log(1 / alphas[1])
