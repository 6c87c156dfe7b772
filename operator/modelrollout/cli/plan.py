"""What a rollout will need, before it is made: requests and time for each step."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from modelrollout.api.v1alpha1 import VersionStatus
from modelrollout.cli.files import Manifest, manifest
from modelrollout.core import forecast
from modelrollout.core.evidence import Kind, Measure, Where
from modelrollout.core.forecast import (
    Comparison,
    Forecast,
    Pods,
    about,
    percent,
)
from modelrollout.core.measures import measures_of
from modelrollout.core.observation import Workload
from modelrollout.core.steps import steps_of
from modelrollout.stats.bounds import Bound

PICTURES = (".png", ".svg")
HEADINGS = ("step", "weight", "gate", "until", "requests", "needed", "after", "limit", "visible")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """A comparison, and what each judged step can do about it."""

    comparison: Comparison
    forecasts: tuple[Forecast, ...]


@click.command(
    epilog="Example: modelrollout plan rollout.yaml --requests-per-second 100"
    " --base-rate errors=0.01 --picture plan.png"
)
@click.argument("rollout", type=click.Path(path_type=Path))
@click.option(
    "--requests-per-second",
    type=float,
    required=True,
    help="Of both versions together.",
)
@click.option(
    "--base-rate",
    "base_rates",
    multiple=True,
    metavar="NAME=RATE",
    help="Stable's rate of a guardrail's events, as a decimal number: errors=0.01. Once for each"
    " proportion (events per request) and rate (events per second of a pod).",
)
@click.option(
    "--pods",
    nargs=2,
    type=click.IntRange(min=1),
    metavar="STABLE CANDIDATE",
    help="How many pods the versions have; needed for guardrails that are rates.",
)
@click.option(
    "--picture",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Draw the chance to detect against the candidate's rate (.png or .svg).",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def plan(
    rollout: Path,
    requests_per_second: float,
    base_rates: tuple[str, ...],
    pods: tuple[int, int] | None,
    picture: Path | None,
    *,
    as_json: bool,
) -> None:
    """
    Say what the steps of ROLLOUT, a manifest, can decide with this traffic.

    Per guardrail and step: the candidate's requests until the deadline (maxSeconds); those needed
    to prove that equal versions are within the margin, and after how many seconds they are there;
    the limit that no method can beat; and the smallest rate of the candidate that the step finds
    out. Where the deadline comes too early, what would do. A distribution is looked at where 50 %,
    10 % and 1 % of stable's answers are slower.
    """
    _check(requests_per_second, picture)
    given = manifest(rollout)
    measures = _measures(given)
    rates = _rates(base_rates, measures)
    if pods is None and (unserved := _names(measures, Kind.RATE)):
        raise click.UsageError(
            f"{unserved[0]} counts events over time: give --pods, for example --pods 10 1"
        )
    analysis = given.spec.analysis
    steps = steps_of(given.spec.strategy)
    comparisons = forecast.comparisons_of(
        measures,
        rates,
        false_rollback_rate=float(analysis.false_rollback_rate),
        false_promote_rate=float(analysis.false_promote_rate),
        pods=Pods(stable=pods[0], candidate=pods[1]) if pods else None,
    )
    rows = [
        _Row(comparison=each, forecasts=forecast.forecasts(each, steps, requests_per_second))
        for each in comparisons
    ]
    if picture is not None:
        _draw(comparisons, steps, requests_per_second, picture)
    if as_json:
        click.echo(json.dumps(_document(given, requests_per_second, rows, measures), indent=2))
    else:
        click.echo("\n".join(_lines(given, requests_per_second, rows, measures)))


# --- what was given -------------------------------------------------------------------------------


def _check(requests_per_second: float, picture: Path | None) -> None:
    if not (math.isfinite(requests_per_second) and requests_per_second > 0):
        raise click.UsageError(
            f"--requests-per-second must be a number above 0, not {requests_per_second}"
        )
    if picture is not None and picture.suffix not in PICTURES:
        raise click.UsageError(f"--picture must end with {' or '.join(PICTURES)}, not {picture}")


def _measures(given: Manifest) -> tuple[Measure, ...]:
    """The guardrails with their defaults; which series they read does not matter here."""
    nobody = Workload(
        version=VersionStatus(deployment="any", service="any", revision="any"),
        desired=0,
        available=0,
        endpoints=0,
        replica_sets=(),
    )
    found = measures_of(given.spec.analysis, given.namespace, given.name, nobody, nobody, None)
    return tuple(each for each in found if each.where is not Where.COMPARATOR)


def _names(measures: Sequence[Measure], *kinds: Kind) -> list[str]:
    return [each.name for each in measures if each.query.kind in kinds]


def _rates(given: Sequence[str], measures: Sequence[Measure]) -> dict[str, float]:
    """Stable's rates by guardrail, one for each that has one."""
    wanted = _names(measures, Kind.PROPORTION, Kind.RATE)
    rates: dict[str, float] = {}
    for each in given:
        name, rate = _rate(each)
        if name in rates:
            raise click.UsageError(f"--base-rate {name} is given twice")
        if name in _names(measures, Kind.DISTRIBUTION):
            raise click.UsageError(
                f"--base-rate {name}: a distribution has none, it is compared where"
                f" {_tails()} of stable's answers are slower; leave it out"
            )
        if name not in wanted:
            known = ", ".join(wanted) or "none"
            raise click.UsageError(
                f"--base-rate {name}: no guardrail of this name has one (those that do: {known})"
            )
        rates[name] = rate
    for name in wanted:
        if name not in rates:
            raise click.UsageError(
                f"stable's rate of {name} is not known: give --base-rate {name}=RATE, for example"
                f" --base-rate {name}=0.01 for 1 %"
            )
    return rates


