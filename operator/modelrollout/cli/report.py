"""`report`: one rollout as a page, from the trace that the operator kept of it."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from modelrollout.cli.connection import named, names, to_cluster
from modelrollout.kubectl.failures import Failure, NotFound
from modelrollout.kubectl.server import Object, Server

if TYPE_CHECKING:
    from modelrollout.core.trace import Trace

CONFIG_MAPS = "api/v1"
NOT_KEPT = "the operator keeps them unless its chart's value traces is false"


@click.command(epilog="Example: kubectl modelrollout report ranker -o report.html")
@click.argument("name", required=False, shell_complete=names)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(dir_okay=False, allow_dash=True),
    default="report.html",
    show_default=True,
    help="Where to write the page; - is the terminal.",
)
@click.option(
    "--at",
    "revision",
    metavar="REVISION",
    help="An earlier one: its candidate's revision, or Deployment.  [default: the newest]",
)
@click.option(
    "--prometheus",
    metavar="URL",
    help="Where whole histograms are; without it, distributions are shown at the thresholds.",
)
@to_cluster
def report(
    server: Server, name: str | None, *, output: str, revision: str | None, prometheus: str | None
) -> None:
    """
    Write one rollout of NAME as a page: one HTML file that needs nothing else.

    It has the verdict, the traffic, each guardrail with its evidence, distributions, slices, and
    every decision. The last five rollouts are kept.
    """
    make = _maker()
    body = named(server, name)
    found = _traces(server, body["metadata"]["name"])
    trace = _chosen(found, revision)
    page = make(trace, prometheus)
    with click.open_file(output, "w", encoding="utf-8") as file:
        file.write(page)
    if output != "-":
        click.echo(f"{output}: {_title(trace)}", err=True)
        others = [_title(each) for each in found if each is not trace]
        if others and revision is None:
            click.echo(f"also kept (--at REVISION): {'; '.join(others)}", err=True)


def _maker() -> Callable[[Trace, str | None], str]:
    try:
        from modelrollout.report import page, prometheus  # noqa: PLC0415  # takes half a second
    except ModuleNotFoundError as missing:
        if missing.name != "matplotlib":
            raise
        said = "report needs matplotlib: install modelrollout-operator[pictures]"
        raise click.UsageError(said) from missing

    def make(trace: Trace, url: str | None) -> str:
        try:
            histograms = prometheus.histograms_of(trace, url) if url else {}
        except prometheus.Unreadable as error:
            raise Failure(str(error)) from error
        return page.page(trace, histograms)

    return make


def _traces(server: Server, name: str) -> list[Trace]:
    """The newest first. What cannot be read is left out: somebody has edited it."""
    # Types and mathematics take longer to import than help takes to print.
    from modelrollout.core.trace import decoded, trace_of  # noqa: PLC0415

    kept = trace_of(name)
    try:
        body: Object = server.get(CONFIG_MAPS, server.namespace, "configmaps", kept)
    except NotFound as missing:
        said = f"no rollout of {name} is kept: there is no ConfigMap {kept} in namespace {server.namespace}"
        raise NotFound(f"{said}; {NOT_KEPT}") from missing
    found = []
    for _, text in sorted((body.get("binaryData") or {}).items(), reverse=True):
        try:
            found.append(decoded(base64.b64decode(text, validate=True)))
        except (ValueError, binascii.Error):
            continue
    if not found:
        raise Failure(f"ConfigMap {kept} has no rollout that can be read: delete it to begin anew")
    return found


def _chosen(found: list[Trace], revision: str | None) -> Trace:
    if revision is None:
        return found[0]
    for each in found:
        candidate = each.candidate
        if candidate.revision.startswith(revision) or candidate.deployment == revision:
            return each
    has = ", ".join(_title(each) for each in found)
    raise NotFound(f"no rollout of {revision} is kept: there is {has}")


def _title(trace: Trace) -> str:
    candidate = trace.candidate
    return f"{candidate.deployment} ({candidate.revision}), {trace.outcome or 'in progress'}"
