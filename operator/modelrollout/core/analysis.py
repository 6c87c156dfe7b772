"""
What the collected evidence says: of each guardrail, and of all together.

Any harm rolls back, every required guardrail must be proved safe to go on, and what cannot be
read, or cannot be trusted, is neither.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modelrollout.api import v1alpha1 as api
from modelrollout.api.v1alpha1 import (
    Estimate,
    GuardrailCheckpoint,
    GuardrailStatus,
    SliceStatus,
    Verdict,
)
from modelrollout.core.collect import ENOUGH_TO_CHOOSE, Row, Rows
from modelrollout.core.evidence import Kind, Measure, Reading
from modelrollout.core.forecast import bound_text, percent
from modelrollout.core.limits import limit_status
from modelrollout.core.observation import Level
from modelrollout.stats import combine, counts, histograms, means
from modelrollout.stats.bounds import Bound

NOTABLE = 1.5
"""A dispersion that slows the decision so much that people are told."""
UNTRUSTED = "untrusted, because two halves of stable differ by more than the tolerance"
MANY_WINDOWS = f"an average begins to tell after {means.LEAST_WINDOWS} windows"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What all guardrails say together."""

    verdict: Verdict
    guardrails: tuple[GuardrailStatus, ...]
    culprits: tuple[str, ...]
    requests: int | None
    """The candidate's, by the required guardrail that has fewest; None where none counts them."""
    blind: tuple[str, ...]
    """Required guardrails that could not be read."""
    untrusted: tuple[str, ...]
    """Guardrails that found a difference between two halves of stable."""

    def says(self, *names: str) -> str:
        """The messages of the named guardrails (of all, if none is named), as one sentence."""
        chosen = [each for each in self.guardrails if not names or each.name in names]
        return "; ".join(f"{each.name}: {each.message}" for each in chosen)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Evidence:
    """One guardrail's, as logs of e-values."""

    harm: float
    safety: float
    placebo: float
    slices: Mapping[str, float]
    is_trusted: bool

    @property
    def counted(self) -> float:
        """
        What it adds to the evidence of all.

        Of an untrusted one only what goes beyond the placebo: a candidate that differs from stable
        no more than stable from itself is not condemned, one that fails outright is.
        """
        return self.harm if self.is_trusted else min(self.harm, max(0.0, self.harm - self.placebo))


def judge(
    analysis: api.Analysis,
    measures: Sequence[Measure],
    checkpoints: Mapping[str, GuardrailCheckpoint],
    readings: Mapping[str, Reading],
    levels: Mapping[str, Level],
    now: float,
) -> Judgement:
    """
    Weigh every guardrail. `checkpoints` hold the evidence, `readings` only what was blind.

    The idle ones have nothing to compare in this step: nothing is asked or said of them. What
    they found out before counts on, so that one error rate covers all steps.
    """
    alpha, beta = float(analysis.false_rollback_rate), float(analysis.false_promote_rate)
    evidence = {each.name: _evidence(each, checkpoints[each.name], alpha) for each in measures}
    harm = {name: each.counted for name, each in evidence.items()}
    weights = {each.name: each.weight for each in measures}
    culprits = _culprits(harm, weights, alpha)
    statuses = tuple(
        _comparison(
            each,
            checkpoints[each.name],
            evidence[each.name],
            blind=readings[each.name].blind if each.name in readings else "",
            is_culprit=each.name in culprits,
            rates=(alpha * each.weight / sum(weights.values()), alpha, beta),
        )
        for each in measures
        if not each.is_idle or each.name in culprits
    ) + tuple(
        limit_status(each, checkpoints.get(each.name), levels.get(each.name), now)
        for each in analysis.guardrails
        if each.limit is not None
    )
    order = {each.name: position for position, each in enumerate(analysis.guardrails)}
    statuses = tuple(sorted(statuses, key=lambda each: order[each.name]))
    idle = {each.name for each in measures if each.is_idle}
    required = {each.name for each in analysis.guardrails if each.required} - idle
    return Judgement(
        verdict=_together(statuses, required),
        guardrails=statuses,
        culprits=tuple(each.name for each in statuses if each.verdict is Verdict.FAIL),
        requests=_fewest(measures, checkpoints, required),
        blind=tuple(
            each.name
            for each in statuses
            if each.verdict is Verdict.NO_DATA and each.name in required
        ),
        untrusted=tuple(name for name, each in evidence.items() if not each.is_trusted),
    )


