"""A namespace of the test's own in a real API server."""

from __future__ import annotations

from uuid import uuid4

import pytest

from kube_apiserver import ApiServer
from terminal import Shop, deployment


@pytest.fixture
def shop(kube: ApiServer) -> Shop:
    """With the two Deployments of a rollout."""
    found = Shop(kube=kube, namespace=f"shop-{uuid4().hex[:6]}")
    found.api("POST", "/api/v1/namespaces", {"metadata": {"name": found.namespace}})
    found.create("deployments", deployment("ranker-v1", "registry/ranker:1", LEVEL="info", KEY="a"))
    found.create(
        "deployments", deployment("ranker-v2", "registry/ranker:2", LEVEL="info", KEY="b", NEW="1")
    )
    return found
