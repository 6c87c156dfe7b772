"""
What a step can decide by its deadline, before anything has been measured.

From the traffic, stable's rates and the guardrails' settings alone: how many of the candidate's
requests a step will see, how many it takes to prove that two equal versions are within the
margin, which worse rate would be found out, and, where time is too short, what would do instead.
The figures are those of `stats.planning`, for the operator's own evidence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final

from modelrollout.api.v1alpha1 import DAY_SECONDS, FULL_WEIGHT, Gate
from modelrollout.core.collect import COMMON
from modelrollout.core.evidence import Kind, Measure
from modelrollout.core.steps import Step
from modelrollout.stats import planning
from modelrollout.stats.bounds import Bound
from modelrollout.stats.planning import Outlook

CHANCE: Final = 0.8
"""With which equal versions go on in time, all required guardrails together."""
TAILS: Final = (0.5, 0.1, 0.01)
"""Shares of stable's answers beyond the thresholds of a distribution that are looked at here."""
THRESHOLDS: Final = 8
"""A distribution's evidence is the mean over at most so many thresholds."""
_LONGEST_SECONDS: Final = 30 * DAY_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Pods:
    """How many pods serve the versions: the exposure of guardrails that count events over time."""

    stable: int
    candidate: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A guardrail as far as it can be planned; of a distribution, one of its thresholds."""

    name: str
    tail: float | None = None
    """Of a distribution: the share of stable's answers beyond the threshold."""
    tolerance: Bound
    margin: Bound
    lower_is_worse: bool = False
    stable_rate: float
    """Events per request of stable, or per pod-second."""
    alpha: float
    """Its share of falseRollbackRate."""
    beta: float
    """The chance of a false pass: falsePromoteRate."""
    chance: float = CHANCE
    """With which it lets equal versions go on in time: see `chance_of_each`."""
    required: bool = True
    delay_seconds: float = 0.0
    """What comes earlier in a step cannot prove it."""
    dispersion: float = 1.0
    """The factor by which events come in bursts."""
    counts_others: bool = False
    """Whether the requests without the event are counted, because it is the common outcome."""
    pods: Pods | None = None
    """Exposure is pod-seconds of these; None when it is requests."""

    @property
    def label(self) -> str:
        """The guardrail, and which of its thresholds."""
        return f"{self.name} beyond {self.quantile}" if self.quantile else self.name

    @property
    def quantile(self) -> str:
        """Where the threshold is in stable's answers: p99. Empty for what is no distribution."""
        return "" if self.tail is None else f"p{100 - 100 * self.tail:g}"

    def rate_text(self, rate: float) -> str:
        """A rate of events in its unit: 0.5 %, or 0.01/s."""
        return f"{rate:.3g}/s" if self.pods else percent(rate)

    def bound_text(self, bound: Bound) -> str:
        """The worst rate that a bound allows: 1.5 x stable + 0.1 %."""
        absolute = self.rate_text(bound.absolute)
        return bound_text(bound, absolute, lower_is_worse=self.lower_is_worse)


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """What would let a step decide in time, each by itself; None where no value would."""

    margin: Bound | None
    weight: int | None
    seconds: int | None
    """As the step's maxSeconds."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What one step can decide of one comparison; its requests are pod-seconds where that counts."""

    step: int
    """Its number, from 1, as in status."""
    weight: int
    gate: Gate
    seconds: int
    """Until the deadline."""
    requests: float
    """The candidate's until the deadline, without those of the comparison's delay."""
    min_requests: int
    """What the step asks for in any case."""
    needed_requests: float
    """To prove equal versions within the margin; infinite when no number is enough."""
    needed_seconds: float
    """From the step's start until they are there."""
    limit_requests: float
    """To prove it on average, by the best method there can be."""
    remedy: Remedy | None
    """None when the step decides in time, or does not wait for this comparison."""
    trial: _Trial = field(repr=False)

    @property
    def is_in_time(self) -> bool:
        """Whether this comparison lets equal versions go on by the deadline."""
        return self.remedy is None

    @cached_property
    def visible_rate(self) -> float | None:
        """
        The candidate's rate nearest to the tolerance that these requests find out, with `CHANCE`.

        None when they would not find out the worst. It is searched for when somebody asks.
        """
        comparison = self.trial.comparison
        visible = planning.smallest_visible(
            self.trial.outlook,
            comparison.tolerance,
            comparison.alpha,
            self.requests,
            chance=CHANCE,
            lower_is_worse=comparison.lower_is_worse,
        )
        return None if math.isnan(visible) else visible


