"""`lint`: what is wrong with manifests, and what is doubtful, without a cluster."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import yaml

from modelrollout.api import v1alpha1 as api
from modelrollout.kubectl import hints
from modelrollout.kubectl import lint as rules
from modelrollout.kubectl.failures import NO, Failure
from modelrollout.kubectl.kubeconfig import access
from modelrollout.kubectl.server import PLURAL, ROLLOUTS, Server

STANDARD_INPUT = "-"


@click.command(
    "lint",
    epilog="Example: modelrollout lint rollout.yaml --requests-per-second 20 --base-rate errors=0.01",
)
@click.argument(
    "files",
    nargs=-1,
    required=True,
    metavar="FILE...",
    type=click.Path(path_type=Path, allow_dash=True),
)
@click.option(
    "--requests-per-second",
    type=click.FloatRange(min=0, min_open=True),
    help="Of both versions together: for hints on what they cannot decide in time.",
)
@click.option(
    "--base-rate",
    "base_rates",
    multiple=True,
    metavar="NAME=RATE",
    help="Stable's rate of a guardrail's events, as a decimal number.  [default: 0.01]",
)
@click.option(
    "--server",
    "with_server",
    is_flag=True,
    help="Ask the API server of the current context as well (a dry run).",
)
def lint(
    files: tuple[Path, ...],
    requests_per_second: float | None,
    base_rates: tuple[str, ...],
    *,
    with_server: bool,
) -> None:
    """
    Check the ModelRollouts in FILE... (- is the standard input) by the rules of the API server.

    It needs no cluster. What the API server would refuse is an error, and ends with code 1. What it
    would take and will hardly work is a hint.
    """
    rates = dict(map(_rate, base_rates))
    server = Server(access()) if with_server else None
    checked = wrong = 0
    for path in files:
        for body in _rollouts(path):
            checked += 1
            wrong += _told(path, body, server, requests_per_second, rates)
    if not checked:
        raise Failure(f"there is no {api.KIND} in {', '.join(map(str, files))}")
    by = (
        "by the API server and offline"
        if server
        else "offline, by the types and rules that the CRD is made of"
    )
    click.echo(f"{checked} checked {by}: {wrong or 'nothing'} wrong")
    if wrong:
        raise click.exceptions.Exit(NO)


def _rate(given: str) -> tuple[str, float]:
    name, _, text = given.partition("=")
    try:
        rate = float(text)
    except ValueError:
        rate = -1
    if not 0 <= rate <= 1:
        raise click.UsageError(f"--base-rate {given}: give NAME=RATE, for example errors=0.01")
    return name, rate


def _rollouts(path: Path) -> Iterator[dict[str, Any]]:
    try:
        text = sys.stdin.read() if str(path) == STANDARD_INPUT else path.read_text()
        found = list(yaml.safe_load_all(text))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Failure(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    for each in found:
        inner = (
            each.get("items") if isinstance(each, dict) and each.get("kind") == "List" else [each]
        )
        yield from (it for it in inner or () if isinstance(it, dict) and it.get("kind") == api.KIND)


def _told(
    path: Path,
    body: dict[str, Any],
    server: Server | None,
    per_second: float | None,
    rates: dict[str, float],
) -> int:
    """Print what there is to say; how many things are wrong."""
    meta = body.get("metadata")
    name = f"{path}: {meta.get('name', '?') if isinstance(meta, dict) else '?'}"
    found = rules.findings(body)
    for each in found:
        click.echo(f"{name}: error: {each.where}: {each.message}")
    if not found:
        spec = rules.spec_of(body)
        for hint in hints.hints(spec, per_second, rates):
            click.echo(f"{name}: hint: {hint}")
    return len(found) + (_refused(name, body, server) if server else 0)


def _refused(name: str, body: dict[str, Any], server: Server) -> int:
    namespace = body["metadata"].get("namespace") or server.namespace
    try:
        server.dry_run(ROLLOUTS, namespace, PLURAL, body)
    except Failure as refusal:
        if "already exists" in refusal.message:
            return 0
        click.echo(f"{name}: error: the API server says: {refusal.message}")
        return 1
    return 0
