"""
Worlds in which a candidate is compared with stable, drawn window by window for many runs at once.

A world says how many requests come, where they go and how many of them are bad. It can be drawn
with equal versions as well, and it knows the truth: the least number of requests that any test
needs, and the evidence of a test that knows all rates (the oracle).

Stable is drawn in two parts, because a judge of the Kayenta kind wants a baseline: a part of
stable that gets as much traffic as the candidate. Everybody else reads both parts together.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from scipy.stats import nbinom, poisson

from modelrollout.api.presets import TOLERANCE
from modelrollout.stats.bounds import Bound
from modelrollout.stats.planning import Outlook, information_limit

Array: TypeAlias = NDArray[np.float64]
Rate: TypeAlias = float | Callable[[Array], Array]
"""A number, or a function of the seconds that have passed."""

ALPHA = 0.05
HISTORY_WINDOWS = 360
"""Of stable before the rollout: half an hour at 5 s, what the operator reads."""
EQUAL = Bound(1.0)


@dataclass(frozen=True, kw_only=True)
class Side:
    """What one group of pods answered; the first two axes are windows and runs."""

    n: Array
    """Requests."""
    k: Array
    """Bad ones: failed, or answered later than the objective."""
    buckets: Array | None = None
    """Of a latency: answers per bucket of the histogram."""
    seconds: Array | None = None
    """Of a latency: the sum."""

    def __add__(self, other: Side) -> Side:
        if self.buckets is None:
            return Side(n=self.n + other.n, k=self.k + other.k)
        return Side(
            n=self.n + other.n,
            k=self.k + other.k,
            buckets=self.buckets + other.buckets,
            seconds=self.seconds + other.seconds,
        )

    def merged(self, windows: int) -> Side:
        """With so many neighbouring windows in one; what is left over at the end is left out."""

        def merge(counts: Array | None) -> Array | None:
            if counts is None:
                return None
            whole = counts[: len(counts) // windows * windows]
            return whole.reshape(-1, windows, *counts.shape[1:]).sum(axis=1)

        return Side(
            n=merge(self.n),
            k=merge(self.k),
            buckets=merge(self.buckets),
            seconds=merge(self.seconds),
        )


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Many runs of one world."""

    candidate: Side
    baseline: Side
    """The part of stable that gets as much traffic as the candidate."""
    rest: Side
    past: Side
    """Stable's windows before the rollout."""
    weight: Array
    """The candidate's share of the requests, per window."""

    @property
    def stable(self) -> Side:
        """All of stable."""
        return self.baseline + self.rest


@dataclass(frozen=True, kw_only=True)
class World:
    """What all worlds have: traffic, and how it is looked at."""

    name: str
    versions: str = ""
    """What the versions have in common: worlds that share it are the same when they are equal."""
    requests_per_second: float = 100.0
    weight: Rate = 0.05
    seconds: int = 7200
    width: int = 5
    """Seconds of a window; there is a look at the end of each."""
    point: int = 60
    """Seconds over which the rules that people use take one rate."""
    tolerance: Bound = EQUAL
    good_seconds: int = 0
    """How long the candidate is as good as stable before it is not."""

    @property
    def times(self) -> Array:
        """When each window begins, as a column."""
        return np.arange(0.0, self.seconds, self.width)[:, np.newaxis]

    def shares(self) -> tuple[Array, Array, Array]:
        """Of the requests: candidate, baseline, the rest of stable."""
        weight = _at(self.weight, self.times)
        return weight, weight, 1 - 2 * weight

    def requests(self, generator: np.random.Generator, share: Array, runs: int) -> Array:
        """Drawn per window and run."""
        mean = self.requests_per_second * self.width * share
        return generator.poisson(mean, (len(mean), runs)).astype(float)