def chance_of_each(required: int) -> float:
    """
    The chance that each required guardrail must have for all to let go on with `CHANCE`.

    The chances to miss are shared out (Bonferroni), which is enough however they depend.
    """
    return 1 - (1 - CHANCE) / max(1, required)


def obstacle(measure: Measure) -> str:
    """Why a guardrail cannot be planned, as a sentence; empty when it can."""
    if measure.query.kind is Kind.MEAN:
        return "how far single values spread decides what a mean needs, and no setting says that"
    if measure.quantile is not None:
        return "the histogram's shape decides what a quantile needs, and no setting says that"
    return ""


def comparisons_of(
    measures: Sequence[Measure],
    stable_rates: Mapping[str, float],
    *,
    false_rollback_rate: float,
    false_promote_rate: float,
    pods: Pods | None = None,
) -> tuple[Comparison, ...]:
    """
    The guardrails whose rate of stable is given, by name, and all distributions at `TAILS`.

    Without `pods` events over time are left out, as is what has an `obstacle`.
    """
    weights = sum(each.weight for each in measures)
    required = sum(each.required for each in measures)
    comparisons = []
    for measure in measures:
        is_rate = measure.query.kind is Kind.RATE
        if obstacle(measure) or (is_rate and pods is None):
            continue
        # Where slices are watched, they have half of the bet.
        alpha = false_rollback_rate * measure.weight / weights / (2 if measure.slices else 1)
        plain = Comparison(
            name=measure.name,
            tolerance=measure.tolerance,
            margin=measure.margin,
            lower_is_worse=measure.lower_is_worse,
            stable_rate=0.0,
            alpha=alpha,
            beta=false_promote_rate,
            chance=chance_of_each(required) if measure.required else CHANCE,
            required=measure.required,
            delay_seconds=measure.delay_seconds,
            pods=pods if is_rate else None,
        )
        if measure.query.kind is Kind.DISTRIBUTION:
            comparisons += [
                replace(plain, tail=tail, stable_rate=tail, alpha=alpha / THRESHOLDS)
                for tail in TAILS
            ]
        elif measure.name in stable_rates:
            rate = stable_rates[measure.name]
            is_common = measure.query.kind is Kind.PROPORTION and rate > COMMON
            comparisons.append(replace(plain, stable_rate=rate, counts_others=is_common))
    return tuple(comparisons)


def forecasts(
    comparison: Comparison, steps: Sequence[Step], requests_per_second: float
) -> tuple[Forecast, ...]:
    """
    One for each judged step at a weight; the requests per second are those of both versions together.

    What is found out is by a step's own requests: evidence for harm is carried on from step to
    step, so that a rollout finds out at least as much. Raises ValueError for traffic that is not
    a finite number above 0, and for a rate outside [0, 1].
    """
    if not (math.isfinite(requests_per_second) and requests_per_second > 0):
        raise ValueError(f"requests per second must be above 0, not {requests_per_second}")
    return tuple(
        _forecast(_Trial(comparison, step, requests_per_second), number)
        for number, step in enumerate(steps, 1)
        if step.is_judged and step.weight
    )


def chance_to_see(
    comparison: Comparison, step: Step, requests_per_second: float, candidate_rate: float
) -> float:
    """The chance that a candidate of this rate, beyond the tolerance, fails by the step's deadline."""
    trial = _Trial(comparison, step, requests_per_second)
    return planning.chance_to_decide(
        replace(trial.outlook, candidate_rate=candidate_rate),
        comparison.tolerance,
        comparison.alpha,
        trial.requests,
        lower_is_worse=comparison.lower_is_worse,
    )


