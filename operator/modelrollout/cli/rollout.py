"""`get` and `why`: how one rollout stands, and why."""

from __future__ import annotations

import time
from urllib.parse import urlencode

import click
from rich.console import Console, RenderableType
from rich.live import Live

from modelrollout.cli.connection import deployments, named, names, to_cluster
from modelrollout.cli.documents import DOCUMENTS, without_managers
from modelrollout.core.trace import Trace
from modelrollout.kubectl import earlier, kept, listing, looks, story
from modelrollout.kubectl.failures import NO, Failure, Unreachable
from modelrollout.kubectl.printable import printable
from modelrollout.kubectl.seen import seen, versions_of
from modelrollout.kubectl.server import Object, Server

WATCH_SECONDS = 1.0
PAST_SECONDS, LEAST_SECONDS = 1800, 300
"""Before the rollout began and after it ended: what a dashboard shows around it."""


@click.command("get")
@click.argument("name", required=False, shell_complete=names)
@click.option(
    "-w", "--watch", is_flag=True, help="Until it is over: 0 if promoted, 1 if rolled back."
)
@click.option("-o", "--output", type=click.Choice(list(DOCUMENTS)))
@to_cluster
def get(server: Server, name: str | None, *, watch: bool, output: str | None) -> None:
    """
    Show how rollout NAME stands: who gets what, how far it is, and what speaks for it.

    The bar of a guardrail is evidence. It grows to the left as the candidate is shown to be worse
    and to the right as it is shown to be within its margin; the end of either side decides.
    """
    body = named(server, name)
    if output is not None:
        click.echo(DOCUMENTS[output](without_managers(body)))
        return
    console = listing.console()
    if not watch:
        console.print(_tree(server, body, console))
        return
    if console.is_terminal:
        _watch_live(server, body, console)
    else:
        _watch_lines(server, body)


def _tree(server: Server, body: Object, console: Console) -> RenderableType:
    found = seen(body, time.time(), deployments(server, versions_of(body)))
    return looks.tree(found, console.width)


def _watch_live(server: Server, body: Object, console: Console) -> None:
    """In place. A server that is away for a moment is said so, and asked again."""
    name = body["metadata"]["name"]
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            try:
                body = named(server, name)
                live.update(_tree(server, body, console), refresh=True)
            except Unreachable as away:
                live.console.print(away.message, style="yellow")
            if _is_over(body):
                break
            time.sleep(WATCH_SECONDS)
    _end(body)


def _watch_lines(server: Server, body: Object) -> None:
    """One line at each change, for logs."""
    name = body["metadata"]["name"]
    shown = ""
    while True:
        status = body.get("status") or {}
        weight = (status.get("weight") or {}).get("wanted", 0)
        told = f"{status.get('phase', 'Pending')}  {status.get('stepText', '-')}  {weight} %  {status.get('verdict', '-')}"
        if told != shown:
            shown = told
            at = time.strftime("%H:%M:%S", time.gmtime())
            click.echo(printable(f"{at}  {told}  {status.get('reason', '')}"))
        if _is_over(body):
            break
        time.sleep(WATCH_SECONDS)
        try:
            body = named(server, name)
        except Unreachable as away:
            click.echo(away.message, err=True)
    _end(body)


def _is_over(body: Object) -> bool:
    status, generation = body.get("status") or {}, body["metadata"].get("generation", 0)
    is_current = status.get("observedGeneration", 0) >= generation
    return is_current and status.get("phase") in {"Promoted", "RolledBack"}


def _end(body: Object) -> None:
    if body["status"]["phase"] != "Promoted":
        raise click.exceptions.Exit(NO)


@click.command("why")
@click.argument("name", required=False, shell_complete=names)
@click.option(
    "--at",
    "revision",
    metavar="REVISION",
    help="An earlier revision (or its Deployment), from the history and what was kept.",
)
@click.option(
    "--dashboard",
    envvar="MODELROLLOUT_DASHBOARD",
    metavar="URL",
    help="Of Grafana's dashboard; its link gets the time of the rollout.",
)
@click.option("-o", "--output", type=click.Choice(list(DOCUMENTS)))
@to_cluster
def why(
    server: Server,
    name: str | None,
    *,
    revision: str | None,
    dashboard: str | None,
    output: str | None,
) -> None:
    """Say why rollout NAME is where it is, what it rests on, and what to do next."""
    body = named(server, name)
    found = seen(body, time.time(), deployments(server, versions_of(body)))
    console = listing.console()
    if revision is not None:
        past = earlier.earlier(found, revision, _kept(server, found.name))
        if output is not None:
            click.echo(DOCUMENTS[output](earlier.document(past)))
            return
        console.print(earlier.explanation(past, console.width))
        return
    changed = story.changed(found)
    if output is not None:
        click.echo(DOCUMENTS[output](story.document(found, changed)))
        return
    link = _link(dashboard, found.namespace, found.name, story.span(found)) if dashboard else ""
    console.print(looks.explanation(found, changed, console.width, link))


def _kept(server: Server, name: str) -> list[Trace] | Failure:
    """The traces of a rollout, or why there are none."""
    try:
        return kept.traces(server, name)
    except Unreachable:
        raise
    except Failure as failure:
        return failure


def _link(dashboard: str, namespace: str, name: str, span: tuple[float, float]) -> str:
    begun, ended = span
    query = {
        "var-namespace": namespace,
        "var-name": name,
        "from": str(int(1000 * (begun - PAST_SECONDS))),
        "to": str(int(1000 * (ended + LEAST_SECONDS))),
    }
    return f"{dashboard}{'&' if '?' in dashboard else '?'}{urlencode(query)}"