def _rate(given: str) -> tuple[str, float]:
    name, _, text = given.partition("=")
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0 <= rate <= 1:
        raise click.UsageError(
            f"--base-rate {given}: give NAME=RATE with a rate from 0 to 1, for example errors=0.01"
        )
    return name, rate


def _tails() -> str:
    *most, last = (percent(each) for each in forecast.TAILS)
    return f"{', '.join(most)} and {last}"


def _draw(comparisons: Sequence[Comparison], *rest: Any) -> None:
    """Matplotlib is large and optional: it is imported here and nowhere else."""
    if not comparisons:
        raise click.UsageError("there is nothing to draw: no guardrail can be planned")
    try:
        picture = import_module("modelrollout.cli.picture")
    except ModuleNotFoundError as missing:
        raise click.UsageError(
            f"--picture needs {missing.name}: install modelrollout-operator[pictures]"
        ) from missing
    try:
        picture.draw(comparisons, *rest)
    except OSError as error:
        raise click.UsageError(f"--picture cannot be written: {error}") from error


# --- for people -----------------------------------------------------------------------------------


def _lines(
    given: Manifest, requests_per_second: float, rows: Sequence[_Row], measures: Sequence[Measure]
) -> Iterator[str]:
    analysis = given.spec.analysis
    required = sum(each.required for each in measures)
    chance = percent(forecast.CHANCE)
    if required > 1:
        each = percent(forecast.chance_of_each(required))
        chance = f"{chance} for all {required} required guardrails together ({each} for each)"
    yield (
        f"{given.namespace}/{given.name}: {about(requests_per_second)} requests per second,"
        f" falseRollbackRate {percent(float(analysis.false_rollback_rate))},"
        f" falsePromoteRate {percent(float(analysis.false_promote_rate))}"
    )
    yield ""
    yield "requests  the candidate's until the deadline"
    yield (f"needed    to prove the margin when the versions are equal, with a chance of {chance}")
    yield "limit     what the best possible method needs for that, on average"
    yield (
        "visible   the candidate's rate that is found worse than the tolerance, with a chance of"
        f" {percent(forecast.CHANCE)}"
    )
    for row in rows:
        yield ""
        yield _heading(row.comparison)
        yield from _table(row)
    yield ""
    late = [(r.comparison, f) for r in rows for f in r.forecasts if not f.is_in_time]
    for comparison, found in late:
        yield f"Not in time: {forecast.sentence(comparison, found)}."
    if rows and not late:
        yield "All steps can decide in time."
    for name, why in _left_out(given, measures):
        yield f"Not planned: {name}, because {why}."


