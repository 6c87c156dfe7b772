"""kubectl for tests and the demo: the state of the world, as a user of the cluster sees it."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any

Manifest = dict[str, Any]
TIMEOUT_SECONDS = 330
PATIENCE = 3


class KubectlError(AssertionError):
    """kubectl refused; the text is what it said."""


def kubectl(*arguments: str, stdin: str | None = None, timeout: float = TIMEOUT_SECONDS) -> str:
    """What kubectl prints."""
    done = subprocess.run(
        ["kubectl", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if done.returncode != 0:
        raise KubectlError(done.stderr.strip() or done.stdout.strip())
    return done.stdout


def apply(*manifests: Manifest) -> None:
    """Create or change objects, all in one call."""
    body = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
    kubectl("apply", "-f", "-", stdin=json.dumps(body))


def refused(manifest: Manifest) -> str:
    """What the API server says when it refuses an object; an accepted one is an error."""
    try:
        apply(manifest)
    except KubectlError as error:
        return str(error)
    raise AssertionError("the API server accepted it")


def get(kind: str, name: str, namespace: str) -> Manifest:
    """One object."""
    found: Manifest = json.loads(kubectl("get", kind, name, "-n", namespace, "-o", "json"))
    return found


def listed(kind: str, namespace: str, *options: str) -> list[Manifest]:
    """All objects of a kind."""
    found = json.loads(kubectl("get", kind, "-n", namespace, *options, "-o", "json"))
    items: list[Manifest] = found["items"]
    return items


def exists(kind: str, name: str, namespace: str) -> bool:
    """Whether an object is there."""
    return bool(kubectl("get", kind, name, "-n", namespace, "--ignore-not-found", "-o", "name"))


def patch(kind: str, name: str, namespace: str, body: Any, style: str = "merge") -> None:
    """Change an object."""
    kubectl("patch", kind, name, "-n", namespace, "--type", style, "-p", json.dumps(body))


def user() -> str:
    """Who the tests are to the API server."""
    return kubectl("auth", "whoami", "-o", "jsonpath={.status.userInfo.username}")


def wait_until(
    predicate: Callable[[], Any], seconds: float, what: str, *, every: float = 0.25
) -> Any:
    """
    What the predicate returns once it is true; AssertionError with `what` after the time.

    The seconds are those of an idle machine, times PATIENCE; what must be quick is asserted of the
    time that it took, by who calls.
    """
    deadline = time.monotonic() + PATIENCE * seconds
    while True:
        found = predicate()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {PATIENCE} x {seconds:g} s: {what}")
        time.sleep(every)


def rollout_pods_are_ready(namespace: str, *deployments: str, seconds: int = 240) -> None:
    """Wait until the Deployments have all their pods."""
    for each in deployments:
        kubectl("rollout", "status", f"deployment/{each}", "-n", namespace, f"--timeout={seconds}s")


def logs(namespace: str, selector: str, *options: str) -> Sequence[str]:
    """The lines of all pods with the labels."""
    text = kubectl("logs", "-n", namespace, "-l", selector, "--tail=-1", "--prefix", *options)
    return text.splitlines()
