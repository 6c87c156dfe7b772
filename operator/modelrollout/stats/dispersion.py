"""
Overdispersion: how many events one cause brings, measured on stable alone.

One restart fails many requests at once. Counts then vary more than independent requests would,
and evidence is divided by that factor (tempering; the `dispersion` of `counts`). Use the larger
one of `dispersion` and, where stable has two halves, `dispersion_of_halves`.
"""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Window: TypeAlias = tuple[float, ...]
    Pair: TypeAlias = tuple[float, float]
    Expected: TypeAlias = Callable[[float, float], float]

LEAST_PAIRS: Final = 10
"""Pairs of windows with events below which nothing can be said about dispersion."""
LEAST_WIDE: Final = 30
"""Windows that must be left when neighbours are added together."""
DOUBT: Final = 2.0
"""So many standard errors above 1 an estimate must be, or a short history slows every rollout."""


def dispersion(
    windows: Sequence[tuple[float, float]],
    *,
    of_proportion: bool = False,
    caution: float = 1.0,
    widest: int = 2,
) -> float:
    """
    The factor by which events come in bursts; at least 1.

    `windows` are consecutive windows of stable, (exposure, events) each, from before the windows
    that are tested. With n, k and n', k' of neighbours it is

        sum (k n' - k' n)^2 / (n n')  /  sum (k + k')

    For independent events each term of the first sum expects the one of the second, whatever
    the rate (given k + k' the split is binomial). Of a proportion, whose events are so many of its
    requests, the split is hypergeometric, and (k + k') (N - k - k') / (N - 1) with N = n + n' is
    expected: less, where events are common. Differences of neighbours do not see a slow
    drift. The ratio of sums is used and not the mean of ratios, which forgets that large bursts
    are large: with one burst per twenty windows of mean size 3 (index of dispersion 5) the mean
    of ratios is 3.1.

    A burst that lasts longer than a window is cut up by it, and looks smaller than it is. Therefore
    the windows are added together, two, four, up to `widest` of them, as long as `LEAST_WIDE` are
    left, and the largest factor counts. The wider they are the more does a rate that swings look
    like bursts, although it moves both versions alike: `dispersion_of_halves` tells these apart.

    An estimate that independent events give too, one of at most 1 + `DOUBT` sqrt(3 / pairs) (the
    variance of successive differences of independent normal values), is taken for 1. To others
    `caution` standard errors are added, because evidence that is tempered too little alarms
    falsely. With fewer than `LEAST_PAIRS` pairs that can vary it is 1: unknown, and not known to
    be calm. Raises ValueError for negative or non-finite counts or caution, for a widest below 1,
    and where more events than requests make no proportion. Source: index of dispersion by successive differences (von Neumann, Annals of
    Mathematical Statistics 1941; of counts at several widths: the Allan factor, Lowen and Teich,
    Journal of the Acoustical Society of America 1996), for unequal exposures; docs/statistics.md
    section 5.
    """
    _check(windows, caution, widest, of_proportion=of_proportion)
    pairs_of = partial(_neighbours, _of_proportion if of_proportion else _of_rate)
    return _largest(windows, pairs_of, caution, widest)


def dispersion_of_halves(
    windows: Sequence[tuple[float, float, float, float]],
    *,
    of_proportion: bool = False,
    caution: float = 1.0,
    widest: int = 16,
) -> float:
    """
    The factor by which events come in bursts that do not hit both halves of stable alike.

    `windows` hold (exposure, events) of one half and of the other. With D = (k m - j n) / sqrt(n m)
    of n, k and m, j it is, over neighbours,

        sum (D - D')^2  /  sum (k + j + k' + j')

    For independent events each term of the first sum expects the one of the second (of a
    proportion k + j is (k + j) (N - k - j) / (N - 1), likewise with N = n + m). A rate that swings or jumps for both halves moves D little, a lasting difference between them moves D and D'
    alike, so these do not count, and the windows can be added together as far as bursts last. What
    hits both halves at once is not seen, nor is a burst of the whole version. Else, and errors, as
    `dispersion`; source: docs/statistics.md section 5.
    """
    _check(windows, caution, widest, of_proportion=of_proportion)
    pairs_of = partial(_neighbours_of_halves, _of_proportion if of_proportion else _of_rate)
    return _largest(windows, pairs_of, caution, widest)


def _of_rate(_exposure: float, events: float) -> float:
    """The square that independent events of two windows, or halves, together expect."""
    return events


def _of_proportion(exposure: float, events: float) -> float:
    """The same of requests, each with the event or without."""
    return events * (exposure - events) / max(exposure - 1.0, 1.0)


def _largest(
    windows: Sequence[Window],
    pairs_of: Callable[[Sequence[Window]], list[Pair]],
    caution: float,
    widest: int,
) -> float:
    """The largest estimate over windows that are added together."""
    largest, width = _estimate(pairs_of(windows), caution), 2
    while width <= widest and len(windows) // 2 >= LEAST_WIDE:
        both = zip(windows[::2], windows[1::2], strict=False)
        windows = [tuple(map(sum, zip(*each, strict=True))) for each in both]
        largest, width = max(largest, _estimate(pairs_of(windows), caution)), 2 * width
    return largest


def _neighbours(expected: Expected, windows: Sequence[Window]) -> list[Pair]:
    """(square, the square that is expected of independent events) of each pair of neighbours."""
    return [
        ((k * m - j * n) ** 2 / (n * m), expected(n + m, k + j))
        for (n, k), (m, j) in pairwise(windows)
        if n > 0 and m > 0
    ]


def _neighbours_of_halves(expected: Expected, windows: Sequence[Window]) -> list[Pair]:
    differences = [
        ((k * m - j * n) / math.sqrt(n * m), expected(n + m, k + j)) if n > 0 and m > 0 else None
        for n, k, m, j in windows
    ]
    return [
        ((one[0] - other[0]) ** 2, one[1] + other[1])
        for one, other in pairwise(differences)
        if one is not None and other is not None
    ]


def _estimate(pairs: Sequence[Pair], caution: float) -> float:
    pairs = [pair for pair in pairs if pair[1] > 0]
    if len(pairs) < LEAST_PAIRS:
        return 1.0
    total = math.fsum(expected for _, expected in pairs)
    estimate = math.fsum(square for square, _ in pairs) / total
    if estimate <= 1 + DOUBT * math.sqrt(3 / len(pairs)):
        return 1.0
    return estimate + caution * _standard_error(pairs, estimate) / total


def _standard_error(pairs: Sequence[Pair], estimate: float) -> float:
    """Of the sum of squares less the estimate times what is expected; a window is in two pairs."""
    return math.sqrt(2 * math.fsum((square - estimate * each) ** 2 for square, each in pairs))


def _check(windows: Sequence[Window], caution: float, widest: int, *, of_proportion: bool) -> None:
    if widest < 1:
        raise ValueError(f"at least one window must be looked at at a time, not {widest}")
    if not (math.isfinite(caution) and caution >= 0):
        raise ValueError(f"caution must be a finite number >= 0, not {caution}")
    for window in windows:
        for n, k in zip(window[::2], window[1::2], strict=True):
            if not (math.isfinite(n) and n >= 0 and math.isfinite(k) and k >= 0):
                raise ValueError(f"stable's counts must be finite and >= 0, not n={n}, k={k}")
            if of_proportion and k > n:
                raise ValueError(f"stable has more events than requests: n={n}, k={k}")
