"""
Overdispersion: how many events one cause brings, measured on stable alone.

One restart fails many requests at once. Counts then vary more than independent requests would,
and evidence is divided by that factor (tempering; the `dispersion` of `counts`).
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

LEAST_PAIRS: Final = 10
"""Pairs of windows with events below which nothing can be said about dispersion."""
LEAST_WIDE: Final = 30
"""Windows that must be left when neighbours are added together."""
WIDEST: Final = 16
"""Neighbours that are added together at most: bursts much longer than these are not seen."""
DOUBT: Final = 2.0
"""So many standard errors above 1 an estimate must be, or a short history slows every rollout."""


def dispersion(
    windows: Sequence[tuple[float, float]], *, caution: float = 1.0, widest: int = WIDEST
) -> float:
    """
    The factor by which events come in bursts; at least 1.

    `windows` are consecutive windows of stable, (exposure, events) each, from before the windows
    that are tested. With n, k and n', k' of neighbours it is

        sum (k n' - k' n)^2 / (n n')  /  sum (k + k')

    For independent events each term of the first sum expects the one of the second, whatever
    the rate (given k + k' the split is binomial); differences of neighbours do not see a slow
    drift. The ratio of sums is used and not the mean of ratios, which forgets that large bursts
    are large: with one burst per twenty windows of mean size 3 (index of dispersion 5) the mean
    of ratios is 3.1.

    A burst that lasts longer than a window is cut up by it, and looks smaller than it is. Evidence
    adds all its windows up, so narrow ones do not help. Therefore the windows are added together,
    two, four, up to `widest` of them, as long as `LEAST_WIDE` are left, and the largest factor
    counts. An incident of a few minutes in stable's past looks like a burst, too.

    An estimate that independent events give too, one of at most 1 + `DOUBT` sqrt(3 / pairs) (the
    variance of successive differences of independent normal values), is taken for 1. To others
    `caution` standard errors are added, because evidence that is tempered too little alarms
    falsely: they matter in a short history (60 windows) and hardly in a long one (1,000). With
    fewer than `LEAST_PAIRS` pairs that have events it is 1: unknown, and not known to be calm.
    Raises ValueError for negative or non-finite counts or caution, and for a widest below 1.
    Source: index of dispersion by successive differences (von Neumann, Annals of Mathematical
    Statistics 1941; of counts at several widths: the Allan factor, Lowen and Teich, Journal of the
    Acoustical Society of America 1996), for unequal exposures; docs/statistics.md section 5.
    """
    _check(windows, caution, widest)
    largest, width = _at_this_width(windows, caution), 2
    while width <= widest and len(windows) // 2 >= LEAST_WIDE:
        windows = [
            (n + m, k + j) for (n, k), (m, j) in zip(windows[::2], windows[1::2], strict=False)
        ]
        largest, width = max(largest, _at_this_width(windows, caution)), 2 * width
    return largest


def _at_this_width(windows: Sequence[tuple[float, float]], caution: float) -> float:
    pairs = [
        ((k * m - j * n) ** 2 / (n * m), k + j)
        for (n, k), (m, j) in pairwise(windows)
        if n > 0 and m > 0 and k + j > 0
    ]
    if len(pairs) < LEAST_PAIRS:
        return 1.0
    events = math.fsum(expected for _, expected in pairs)
    estimate = math.fsum(square for square, _ in pairs) / events
    if estimate <= 1 + DOUBT * math.sqrt(3 / len(pairs)):
        return 1.0
    return estimate + caution * _standard_error(pairs, estimate) / events


def _standard_error(pairs: Sequence[tuple[float, float]], estimate: float) -> float:
    """Of the sum of squares less the estimate times the events; a window is in two pairs."""
    return math.sqrt(2 * math.fsum((square - estimate * events) ** 2 for square, events in pairs))


def _check(windows: Sequence[tuple[float, float]], caution: float, widest: int) -> None:
    if widest < 1:
        raise ValueError(f"at least one window must be looked at at a time, not {widest}")
    if not (math.isfinite(caution) and caution >= 0):
        raise ValueError(f"caution must be a finite number >= 0, not {caution}")
    for n, k in windows:
        if not (math.isfinite(n) and n >= 0 and math.isfinite(k) and k >= 0):
            raise ValueError(f"stable's counts must be finite and >= 0, not n={n}, k={k}")
