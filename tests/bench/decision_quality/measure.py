"""Many runs of each world, and what everybody decided in them."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import beta

from bench.decision_quality import methods
from bench.decision_quality.methods import ENGINE, ORACLE, Method
from bench.decision_quality.worlds import ALPHA, Array, Batch, Errors, Latencies, Side
from modelrollout.stats.bounds import Bound
from modelrollout.stats.planning import Outlook, information_limit

SEED = 20260501
BATCH = 250
"""Runs that are held in memory at once."""
STRICT = "this engine at 1 %"
"""The engine at the error rate that the operator has by default."""
STRICT_ALPHA = 0.01
SURE = 0.99
"""Confidence of all limits for shares."""
TOO_FAST = 0.9
"""Part of the engine's median below which a comparator is faster."""

MARGINS = (
    Bound(1.25),
    Bound(1.5),
    Bound(2.0),
    Bound(1.0, 0.005),
    Bound(1.0, 0.01),
    Bound(2.0, 0.005),
)
"""The last is the default of a proportion."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one method did in all runs of one world."""

    decided: np.ndarray
    requests: Array
    """The candidate's until the decision, from when it was worse; infinite without a decision."""
    bad: Array
    """The candidate's bad answers until the decision, or until the end."""

    @property
    def share(self) -> float:
        """Of the runs that were decided."""
        return float(self.decided.mean())

    def limits(self) -> tuple[float, float]:
        """Clopper-Pearson: the share is below the first, above the second, with 1 % each."""
        return limits(int(self.decided.sum()), len(self.decided))


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table."""

    world: str
    method: str
    runs: int
    false: float
    false_at_most: float
    missed: float
    median: float
    p95: float
    bad: float
    limit: float
    holds: bool
    """Its rate of false decisions is not shown to be above the nominal one."""
    is_faster: bool = False
    """It holds its rate, and needs less than 0.9 of the engine's requests."""

    @property
    def ratio(self) -> float:
        """To the information limit."""
        return self.median / self.limit


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """One line of the table of promotions."""

    margin: Bound
    runs: int
    false: float
    false_at_most: float
    """Promoted although exactly on the margin."""
    undecided: float
    median: float
    p95: float
    limit: float


def limits(hits: int, runs: int) -> tuple[float, float]:
    """Lower and upper Clopper-Pearson limit of a share, 99 % each."""
    lower = float(beta.ppf(1 - SURE, hits, runs - hits + 1)) if hits else 0.0
    upper = float(beta.ppf(SURE, hits + 1, runs - hits)) if hits < runs else 1.0
    return lower, upper


def batches(world: Errors | Latencies, runs: int) -> Iterator[Batch]:
    """All runs of a world; the same whichever other worlds are drawn."""
    for start in range(0, runs, BATCH):
        seed = (SEED, zlib.crc32(world.name.encode()), start)
        yield world.draw(np.random.default_rng(seed), min(BATCH, runs - start))


def outcomes(world: Errors | Latencies, runs: int, named: dict[str, Method]) -> dict[str, Outcome]:
    """What each method does in that world."""
    parts: dict[str, list[Outcome]] = {name: [] for name in named}
    for batch in batches(world, runs):
        for name, method in named.items():
            parts[name].append(outcome_of(world, batch.candidate, method(batch)))
    return {
        name: Outcome(
            decided=np.concatenate([each.decided for each in found]),
            requests=np.concatenate([each.requests for each in found]),
            bad=np.concatenate([each.bad for each in found]),
        )
        for name, found in parts.items()
    }


def outcome_of(world: Errors | Latencies, candidate: Side, looks: methods.Looks) -> Outcome:
    last = len(candidate.n) - 1
    is_worse = world.times >= world.good_seconds
    requests, bad = (
        np.where(is_worse, counts, 0.0).cumsum(axis=0) for counts in (candidate.n, candidate.k)
    )
    at = np.minimum(looks, last)[np.newaxis]
    requests_then = np.take_along_axis(requests, at, axis=0)[0]
    bad_then = np.take_along_axis(bad, at, axis=0)[0]
    # Whoever decided while the versions were equal was wrong, and decides nothing later.
    in_time = looks * world.width >= world.good_seconds
    decided = (looks <= last) & in_time
    return Outcome(
        decided=decided,
        requests=np.where(decided, requests_then, math.inf),
        bad=bad_then,
    )


