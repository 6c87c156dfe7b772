"""
Evidence from counts: a bet per window, multiplied over windows, averaged over a grid of bets.

A window holds exposures n and events k of both versions. With w = ratio * n_c / n_b, any d > -1
and b = 1 - w * d > 0,

    e = (1 + d)^k_c * b^k_b * exp(-n_c * absolute * d)

has E[e] <= exp(d * n_c * (p_c - ratio * p_b - absolute)). For d > 0 that is at most 1 while the
candidate is not worse than the bound (its growth proves harm), for d < 0 while it is not better
than the bound (its growth proves safety). The proof, the choice of d and the measured error
rates are in docs/statistics.md, section 2.

That bet allows for the variance of a rare event. Of a proportion, stable's usual share of events m
lets it allow for just the variance there is, fixed before the windows are read. With
c = ratio * m + absolute and d' = d / (1 + d c),

    e = (1 + d' (1 - c))^k_c * (1 - d' c)^(n_c - k_c)
      * (1 - w d' (1 - m))^k_b * (1 + w d' m)^(n_b - k_b)

has E[e] <= exp(d' * n_c * (p_c - ratio * p_b - absolute)): m drops out. One that is wrong costs
speed and nothing else (section 2.6).

What it needs: within a window the outcomes of the two versions are independent given the
exposures and the past; each outcome lies in [0, 1], or the counts are Poisson. What it does not
need: equal rates over time, equal weights over time, a known base rate. So windows are never
added together before they are bet on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from modelrollout.stats.bounds import Bound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    Array: TypeAlias = NDArray[np.float64]

# Each grid point is an alternative: the candidate's rate as a multiple of the bound.
_HARM_MULTIPLES: Final = (1.07, 1.15, 1.3, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 6.0, 10.0, 20.0)
# For a bound that is a ratio r, multiples r ** -t: 1 is a candidate equal to stable.
_SAFETY_POWERS: Final = (0.4, 0.6, 0.8, 1.0, 1.25, 1.6, 2.2, 3.2)
# The r of those powers when the bound asks for a candidate that is better than stable (r <= 1).
_SAFETY_BASE: Final = 1.25
# The largest r of those powers: beyond it they would underflow and say nothing more.
_SAFETY_LARGEST: Final = 100.0
# Towards 0 because a rare event makes the bound almost all absolute: rate / (rate + absolute).
_SAFETY_MULTIPLES_ABSOLUTE: Final = (0.97, 0.9, 0.8, 0.65, 0.45, 0.2, 0.06, 0.01)
# Share of the bound that stable's rate makes up, in the alternatives for harm.
_HARM_SHARES_ABSOLUTE: Final = (0.2, 0.8) * (len(_HARM_MULTIPLES) // 2)
# Absolute parts below this are what is left of 0 after rounding.
_ROUNDING: Final = 1e-12
# Keeps a bet on stable finite where stable has no exposure, and so no events.
_ALMOST_ONE: Final = 1.0 - 2.0**-52
_SMALLEST: Final = float(np.finfo(np.float64).tiny)
_NUMBERS: Final = 4
# A bet is not centred where it would leave less than this of itself after one usual answer.
_LEAST_FACTOR: Final = 0.01
# The history whose median part says what is usual.
_PARTS: Final = 9

HARM_POINTS: Final[int] = len(_HARM_MULTIPLES)
"""Grid points of the evidence for harm."""
SAFETY_POINTS: Final[int] = len(_SAFETY_POWERS)
"""Grid points of the evidence for safety."""
ENOUGH_FOR_USUAL: Final = 200
"""Requests of stable below which its usual share is not known."""


@dataclass(frozen=True, slots=True)
class Sample:
    """
    One window, one threshold: exposures (requests, or seconds) and events of both versions.

    Events may be fractional: a sum of outcomes in [0, 1]. Raises ValueError for a negative or
    non-finite number, and for events without exposure.
    """

    stable_n: float
    stable_k: float
    candidate_n: float
    candidate_k: float

    def __post_init__(self) -> None:
        for version in ("stable", "candidate"):
            n, k = getattr(self, f"{version}_n"), getattr(self, f"{version}_k")
            if not (math.isfinite(n) and n >= 0 and math.isfinite(k) and k >= 0):
                raise ValueError(f"{version}'s counts must be finite and >= 0, not n={n}, k={k}")
            if n == 0 and k > 0:
                raise ValueError(f"{version} has {k} events but no exposure")


def log_harm(
    samples: Sequence[Sample],
    bound: Bound,
    *,
    lower_is_worse: bool = False,
    dispersion: float = 1.0,
    usual: float = 0.0,
) -> tuple[float, ...]:
    """
    Evidence that the candidate is worse than the bound: log e per grid point, summed over samples.

    Add it to the running state (which starts with `HARM_POINTS` zeros) and read the state with
    `combine.log_mixture`. Null hypothesis: in every window p_c <= ratio * p_b + absolute, or, when lower
    is worse, p_c >= p_b / ratio - absolute. `dispersion` >= 1 divides the evidence (tempering).
    `usual` is stable's usual share of events, known before the windows are read, on which the bets
    on a proportion are centred (`usual_share`); 0 is for rates, and for where it is not known.
    Raises ValueError for a dispersion below 1, for a usual share outside [0, 1], or with events
    that outnumber exposure, and, when lower is worse, for a ratio of 0.

    Source: docs/statistics.md section 2; with absolute = 0, ratio = 1 and usual = 0 the conditional
    multinomial of Lindon and Malek (NeurIPS 2022, arXiv 2011.03567) at fixed alternatives.
    """
    table = _checked_table(samples, usual)
    logs = log_harm_of(table, bound, lower_is_worse=lower_is_worse, usual=usual)
    return _tempered_sum(logs, dispersion)


def log_safety(
    samples: Sequence[Sample],
    bound: Bound,
    *,
    lower_is_worse: bool = False,
    dispersion: float = 1.0,
    tuned_for: float | None = None,
    usual: float = 0.0,
) -> tuple[float, ...]:
    """
    Evidence that the candidate is better than the bound: log e per grid point, summed over samples.

    Null hypothesis: in every window p_c >= ratio * p_b + absolute, or, when lower is worse,
    p_c <= p_b / ratio - absolute. Else as `log_harm`, with `SAFETY_POINTS` points. With no events
    on either side it grows as n_c * absolute * (1 - a) (a = 0.01 at the boldest point), and not
    at all when absolute = 0: a ratio of two rates cannot be bounded without events.

    `tuned_for` is how many times below the bound an equal candidate is expected to lie, where
    that is not the ratio: it changes how fast the evidence grows, not what it proves, and must be
    chosen before the windows are read. Raises ValueError as `log_harm`, for a `tuned_for` that
    is not a finite number above 0, and for one with an absolute part. Source: as `log_harm`.
    """
    table = _checked_table(samples, usual)
    logs = log_safety_of(
        table, bound, lower_is_worse=lower_is_worse, tuned_for=tuned_for, usual=usual
    )
    return _tempered_sum(logs, dispersion)


def usual_share(windows: Sequence[tuple[float, float]]) -> float:
    """
    Stable's usual share of events, which bets on a proportion are centred on.

    `windows` are consecutive windows of stable, (exposure, events) each, from before the windows
    that are tested. It is the median of the shares in nine parts of them, because a share that is
    far too large is worse than none, and a history may hold an incident. With fewer than
    `ENOUGH_FOR_USUAL` requests it is 0: not known. Source: docs/statistics.md section 2.6.
    """
    table = np.asarray(windows, dtype=np.float64).reshape(-1, 2)
    if table[:, 0].sum() < ENOUGH_FOR_USUAL:
        return 0.0
    parts = [each.sum(axis=0) for each in np.array_split(table, _PARTS)]
    return float(np.median([k / n for n, k in parts if n > 0]))


def complemented(
    samples: Sequence[Sample], bound: Bound, *, lower_is_worse: bool = False
) -> tuple[tuple[Sample, ...], Bound, bool]:
    """
    The same hypotheses in terms of the requests without the event: (samples, bound, direction).

    For proportions whose event is common. Exactly the same null: q = 1 - p turns
    p_c <= r p_b + d into q_c >= r q_b - (r - 1 + d), which is the opposite direction with ratio
    1 / r and absolute r - 1 + d. Whether to do so must be decided before the windows are read
    (from the declared event, or from stable before the rollout), never from the windows
    themselves. Raises ValueError where events outnumber exposure, for a ratio of 0, and, because
    the result would need a negative absolute part, for a bound that asks for a better candidate
    than stable (ratio + absolute < 1; lower is worse: 1 / ratio - absolute > 1). Source:
    docs/statistics.md section 2.4.
    """
    if bound.ratio == 0:
        raise ValueError("a bound without a ratio has no complement: state it for the rarer event")
    slack = 1 - 1 / bound.ratio if lower_is_worse else bound.ratio - 1
    absolute = slack + bound.absolute
    flipped = Bound(1 / bound.ratio, 0.0 if abs(absolute) < _ROUNDING else absolute)
    return tuple(_without_event(s) for s in samples), flipped, not lower_is_worse


def table_of(samples: Sequence[Sample]) -> Array:
    """The counts of samples as an array of shape (samples, 4), for the functions below."""
    rows = [(s.stable_n, s.stable_k, s.candidate_n, s.candidate_k) for s in samples]
    return np.asarray(rows, dtype=np.float64).reshape(-1, 4)


def log_harm_of(
    counts: ArrayLike, bound: Bound, *, lower_is_worse: bool = False, usual: ArrayLike = 0.0
) -> Array:
    """
    `log_harm` of many windows at once, not summed: shape (*S, 4) to (*S, HARM_POINTS).

    The last axis is that of a `Sample`: stable n, stable k, candidate n, candidate k. Counts are
    not checked: they must be finite, >= 0, 0 events where exposure is 0, and no more events than
    exposure where `usual` (a number, or an array that broadcasts to S) is not 0. Raises ValueError
    when lower is worse and the ratio is 0. Source: as `log_harm`.
    """
    bets = _harm_bets(_oriented_bound(bound, lower_is_worse=lower_is_worse))
    table = _oriented(counts, lower_is_worse=lower_is_worse)
    return _log_e(table, bets, _centre(usual, bets, lower_is_worse=lower_is_worse))


def log_safety_of(
    counts: ArrayLike,
    bound: Bound,
    *,
    lower_is_worse: bool = False,
    tuned_for: float | None = None,
    usual: ArrayLike = 0.0,
) -> Array:
    """
    `log_safety` of many windows at once, not summed: shape (*S, 4) to (*S, SAFETY_POINTS).

    Counts and `usual` as `log_harm_of`, other arguments and errors as `log_safety`. At a fixed
    `tuned_for` every grid point that is not centred rises with the ratio, which the search for a confidence bound needs.
    """
    bets = _safety_bets(_oriented_bound(bound, lower_is_worse=lower_is_worse), tuned_for)
    table = _oriented(counts, lower_is_worse=lower_is_worse)
    return _log_e(table, bets, _centre(usual, bets, lower_is_worse=lower_is_worse))


def log_evidence_of(
    counts: ArrayLike,
    tolerance: Bound,
    margin: Bound,
    *,
    lower_is_worse: bool = False,
    tuned_for: float | None = None,
    usual: ArrayLike = 0.0,
) -> Array:
    """
    `log_harm_of` for the tolerance, and after it `log_safety_of` for the margin, in one piece.

    Shape (*S, 4) to (*S, HARM_POINTS + SAFETY_POINTS). For a few windows, as a look at a rollout
    has them, that takes half of the time.
    """
    bets = _all_bets(
        _oriented_bound(tolerance, lower_is_worse=lower_is_worse),
        _oriented_bound(margin, lower_is_worse=lower_is_worse),
        tuned_for,
    )
    table = _oriented(counts, lower_is_worse=lower_is_worse)
    return _log_e(table, bets, _centre(usual, bets, lower_is_worse=lower_is_worse))


def log_mixture_of(states: ArrayLike) -> Array:
    """`log_mixture` over the last axis, not checked: shape (*S, points) to S."""
    logs = np.asarray(states, dtype=np.float64)
    return np.asarray(np.logaddexp.reduce(logs, axis=-1) - math.log(logs.shape[-1]))


def added(
    states: Sequence[Sequence[float]], *more: ArrayLike, digits: int
) -> tuple[tuple[float, ...], ...]:
    """Running states, one per row, with what windows add to them, rounded to so many digits."""
    total = sum(map(np.asarray, more), start=np.asarray(states))
    return tuple(map(tuple, np.round(total, digits).tolist()))


def _checked_table(samples: Sequence[Sample], usual: float) -> Array:
    """`table_of`, where it is one that can be centred on a usual share."""
    if not 0 <= usual <= 1:
        raise ValueError(f"the usual share must lie in [0, 1], not {usual}")
    for each in samples if usual else ():
        if each.stable_k > each.stable_n or each.candidate_k > each.candidate_n:
            raise ValueError(
                f"only a proportion has a usual share, but events outnumber it: {each}"
            )
    return table_of(samples)


def _tempered_sum(logs: Array, dispersion: float) -> tuple[float, ...]:
    """The sum over windows, the first axis, divided by the dispersion."""
    if not (math.isfinite(dispersion) and dispersion >= 1):
        raise ValueError(f"dispersion must be a finite number >= 1, not {dispersion}")
    return tuple((logs.sum(axis=0) / dispersion).tolist())


def _oriented(counts: ArrayLike, *, lower_is_worse: bool) -> Array:
    """The last axis as (reference n, reference k, tested n, tested k)."""
    table = np.asarray(counts, dtype=np.float64)
    return table[..., (2, 3, 0, 1)] if lower_is_worse else table


def _oriented_bound(bound: Bound, *, lower_is_worse: bool) -> Bound:
    """
    The bound on the tested version's rate.

    p_c >= p_b / r - d is p_b <= r p_c + r d: stable is tested against the candidate.
    """
    if not lower_is_worse:
        return bound
    if bound.ratio == 0:
        raise ValueError("when lower is worse the ratio must be above 0: stable's rate is over it")
    return Bound(bound.ratio, bound.ratio * bound.absolute)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bets:
    """
    A bound on the tested version's rate, and the alternatives to it that are bet on.

    In an alternative the rate is a multiple of the bound, and the reference's rate makes up a
    share of the bound. `gains` are the multiples less 1, `logs` their logarithms. `sums` and
    `differences` are the multiples plus and less the shares, `products` four times both. Between `least`
    and `most` lies what solves the equation of `_log_e`, but for rounding. `highest` is the
    reference's rate that puts the tested one's to 1. All of shape (points,), but what is the same
    at all points is of shape (1,).
    """

    ratio: Array
    absolute: Array
    is_ratio: bool
    """Whether no bound has an absolute part."""
    multiples: Array
    gains: Array
    logs: Array
    shares: Array
    sums: Array
    differences: Array
    products: Array
    least: Array
    most: Array
    highest: Array


@lru_cache
def _all_bets(tolerance: Bound, margin: Bound, tuned_for: float | None) -> _Bets:
    """Those for harm, and after them those for safety."""
    harm, safety = _harm_bets(tolerance), _safety_bets(margin, tuned_for)
    arrays = {
        name: np.concatenate(
            [np.broadcast_to(getattr(each, name), each.gains.shape) for each in (harm, safety)]
        )
        for name in _Bets.__slots__
        if name != "is_ratio"
    }
    return _Bets(is_ratio=harm.is_ratio and safety.is_ratio, **arrays)


@lru_cache
def _harm_bets(bound: Bound) -> _Bets:
    shares = np.asarray(_HARM_SHARES_ABSOLUTE) if bound.absolute else np.ones(HARM_POINTS)
    return _bets(bound, np.asarray(_HARM_MULTIPLES), shares)


@lru_cache
def _safety_bets(bound: Bound, tuned_for: float | None) -> _Bets:
    """
    Bets on a candidate about as good as stable.

    If both have rate p the multiple is p / (ratio p + absolute), and the share of the bound that
    stable's rate makes up is ratio times that: one number fixes both.
    """
    if not bound.absolute:
        ratio = bound.ratio if tuned_for is None else tuned_for
        return _bets(bound, _powers(ratio), np.ones(SAFETY_POINTS))
    if tuned_for is not None:
        raise ValueError("only a bound without an absolute part can be tuned for a ratio")
    multiples = np.asarray(_SAFETY_MULTIPLES_ABSOLUTE)
    # Without a ratio stable has no part in the bound, and every share but 0 gives the same bets.
    shares = np.minimum(1.0, (bound.ratio or math.inf) * multiples)
    return _bets(bound, multiples, shares)


def _powers(ratio: float) -> Array:
    """Multiples for a candidate whose rate lies about `ratio` times below the bound."""
    if not (math.isfinite(ratio) and ratio > 0):
        raise ValueError(f"evidence is tuned for a finite ratio above 0, not {ratio}")
    base = min(ratio, _SAFETY_LARGEST) if ratio > 1 else _SAFETY_BASE
    return np.asarray(base ** -np.asarray(_SAFETY_POWERS))


def _bets(bound: Bound, multiples: Array, shares: Array) -> _Bets:
    gains = multiples - 1.0
    highest = (1.0 - bound.absolute) / max(bound.ratio, _SMALLEST)
    return _Bets(
        ratio=np.array([bound.ratio]),
        absolute=np.array([bound.absolute]),
        is_ratio=not bound.absolute,
        multiples=multiples,
        gains=gains,
        logs=np.log1p(gains),
        shares=shares,
        sums=multiples + shares,
        differences=multiples - shares,
        products=4.0 * multiples * shares,
        least=np.maximum(np.minimum(gains, 0.0), -_ALMOST_ONE * shares),
        most=np.maximum(gains, 0.0),
        highest=np.array([max(0.0, min(1.0, highest))]),
    )


def _centre(usual: ArrayLike, bets: _Bets, *, lower_is_worse: bool) -> Array | None:
    """
    The share of the reference on which bets are centred: S to (*S, points), None if on none.

    The tested version's share is then that on the bound. The one of the two that is stable has
    its usual share. NaN where a share would not be in (0, 1].
    """
    share = np.asarray(usual, dtype=np.float64)[..., np.newaxis]
    if not share.any():
        return None
    if lower_is_worse:
        # Stable is tested, and its share is ratio times the candidate's + absolute.
        share = (share - bets.absolute) / bets.ratio
    share = np.minimum(share, bets.highest)
    return np.where(share > 0, share, np.nan)


def _log_e(table: Array, bets: _Bets, centre: Array | None) -> Array:
    """
    Log e of the bets that grow fastest if their alternatives are true: (*S, 4) to (*S, points).

    With s the multiple, f the share and rho = ratio n_c / (n_b + ratio n_c) these are the bets
    1 + d = s / (1 + x) and b = 1 / (1 + x / f), where x is the larger root of

        x^2 + (1 - rho (s - f)) x - rho f (s - 1) = 0

    (docs/statistics.md, section 2.2). For f = 1, a bound that is a ratio, it is rho (s - 1). The
    exposures come in by their ratio only, so that splitting a window at a constant ratio changes
    nothing. Without exposure of stable rho is 1 and x = max(s - 1, -f): no bet, or, for safety,
    one on the absolute part alone.
    """
    n_b, n_c = table[..., 0, np.newaxis], table[..., 2, np.newaxis]
    m = bets.ratio * n_c
    rho = m / np.maximum(n_b + m, _SMALLEST)
    if bets.is_ratio:
        log_b = -np.log1p(rho * bets.gains)
        log_a = bets.logs + log_b
    else:
        x = _root(rho, bets)
        log_a, log_b = bets.logs - np.log1p(x), -np.log1p(x / bets.shares)
    if centre is None:
        return _log_plain(table, bets, log_a, log_b)
    return _log_centred(table, bets, centre, log_a, log_b)


def _log_plain(table: Array, bets: _Bets, log_a: Array, log_b: Array) -> Array:
    """Log e of the stakes a = 1 + d and b, on events alone."""
    k_b, n_c, k_c = (table[..., i, np.newaxis] for i in (1, 2, 3))
    logs = k_c * log_a + k_b * log_b
    if not bets.is_ratio:
        logs -= n_c * bets.absolute * np.expm1(log_a)
    return np.asarray(logs)


def _log_centred(table: Array, bets: _Bets, m: Array, log_a: Array, log_b: Array) -> Array:
    """
    Log e of the same stakes, centred on the reference's share m where they can be.

    With b = 1 - w d and c the bound at m, `shift` is d c and `lost` is w d'. Where that is below 0
    (safety), an answer of the reference without the event costs: all that there is, if the stake
    is too bold for m. Without exposure of the reference nothing would hold c at the bound.
    """
    n_b, k_b, n_c, k_c = (table[..., i, np.newaxis] for i in range(_NUMBERS))
    shift = np.expm1(log_a) * (bets.ratio * m + bets.absolute)
    lost = np.expm1(log_b) / (-1.0 - shift)
    saved = lost * m
    is_possible = (saved >= _LEAST_FACTOR - 1.0) & (n_b > 0)
    is_everywhere = is_possible.all()
    if not is_everywhere:
        saved = np.where(is_possible, saved, np.nan)
    logs = k_c * log_a - n_c * np.log1p(shift)
    logs += k_b * np.log1p(saved - lost)
    logs += (n_b - k_b) * np.log1p(saved)
    if is_everywhere:
        return np.asarray(logs)
    return np.where(is_possible, logs, _log_plain(table, bets, log_a, log_b))


def _root(rho: Array, bets: _Bets) -> Array:
    """The x of `_log_e`: (*S, 1) to (*S, points)."""
    # The discriminant as a sum of what is not negative, so that nothing cancels.
    root = np.sqrt((1.0 - rho * bets.sums) ** 2 + bets.products * (rho * (1.0 - rho)))
    x = (root - 1.0 + rho * bets.differences) / 2.0
    return np.minimum(np.maximum(x, bets.least), bets.most)


def _without_event(sample: Sample) -> Sample:
    if sample.stable_k > sample.stable_n or sample.candidate_k > sample.candidate_n:
        raise ValueError(f"only a proportion has a complement, but events outnumber it: {sample}")
    return Sample(
        sample.stable_n,
        sample.stable_n - sample.stable_k,
        sample.candidate_n,
        sample.candidate_n - sample.candidate_k,
    )
