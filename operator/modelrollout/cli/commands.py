"""What a person asks of a rollout: seven commands, each a permission of its own."""

from __future__ import annotations

import sys
import time

import click

from modelrollout.cli.connection import deployments, named, names, to_cluster
from modelrollout.core.observation import Verb
from modelrollout.kubectl import asking, giving
from modelrollout.kubectl.failures import Failure
from modelrollout.kubectl.seen import seen, versions_of
from modelrollout.kubectl.server import Server

TEXTS = {
    "approve": "Give the word that an approval step of rollout NAME waits for.",
    "abort": "Send all users of rollout NAME back to stable, and reject the candidate.",
    "pause": "Keep rollout NAME at its weight. Guardrails stay armed.",
    "resume": "Let a paused rollout NAME go on.",
    "promote": "Give the candidate of rollout NAME all traffic now, whatever the evidence says.",
    "retry": "Try the candidate of rollout NAME that was rejected once more.",
    "skip-step": "Leave the present step of rollout NAME without its gate.",
}


def _command(verb: str) -> click.Command:
    @click.command(
        verb,
        help=f"{TEXTS[verb]}\n\nIt says what will happen, asks, and waits until it has happened.",
    )
    @click.argument("name", shell_complete=names)
    @click.option("-y", "--yes", is_flag=True, help="Do not ask.")
    @click.option(
        "--timeout",
        type=click.FloatRange(min=0),
        default=60,
        show_default=True,
        help="Seconds to wait; then the exit code is 6.",
    )
    @click.option("--wait/--no-wait", default=True, help="Wait until it has happened.")
    @to_cluster
    def command(server: Server, name: str, *, yes: bool, timeout: float, wait: bool) -> None:
        _give(server, verb, name, is_sure=yes, seconds=timeout if wait else None)

    return command


def _give(server: Server, verb: str, name: str, *, is_sure: bool, seconds: float | None) -> None:
    body = named(server, name)
    before = seen(body, time.time(), deployments(server, versions_of(body)))
    by = server.user()
    click.echo(asking.foreseen(before, Verb(verb), by))
    waiting = giving.pending(body)
    if waiting is not None:
        click.echo(f"It replaces a command that was not carried out yet: {waiting}.")
    if not is_sure:
        _ask(verb, name)
    giving.give(server, before, verb, by)
    if seconds is None:
        click.echo(f"{verb} is asked for by {by}")
        return
    click.echo(giving.wait(server, before, verb, seconds))


def _ask(verb: str, name: str) -> None:
    if not sys.stdin.isatty():
        raise Failure(f"nobody can be asked here: give --yes to {verb} {name}")
    if not click.confirm(f"{verb} {name}?"):
        raise Failure("nothing was done")


approve, abort, pause, resume, promote, retry, skip_step = (_command(each) for each in TEXTS)
