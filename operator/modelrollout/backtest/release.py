"""A release of the past: when the guardrails would have failed or passed it, and on what evidence."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from modelrollout.api.v1alpha1 import GuardrailStatus, Verdict
from modelrollout.backtest.history import (
    Advance,
    Period,
    Question,
    Record,
    Source,
    Unfit,
    measures_between,
    pods_seen,
    recorded,
)
from modelrollout.backtest.replay import Look, Script, looks
from modelrollout.core.evidence import Kind, Measure, Split
from modelrollout.core.observation import Level
from modelrollout.errors import MetricsUnavailable
from modelrollout.world import MetricSource

AT_ONCE = 100
"""Questions for the value of a limit that are under way together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """When something would have been decided, and on what."""

    time: float
    requests: int | None
    """The candidate's until then; None where none were counted."""
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A guardrail's evidence at one look."""

    time: float
    status: GuardrailStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """One guardrail, over the whole period."""

    name: str
    kind: str
    failed: Moment | None
    passed: Moment | None
    changes: tuple[tuple[float, Verdict], ...]
    """Its verdict, whenever it became another."""
    curve: tuple[Point, ...]
    record: Record | None
    """None of a limit."""
    blind_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What would have been decided."""

    period: Period
    failed: Moment | None
    """The guardrails together would have rolled it back."""
    passed: Moment | None
    """All that are required would have passed."""
    stories: tuple[Story, ...]

    @property
    def verdict(self) -> Verdict:
        """What would have been decided in the end; a failure takes back what passed before."""
        if self.failed is not None:
            return Verdict.FAIL
        if self.passed is not None:
            return Verdict.PASS
        last = [each.changes[-1][1] for each in self.stories]
        return Verdict.NO_DATA if Verdict.NO_DATA in last else Verdict.INCONCLUSIVE


async def replayed(
    source: Source, question: Question, stable: str, candidate: str, advance: Advance
) -> Release:
    """
    Read a period and replay it; `stable` and `candidate` match the versions' pods.

    Raises MetricsUnavailable where nothing can be read at all, and Unfit where a pod matches both.
    """
    pods, period = question.pods, question.period
    split = Split(stable=pods.matching(stable), candidate=pods.matching(candidate))
    measures = measures_between(question, split)
    await _refuse_overlap(source, question, measures, split)
    answers = await asyncio.gather(*(recorded(source, each, period, advance) for each in measures))
    script = Script(
        analysis=question.analysis,
        measures=measures,
        period=period,
        records=dict(zip((each.name for each in measures), answers, strict=True)),
        levels=await _levels(source, question, advance),
    )
    return _told(script, tuple(looks(script)))


async def _refuse_overlap(
    source: Source, question: Question, measures: Sequence[Measure], split: Split
) -> None:
    """One request must not count for both versions."""
    label = question.pods.label
    ours, theirs = [
        await pods_seen(source, measures, matchers, label, question.period)
        for matchers in (split.stable, split.candidate)
    ]
    if common := ours & theirs:
        raise Unfit(
            f"--stable and --candidate both match {label} {min(common)}: give expressions of which"
            " each matches one version only"
        )


async def _levels(
    source: MetricSource, question: Question, advance: Advance
) -> dict[float, dict[str, Level]]:
    """The value of each limit's expression as of each look."""
    limits = {e.name: e.limit.query for e in question.analysis.guardrails if e.limit}
    levels: dict[float, dict[str, Level]] = {}
    asked = [(edge, name) for edge in question.period.edges() for name in limits]
    for first in range(0, len(asked), AT_ONCE):
        some = asked[first : first + AT_ONCE]
        answers = await asyncio.gather(
            *(_level(source, limits[name], question.namespace, edge) for edge, name in some)
        )
        for (edge, name), level in zip(some, answers, strict=True):
            levels.setdefault(edge, {})[name] = level
        advance(len(some) * question.period.width)
    return levels


async def _level(source: MetricSource, expression: str, namespace: str, now: float) -> Level:
    try:
        return Level(value=await source.value(expression, namespace, now))
    except MetricsUnavailable as error:
        return Level(value=None, blind=str(error))


# --- told ---------------------------------------------------------------------------------------


def _told(script: Script, seen: Sequence[Look]) -> Release:
    stories = tuple(
        _story(script, seen, position) for position in range(len(script.analysis.guardrails))
    )
    if all(each.blind_share == 1 for each in stories):
        raise MetricsUnavailable("; ".join(f"{each.name}: {_last(each)}" for each in stories))
    return Release(
        period=script.period,
        failed=_first(seen, Verdict.FAIL),
        passed=_first(seen, Verdict.PASS),
        stories=stories,
    )


def _last(story: Story) -> str:
    return story.curve[-1].status.message


def _first(seen: Sequence[Look], verdict: Verdict) -> Moment | None:
    for look in seen:
        judgement = look.judgement
        if judgement.verdict is verdict:
            names = judgement.culprits if verdict is Verdict.FAIL else ()
            return Moment(
                time=look.time, requests=judgement.requests, message=judgement.says(*names)
            )
    return None


def _story(script: Script, seen: Sequence[Look], position: int) -> Story:
    guardrail = script.analysis.guardrails[position]
    measure = next((each for each in script.measures if each.name == guardrail.name), None)
    record = script.records.get(guardrail.name)
    curve = tuple(
        Point(time=look.time, status=look.judgement.guardrails[position]) for look in seen
    )
    unread = sum(each.status.verdict is Verdict.NO_DATA for each in curve) / len(curve)
    return Story(
        name=guardrail.name,
        kind=measure.query.kind if measure else "limit",
        failed=_moment(seen, position, measure, Verdict.FAIL),
        passed=_moment(seen, position, measure, Verdict.PASS),
        changes=_changes(curve),
        curve=curve,
        record=record,
        blind_share=record.blind_share(script.period) if record else unread,
    )


def _moment(
    seen: Sequence[Look], position: int, measure: Measure | None, verdict: Verdict
) -> Moment | None:
    for look in seen:
        status = look.judgement.guardrails[position]
        if status.verdict is verdict:
            counts_requests = measure is not None and measure.query.kind is not Kind.RATE
            counted = status.candidate.requests if status.candidate else 0
            requests = counted if counts_requests else look.judgement.requests
            return Moment(time=look.time, requests=requests, message=status.message)
    return None


def _changes(curve: Sequence[Point]) -> tuple[tuple[float, Verdict], ...]:
    changes: list[tuple[float, Verdict]] = []
    for each in curve:
        if not changes or changes[-1][1] is not each.status.verdict:
            changes.append((each.time, each.status.verdict))
    return tuple(changes)