def edge_rate(comparison: Comparison, bound: Bound) -> float:
    """The worst rate of the candidate that a bound allows; none is worse when it is outside (0, 1)."""
    if comparison.lower_is_worse:
        return comparison.stable_rate / bound.ratio - bound.absolute
    return bound.ratio * comparison.stable_rate + bound.absolute


@dataclass(frozen=True, slots=True)
class _Trial:
    """A comparison in a step."""

    comparison: Comparison
    step: Step
    requests_per_second: float

    @property
    def outlook(self) -> Outlook:
        """Equal versions at this weight."""
        pods, rate = self.comparison.pods, self.comparison.stable_rate
        share = pods.candidate / (pods.stable + pods.candidate) if pods else self.step.weight / 100
        return Outlook(
            stable_rate=rate,
            candidate_rate=rate,
            weight=share,
            dispersion=self.comparison.dispersion,
            counts_others=self.comparison.counts_others,
            is_centred=pods is None,
        )

    @property
    def per_second(self) -> float:
        """The candidate's exposure."""
        pods = self.comparison.pods
        return pods.candidate if pods else self.requests_per_second * self.step.weight / 100

    @property
    def requests(self) -> float:
        assert self.step.max_seconds is not None
        return self.per_second * max(0.0, self.step.max_seconds - self.comparison.delay_seconds)

    @property
    def min_requests(self) -> int:
        """Those of a rate are not counted."""
        return 0 if self.comparison.pods else self.step.min_requests

    @property
    def needed(self) -> float:
        return planning.needed_requests(
            self.outlook,
            self.comparison.margin,
            self.comparison.beta,
            chance=self.comparison.chance,
            lower_is_worse=self.comparison.lower_is_worse,
        )

    @property
    def chance(self) -> float:
        """With which equal versions are proved within the margin by the deadline."""
        return planning.chance_to_decide(
            self.outlook,
            self.comparison.margin,
            self.comparison.beta,
            self.requests,
            lower_is_worse=self.comparison.lower_is_worse,
        )

    @property
    def is_in_time(self) -> bool:
        if not self.comparison.required:
            return True
        if self.requests < self.min_requests:
            return False
        return self.step.gate is Gate.NO_HARM or self.chance >= self.comparison.chance

    def seconds(self, requests: float) -> float:
        return self.comparison.delay_seconds + requests / self.per_second


def _forecast(trial: _Trial, number: int) -> Forecast:
    comparison, step, needed = trial.comparison, trial.step, trial.needed
    assert step.gate is not None
    assert step.max_seconds is not None
    return Forecast(
        step=number,
        weight=step.weight,
        gate=step.gate,
        seconds=step.max_seconds,
        requests=trial.requests,
        min_requests=trial.min_requests,
        needed_requests=needed,
        needed_seconds=trial.seconds(needed),
        limit_requests=planning.information_limit(
            trial.outlook,
            comparison.margin,
            comparison.beta,
            lower_is_worse=comparison.lower_is_worse,
        ),
        remedy=None if trial.is_in_time else _remedy(trial, needed),
        trial=trial,
    )


# --- what would do ------------------------------------------------------------------------------


def _remedy(trial: _Trial, needed: float) -> Remedy:
    return Remedy(
        margin=_wide_enough_margin(trial),
        weight=_high_enough_weight(trial),
        seconds=_long_enough_seconds(trial, needed),
    )


def _wide_enough_margin(trial: _Trial) -> Bound | None:
    """The margin with a larger ratio, or, if it has an absolute part or no ratio does, with that."""
    comparison = trial.comparison
    ratio, absolute = comparison.margin.ratio, comparison.margin.absolute
    given = (comparison.beta, trial.requests)
    chance, lower_is_worse = comparison.chance, comparison.lower_is_worse
    least = math.inf
    if not absolute:
        least = planning.provable_ratio(
            trial.outlook, *given, chance=chance, lower_is_worse=lower_is_worse
        )
    if math.isfinite(least):
        wider = Bound(1 + _rounded_up(least - 1))
    else:
        least = planning.provable_absolute(
            trial.outlook, ratio, *given, chance=chance, lower_is_worse=lower_is_worse
        )
        if math.isinf(least):
            return None
        wider = Bound(ratio, _rounded_up(least))
    is_enough = replace(trial, comparison=replace(comparison, margin=wider)).is_in_time
    return wider if is_enough and _can_be_broken(comparison, wider) else None


