"""`report`: one rollout as a page, from the trace that the operator kept of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from modelrollout.cli.connection import named, names, to_cluster
from modelrollout.kubectl.failures import Failure
from modelrollout.kubectl.server import Server

if TYPE_CHECKING:
    from modelrollout.core.trace import Trace


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
    # Types take longer to import than help takes to print.
    from modelrollout.kubectl import kept  # noqa: PLC0415

    make = _maker()
    body = named(server, name)
    found = kept.traces(server, body["metadata"]["name"])
    trace = found[0] if revision is None else kept.chosen(found, revision)
    page = make(trace, prometheus)
    with click.open_file(output, "w", encoding="utf-8") as file:
        file.write(page)
    if output != "-":
        click.echo(f"{output}: {kept.title(trace)}", err=True)
        others = [kept.title(each) for each in found if each is not trace]
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
