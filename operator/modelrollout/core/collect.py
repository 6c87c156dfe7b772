"""
Evidence grows: windows of counts in, a guardrail's checkpoint out.

Harm evidence grows over the whole rollout, so that one error rate covers all of it; safety
evidence starts anew in each step, because load changes with weight. Beside the comparison of the
versions, the same bets are made on single slices of the requests, and on two halves of stable:
where these come out different, the metric cannot tell the versions apart either.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import compress

from modelrollout.api.v1alpha1 import Counted, GuardrailCheckpoint, SliceCheckpoint
from modelrollout.core import bets
from modelrollout.core.bets import Evidence, Group, Pair
from modelrollout.core.evidence import (
    Counts,
    Histogram,
    Kind,
    Measure,
    Past,
    Query,
    Reading,
    Window,
)
from modelrollout.stats import counts, dispersion, histograms

ENOUGH_TO_CHOOSE = 200
"""Requests of stable from which its quantiles are placed well enough to choose thresholds."""
COMMON = 0.5
"""Above this share of requests an event is the common outcome, and the others are counted."""
DIGITS = 6
"""Of the logs that are stored: rounding loses less than any window brings."""

QUANTILE_THRESHOLDS = 3
"""Stable's quantile, and the bounds that tolerance and margin make of it for the candidate."""
LONGEST_NAME = 128
"""Of a slice, in bytes: status is no place for longer ones."""

Row = bets.Row
Rows = tuple[Row, ...]


def fresh(measure: Measure, watermark: float) -> GuardrailCheckpoint:
    """No evidence yet. A distribution's thresholds are chosen later, from stable's answers."""
    width = 0 if measure.query.kind is Kind.DISTRIBUTION else 1
    empty = GuardrailCheckpoint(name=measure.name, key=measure.key, watermark=watermark)
    if measure.query.kind is Kind.PAIRED:
        # Both sides answer the same requests: what comes in bursts comes to both.
        empty = empty.model_copy(update={"dispersion": (1.0,)})
    return _with_room(measure, empty, width)


def resumed(
    measure: Measure, checkpoints: Sequence[GuardrailCheckpoint], watermark: float
) -> GuardrailCheckpoint:
    """The checkpoint to go on from: the stored one if it was collected under the same settings."""
    for each in checkpoints:
        if each.name == measure.name and each.key == measure.key:
            return each
    return fresh(measure, watermark)


def _zeros(row: Row) -> Row:
    return (0.0,) * len(row)


def _with_room(
    measure: Measure, checkpoint: GuardrailCheckpoint, width: int
) -> GuardrailCheckpoint:
    """Empty evidence for a number of thresholds (1 for a plain count); `width` 0 has none."""
    harm_points, safety_points = bets.points_of(measure)
    columns = min(width, 1) if measure.quantile is not None else width
    return checkpoint.model_copy(
        update={
            "harm": ((0.0,) * harm_points,) * columns,
            "safety": ((0.0,) * safety_points,) * columns,
            "stable": (0.0,) * (width + 1),
            "candidate": (0.0,) * (width + 1),
        }
    )


# --- before the first window ------------------------------------------------------------------


def is_prepared(checkpoint: GuardrailCheckpoint) -> bool:
    """Whether stable's past was looked at: thresholds are fixed, and how it bursts is known."""
    return bool(checkpoint.dispersion)


def prepared(
    measure: Measure, checkpoint: GuardrailCheckpoint, past: Past, watermark: float
) -> GuardrailCheckpoint:
    """What is fixed before the first bet: thresholds, which outcome is counted, stable's habits."""
    if past.histogram is not None and not checkpoint.thresholds:
        checkpoint = choose(measure, checkpoint, past.histogram, watermark)
    if not checkpoint.harm:
        return checkpoint
    is_common = measure.query.kind is Kind.PROPORTION and _is_common(past.windows)
    if is_common and _has_complement(measure):
        checkpoint = checkpoint.model_copy(update={"counted": Counted.OTHERS})
    return checkpoint.model_copy(update=_habits(measure, checkpoint, past))


