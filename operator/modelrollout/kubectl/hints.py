"""What a valid manifest will hardly achieve, said before it is tried."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from modelrollout.api import v1alpha1 as api
from modelrollout.core import forecast
from modelrollout.core.evidence import Kind, Where
from modelrollout.core.forecast import Comparison, Pods
from modelrollout.core.measures import measures_anywhere
from modelrollout.core.steps import steps_of

USUAL_RATE = 0.01
"""Of events, where nobody says another."""
TAIL_REQUESTS = 1000
"""Ten answers of a hundredth: fewer say next to nothing of a p99."""
LATENCY = "/latency"


def hints(
    spec: api.ModelRolloutSpec, per_second: float | None, rates: Mapping[str, float]
) -> tuple[str, ...]:
    """In sentences; none is a reason to refuse it."""
    found = list(_of_tails(spec))
    if per_second is None:
        found.append("give --requests-per-second to hear what this traffic cannot decide in time")
    else:
        found += _of_traffic(spec, per_second, rates)
    return tuple(found)


def _of_tails(spec: api.ModelRolloutSpec) -> Iterator[str]:
    has_quantile = any(e.distribution and e.distribution.quantile for e in spec.analysis.guardrails)
    for each in spec.analysis.guardrails:
        if each.preset is not None and each.preset.endswith(LATENCY) and not has_quantile:
            yield (
                f"{each.name}: preset {each.preset} compares tails at the histogram's own bucket"
                " bounds and gives no p99; for one, add a guardrail with distribution.quantile:"
                " '0.99' on a histogram with fine buckets there"
            )
    if not has_quantile:
        return
    least = min(
        (s.min_requests for s in steps_of(spec.strategy) if s.is_judged), default=TAIL_REQUESTS
    )
    if least < TAIL_REQUESTS:
        yield f"a quantile is compared after {least:,} requests: of a p99 that is {least / 100:g} answers; minRequests: {TAIL_REQUESTS} says more"


def _of_traffic(
    spec: api.ModelRolloutSpec, per_second: float, rates: Mapping[str, float]
) -> Iterator[str]:
    """The plan's sentences for the steps that end undecided."""
    measures = [
        each for each in measures_anywhere(spec.analysis) if each.where is not Where.COMPARATOR
    ]
    asked = [each.name for each in measures if each.query.kind in {Kind.PROPORTION, Kind.RATE}]
    known = {name: rates.get(name, USUAL_RATE) for name in asked}
    comparisons = forecast.comparisons_of(
        measures,
        known,
        false_rollback_rate=float(spec.analysis.false_rollback_rate),
        false_promote_rate=float(spec.analysis.false_promote_rate),
        pods=Pods(stable=1, candidate=1),
    )
    steps = steps_of(spec.strategy)
    late: dict[str, str] = {}
    for comparison in comparisons:
        for each in forecast.forecasts(comparison, steps, per_second):
            if not each.is_in_time:
                late.setdefault(
                    comparison.name, _late(comparison, forecast.sentence(comparison, each), rates)
                )
    yield from late.values()


def _late(comparison: Comparison, said: str, rates: Mapping[str, float]) -> str:
    is_guess = comparison.tail is None and comparison.name not in rates
    guess = f" (if {forecast.percent(USUAL_RATE)} of stable's requests have the event; --base-rate {comparison.name}=RATE says better)"
    return f"not in time: {said}{guess if is_guess else ''}"
