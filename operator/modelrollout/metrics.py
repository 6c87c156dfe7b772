"""What a pass asks of the metrics: stable's past before the first bet, then window after window."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from modelrollout.api import v1alpha1 as api
from modelrollout.core import collect, times, traffic_split
from modelrollout.core.commands import GOES_UP
from modelrollout.core.evidence import (
    Grid,
    Histogram,
    Kind,
    Measure,
    Past,
    Query,
    Reading,
    Split,
    Where,
    Window,
)
from modelrollout.core.measures import (
    cohort_query,
    coverage_query,
    measures_of,
    users_query,
    warmup_query,
)
from modelrollout.core.observation import Level, Observation, Rollout
from modelrollout.errors import MetricsUnavailable
from modelrollout.world import MetricSource, World

BEFORE_SECONDS = 60.0
"""How far back stable's answers tell where its quantiles lie now."""
HISTORY_SECONDS = 1800.0
"""How far back stable's answers tell how they come in bursts."""
HISTORY_WINDOWS = 60
"""At least so many windows, where they are wide; up to the most seconds."""
MOST_HISTORY_SECONDS = 21_600.0
PART_SECONDS = 180.0
"""Of the history, in one question."""
HISTORY_TIMEOUT = 5.0
"""Of the time that a pass has for its metrics."""
METRICS_SECONDS = 10.0
"""All the time that a pass has for its metrics, however many guardrails there are."""
COVERAGE = "coverage:"
"""Among the limits; no guardrail has such a name."""
LATE = f"Prometheus did not answer within {METRICS_SECONDS:g} s."


async def with_metrics(
    rollout: Rollout,
    known: api.ModelRolloutStatus,
    seen: Observation,
    split: Split | None,
    world: World,
) -> Observation:
    """The observation with what the metrics say, as far as this pass needs to know it."""
    spec = rollout.spec
    assert spec is not None
    source = world.metrics.get(spec.analysis.provider)
    stable, candidate = seen.stable, seen.candidate
    if source is None or stable is None or candidate is None:
        return seen
    is_on_trial = known.candidate == candidate.version
    if not is_on_trial or _is_urgent(rollout) or candidate.endpoints == 0:
        # What is to be done now does not wait for metrics.
        return seen
    measures = measures_of(spec.analysis, rollout.namespace, rollout.name, stable, candidate, split)
    width = float(spec.analysis.interval_seconds)
    if known.step is None and candidate.is_ready and seen.route.is_settled:
        there = tuple(each for each in measures if each.where is not Where.COMPARATOR)
        question = _Question(known, seen.now, seen.now, width)
        answers = await _ask(question, there, (), source, world)
        return replace(seen, measures=there, pasts=answers.pasts)
    if known.step_start_time is None:
        return seen
    question = _Question(known, seen.now, times.as_seconds(known.step_start_time), width)
    asked = _comparable(measures, question)
    limits = (*_limits(rollout), *_coverage(rollout, question))
    answers = await _ask(question, asked, limits, source, world)
    levels = {name: each for name, each in answers.levels.items() if name != COVERAGE}
    if not asked:
        counted = await _warmup(measures, question, source, seen.now)
        return replace(seen, levels=levels, warmup=counted)
    users = await _users(rollout, seen, question, source)
    cohort = await _cohort(rollout, split, question, source, seen.now)
    covered = answers.levels.get(COVERAGE)
    return replace(
        seen,
        levels=levels,
        coverage=covered.value if covered and _is_share(covered.value) else None,
        measures=tuple(each if each in asked else replace(each, is_idle=True) for each in measures),
        users=users,
        cohort=cohort,
        readings=answers.readings,
        pasts=answers.pasts,
    )


def _is_urgent(rollout: Rollout) -> bool:
    """A human wants something done that no pods have to be started for."""
    if rollout.order is None:
        return False
    is_scaled = rollout.spec is not None and rollout.spec.scaling is not None
    return not is_scaled or rollout.order.verb not in GOES_UP


@dataclass(frozen=True, slots=True)
class _Question:
    known: api.ModelRolloutStatus
    now: float
    """Unix seconds."""
    start: float
    """Of the step, or of what comes before the first one: now."""
    width: float


