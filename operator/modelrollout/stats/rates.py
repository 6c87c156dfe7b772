"""
Bounds for one version's rate, to show beside the other's.

They hold at every look, and for whatever the rate did meanwhile: they are about its mean so far.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from modelrollout.stats.counts import log_mixture_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from modelrollout.stats.counts import Array

# Of the odds; none asks for a share above 1. The finest one is what a bound is sharp to.
_MULTIPLES: Final = (1.02, 1.05, 1.1, 1.2, 1.35, 1.6, 2.0, 3.0, 5.0, 10.0, 20.0)
_ROUNDS: Final = 50
_TOP: Final = 1.0 - 1e-12


def share_bounds(
    n: Sequence[float], k: Sequence[float], alpha: float, *, dispersion: float = 1.0
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """
    Lower and upper bounds of a share, for each pair of running totals (n requests, k events).

    Each side holds with error rate alpha at all looks together, for the mean of the requests'
    chances of the event so far. With s a multiple of the odds, s^k / (1 + (s - 1) p)^n has
    expectation at most 1 if the mean chance is p: of one request it is exactly 1, and
    log(1 + (s - 1) p) is concave in p. The bounds are where the mean over s reaches 1 / alpha
    (Ville's inequality). `dispersion` tempers as in `counts`. 0 and 1 where nothing is known.
    Raises ValueError for an alpha outside (0, 1), a dispersion below 1, and counts that are no
    counts of events among requests.
    """
    totals, events = _checked(n, k, alpha, dispersion)
    needed = math.log(1 / alpha)

    def evidence(p: Array, multiples: Array) -> Array:
        gains = np.log(multiples) * events[:, None]
        costs = totals[:, None] * np.log1p((multiples - 1) * p[:, None])
        evident: Array = log_mixture_of((gains - costs) / dispersion)
        return evident

    bold = np.array(_MULTIPLES)
    lower = _edge(lambda p: evidence(p, bold) >= needed, len(totals))
    upper = _edge(lambda p: evidence(p, 1 / bold) < needed, len(totals))
    return tuple(lower.tolist()), tuple(np.where(upper >= _TOP, 1.0, upper).tolist())


def _edge(is_below: Callable[[Array], NDArray[np.bool_]], size: int) -> Array:
    """Up to where it holds, in [0, 1]."""
    low, high = np.zeros(size), np.full(size, 1.0)
    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        holds = is_below(middle)
        low, high = np.where(holds, middle, low), np.where(holds, high, middle)
    return low


def _checked(
    n: Sequence[float], k: Sequence[float], alpha: float, dispersion: float
) -> tuple[Array, Array]:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, not {alpha}")
    if not (math.isfinite(dispersion) and dispersion >= 1):
        raise ValueError(f"dispersion must be a finite number >= 1, not {dispersion}")
    totals, events = np.array(n, dtype=np.float64), np.array(k, dtype=np.float64)
    is_count = totals.shape == events.shape and bool(np.isfinite(totals).all())
    if not is_count or not bool(((events >= 0) & (events <= totals)).all()):
        raise ValueError("events must lie between 0 and the number of requests, one for each")
    return totals, events
