"""
Rollouts of equal versions, made of the past: one half of a version's pods against the other.

The history is cut into stretches of the length of a rollout. In each of them the pods are split
at random, several times, and the guardrails judge one half as if it were the candidate of the
other. There was no release, so each rollback is a false alarm. Splits of one stretch see the same
requests and share their fate: what was seen counts as many times as there were stretches.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from modelrollout.api.v1alpha1 import Verdict
from modelrollout.backtest.history import (
    Advance,
    Period,
    Pods,
    Question,
    Record,
    Source,
    Span,
    Unfit,
    between,
    measures_between,
    pods_seen,
    recorded,
)
from modelrollout.backtest.replay import Look, Script, failed_look, looks
from modelrollout.core.evidence import Kind, Measure, Split
from modelrollout.errors import MetricsUnavailable
from modelrollout.stats.binomial import share_bounds

LEAST_PODS = 2
AT_ONCE = 4
"""Splits that are read together: a Prometheus that is asked too much at once answers too late."""
RATIOS = (1.1, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 5.0, 10.0)
"""Tolerances that are tried where the given one is too tight."""
CONFIDENCE = 0.95
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """How one rollout of equal versions would have ended."""

    stretch: Span
    candidate: tuple[str, ...]
    """The pods that played the candidate."""
    requests: float
    """Theirs, by the guardrail that counted fewest."""
    culprits: tuple[str, ...]
    """Who would have rolled it back; empty where nobody."""
    failed: float | None
    untrusted: tuple[str, ...]
    """Guardrails that took themselves out: two halves of stable differed, too."""
    held_by: Mapping[str, float]
    """Ratios of the tolerances with which it would not have been rolled back; infinite for none."""
    blind: Mapping[str, float]
    """The share of the time in which each guardrail could not be read."""
    why_blind: Mapping[str, str]
    """Why it could not, the first time; empty where there is no more to say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """False alarms among trials, with the interval that the number of stretches allows."""

    alarms: int
    trials: int
    stretches: int
    """Stretches are independent of each other, splits of one are not."""

    @property
    def value(self) -> float:
        """Alarms per trial."""
        return self.alarms / self.trials

    @property
    def bounds(self) -> tuple[float, float]:
        """Clopper-Pearson's, as if each stretch had been one trial."""
        return share_bounds(self.value * self.stretches, self.stretches, 1 - CONFIDENCE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What came of all trials."""

    period: Period
    seconds: float
    """Length of a stretch."""
    names: tuple[str, ...]
    """Of the guardrails that compare."""
    promised: float
    trials: tuple[Trial, ...]
    left_out: tuple[tuple[Span, str], ...]
    """Stretches that could not be used, and why."""
    tolerances: Mapping[str, float] | None
    """Ratios with which the promise would have been kept; None where none of those tried would do."""

    @property
    def stretches(self) -> int:
        """How many could be used."""
        return len({each.stretch for each in self.trials})

    def share(self, name: str | None = None) -> Share:
        """Trials that a guardrail (or, without a name, any) would have rolled back."""
        alarms = sum(
            bool(each.culprits) if name is None else name in each.culprits for each in self.trials
        )
        return Share(alarms=alarms, trials=len(self.trials), stretches=self.stretches)

    @property
    def keeps_promise(self) -> bool:
        """Whether false alarms were at most as frequent as promised."""
        return self.share().value <= self.promised + ROUNDING

    @property
    def stretches_to_prove(self) -> int:
        """How many stretches without any alarm would prove the promise, with the same confidence."""
        return math.ceil(math.log((1 - CONFIDENCE) / 2) / math.log1p(-self.promised))


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """How the history is cut, and how often and by which chance pods are split."""

    seconds: float
    splits: int
    seed: int

    def stretches(self, period: Period) -> list[Period]:
        """The stretches that fit into a period; what is left at its end is not used."""
        count = math.floor((period.end - period.start) / self.seconds + ROUNDING)
        starts = [period.start + index * self.seconds for index in range(count)]
        return [Period(start=each, end=each + self.seconds, width=period.width) for each in starts]

    def halves(self, stretch: Period, pods: Collection[str]) -> list[Halves]:
        """Different splits of the pods: fewer than asked for where there are not so many."""
        chance = Random(f"{self.seed}/{stretch.start}")  # noqa: S311  # to be repeated, not secret
        drawn: dict[frozenset[str], Halves] = {}
        while len(drawn) < min(self.splits, splits_of(len(pods))):
            halves = Halves(chance, pods)
            drawn[halves.candidate] = halves
        return list(drawn.values())


def splits_of(pods: int) -> int:
    """In how many ways so many pods fall into two halves, one of them the candidate."""
    return math.comb(pods, pods // 2) * (1 + pods % 2)


class Halves:
    """A random split of pods."""

    def __init__(self, chance: Random, pods: Collection[str]) -> None:
        shuffled = chance.sample(sorted(pods), len(pods))
        # Of an odd number either half may be the larger one.
        middle = (len(pods) + chance.randrange(2)) // 2
        self.candidate = frozenset(shuffled[:middle])
        self.stable = frozenset(shuffled[middle:])

    def split(self, pods: Pods) -> Split:
        """What tells the halves apart."""
        return Split(
            stable=pods.matching(_any_of(self.stable)),
            candidate=pods.matching(_any_of(self.candidate)),
        )


def _any_of(pods: Collection[str]) -> str:
    return "|".join(re.escape(each) for each in sorted(pods))


class Unreadable(MetricsUnavailable):
    """Prometheus answers, and has nothing that could be compared."""


async def calibrated(
    source: Source, question: Question, stable: str, draw: Draw, advance: Advance
) -> Calibration:
    """
    Read a history and judge halves of the pods that `stable` matches.

    Raises MetricsUnavailable where nothing can be read, and Unfit where there are never two pods.
    """
    analysis = question.analysis
    trials: list[Trial] = []
    left_out: list[tuple[Span, Exception]] = []
    for stretch in draw.stretches(question.period):
        try:
            trials += await _trials(source, replace(question, period=stretch), stable, draw)
        except (Unfit, Unreadable) as error:
            left_out.append((stretch, error))
        advance(stretch.seconds)
    if not trials:
        raise next((e for _, e in left_out if isinstance(e, Unfit)), left_out[0][1])
    promised = float(analysis.false_rollback_rate)
    needs = [each.held_by for each in trials if each.culprits]
    return Calibration(
        period=question.period,
        seconds=draw.seconds,
        names=tuple(each.name for each in analysis.guardrails if each.limit is None),
        promised=promised,
        trials=tuple(trials),
        left_out=tuple((span, str(error)) for span, error in left_out),
        tolerances=_tolerances(needs, promised * len(trials)),
    )


# --- a stretch ----------------------------------------------------------------------------------


async def _trials(source: Source, question: Question, stable: str, draw: Draw) -> list[Trial]:
    """One for each split of whose halves anything could be read."""
    pods, stretch = question.pods, question.period
    whole = pods.matching(stable)
    measures = measures_between(question, Split(stable=whole, candidate=whole))
    seen = await pods_seen(source, measures, whole, pods.label, stretch)
    if len(seen) < LEAST_PODS:
        raise Unfit(_too_few(pods, stable, seen))
    halves = draw.halves(stretch, seen)
    trials: list[Trial] = []
    for first in range(0, len(halves), AT_ONCE):
        some = halves[first : first + AT_ONCE]
        read = await asyncio.gather(
            *(_records(source, measures, each.split(pods), stretch) for each in some)
        )
        trials += [
            _trial(question, measures, each, records)
            for each, records in zip(some, read, strict=True)
        ]
    readable = [each for each in trials if min(each.blind.values()) < 1]
    if not readable:
        why = next(filter(None, trials[0].why_blind.values()), "Its pods were not there together.")
        raise Unreadable(why)
    return readable


def _too_few(pods: Pods, stable: str, seen: Collection[str]) -> str:
    found = f"only {min(seen)}" if seen else "nothing that any guardrail counts"
    return (
        f"--stable {stable} (label {pods.label}) matches {found}: two halves need at least two"
        " pods. Widen the expression, or let the version run with more pods for a while"
    )


async def _records(
    source: Source, measures: Sequence[Measure], split: Split, stretch: Period
) -> dict[str, Record]:
    found = await asyncio.gather(
        *(recorded(source, between(each, split), stretch, lambda _: None) for each in measures)
    )
    return dict(zip((each.name for each in measures), found, strict=True))


# --- a trial ------------------------------------------------------------------------------------


def _trial(
    question: Question, measures: tuple[Measure, ...], halves: Halves, records: Mapping[str, Record]
) -> Trial:
    stretch = question.period
    script = Script(analysis=question.analysis, measures=measures, period=stretch, records=records)
    last: Look | None = None
    for last in looks(script):
        if last.judgement.verdict is Verdict.FAIL:
            break
    assert last is not None
    culprits = last.judgement.culprits
    return Trial(
        stretch=stretch,
        candidate=tuple(sorted(halves.candidate)),
        requests=_requests(measures, records),
        culprits=culprits,
        failed=last.time if culprits else None,
        untrusted=last.judgement.untrusted,
        held_by=_held_by(script) if culprits else {},
        blind={name: each.blind_share(stretch) for name, each in records.items()},
        why_blind={
            name: next((blind.why for blind in each.blind), "") for name, each in records.items()
        },
    )


def _requests(measures: Sequence[Measure], records: Mapping[str, Record]) -> float:
    counted = [
        sum(each.candidate.n for each in records[measure.name].windows)
        for measure in measures
        if measure.query.kind is not Kind.RATE
    ]
    return min(counted, default=0.0)


def _held_by(script: Script) -> dict[str, float]:
    """Each culprit's tolerance is widened, step by step, until nobody is a culprit any more."""
    ratios: dict[str, float] = {}
    while (look := failed_look(script)) and math.inf not in ratios.values():
        for measure in script.measures:
            if measure.name in look.judgement.culprits:
                ratios[measure.name] = _next_ratio(measure)
        widened = tuple(_widened(each, ratios.get(each.name)) for each in script.measures)
        script = replace(script, measures=widened)
    return ratios


def _next_ratio(measure: Measure) -> float:
    if measure.quantile is not None:
        # Its tolerance is in the thresholds, which were chosen before: it takes another run.
        return math.inf
    return next((each for each in RATIOS if each > measure.tolerance.ratio), math.inf)


def _widened(measure: Measure, ratio: float | None) -> Measure:
    if ratio is None or math.isinf(ratio):
        return measure
    return replace(measure, tolerance=replace(measure.tolerance, ratio=ratio))


def _tolerances(needs: Sequence[Mapping[str, float]], allowed: float) -> dict[str, float] | None:
    """The least ratios with which at most so many trials would still have been rolled back."""
    chosen: dict[str, float] = {}
    while True:
        wanting = [
            (name, ratio)
            for need in needs
            for name, ratio in need.items()
            if ratio > chosen.get(name, 0.0)
        ]
        open_ones = sum(any(r > chosen.get(n, 0.0) for n, r in need.items()) for need in needs)
        if open_ones <= allowed + ROUNDING:
            return chosen
        name = Counter(name for name, _ in wanting).most_common(1)[0][0]
        ratio = min(ratio for other, ratio in wanting if other == name)
        if math.isinf(ratio):
            return None
        chosen[name] = ratio
