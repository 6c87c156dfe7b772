"""Windows that were read are counted, and what they say together is weighed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from modelrollout.api import v1alpha1 as api
from modelrollout.api.v1alpha1 import ModelRolloutStatus, Verdict
from modelrollout.core import analysis, collect, estimates, limits, times, traffic_split
from modelrollout.core.analysis import Judgement
from modelrollout.core.evidence import Measure
from modelrollout.core.plan import Note, Severity
from modelrollout.core.present import Present

T = TypeVar("T")


def judged(here: Present) -> tuple[Present, Judgement | None]:
    """Count what was read, and weigh it."""
    seen = here.seen
    if here.facts.step_start_time is None or not (seen.measures or seen.levels):
        return here, None
    start = times.as_seconds(here.facts.step_start_time)
    collected = {each.name: _collected(here, each, start) for each in seen.measures}
    before = {each.name: each for each in here.facts.checkpoint}
    limited = {each.name: each for each in here.spec.analysis.guardrails if each.limit is not None}
    for name, guardrail in limited.items():
        collected[name] = limits.track_limit(
            guardrail, before.get(name), seen.levels.get(name), here.now
        )
    judgement = analysis.judge(
        here.spec.analysis, seen.measures, collected, seen.readings, seen.levels, here.now
    )
    judgement = _as_far_as_covered(here, judgement)
    split = _split(here, start)
    judgement = estimates.with_estimates(
        judgement,
        here.spec,
        seen.measures,
        collected,
        known={each.name: each for each in here.facts.guardrails},
        split=split,
    )
    new = here.facts.model_copy(
        update={
            "checkpoint": tuple({**_named(here, before), **collected}.values()),
            "guardrails": tuple(_last_known(here, judgement).values()),
            "verdict": judgement.verdict,
            "requests": judgement.requests,
            "coverage": None if seen.coverage is None else f"{seen.coverage:.3f}",
            "split": split,
            "cohort": _cohort(here),
        }
    )
    if new.no_data_since_time and not judgement.blind and not here.lacks_comparator:
        new = new.model_copy(update={"no_data_since_time": None})
    return here.with_facts(new, *_doubts(here, new, judgement)), judgement


def _split(here: Present, start: float) -> api.SplitStatus | None:
    """How requests were shared out; with sticky users those, as nobody knows what each one sends."""
    seen, known, weight = here.seen, here.facts.split, here.facts.weight.wanted
    if here.spec.traffic.sticky is None:
        return traffic_split.counted(known, seen.measures, seen.readings, weight, start, here.now)
    counts_from = traffic_split.users_from(here.spec, weight, start)
    if seen.users is None or counts_from is None:
        return known
    return traffic_split.counted_users(known, seen.users, weight, counts_from, here.now)


def _cohort(here: Present) -> api.CohortStatus | None:
    """What its members got. It is told, and nothing else: they are not chosen by chance."""
    known, read = here.facts.cohort, here.seen.cohort
    if read is None:
        return known
    rows = [each.candidate for each in read.windows]
    return api.CohortStatus(
        requests=(known.requests if known else 0) + round(sum(each.n for each in rows)),
        errors=(known.errors if known else 0) + round(sum(each.k[0] for each in rows)),
        until_time=times.as_time(read.watermark),
        message=read.blind[:1024] or None,
    )


def _as_far_as_covered(here: Present, judgement: Judgement) -> Judgement:
    """
    Copies that are lost are no random ones: the large and the slow go first.

    So where too many are missing, what the others say proves nothing good. What is bad is bad.
    """
    if judgement.verdict is Verdict.PASS and uncovered(here, here.seen.coverage):
        return replace(judgement, verdict=Verdict.INCONCLUSIVE)
    return judgement


def uncovered(here: Present, coverage: float | None) -> str:
    """That copies are missing, as the beginning of a sentence; empty if they are not."""
    if here.spec.shadow is None or not here.facts.mirror:
        return ""
    if coverage is None:
        return "how many of the copied requests were compared is not known yet; "
    least = float(here.spec.shadow.min_coverage)
    if coverage >= least:
        return ""
    return (
        f"{coverage:.1%} of the copied requests were compared, and minCoverage is {least:.0%}: "
        "modelrollout_comparator_unpaired_total has the reasons; "
    ).replace("%", " %")


def _last_known(here: Present, judgement: Judgement) -> dict[str, api.GuardrailStatus]:
    """What is said now; of guardrails with nothing to compare in this step what was said last."""
    return _named(
        here, {each.name: each for each in (*here.facts.guardrails, *judgement.guardrails)}
    )


def _named(here: Present, found: Mapping[str, T]) -> dict[str, T]:
    """Those whose guardrails the spec has, in its order."""
    names = [each.name for each in here.spec.analysis.guardrails]
    return {name: found[name] for name in names if name in found}


def _collected(here: Present, measure: Measure, start: float) -> api.GuardrailCheckpoint:
    seen = here.seen
    checkpoint = collect.resumed(measure, here.facts.checkpoint, start)
    if measure.name in seen.pasts:
        past = seen.pasts[measure.name]
        until = past.histogram.until if past.histogram else start
        watermark = _boundary(start, here.spec.analysis.interval_seconds, until)
        checkpoint = collect.prepared(measure, checkpoint, past, watermark)
    if measure.name in seen.readings:
        reading = seen.readings[measure.name]
        checkpoint = collect.collect(measure, checkpoint, reading, start + measure.delay_seconds)
    return checkpoint


def _doubts(here: Present, new: ModelRolloutStatus, judgement: Judgement) -> tuple[Note, ...]:
    """What makes the evidence doubtful, told once."""
    notes = []
    known = {each.name for each in here.facts.guardrails if float(each.placebo or 0) >= 1}
    for each in judgement.untrusted:
        if each not in known:
            message = judgement.says(each)
            notes.append(Note(severity=Severity.WARNING, reason="PlaceboFailed", message=message))
    was_known = here.facts.split is not None and here.facts.split.mismatch_time is not None
    if new.split is not None and new.split.mismatch_time is not None and not was_known:
        message = traffic_split.message(new.split, new.weight.wanted)
        notes.append(Note(severity=Severity.WARNING, reason="SplitMismatch", message=message))
    return tuple(notes)


def _boundary(start: float, width: float, time: float) -> float:
    """The first edge of the grid that is not before a time."""
    return start + width * max(0, math.ceil((time - start) / width - 1e-6))
