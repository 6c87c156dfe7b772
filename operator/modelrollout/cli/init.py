"""`init`: a first manifest out of what the cluster has."""

from __future__ import annotations

import http.client
import json
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import click

from modelrollout.cli.connection import to_cluster
from modelrollout.kubectl import surroundings
from modelrollout.kubectl.failures import Failure, NotFound
from modelrollout.kubectl.server import DEPLOYMENTS, ROUTES, SERVICES, Object, Server

NAMES = "/api/v1/label/__name__/values"
SECONDS = 15


@click.command(
    "init",
    epilog="Example: modelrollout init --write rollout.yaml && kubectl apply -f rollout.yaml",
)
@click.argument("candidate", required=False)
@click.option(
    "--stable",
    metavar="DEPLOYMENT",
    help="What users have.  [default: found through the HTTPRoute]",
)
@click.option("--route", metavar="HTTPROUTE", help="How requests reach it.")
@click.option(
    "--prometheus",
    metavar="URL",
    help="Where metrics are: only guardrails that it can feed are written.",
)
@click.option(
    "--write",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write it there instead of printing it.",
)
@to_cluster
def init(
    server: Server,
    candidate: str | None,
    *,
    stable: str | None,
    route: str | None,
    prometheus: str | None,
    write: Path | None,
) -> None:
    """
    Write a first manifest for CANDIDATE, a Deployment beside the one that users have.

    It looks for an HTTPRoute, the Service and Deployment behind it, and a second Deployment of a
    similar name that no route leads to.
    """
    if write is not None and write.exists():
        raise Failure(f"{write} exists already: give another name, or remove it")
    deployments = server.list(DEPLOYMENTS, server.namespace, "deployments")
    services = server.list(SERVICES, server.namespace, "services")
    found = surroundings.served(_routes(server), services, deployments)
    users = surroundings.stable_of(found, stable, route)
    new = surroundings.candidate_of(found, deployments, users.deployment, candidate)
    by_name: dict[str, Object] = {each["metadata"]["name"]: each for each in deployments}
    if said := surroundings.overlap(by_name[users.deployment], by_name[new]):
        raise Failure(said)
    metrics = _metrics(prometheus) if prometheus else None
    text = surroundings.manifest(
        server.namespace,
        users,
        new,
        surroundings.guardrails(metrics),
        were_asked=metrics is not None,
    )
    if write is None:
        click.echo(text, nl=False)
        return
    write.write_text(text)
    click.echo(f"{new} is to take over from {users.deployment} on HTTPRoute {users.route}. Next:")
    click.echo(f"  kubectl apply -f {write}")
    click.echo(f"  kubectl modelrollout get {users.route} -n {server.namespace} --watch")


def _routes(server: Server) -> list[Object]:
    try:
        return server.list(ROUTES, server.namespace, "httproutes")
    except NotFound as missing:
        raise NotFound(
            "the cluster has no Gateway API: install it, and a gateway that speaks it"
        ) from missing


def _metrics(url: str) -> frozenset[str]:
    """The names of all metrics that a Prometheus has."""
    if urlsplit(url).scheme not in {"http", "https"}:
        raise Failure(f"--prometheus {url}: give a URL, for example http://localhost:9090")
    try:
        with urllib.request.urlopen(url.rstrip("/") + NAMES, timeout=SECONDS) as answer:  # noqa: S310
            return frozenset(json.load(answer)["data"])
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        said = " ".join(str(error).split())
        raise Failure(f"--prometheus {url} does not answer as a Prometheus does: {said}") from error
