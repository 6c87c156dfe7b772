"""The looks that the operator would have taken at a period, with the evidence it would have had."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from modelrollout.api import v1alpha1 as api
from modelrollout.api.v1alpha1 import GuardrailCheckpoint, Verdict
from modelrollout.backtest.history import ROUNDING, Period, Record
from modelrollout.core.analysis import Judgement, judge
from modelrollout.core.collect import collect
from modelrollout.core.evidence import Measure, Reading, Window
from modelrollout.core.limits import track_limit
from modelrollout.core.observation import Level

Levels = Mapping[float, Mapping[str, Level]]
"""Of each limit at each look, by the time of the look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What was known at a time."""

    time: float
    judgement: Judgement


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """Everything that is replayed."""

    analysis: api.Analysis
    measures: tuple[Measure, ...]
    period: Period
    records: Mapping[str, Record]
    """By guardrail."""
    levels: Levels = field(default_factory=dict)


def looks(script: Script) -> Iterator[Look]:
    """One look at each edge of the grid."""
    evidence = {name: each.checkpoint for name, each in script.records.items()}
    due = {name: deque(each.windows) for name, each in script.records.items()}
    judgement: Judgement | None = None
    was_blind: dict[str, Reading] = {}
    for edge in script.period.edges():
        grown = [
            _collect(script, measure, evidence, _ended(due[measure.name], edge))
            for measure in script.measures
        ]
        levels = script.levels.get(edge, {})
        _track_limits(script, evidence, levels, edge)
        blind = _blind(script, edge)
        # A limit that is exceeded fails by the clock alone.
        if judgement is None or any(grown) or levels or blind.keys() != was_blind.keys():
            judgement = judge(script.analysis, script.measures, evidence, blind, levels, edge)
        was_blind = blind
        yield Look(time=edge, judgement=judgement)


def failed_look(script: Script) -> Look | None:
    """The first look at which it would have been rolled back."""
    return next((e for e in looks(script) if e.judgement.verdict is Verdict.FAIL), None)


def _collect(
    script: Script,
    measure: Measure,
    evidence: dict[str, GuardrailCheckpoint],
    windows: tuple[Window, ...],
) -> bool:
    """Count windows in; whether there were any."""
    if windows:
        proves_from = script.period.start + measure.delay_seconds
        reading = Reading(windows=windows, watermark=windows[-1].end)
        evidence[measure.name] = collect(measure, evidence[measure.name], reading, proves_from)
    return bool(windows)


def _ended(due: deque[Window], edge: float) -> tuple[Window, ...]:
    ended = []
    while due and due[0].end <= edge + ROUNDING:
        ended.append(due.popleft())
    return tuple(ended)


def _track_limits(
    script: Script,
    evidence: dict[str, GuardrailCheckpoint],
    levels: Mapping[str, Level],
    edge: float,
) -> None:
    for each in script.analysis.guardrails:
        if each.limit is not None:
            before, level = evidence.get(each.name), levels.get(each.name)
            evidence[each.name] = track_limit(each, before, level, edge)


def _blind(script: Script, edge: float) -> dict[str, Reading]:
    return {
        name: Reading(watermark=edge, blind=why)
        for name, record in script.records.items()
        if (why := record.why_blind(edge))
    }
