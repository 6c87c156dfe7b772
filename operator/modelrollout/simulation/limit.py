"""
What the best possible method would need in a world: the yardstick of a simulation's requests.

It is `stats.planning.information_limit` at the world's true rates, for the guardrail that decides:

* Where a guardrail's rates lie beyond its tolerance, the rollout can be rolled back. It is by the
  guardrail that needs fewest requests, at the weight of the first judged step, with
  `falseRollbackRate`.
* Where all required guardrails lie within their margins, it can be promoted. Each judged step
  with gate `Pass` waits for the guardrail that needs most, with `falsePromoteRate`; the steps add
  up.
* Where both are true, it is the one that needs fewer.

Of a distribution it is the threshold at which that is so, among those that would be chosen from
stable's answers. Drift, bursts and pods that differ are left out, as the limit knows none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from modelrollout.api import v1alpha1 as api
from modelrollout.core.evidence import Measure
from modelrollout.core.measures import measures_anywhere
from modelrollout.core.steps import Step, steps_of
from modelrollout.simulation.exports import Export, Exports, Quantity
from modelrollout.simulation.scenario import Scenario, Version
from modelrollout.simulation.traffic import Array, bucket_shares
from modelrollout.stats import histograms
from modelrollout.stats.bounds import Bound
from modelrollout.stats.planning import Outlook, information_limit

MANY = 1_000_000
"""Requests of stable from which a distribution's thresholds are chosen here."""

Shares = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """Requests of the candidate that any method needs on average."""

    requests: float
    guardrail: str
    """That decides."""
    is_rollback: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Truth:
    """A guardrail, and its versions' true rates; of a distribution, at each of its thresholds."""

    measure: Measure
    shares: tuple[Shares, ...]
    gated: tuple[Shares, ...]

    def harm(self, step: Step, alpha: float) -> float:
        """Requests that it takes to see that it is worse; infinite when it is not."""
        found = [
            self._limit(each, step, self.measure.tolerance, alpha)
            for each in self.shares
            if self._room(each, self.measure.tolerance) < 0
        ]
        return min(found, default=math.inf)

    def safety(self, step: Step, beta: float) -> float:
        """Requests that it takes to see that it is within its margin; infinite when it is not."""
        if any(self._room(each, self.measure.margin) <= 0 for each in self.gated):
            return math.inf
        return max(self._limit(each, step, self.measure.margin, beta) for each in self.gated)

    def _limit(self, shares: Shares, step: Step, bound: Bound, rate: float) -> float:
        stable, candidate = shares
        outlook = Outlook(
            stable_rate=stable, candidate_rate=candidate, weight=step.weight / api.FULL_WEIGHT
        )
        is_lower = self.measure.lower_is_worse
        return information_limit(outlook, bound, rate, lower_is_worse=is_lower)

    def _room(self, shares: Shares, bound: Bound) -> float:
        """How far the candidate is from the bound; below 0 it is beyond it."""
        stable, candidate = shares
        if self.measure.lower_is_worse:
            return candidate - (stable / bound.ratio - bound.absolute)
        return bound.ratio * stable + bound.absolute - candidate


def limit_of(spec: api.ModelRolloutSpec, scenario: Scenario, exports: Exports) -> Limit | None:
    """None where the rates do not tell it: for means, quantiles and events over time."""
    truths = []
    for measure in measures_anywhere(spec.analysis):
        shares, gated = _true_shares(measure, exports.by_guardrail[measure.name], scenario)
        if not shares:
            return None
        truths.append(_Truth(measure=measure, shares=shares, gated=gated))
    steps = [each for each in steps_of(spec.strategy) if each.is_judged]
    found = (
        _rollback(truths, steps[0], float(spec.analysis.false_rollback_rate)),
        _promotion(truths, steps, float(spec.analysis.false_promote_rate)),
    )
    possible = [each for each in found if math.isfinite(each.requests)]
    return min(possible, key=lambda it: it.requests, default=None)


def _rollback(truths: Sequence[_Truth], step: Step, alpha: float) -> Limit:
    by_name = {each.measure.name: each.harm(step, alpha) for each in truths}
    soonest = min(by_name, key=lambda name: by_name[name])
    return Limit(requests=by_name[soonest], guardrail=soonest, is_rollback=True)


def _promotion(truths: Sequence[_Truth], steps: Sequence[Step], beta: float) -> Limit:
    total, slowest = 0.0, ("", 0.0)
    for step in steps:
        if step.gate is api.Gate.PASS:
            needs = [(e.measure.name, e.safety(step, beta)) for e in truths if e.measure.required]
            last = max(needs, key=lambda it: it[1])
            total += last[1]
            slowest = max(slowest, last, key=lambda it: it[1])
    return Limit(requests=total, guardrail=slowest[0], is_rollback=False)


def _true_shares(
    measure: Measure, export: Export, scenario: Scenario
) -> tuple[tuple[Shares, ...], tuple[Shares, ...]]:
    """At all thresholds, and at the gated ones; none where shares do not tell what is decided."""
    if export.shares is not None:
        return (export.shares,), (export.shares,)
    if export.quantity is None or measure.quantile is not None:
        return (), ()
    quantity = export.quantity
    stable, candidate = (
        np.cumsum(_buckets(quantity, version, index)).tolist()
        for index, version in enumerate((scenario.stable, scenario.candidate))
    )
    bounds = (*quantity.bounds, math.inf)
    counts = [MANY * each for each in stable]
    thresholds = histograms.choose_thresholds(bounds, counts, limits=measure.limits)
    gated = histograms.gate_thresholds(thresholds, bounds, counts, limits=measure.limits)
    tails = {
        bound: (max(0.0, 1 - ours), max(0.0, 1 - theirs))
        for bound, ours, theirs in zip(bounds, stable, candidate, strict=True)
    }
    return tuple(tails[each] for each in thresholds), tuple(tails[each] for each in gated)


def _buckets(quantity: Quantity, version: Version, index: int) -> Array:
    """The chance of each bucket for a version."""
    shape, shift = quantity.shapes[index], version.tail_shift
    plain = bucket_shares(quantity.edges, shape)
    if not quantity.is_latency:
        return plain
    late = bucket_shares(quantity.edges, shape, shift=shift.seconds)
    return plain + shift.share * (late - plain)
