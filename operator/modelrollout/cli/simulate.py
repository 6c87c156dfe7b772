"""`modelrollout simulate`: a manifest in a simulated world, many times."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from modelrollout.cli.files import Manifest, documents, manifest
from modelrollout.simulation.limit import Limit, limit_of
from modelrollout.simulation.rollout import Decision, checked
from modelrollout.simulation.scenario import Scenario, scenario_of
from modelrollout.simulation.summary import Summary, results_of, summary_of

FILE = click.Path(path_type=Path)
WORDS = {
    Decision.PROMOTED: "promoted",
    Decision.ROLLED_BACK: "rolled back",
    Decision.INCONCLUSIVE: "inconclusive",
}


@click.command(
    epilog="Example: modelrollout simulate rollout.yaml --world world.yaml --runs 50."
    " docs/simulate.md has the fields of a world."
)
@click.argument("rollout", metavar="ROLLOUT.yaml", type=FILE)
@click.option(
    "--world", metavar="WORLD.yaml", type=FILE, required=True, help="What it is tried in."
)
@click.option("--runs", type=click.IntRange(1, 1_000_000), default=200, show_default=True)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the chance."
)
@click.option(
    "--jobs", type=click.IntRange(1, 1024), help="Processes.  [default: one for each core]"
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def simulate(
    rollout: Path, world: Path, runs: int, seed: int, jobs: int | None, *, as_json: bool
) -> None:
    """
    Say what the operator would do with ROLLOUT.yaml, a manifest, in a world of your making.

    The operator's own passes run against simulated users, gateway, pods and Prometheus, on a
    virtual clock, without a cluster: how often the candidate is promoted, rolled back or not
    decided, how soon, and how many users met it. The same seed gives the same figures.
    """
    given = manifest(rollout)
    body = {
        "metadata": {"name": given.name, "namespace": given.namespace},
        "spec": given.body["spec"],
    }
    scenario = _scenario(world)
    try:
        spec, exports = checked(body, scenario)
    except ValueError as error:
        raise click.UsageError(f"{rollout} in {world}: {error}") from error
    results = results_of(body, scenario, runs=runs, seed=seed, jobs=jobs or _cores())
    with click.progressbar(results, length=runs, file=sys.stderr, hidden=not _is_watched()) as bar:
        found = summary_of(list(bar), limit_of(spec, scenario, exports))
    if as_json:
        click.echo(json.dumps(_document(found, given, seed), indent=2))
    else:
        click.echo("\n".join(_lines(found, given, seed)))


def _scenario(path: Path) -> Scenario:
    found = documents(path)
    if len(found) != 1:
        raise click.UsageError(f"{path} holds {len(found)} documents: give a file with one world")
    try:
        return scenario_of(found[0])
    except ValueError as error:
        raise click.UsageError(f"{path}: {error}") from error


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0))


def _is_watched() -> bool:
    return sys.stderr.isatty()


# --- for programs ---------------------------------------------------------------------------------


def _document(found: Summary, given: Manifest, seed: int) -> dict[str, Any]:
    limit = found.limit
    return {
        "name": given.name,
        "namespace": given.namespace,
        "seed": seed,
        "runs": found.runs,
        **{each.value: found.counts[each] for each in Decision},
        "decisionSeconds": _percentiles(found.decision_seconds),
        "rolloutSeconds": _percentiles(found.rollout_seconds),
        "candidateRequests": _percentiles(found.candidate_requests),
        "badRequests": _percentiles(found.bad_requests, least=1),
        "limitRequests": limit and round(limit.requests, 1),
        "limitGuardrail": limit and limit.guardrail,
        "limitDecision": limit and _limit_decision(limit).value,
        "ratioToLimit": found.ratio_to_limit and round(found.ratio_to_limit, 3),
        "reasons": dict(found.reasons.most_common()),
    }


def _percentiles(values: tuple[float, float, float], least: int = 0) -> dict[str, float]:
    named = zip(("p5", "p50", "p95"), values, strict=True)
    return {name: round(value, 1) for name, value in list(named)[least:]}


def _limit_decision(limit: Limit) -> Decision:
    return Decision.ROLLED_BACK if limit.is_rollback else Decision.PROMOTED


# --- for people -----------------------------------------------------------------------------------


def _lines(found: Summary, given: Manifest, seed: int) -> Iterator[str]:
    yield f"{given.namespace}/{given.name}: {found.runs} simulated rollouts, seed {seed}"
    yield ""
    for decision in Decision:
        yield _share(found, decision)
    yield ""
    yield f"{'':24}{'5 %':>12}{'median':>12}{'95 %':>12}"
    for name, values in (
        ("seconds to decide", found.decision_seconds),
        ("seconds with the bake", found.rollout_seconds),
        ("candidate's requests", found.candidate_requests),
        ("bad answers among them", found.bad_requests),
    ):
        yield f"{name:24}" + "".join(f"{each:12,.0f}" for each in values)
    yield ""
    if found.limit is not None:
        yield _limit(found, found.limit)
    for reason, count in found.reasons.most_common():
        yield f"{count:6} x {reason}"
    yield ""
    yield _sentence(found)


def _share(found: Summary, decision: Decision) -> str:
    count, (low, high) = found.counts[decision], found.share_limits(decision)
    limits = f"({_percent(low)} to {_percent(high)})"
    return f"{WORDS[decision]:24}{count:12,}{_percent(count / found.runs):>12}{limits:>24}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _limit(found: Summary, limit: Limit) -> str:
    what = "see that the candidate is worse" if limit.is_rollback else "prove the margins"
    return (
        f"No method needs fewer than {limit.requests:,.0f} of the candidate's requests on average to"
        f" {what} ({limit.guardrail}); the median here is {found.ratio_to_limit:.2f} times that."
    )


def _sentence(found: Summary) -> str:
    """What it means."""
    usual = found.usual
    share = _percent(found.counts[usual.decision] / found.runs)
    ended = f"In this world {share} of the rollouts are {WORDS[usual.decision]}"
    met = f"after {usual.seconds:,.0f} s and {usual.candidate_requests:,.0f} of the candidate's requests"
    match usual.decision:
        case Decision.ROLLED_BACK:
            bad = f"of which {usual.bad_requests:,.0f} were answered badly"
            return f"{ended}, in the median {met}, {bad}."
        case Decision.PROMOTED:
            return f"{ended}; in the median their last gate is passed {met}."
        case Decision.INCONCLUSIVE:
            reason, _ = found.reasons.most_common(1)[0]
            remedy = "`modelrollout plan` says how many requests each step needs"
            return f"{ended}, most often because of {reason}: {remedy}."
