"""Options of all commands that go to a cluster, and what they lead to."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from modelrollout.kubectl.failures import Failure, NotFound
from modelrollout.kubectl.kubeconfig import access
from modelrollout.kubectl.server import DEPLOYMENTS, PLURAL, ROLLOUTS, Object, Server

Command = Callable[..., Any]


def to_cluster(command: Command) -> Command:
    """Give a command its cluster and namespace: `server` as its first argument."""

    @click.option("-n", "--namespace", help="Where it is.  [default: the context's]")
    @click.option("--context", help="Of the kubeconfig.  [default: the current one]")
    @click.option("--kubeconfig", metavar="FILE", help="[default: KUBECONFIG, or ~/.kube/config]")
    @wraps(command)
    def connected(
        *arguments: Any,
        namespace: str | None,
        context: str | None,
        kubeconfig: str | None,
        **options: Any,
    ) -> Any:
        server = Server(access(kubeconfig, context, namespace))
        try:
            return command(server, *arguments, **options)
        finally:
            server.close()

    return connected


def names(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """For the shell: ModelRollouts of the namespace; none where they cannot be read."""
    given = [context.params.get(each) for each in ("kubeconfig", "context", "namespace")]
    try:
        server = Server(access(*given))
        found = [e["metadata"]["name"] for e in server.list(ROLLOUTS, server.namespace, PLURAL)]
    except Failure:
        return []
    return [each for each in found if each.startswith(incomplete)]


def named(server: Server, name: str | None) -> Object:
    """The ModelRollout of that name; the only one there is, if none is named."""
    if name is not None:
        return _found(server, name)
    found = server.list(ROLLOUTS, server.namespace, PLURAL)
    if len(found) == 1:
        return found[0]
    has = ", ".join(each["metadata"]["name"] for each in found)
    raise NotFound(
        f"namespace {server.namespace} has {f'several ModelRollouts ({has}): name one' if found else 'no ModelRollout: give another one with -n'}"
    )


def _found(server: Server, name: str) -> Object:
    try:
        return server.get(ROLLOUTS, server.namespace, PLURAL, name)
    except NotFound as missing:
        if "not found" not in missing.message:
            raise
        others = [e["metadata"]["name"] for e in server.list(ROLLOUTS, server.namespace, PLURAL)]
        has = (
            f"there {'is' if len(others) == 1 else 'are'} {', '.join(others)}"
            if others
            else "it has none; give another one with -n"
        )
        raise NotFound(
            f"namespace {server.namespace} has no ModelRollout {name}: {has}"
        ) from missing


def deployments(server: Server, found: tuple[str, ...]) -> dict[str, Object | None]:
    """By name. One that is gone is None; who may not read them sees none of them."""
    told: dict[str, Object | None] = {}
    for name in found:
        try:
            told[name] = server.get(DEPLOYMENTS, server.namespace, "deployments", name)
        except NotFound:
            told[name] = None
        except Failure:
            return told
    return told