@dataclass(frozen=True, slots=True)
class _Answers:
    """By guardrail."""

    readings: dict[str, Reading]
    pasts: dict[str, Past]
    levels: dict[str, Level]


def _comparable(measures: Sequence[Measure], question: _Question) -> tuple[Measure, ...]:
    """
    Those that both versions still say something about.

    At 100 % stable gets no requests any more, but what is known with a delay still comes in for
    the ones that it had.
    """
    weight, now = question.known.weight.wanted, question.now
    if now < question.start or question.known.warmup is not None:
        # The candidate warms up: what it does now is no evidence.
        return ()
    if question.known.mirror:
        return tuple(each for each in measures if each.where is not Where.ROUTE)
    if 0 < weight < api.FULL_WEIGHT:
        return tuple(each for each in measures if each.where is not Where.COMPARATOR)
    if weight < api.FULL_WEIGHT:
        return ()
    return tuple(
        each
        for each in measures
        if each.where is not Where.COMPARATOR and now < question.start + each.delay_seconds
    )


@dataclass(frozen=True, slots=True)
class _Limit:
    """An expression whose value now is asked for."""

    name: str
    query: str
    namespace: str


def _limits(rollout: Rollout) -> tuple[_Limit, ...]:
    assert rollout.spec is not None
    return tuple(
        _Limit(each.name, each.limit.query, rollout.namespace)
        for each in rollout.spec.analysis.guardrails
        if each.limit is not None
    )


def _coverage(rollout: Rollout, question: _Question) -> tuple[_Limit, ...]:
    """Asked in a mirror step, as soon as there can be two scrapes in it."""
    seconds = question.now - question.start
    if not question.known.mirror or seconds <= 0:
        return ()
    query = coverage_query(rollout.namespace, rollout.name, seconds)
    return (_Limit(COVERAGE, query, rollout.namespace),)


