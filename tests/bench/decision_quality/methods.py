"""
How to decide: this engine, the rules that people use, and the oracle. Each says when it rolls back.

A method takes a `Batch` and gives, for each run, the look at which it first says that the
candidate is worse; the number of looks if it never does. All see the same requests.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr, ndtri, stdtr

from bench.decision_quality import kayenta
from bench.decision_quality.worlds import (
    ALPHA,
    BUCKETS,
    Array,
    Batch,
    Errors,
    Latencies,
    Side,
)
from modelrollout.stats import dispersion, histograms, means
from modelrollout.stats.bounds import Bound
from modelrollout.stats.counts import log_harm_of, log_mixture_of, log_safety_of, usual_share

Looks: TypeAlias = NDArray[np.int64]
Method: TypeAlias = Callable[[Batch], Looks]

ENGINE = "this engine"
WINDOW_MEANS = "confidence sequence, window means"
KAYENTA = "Mann-Whitney, Kayenta's judge"
ORACLE = "oracle: SPRT that knows both rates"

FLAGGER_FAILURES = 10
"""Flagger's documentation: checks of one minute, rolled back at the tenth that failed."""
ARGO_FAILURES = 4
ARGO_POINTS = 5
"""Argo Rollouts' documentation: measurements of five minutes, at most three may fail."""
SLOWEST_P99 = 0.5
"""Flagger's documentation: the 99th percentile of the latency is at most 500 ms."""
LEAST_POINTS = 10
"""Kayenta asks for 50; it is allowed to judge earlier here."""
TUNED_FOR_REQUESTS = 20_000
"""Of both versions: where the confidence sequence is tightest; 1,000 of a candidate at 5 %."""
LEAST_EVENTS = 20
"""Failures of both versions before which the asymptotics of requests are not believed."""


def methods_of(world: Errors | Latencies) -> dict[str, Method]:
    """Everybody who decides in such a world, except the oracle."""
    names: dict[str, Method] = {ENGINE: engine(world, ALPHA)}
    windows = world.point // world.width
    for name, length, failures in (
        ("threshold, Flagger's settings", windows, FLAGGER_FAILURES),
        ("threshold, Argo's settings", ARGO_POINTS * windows, ARGO_FAILURES),
    ):
        names[name] = threshold(world, length, failures)
    if isinstance(world, Errors):
        names[KAYENTA] = mann_whitney(windows, failure_rate)
    else:
        names[KAYENTA] = mann_whitney(windows, mean_seconds)
        names[f"{KAYENTA}, of p99"] = mann_whitney(windows, p99)
    names["z-test at each look"] = z_test
    bound = world.tolerance
    names["confidence sequence, requests"] = lambda batch: confidence_sequence(batch, bound)
    names[WINDOW_MEANS] = lambda batch: first(
        log_harm_of_means(batch, bound) >= math.log(1 / ALPHA)
    )
    return names


def engine(world: Errors | Latencies, alpha: float) -> Method:
    """The operator's rule: rollback when the evidence of harm reaches 1 / alpha."""
    evidence = engine_on_errors if isinstance(world, Errors) else engine_on_histograms
    return lambda batch: first(evidence(batch, world.tolerance) >= math.log(1 / alpha))


def oracle(world: Errors | Latencies) -> Method:
    """Wald's test between the world as it is and a candidate on the tolerance."""
    return lambda batch: first(world.truth(batch) >= math.log(1 / ALPHA))


def first(reached: NDArray[np.bool_]) -> Looks:
    """The first look of each run at which it is so; the number of looks if it never is."""
    return np.where(reached.any(axis=0), reached.argmax(axis=0), len(reached))


# --- this engine: the operator's own functions, for many runs at once ---------------------------


@dataclass(frozen=True, kw_only=True)
class Habits:
    """What stable's past shows, by run."""

    usual: Array
    """Its share of events."""
    dispersion: Array
    """How they come in bursts."""


def engine_on_errors(batch: Batch, bound: Bound) -> Array:
    """Log evidence of harm at each look."""
    return _grown(log_harm_of, _table(batch.stable, batch.candidate), bound, _habits(batch.past))


def engine_safety(batch: Batch, bound: Bound) -> Array:
    """Log evidence of safety at each look."""
    return _grown(log_safety_of, _table(batch.stable, batch.candidate), bound, _habits(batch.past))


