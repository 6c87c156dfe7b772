"""What the operator kept of the last rollouts, in a ConfigMap beside the ModelRollout."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

from modelrollout.core.trace import Trace, decoded, trace_of
from modelrollout.kubectl.failures import Failure, NotFound
from modelrollout.kubectl.printable import printable
from modelrollout.kubectl.server import Object, Server

CONFIG_MAPS = "api/v1"
NOT_KEPT = "the operator keeps them unless its chart's value traces is false"


def traces(server: Server, name: str) -> list[Trace]:
    """The newest first. What cannot be read is left out: somebody has edited it."""
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


def chosen(found: Sequence[Trace], revision: str) -> Trace:
    """The newest of a revision, or of a Deployment."""
    for each in found:
        candidate = each.candidate
        if candidate.revision.startswith(revision) or candidate.deployment == revision:
            return each
    has = ", ".join(map(title, found))
    raise NotFound(f"no rollout of {revision} is kept: there is {has}")


def title(trace: Trace) -> str:
    """Of whom it was, and how it ended."""
    candidate = trace.candidate
    said = f"{candidate.deployment} ({candidate.revision}), {trace.outcome or 'in progress'}"
    return str(printable(said))
