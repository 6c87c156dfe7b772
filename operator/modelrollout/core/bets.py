"""
What windows say: all that a guardrail bets in one pass, as log e, in one piece.

A pass bets on the comparison of the versions, on single slices, and on two halves of stable. These
are few numbers, so that the number of calls decides what they cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from modelrollout.api.v1alpha1 import Counted, GuardrailCheckpoint
from modelrollout.core.evidence import Counts, Kind, Measure
from modelrollout.stats import counts, means, paired
from modelrollout.stats.bounds import Bound

if TYPE_CHECKING:
    from modelrollout.stats.counts import Array

FAR_LESS = 2.0
BY_CHANCE = 2.0
"""A history is not believed whose events are so many times those of the step, and some for chance."""

Row: TypeAlias = tuple[float, ...]
Pair: TypeAlias = tuple[Counts, Counts]
"""The reference and what is held against it: stable and candidate, or two halves of stable."""


class Group(NamedTuple):
    """Windows whose evidence is added up."""

    pairs: Sequence[Pair]
    is_usual: bool = True
    """Whether what is usual of all requests is usual of these."""


def points_of(measure: Measure) -> tuple[int, int]:
    """Numbers that a column of harm evidence, and of safety evidence, consists of."""
    if measure.query.kind is Kind.PAIRED:
        return paired.PAIRED_POINTS, paired.PAIRED_POINTS
    if is_mean(measure):
        return means.MEANS_STATE, means.MEANS_STATE
    return counts.HARM_POINTS, counts.SAFETY_POINTS


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a group says, as log e: per column and point, or 0."""

    harm: Array | Sequence[Row] | float
    safety: Array | Sequence[Row] | float


NOTHING = Evidence(0.0, 0.0)


def evidence_of(
    measure: Measure, checkpoint: GuardrailCheckpoint, groups: Sequence[Group]
) -> list[Evidence]:
    """What each group says."""
    if measure.query.kind is Kind.PAIRED or is_mean(measure):
        said = _flips if measure.query.kind is Kind.PAIRED else _moments
        return [
            Evidence(
                harm=(said(measure, each.pairs, is_harm=True),),
                safety=(said(measure, each.pairs, is_harm=False),),
            )
            for each in groups
        ]
    return _of_counts(measure, checkpoint, groups)


def columns_of(
    measure: Measure, checkpoint: GuardrailCheckpoint, *, is_harm: bool
) -> list[tuple[int, int]]:
    """Which of the reference's events are held against which of the other's."""
    if measure.quantile is not None:
        return [(0, 1 if is_harm else 2)]
    return [(each, each) for each in range(len(checkpoint.stable) - 1)]


def outcomes(
    measure: Measure, checkpoint: GuardrailCheckpoint, given: Counts, column: int
) -> tuple[float, float]:
    """
    Exposure and events of one version at one threshold.

    Programs do not export two counters at one instant: an event can be seen a scrape before its
    request. Every event is a request, so there were at least as many of these.
    """
    n, k = given.n, given.k[column]
    if measure.query.kind is Kind.RATE:
        return n, k
    if measure.largest is not None:
        k /= measure.largest
    n = max(n, k)
    return (n, n - k) if checkpoint.counted is Counted.OTHERS else (n, k)


# --- counts -------------------------------------------------------------------------------------


