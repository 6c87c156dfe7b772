"""
The bridge between rollouts and statistics: evidence is collected, then judged.

`collect` adds a reading's windows to a guardrail's checkpoint. Harm evidence grows over the
whole rollout, so that one error rate covers all of it; safety evidence starts anew in each
step, because load changes with weight. `judge` weighs all guardrails: any harm rolls back,
every required guardrail must be proved safe to go on, and what cannot be read is neither.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from modelrollout.api import v1alpha1 as api
from modelrollout.api.v1alpha1 import Estimate, GuardrailCheckpoint, GuardrailStatus, Verdict
from modelrollout.core.evidence import Counts, Histogram, Kind, Measure, Query, Reading, Window
from modelrollout.core.observation import Level
from modelrollout.stats import combine, counts, histograms

ENOUGH_TO_CHOOSE = 200
"""Requests of stable from which its quantiles are placed well enough to choose thresholds."""


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

    def says(self, *names: str) -> str:
        """The messages of the named guardrails (of all, if none is named), as one sentence."""
        chosen = [each for each in self.guardrails if not names or each.name in names]
        return "; ".join(f"{each.name}: {each.message}" for each in chosen)


# --- collect ------------------------------------------------------------------------------


def fresh(measure: Measure, watermark: float) -> GuardrailCheckpoint:
    """No evidence yet. A distribution's thresholds are chosen later, from stable's answers."""
    width = 0 if measure.query.kind is Kind.DISTRIBUTION else 1
    return _with_room(
        GuardrailCheckpoint(name=measure.name, key=measure.key, watermark=watermark), width
    )


def _with_room(checkpoint: GuardrailCheckpoint, width: int) -> GuardrailCheckpoint:
    return checkpoint.model_copy(
        update={
            **_nothing_in_step(width),
            "harm": ((0.0,) * counts.HARM_POINTS,) * width,
        }
    )


def _nothing_in_step(width: int) -> dict[str, object]:
    """What belongs to one step, for a number of thresholds."""
    return {
        "safety": ((0.0,) * counts.SAFETY_POINTS,) * width,
        "stable": (0.0,) * (width + 1),
        "candidate": (0.0,) * (width + 1),
        "windows": 0,
    }


def resumed(
    measure: Measure, checkpoints: Sequence[GuardrailCheckpoint], watermark: float
) -> GuardrailCheckpoint:
    """The checkpoint to go on from: the stored one if it was collected under the same settings."""
    for each in checkpoints:
        if each.name == measure.name and each.key == measure.key:
            return each
    return fresh(measure, watermark)


def at_new_step(checkpoint: GuardrailCheckpoint, watermark: float) -> GuardrailCheckpoint:
    """Harm evidence is kept, everything that belongs to one step starts anew."""
    empty = _nothing_in_step(len(checkpoint.safety))
    return checkpoint.model_copy(update={**empty, "watermark": watermark})


def is_enough(histogram: Histogram) -> bool:
    """Whether stable's quantiles can be placed by it."""
    return bool(histogram.cumulative) and histogram.cumulative[-1] >= ENOUGH_TO_CHOOSE


def choose(
    measure: Measure, checkpoint: GuardrailCheckpoint, histogram: Histogram, now: float
) -> GuardrailCheckpoint:
    """Fix a distribution's thresholds; evidence begins after the answers they were chosen from."""
    if not is_enough(histogram):
        return checkpoint
    bounds, cumulative = histogram.bounds, histogram.cumulative
    thresholds = histograms.choose_thresholds(bounds, cumulative, limits=measure.limits)
    gated = histograms.gate_thresholds(thresholds, bounds, cumulative, limits=measure.limits)
    chosen = checkpoint.model_copy(
        update={"thresholds": thresholds, "gated": gated, "watermark": now}
    )
    return _with_room(chosen, len(thresholds))


def with_thresholds(query: Query, checkpoint: GuardrailCheckpoint) -> Query:
    """The question, at the thresholds that were fixed when the evidence began."""
    return replace(query, thresholds=tuple(checkpoint.thresholds))


def collect(
    measure: Measure, checkpoint: GuardrailCheckpoint, reading: Reading
) -> GuardrailCheckpoint:
    """The checkpoint with a reading's windows counted in."""
    width = len(checkpoint.harm)
    windows = [each for each in reading.windows if each.start >= checkpoint.watermark - 1e-6]
    update: dict[str, object] = {"watermark": max(reading.watermark, checkpoint.watermark)}
    if windows and width:
        update |= {
            "harm": _grown(checkpoint.harm, measure, windows, is_harm=True),
            "safety": _grown(checkpoint.safety, measure, windows, is_harm=False),
            "stable": _summed(checkpoint.stable, (each.stable for each in windows)),
            "candidate": _summed(checkpoint.candidate, (each.candidate for each in windows)),
            "windows": checkpoint.windows + len(windows),
        }
    return checkpoint.model_copy(update=update)


