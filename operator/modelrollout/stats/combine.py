"""
Evidence of several guardrails or slices together: whether anything is worse, and which.

Means of e-values are e-values whatever their dependence, so guardrails that see the same
requests need no correction beyond the mean.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def log_weighted_mean(log_e: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """
    Log of the weighted mean of the e-values: evidence that at least one guardrail is breached.

    `weights` names every guardrail of the rollout and is normalised to sum 1. A guardrail without
    evidence yet counts as e = 1: leaving it out would change the others' weights after the data
    were seen, and the result would no longer be an e-process. Vovk and Wang, Annals of
    Statistics 2021. Raises ValueError for evidence without a weight, weights that
    are negative or all 0, and NaN.
    """
    shares = _shares(log_e, weights)
    logs = [math.log(w) + log_e.get(name, 0.0) for name, w in shares.items()]
    return _log_sum(logs)


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


def culprits(
    log_e: Mapping[str, float], weights: Mapping[str, float], alpha: float
) -> tuple[str, ...]:
    """
    The guardrails that are breached, strongest evidence first, with error rate alpha for the set.

    Closed testing with weighted means as local tests (Vovk and Wang, Annals of Statistics 2021,
    for equal weights; Hartog and Lei, arXiv 2501.09015, for weights): a guardrail
    is named when the weighted mean of every set that holds it is at least 1 / alpha. Of all
    sets the worst is the guardrail itself with those of least evidence, so K sets suffice.

    It can be empty while `log_weighted_mean` has reached 1 / alpha: then one of several is
    breached and the evidence does not say which. Raises ValueError as `log_weighted_mean`, and
    for an alpha outside (0, 1).
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, not {alpha}")
    shares = _shares(log_e, weights)
    evidence = {name: log_e.get(name, 0.0) for name in shares}
    named = [k for k in shares if _least_mean(k, evidence, shares) >= -math.log(alpha)]
    return tuple(sorted(named, key=lambda k: (-evidence[k], k)))


def log_with_slices(log_all: float, log_slices: Mapping[str, float], slots: int) -> float:
    """
    Log evidence that the candidate is worse, on all requests together or in a slice of them.

    Half of the bet is on all requests, half spread evenly over `slots` slices, a number that is
    fixed beforehand: log(E_all / 2 + (sum of E_slice) / (2 slots)), where a slot that no slice
    has taken yet counts as 1. Null hypothesis: not worse, overall and in every slice. Fair
    because a mean of e-values is one (Vovk and Wang, Annals of Statistics 2021), and because
    slices take their slots by their exposure alone: bets are fair given all exposures
    (docs/statistics.md section 4). Chosen by their events they would not be. Raises ValueError for
    more slices than slots, and for evidence that is NaN or infinite.
    """
    _check_slots(log_slices, slots)
    _check_evidence({"all requests": log_all, **log_slices})
    absent = [math.log(slots - len(log_slices))] if len(log_slices) < slots else []
    log_mean = _log_sum([*log_slices.values(), *absent]) - math.log(slots)
    return _log_sum([log_all, log_mean]) - math.log(2)


def discoveries(
    log_e: Mapping[str, float], alpha: float, *, slots: int | None = None
) -> tuple[str, ...]:
    """
    The slices that are worse, strongest evidence first, with false discovery rate alpha.

    e-BH (Wang and Ramdas, JRSS B 2022): with the m e-values in falling order, the first k for the
    largest k with k * e_(k) / m >= 1 / alpha. Valid under any dependence. Every slice that was
    watched counts, also one without evidence (0.0): m is `slots`, or, without it, the number of
    `log_e`. At most a share alpha of what is named is wrong on average: for attention, not for
    rollback. Raises ValueError for NaN or infinite evidence, for an alpha outside (0, 1), and for
    more slices than slots.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, not {alpha}")
    _check_evidence(log_e)
    watched = len(log_e) if slots is None else slots
    if not watched:
        return ()
    _check_slots(log_e, watched)
    ranked = sorted(log_e, key=lambda name: (-log_e[name], name))
    needed = math.log(watched / alpha)
    enough = [k for k, name in enumerate(ranked, 1) if math.log(k) + log_e[name] >= needed]
    return tuple(ranked[: max(enough, default=0)])


def _least_mean(name: str, evidence: Mapping[str, float], shares: Mapping[str, float]) -> float:
    """Log of the least weighted mean over all sets of guardrails that hold `name`."""
    total, weight = math.log(shares[name]) + evidence[name], shares[name]
    least = evidence[name]
    for other in sorted(shares, key=lambda k: evidence[k]):
        if other != name:
            total = _log_sum([total, math.log(shares[other]) + evidence[other]])
            weight += shares[other]
            least = min(least, total - math.log(weight))
    return least


def _shares(log_e: Mapping[str, float], weights: Mapping[str, float]) -> dict[str, float]:
    """Weights above 0, normalised to sum 1, in order of name."""
    if unknown := sorted(set(log_e) - set(weights)):
        raise ValueError(f"no weight is given for {', '.join(unknown)}")
    if bad := sorted(k for k, w in weights.items() if not (math.isfinite(w) and w >= 0)):
        raise ValueError(f"weights must be finite and >= 0: {', '.join(bad)}")
    _check_evidence(log_e)
    total = sum(weights.values())
    if total == 0:
        raise ValueError("at least one guardrail needs a weight above 0")
    return {name: weights[name] / total for name in sorted(weights) if weights[name] > 0}


def _check_slots(log_slices: Mapping[str, float], slots: int) -> None:
    if not slots >= max(1, len(log_slices)):
        raise ValueError(f"{len(log_slices)} slices do not fit into {slots} slots")


def _check_evidence(log_e: Mapping[str, float]) -> None:
    if bad := sorted(k for k, x in log_e.items() if math.isnan(x) or x == math.inf):
        raise ValueError(f"log evidence must be a number below infinity: {', '.join(bad)}")


def _log_sum(logs: list[float]) -> float:
    top = max(logs)
    return top if top == -math.inf else top + math.log(sum(math.exp(x - top) for x in logs))
