"""
Evidence from counts: a bet per window, multiplied over windows, averaged over a grid of bets.

A window holds exposures n and events k of both versions. With w = ratio * n_c / n_b, any d > -1
and b = 1 - w * d > 0,

    e = (1 + d)^k_c * b^k_b * exp(-n_c * absolute * d)

has E[e] <= exp(d * n_c * (p_c - ratio * p_b - absolute)). For d > 0 that is at most 1 while the
candidate is not worse than the bound (its growth proves harm), for d < 0 while it is not better
than the bound (its growth proves safety). The proof, the choice of d and the measured error
rates are in docs/statistics.md, section 2.

What it needs: within a window the outcomes of the two versions are independent given the
exposures and the past; each outcome lies in [0, 1], or the counts are Poisson. What it does not
need: equal rates over time, equal weights over time, a known base rate. So windows are never
added together before they are bet on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
from scipy.special import logsumexp

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

HARM_POINTS: Final[int] = len(_HARM_MULTIPLES)
"""Grid points of the evidence for harm."""
SAFETY_POINTS: Final[int] = len(_SAFETY_POWERS)
"""Grid points of the evidence for safety."""


@dataclass(frozen=True, slots=True)
class Bound:
    """
    What the candidate's rate is held against: `ratio * stable's rate + absolute`.

    When lower is worse it is the lowest rate allowed: `stable's rate / ratio - absolute`.
    `absolute` is in events per unit of exposure. Raises ValueError for a negative or non-finite
    part, and for a bound of zero, which every candidate with one event would break.
    """

    ratio: float = 1.0
    absolute: float = 0.0

    def __post_init__(self) -> None:
        for name in ("ratio", "absolute"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"a bound's {name} must be a finite number >= 0, not {value}")
        if self.ratio == 0 and self.absolute == 0:
            raise ValueError("a bound of zero cannot be tested: ratio and absolute are both 0")


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
) -> tuple[float, ...]:
    """
    Evidence that the candidate is worse than the bound: log e per grid point, summed over samples.

    Add it to the running state (which starts with `HARM_POINTS` zeros) and read the state with
    `log_mixture`. Null hypothesis: in every window p_c <= ratio * p_b + absolute, or, when lower
    is worse, p_c >= p_b / ratio - absolute. `dispersion` >= 1 divides the evidence (tempering).
    Raises ValueError for a dispersion below 1 and, when lower is worse, for a ratio of 0.

    Source: docs/statistics.md section 2; with absolute = 0 and ratio = 1 the conditional
    multinomial of Lindon and Malek (NeurIPS 2022, arXiv 2011.03567) at fixed alternatives.
    """
    logs = log_harm_of(table_of(samples), bound, lower_is_worse=lower_is_worse)
    return _total(logs, dispersion)


def log_safety(
    samples: Sequence[Sample],
    bound: Bound,
    *,
    lower_is_worse: bool = False,
    dispersion: float = 1.0,
) -> tuple[float, ...]:
    """
    Evidence that the candidate is better than the bound: log e per grid point, summed over samples.

    Null hypothesis: in every window p_c >= ratio * p_b + absolute, or, when lower is worse,
    p_c <= p_b / ratio - absolute. Else as `log_harm`, with `SAFETY_POINTS` points. With no events
    on either side it grows as n_c * absolute * (1 - a) (a = 0.01 at the boldest point), and not
    at all when absolute = 0: a ratio of two rates cannot be bounded without events.
    """
    logs = log_safety_of(table_of(samples), bound, lower_is_worse=lower_is_worse)
    return _total(logs, dispersion)


def log_mixture(state: Sequence[float]) -> float:
    """
    Log of the mean over the grid of exp(state): the evidence of a running state.

    The mean of e-processes is one (any fixed weights; Vovk and Wang, Annals of Statistics 2021),
    so by Ville's inequality it ever reaches log(1 / alpha) with probability at most alpha under
    the null. Raises ValueError for an empty state or a NaN.
    """
    if len(state) == 0:
        raise ValueError("evidence needs at least one grid point, the state is empty")
    if any(math.isnan(each) for each in state):
        raise ValueError(f"the state holds something that is not a number: {list(state)}")
    # A dozen numbers: for these the plain sum is thirty times as fast as an array's.
    highest = max(state)
    if math.isinf(highest):
        return float(highest)
    total = math.fsum(math.exp(each - highest) for each in state)
    return highest + math.log(total / len(state))


def complemented(
    samples: Sequence[Sample], bound: Bound, *, lower_is_worse: bool = False
) -> tuple[tuple[Sample, ...], Bound, bool]:
    """
    The same hypotheses in terms of the requests without the event: (samples, bound, direction).

    For proportions whose event is common. Exactly the same null: q = 1 - p turns
    p_c <= r p_b + d into q_c >= r q_b - (r - 1 + d), which is the opposite direction with ratio
    1 / r and absolute r - 1 + d. Whether to do so must be decided before the windows are read
    (from the declared event, or from stable before the rollout), never from the windows
    themselves. Raises ValueError where events outnumber exposure and, because the result would
    need a negative absolute part, for a bound that is easier than stable's own rate by ratio
    and not by enough (ratio + absolute < 1; lower is worse: 1 / ratio - absolute > 1).
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


def log_harm_of(counts: ArrayLike, bound: Bound, *, lower_is_worse: bool = False) -> Array:
    """
    `log_harm` of many windows at once, not summed: shape (*S, 4) to (*S, HARM_POINTS).

    The last axis is that of a `Sample`: stable n, stable k, candidate n, candidate k. Counts are
    not checked: they must be finite, >= 0, and 0 events where exposure is 0.
    """
    bound = _oriented_bound(bound, lower_is_worse=lower_is_worse)
    shares = np.asarray(_HARM_SHARES_ABSOLUTE) if bound.absolute else np.ones(HARM_POINTS)
    alternatives = (np.asarray(_HARM_MULTIPLES), shares)
    return _log_e(_oriented(counts, lower_is_worse=lower_is_worse), bound, *alternatives)