def _grown(
    state: Sequence[Sequence[float]], measure: Measure, windows: Sequence[Window], *, is_harm: bool
) -> tuple[tuple[float, ...], ...]:
    grow = counts.log_harm if is_harm else counts.log_safety
    bound = measure.tolerance if is_harm else measure.margin
    grown = []
    for index, row in enumerate(state):
        samples = _samples(windows, index, is_rate=measure.query.kind is Kind.RATE)
        more = grow(samples, bound, lower_is_worse=measure.lower_is_worse)
        grown.append(tuple(round(old + new, 6) for old, new in zip(row, more, strict=True)))
    return tuple(grown)


def _samples(windows: Sequence[Window], index: int, *, is_rate: bool) -> list[counts.Sample]:
    """
    One threshold of the windows.

    Programs do not export two counters at one instant: an event can be seen a scrape before its
    request. Every event is a request, so there were at least as many of these. Of a rate, events
    in no time at all say nothing.
    """
    samples = []
    for each in windows:
        stable_n, stable_k = each.stable.n, each.stable.k[index]
        candidate_n, candidate_k = each.candidate.n, each.candidate.k[index]
        if is_rate and min(stable_n, candidate_n) <= 0:
            continue
        if not is_rate:
            stable_n, candidate_n = max(stable_n, stable_k), max(candidate_n, candidate_k)
        samples.append(counts.Sample(stable_n, stable_k, candidate_n, candidate_k))
    return samples


def _summed(state: Sequence[float], more: Iterable[Counts]) -> tuple[float, ...]:
    rows = [(each.n, *each.k) for each in more]
    return tuple(sum(column) for column in zip(state, *rows, strict=True))


# --- judge --------------------------------------------------------------------------------


def judge(
    analysis: api.Analysis,
    measures: Sequence[Measure],
    checkpoints: Mapping[str, GuardrailCheckpoint],
    readings: Mapping[str, Reading],
    levels: Mapping[str, Level],
    now: float,
) -> Judgement:
    """Weigh every guardrail. `checkpoints` hold the evidence, `readings` only what was blind."""
    alpha, beta = float(analysis.false_rollback_rate), float(analysis.false_promote_rate)
    harm = {each.name: _log_harm(checkpoints[each.name]) for each in measures}
    equal = dict.fromkeys(harm, 1.0)
    is_harmed = bool(harm) and combine.log_weighted_mean(harm, equal) >= -math.log(alpha)
    culprits = combine.culprits(harm, equal, alpha) if is_harmed else ()
    if is_harmed and not culprits:
        culprits = (max(harm, key=lambda name: harm[name]),)
    statuses = tuple(
        _comparison(
            each,
            checkpoints[each.name],
            harm=_share(harm[each.name], alpha / len(harm)),
            blind=readings[each.name].blind if each.name in readings else "",
            is_culprit=each.name in culprits,
            beta=beta,
        )
        for each in measures
    ) + tuple(
        _limit(each, checkpoints.get(each.name), levels.get(each.name), now)
        for each in analysis.guardrails
        if each.limit is not None
    )
    order = {each.name: position for position, each in enumerate(analysis.guardrails)}
    statuses = tuple(sorted(statuses, key=lambda each: order[each.name]))
    required = {each.name for each in analysis.guardrails if each.required}
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
    )


def _together(statuses: Sequence[GuardrailStatus], required: set[str]) -> Verdict:
    if any(each.verdict is Verdict.FAIL for each in statuses):
        return Verdict.FAIL
    needed = [each.verdict for each in statuses if each.name in required]
    if any(each is Verdict.NO_DATA for each in needed):
        return Verdict.NO_DATA
    if all(each is Verdict.PASS for each in needed):
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


def _log_harm(checkpoint: GuardrailCheckpoint) -> float:
    return histograms.log_harm(checkpoint.harm) if checkpoint.harm else 0.0


def _log_safety(checkpoint: GuardrailCheckpoint) -> float:
    if not checkpoint.thresholds:
        rows = checkpoint.safety
    else:
        pairs = zip(checkpoint.thresholds, checkpoint.safety, strict=True)
        rows = tuple(row for threshold, row in pairs if threshold in checkpoint.gated)
    return histograms.log_safety(rows) if rows else 0.0


