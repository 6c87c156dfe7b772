"""What these settings and this traffic cannot decide in time, told before the first step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from modelrollout.api import v1alpha1 as api
from modelrollout.core import forecast
from modelrollout.core.evidence import Measure, Past
from modelrollout.core.forecast import Comparison, Pods
from modelrollout.core.steps import Step


def doubts(
    analysis: api.Analysis,
    steps: Sequence[Step],
    measures: Sequence[Measure],
    checkpoints: Mapping[str, api.GuardrailCheckpoint],
    pasts: Mapping[str, Past],
    pods: Pods,
) -> tuple[str, ...]:
    """
    One sentence for each guardrail that a step will not prove by its deadline, the first such step.

    Traffic and rates are those of stable's past, with stable's answers standing for both versions'.
    """
    per_second = {
        name: _per_second(past, analysis.interval_seconds) for name, past in pasts.items()
    }
    rates = {name: _rate(past) for name, past in pasts.items() if per_second[name] > 0}
    comparisons = forecast.comparisons_of(
        measures,
        rates,
        false_rollback_rate=float(analysis.false_rollback_rate),
        false_promote_rate=float(analysis.false_promote_rate),
        pods=pods,
    )
    found: dict[str, str] = {}
    for each in comparisons:
        if each.name not in rates:
            continue
        known = _with_bursts(each, checkpoints.get(each.name))
        late = _first_late(known, steps, per_second[each.name])
        if late:
            found.setdefault(each.name, late)
    return tuple(found.values())


def _per_second(past: Past, width: float) -> float:
    """Exposure of stable; of events over time that is pods."""
    return sum(each.n for each in past.windows) / (width * max(1, len(past.windows)))


def _rate(past: Past) -> float:
    return sum(each.k[0] for each in past.windows) / sum(each.n for each in past.windows)


def _with_bursts(comparison: Comparison, known: api.GuardrailCheckpoint | None) -> Comparison:
    """Of a distribution the thresholds are not those that are planned with."""
    if known is None or comparison.tail is not None or not known.dispersion:
        return comparison
    return replace(comparison, dispersion=known.dispersion[0])


def _first_late(comparison: Comparison, steps: Sequence[Step], per_second: float) -> str:
    late = (
        each for each in forecast.forecasts(comparison, steps, per_second) if not each.is_in_time
    )
    first = next(late, None)
    return forecast.sentence(comparison, first) if first is not None else ""
