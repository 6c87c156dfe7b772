"""What the API server in memory promises and decisions rest on, held against a real one."""

from __future__ import annotations

import asyncio
import json

import pytest
from kubernetes.aio import client, config

from builders import a_spec
from chaos.apiserver import ApiServer
from modelrollout.adapters.cluster import ROLLOUTS, Cluster
from modelrollout.errors import Conflict

NAME = "compared"
BODY = {
    "apiVersion": "modelrollout.dev/v1alpha1",
    "kind": "ModelRollout",
    "metadata": {"name": NAME, "namespace": "default"},
    "spec": a_spec(),
}


class InMemory:
    """Its verbs as the adapter has them."""

    def __init__(self) -> None:
        self.server = ApiServer(lambda: 0.0)

    async def get(self, *address):
        return self.server.get(*address)

    async def create(self, *given):
        return self.server.create(*given)

    async def patch(self, *given):
        return self.server.patch(*given)

    async def replace_status(self, *given):
        return self.server.replace_status(*given)


@pytest.fixture
def real(kube):
    async def within(scene):
        settings = client.Configuration()
        await config.load_kube_config(str(kube.kubeconfig()), client_configuration=settings)
        cluster = Cluster(client.ApiClient(settings))
        try:
            return await scene(cluster)
        finally:
            await cluster.close()

    kube.kubectl("delete", "modelrollout", NAME)
    yield lambda scene: asyncio.run(within(scene))
    kube.kubectl("delete", "modelrollout", NAME)


async def told(cluster):
    """What each of a few writes comes to."""
    first = await cluster.create(ROLLOUTS, "default", json.loads(json.dumps(BODY)))
    status = {"phase": "Preparing", "weight": {"wanted": 0}}
    second = await cluster.replace_status(ROLLOUTS, {**first, "status": status})
    again = await cluster.replace_status(ROLLOUTS, {**second, "status": status})
    version = "resourceVersion"
    found = {
        "a status that says the same stores nothing": again["metadata"][version]
        == second["metadata"][version],
        "a status is no new generation": second["metadata"]["generation"] == 1,
    }
    found["a status on an old object"] = await refusal(
        cluster.replace_status(ROLLOUTS, {**first, "status": status})
    )
    generation = {"op": "test", "path": "/metadata/generation"}
    port = {"op": "replace", "path": "/spec/port", "value": 8081}
    edited = await cluster.patch(ROLLOUTS, "default", NAME, [generation | {"value": 1}, port])
    found["a spec is a new generation"] = edited["metadata"]["generation"] == 2
    found["a patch of another generation"] = await refusal(
        cluster.patch(ROLLOUTS, "default", NAME, [generation | {"value": 1}, port])
    )
    return found


async def refusal(write):
    try:
        await write
    except Conflict:
        return "Conflict"
    return "carried out"


def test_the_api_server_in_memory_answers_as_a_real_one(real):
    assert asyncio.run(told(InMemory())) == real(told)


def test_a_write_on_what_is_old_is_refused_also_where_it_changes_nothing(real):
    found = real(told)
    assert found["a status that says the same stores nothing"]
    assert found["a status on an old object"] == "Conflict"
    assert found["a patch of another generation"] == "Conflict"
