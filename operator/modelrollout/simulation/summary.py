"""Many rollouts that differ by chance only, and what they say together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from statistics import median

import numpy as np
from scipy.special import betaincinv

from modelrollout.adapters.cluster import Object
from modelrollout.simulation.limit import Limit
from modelrollout.simulation.rollout import Decision, Result, simulate
from modelrollout.simulation.scenario import Scenario


def results_of(
    manifest: Object, scenario: Scenario, *, runs: int, seed: int, jobs: int
) -> Iterator[Result]:
    """One result after the other. What they are depends on the seed, and not on the jobs."""
    one = partial(_one, manifest, scenario, seed)
    if jobs == 1:
        yield from map(one, range(runs))
        return
    # Spawned, not forked: a fork would share threads and locks with whoever calls this.
    with ProcessPoolExecutor(min(jobs, runs), mp_context=get_context("spawn")) as pool:
        yield from pool.map(one, range(runs))


def _one(manifest: Object, scenario: Scenario, seed: int, run: int) -> Result:
    return simulate(manifest, scenario, (seed, run))


@dataclass(frozen=True, slots=True, kw_only=True)
class Usual:
    """The most frequent decision, and the medians of the runs that ended so."""

    decision: Decision
    seconds: float
    candidate_requests: float
    bad_requests: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What the runs say together."""

    counts: Counter[Decision]
    reasons: Counter[str]
    decision_seconds: tuple[float, float, float]
    """5th, 50th and 95th percentile, as below."""
    rollout_seconds: tuple[float, float, float]
    candidate_requests: tuple[float, float, float]
    bad_requests: tuple[float, float, float]
    limit: Limit | None
    usual: Usual

    @property
    def runs(self) -> int:
        """How many there were."""
        return self.counts.total()

    @property
    def ratio_to_limit(self) -> float | None:
        """The median of the candidate's requests in limits."""
        return self.candidate_requests[1] / self.limit.requests if self.limit else None

    def share_limits(self, decision: Decision) -> tuple[float, float]:
        """Between what the chance of a decision lies, by Clopper and Pearson's 95 % limits."""
        count, others = self.counts[decision], self.runs - self.counts[decision]
        low = float(betaincinv(count, others + 1, 0.025)) if count else 0.0
        high = float(betaincinv(count + 1, others, 0.975)) if others else 1.0
        return low, high


def summary_of(results: Sequence[Result], limit: Limit | None) -> Summary:
    """The figures of at least one result."""
    counts = Counter(each.decision for each in results)
    return Summary(
        counts=counts,
        reasons=Counter(each.reason for each in results),
        decision_seconds=_percentiles([each.seconds for each in results]),
        rollout_seconds=_percentiles([each.rollout_seconds for each in results]),
        candidate_requests=_percentiles([each.candidate_requests for each in results]),
        bad_requests=_percentiles([each.bad_requests for each in results]),
        limit=limit,
        usual=_usual(results, counts.most_common(1)[0][0]),
    )


def _usual(results: Sequence[Result], decision: Decision) -> Usual:
    same = [each for each in results if each.decision is decision]
    return Usual(
        decision=decision,
        seconds=median(each.seconds for each in same),
        candidate_requests=median(each.candidate_requests for each in same),
        bad_requests=median(each.bad_requests for each in same),
    )


def _percentiles(values: Sequence[float]) -> tuple[float, float, float]:
    low, middle, high = np.percentile(values, (5, 50, 95)).tolist()
    return low, middle, high
