"""What the plugin prints is text, whatever others wrote into the objects that it reads."""

from __future__ import annotations

import time
from uuid import uuid4

import pytest

from modelrollout.api import v1alpha1 as api
from terminal import ROLLOUTS, Shop, deployment
from walk import Walk

HOSTILE = "v2\x1b[2J\x1b]0;owned\x07\r\nall is well\u202e\x9b31m"


def hostile(value):
    """Every text that nothing depends on, with what a terminal would obey."""
    free = {"message", "reason", "modelVersion", "by", "stepText"}
    if isinstance(value, dict):
        return {
            key: HOSTILE[:15] if key in free and isinstance(each, str) else hostile(each)
            for key, each in value.items()
        }
    return [hostile(each) for each in value] if isinstance(value, list) else value


@pytest.fixture
def shop(kube):
    found = Shop(kube=kube, namespace=f"terminal-{uuid4().hex[:6]}")
    found.api("POST", "/api/v1/namespaces", {"metadata": {"name": found.namespace}})
    for name in ("ranker-v1", "ranker-v2"):
        body = deployment(name, f"registry/ranker:{name}{HOSTILE}", LEVEL=f"{name}{HOSTILE}")
        found.create("deployments", body)
    walk = Walk(now=time.time() - 60, spec={})
    walk.until(api.Phase.PROGRESSING)
    walk.step()
    walk.step(command="pause")
    body = found.put(walk)
    path = f"{ROLLOUTS}/{found.namespace}/modelrollouts/ranker"
    body["metadata"]["annotations"] = {"note": HOSTILE, api.COMMAND: f"pause{HOSTILE}"}
    body = found.api("PUT", path, body)
    found.api("PUT", f"{path}/status", {**body, "status": hostile(body["status"])})
    return found


@pytest.mark.parametrize(
    "arguments", [["list"], ["list", "-o", "wide"], ["get", "ranker"], ["why", "ranker"]]
)
def test_nothing_that_the_plugin_prints_is_obeyed_by_a_terminal(shop, arguments):
    done = shop.run(*arguments, width=200)

    assert done.exit_code == 0, done.output
    assert "ranker" in done.output
    assert [each for each in done.output if not each.isprintable() and each != "\n"] == []
