"""
For people: how much better or worse the candidate can be, and what is still needed to decide.

An A/B test's chance to beat stable is a plainer figure for the same question. Nothing here decides anything. Intervals are those that a guardrail's own bets reject, on the sums
of the present step. They hold at every look, so that an earlier one is still true: they are
computed anew only when the candidate's requests have grown by a tenth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import compress

from modelrollout.api import v1alpha1 as api
from modelrollout.api.v1alpha1 import (
    Counted,
    GuardrailCheckpoint,
    GuardrailStatus,
    Interval,
    IntervalKind,
    SplitStatus,
    SplitUnit,
    Verdict,
)
from modelrollout.core import bets
from modelrollout.core.analysis import Judgement, shown_columns
from modelrollout.core.bets import Group
from modelrollout.core.evidence import Counts, Kind, Measure
from modelrollout.stats import binomial, intervals, means, planning
from modelrollout.stats.counts import Sample

GROWTH = 1.1
"""Of the candidate's requests, between two looks at how it compares."""
MOST_NEEDED = 10**9
"""Beyond this many requests a decision is not to be waited for."""

Limits = tuple[float, float]


def with_estimates(
    judgement: Judgement,
    spec: api.ModelRolloutSpec,
    measures: Sequence[Measure],
    checkpoints: Mapping[str, GuardrailCheckpoint],
    *,
    known: Mapping[str, GuardrailStatus],
    split: SplitStatus | None = None,
) -> Judgement:
    """The judgement, with what each comparison tells people. `known` is what was told last."""
    weights = sum(each.weight for each in measures)
    analysis, is_test = spec.analysis, spec.strategy.type is api.StrategyType.AB_TEST
    alpha, beta = float(analysis.false_rollback_rate), float(analysis.false_promote_rate)
    of = {each.name: each for each in measures}
    found = []
    for each in judgement.guardrails:
        measure, before = of.get(each.name), known.get(each.name)
        if measure is None or measure.is_idle:
            found.append(each)
        elif before is not None and not _is_news(before, each):
            found.append(each.model_copy(update=_carried(before)))
        else:
            rates = (alpha * measure.weight / weights, beta)
            checkpoint = checkpoints[each.name]
            told = each.model_copy(update=_told(measure, checkpoint, each.verdict, rates))
            chance = _chance(measure, checkpoint) if is_test else None
            users = _needed_users(told, split)
            update = {"chance_to_beat": chance, "needed_users": users}
            found.append(told.model_copy(update=update))
    return replace(judgement, guardrails=tuple(found))


def _is_news(before: GuardrailStatus, now: GuardrailStatus) -> bool:
    return before.verdict is not now.verdict or _size(before) != _size(now)


def _size(known: GuardrailStatus) -> int:
    """A number that grows by one whenever the candidate's requests grow by so much."""
    requests = known.candidate.requests if known.candidate else 0
    return int(math.log(max(1, requests), GROWTH))


def _carried(before: GuardrailStatus) -> dict[str, object]:
    return {
        "interval": before.interval,
        "needed": before.needed,
        "needed_users": before.needed_users,
        "chance_to_beat": before.chance_to_beat,
    }


def _told(
    measure: Measure, checkpoint: GuardrailCheckpoint, verdict: Verdict, rates: Limits
) -> dict[str, object]:
    if not checkpoint.harm or min(checkpoint.stable[0], checkpoint.candidate[0]) < 1:
        return {}
    is_open = verdict in {Verdict.INCONCLUSIVE, Verdict.NO_DATA}
    return {
        "interval": _interval(measure, checkpoint, rates),
        "needed": _needed(measure, checkpoint, rates) if is_open else None,
    }


# --- how they compare ---------------------------------------------------------------------------


def _interval(measure: Measure, checkpoint: GuardrailCheckpoint, rates: Limits) -> Interval | None:
    """None where the tails of a quantile are compared: they say nothing of how far it has moved."""
    if measure.quantile is not None:
        return None
    if bets.is_mean(measure):
        return _of_averages(measure, checkpoint, rates)
    kind = IntervalKind.DIFFERENCE if measure.margin.absolute else IntervalKind.RATIO
    column = shown_columns(checkpoint)[0]
    # Which threshold is shown depends on what was seen: it could have been any of them.
    alpha, beta = (each / len(checkpoint.harm) for each in rates)
    phi = checkpoint.dispersion[column] if checkpoint.dispersion else 1.0
    if kind is IntervalKind.RATIO:
        sample = _sample(measure, checkpoint, column, is_swapped=measure.lower_is_worse)
        limits = intervals.ratio_bounds(
            [sample], alpha, upper_alpha=beta, margin=measure.margin.ratio, dispersion=phi
        )
        if measure.lower_is_worse:
            limits = _inverse(limits[1]), _inverse(limits[0])
        return _as_text(kind, limits, checkpoint, column)
    # The rarer outcome is counted, as in the evidence: more of the others is less of the events.
    counts_others = checkpoint.counted is Counted.OTHERS
    is_swapped = measure.lower_is_worse is not counts_others
    sample = _sample(measure, checkpoint, column, is_swapped=is_swapped)
    limits = intervals.difference_bounds([sample], alpha, upper_alpha=beta, dispersion=phi)
    unit = measure.largest or 1.0
    limits = limits[0] * unit, limits[1] * unit
    if measure.lower_is_worse:
        limits = -limits[1], -limits[0]
    return _as_text(kind, limits, checkpoint, column)