def _comparison(
    measure: Measure,
    checkpoint: GuardrailCheckpoint,
    *,
    harm: str,
    blind: str,
    is_culprit: bool,
    beta: float,
) -> GuardrailStatus:
    log_safety = _log_safety(checkpoint)
    index = _telling(checkpoint)
    message = _figures(measure, checkpoint, index)
    if is_culprit:
        verdict = Verdict.FAIL
    elif blind:
        verdict, message = Verdict.NO_DATA, blind
    else:
        is_safe = log_safety >= -math.log(beta)
        verdict = Verdict.PASS if is_safe else Verdict.INCONCLUSIVE
    return GuardrailStatus(
        name=measure.name,
        verdict=verdict,
        message=message[:1024],
        stable=_estimate(checkpoint.stable, index),
        candidate=_estimate(checkpoint.candidate, index),
        harm=harm,
        safety=_share(log_safety, beta),
    )


def _share(log_e: float, error_rate: float) -> str:
    """Evidence as a share of what decides; below zero it speaks for the other side."""
    return f"{log_e / -math.log(error_rate):.2f}"


def _telling(checkpoint: GuardrailCheckpoint) -> int:
    """The threshold with the most harm evidence: the one to show. 0 for a plain count."""
    if len(checkpoint.harm) <= 1:
        return 0
    evidence = [counts.log_mixture(row) for row in checkpoint.harm]
    return evidence.index(max(evidence))


def _estimate(exposure: Sequence[float], index: int) -> Estimate:
    if not exposure[1:] or exposure[0] <= 0:
        return Estimate(requests=int(sum(exposure[:1])))
    return Estimate(requests=int(exposure[0]), value=f"{exposure[index + 1] / exposure[0]:.6g}")


def _figures(measure: Measure, checkpoint: GuardrailCheckpoint, index: int) -> str:
    """Numbers a person can check: both rates, on how many requests, against which tolerance."""
    if not checkpoint.harm:
        return f"waits for {ENOUGH_TO_CHOOSE} requests of stable to place its thresholds"
    slower = f" above {checkpoint.thresholds[index]:g}" if checkpoint.thresholds else ""
    is_rate = measure.query.kind is Kind.RATE
    return (
        f"candidate {_rate(checkpoint.candidate, index, is_rate=is_rate)}{slower}, "
        f"stable {_rate(checkpoint.stable, index, is_rate=is_rate)}, "
        f"tolerance {_bound(measure.tolerance)}, margin {_bound(measure.margin)}"
    )


def _rate(exposure: Sequence[float], index: int, *, is_rate: bool) -> str:
    if exposure[0] <= 0:
        return "no requests yet"
    value = exposure[index + 1] / exposure[0]
    if is_rate:
        return f"{value:.3g}/s over {exposure[0]:,.0f} s"
    return f"{value:.2%} of {exposure[0]:,.0f}".replace("%", " %")


def _bound(bound: counts.Bound) -> str:
    absolute = f" + {bound.absolute:.2%}".replace("%", " %") if bound.absolute else ""
    return f"{bound.ratio:g} x stable{absolute}"


def _limit(
    guardrail: api.Guardrail,
    checkpoint: GuardrailCheckpoint | None,
    level: Level | None,
    now: float,
) -> GuardrailStatus:
    assert guardrail.limit is not None
    limit = guardrail.limit
    if level is None or level.blind or level.value is None:
        said = level.blind if level and level.blind else "the expression has no result"
        return GuardrailStatus(name=guardrail.name, verdict=Verdict.NO_DATA, message=said)
    side = f"max {limit.max}" if limit.max is not None else f"min {limit.min}"
    message = f"{level.value:g}, {side} for {limit.for_seconds} s"
    since = checkpoint.beyond_since if checkpoint else None
    if since is None:
        return GuardrailStatus(name=guardrail.name, verdict=Verdict.PASS, message=message)
    has_failed = now - since >= limit.for_seconds
    verdict = Verdict.FAIL if has_failed else Verdict.INCONCLUSIVE
    return GuardrailStatus(
        name=guardrail.name,
        verdict=verdict,
        message=f"{message}; beyond it for {now - since:.0f} s",
    )


def track_limit(
    guardrail: api.Guardrail,
    checkpoint: GuardrailCheckpoint | None,
    level: Level | None,
    now: float,
) -> GuardrailCheckpoint:
    """Remember since when a limit has been exceeded. An unreadable level changes nothing."""
    before = checkpoint or GuardrailCheckpoint(name=guardrail.name, key="limit")
    if level is None or level.value is None or level.blind:
        return before
    if not _is_beyond(guardrail, level.value):
        return before.model_copy(update={"beyond_since": None})
    if before.beyond_since is not None:
        return before
    return before.model_copy(update={"beyond_since": now})


def _is_beyond(guardrail: api.Guardrail, value: float) -> bool:
    assert guardrail.limit is not None
    highest, lowest = guardrail.limit.max, guardrail.limit.min
    return (highest is not None and value > float(highest)) or (
        lowest is not None and value < float(lowest)
    )
