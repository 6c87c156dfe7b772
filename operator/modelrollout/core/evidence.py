"""
What is asked of the metrics and what comes back: counts per version in fixed windows.

A `Query` names raw counters, never PromQL. A `Reading` holds the `Window`s that ended since the
watermark. Their edges lie on the step's grid; a window is as wide as the grid's, and wider only
where a version was not seen in between (scraped more seldom than the grid, or away): both
versions are always counted over the same interval. Each window is handed out once, and the same
question with the same watermark is answered with the same windows, however often and by whomever
it is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from modelrollout.api.v1alpha1 import LabelOperator
from modelrollout.stats.bounds import Bound


class Kind(StrEnum):
    """How exposure and events of a guardrail are counted."""

    PROPORTION = "proportion"
    """Events among requests: `n` requests, `k[0]` of them with the event."""
    RATE = "rate"
    """Events over time: `n` target-seconds of exposure, `k[0]` events."""
    DISTRIBUTION = "distribution"
    """A histogram: `n` observations, `k[j]` of them above `thresholds[j]`."""
    PAIRED = "paired"
    """
    Pairs of answers to one request: `n` pairs, in `k[0]` of them this side alone was different.

    The candidate's side is its answer against stable's; stable's is its own second answer.
    """
    MEAN = "mean"
    """Values without an upper bound: `n` of them, `k[0]` their sum."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Matcher:
    """One label condition. The value is data: the adapter quotes it, whatever it contains."""

    label: str
    operator: LabelOperator = LabelOperator.EQUAL
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """The series of one counter (or of one histogram, by its name without `_bucket`)."""

    metric: str
    matchers: tuple[Matcher, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One guardrail's question: these counters, split into stable and candidate."""

    name: str
    kind: Kind
    total: Selector | None
    """Requests, or values. None for a rate (exposure is time) and a distribution (its +Inf bucket)."""
    events: Selector
    """Events; for a distribution the histogram itself, for a mean the sum of the values."""
    stable: tuple[Matcher, ...]
    candidate: tuple[Matcher, ...]
    """What tells the versions apart; added to the matchers of both selectors."""
    thresholds: tuple[float, ...] = ()
    """For a distribution: bucket bounds, in the histogram's unit; `k[j]` counts what lies above."""
    slice_label: str = ""
    """Counts are also given for each value of this label; empty for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """What tells the versions apart in the metrics: matchers of stable and of candidate."""

    stable: tuple[Matcher, ...]
    candidate: tuple[Matcher, ...]
    cohort: tuple[Matcher, ...] = ()
    """Of the cohort's requests, where they are told apart: in neither of the two."""


class Where(StrEnum):
    """Who counts, and so in which steps there is something to compare."""

    PODS = "pods"
    """The versions' own programs: wherever both get requests."""
    ROUTE = "route"
    """The gateway: where users are shared out."""
    COMPARATOR = "comparator"
    """The comparator: where requests are mirrored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One statistical guardrail, with every default filled in."""

    name: str
    query: Query
    tolerance: Bound
    margin: Bound
    """Of a quantile, tolerance and margin bound its value, in the histogram's unit."""
    lower_is_worse: bool
    required: bool
    weight: float = 1.0
    """Share of the error budget, relative to the others'."""
    delay_seconds: float = 0.0
    """How long after a request its event is known."""
    limits: tuple[float, ...] = ()
    quantile: float | None = None
    """Of a distribution: compared here alone."""
    largest: float | None = None
    """Of a mean: no value is larger. None where there may be."""
    slices: int = 0
    """How many slices are watched at most."""
    where: Where = Where.PODS
    is_idle: bool = False
    """There is nothing to compare in this step."""
    key: str
    """Digest of what the evidence rests on: evidence collected under another key is not ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """
    The fixed windows of a step: window i is (start + i * width, start + (i + 1) * width].

    Times are Unix seconds. `watermark` is the end of the last window already handed out
    (`start` when none was): the next reading begins there.
    """

    start: float
    width: float
    watermark: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """One version in one window: exposure `n`, and events `k` (one per threshold)."""

    n: float
    k: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Both versions over the same interval (start, end], Unix seconds."""

    start: float
    end: float
    stable: Counts
    candidate: Counts
    halves: tuple[Counts, Counts] | None = None
    """Stable's, by two halves of its targets; None where it has only one."""
    slices: Mapping[str, tuple[Counts, Counts]] = field(default_factory=dict)
    """Stable's and the candidate's, by the value of the query's slice label."""
    is_incomplete: bool = False
    """
    A target gave no sample in it, or one that counts in part only (new, restarted, long away).

    The counts are true for what they cover; the ratio of the two `n` tells nothing about the split.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What the metrics said since the grid's watermark."""

    windows: tuple[Window, ...] = ()
    watermark: float
    """
    The end of the last window handed out; the next grid starts here.

    Where nothing was handed out it stays, unless the span that was asked for is history: nothing
    can be added to it any more, and it is left behind.
    """
    due: float = field(default=0.0, compare=False)
    """When the next window can be complete, 0 where that is not known; no part of what was read."""
    blind: str = ""
    """Why nothing usable could be read, as a sentence; empty when the metrics were readable."""
    incomplete: int = 0
    """How many of the windows are incomplete: counted, not guessed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What stable did before a step, to begin with: where its quantiles are, and how it bursts."""

    histogram: Histogram | None = None
    """Of a distribution."""
    windows: tuple[Counts, ...] = ()
    """Consecutive windows of the grid's width; of a distribution, at the thresholds it gave."""
    halves: tuple[tuple[Counts, Counts], ...] = ()
    """The same by two halves of stable's targets, where there are two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Raw samples of one counter of one target, as scraped: ascending times, Unix seconds."""

    labels: tuple[tuple[str, str], ...]
    """Sorted, without `__name__`."""
    times: tuple[float, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """One version's histogram over a span: upper bounds (ascending, +Inf last), counts at or below."""

    bounds: tuple[float, ...]
    cumulative: tuple[float, ...]
    until: float = 0.0
    """The end of the span, Unix seconds."""
