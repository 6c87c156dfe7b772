"""What the plugin prints is text, whatever others wrote into the objects that it reads."""

from __future__ import annotations

import base64
import time
from dataclasses import replace
from uuid import uuid4

import pytest

from modelrollout.api import v1alpha1 as api
from modelrollout.core.trace import encoded, trace_of
from terminal import ROLLOUTS, Shop, deployment
from traces import everything
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
    found.create("configmaps", kept(), "/api/v1/namespaces")
    return found


def kept():
    """The evidence of it, as somebody has edited it who may write ConfigMaps."""
    whole = everything(HOSTILE)
    candidate = replace(whole.candidate, deployment="ranker-v2", revision="c1")
    trace = replace(whole, candidate=candidate, began=0.0, ended=None)
    data = {trace.name: base64.b64encode(encoded(trace)).decode()}
    return {"metadata": {"name": trace_of("ranker")}, "binaryData": data}


@pytest.mark.parametrize(
    "arguments",
    [
        ["list"],
        ["list", "-o", "wide"],
        ["get", "ranker"],
        ["why", "ranker"],
        ["why", "ranker", "--at", "c1"],
    ],
)
def test_nothing_that_the_plugin_prints_is_obeyed_by_a_terminal(shop, arguments):
    done = shop.run(*arguments, width=200)

    assert done.exit_code == 0, done.output
    assert "ranker" in done.output
    assert ("Evidence as it was" in done.output) == ("--at" in arguments)
    assert [each for each in done.output if not each.isprintable() and each != "\n"] == []