def is_enough(histogram: Histogram) -> bool:
    """Whether stable's quantiles can be placed by it."""
    return bool(histogram.cumulative) and histogram.cumulative[-1] >= ENOUGH_TO_CHOOSE


def choose(
    measure: Measure, checkpoint: GuardrailCheckpoint, histogram: Histogram, now: float
) -> GuardrailCheckpoint:
    """
    Fix a distribution's thresholds; evidence begins after the answers they were chosen from.

    Raises ValueError where the buckets are too coarse for the quantile that is asked for.
    """
    if not is_enough(histogram):
        return checkpoint
    bounds, cumulative = histogram.bounds, histogram.cumulative
    if measure.quantile is not None:
        found = histograms.choose_quantile(
            bounds, cumulative, measure.quantile, tolerance=measure.tolerance, margin=measure.margin
        )
        uppers = found.tolerance_upper, found.margin_upper
        at = {"thresholds": (found.lower, *uppers), "thinning": found.thinning, "watermark": now}
        return _with_room(measure, checkpoint.model_copy(update=at), QUANTILE_THRESHOLDS)
    thresholds = histograms.choose_thresholds(bounds, cumulative, limits=measure.limits)
    gated = histograms.gate_thresholds(thresholds, bounds, cumulative, limits=measure.limits)
    chosen = checkpoint.model_copy(
        update={"thresholds": thresholds, "gated": gated, "watermark": now}
    )
    return _with_room(measure, chosen, len(thresholds))


def with_thresholds(query: Query, checkpoint: GuardrailCheckpoint) -> Query:
    """The question, at the thresholds that were fixed when the evidence began."""
    return replace(query, thresholds=checkpoint.thresholds) if checkpoint.thresholds else query


def _is_common(past: Iterable[Counts]) -> bool:
    rows = [(each.n, each.k[0]) for each in past]
    return sum(k for _, k in rows) > COMMON * sum(n for n, _ in rows)


def _has_complement(measure: Measure) -> bool:
    try:
        for bound in (measure.tolerance, measure.margin):
            counts.complemented((), bound, lower_is_worse=measure.lower_is_worse)
    except ValueError:
        return False
    return True


def _habits(
    measure: Measure, checkpoint: GuardrailCheckpoint, past: Past
) -> dict[str, tuple[float, ...]]:
    """How often stable's events come, and how they come in bursts, per column of harm evidence."""
    if measure.query.kind is Kind.MEAN:
        return {"usual": (0.0,), "dispersion": (1.0,)}
    of_proportion = measure.query.kind is not Kind.RATE
    shares, factors = [], []
    for column, _ in bets.columns_of(measure, checkpoint, is_harm=True):
        whole = [bets.outcomes(measure, checkpoint, each, column) for each in past.windows]
        halves = [
            (
                *bets.outcomes(measure, checkpoint, even, column),
                *bets.outcomes(measure, checkpoint, odd, column),
            )
            for even, odd in past.halves
        ]
        shares.append(round(counts.usual_share(whole), 6) if of_proportion else 0.0)
        largest = max(
            dispersion.dispersion(whole, of_proportion=of_proportion),
            dispersion.dispersion_of_halves(halves, of_proportion=of_proportion),
        )
        factors.append(round(largest, 3))
    return {"usual": tuple(shares), "dispersion": tuple(factors)}


# --- windows ------------------------------------------------------------------------------------


def collect(
    measure: Measure,
    checkpoint: GuardrailCheckpoint,
    reading: Reading,
    proves_from: float = float("-inf"),
) -> GuardrailCheckpoint:
    """
    The checkpoint with a reading's windows counted in.

    Only windows that begin at `proves_from` (Unix seconds) or later can prove safety: what is
    known with a delay speaks of earlier requests at first.
    """
    windows = [each for each in reading.windows if each.start >= checkpoint.watermark - 1e-6]
    update: dict[str, object] = {"watermark": max(reading.watermark, checkpoint.watermark)}
    if windows and checkpoint.harm:
        update |= _grown(measure, checkpoint, windows, proves_from)
        update |= {
            "stable": _summed(checkpoint.stable, (each.stable for each in windows)),
            "candidate": _summed(checkpoint.candidate, (each.candidate for each in windows)),
            "windows": checkpoint.windows + len(windows),
        }
    return checkpoint.model_copy(update=update)