def _sample(
    measure: Measure, checkpoint: GuardrailCheckpoint, column: int, *, is_swapped: bool
) -> Sample:
    """The step's sums: of stable and candidate, or the other way round."""
    one, other = (
        Counts(n=each[0], k=each[1:]) for each in (checkpoint.stable, checkpoint.candidate)
    )
    if measure.query.kind is Kind.PAIRED:
        # The two sides are counted one after the other: a scrape may come in between.
        pairs = max(one.n, other.n)
        one, other = replace(one, n=pairs), replace(other, n=pairs)
    if measure.margin.absolute == 0:
        checkpoint = checkpoint.model_copy(update={"counted": Counted.EVENTS})
    rows = [bets.outcomes(measure, checkpoint, each, column) for each in (one, other)]
    reference, tested = reversed(rows) if is_swapped else rows
    return Sample(*reference, *tested)


def _inverse(ratio: float) -> float:
    return math.inf if ratio == 0 else 1 / ratio


def _of_averages(
    measure: Measure, checkpoint: GuardrailCheckpoint, rates: Limits
) -> Interval | None:
    """
    From the state of the safety evidence: the difference, where that is what the margin bounds.

    With a ratio the state is that of candidate less ratio times stable, which is not to be shown.
    """
    if measure.margin.ratio != 1:
        return None
    low, high = means.difference_bounds(checkpoint.safety[0], rates[1])
    low, high = low + measure.margin.absolute, high + measure.margin.absolute
    limits = (-high, -low) if measure.lower_is_worse else (low, high)
    return _as_text(IntervalKind.DIFFERENCE, limits, checkpoint, 0)


def _as_text(
    kind: IntervalKind, limits: Limits, checkpoint: GuardrailCheckpoint, column: int
) -> Interval:
    lower, upper = (f"{each:.3g}" if math.isfinite(each) else None for each in limits)
    thresholds = checkpoint.thresholds
    threshold = f"{thresholds[column]:g}" if thresholds else None
    return Interval(kind=kind, lower=lower, upper=upper, threshold=threshold)


# --- what is still needed -----------------------------------------------------------------------


def _needed(measure: Measure, checkpoint: GuardrailCheckpoint, rates: Limits) -> int | None:
    """
    Requests of the candidate until one side is proved, if they go on as in this step so far.

    The evidence of the step's sums is what planning calls its growth, at the rates that were seen.
    """
    if bets.is_mean(measure):
        return None
    requests = checkpoint.candidate[0]
    pair = tuple(
        Counts(n=each[0], k=each[1:]) for each in (checkpoint.stable, checkpoint.candidate)
    )
    [growth] = bets.evidence_of(measure, checkpoint, [Group([(pair[0], pair[1])])])

    gated = [each in checkpoint.gated for each in checkpoint.thresholds]
    safe = planning.remaining_requests(checkpoint.safety, growth.safety, requests, rates[1])
    if len(gated) == len(safe):
        safe = tuple(compress(safe, gated))
    alpha = rates[0] / len(checkpoint.harm)
    harmful = planning.remaining_requests(checkpoint.harm, growth.harm, requests, alpha)
    needed = min(max(safe), *harmful)
    return math.ceil(float(f"{needed:.2g}")) if needed <= MOST_NEEDED else None


def _needed_users(told: GuardrailStatus, split: SplitStatus | None) -> int | None:
    """As many as send the requests that are needed, if they send as many as those so far."""
    requests = told.candidate.requests if told.candidate else 0
    if split is None or split.unit is not SplitUnit.USERS or not split.candidate or not requests:
        return None
    return None if told.needed is None else math.ceil(told.needed * split.candidate / requests)


# --- A/B tests ----------------------------------------------------------------------------------


def _chance(measure: Measure, checkpoint: GuardrailCheckpoint) -> str | None:
    """That the candidate's share is the better one; None for what is no share of requests."""
    one, other = checkpoint.stable, checkpoint.candidate
    if measure.query.kind is not Kind.PROPORTION or min(one[0], other[0]) <= 0:
        return None
    # An event can be seen a scrape before its request.
    stable, candidate = ((each[1], max(each[0], each[1])) for each in (one, other))
    above = binomial.chance_above(candidate, stable)
    return f"{above if measure.lower_is_worse else 1 - above:.3f}"


def report(known: api.ModelRolloutStatus) -> str:
    """How an A/B test came out, guardrail by guardrail, and how users were shared out."""
    parts = [_outcome(each) for each in known.guardrails if each.candidate and each.stable]
    split = known.split
    if split is not None and split.unit is SplitUnit.USERS:
        parts.append(f"users: candidate {split.candidate:,}, stable {split.stable:,}")
    return "; ".join(parts)


def _outcome(each: GuardrailStatus) -> str:
    assert each.candidate is not None
    assert each.stable is not None
    groups = [
        f"{name} {group.value or 'nothing'} of {group.requests:,}"
        for name, group in (("candidate", each.candidate), ("stable", each.stable))
    ]
    found = each.interval
    if found is not None and (found.lower or found.upper):
        lower, upper = found.lower or "unbounded", found.upper or "unbounded"
        groups.append(f"{found.kind.lower()} {lower} to {upper}")
    if each.chance_to_beat is not None:
        groups.append(f"chance to beat stable {each.chance_to_beat}")
    if each.needed is not None:
        users = f" or {each.needed_users:,} users" if each.needed_users is not None else ""
        groups.append(f"{each.needed:,} requests{users} more to decide")
    return f"{each.name}: {each.verdict}, {', '.join(groups)}"
