"""
Evidence from histograms: the tails beyond a few thresholds, each tested as a proportion.

A histogram that is worse has more observations beyond some threshold. Thresholds are bucket
bounds, fixed from stable's counts before the windows that are tested; the counts beyond each of
them go through `counts`, and this module puts the thresholds' evidence together. Quantiles
that were interpolated inside a bucket are never tested.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

from scipy.special import logsumexp

from modelrollout.stats.counts import log_mixture

if TYPE_CHECKING:
    from collections.abc import Sequence


def choose_thresholds(
    bounds: Sequence[float],
    cumulative: Sequence[float],
    *,
    quantiles: Sequence[float] = (0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 0.9999),
    limits: Sequence[float] = (),
    most: int = 8,
) -> tuple[float, ...]:
    """
    At most `most` bucket bounds at which tails are compared; ascending, unique, finite.

    `bounds` are upper bounds (ascending; +Inf, if there, last) in the histogram's unit,
    `cumulative` stable's counts at or below each. For a quantile q it is the bound whose tail is
    nearest to 1 - q as a factor (an empty one counts as half an observation: beyond all that
    stable showed is where a new kind of slow answer shows first). For a limit it is the last
    bound at or below it, so that everything over the limit is counted, or the first if all are
    above. When there are more than `most`, limits are kept first, then the highest quantiles.

    Raises ValueError for a histogram that is malformed, empty or has no finite bound, for a
    quantile outside (0, 1), and when there are more limits than `most`.
    """
    finite, tails = _tails(bounds, cumulative)
    if any(not 0 < q < 1 for q in quantiles):
        raise ValueError(f"quantiles must lie between 0 and 1, not {tuple(quantiles)}")
    wanted = [_at_or_below(limit, finite) for limit in limits]
    if len(set(wanted)) > most:
        raise ValueError(f"{len(set(wanted))} limits do not fit into {most} thresholds")
    seen = [max(tail, 0.5 / cumulative[-1]) for tail in tails]
    wanted += [finite[_nearest_tail(1 - q, seen)] for q in sorted(quantiles, reverse=True)]
    return tuple(sorted(list(dict.fromkeys(wanted))[:most]))


def gate_thresholds(
    thresholds: Sequence[float],
    bounds: Sequence[float],
    cumulative: Sequence[float],
    *,
    limits: Sequence[float] = (),
    least: float = 0.01,
) -> tuple[float, ...]:
    """
    The thresholds that must be proved safe before a candidate passes; ascending.

    Those that a share of at least `least` of stable's observations lie beyond (a ratio of rarer
    tails takes too many requests to bound: they can fail a candidate, but not hold it back), and
    those of the limits. Arguments are the ones that `choose_thresholds` had and its result.
    When none has so much tail it is the threshold with the most. Raises ValueError for a
    malformed or empty histogram, and for thresholds that are no bounds of it.
    """
    finite, tails = _tails(bounds, cumulative)
    share = dict(zip(finite, tails, strict=True))
    unknown = sorted(set(thresholds) - set(finite))
    if unknown or not thresholds:
        raise ValueError(f"thresholds {unknown or '()'} are not bucket bounds of the histogram")
    limited = {_at_or_below(limit, finite) for limit in limits}
    gate = {x for x in thresholds if share[x] >= least or x in limited}
    return tuple(sorted(gate)) or (min(thresholds),)


def log_harm(states: Sequence[Sequence[float]]) -> float:
    """
    Log evidence that some tail is worse, from one running state of `counts.log_harm` per threshold.

    Null hypothesis (stochastic dominance, up to the bound): no tail is worse. Under it each
    threshold's evidence is an e-process, and so is their mean, whatever their dependence (Vovk
    and Wang, Annals of Statistics 2021). Raises ValueError when there are no states.
    """
    logs = _mixtures(states)
    return float(logsumexp(logs)) - math.log(len(logs))


def log_safety(states: Sequence[Sequence[float]]) -> float:
    """
    Log evidence that every tail is within the bound, from one state of `counts.log_safety` each.

    Null hypothesis: some tail is not. The minimum is at most the evidence of that one
    (intersection-union; Berger, Technometrics 1982), so no correction is needed. Raises
    ValueError when there are no states.
    """
    return min(_mixtures(states))


def _mixtures(states: Sequence[Sequence[float]]) -> list[float]:
    if len(states) == 0:
        raise ValueError("evidence of a histogram needs at least one threshold, there is none")
    return [log_mixture(state) for state in states]


def _tails(bounds: Sequence[float], cumulative: Sequence[float]) -> tuple[list[float], list[float]]:
    """The finite bounds, and the share of all observations that lies above each."""
    if len(bounds) != len(cumulative):
        raise ValueError(f"{len(bounds)} bucket bounds do not go with {len(cumulative)} counts")
    _check_ascending(bounds, cumulative)
    finite = [x for x in bounds if math.isfinite(x)]
    if not finite:
        raise ValueError("the histogram has no finite bucket bound to compare tails at")
    total = cumulative[-1]
    if total <= 0:
        raise ValueError("the histogram is empty: thresholds are chosen from stable's counts")
    return finite, [(total - c) / total for c in cumulative[: len(finite)]]


def _check_ascending(bounds: Sequence[float], cumulative: Sequence[float]) -> None:
    if any(math.isnan(x) for x in (*bounds, *cumulative)):
        raise ValueError("the histogram holds something that is not a number")
    if any(low >= high for low, high in pairwise(bounds)):
        raise ValueError(f"bucket bounds must ascend: {tuple(bounds)}")
    if any(low > high for low, high in pairwise((0.0, *cumulative))):
        raise ValueError(f"cumulative counts must not fall: {tuple(cumulative)}")


def _at_or_below(limit: float, finite: Sequence[float]) -> float:
    return max((x for x in finite if x <= limit), default=finite[0])


def _nearest_tail(wanted: float, tails: Sequence[float]) -> int:
    """Index of the first of the tails that are nearest to the wanted one, as a factor."""
    return min(range(len(tails)), key=lambda i: abs(math.log(tails[i] / wanted)))