def engine_on_histograms(batch: Batch, bound: Bound) -> Array:
    """Log evidence of harm in some tail; thresholds are chosen from stable's past, run by run."""
    log_e = np.empty(batch.candidate.n.shape)
    for thresholds, runs in _by_thresholds(batch.past):
        logs = [
            _grown(
                log_harm_of,
                _table(*(_tail(each, bucket, runs) for each in (batch.stable, batch.candidate))),
                bound,
                _habits(_tail(batch.past, bucket, runs)),
            )
            for bucket in thresholds
        ]
        log_e[:, runs] = np.logaddexp.reduce(logs, axis=0) - math.log(len(logs))
    return log_e


def _table(stable: Side, candidate: Side) -> Array:
    return np.stack([stable.n, stable.k, candidate.n, candidate.k], axis=-1)


def _grown(evidence: Callable[..., Array], table: Array, bound: Bound, habits: Habits) -> Array:
    """What windows say together at each look, by what stable's past says of each run."""
    logs = evidence(table, bound, usual=habits.usual)
    return log_mixture_of((logs / habits.dispersion[:, np.newaxis]).cumsum(axis=0))


def _habits(past: Side) -> Habits:
    columns = zip(past.n.T.tolist(), past.k.T.tolist(), strict=True)
    windows = [list(zip(*each, strict=True)) for each in columns]
    return Habits(
        usual=np.array([usual_share(each) for each in windows]),
        dispersion=np.array([dispersion.dispersion(each, of_proportion=True) for each in windows]),
    )


def _by_thresholds(past: Side) -> Iterator[tuple[tuple[float, ...], NDArray[np.int64]]]:
    """Runs that have the same thresholds; a threshold is the index of its bucket."""
    assert past.buckets is not None
    cumulative = past.buckets.sum(axis=0).cumsum(axis=-1)
    bounds = (*BUCKETS, math.inf)
    groups: dict[tuple[float, ...], list[int]] = {}
    for run, row in enumerate(cumulative):
        chosen = histograms.choose_thresholds(bounds, row.tolist())
        groups.setdefault(chosen, []).append(run)
    for chosen, runs in groups.items():
        yield tuple(BUCKETS.index(each) for each in chosen), np.array(runs)


def _tail(side: Side, bucket: int, runs: NDArray[np.int64]) -> Side:
    """Answers above a bucket as events."""
    assert side.buckets is not None
    return Side(n=side.n[:, runs], k=side.buckets[:, runs, bucket + 1 :].sum(axis=-1))


# --- rules that people use ----------------------------------------------------------------------


def threshold(world: Errors | Latencies, windows: int, failures: int) -> Method:
    """
    So many checks have failed, in all: as Flagger counts, and Argo Rollouts its failureLimit.

    A check fails when the candidate's value over the last interval is above a constant, or when
    there is none. The user knows stable well: the constant is twice its failure rate.
    """

    def decide(batch: Batch) -> Looks:
        candidate = batch.candidate.merged(windows)
        if isinstance(world, Errors):
            is_bad = failure_rate(candidate) > 100 * world.allowed()
        else:
            is_bad = p99(candidate) > SLOWEST_P99
        has_failed = is_bad | (candidate.n == 0)
        return _at_the_end(first(has_failed.cumsum(axis=0) >= failures), windows)

    return decide


def mann_whitney(windows: int, value: Callable[[Side], Array]) -> Method:
    """Kayenta's judge on all points so far, asked at each new one."""

    def decide(batch: Batch) -> Looks:
        points = [value(each.merged(windows)) for each in (batch.candidate, batch.baseline)]
        return _at_the_end(kayenta.first_high(*points, least=LEAST_POINTS), windows)

    return decide


def _at_the_end(points: Looks, windows: int) -> Looks:
    """The look at which a point of so many windows is complete."""
    return (points + 1) * windows - 1


def z_test(batch: Batch) -> Looks:
    """Two proportions, pooled variance, all requests so far, one-sided 5 %, at each look."""
    stable, candidate = batch.stable, batch.candidate
    n_b, k_b, n_c, k_c = (
        each.cumsum(axis=0) for each in (stable.n, stable.k, candidate.n, candidate.k)
    )
    score = z_score(n_b, k_b, n_c, k_c)
    return first(score > -ndtri(ALPHA))


def z_score(n_b: Array, k_b: Array, n_c: Array, k_c: Array) -> Array:
    """Of the difference of two proportions; 0 where there is nothing to compare yet."""
    pooled = (k_b + k_c) / np.maximum(n_b + n_c, 1)
    variance = pooled * (1 - pooled) * (1 / np.maximum(n_b, 1) + 1 / np.maximum(n_c, 1))
    difference = k_c / np.maximum(n_c, 1) - k_b / np.maximum(n_b, 1)
    return difference / np.sqrt(np.maximum(variance, 1e-300)) * (variance > 0)