@dataclass(frozen=True, kw_only=True)
class Errors(World):
    """Requests fail, at a rate."""

    stable: Rate = 0.01
    ratio: float = 1.0
    """The candidate's rate, as a multiple of stable's."""
    burst: float = 1.0
    """Mean failures per cause; above 1 the number is geometric."""
    pod_sd: float = 0.0
    """Of the logarithm of a pod's own factor."""
    stable_pods: int = 10
    """The candidate, and the baseline, have one."""

    def equal(self) -> Errors:
        """The same world with a candidate like stable."""
        return replace(self, name=self.versions, ratio=1.0, good_seconds=0)

    def allowed(self) -> float:
        """The constant that a well informed user gives to a threshold: twice what stable does."""
        return 2 * float(_at(self.stable, np.zeros(1))[0])

    def draw(self, generator: np.random.Generator, runs: int) -> Batch:
        base = _at(self.stable, self.times)
        is_worse = self.times >= self.good_seconds
        pods = np.exp(generator.normal(0.0, self.pod_sd, (self.stable_pods + 1, runs)))
        rates = (
            base * np.where(is_worse, self.ratio, 1.0) * pods[0],
            base * pods[1],
            base * pods[2:].mean(axis=0),
        )
        sides = [
            self._side(generator, self.requests(generator, share, runs), rate)
            for share, rate in zip(self.shares(), rates, strict=True)
        ]
        all_of_it = self.requests(generator, np.ones((HISTORY_WINDOWS, 1)), runs)
        return Batch(
            candidate=sides[0],
            baseline=sides[1],
            rest=sides[2],
            past=self._side(generator, all_of_it, base[0] * pods[1:].mean(axis=0)),
            weight=self.shares()[0],
        )

    def _side(self, generator: np.random.Generator, n: Array, rate: Array) -> Side:
        if self.burst == 1:
            return Side(n=n, k=generator.binomial(n.astype(int), rate).astype(float))
        causes = generator.poisson(n * rate / self.burst)
        more = generator.negative_binomial(np.maximum(causes, 1), 1 / self.burst)
        return Side(n=n, k=np.minimum(causes + np.where(causes > 0, more, 0), n))

    def limit(self) -> float:
        """
        Requests below which no test decides on average.

        With bursts of a test that sees each cause; where the rates move, at those of the onset.
        """
        onset = np.full((1, 1), float(self.good_seconds))
        base = float(_at(self.stable, onset).item()) / self.burst
        outlook = Outlook(
            stable_rate=base,
            candidate_rate=self.ratio * base,
            weight=float(_at(self.weight, onset).item()),
        )
        bound = Bound(self.tolerance.ratio, self.tolerance.absolute / self.burst)
        return information_limit(outlook, bound, ALPHA)

    def truth(self, batch: Batch) -> Array:
        """
        Log of the likelihood ratio: this world against a candidate exactly on the tolerance.

        It knows the versions' rates and when the candidate becomes worse; of pods it knows nothing.
        """
        base = _at(self.stable, self.times)
        bad, edge = self.ratio * base, self.tolerance.ratio * base + self.tolerance.absolute
        n = np.where(self.times >= self.good_seconds, batch.candidate.n, 0.0)
        k = np.where(self.times >= self.good_seconds, batch.candidate.k, 0.0)
        if self.burst > 1:
            return self._truth_of_bursts(n, k, float(bad[0, 0]), float(edge[0, 0]))
        gains = k * np.log(bad / edge) + (n - k) * np.log((1 - bad) / (1 - edge))
        return gains.cumsum(axis=0)

    def _truth_of_bursts(self, n: Array, k: Array, bad: float, edge: float) -> Array:
        most = int(n.max()), int(k.max())
        table = burst_logs(bad, self.burst, *most) - burst_logs(edge, self.burst, *most)
        return np.asarray(table[n.astype(int), k.astype(int)].cumsum(axis=0))


BUCKETS = tuple(round(0.01 * 1.5**i, 6) for i in range(16))
"""Upper bounds in seconds; one more bucket holds what is above."""
OBJECTIVE = 9
"""The bucket whose bound, 0.384 s, has the tail of stable that is nearest to 1 %."""
GRID = np.geomspace(1e-4, 60.0, 200_001)


@dataclass(frozen=True)
class Answers:
    """How long answers take: lognormal, with a share that takes some seconds longer."""

    median: float = 0.08
    p99: float = 0.32
    slower: float = 1.0
    """What every answer's time is multiplied by."""
    late_share: float = 0.0
    late_seconds: float = 0.0

    def below(self, seconds: Array) -> Array:
        """Share of the answers that take at most so long."""
        sigma = math.log(self.p99 / self.median) / 2.326348

        def plain(x: Array) -> Array:
            return ndtr(np.log(np.maximum(x, 1e-12) / (self.median * self.slower)) / sigma)

        late = plain(seconds - self.late_seconds)
        return (1 - self.late_share) * plain(seconds) + self.late_share * late

    def quantile(self, q: float) -> float:
        """Seconds that a share q of the answers takes at most."""
        return float(np.interp(q, self.below(GRID), GRID))


@cache
def cells_of(answers: Answers) -> tuple[Array, Array, Array]:
    """Of each bucket: share of the answers, and mean and variance of their seconds."""
    cells = np.searchsorted(np.asarray(BUCKETS), GRID[1:])
    mass = np.diff(answers.below(GRID))
    middle = (GRID[1:] + GRID[:-1]) / 2
    share = np.bincount(cells, mass)
    mean = np.bincount(cells, mass * middle) / np.maximum(share, 1e-300)
    square = np.bincount(cells, mass * middle**2) / np.maximum(share, 1e-300)
    return share / share.sum(), mean, np.maximum(square - mean**2, 0.0)


