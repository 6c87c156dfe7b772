"""The operator from its chart, and a shop of its own for each test."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

import kube
import operator_chart
from shop import Shop

RUN = uuid4().hex[:6]
"""Part of each namespace: what an earlier run left in Prometheus is not this one's past."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in here needs the cluster."""
    for item in items:
        if "/e2e/" in str(item.path):
            item.add_marker(pytest.mark.cluster)


@pytest.fixture(scope="session")
def operator() -> None:
    """The operator, installed once. Tests leave it running."""
    operator_chart.install()


@pytest.fixture
def shop(request: pytest.FixtureRequest, operator: None) -> Iterator[Shop]:  # noqa: ARG001
    """A namespace with v1 behind its route; taken down after the test."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_")).strip("-")[:40]
    unique = f"{zlib.crc32(request.node.nodeid.encode()):08x}"
    name = f"t-{name}-{unique}"
    shop = Shop(f"{name}-{RUN}", Path("build", "load", name))
    shop.open()
    shop.deploy("v1", replicas=2)
    shop.route("digits-v1")
    try:
        yield shop
        if request.node.stash.get(FAILED, False):
            describe(shop)
    finally:
        shop.close()


FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Remember a failure, so that the shop can show what it looked like before it closes."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.when == "call" and report.failed:
        item.stash[FAILED] = True


def describe(shop: Shop) -> None:
    """What a person would look at first."""
    print(kube.kubectl("get", "modelrollouts", "-n", shop.namespace, "-o", "yaml"))
    print(kube.kubectl("get", "httproutes,pods,endpointslices", "-n", shop.namespace, "-o", "wide"))
    print(kube.kubectl("events", "-n", shop.namespace))
    lines = [
        each
        for each in kube.logs(operator_chart.NAMESPACE, operator_chart.SELECTOR, "--since=120s")
        if shop.namespace in each
    ]
    print("\n".join(lines[-60:]))