def _can_be_broken(comparison: Comparison, bound: Bound) -> bool:
    return 0 < edge_rate(comparison, bound) < 1


def _high_enough_weight(trial: _Trial) -> int | None:
    if trial.comparison.pods:
        return None
    weights = range(trial.step.weight + 1, FULL_WEIGHT)
    enough = (w for w in weights if replace(trial, step=replace(trial.step, weight=w)).is_in_time)
    return next(enough, None)


def _long_enough_seconds(trial: _Trial, needed: float) -> int | None:
    requests = max(trial.min_requests, 0.0 if trial.step.gate is Gate.NO_HARM else needed)
    if trial.seconds(requests) > _LONGEST_SECONDS:
        return None
    seconds = min(_LONGEST_SECONDS, math.ceil(_rounded_up(trial.seconds(requests))))
    is_enough = replace(trial, step=replace(trial.step, max_seconds=seconds)).is_in_time
    return seconds if is_enough else None


def _rounded_up(number: float) -> float:
    """To two digits, as somebody would write it."""
    unit = 10.0 ** (math.floor(math.log10(number)) - 1)
    return float(f"{math.ceil(number / unit - 1e-9) * unit:.2g}")


# --- in words -----------------------------------------------------------------------------------


def sentence(comparison: Comparison, forecast: Forecast) -> str:
    """The forecast with its numbers and, where time is too short, what would do."""
    what = "pod-seconds" if comparison.pods else "requests"
    delay = comparison.delay_seconds
    without = f" without the first {delay:g} s" if delay else ""
    said = (
        f"{comparison.label}: step {forecast.step} ({forecast.weight} %) will see about"
        f" {about(forecast.requests)} of the candidate's {what} in {forecast.seconds} s{without}"
        f" and {_need(forecast)}"
    )
    remedy = forecast.remedy
    return said if remedy is None else f"{said}; {_would_do(comparison, remedy)}"


def _need(forecast: Forecast) -> str:
    needed, least = forecast.needed_requests, forecast.min_requests
    if forecast.gate is Gate.NO_HARM:
        return f"asks for {least:,}"
    if math.isinf(needed):
        return "no number of them proves its margin"
    if needed < least:
        return f"needs {least:,}, its minRequests"
    return f"needs about {about(math.ceil(needed))} to prove its margin"


def _would_do(comparison: Comparison, remedy: Remedy) -> str:
    ways = []
    if remedy.margin is not None:
        ways.append(f"a margin of {comparison.bound_text(remedy.margin)}")
    if remedy.weight is not None:
        ways.append(f"a weight of {remedy.weight} %")
    if remedy.seconds is not None:
        ways.append(f"a maxSeconds of {remedy.seconds}")
    if not ways:
        return "neither a margin nor a weight nor a maxSeconds alone would do"
    return f"{', '.join(ways[:-1])}{', or ' if ways[1:] else ''}{ways[-1]} would do"


def about(number: float) -> str:
    """A number to three digits: 0.125, 42, 2,650."""
    rounded = float(f"{number:.3g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 100 else f"{rounded:g}"  # noqa: PLR2004


def percent(share: float) -> str:
    """A share to three digits: 0.5 %."""
    return f"{100 * share:.3g} %"


def bound_text(bound: Bound, absolute: str, *, lower_is_worse: bool = False) -> str:
    """The worst rate that a bound allows, with its absolute part as written: 1.5 x stable + 0.1 %."""
    times = "stable" if bound.ratio == 1 else f"{bound.ratio:g} x stable"
    if lower_is_worse and bound.ratio != 1:
        times = f"stable / {bound.ratio:g}"
    if not bound.absolute:
        return times
    return f"{times} {'-' if lower_is_worse else '+'} {absolute}"