def _culprits(
    harm: Mapping[str, float], weights: Mapping[str, float], alpha: float
) -> tuple[str, ...]:
    """Who is worse: named by closed testing, or, where that names nobody, who says so loudest."""
    if not harm or combine.log_weighted_mean(harm, weights) < -math.log(alpha):
        return ()
    named = combine.culprits(harm, weights, alpha)
    return named or (max(harm, key=lambda name: math.log(weights[name]) + harm[name]),)


def _together(statuses: Sequence[GuardrailStatus], required: set[str]) -> Verdict:
    if any(each.verdict is Verdict.FAIL for each in statuses):
        return Verdict.FAIL
    needed = [each.verdict for each in statuses if each.name in required]
    if any(each is Verdict.NO_DATA for each in needed):
        return Verdict.NO_DATA
    if needed and all(each is Verdict.PASS for each in needed):
        return Verdict.PASS
    return Verdict.INCONCLUSIVE


def _fewest(
    measures: Sequence[Measure], checkpoints: Mapping[str, GuardrailCheckpoint], required: set[str]
) -> int | None:
    exposures = [
        checkpoints[each.name].candidate[0]
        for each in measures
        if each.name in required and each.query.kind is not Kind.RATE
    ]
    return int(min(exposures)) if exposures else None


# --- one guardrail's evidence -------------------------------------------------------------------


def _evidence(measure: Measure, checkpoint: GuardrailCheckpoint, alpha: float) -> _Evidence:
    log = _log_mean_harm if _is_mean(checkpoint) else _log_harm
    harm = log(checkpoint.harm)
    slices = {each.name: log(each.harm) for each in checkpoint.slices}
    if measure.slices:
        harm = combine.log_with_slices(harm, slices, measure.slices)
    placebo = log(checkpoint.placebo)
    return _Evidence(
        harm=harm,
        safety=_log_safety(checkpoint),
        placebo=placebo,
        slices=slices,
        is_trusted=placebo < -math.log(alpha),
    )


def _is_mean(checkpoint: GuardrailCheckpoint) -> bool:
    return len(checkpoint.safety[:1] and checkpoint.safety[0]) == means.MEANS_STATE


def _log_harm(rows: Rows) -> float:
    return histograms.log_harm(rows) if rows else 0.0


def _log_mean_harm(rows: Rows) -> float:
    logs = [means.log_harm(row) for row in rows]
    return _log_of_mean(logs) if logs else 0.0


def _log_of_mean(logs: Sequence[float]) -> float:
    names = {str(index): each for index, each in enumerate(logs)}
    return combine.log_weighted_mean(names, dict.fromkeys(names, 1.0))


def _log_safety(checkpoint: GuardrailCheckpoint) -> float:
    rows = checkpoint.safety
    if _is_mean(checkpoint):
        return means.log_safety(rows[0])
    if len(rows) == len(checkpoint.thresholds):
        pairs = zip(checkpoint.thresholds, rows, strict=True)
        rows = tuple(row for threshold, row in pairs if threshold in checkpoint.gated)
    return histograms.log_safety(rows) if rows else 0.0


# --- in words -----------------------------------------------------------------------------------


def _comparison(
    measure: Measure,
    checkpoint: GuardrailCheckpoint,
    evidence: _Evidence,
    *,
    blind: str,
    is_culprit: bool,
    rates: tuple[float, float, float],
) -> GuardrailStatus:
    harm_rate, alpha, beta = rates
    shown = shown_columns(checkpoint)
    message = _figures(measure, checkpoint, shown)
    slices = _slice_statuses(measure, checkpoint, evidence, alpha, shown)
    if not evidence.is_trusted:
        message = f"{UNTRUSTED}; {message}"
    if is_culprit:
        verdict = Verdict.FAIL
        suffering = [each.name for each in slices if float(each.harm) >= 1]
        if suffering:
            message = f"{measure.query.slice_label} {', '.join(suffering)}; overall {message}"
    elif blind:
        verdict, message = Verdict.NO_DATA, blind
    else:
        is_safe = evidence.is_trusted and evidence.safety >= -math.log(beta)
        verdict = Verdict.PASS if is_safe else Verdict.INCONCLUSIVE
    return GuardrailStatus(
        name=measure.name,
        verdict=verdict,
        message=message[:1024],
        stable=_estimate(checkpoint.stable, shown[0]),
        candidate=_estimate(checkpoint.candidate, shown[1]),
        harm=share_of(evidence.harm, harm_rate),
        safety=share_of(evidence.safety, beta),
        placebo=share_of(evidence.placebo, alpha) if checkpoint.placebo else None,
        slices=slices,
    )


