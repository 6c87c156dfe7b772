"""What a backtest found, in sentences and as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from modelrollout.api.v1alpha1 import Verdict
from modelrollout.backtest.halves import CONFIDENCE, Calibration, Share
from modelrollout.backtest.history import Period
from modelrollout.backtest.release import Moment, Release, Story
from modelrollout.core.times import as_time

CHANGES_SHOWN = 6


def percent(share: float) -> str:
    """A share for people: two decimals, less where they say nothing."""
    return f"{100 * share:.2f}".rstrip("0").rstrip(".") + " %"


# --- a release ----------------------------------------------------------------------------------


def release_text(release: Release) -> Iterator[str]:
    """The verdict, when each guardrail would have decided, and what was missing."""
    yield decision(release)
    yield ""
    for story in release.stories:
        yield f"{story.name} ({story.kind}): {_told(story, release.period)}"
        yield f"  verdicts: {_changes(story)}"
        yield f"  data: {_data(story)}"


def decision(release: Release) -> str:
    """What would have been decided, in one sentence."""
    failed, passed, start = release.failed, release.passed, release.period.start
    if failed is not None:
        before = ""
        if passed is not None and passed.time < failed.time:
            before = f" (after it had passed at {as_time(passed.time)})"
        return (
            f"It would have been rolled back at {_when(failed, start)}{before}: {failed.message}."
        )
    if passed is not None:
        return f"It would have passed at {_when(passed, start)}: {passed.message}."
    if release.verdict is Verdict.NO_DATA:
        blind = [f"{e.name}: {e.curve[-1].status.message}" for e in release.stories if _is_blind(e)]
        return f"It would have been held for want of metrics: {'; '.join(blind)}."
    last = [f"{each.name}: {each.curve[-1].status.message}" for each in release.stories]
    seconds = f"{release.period.seconds:,.0f} s"
    return f"It would not have been decided in {seconds}: {'; '.join(last)}."


def _is_blind(story: Story) -> bool:
    return story.curve[-1].status.verdict is Verdict.NO_DATA


def _when(moment: Moment, start: float) -> str:
    told = f"{as_time(moment.time)}, after {moment.time - start:,.0f} s"
    if moment.requests is None:
        return told
    return f"{told} and {moment.requests:,} requests of the candidate"


def _told(story: Story, period: Period) -> str:
    if story.failed is not None:
        return f"would have failed at {_when(story.failed, period.start)}: {story.failed.message}."
    if story.record is None and story.passed is not None:
        return f"would not have failed; at the end {story.curve[-1].status.message}."
    if story.passed is not None:
        return f"would have passed at {_when(story.passed, period.start)}: {story.passed.message}."
    if story.blind_share == 1:
        return f"could not be read: {story.curve[-1].status.message}"
    return f"would have decided nothing: {story.curve[-1].status.message}."


def _changes(story: Story) -> str:
    shown = [f"{verdict} from {as_time(time)}" for time, verdict in story.changes[:CHANGES_SHOWN]]
    more = len(story.changes) - len(shown)
    return ", ".join([*shown, f"and {more} changes more (--json has all)"] if more else shown)


def _data(story: Story) -> str:
    told = f"{percent(story.blind_share)} of the time could not be read"
    record = story.record
    if record is not None:
        incomplete = percent(record.incomplete_share)
        told = f"{len(record.windows):,} windows, {incomplete} of them incomplete; {told}"
        whys = list(dict.fromkeys(each.why for each in record.blind))
        told = " ".join([f"{told}.", *whys]) if whys else told
    return told


def release_json(release: Release) -> dict[str, Any]:
    """Everything, with the evidence after each look."""
    return {
        **_period_json(release.period),
        "verdict": release.verdict,
        "sentence": decision(release),
        "failed": _moment_json(release.failed, release.period),
        "passed": _moment_json(release.passed, release.period),
        "guardrails": [_story_json(each, release.period) for each in release.stories],
    }


def _period_json(period: Period) -> dict[str, Any]:
    return {
        "from": as_time(period.start),
        "to": as_time(period.end),
        "intervalSeconds": period.width,
    }


def _moment_json(moment: Moment | None, period: Period) -> dict[str, Any] | None:
    if moment is None:
        return None
    return {
        "time": as_time(moment.time),
        "seconds": round(moment.time - period.start, 3),
        "candidateRequests": moment.requests,
        "message": moment.message,
    }


def _story_json(story: Story, period: Period) -> dict[str, Any]:
    record = story.record
    return {
        "name": story.name,
        "kind": story.kind,
        "sentence": _told(story, period),
        "failed": _moment_json(story.failed, period),
        "passed": _moment_json(story.passed, period),
        "changes": [{"time": as_time(time), "verdict": verdict} for time, verdict in story.changes],
        "blindShare": story.blind_share,
        "windows": len(record.windows) if record else None,
        "incompleteShare": record.incomplete_share if record else None,
        "blind": [
            {"from": as_time(each.span.start), "to": as_time(each.span.end), "why": each.why}
            for each in (record.blind if record else ())
        ],
        "curve": [{"time": as_time(point.time), **point.status.to_dict()} for point in story.curve],
    }


# --- halves -------------------------------------------------------------------------------------


def calibration_text(found: Calibration, limits: Sequence[str]) -> Iterator[str]:
    """How often equal versions would have been rolled back, and what follows from it."""
    whole = found.share()
    yield (
        f"{whole.trials} rollouts of equal versions: {_number(found.stretches, 'stretch', 'es')} of"
        f" {found.seconds:,.0f} s, {_splits(found)} each, {_pods(found)}."
    )
    yield (
        f"Rolled back, falsely: {_share(whole)}. Promised is at most {percent(found.promised)}"
        " (spec.analysis.falseRollbackRate)."
    )
    for name in found.names:
        yield f"  {name}: {_share(found.share(name))}{_untrusted(found, name)}"
    yield (
        f"The {percent(CONFIDENCE)} intervals count {_number(found.stretches, 'stretch', 'es')}"
        f" and not {whole.trials} rollouts: splits of one stretch see the same requests, and so"
        " are not independent. Pods that stay the same over all stretches make it fewer still."
    )
    yield ""
    yield advice(found)
    if limits:
        yield f"Left out: {', '.join(limits)} (limits compare nothing)."
    yield from _missing(found)


def advice(found: Calibration) -> str:
    """Whether automatic rollback can be armed, in one sentence or two."""
    if found.keeps_promise:
        return f"Automatic rollback can be armed on this data. {_strength(found)}{_doubt(found)}"
    named = sorted(found.names, key=lambda name: -found.share(name).alarms)
    worst = ", ".join(each for each in named if found.share(each).alarms)
    told = f"Automatic rollback should not be armed yet: the tolerance is too tight for {worst}."
    if found.tolerances is None:
        told += (
            " No ratio up to 10 would have held for all: these pods differ by more than a tolerance"
            " is for, or the metric comes in bursts; see what the pods of the worst splits have in"
            " common (--json names them)."
        )
    else:
        ratios = " and ".join(f"{name} {ratio:g}" for name, ratio in found.tolerances.items())
        told += f" A tolerance with ratio {ratios} would have held (and a margin of at least that)."
    if found.share().bounds[0] <= found.promised:
        stretches = _number(found.stretches, "stretch", "es")
        told += f" With {stretches} it may still be chance: a longer history would tell."
    return told


def _strength(found: Calibration) -> str:
    upper = found.share().bounds[1]
    stretches = _number(found.stretches, "stretch", "es")
    if upper <= found.promised:
        return f"{stretches} without more of them prove that false alarms are as rare as promised."
    return (
        f"Nothing speaks against it, but {stretches} can only exclude that more than"
        f" {percent(upper)} are rolled back falsely; to exclude more than"
        f" {percent(found.promised)} takes {found.stretches_to_prove:,} without an alarm."
    )


def _doubt(found: Calibration) -> str:
    """What was not tried, though nobody raised an alarm."""
    told = ""
    if untrusted := [name for name in found.names if _untrusted_trials(found, name)]:
        told += (
            f" Yet the placebo test took {', '.join(untrusted)} out in some rollouts, as pods of"
            " one version differ by more than the tolerance: there it protects nobody."
        )
    if unread := [name for name in found.names if _blind_share(found, name) == 1]:
        told += f" This says nothing of {', '.join(unread)}, which could not be read."
    return told


def _untrusted_trials(found: Calibration, name: str) -> int:
    return sum(name in each.untrusted for each in found.trials)


def _untrusted(found: Calibration, name: str) -> str:
    count = _untrusted_trials(found, name)
    return f"; untrusted in {count} (its placebo test failed)" if count else ""


def _share(share: Share) -> str:
    lower, upper = share.bounds
    return (
        f"{share.alarms} of {share.trials}, {percent(share.value)}"
        f" (between {percent(lower)} and {percent(upper)})"
    )


def _number(count: int, thing: str, plural: str = "s") -> str:
    return f"{count:,} independent {thing}{'' if count == 1 else plural}"


def _splits(found: Calibration) -> str:
    each = [sum(t.stretch == s for t in found.trials) for s in {t.stretch for t in found.trials}]
    return f"{_range(each)} random splits of the pods"


def _pods(found: Calibration) -> str:
    requests = sorted(each.requests for each in found.trials)
    return f"a half of {requests[len(requests) // 2]:,.0f} requests as candidate (median)"


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low}" if low == high else f"{low} to {high}"


def _missing(found: Calibration) -> Iterator[str]:
    for name in found.names:
        share = _blind_share(found, name)
        if share > 0:
            whys = (each.why_blind[name] for each in found.trials if each.why_blind[name])
            why = next(whys, "Scrapes are missing.")
            yield f"Data: {name} could not be read in {percent(share)} of the time. {why}"
    if found.left_out:
        counted = _number(len(found.left_out), "stretch", "es").replace("independent ", "")
        yield f"Left out: {counted}; the first at {_first(found)}"


def _blind_share(found: Calibration, name: str) -> float:
    return math.fsum(each.blind[name] for each in found.trials) / len(found.trials)


def _first(found: Calibration) -> str:
    span, why = found.left_out[0]
    return f"{as_time(span.start)}: {why}"


def calibration_json(found: Calibration, limits: Sequence[str]) -> dict[str, Any]:
    """Everything, trial by trial."""
    return {
        **_period_json(found.period),
        "rolloutSeconds": found.seconds,
        "falseRollbackRate": found.promised,
        "stretches": found.stretches,
        "canBeArmed": found.keeps_promise,
        "sentence": advice(found),
        "tolerances": found.tolerances,
        **_share_json(found.share()),
        "guardrails": [
            {
                "name": name,
                **_share_json(found.share(name)),
                "untrusted": _untrusted_trials(found, name),
            }
            for name in found.names
        ],
        "leftOut": {
            "limits": list(limits),
            "stretches": [
                {"from": as_time(span.start), "why": why} for span, why in found.left_out
            ],
        },
        "trials": [
            {
                "from": as_time(each.stretch.start),
                "candidate": list(each.candidate),
                "candidateRequests": each.requests,
                "culprits": list(each.culprits),
                "failed": as_time(each.failed) if each.failed is not None else None,
                "untrusted": list(each.untrusted),
                "blindShare": dict(each.blind),
            }
            for each in found.trials
        ],
    }


def _share_json(share: Share) -> Mapping[str, Any]:
    return {
        "rolledBack": share.alarms,
        "rollouts": share.trials,
        "rate": share.value,
        "interval": list(share.bounds),
    }
