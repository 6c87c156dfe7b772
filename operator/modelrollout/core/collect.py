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

from modelrollout.api.v1alpha1 import Counted, GuardrailCheckpoint, SliceCheckpoint
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
from modelrollout.stats import counts, dispersion, histograms, means, paired
from modelrollout.stats.counts import Bound

ENOUGH_TO_CHOOSE = 200
"""Requests of stable from which its quantiles are placed well enough to choose thresholds."""
COMMON = 0.5
"""Above this share of requests an event is the common outcome, and the others are counted."""
DIGITS = 6
"""Of the logs that are stored: rounding loses less than any window brings."""

QUANTILE_THRESHOLDS = 3
"""Stable's quantile, and the bounds that tolerance and margin make of it for the candidate."""
LONGEST_NAME = 256
"""Of a slice: status is no place for longer ones."""

Row = tuple[float, ...]
Rows = tuple[Row, ...]
Pair = tuple[Counts, Counts]
"""The reference and what is held against it: stable and candidate, or two halves of stable."""


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


def at_new_step(checkpoint: GuardrailCheckpoint, watermark: float) -> GuardrailCheckpoint:
    """Harm evidence is kept, everything that belongs to one step starts anew."""
    slices = tuple(
        each.model_copy(update={"stable": _zeros(each.stable), "candidate": _zeros(each.candidate)})
        for each in checkpoint.slices
    )
    return checkpoint.model_copy(
        update={
            "safety": tuple(_zeros(row) for row in checkpoint.safety),
            "stable": _zeros(checkpoint.stable),
            "candidate": _zeros(checkpoint.candidate),
            "slices": slices,
            "windows": 0,
            "watermark": watermark,
        }
    )


def _zeros(row: Row) -> Row:
    return (0.0,) * len(row)


def _with_room(
    measure: Measure, checkpoint: GuardrailCheckpoint, width: int
) -> GuardrailCheckpoint:
    """Empty evidence for a number of thresholds (1 for a plain count); `width` 0 has none."""
    harm_points, safety_points = _points(measure)
    columns = min(width, 1) if measure.quantile is not None else width
    return checkpoint.model_copy(
        update={
            "harm": ((0.0,) * harm_points,) * columns,
            "safety": ((0.0,) * safety_points,) * columns,
            "stable": (0.0,) * (width + 1),
            "candidate": (0.0,) * (width + 1),
        }
    )


