"""Bounds for a share that was counted, and the chance that one share is above another."""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy.special import betainc, betaincinv

_QUANTILES: Final = (np.arange(400) + 0.5) / 400


def share_bounds(events: float, trials: float, alpha: float) -> tuple[float, float]:
    """
    Clopper and Pearson's interval (Biometrika 1934): outside of it in at most alpha of all cases.

    Numbers may be fractional, where trials were not independent and count for fewer than there
    were. Raises ValueError for events that are negative or more than the trials, and for an alpha
    outside (0, 1).
    """
    if not (0 <= events <= trials and trials > 0):
        raise ValueError(f"{events} events cannot come of {trials} trials")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, not {alpha}")
    others = trials - events
    lower = betaincinv(events, others + 1, alpha / 2) if events > 0 else 0.0
    upper = betaincinv(events + 1, others, 1 - alpha / 2) if others > 0 else 1.0
    return float(lower), float(upper)


def chance_above(one: tuple[float, float], other: tuple[float, float]) -> float:
    """
    The chance that one share is above another, each given as (events, trials); to show, not to decide.

    Of two independent Beta posteriors from uniform priors: the mean of one's distribution function
    over 400 even quantiles of the other, right to about 0.001. It holds at one look that was
    planned before, not at each of many. Raises ValueError for events that are negative or more
    than the trials.
    """
    for events, trials in (one, other):
        if not 0 <= events <= trials:
            raise ValueError(f"{events} events cannot come of {trials} trials")
    (k, n), (j, m) = one, other
    at = betaincinv(k + 1, n - k + 1, _QUANTILES)
    return float(betainc(j + 1, m - j + 1, at).mean())