@dataclass(frozen=True, kw_only=True)
class Latencies(World):
    """Answers take their time, and a histogram and a sum of it are kept."""

    stable: Answers = Answers()
    candidate: Answers = Answers()

    def equal(self) -> Latencies:
        """The same world with a candidate like stable."""
        return replace(self, name=self.versions, candidate=self.stable)

    def draw(self, generator: np.random.Generator, runs: int) -> Batch:
        sides = [
            self._side(generator, self.requests(generator, share, runs), answers)
            for share, answers in zip(
                self.shares(), (self.candidate, self.stable, self.stable), strict=True
            )
        ]
        all_of_it = self.requests(generator, np.ones((HISTORY_WINDOWS, 1)), runs)
        return Batch(
            candidate=sides[0],
            baseline=sides[1],
            rest=sides[2],
            past=self._side(generator, all_of_it, self.stable),
            weight=self.shares()[0],
        )

    def _side(self, generator: np.random.Generator, n: Array, answers: Answers) -> Side:
        """The sum is normal around what its buckets say, as a sum of that many answers nearly is."""
        share, mean, variance = cells_of(answers)
        buckets = generator.multinomial(n.astype(int), share).astype(float)
        spread = np.sqrt(buckets @ variance)
        seconds = buckets @ mean + spread * generator.standard_normal(n.shape)
        late = buckets[..., OBJECTIVE + 1 :].sum(axis=-1)
        return Side(n=n, k=late, buckets=buckets, seconds=seconds)

    def limit(self) -> float:
        """Requests below which no test that sees the buckets decides on average."""
        weight = float(_at(self.weight, np.zeros((1, 1))).item())
        c, b = cells_of(self.candidate)[0], cells_of(self.stable)[0]
        both = weight * c + (1 - weight) * b

        def divergence(p: Array) -> float:
            return float(np.sum(p * np.log(np.maximum(p, 1e-300) / np.maximum(both, 1e-300))))

        return math.log(1 / ALPHA) / (divergence(c) + (1 - weight) / weight * divergence(b))

    def truth(self, batch: Batch) -> Array:
        """Log of the likelihood ratio of the candidate's buckets: this world against equality."""
        c, b = cells_of(self.candidate)[0], cells_of(self.stable)[0]
        gains = np.log(np.maximum(c, 1e-300) / np.maximum(b, 1e-300))
        assert batch.candidate.buckets is not None
        return (batch.candidate.buckets @ gains).cumsum(axis=0)


def _at(value: Rate, times: Array) -> Array:
    return np.asarray(value(times) if callable(value) else np.full(times.shape, value))


def burst_logs(rate: float, burst: float, most_n: int, most_k: int) -> Array:
    """Log of the chance of k failures among n requests, shape (most_n + 1, most_k + 1)."""
    causes = np.arange(1, most_k + 2)
    of_sum = nbinom.pmf(np.arange(most_k + 1) - causes[:, np.newaxis], causes[:, None], 1 / burst)
    chance = poisson.pmf(causes, np.arange(most_n + 1)[:, np.newaxis] * rate / burst) @ of_sum
    chance[:, 0] = np.exp(-np.arange(most_n + 1) * rate / burst)
    return np.log(np.maximum(chance, 1e-300))


def drifting_rate(seconds: Array) -> Array:
    """1 % rising to 3 % in two hours."""
    return 0.01 + 0.02 * seconds / 7200


def rising_weight(seconds: Array) -> Array:
    """5, 25 and 50 %, forty minutes each."""
    return np.select([seconds < 2400, seconds < 4800], [0.05, 0.25], 0.5)


PODS = Errors(name="", versions="one pod", pod_sd=0.2, tolerance=Bound(*TOLERANCE.numbers()))
BURSTS = Errors(name="", versions="bursts of 3, 1 %", burst=3.0)
RARE_BURSTS = Errors(name="", versions="bursts of 3, 0.1 %", burst=3.0, stable=0.001)
STEPS = Errors(name="", versions="drift and steps", stable=drifting_rate, weight=rising_weight)
QUIET = Errors(
    name="",
    versions="0.1 requests/s",
    requests_per_second=0.1,
    weight=0.5,
    width=60,
    seconds=86_400,
    point=1800,
)
LATE = Answers(late_share=0.01, late_seconds=1.0)

WORLDS: tuple[Errors | Latencies, ...] = (
    *(
        Errors(name=f"1 %, {ratio:g} times", versions="1 %", ratio=ratio)
        for ratio in (1.2, 1.5, 2.0, 5.0, 10.0)
    ),
    Errors(name="1 %, 2 times after 30 min", versions="1 %", ratio=2.0, good_seconds=1800),
    Errors(name="0.1 %, 2 times", versions="0.1 %", stable=0.001, ratio=2.0),
    Errors(name="0.1 %, 5 times", versions="0.1 %", stable=0.001, ratio=5.0),
    Errors(name="5 %, 1.5 times", versions="5 %", stable=0.05, ratio=1.5),
    Latencies(name="latency, 1 % later by 1 s", versions="latency", candidate=LATE),
    Latencies(name="latency, all 1.1 times", versions="latency", candidate=Answers(slower=1.1)),
    replace(BURSTS, name="bursts of 3, 1 %, 2 times", ratio=2.0),
    replace(RARE_BURSTS, name="bursts of 3, 0.1 %, 5 times", ratio=5.0),
    replace(PODS, name="one pod, 3 times", ratio=3.0),
    replace(STEPS, name="drift and steps, 1.5 times", ratio=1.5),
    replace(QUIET, name="0.1 requests/s, 5 times", ratio=5.0),
)