def _points(measure: Measure) -> tuple[int, int]:
    """Numbers that a column of harm evidence, and of safety evidence, consists of."""
    if measure.query.kind is Kind.PAIRED:
        return paired.PAIRED_POINTS, paired.PAIRED_POINTS
    if _is_mean(measure):
        return means.MEANS_STATE, means.MEANS_STATE
    return counts.HARM_POINTS, counts.SAFETY_POINTS


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
    return replace(query, thresholds=tuple(checkpoint.thresholds))


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
    for column, _ in _columns(measure, checkpoint, is_harm=True):
        whole = [_outcomes(measure, checkpoint, each, column) for each in past.windows]
        halves = [
            (
                *_outcomes(measure, checkpoint, even, column),
                *_outcomes(measure, checkpoint, odd, column),
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
        pairs = [(each.stable, each.candidate) for each in windows]
        proving = [(e.stable, e.candidate) for e in windows if e.start >= proves_from - 1e-6]
        update |= {
            "harm": _grown(measure, checkpoint, checkpoint.harm, pairs),
            "safety": _grown(measure, checkpoint, checkpoint.safety, proving, is_harm=False),
            "stable": _summed(checkpoint.stable, (each.stable for each in windows)),
            "candidate": _summed(checkpoint.candidate, (each.candidate for each in windows)),
            "windows": checkpoint.windows + len(windows),
            "placebo": _placebo(measure, checkpoint, windows),
            "slices": _slices(measure, checkpoint, windows),
        }
    return checkpoint.model_copy(update=update)


def _grown(
    measure: Measure,
    checkpoint: GuardrailCheckpoint,
    state: Rows,
    pairs: Sequence[Pair],
    *,
    is_harm: bool = True,
) -> Rows:
    if not pairs:
        return state
    more: Rows
    if measure.query.kind is Kind.PAIRED:
        more = (_flips(measure, pairs, is_harm=is_harm),)
    elif _is_mean(measure):
        more = (_moments(measure, pairs, is_harm=is_harm),)
    else:
        more = _bets(measure, checkpoint, pairs, is_harm=is_harm)
    return tuple(
        tuple(round(old + new, DIGITS) for old, new in zip(row, added, strict=True))
        for row, added in zip(state, more, strict=True)
    )


def _bets(
    measure: Measure,
    checkpoint: GuardrailCheckpoint,
    pairs: Sequence[Pair],
    *,
    is_harm: bool,
) -> Rows:
    """What the pairs add, per column."""
    bound = _bound(measure, is_harm=is_harm)
    lower_is_worse = measure.lower_is_worse
    if checkpoint.counted is Counted.OTHERS:
        _, bound, lower_is_worse = counts.complemented((), bound, lower_is_worse=lower_is_worse)
    columns = _columns(measure, checkpoint, is_harm=is_harm)
    table = [
        [
            (
                *_outcomes(measure, checkpoint, stable, ours),
                *_outcomes(measure, checkpoint, candidate, theirs),
            )
            for ours, theirs in columns
        ]
        for stable, candidate in pairs
        if not _is_without_time(measure, stable, candidate)
    ]
    points = counts.HARM_POINTS if is_harm else counts.SAFETY_POINTS
    if not table:
        return ((0.0,) * points,) * len(columns)
    usual = checkpoint.usual or 0.0
    if is_harm:
        logs = counts.log_harm_of(table, bound, lower_is_worse=lower_is_worse, usual=usual)
    else:
        logs = counts.log_safety_of(
            table,
            bound,
            lower_is_worse=lower_is_worse,
            tuned_for=checkpoint.thinning,
            usual=usual,
        )
    bursts = checkpoint.dispersion or (1.0,) * len(columns)
    return tuple(
        tuple(each / phi for each in row)
        for row, phi in zip(logs.sum(axis=0).tolist(), bursts, strict=True)
    )


def _columns(
    measure: Measure, checkpoint: GuardrailCheckpoint, *, is_harm: bool
) -> list[tuple[int, int]]:
    """Which of the reference's events are held against which of the other's."""
    if measure.quantile is not None:
        return [(0, 1 if is_harm else 2)]
    return [(each, each) for each in range(len(checkpoint.stable) - 1)]


def _bound(measure: Measure, *, is_harm: bool) -> Bound:
    if measure.quantile is not None:
        # The factor is in the thresholds: the tails beyond them must not differ.
        return Bound(1.0)
    bound = measure.tolerance if is_harm else measure.margin
    return (
        bound if measure.largest is None else Bound(bound.ratio, bound.absolute / measure.largest)
    )


def _outcomes(
    measure: Measure, checkpoint: GuardrailCheckpoint, given: Counts, column: int
) -> tuple[float, float]:
    """
    Exposure and events of one version at one threshold.

    Programs do not export two counters at one instant: an event can be seen a scrape before its
    request. Every event is a request, so there were at least as many of these.
    """
    n, k = given.n, given.k[column]
    if measure.query.kind is Kind.RATE:
        return n, k
    if measure.largest is not None:
        k /= measure.largest
    n = max(n, k)
    return (n, n - k) if checkpoint.counted is Counted.OTHERS else (n, k)


def _is_without_time(measure: Measure, stable: Counts, candidate: Counts) -> bool:
    """Of a rate, events in no time at all say nothing."""
    return measure.query.kind is Kind.RATE and min(stable.n, candidate.n) <= 0


def _is_mean(measure: Measure) -> bool:
    """Whether values have no upper bound; those that have one are counted."""
    return measure.query.kind is Kind.MEAN and measure.largest is None


def _flips(measure: Measure, pairs: Sequence[Pair], *, is_harm: bool) -> Row:
    """Answers that only the candidate changed, against those that only stable's repeat changed."""
    stable_only = sum(stable.k[0] for stable, _ in pairs)
    candidate_only = sum(candidate.k[0] for _, candidate in pairs)
    # The two sides are counted one after the other: a scrape may come in between.
    answered = sum(max(stable.n, candidate.n) for stable, candidate in pairs)
    others = max(0.0, answered - stable_only - candidate_only)
    known = paired.Pairs(candidate_only, stable_only, others)
    if is_harm:
        return paired.log_harm(known, measure.tolerance.absolute)
    return paired.log_safety(known, measure.margin.absolute)


def _moments(measure: Measure, pairs: Sequence[Pair], *, is_harm: bool) -> Row:
    """Lower is worse: stable must not be above ratio times the candidate."""
    bound = measure.tolerance if is_harm else measure.margin
    absolute = bound.absolute * (bound.ratio if measure.lower_is_worse else 1.0)
    batches = [
        means.Batch(one.n, one.k[0], other.n, other.k[0])
        for stable, candidate in pairs
        for one, other in [(candidate, stable) if measure.lower_is_worse else (stable, candidate)]
    ]
    return means.moments(batches, bound.ratio, absolute)


def _summed(state: Row, more: Iterable[Counts]) -> Row:
    rows = [(each.n, *each.k) for each in more]
    return tuple(sum(column) for column in zip(state, *rows, strict=True))


def _placebo(measure: Measure, checkpoint: GuardrailCheckpoint, windows: Sequence[Window]) -> Rows:
    """Harm evidence of each half of stable against the other. Pairs have their floor instead."""
    if measure.query.kind is Kind.PAIRED:
        return ()
    halves = [each.halves for each in windows if each.halves is not None]
    if not halves:
        return checkpoint.placebo
    width = len(checkpoint.harm)
    state = checkpoint.placebo or tuple(_zeros(row) for row in checkpoint.harm * 2)
    return _grown(measure, checkpoint, state[:width], halves) + _grown(
        measure, checkpoint, state[width:], [(odd, even) for even, odd in halves]
    )


def _slices(
    measure: Measure, checkpoint: GuardrailCheckpoint, windows: Sequence[Window]
) -> tuple[SliceCheckpoint, ...]:
    """The slices' own evidence. Who is watched is chosen by exposure, which tells no outcome."""
    if not measure.slices:
        return ()
    known = {each.name: each for each in checkpoint.slices}
    for name in _busiest(windows, set(known))[: measure.slices - len(known)]:
        known[name] = SliceCheckpoint(
            name=name,
            harm=tuple(_zeros(row) for row in checkpoint.harm),
            stable=_zeros(checkpoint.stable),
            candidate=_zeros(checkpoint.candidate),
        )
    return tuple(
        _slice(
            measure,
            checkpoint,
            each,
            [w.slices[each.name] for w in windows if each.name in w.slices],
        )
        for each in known.values()
    )


def _busiest(windows: Sequence[Window], known: set[str]) -> list[str]:
    requests: dict[str, float] = {}
    for window in windows:
        for name, pair in window.slices.items():
            if name not in known and len(name) <= LONGEST_NAME:
                requests[name] = requests.get(name, 0.0) + pair[0].n + pair[1].n
    return sorted(requests, key=lambda name: (-requests[name], name))


def _slice(
    measure: Measure,
    checkpoint: GuardrailCheckpoint,
    known: SliceCheckpoint,
    pairs: Sequence[Pair],
) -> SliceCheckpoint:
    if not pairs:
        return known
    # What is usual for all requests need not be so for these.
    checkpoint = checkpoint.model_copy(update={"usual": ()})
    return known.model_copy(
        update={
            "harm": _grown(measure, checkpoint, known.harm, pairs),
            "stable": _summed(known.stable, (stable for stable, _ in pairs)),
            "candidate": _summed(known.candidate, (candidate for _, candidate in pairs)),
        }
    )
