"""Bounds for a share that was counted."""

from __future__ import annotations

from scipy.special import betaincinv


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
