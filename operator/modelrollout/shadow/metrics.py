"""
What the comparator tells, all of it: counters and histograms for Prometheus.

Every series exists from the start, at 0, so that a growth is never missed. Labels are bounded by
the spec: names of outputs, and the members of the enumerations below.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from modelrollout.shadow.answers import Output

PREFIX: Final = "modelrollout_comparator"
SECONDS: Final = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
SHIFTS: Final = (0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1)
SHIFT_BOUNDS: Final = (*(-each for each in reversed(SHIFTS[1:])), *SHIFTS)


class Side(StrEnum):
    """Who is asked."""

    STABLE = "stable"
    CANDIDATE = "candidate"
    REPEAT = "repeat"
    """Stable, a second time."""


VERSIONS: Final = (Side.STABLE, Side.CANDIDATE)


class Skip(StrEnum):
    """Why a request is not compared, with nothing lost by it."""

    METHOD = "method"
    PATH = "path"
    BUDGET = "budget"
    BACKPRESSURE = "backpressure"
    REFUSED = "refused"
    """Both versions refused it with the same status: it is the request that was wrong."""


class Loss(StrEnum):
    """Why an answer, or a request, could not be compared."""

    TIMEOUT = "timeout"
    CONNECTION = "connection"
    STATUS_3XX = "status_3xx"
    STATUS_4XX = "status_4xx"
    STATUS_5XX = "status_5xx"
    MALFORMED = "malformed"
    SHAPE = "shape"
    TOO_LARGE = "too_large"
    MEMORY = "memory"
    """There was no room for its body, as others were held."""
    CANCELLED = "cancelled"
    """The process, or the gateway, ended before its time."""
    SLOW = "slow"
    """To compare it took longer than JUDGING_SECONDS: a pattern of the spec's that is slow on it."""
    INTERNAL = "internal"
    """A mistake of the comparator itself, told in its log."""


OURS: Final = (Loss.TOO_LARGE, Loss.MEMORY, Loss.CANCELLED, Loss.SLOW, Loss.INTERNAL)
"""What no version is to blame for."""
FAILURES: Final = tuple(each for each in Loss if each not in OURS)
REQUEST: Final = "request"
"""The leg of what no version has lost."""


class Metrics:
    """All series of one comparison."""

    def __init__(self, rollout: str, outputs: Sequence[Output]) -> None:
        self.registry = CollectorRegistry()
        self._rollout = rollout
        ProcessCollector(registry=self.registry)

        (self.received,) = self._counters("received", "Mirrored requests.", [()])
        self.skipped = self._by(
            "skipped",
            "Requests that were left out on purpose, or refused by both versions alike.",
            ["reason"],
            [(x,) for x in Skip],
        )
        legs = [(leg, loss) for leg in (REQUEST, *VERSIONS) for loss in Loss]
        self.unpaired = self._by(
            "unpaired",
            "Requests that should have been compared, and could not be.",
            ["leg", "reason"],
            legs,
        )
        (self.pairs,) = self._counters("pairs", "Requests whose two answers were compared.", [()])
        self.answers = self._by(
            "answers", "Calls that were answered, or failed.", ["side"], [(x,) for x in Side]
        )
        self.failures = self._by(
            "failures",
            "Calls without a usable answer; never counted as a disagreement.",
            ["side", "reason"],
            [(side, loss) for side in Side for loss in FAILURES],
        )
        self._name_outputs(outputs)
        self.paired = self._by(
            "paired",
            "Requests that stable answered twice and the candidate once, for each side alike.",
            ["side"],
            [(x,) for x in VERSIONS],
        )
        self.flips = self._by(
            "flips",
            "Of these, where only the candidate (candidate) or only stable's second answer (stable) differed from stable's first.",
            ["side"],
            [(x,) for x in VERSIONS],
        )
        self._name_labels()
        self._name_load()

    def _name_outputs(self, outputs: Sequence[Output]) -> None:
        names = [(each.name, each.kind) for each in outputs]
        self.disagreements = list(
            self._counters(
                "disagreements",
                "Pairs whose answers differ, by output.",
                names,
                ["output", "kind"],
            )
        )
        self.noise_disagreements = list(
            self._counters(
                "noise_disagreements",
                "Pairs of stable's two answers that differ, by output.",
                names,
                ["output", "kind"],
            )
        )
        shift = Histogram(
            f"{PREFIX}_score_shift",
            "Candidate (candidate), or stable's second answer (repeat), less stable's first: a number, a score, or a distance.",
            ["rollout", "output", "side"],
            buckets=SHIFT_BOUNDS,
            registry=self.registry,
        )
        self.shifts = {
            side: [shift.labels(self._rollout, name, side) for name, _ in names]
            for side in (Side.CANDIDATE, Side.REPEAT)
        }

    def _name_labels(self) -> None:
        self.labels = self._by(
            "labels",
            "Labels that came, by whether their request was known.",
            ["outcome"],
            [("matched",), ("unknown",)],
        )
        self.labelled = self._by(
            "labelled", "Requests whose label is known.", ["side"], [(x,) for x in VERSIONS]
        )
        self.wrong = self._by(
            "wrong", "Of these, where the version was wrong.", ["side"], [(x,) for x in VERSIONS]
        )
        (self.negative_flips,) = self._counters(
            "negative_flips", "Of these, where stable was right and the candidate wrong.", [()]
        )
        (self.positive_flips,) = self._counters(
            "positive_flips", "Of these, where stable was wrong and the candidate right.", [()]
        )

    def _name_load(self) -> None:
        seconds = Histogram(
            f"{PREFIX}_answer_seconds",
            "How long an answer took, failures left out.",
            ["rollout", "side"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.seconds = {side: seconds.labels(self._rollout, side) for side in Side}
        self.inflight = self._gauge("inflight", "Requests that are being repeated.")
        self.held_bytes = self._gauge("held_bytes", "Bytes of bodies that are held.")
        self.admitted_share = self._gauge(
            "admitted_share", "The share of the requests that is repeated now, 0 to 1."
        )

    def _by(
        self, name: str, text: str, labels: Sequence[str], values: Sequence[tuple[str, ...]]
    ) -> dict[tuple[str, ...], Counter]:
        """Counters by the values of their labels."""
        return dict(zip(values, self._counters(name, text, values, labels), strict=True))

    def _counters(
        self,
        name: str,
        text: str,
        values: Iterable[tuple[str, ...]],
        labels: Sequence[str] = (),
    ) -> Iterable[Counter]:
        counter = Counter(
            f"{PREFIX}_{name}_total", text, ["rollout", *labels], registry=self.registry
        )
        return [counter.labels(self._rollout, *each) for each in values]

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"{PREFIX}_{name}", text, ["rollout"], registry=self.registry).labels(
            self._rollout
        )