def confidence_sequence(batch: Batch, bound: Bound) -> Looks:
    """
    An asymptotic confidence sequence for what the candidate's rate is above the bound lies above 0.

    Each request is weighted with its chance to get to its version, so that drift and changing
    weights do no harm (Waudby-Smith et al., arXiv 2103.06476; Ham et al., arXiv 2210.08639).
    """
    stable, candidate, weight = batch.stable, batch.candidate, batch.weight
    ours, theirs = 1 / weight, bound.ratio / (1 - weight)
    requests = (stable.n + candidate.n).cumsum(axis=0)
    total = (candidate.k * ours - stable.k * theirs).cumsum(axis=0) - bound.absolute * requests
    variance = (candidate.k * ours**2 + stable.k * theirs**2).cumsum(axis=0)
    deviation = np.sqrt(np.maximum(variance, 1e-300) / np.maximum(requests, 1))
    rho = means.tuned_rho(TUNED_FOR_REQUESTS, 2 * ALPHA)
    log_e = log_normal_mixture(total / deviation, requests, rho)
    is_begun = (stable.k + candidate.k).cumsum(axis=0) >= LEAST_EVENTS
    return first(is_begun & (log_e >= math.log(1 / ALPHA)))


def log_harm_of_means(batch: Batch, bound: Bound) -> Array:
    """
    `modelrollout.stats.means.log_harm` at each look: evidence from means of windows.

    Of failures per request, or of seconds per answer. It is what the operator's guardrail `mean`
    does.
    """
    stable, candidate = batch.stable, batch.candidate
    is_seen = (stable.n > 0) & (candidate.n > 0)
    n_b, n_c = np.maximum(stable.n, 1), np.maximum(candidate.n, 1)
    weight = np.where(is_seen, n_c * n_b / (n_b + bound.ratio**2 * n_c), 0.0)
    difference = _sum(candidate) / n_c - bound.ratio * _sum(stable) / n_b - bound.absolute
    windows = is_seen.cumsum(axis=0)
    total, moment, second = ((weight * difference**power).cumsum(axis=0) for power in (0, 1, 2))
    return _log_evidence(windows, total, moment, second)


def _log_evidence(windows: NDArray[np.int64], weight: Array, moment: Array, second: Array) -> Array:
    degrees = np.maximum(windows - 1, 1)
    weight = np.maximum(weight, 1e-300)
    deviation = np.sqrt(np.maximum(second - moment**2 / weight, 0.0) / degrees)
    t = moment / np.maximum(deviation, 1e-300) / np.sqrt(weight)
    tail = np.maximum(stdtr(degrees, -np.abs(t)), 1e-300)
    rho = means.tuned_rho(means._TUNED_FOR_WINDOWS, 2 * means._TUNED_FOR_ALPHA)  # noqa: SLF001
    score = np.copysign(ndtri(tail), t)
    log_e = log_normal_mixture(score * np.sqrt(windows), windows, rho)
    return np.where((windows >= means.LEAST_WINDOWS) & (deviation > 0), log_e, 0.0)


def log_normal_mixture(s: Array, v: Array, rho: float) -> Array:
    """`modelrollout.stats.means.log_normal_mixture` for arrays."""
    both = v + rho
    return np.asarray(
        0.5 * np.log(4 * rho / both) + s * s / (2 * both) + log_ndtr(s / np.sqrt(both))
    )


def _sum(side: Side) -> Array:
    return side.k if side.seconds is None else side.seconds


# --- what they look at --------------------------------------------------------------------------


def failure_rate(side: Side) -> Array:
    """Per cent of the requests that failed; 0 without requests (`replace`, as Kayenta calls it)."""
    return 100 * side.k / np.maximum(side.n, 1)


def mean_seconds(side: Side) -> Array:
    """Of an answer."""
    assert side.seconds is not None
    return side.seconds / np.maximum(side.n, 1)


def p99(side: Side) -> Array:
    """`histogram_quantile(0.99, ...)`: interpolated within the bucket."""
    assert side.buckets is not None
    cumulative = side.buckets.cumsum(axis=-1)
    rank = 0.99 * cumulative[..., -1]
    bucket = np.minimum((cumulative < rank[..., np.newaxis]).sum(axis=-1), len(BUCKETS))
    edges = np.array([0.0, *BUCKETS, BUCKETS[-1]])
    inside = np.take_along_axis(side.buckets, bucket[..., np.newaxis], axis=-1)[..., 0]
    below = np.take_along_axis(cumulative, bucket[..., np.newaxis], axis=-1)[..., 0] - inside
    share = (rank - below) / np.maximum(inside, 1e-300)
    return np.asarray(edges[bucket] + (edges[bucket + 1] - edges[bucket]) * share)
