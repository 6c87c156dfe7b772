"""
Evidence from means of unbounded values: one difference per window, asymptotically normal.

A window gives each version's mean. Their difference, less the bound, is one observation with a
variance that falls with the window's requests; the sum over windows is compared with a normal
mixture boundary. Unlike the evidence from counts this holds only as windows become many and no
single value dominates: values that are bounded belong into `counts`, as sums of [0, 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from scipy.special import log_ndtr, ndtr, ndtri, stdtr, stdtrit

if TYPE_CHECKING:
    from collections.abc import Sequence

LEAST_WINDOWS: Final = 30
"""Windows with both versions before which nothing is said: evidence is 0."""
MEANS_STATE: Final[int] = 4
"""Length of the running state: windows, sum of weights, of weighted differences and squares."""
_TUNED_FOR_WINDOWS: Final = 60.0
_TUNED_FOR_ALPHA: Final = 0.05
_SMALLEST_TAIL: Final = 1e-300


@dataclass(frozen=True, slots=True)
class Batch:
    """
    One window: number of values and their sum, of both versions.

    Raises ValueError for a number of values that is negative, and for anything non-finite.
    """

    stable_n: float
    stable_sum: float
    candidate_n: float
    candidate_sum: float

    def __post_init__(self) -> None:
        numbers = (self.stable_n, self.stable_sum, self.candidate_n, self.candidate_sum)
        if not all(math.isfinite(x) for x in numbers) or min(self.stable_n, self.candidate_n) < 0:
            raise ValueError(f"a batch needs finite sums and numbers of values >= 0, not {self}")


def moments(
    batches: Sequence[Batch], ratio: float = 1.0, absolute: float = 0.0
) -> tuple[float, ...]:
    """
    What windows add to the running state (`MEANS_STATE` floats, from zeros).

    Observation D = candidate's mean - ratio * stable's mean - absolute, with the inverse of its
    variance per value as weight, n_c n_b / (n_b + ratio^2 n_c). Windows in which a version has
    no values are left out. Raises ValueError for a bound that is not finite. Source:
    docs/statistics.md section 4.
    """
    if not (math.isfinite(ratio) and math.isfinite(absolute)):
        raise ValueError(f"a bound must be finite, not ratio {ratio}, absolute {absolute}")
    rows = [_row(b, ratio, absolute) for b in batches if b.stable_n > 0 and b.candidate_n > 0]
    return tuple(math.fsum(column) for column in zip(*rows, strict=True)) or (0.0,) * MEANS_STATE


def log_harm(state: Sequence[float]) -> float:
    """
    Log evidence that the candidate's mean is above ratio * stable's mean + absolute.

    One-sided normal mixture (Howard et al., Annals of Statistics 2021; the formula of confseq's
    OneSidedNormalMixture) on the sum of weighted differences over its estimated standard
    deviation: an asymptotic confidence sequence in the sense of Waudby-Smith et al. (arXiv
    2103.06476). 0 before `LEAST_WINDOWS`. Raises ValueError for a state of another length.
    """
    return _log_evidence(state, 1.0)


def log_safety(state: Sequence[float]) -> float:
    """Log evidence that the candidate's mean is below the bound; else as `log_harm`."""
    return _log_evidence(state, -1.0)


def difference_bounds(state: Sequence[float], alpha: float) -> tuple[float, float]:
    """
    Bounds for the mean difference D of the state, to show: both hold at all times, together.

    Two-sided normal mixture, error rate alpha for the pair. (-inf, inf) before `LEAST_WINDOWS`.
    Raises ValueError for a state of another length and an alpha outside (0, 1). Source: Howard et
    al. (2021), as `log_harm`.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, not {alpha}")
    windows, weight, first, _ = _checked(state)
    if windows < LEAST_WINDOWS:
        return -math.inf, math.inf
    z = normal_mixture_bound(windows, alpha, _TUNED_FOR_WINDOWS) / math.sqrt(windows)
    half = _student_score(z, windows - 1) * _deviation(state) / math.sqrt(weight)
    return first / weight - half, first / weight + half


def log_normal_mixture(s: float, v: float, rho: float) -> float:
    """
    Log of the one-sided normal mixture for a sum s with variance v.

    The mean of exp(l s - l^2 v / 2) over l half-normal with variance 1 / rho (Howard et al.,
    Annals of Statistics 2021; confseq, OneSidedNormalMixture::log_superMG). Not checked: v must be
    >= 0 and rho > 0.
    """
    both = v + rho
    return 0.5 * math.log(4 * rho / both) + s * s / (2 * both) + float(log_ndtr(s / both**0.5))


def normal_mixture_bound(v: float, alpha: float, v_opt: float) -> float:
    """
    Two-sided normal mixture boundary for a sum with variance v, tuned for v_opt.

    Howard et al. (2021); confseq, TwoSidedNormalMixture::bound. Not checked: v must be >= 0,
    v_opt > 0 and alpha in (0, 1).
    """
    rho = tuned_rho(v_opt, alpha)
    return math.sqrt((v + rho) * (math.log((v + rho) / rho) - 2 * math.log(alpha)))


def tuned_rho(v_opt: float, alpha: float) -> float:
    """
    The rho at which the two-sided boundary of level alpha is about smallest at variance v_opt.

    For one side take 2 * alpha. Howard et al. (2021); confseq, best_rho. Not checked, as
    `normal_mixture_bound`.
    """
    twice = 2 * math.log(1 / alpha)
    return v_opt / (twice + math.log1p(twice))


def _row(batch: Batch, ratio: float, absolute: float) -> tuple[float, ...]:
    stable, candidate = batch.stable_sum / batch.stable_n, batch.candidate_sum / batch.candidate_n
    weight = batch.candidate_n * batch.stable_n / (batch.stable_n + ratio**2 * batch.candidate_n)
    d = candidate - ratio * stable - absolute
    return 1.0, weight, weight * d, weight * d * d


def _log_evidence(state: Sequence[float], sign: float) -> float:
    windows, weight, first, _ = _checked(state)
    if windows < LEAST_WINDOWS:
        return 0.0
    deviation = _deviation(state)
    if deviation == 0:
        return 0.0
    z = sign * _normal_score(first / deviation / math.sqrt(weight), windows - 1)
    rho = tuned_rho(_TUNED_FOR_WINDOWS, 2 * _TUNED_FOR_ALPHA)
    return log_normal_mixture(z * math.sqrt(windows), windows, rho)


def _normal_score(t: float, degrees: float) -> float:
    """The normal value with the tail of Student's t: what an estimated deviation costs."""
    tail = max(float(stdtr(degrees, -abs(t))), _SMALLEST_TAIL)
    return math.copysign(float(ndtri(tail)), t)


def _student_score(z: float, degrees: float) -> float:
    """Inverse of `_normal_score`."""
    return math.copysign(float(stdtrit(degrees, float(ndtr(-abs(z))))), z)


def _deviation(state: Sequence[float]) -> float:
    """Estimated standard deviation of a difference of weight 1."""
    windows, weight, first, second = state
    return math.sqrt(max(0.0, second - first**2 / weight) / (windows - 1))


def _checked(state: Sequence[float]) -> tuple[float, float, float, float]:
    if len(state) != MEANS_STATE or any(math.isnan(x) for x in state):
        raise ValueError(f"a state of means has {MEANS_STATE} numbers, not {tuple(state)}")
    windows, weight, first, second = state
    return windows, weight, first, second
