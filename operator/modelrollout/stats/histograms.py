"""
Evidence from histograms: the tails beyond a few thresholds, each tested as a proportion.

A histogram that is worse has more observations beyond some threshold. Thresholds are bucket
bounds, fixed from stable's counts before the windows that are tested; the counts beyond each of
them go through `counts`, and this module puts the thresholds' evidence together. Quantiles
that were interpolated inside a bucket are never tested.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from modelrollout.stats.combine import log_mixture
from modelrollout.stats.counts import log_mixture_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from modelrollout.stats.bounds import Bound


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantileThresholds:
    """
    The bucket bounds at which a quantile of the candidate is held against stable's.

    Each version is a proportion of its own: stable's observations beyond `lower` against the
    candidate's beyond `tolerance_upper` (harm) or `margin_upper` (safety), with `Bound(1.0)`.
    Bounds are in the histogram's unit.
    """

    lower: float
    tolerance_upper: float
    margin_upper: float
    level: float
    """The quantile that is compared: the share of stable's observations at or below `lower`."""
    thinning: float
    """
    How many times fewer of stable's observations lie beyond `margin_upper` than beyond `lower`:
    what evidence for safety is to be `tuned_for`.
    """

    @property
    def tolerance_factor(self) -> float:
        """The factor between the quantiles that harm is evidence against; at least the one asked."""
        return self.tolerance_upper / self.lower

    @property
    def margin_factor(self) -> float:
        """The factor between the quantiles that safety excludes; at least the one asked."""
        return self.margin_upper / self.lower


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
    quantile outside (0, 1), and when there are more limits than `most`. Source:
    docs/statistics.md section 3.1.
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
    malformed or empty histogram, and for thresholds that are no bounds of it. Source:
    docs/statistics.md section 3.1.
    """
    finite, tails = _tails(bounds, cumulative)
    share = dict(zip(finite, tails, strict=True))
    unknown = sorted(set(thresholds) - set(finite))
    if unknown or not thresholds:
        raise ValueError(f"thresholds {unknown or '()'} are not bucket bounds of the histogram")
    limited = {_at_or_below(limit, finite) for limit in limits}
    gate = {x for x in thresholds if share[x] >= least or x in limited}
    return tuple(sorted(gate)) or (min(thresholds),)


def choose_quantile(
    bounds: Sequence[float],
    cumulative: Sequence[float],
    quantile: float,
    *,
    tolerance: Bound,
    margin: Bound,
) -> QuantileThresholds:
    """
    Where to compare a quantile: "the candidate's p99 is at most 1.1 times stable's".

    `bounds` and `cumulative` as `choose_thresholds`. `lower` is the bound whose tail is nearest to
    1 - quantile as a factor, and each upper one the first bound at or above ratio * lower +
    absolute of its `Bound` (in the histogram's unit). Null hypothesis of harm: at most as
    many of the candidate's observations lie beyond the upper bound as of stable's beyond the
    lower one. It holds whenever the candidate's quantiles are at most ratio * stable's +
    absolute, at whatever level the lower bound lies by then; rejected, the candidate's quantile at
    that level is above the upper bound. docs/statistics.md section 3.

    Raises ValueError for a malformed or empty histogram, for a quantile outside (0, 1), and where
    the buckets cannot express it: no bound above stable's quantile, none at or above what is
    asked for, a quantile at or below 0, or a margin that leaves nothing between the two bounds.
    """
    finite, tails = _tails(bounds, cumulative)
    if not 0 < quantile < 1:
        raise ValueError(f"a quantile must lie between 0 and 1, not {quantile}")
    seen = [max(tail, 0.5 / cumulative[-1]) for tail in tails]
    at = _nearest_tail(1 - quantile, seen)
    lower = finite[at]
    if lower <= 0:
        raise ValueError(f"quantile {quantile:g} of stable is about {lower:g}: it must be above 0")
    margin_upper = _at_or_above(margin, lower, quantile, finite)
    if margin_upper <= lower:
        raise ValueError(
            f"the margin {margin.ratio:g} x {lower:g} + {margin.absolute:g} must be above quantile"
            f" {quantile:g} of stable, or equal versions could never be told from worse ones"
        )
    return QuantileThresholds(
        lower=lower,
        tolerance_upper=_at_or_above(tolerance, lower, quantile, finite),
        margin_upper=margin_upper,
        level=1 - tails[at],
        thinning=seen[at] / seen[finite.index(margin_upper)],
    )


def log_harm(states: Sequence[Sequence[float]]) -> float:
    """
    Log evidence that some tail is worse, from one running state of `counts.log_harm` per threshold.

    Null hypothesis (stochastic dominance, up to the bound): no tail is worse. Under it each
    threshold's evidence is an e-process, and so is their mean, whatever their dependence (Vovk
    and Wang, Annals of Statistics 2021). Raises ValueError when there are no states, when they
    differ in length, and for a NaN.
    """
    return log_mixture(_mixtures(states))


def log_safety(states: Sequence[Sequence[float]]) -> float:
    """
    Log evidence that every tail is within the bound, from one state of `counts.log_safety` each.

    Null hypothesis: some tail is not. The minimum is at most the evidence of that one
    (intersection-union; Berger, Technometrics 1982), so no correction is needed. Raises
    ValueError as `log_harm`.
    """
    return min(_mixtures(states))


def _mixtures(states: Sequence[Sequence[float]]) -> list[float]:
    """The evidence of each threshold."""
    if len(states) == 0:
        raise ValueError("evidence of a histogram needs at least one threshold, there is none")
    logs = np.asarray(states, dtype=np.float64)
    if np.isnan(logs).any():
        raise ValueError(f"a threshold's state holds something that is not a number: {states}")
    mixtures: list[float] = log_mixture_of(logs).tolist()
    return mixtures


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


def _at_or_above(bound: Bound, lower: float, quantile: float, finite: Sequence[float]) -> float:
    """The first bucket bound at or above what a bound makes of a lower one."""
    wanted = bound.ratio * lower + bound.absolute
    for upper in finite:
        # 1.1 * 0.1 is a little above 0.11.
        if upper >= wanted or math.isclose(upper, wanted, rel_tol=1e-9):
            return upper
    raise ValueError(
        f"quantile {quantile:g} of stable is about {lower:g}, and the last finite bucket bound is"
        f" {finite[-1]:g}: {bound.ratio:g} x {lower:g} + {bound.absolute:g} = {wanted:g} needs a"
        " bound at or above it; add larger buckets, or take a smaller quantile"
    )


def _nearest_tail(wanted: float, tails: Sequence[float]) -> int:
    """Index of the first of the tails that are nearest to the wanted one, as a factor."""
    return min(range(len(tails)), key=lambda i: abs(math.log(tails[i] / wanted)))