def _heading(comparison: Comparison) -> str:
    optional = "" if comparison.required else " (not required)"
    return (
        f"{comparison.label}{optional}: stable {comparison.rate_text(comparison.stable_rate)},"
        f" tolerance {comparison.bound_text(comparison.tolerance)},"
        f" margin {comparison.bound_text(comparison.margin)}"
    )


def _table(row: _Row) -> Iterator[str]:
    cells = [HEADINGS, *(_cells(row.comparison, each) for each in row.forecasts)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(HEADINGS))]
    for line in cells:
        yield "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))


def _cells(comparison: Comparison, found: Forecast) -> tuple[str, ...]:
    visible = found.visible_rate
    return (
        str(found.step),
        f"{found.weight} %",
        found.gate,
        f"{found.seconds} s",
        about(found.requests),
        _number(found.needed_requests),
        f"{_number(found.needed_seconds)} s" if math.isfinite(found.needed_seconds) else "never",
        _number(found.limit_requests),
        "none" if visible is None else comparison.rate_text(visible),
    )


def _number(number: float) -> str:
    return about(math.ceil(number)) if math.isfinite(number) else "infinite"


def _left_out(given: Manifest, measures: Sequence[Measure]) -> Iterator[tuple[str, str]]:
    for guardrail in given.spec.analysis.guardrails:
        if guardrail.limit is not None:
            yield guardrail.name, "a limit is a plain threshold that needs no number of requests"
    for measure in measures:
        if why := forecast.obstacle(measure):
            yield measure.name, why


# --- for programs ---------------------------------------------------------------------------------


def _document(
    given: Manifest, requests_per_second: float, rows: Sequence[_Row], measures: Sequence[Measure]
) -> dict[str, Any]:
    analysis = given.spec.analysis
    return {
        "name": given.name,
        "namespace": given.namespace,
        "requestsPerSecond": requests_per_second,
        "falseRollbackRate": float(analysis.false_rollback_rate),
        "falsePromoteRate": float(analysis.false_promote_rate),
        "chance": forecast.CHANCE,
        "inTime": all(each.is_in_time for row in rows for each in row.forecasts),
        "guardrails": [_row_document(each) for each in rows],
        "notPlanned": dict(_left_out(given, measures)),
    }


def _row_document(row: _Row) -> dict[str, Any]:
    comparison = row.comparison
    return {
        "name": comparison.name,
        "tail": comparison.tail,
        "required": comparison.required,
        "baseRate": comparison.stable_rate,
        "tolerance": _bound(comparison.tolerance),
        "margin": _bound(comparison.margin),
        "lowerIsWorse": comparison.lower_is_worse,
        "chance": comparison.chance,
        "steps": [_step_document(comparison, each) for each in row.forecasts],
    }


def _step_document(comparison: Comparison, found: Forecast) -> dict[str, Any]:
    remedy = found.remedy
    return {
        "step": found.step,
        "weight": found.weight,
        "gate": found.gate,
        "maxSeconds": found.seconds,
        "minRequests": found.min_requests,
        "requests": found.requests,
        "neededRequests": _finite(found.needed_requests),
        "neededSeconds": _finite(found.needed_seconds),
        "limitRequests": _finite(found.limit_requests),
        "visibleRate": found.visible_rate,
        "inTime": found.is_in_time,
        "remedy": None
        if remedy is None
        else {
            "margin": None if remedy.margin is None else _bound(remedy.margin),
            "weight": remedy.weight,
            "maxSeconds": remedy.seconds,
        },
        "message": forecast.sentence(comparison, found),
    }


def _bound(bound: Bound) -> dict[str, float]:
    return {"ratio": bound.ratio, "absolute": bound.absolute}


def _finite(number: float) -> float | None:
    """JSON has no infinity: no number is enough."""
    return number if math.isfinite(number) else None
