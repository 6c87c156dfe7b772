"""
The course of a rollout, for people who look at it later: status knows the present only.

A trace is bounded: when there are too many points some are left out, never the last of a step.
Nothing decides by it. As a file it is JSON, compressed; its form is for `modelrollout report`.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache

from pydantic import TypeAdapter

from modelrollout.api import v1alpha1 as api
from modelrollout.core.evidence import Kind, Matcher
from modelrollout.stats.bounds import Bound

MAX_POINTS = 240
MAX_DECISIONS = 60
MAX_BYTES = 96 * 1024
"""Of one trace, compressed: five of them fit into a ConfigMap."""
MAX_PLAIN_BYTES = 2 * 1024 * 1024
"""Nothing that is larger is unpacked."""
FEW_POINTS = 16
GZIP = 16 + zlib.MAX_WBITS

Row = tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One guardrail at one moment."""

    name: str
    verdict: api.Verdict
    harm: float | None = None
    safety: float | None = None
    stable: Row = ()
    """Exposure and events of this step, the events per threshold."""
    candidate: Row = ()
    until: float = 0.0
    """Up to when that was counted."""
    value: float | None = None
    """Of a limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One pass."""

    time: float
    step: int | None
    weight: int
    accepted: int | None
    mirror: int
    coverage: float | None
    requests: int | None
    guardrails: tuple[Level, ...] = ()
    """Empty until the step's share is in force."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Something that was told in an Event."""

    time: float
    what: str
    message: str
    by: str | None
    is_warning: bool
    weight: int
    """That it led to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """Who was compared."""

    deployment: str
    revision: str
    model: api.ModelIdentity | None = None
    images: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Guardrail:
    """What was asked of a guardrail."""

    name: str
    kind: Kind | None
    """None of a limit."""
    metric: str
    tolerance: Bound | None = None
    margin: Bound | None = None
    lower_is_worse: bool = False
    required: bool = True
    quantile: float | None = None
    thresholds: Row = ()
    dispersion: Row = ()
    slice_label: str = ""
    limit: str = ""
    """In words."""
    matchers: tuple[tuple[Matcher, ...], ...] = ()
    """Of a distribution: its own, stable's and the candidate's, to read the histograms by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """One slice of a guardrail, over the last step that was judged."""

    guardrail: str
    name: str
    harm: float
    stable: Row
    candidate: Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One rollout."""

    namespace: str
    rollout: str
    uid: str
    candidate: Version
    stable: Version | None
    began: float | None
    """None: a part, whose beginning somebody else has."""
    ended: float | None = None
    outcome: str = ""
    """The cause in one word, once it has ended."""
    message: str = ""
    is_revert: bool = False
    steps: int | None = None
    false_rollback_rate: float = 0.01
    false_promote_rate: float = 0.05
    guardrails: tuple[Guardrail, ...] = ()
    points: tuple[Point, ...] = ()
    decisions: tuple[Decision, ...] = ()
    slices: tuple[Slice, ...] = ()

    @property
    def name(self) -> str:
        """Of its file: names sort as the rollouts began."""
        began = datetime.fromtimestamp(self.began or 0.0, UTC)
        return f"{began:%Y%m%dT%H%M%SZ}-{self.candidate.revision[:24]}.json.gz"


def trace_of(rollout: str) -> str:
    """The name of the ConfigMap with a ModelRollout's traces."""
    return f"{rollout}-trace"


# --- bounded --------------------------------------------------------------------------------


def thinned(points: Sequence[Point], at_most: int) -> tuple[Point, ...]:
    """Few enough points, evenly over time; the last one before each change stays, and the next."""
    if len(points) <= at_most:
        return tuple(points)
    spacing = 2 * (points[-1].time - points[0].time) / at_most
    kept, last = [points[0]], points[0]
    for before, point, after in zip(points, points[1:], (*points[2:], None), strict=False):
        is_edge = after is None or _place(after) != _place(point) or _place(before) != _place(point)
        if is_edge or point.time - last.time >= spacing:
            kept.append(point)
            last = point
    return tuple(kept[-at_most:])


def _place(point: Point) -> tuple[object, ...]:
    return point.step, point.weight, point.mirror, bool(point.guardrails)


def joined(old: Trace, new: Trace) -> Trace:
    """One trace of two parts; what is not a matter of time is as the later part has it."""
    return replace(
        new,
        began=old.began if old.began is not None else new.began,
        stable=new.stable or old.stable,
        steps=new.steps or old.steps,
        guardrails=_by_name(old.guardrails, new.guardrails),
        points=thinned(_in_order(old.points, new.points), MAX_POINTS),
        decisions=_shortened((*old.decisions, *new.decisions)),
        slices=new.slices or old.slices,
    )


def _in_order(old: Sequence[Point], new: Sequence[Point]) -> list[Point]:
    """Who leads no more may write its last points after the first of who leads now."""
    return sorted((*old, *new), key=lambda each: each.time)


def _by_name(old: Sequence[Guardrail], new: Sequence[Guardrail]) -> tuple[Guardrail, ...]:
    return tuple(({each.name: each for each in old} | {each.name: each for each in new}).values())


def _shortened(decisions: tuple[Decision, ...]) -> tuple[Decision, ...]:
    """How it began is kept, and how it ended."""
    if len(decisions) <= MAX_DECISIONS:
        return decisions
    return (decisions[0], *decisions[1 - MAX_DECISIONS :])


# --- as a file ------------------------------------------------------------------------------


def encoded(trace: Trace) -> bytes:
    """The trace as a file of at most MAX_BYTES, if need be with fewer points."""
    data = _packed(trace)
    while _is_too_large(data) and len(trace.points) > FEW_POINTS:
        trace = replace(trace, points=thinned(trace.points, len(trace.points) // 2))
        data = _packed(trace)
    if _is_too_large(data):
        data = _packed(replace(trace, slices=(), decisions=trace.decisions[-FEW_POINTS:]))
    return data


def _is_too_large(data: bytes) -> bool:
    """Packed or, as the end of the file says, unpacked: `decoded` would not take it."""
    return len(data) > MAX_BYTES or int.from_bytes(data[-4:], "little") > MAX_PLAIN_BYTES


def decoded(data: bytes) -> Trace:
    """The trace in a file; ValueError where it is none."""
    unpacker = zlib.decompressobj(GZIP)
    try:
        plain = unpacker.decompress(data, MAX_PLAIN_BYTES)
    except zlib.error as error:
        raise ValueError(f"this is not a trace: {error}") from error
    if not unpacker.eof:
        raise ValueError("this is not a trace: it is cut off, or too large")
    return _adapter().validate_json(plain)


def _packed(trace: Trace) -> bytes:
    # A time of packing would make files of equal traces differ.
    return gzip.compress(_adapter().dump_json(trace, exclude_defaults=True), 6, mtime=0)


@cache
def _adapter() -> TypeAdapter[Trace]:
    return TypeAdapter(Trace)