def _of_counts(
    measure: Measure, checkpoint: GuardrailCheckpoint, groups: Sequence[Group]
) -> list[Evidence]:
    harm_columns, safety_columns = (
        columns_of(measure, checkpoint, is_harm=each) for each in (True, False)
    )
    columns = list(dict.fromkeys(harm_columns + safety_columns))
    tables = [_table(measure, checkpoint, each.pairs, columns) for each in groups]
    if not any(tables):
        return [NOTHING] * len(groups)
    # A quantile has one share, whatever it is held against.
    usual = _still_usual(
        measure, checkpoint, columns, checkpoint.usual * (len(columns) // len(harm_columns))
    )
    unknown = (0.0,) * len(columns)
    tolerance, margin, lower_is_worse = _bounds(measure, checkpoint)
    logs = counts.log_evidence_of(
        list(chain.from_iterable(tables)),
        tolerance,
        margin,
        lower_is_worse=lower_is_worse,
        tuned_for=checkpoint.thinning,
        usual=[
            (usual or unknown) if group.is_usual else unknown
            for group, table in zip(groups, tables, strict=True)
            for _ in table
        ],
    )
    logs /= [[phi] for phi in checkpoint.dispersion or (1.0,)]
    ends = list(accumulate(map(len, tables)))
    return [
        Evidence(
            harm=logs[start:end, : len(harm_columns), : counts.HARM_POINTS].sum(axis=0),
            safety=logs[start:end, -len(safety_columns) :, counts.HARM_POINTS :].sum(axis=0),
        )
        if start < end
        else NOTHING
        for start, end in pairwise((0, *ends))
    ]


def _still_usual(
    measure: Measure,
    checkpoint: GuardrailCheckpoint,
    columns: Sequence[tuple[int, int]],
    usual: Sequence[float],
) -> Sequence[float]:
    """
    What stable's past shows to be usual, unless the step's earlier windows show far less.

    A history that is no longer true, of a start or of a busy hour, would take nearly all of a bet
    (docs/statistics.md, section 2.6). Windows that have been bet on may choose the next bets.
    """
    if not usual:
        return usual
    n, *k = checkpoint.stable
    seen = (
        outcomes(measure, checkpoint, Counts(n=n, k=tuple(k)), column)
        for column in (of_stable for of_stable, _ in columns)
    )
    return [
        events / answers if FAR_LESS * (events + BY_CHANCE) < share * answers else share
        for share, (answers, events) in zip(usual, seen, strict=True)
    ]


def _table(
    measure: Measure,
    checkpoint: GuardrailCheckpoint,
    pairs: Sequence[Pair],
    columns: Sequence[tuple[int, int]],
) -> list[list[Row]]:
    return [
        [
            outcomes(measure, checkpoint, stable, ours)
            + outcomes(measure, checkpoint, candidate, theirs)
            for ours, theirs in columns
        ]
        for stable, candidate in pairs
        # Of a rate, events in no time at all say nothing.
        if measure.query.kind is not Kind.RATE or min(stable.n, candidate.n) > 0
    ]


def _bounds(measure: Measure, checkpoint: GuardrailCheckpoint) -> tuple[Bound, Bound, bool]:
    """Tolerance and margin of what is counted, and whether less of it is worse."""
    if measure.quantile is not None:
        # The factor is in the thresholds: the tails beyond them must not differ.
        return Bound(1.0), Bound(1.0), measure.lower_is_worse
    tolerance, margin = measure.tolerance, measure.margin
    if measure.largest is not None:
        tolerance, margin = (
            Bound(each.ratio, each.absolute / measure.largest) for each in (tolerance, margin)
        )
    lower_is_worse = measure.lower_is_worse
    if checkpoint.counted is Counted.EVENTS:
        return tolerance, margin, lower_is_worse
    tolerance, margin = (
        counts.complemented((), each, lower_is_worse=lower_is_worse)[1]
        for each in (tolerance, margin)
    )
    return tolerance, margin, not lower_is_worse


# --- others -------------------------------------------------------------------------------------


def is_mean(measure: Measure) -> bool:
    """Whether values have no upper bound; those that have one are counted."""
    return measure.query.kind is Kind.MEAN and measure.largest is None


def _flips(measure: Measure, pairs: Sequence[Pair], *, is_harm: bool) -> Row:
    """Answers that only the candidate changed, against those that only stable's repeat changed."""
    stable_only = sum(stable.k[0] for stable, _ in pairs)
    candidate_only = sum(candidate.k[0] for _, candidate in pairs)
    # The two sides are counted one after the other: a scrape may come in between.
    answered = sum(max(stable.n, candidate.n) for stable, candidate in pairs)
    others = max(0.0, answered - stable_only - candidate_only)
    known = paired.Pairs(candidate_only, stable_only, others)
    if is_harm:
        return paired.log_harm(known, measure.tolerance.absolute)
    return paired.log_safety(known, measure.margin.absolute)


def _moments(measure: Measure, pairs: Sequence[Pair], *, is_harm: bool) -> Row:
    """Lower is worse: stable must not be above ratio times the candidate."""
    bound = measure.tolerance if is_harm else measure.margin
    absolute = bound.absolute * (bound.ratio if measure.lower_is_worse else 1.0)
    batches = [
        means.Batch(one.n, one.k[0], other.n, other.k[0])
        for stable, candidate in pairs
        for one, other in [(candidate, stable) if measure.lower_is_worse else (stable, candidate)]
    ]
    return means.moments(batches, bound.ratio, absolute)