def rows(
    worlds: Sequence[Errors | Latencies], runs: int
) -> Iterator[tuple[list[Row], tuple[Outcome, Outcome]]]:
    """
    For each world its lines, and what the engine at 5 and 1 % did when the versions were equal.

    Worlds that are the same when the versions are equal are drawn once for that.
    """
    equal: dict[str, dict[str, Outcome]] = {}
    for world in worlds:
        if world.versions not in equal:
            equal[world.versions] = _equal(world, worlds, runs)
        alike = equal[world.versions]
        named = methods.methods_of(world) | {ORACLE: methods.oracle(world)}
        worse = outcomes(world, runs, named)
        lines = [
            _row(world, name, alike[world.name if name == ORACLE else name], worse[name])
            for name in named
        ]
        yield compared(lines), (alike[ENGINE], alike[STRICT])


def _equal(
    world: Errors | Latencies, worlds: Sequence[Errors | Latencies], runs: int
) -> dict[str, Outcome]:
    """With equal versions: of each method, and, by the world's name, of each oracle."""
    named = methods.methods_of(world)
    named[STRICT] = methods.engine(world, STRICT_ALPHA)
    for each in worlds:
        if each.versions == world.versions:
            named[each.name] = methods.oracle(each)
    return outcomes(world.equal(), runs, named)


def _row(world: Errors | Latencies, name: str, equal: Outcome, worse: Outcome) -> Row:
    lower, upper = equal.limits()
    return Row(
        world=world.name,
        method=name,
        runs=len(worse.decided),
        false=equal.share,
        false_at_most=upper,
        missed=1 - worse.share,
        median=quantile(worse.requests, 0.5),
        p95=quantile(worse.requests, 0.95),
        bad=quantile(worse.bad, 0.5),
        limit=world.limit(),
        holds=lower <= ALPHA,
    )


def compared(lines: list[Row]) -> list[Row]:
    """Whoever holds its rate, and is faster than the engine, is marked."""
    most = TOO_FAST * next(each.median for each in lines if each.method == ENGINE)
    return [
        replace(each, is_faster=each.holds and each.median < most)
        if each.method not in {ENGINE, ORACLE}
        else each
        for each in lines
    ]


def quantile(values: Array, q: float) -> float:
    """A value that was drawn, infinite where so many were not decided."""
    return float(np.quantile(values, q, method="inverted_cdf"))


# --- the other direction ------------------------------------------------------------------------


def promotions(runs: int) -> Iterator[Promotion]:
    """How soon equal versions are promoted, and how often a candidate on the margin is."""
    for margin in MARGINS:
        equal = _promoted(Errors(name="equal"), margin, runs)
        edge = margin.ratio + margin.absolute / 0.01
        on_margin = _promoted(Errors(name=f"on {margin}", ratio=edge), margin, runs)
        outlook = Outlook(stable_rate=0.01, candidate_rate=0.01, weight=0.05)
        yield Promotion(
            margin=margin,
            runs=runs,
            false=on_margin.share,
            false_at_most=on_margin.limits()[1],
            undecided=1 - equal.share,
            median=quantile(equal.requests, 0.5),
            p95=quantile(equal.requests, 0.95),
            limit=information_limit(outlook, margin, ALPHA),
        )


def _promoted(world: Errors, margin: Bound, runs: int) -> Outcome:
    def decide(batch: Batch) -> methods.Looks:
        return methods.first(methods.engine_safety(batch, margin) >= math.log(1 / ALPHA))

    return outcomes(world, runs, {ENGINE: decide})[ENGINE]