def _is_share(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


async def _ask(
    question: _Question,
    measures: Sequence[Measure],
    limits: Sequence[_Limit],
    source: MetricSource,
    world: World,
) -> _Answers:
    """Everything at once."""
    answers = await world.together(
        *(_answer(question, each, source) for each in measures),
        *(_level(each, source, question.now) for each in limits),
    )
    names = [*(each.name for each in measures), *(each.name for each in limits)]
    named = list(zip(names, answers, strict=True))
    return _Answers(
        readings={name: each for name, each in named if isinstance(each, Reading)},
        pasts={name: each for name, each in named if isinstance(each, Past)},
        levels={name: each for name, each in named if isinstance(each, Level)},
    )


async def _answer(
    question: _Question, measure: Measure, source: MetricSource
) -> Reading | Past | Level:
    """One guardrail's windows, or what stable did before, until that is known."""
    checkpoint = collect.resumed(measure, question.known.checkpoint, question.start)
    grid = Grid(start=question.start, width=question.width, watermark=checkpoint.watermark)
    try:
        async with asyncio.timeout(METRICS_SECONDS):
            if not collect.is_prepared(checkpoint):
                return await past_of(measure, checkpoint, grid, source, question.now)
            query = collect.with_thresholds(measure.query, checkpoint)
            return await source.read(query, grid, question.now)
    except (MetricsUnavailable, TimeoutError) as error:
        return Reading(watermark=grid.watermark, blind=str(error) or LATE)


async def _users(
    rollout: Rollout, seen: Observation, question: _Question, source: MetricSource
) -> Reading | None:
    """How sticky users were shared out since they were counted last, where they are to be."""
    spec, known = rollout.spec, question.known
    assert spec is not None
    if traffic_split.users_from(spec, known.weight.wanted, question.start) is None:
        return None
    assert spec.traffic.sticky is not None
    assert spec.traffic.sticky.users is not None
    assert seen.stable is not None
    assert seen.candidate is not None
    query = users_query(spec.traffic.sticky.users, rollout.namespace, seen.stable, seen.candidate)
    until = known.split.until_time if known.split else None
    return await _counted(query, until, question, source, seen.now)


async def _cohort(
    rollout: Rollout,
    split: Split | None,
    question: _Question,
    source: MetricSource,
    now: float,
) -> Reading | None:
    """What the cohort got, which is compared with nothing."""
    assert rollout.spec is not None
    query = cohort_query(rollout.spec.analysis, split)
    if query is None or not 0 < question.known.weight.wanted < api.FULL_WEIGHT:
        return None
    known = question.known.cohort
    until = known.until_time if known else None
    return await _counted(query, until, question, source, now)


async def _warmup(
    measures: Sequence[Measure], question: _Question, source: MetricSource, now: float
) -> Reading | None:
    """What the versions answered since it was counted last, while the candidate warms up."""
    known = question.known
    query = warmup_query(measures, is_mirror=bool(known.mirror))
    if known.warmup is None or query is None or now < question.start:
        return None
    return await _counted(query, known.warmup.until_time, question, source, now)


async def _counted(
    query: Query, until: str | None, question: _Question, source: MetricSource, now: float
) -> Reading:
    """The windows of a step that nothing is bet on, since the last that were counted."""
    start = question.start
    # A clock that was moved back must not make it wait.
    watermark = start if until is None else min(max(start, times.as_seconds(until)), now)
    grid = Grid(start=start, width=question.width, watermark=watermark)
    try:
        async with asyncio.timeout(METRICS_SECONDS):
            return await source.read(query, grid, now)
    except (MetricsUnavailable, TimeoutError) as error:
        return Reading(watermark=watermark, blind=str(error) or LATE)


async def past_of(
    measure: Measure,
    checkpoint: api.GuardrailCheckpoint,
    grid: Grid,
    source: MetricSource,
    now: float,
) -> Past:
    """What stable did before the grid, as far as a distribution's thresholds can be chosen from it."""
    histogram = None
    if measure.query.kind is Kind.DISTRIBUTION and not checkpoint.thresholds:
        histogram = await _stable_histogram(measure, grid, source, now)
        try:
            checkpoint = collect.choose(measure, checkpoint, histogram, grid.start)
        except ValueError as error:
            raise MetricsUnavailable(
                f"The buckets of {measure.query.events.metric}: {error}."
            ) from error
        if not checkpoint.thresholds:
            return Past(histogram=histogram)
    query = collect.with_thresholds(measure.query, checkpoint)
    windows = await _history(query, grid, source)
    return Past(
        histogram=histogram,
        windows=tuple(each.stable for each in windows),
        halves=tuple(each.halves for each in windows if each.halves is not None),
    )


async def _stable_histogram(
    measure: Measure, grid: Grid, source: MetricSource, now: float
) -> Histogram:
    """
    What stable answered before the step, so that the step's own answers are all evidence.

    Where that is too little (a route that has just been adopted), what it has answered since.
    """
    with contextlib.suppress(MetricsUnavailable):
        start = grid.start - BEFORE_SECONDS
        earlier = await source.histogram(measure.query, start, grid.start)
        if collect.is_enough(earlier):
            return replace(earlier, until=grid.start)
    return replace(await source.histogram(measure.query, grid.start, now), until=now)


async def _history(query: Query, grid: Grid, source: MetricSource) -> list[Window]:
    """
    Stable's windows before the step: the reading of stable against itself, the newest part first.

    As much as there is time for: bursts that are not known are better than a rollout that waits.
    """
    span = min(max(HISTORY_SECONDS, HISTORY_WINDOWS * grid.width), MOST_HISTORY_SECONDS)
    part = max(PART_SECONDS, grid.width) // grid.width * grid.width
    query = replace(query, candidate=query.stable, slice_label="")
    found: list[Window] = []
    end = grid.start
    try:
        async with asyncio.timeout(HISTORY_TIMEOUT):
            while end > grid.start - span:
                earlier = Grid(start=end - part, width=grid.width, watermark=end - part)
                reading = await source.read(query, earlier, end)
                found = [*reading.windows, *found]
                end -= part
    except TimeoutError:
        return found
    except MetricsUnavailable:
        if not found:
            raise
    return found


async def _level(limit: _Limit, source: MetricSource, now: float) -> Level:
    try:
        async with asyncio.timeout(METRICS_SECONDS):
            return Level(value=await source.value(limit.query, limit.namespace, now))
    except (MetricsUnavailable, TimeoutError) as error:
        return Level(value=None, blind=str(error) or LATE)
