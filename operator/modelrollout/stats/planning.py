"""
What a rollout will need: requests until a decision, chance of one, smallest effect that is seen.

Everything is counted in requests of the candidate. The limit is what no method can beat; the
rest is this engine's own evidence, as a random walk with the drift and variance of its bets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.special import log_ndtr, ndtr, rel_entr, softmax

from modelrollout.stats.bounds import Bound
from modelrollout.stats.counts import complemented, log_harm_of, log_mixture_of, log_safety_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike

    from modelrollout.stats.counts import Array

_MOST_REQUESTS: Final = 1e12
_LARGEST_RATIO: Final = 1e4
# Searches end after so many halvings: plain ones, because scipy.optimize costs 23 MiB at import.
_HALVINGS: Final = 50
# What is still needed is told to two digits.
_STEPS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """
    What is expected of the two versions: rates in [0, 1], and the candidate's share of requests.

    `dispersion` is the factor by which events come in bursts and evidence is tempered.
    `counts_others` is whether the requests without the event are counted, because it is the common
    outcome (`counts.complemented`); rates and bounds stay those of the event. `is_centred` is
    whether bets are centred on stable's rate, as its usual share (`counts.log_harm`): where there
    is a past of stable to know it from. Raises ValueError for a rate outside [0, 1], a weight
    outside (0, 1) and a dispersion below 1.
    """

    stable_rate: float
    candidate_rate: float
    weight: float
    dispersion: float = 1.0
    counts_others: bool = False
    is_centred: bool = False

    def __post_init__(self) -> None:
        if not (0 <= self.stable_rate <= 1 and 0 <= self.candidate_rate <= 1):
            raise ValueError(f"rates must lie in [0, 1]: {self.stable_rate}, {self.candidate_rate}")
        if not 0 < self.weight < 1:
            raise ValueError(f"the weight must lie between 0 and 1, not {self.weight}")
        if not (math.isfinite(self.dispersion) and self.dispersion >= 1):
            raise ValueError(f"dispersion must be a finite number >= 1, not {self.dispersion}")


def expected_requests(requests_per_second: float, weight: float, seconds: float) -> float:
    """Requests that the candidate gets in that time at that weight (a share, not per cent)."""
    return requests_per_second * weight * seconds


def information_limit(
    outlook: Outlook, bound: Bound, alpha: float, *, lower_is_worse: bool = False
) -> float:
    """
    Requests below which no test of level alpha decides on average, whichever side is true.

    ln(1 / alpha) / I, with I the least Kullback-Leibler divergence per candidate request between
    the outlook and any pair of rates on the bound (Wald's bound on the expected sample number;
    Garivier and Kaufmann, COLT 2016, for several streams), for independent requests: a
    dispersion is not looked at. Infinite when the outlook lies on the bound. Raises ValueError for an alpha outside (0, 1).
    """
    _check_probability(alpha, "alpha")
    stable_per_request = (1 - outlook.weight) / outlook.weight

    def divergence(base: float) -> float:
        edge = _edge(base, bound, lower_is_worse=lower_is_worse)
        stable = stable_per_request * _kl(outlook.stable_rate, base)
        return _kl(outlook.candidate_rate, min(max(edge, 0.0), 1.0)) + stable

    least = _least(divergence, *_bases(bound, lower_is_worse=lower_is_worse))
    return math.log(1 / alpha) / least if least > 0 else math.inf


def chance_to_decide(
    outlook: Outlook, bound: Bound, alpha: float, requests: float, *, lower_is_worse: bool = False
) -> float:
    """
    Chance that this engine has decided by so many candidate requests, about.

    The side is that on which the outlook lies: harm when the candidate is beyond the bound,
    safety when it is inside. The evidence is taken as a Brownian motion with the drift and the
    variance of its grid points, weighted as they then contribute, and the chance is that of its
    first passage (inverse Gaussian; Cox and Miller, The Theory of Stochastic Processes).
    Windows are neglected: a decision waits for the end of its own. Raises ValueError for an
    alpha outside (0, 1) and for less than 0 requests.
    """
    _check_probability(alpha, "alpha")
    if not requests >= 0:
        raise ValueError(f"requests must be >= 0, not {requests}")
    drifts, spreads = _growth(outlook, bound, lower_is_worse=lower_is_worse)
    return _first_passage(drifts, spreads, math.log(1 / alpha), requests)


def needed_requests(
    outlook: Outlook,
    bound: Bound,
    alpha: float,
    *,
    chance: float = 0.5,
    lower_is_worse: bool = False,
) -> float:
    """
    Candidate requests by which this engine has decided with the given chance (0.5: the median).

    The inverse of `chance_to_decide`. Infinite when the evidence does not get there: an effect
    too near to the bound, or rates of 0 with a bound that is only a ratio. Raises ValueError
    for an alpha or a chance outside (0, 1).
    """
    _check_probability(alpha, "alpha")
    _check_probability(chance, "chance")
    drifts, spreads = _growth(outlook, bound, lower_is_worse=lower_is_worse)
    threshold = math.log(1 / alpha)

    def is_decided(log_requests: float) -> bool:
        return _first_passage(drifts, spreads, threshold, math.exp(log_requests)) >= chance

    return math.exp(_smallest(is_decided, 0.0, math.log(_MOST_REQUESTS)))


def remaining_requests(
    states: ArrayLike, growths: ArrayLike, requests: float, alpha: float
) -> tuple[float, ...]:
    """
    Candidate requests until each running state decides, if it goes on as so many made it grow.

    `growths` is what those requests add to each state, per grid point: the log of a bet is linear
    in the counts, so that it is the drift of `needed_requests` at the rates that they had. What is
    missing is what these states, not new ones, have yet to gain. 0 where nothing is, infinite
    where no point grows. Raises ValueError for an alpha outside (0, 1) and for no requests.
    """
    _check_probability(alpha, "alpha")
    if not requests > 0:
        raise ValueError(f"growth is that of at least one request, not {requests}")
    drifts = np.asarray(growths, dtype=np.float64) / requests
    pairs = zip(np.asarray(states, dtype=np.float64), drifts, strict=True)
    return tuple(_remaining(state, drift, math.log(1 / alpha)) for state, drift in pairs)


def _remaining(state: Array, drifts: Array, needed: float) -> float:
    if float(log_mixture_of(state)) >= needed:
        return 0.0
    rising = drifts > 0
    if not rising.any():
        return math.inf
    # Between where the first point would have it with the others' help, and where it has it alone.
    helped = (needed - state[rising]) / drifts[rising]
    alone = (needed + math.log(len(state)) - state[rising]) / drifts[rising]
    low, high = max(0.0, float(helped.min())), float(alone.min())
    steps = low + (high - low) * np.arange(1, _STEPS + 1) / _STEPS
    is_reached = log_mixture_of(state + steps[:, np.newaxis] * drifts) >= needed
    return float(steps[is_reached.argmax()]) if is_reached.any() else high


def smallest_visible(
    outlook: Outlook,
    bound: Bound,
    alpha: float,
    requests: float,
    *,
    chance: float = 0.8,
    lower_is_worse: bool = False,
) -> float:
    """
    The candidate's rate nearest to the bound that is found harmful by so many of its requests.

    Found means with the given chance; the outlook's own candidate rate is not used. NaN when even
    the worst rate is not found. Raises ValueError as `chance_to_decide` and `needed_requests`.
    """
    _check_probability(chance, "chance")
    edge = _edge(outlook.stable_rate, bound, lower_is_worse=lower_is_worse)
    worst = 0.0 if lower_is_worse else 1.0
    if not 0 < edge < 1:
        return math.nan

    def rate(distance: float) -> float:
        return edge + distance * (worst - edge)

    def is_seen(distance: float) -> bool:
        at = replace(outlook, candidate_rate=rate(distance))
        options = {"lower_is_worse": lower_is_worse}
        return chance_to_decide(at, bound, alpha, requests, **options) >= chance

    distance = _smallest(is_seen, 1e-6, 1.0)
    return rate(distance) if math.isfinite(distance) else math.nan


def provable_ratio(
    outlook: Outlook,
    alpha: float,
    requests: float,
    *,
    chance: float = 0.8,
    lower_is_worse: bool = False,
) -> float:
    """
    The smallest ratio within which a candidate equal to stable is proved by so many requests.

    What margin would do when the one asked for is too narrow for the traffic; the outlook's own
    candidate rate is not used. Infinite when no ratio up to 10,000 is whose bound leaves room
    for a worse rate. Raises ValueError as `needed_requests`.
    """
    p = outlook.stable_rate
    most = _LARGEST_RATIO if lower_is_worse or p == 0 else min(_LARGEST_RATIO, 1 / p)
    is_proved = _is_proved(outlook, alpha, requests, chance, lower_is_worse=lower_is_worse)
    return math.exp(_smallest(lambda x: is_proved(Bound(math.exp(x))), 1e-3, math.log(most)))


def provable_absolute(
    outlook: Outlook,
    ratio: float,
    alpha: float,
    requests: float,
    *,
    chance: float = 0.8,
    lower_is_worse: bool = False,
) -> float:
    """
    The smallest absolute part beside a ratio within which a candidate equal to stable is proved.

    As `provable_ratio`: infinite when there is none whose bound leaves room for a worse rate.
    """
    p = outlook.stable_rate
    room = p / ratio if lower_is_worse else 1 - ratio * p
    if room <= 0:
        return math.inf
    is_proved = _is_proved(outlook, alpha, requests, chance, lower_is_worse=lower_is_worse)
    return _smallest(lambda x: is_proved(Bound(ratio, x)), 1e-9 * room, room)


def _is_proved(
    outlook: Outlook, alpha: float, requests: float, chance: float, *, lower_is_worse: bool
) -> Callable[[Bound], bool]:
    """Whether a bound is proved by so many requests, with that chance, when the versions are equal."""
    _check_probability(chance, "chance")
    equal = replace(outlook, candidate_rate=outlook.stable_rate)

    def is_proved(bound: Bound) -> bool:
        reached = chance_to_decide(equal, bound, alpha, requests, lower_is_worse=lower_is_worse)
        return reached >= chance

    return is_proved


def _growth(outlook: Outlook, bound: Bound, *, lower_is_worse: bool) -> tuple[Array, Array]:
    """Mean and standard deviation of log e per candidate request, at each grid point."""
    p_b, p_c = outlook.stable_rate, outlook.candidate_rate
    if outlook.counts_others:
        p_b, p_c = 1 - p_b, 1 - p_c
        _, bound, lower_is_worse = complemented((), bound, lower_is_worse=lower_is_worse)
    edge = _edge(p_b, bound, lower_is_worse=lower_is_worse)
    is_harm = p_c < edge if lower_is_worse else p_c > edge
    evidence = log_harm_of if is_harm else log_safety_of
    n_b = (1 - outlook.weight) / outlook.weight
    counts = [[n_b, 0, 1, 0], [n_b, 1, 1, 0], [n_b, 0, 1, 1]]
    idle, stable_event, candidate_event = evidence(
        counts, bound, lower_is_worse=lower_is_worse, usual=p_b if outlook.is_centred else 0.0
    )
    b, c = stable_event - idle, candidate_event - idle
    drift = idle + n_b * p_b * b + p_c * c
    variance = n_b * p_b * (1 - p_b) * b**2 + p_c * (1 - p_c) * c**2
    # Bursts multiply the variance by the dispersion, tempering divides what is measured by it.
    return drift / outlook.dispersion, np.sqrt(variance / outlook.dispersion)


def _first_passage(drifts: Array, spreads: Array, threshold: float, requests: float) -> float:
    """Chance that the mixture has reached the threshold by so many requests."""
    if requests == 0:
        return 0.0
    shares = softmax(requests * drifts)
    drift, spread = float(shares @ drifts), float(shares @ spreads)
    mean = requests * drift
    barrier = threshold + mean - float(log_mixture_of(requests * drifts))
    scale = spread * math.sqrt(requests)
    if scale == 0:
        return float(mean >= barrier)
    later = 2 * drift * barrier / spread**2 + float(log_ndtr(-(mean + barrier) / scale))
    return min(1.0, float(ndtr((mean - barrier) / scale)) + math.exp(min(later, 0.0)))


def _edge(base: float, bound: Bound, *, lower_is_worse: bool) -> float:
    """The candidate's rate on the bound when stable's is `base`."""
    if lower_is_worse:
        return base / bound.ratio - bound.absolute
    return bound.ratio * base + bound.absolute


def _kl(p: float, q: float) -> float:
    """Divergence of Bernoulli(p) from Bernoulli(q); infinite where q excludes what p allows."""
    return float(rel_entr(p, q) + rel_entr(1 - p, 1 - q))


def _bases(bound: Bound, *, lower_is_worse: bool) -> tuple[float, float]:
    """The rates of stable, least and most, with which the candidate's on the bound is in [0, 1]."""
    if lower_is_worse:
        return min(1.0, bound.ratio * bound.absolute), 1.0
    most = (1 - bound.absolute) / bound.ratio if bound.ratio else 1.0
    return 0.0, min(1.0, max(0.0, most))


def _least(function: Callable[[float], float], low: float, high: float) -> float:
    """Least value of a convex function: divergences are, and the bound is a line."""
    found = min(function(low), function(high))
    for _ in range(2 * _HALVINGS):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        at_left, at_right = function(left), function(right)
        found = min(found, at_left, at_right)
        low, high = (low, right) if at_left < at_right else (left, high)
    return found


def _smallest(is_enough: Callable[[float], bool], low: float, high: float) -> float:
    """The smallest x from `low` on that is enough; infinite when `high` is not."""
    if not is_enough(high):
        return math.inf
    if is_enough(low):
        return low
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def _check_probability(value: float, name: str) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name} must lie between 0 and 1, not {value}")
