"""What the operator lists and watches of a real API server: metadata, however much the objects are."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys

import kopf
import pytest
import yaml
from kubernetes.aio import client, config

from kube_apiserver import ROOT
from modelrollout.adapters.cluster import ROLLOUTS, ROLLOUTS_METADATA, Cluster
from modelrollout.handlers import _login

NAMESPACE = "listing"


@pytest.fixture
def rollout(kube, monkeypatch):
    """One in a namespace of its own, and the client's way there."""
    monkeypatch.setenv("KUBECONFIG", str(kube.kubeconfig()))
    kube.kubectl("create", "namespace", NAMESPACE)
    body = yaml.safe_load((ROOT / "examples" / "ROLLOUT.yaml").read_text())
    body["metadata"] = {"name": "ranker", "namespace": NAMESPACE, "labels": {"tier": "gold"}}
    done = kube.kubectl("apply", "-f", "-", stdin=json.dumps(body))
    assert done.returncode == 0, done.stderr
    yield body
    kube.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def test_a_sweep_reads_names_and_labels_and_neither_spec_nor_status(kube, rollout):
    async def scene():
        settings = client.Configuration()
        await config.load_kube_config(str(kube.kubeconfig()), client_configuration=settings)
        cluster = Cluster(client.ApiClient(configuration=settings))
        try:
            return [
                await cluster.list(ROLLOUTS, NAMESPACE),
                await cluster.list(ROLLOUTS_METADATA, NAMESPACE),
                await cluster.list(ROLLOUTS_METADATA, "default"),
            ]
        finally:
            await cluster.close()

    (whole,), (metadata,), nothing = asyncio.run(scene())

    assert whole["spec"] == rollout["spec"]
    assert nothing == []
    assert "spec" not in metadata
    assert metadata["metadata"] == whole["metadata"]


@pytest.mark.usefixtures("rollout")
def test_what_kopf_lists_and_watches_is_metadata():
    async def scene():
        known = await _login(logger=logging.getLogger(), settings=kopf.OperatorSettings())
        path = f"{known.server}{ROLLOUTS.root}/namespaces/{NAMESPACE}/{ROLLOUTS.plural}"
        async with known.aiohttp_session as session:
            async with session.get(path, params={"limit": "500"}) as answer:
                listed = await answer.json()
            async with session.get(path.replace(NAMESPACE, "default")) as answer:
                nothing = await answer.json()
            async with session.get(path, params={"watch": "true"}) as answer:
                changed = json.loads(await answer.content.readline())
            async with session.get(f"{known.server}{ROLLOUTS.root}") as answer:
                found = await answer.json()
        return nothing["items"], listed["items"], changed["object"], found

    nothing, (listed,), changed, discovered = asyncio.run(scene())

    # Kubernetes says null.
    assert nothing == []

    for each in (listed, changed):
        assert "spec" not in each
        assert each["metadata"]["name"] == "ranker"
        assert each["metadata"]["generation"] == 1
    # What has no metadata comes as it is.
    assert ROLLOUTS.plural in [each["name"] for each in discovered["resources"]]


CONNECTS = """
import asyncio
from modelrollout.adapters.cluster import ROLLOUTS, Cluster

async def scene():
    cluster = await Cluster.connect()
    print(len(await cluster.list(ROLLOUTS, "default")))
    await cluster.close()

asyncio.run(scene())
"""


def test_a_proxy_of_the_environment_has_no_say(kube):
    """To look for one takes two threads for each call."""
    environment = {"KUBECONFIG": str(kube.kubeconfig()), "HTTPS_PROXY": "http://127.0.0.1:1"}
    done = subprocess.run(
        [sys.executable, "-c", CONNECTS],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.stdout == "0\n", done.stderr