def _grown(
    measure: Measure,
    checkpoint: GuardrailCheckpoint,
    windows: Sequence[Window],
    proves_from: float,
) -> dict[str, object]:
    """The evidence with what the windows say."""
    slices = _watched(measure, checkpoint, windows)
    sliced = [[w.slices[each.name] for w in windows if each.name in w.slices] for each in slices]
    # Pairs have their floor instead of a placebo.
    halves = [e.halves for e in windows if e.halves and measure.query.kind is not Kind.PAIRED]
    late = [e.start >= proves_from - 1e-6 for e in windows]
    pairs = [(each.stable, each.candidate) for each in windows]
    groups = [
        Group(list(compress(pairs, late))),
        Group([pair for pair, proves in zip(pairs, late, strict=True) if not proves]),
        Group(halves),
        Group([(odd, even) for even, odd in halves]),
        # What is usual of all requests need not be so of a slice.
        *(Group(each, is_usual=False) for each in sliced),
    ]
    proving, early, one_way, other_way, *of_slices = bets.evidence_of(measure, checkpoint, groups)
    placebo = checkpoint.placebo
    if halves:
        width = len(checkpoint.harm)
        placebo = placebo or tuple(_zeros(row) for row in checkpoint.harm * 2)
        placebo = counts.added(placebo[:width], one_way.harm, digits=DIGITS) + counts.added(
            placebo[width:], other_way.harm, digits=DIGITS
        )
    return {
        "harm": counts.added(checkpoint.harm, proving.harm, early.harm, digits=DIGITS),
        "safety": counts.added(checkpoint.safety, proving.safety, digits=DIGITS),
        "placebo": placebo,
        "slices": tuple(map(_slice, slices, sliced, of_slices)),
    }


def _summed(state: Row, more: Iterable[Counts]) -> Row:
    rows = [(each.n, *each.k) for each in more]
    return tuple(sum(column) for column in zip(state, *rows, strict=True))


def _watched(
    measure: Measure, checkpoint: GuardrailCheckpoint, windows: Sequence[Window]
) -> tuple[SliceCheckpoint, ...]:
    """The slices. Who is watched is chosen by exposure, which tells no outcome."""
    if not measure.slices:
        return ()
    known = {each.name for each in checkpoint.slices}
    new = _busiest(windows, known)[: measure.slices - len(known)]
    return checkpoint.slices + tuple(
        SliceCheckpoint(
            name=name,
            harm=tuple(_zeros(row) for row in checkpoint.harm),
            stable=_zeros(checkpoint.stable),
            candidate=_zeros(checkpoint.candidate),
        )
        for name in new
    )


def _busiest(windows: Sequence[Window], known: set[str]) -> list[str]:
    requests: dict[str, float] = {}
    for window in windows:
        for name, pair in window.slices.items():
            if name not in known and _size(name) <= LONGEST_NAME:
                requests[name] = requests.get(name, 0.0) + pair[0].n + pair[1].n
    return sorted(requests, key=lambda name: (-requests[name], name))


def _size(name: str) -> int:
    return len(name.encode(errors="replace"))


def _slice(known: SliceCheckpoint, pairs: Sequence[Pair], said: Evidence) -> SliceCheckpoint:
    if not pairs:
        return known
    return known.model_copy(
        update={
            "harm": counts.added(known.harm, said.harm, digits=DIGITS),
            "stable": _summed(known.stable, (stable for stable, _ in pairs)),
            "candidate": _summed(known.candidate, (candidate for _, candidate in pairs)),
        }
    )