def log_safety_of(counts: ArrayLike, bound: Bound, *, lower_is_worse: bool = False) -> Array:
    """
    `log_safety` of many windows at once, not summed: shape (*S, 4) to (*S, SAFETY_POINTS).

    The last axis is that of a `Sample`: stable n, stable k, candidate n, candidate k. Counts are
    not checked: they must be finite, >= 0, and 0 events where exposure is 0.
    """
    bound = _oriented_bound(bound, lower_is_worse=lower_is_worse)
    alternatives = _safety_alternatives(bound)
    return _log_e(_oriented(counts, lower_is_worse=lower_is_worse), bound, *alternatives)


def log_ratio_safety_of(counts: ArrayLike, ratio: float, *, tuned_for: float) -> Array:
    """
    `log_safety_of` for a bound that is only a ratio, with the alternatives of another one.

    Equal to it at ratio = tuned_for, and rising with the ratio at every grid point, which the
    search for a confidence bound needs. `ratio` and `tuned_for` must be above 0.
    """
    alternatives = _safety_alternatives(Bound(tuned_for))
    return _log_e(_oriented(counts, lower_is_worse=False), Bound(ratio), *alternatives)


def log_mixture_of(states: Array) -> Array:
    """`log_mixture` over the last axis: shape (*S, points) to S."""
    return np.asarray(logsumexp(states, axis=-1) - math.log(states.shape[-1]))


def _total(logs: Array, dispersion: float) -> tuple[float, ...]:
    if not (math.isfinite(dispersion) and dispersion >= 1):
        raise ValueError(f"dispersion must be a finite number >= 1, not {dispersion}")
    return tuple(float(x) for x in logs.sum(axis=0) / dispersion)


def _oriented(counts: ArrayLike, *, lower_is_worse: bool) -> Array:
    """(reference n, reference k, tested n, tested k) first, then S, then an axis for the grid."""
    table = np.moveaxis(np.asarray(counts, dtype=np.float64), -1, 0)[..., np.newaxis]
    return table[[2, 3, 0, 1]] if lower_is_worse else table


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


def _safety_alternatives(bound: Bound) -> tuple[Array, Array]:
    """
    (multiples, shares) of a candidate about as good as stable.

    If both have rate p the multiple is p / (ratio p + absolute), and the share of the bound that
    stable's rate makes up is ratio times that: one number fixes both.
    """
    if bound.absolute:
        multiples = np.asarray(_SAFETY_MULTIPLES_ABSOLUTE)
        return multiples, np.minimum(1.0, bound.ratio * multiples)
    base = min(bound.ratio, _SAFETY_LARGEST) if bound.ratio > 1 else _SAFETY_BASE
    return base ** -np.asarray(_SAFETY_POWERS), np.ones(SAFETY_POINTS)


def _log_e(counts: Array, bound: Bound, multiples: Array, shares: Array) -> Array:
    """Log e of the bets that are best for the alternatives (multiples, shares), each (points,)."""
    n_b, k_b, n_c, k_c = counts
    scaled = bound.ratio * n_c
    d = _stake(n_b, scaled, multiples, shares)
    exposed = n_b > 0
    b = 1.0 - np.where(exposed, scaled, 0.0) / np.where(exposed, n_b, 1.0) * d
    # b reaches 0 only by rounding; the floor keeps the log finite, and such a window loses.
    logs = k_c * np.log1p(d) + k_b * np.log(np.maximum(b, np.finfo(np.float64).tiny))
    return np.asarray(logs - n_c * bound.absolute * d)


def _stake(n_b: Array, scaled: Array, s: Array, f: Array) -> Array:
    """
    The stake d that maximises the expected log e if the candidate's rate is s times the bound.

    f is the share of the bound that stable's rate makes up. Setting the derivative of
    n_c (p_c log(1+d) - absolute d) + n_b p_b log(1 - w d) to 0 gives, with m = ratio * n_c,

        (1-f) m d^2 - (n_b + m (s-1+f)) d + n_b (s-1) = 0

    and the root with b > 0. For f = 1 it is d = n_b (s-1) / (n_b + m s). Homogeneous in the
    exposures, so that splitting a window at a constant ratio changes nothing. Without exposure
    of stable it is 0 for harm (no bet) and min(0, s/(1-f) - 1) for safety: the bet on the
    absolute part alone, which is valid because stable's rate is not negative.
    """
    n_b = np.where((n_b == 0) & (scaled == 0), 1.0, n_b)
    q = n_b + scaled * (s - 1.0 + f)
    quadratic = (1.0 - f) * scaled
    root = np.sqrt(np.maximum(q * q - 4.0 * quadratic * n_b * (s - 1.0), 0.0))
    stable_form = 2.0 * n_b * (s - 1.0) / np.where(q + root > 0, q + root, 1.0)
    direct_form = (q - root) / np.where(quadratic > 0, 2.0 * quadratic, 1.0)
    return np.where(q >= 0, stable_form, direct_form)


def _without_event(sample: Sample) -> Sample:
    if sample.stable_k > sample.stable_n or sample.candidate_k > sample.candidate_n:
        raise ValueError(f"only a proportion has a complement, but events outnumber it: {sample}")
    return Sample(
        sample.stable_n,
        sample.stable_n - sample.stable_k,
        sample.candidate_n,
        sample.candidate_n - sample.candidate_k,
    )
