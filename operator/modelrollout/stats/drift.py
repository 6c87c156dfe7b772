"""
Drift: how far two histograms are apart, and what distance chance alone makes.

A distance without its reference means nothing: with ten bins the 95 % point of the population
stability index is 0.34 for two samples of 100 and 0.00034 for two of 100,000. Drift is reported when
the distance is over a limit and the evidence per bin (`log_bins`) says that it is real.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.special import gammaincinv, kolmogi, rel_entr

from modelrollout.stats.bounds import Bound
from modelrollout.stats.counts import log_harm_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from modelrollout.stats.counts import Array

_HALF: Final = 0.5


def population_stability(reference: Sequence[float], current: Sequence[float]) -> float:
    """
    Population stability index of two histograms (counts per bin): sum (q - p) ln(q / p).

    Half a count is added to each bin, so that an empty one gives a finite distance. Raises
    ValueError for unequal numbers of bins, fewer than two, and empty or malformed counts.
    Source: Yurdakul and Naranjo, Journal of Risk Model Validation 2020 (symmetrised
    Kullback-Leibler divergence, in nats).
    """
    p, q = _checked(reference) + _HALF, _checked(current, len(reference)) + _HALF
    p, q = p / p.sum(), q / q.sum()
    return float(((q - p) * np.log(q / p)).sum())


def population_stability_by_chance(n: float, m: float, bins: int, level: float) -> float:
    """
    The value that the index of n against m equal observations exceeds with chance 1 - level.

    About (1 / n + 1 / m) times the chi-squared quantile with bins - 1 degrees of freedom (Yurdakul
    and Naranjo 2020); expected counts should be 5 or more. Raises ValueError for sizes that
    are not positive, fewer than two bins, and a level outside (0, 1).
    """
    return _chi_squared(n, m, bins, level)


def jensen_shannon(reference: Sequence[float], current: Sequence[float]) -> float:
    """
    Jensen-Shannon divergence of two histograms in bits, from 0 (equal) to 1 (disjoint).

    Lin, IEEE Transactions on Information Theory 1991. Errors as `population_stability`.
    """
    p, q = _checked(reference), _checked(current, len(reference))
    p, q = p / p.sum(), q / q.sum()
    middle = (p + q) / 2
    return float((rel_entr(p, middle) + rel_entr(q, middle)).sum() / (2 * math.log(2)))


def jensen_shannon_by_chance(n: float, m: float, bins: int, level: float) -> float:
    """
    The value in bits that the divergence of equal versions exceeds with chance 1 - level.

    For close histograms it is an eighth of sum (p - q)^2 / p (in nats), the index's leading term
    (docs/statistics.md section 4). Errors as `population_stability_by_chance`.
    """
    return _chi_squared(n, m, bins, level) / (8 * math.log(2))


def kolmogorov_smirnov(reference: Sequence[float], current: Sequence[float]) -> float:
    """
    Largest distance of the two cumulative shares at the bins' upper bounds, from 0 to 1.

    For ordered bins; at most the distance of the unbinned values. Errors as
    `population_stability`. Source: Smirnov, Annals of Mathematical Statistics 1948.
    """
    p, q = _checked(reference), _checked(current, len(reference))
    return float(np.abs(np.cumsum(p) / p.sum() - np.cumsum(q) / q.sum()).max())


def kolmogorov_smirnov_by_chance(n: float, m: float, level: float) -> float:
    """
    The value that the distance of equal versions exceeds with chance at most 1 - level, about.

    Asymptotic distribution of Kolmogorov and Smirnov (1948); bins make it smaller. Raises ValueError
    for sizes that are not positive and a level outside (0, 1).
    """
    _check_reference(n, m, level)
    return float(kolmogi(1 - level) * math.sqrt(1 / n + 1 / m))


def log_bins(
    reference: Sequence[float], current: Sequence[float], *, ratio: float = 1.25
) -> tuple[tuple[float, ...], ...]:
    """
    Evidence of one window that bins hold more than `ratio` times their share: a state per bin.

    `reference` are stable's counts of the same window. Add per bin to the running states and
    read them with `histograms.log_harm` (null: no bin holds more). A shift shows in the bins that
    it fills. Against fixed shares, as of training data, give them as `reference` never: they would
    be used again in each window; use `counts.log_harm` with Bound(0, ratio * share) instead.
    Errors as `population_stability`, but windows may be empty; ValueError for a negative ratio.
    """
    stable, candidate = _finite(reference), _finite(current)
    if len(stable) != len(candidate):
        raise ValueError(f"{len(stable)} bins cannot be compared with {len(candidate)}")
    n_b, n_c = np.full(len(stable), stable.sum()), np.full(len(stable), candidate.sum())
    logs = log_harm_of(np.stack([n_b, stable, n_c, candidate], axis=-1), Bound(ratio))
    return tuple(tuple(float(x) for x in row) for row in logs)


def _chi_squared(n: float, m: float, bins: int, level: float) -> float:
    _check_reference(n, m, level)
    if bins < 2:  # noqa: PLR2004 - one bin holds everything always
        raise ValueError(f"a distance needs at least two bins, not {bins}")
    return float((1 / n + 1 / m) * 2 * gammaincinv((bins - 1) / 2, level))


def _check_reference(n: float, m: float, level: float) -> None:
    if not (n > 0 and m > 0):
        raise ValueError(f"both histograms need observations, not {n} and {m}")
    if not 0 < level < 1:
        raise ValueError(f"the level must lie between 0 and 1, not {level}")


def _checked(counts: Sequence[float], bins: int | None = None) -> Array:
    array = _finite(counts)
    if len(array) < 2:  # noqa: PLR2004 - one bin holds everything always
        raise ValueError(f"a distance needs at least two bins, not {len(array)}")
    if bins is not None and len(array) != bins:
        raise ValueError(f"{bins} bins cannot be compared with {len(array)}")
    if array.sum() <= 0:
        raise ValueError("a histogram without observations has no distance to another")
    return array


def _finite(counts: Sequence[float]) -> Array:
    array = np.asarray(counts, dtype=np.float64)
    if not (np.isfinite(array).all() and (array >= 0).all()):
        raise ValueError(f"counts per bin must be finite and >= 0, not {tuple(counts)}")
    return array