def _slice_statuses(
    measure: Measure,
    checkpoint: GuardrailCheckpoint,
    evidence: _Evidence,
    alpha: float,
    shown: tuple[int, int],
) -> tuple[SliceStatus, ...]:
    """The worst first; those from 1 on are named with false discovery rate alpha (e-BH)."""
    if not measure.slices:
        return ()
    named = set(combine.discoveries(evidence.slices, alpha, slots=measure.slices))
    found = []
    for each in sorted(checkpoint.slices, key=lambda it: (-evidence.slices[it.name], it.name)):
        share = evidence.slices[each.name] / math.log(measure.slices / alpha)
        # What is named together needs less than what is named alone.
        share = max(share, 1.0) if each.name in named else min(share, 0.99)
        found.append(
            SliceStatus(
                name=each.name,
                harm=f"{share:.2f}",
                stable=_estimate(each.stable, shown[0]),
                candidate=_estimate(each.candidate, shown[1]),
            )
        )
    return tuple(found)


def share_of(log_e: float, error_rate: float) -> str:
    """
    Evidence as a share of what decides; below zero it speaks for the other side.

    Rounded down: 1.00 is said of what has decided, not of what is about to.
    """
    return f"{math.floor(100 * log_e / -math.log(error_rate)) / 100:.2f}"


def shown_columns(checkpoint: GuardrailCheckpoint) -> tuple[int, int]:
    """The thresholds of stable and candidate with the most harm evidence: those to show."""
    if len(checkpoint.harm) < len(checkpoint.thresholds):
        return 0, 1
    if len(checkpoint.harm) <= 1:
        return 0, 0
    index = int(counts.log_mixture_of(checkpoint.harm).argmax())
    return index, index


def _estimate(exposure: Row, index: int) -> Estimate:
    if not exposure[1:] or exposure[0] <= 0:
        return Estimate(requests=int(sum(exposure[:1])))
    return Estimate(requests=int(exposure[0]), value=f"{exposure[index + 1] / exposure[0]:.6g}")


def _figures(measure: Measure, checkpoint: GuardrailCheckpoint, shown: tuple[int, int]) -> str:
    """Numbers a person can check: both rates, on how many requests, against which tolerance."""
    if not checkpoint.harm:
        return f"waits for {ENOUGH_TO_CHOOSE} requests of stable to place its thresholds"
    versions = [
        f"{name} {_rate(measure, row, index)}{_beyond(checkpoint, index)}"
        for name, row, index in (
            ("candidate", checkpoint.candidate, shown[1]),
            ("stable", checkpoint.stable, shown[0]),
        )
    ]
    bounds = [
        f"tolerance {_bound(measure, measure.tolerance)}",
        f"margin {_bound(measure, measure.margin)}",
    ]
    return ", ".join([*versions, *bounds, *_remarks(measure, checkpoint, shown[0])])


def _remarks(measure: Measure, checkpoint: GuardrailCheckpoint, column: int) -> list[str]:
    """What makes the decision slower, or coarser, than somebody would expect."""
    remarks = []
    if measure.quantile is not None:
        lower, *uppers = checkpoint.thresholds
        factors = " and ".join(f"{upper / lower:.3g} x" for upper in uppers)
        remarks.append(f"which the buckets make {factors}")
    if any(phi > NOTABLE for phi in checkpoint.dispersion[column : column + 1]):
        phi = checkpoint.dispersion[column]
        remarks.append(f"tempered by {phi:.1f} because events come in bursts")
    if _is_mean(checkpoint) and checkpoint.harm[0][0] < means.LEAST_WINDOWS:
        remarks.append(MANY_WINDOWS)
    return remarks


def _beyond(checkpoint: GuardrailCheckpoint, index: int) -> str:
    return f" above {checkpoint.thresholds[index]:g}" if checkpoint.thresholds else ""


def _rate(measure: Measure, exposure: Row, index: int) -> str:
    if exposure[0] <= 0:
        return "no requests yet"
    value = exposure[index + 1] / exposure[0]
    match measure.query.kind:
        case Kind.RATE:
            return f"{value:.3g}/s over {exposure[0]:,.0f} s"
        case Kind.MEAN:
            return f"{value:.4g} on average of {exposure[0]:,.0f}"
        case _:
            return f"{value:.2%} of {exposure[0]:,.0f}".replace("%", " %")


def _bound(measure: Measure, bound: Bound) -> str:
    is_share = measure.query.kind is not Kind.MEAN and measure.quantile is None
    absolute = percent(bound.absolute) if is_share else f"{bound.absolute:g}"
    return bound_text(bound, absolute, lower_is_worse=measure.lower_is_worse)
