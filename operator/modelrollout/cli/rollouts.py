"""`list`: what rollouts there are. It imports little, as it is asked often."""

from __future__ import annotations

import time

import click

from modelrollout.cli.connection import to_cluster
from modelrollout.cli.documents import DOCUMENTS, without_managers
from modelrollout.kubectl import listing
from modelrollout.kubectl.server import PLURAL, ROLLOUTS, Server


@click.command("list")
@click.option("-A", "--all-namespaces", is_flag=True, help="Of all namespaces.")
@click.option("-l", "--selector", help="Only those with these labels, for example team=search.")
@click.option("-o", "--output", type=click.Choice(["wide", *DOCUMENTS]))
@to_cluster
def list_command(
    server: Server, *, all_namespaces: bool, selector: str | None, output: str | None
) -> None:
    """
    List ModelRollouts, with what each one does.

    From 120 columns on with the sentence why.
    """
    where = None if all_namespaces else server.namespace
    query = {"labelSelector": selector} if selector else {}
    found = server.list(ROLLOUTS, where, PLURAL, query)
    if output in DOCUMENTS:
        click.echo(
            DOCUMENTS[output](
                {"apiVersion": "v1", "kind": "List", "items": [*map(without_managers, found)]}
            )
        )
        return
    if not found:
        place = f"in namespace {where}; -A asks for all of them" if where else "in any namespace"
        click.echo(f"no ModelRollouts {place}", err=True)
        return
    listing.show(found, time.time(), namespaces=all_namespaces, wide=output == "wide")
