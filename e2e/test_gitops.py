"""A GitOps tool at work during a rollout: what it applies from Git and what happens do not meet."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import kube
from shop import ROLLOUT, Shop
from workloads import manifests

APPLY_SECONDS = 0.5


@contextmanager
def applied_again_and_again(*objects: kube.Manifest) -> Iterator[list[str]]:
    """By server-side apply with force under a field manager of its own; what each turn said."""
    body = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    said: list[str] = []
    stopping = threading.Event()

    def sync() -> str:
        arguments = ("apply", "--server-side", "--field-manager=gitops", "--force-conflicts")
        return kube.kubectl(*arguments, "-f", "-", stdin=body)

    def loop() -> None:
        while not stopping.wait(APPLY_SECONDS):
            try:
                said.append(sync())
            except kube.KubectlError as error:
                said.append(f"failed: {error}")

    sync()
    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield said
    finally:
        stopping.set()
        thread.join(30)


def test_a_gitops_tool_moves_nobody_and_takes_away_no_command(shop: Shop) -> None:
    shop.users(rate=100)
    candidate = shop.deploy("v2", replicas=2)
    steps = [
        {"weight": 10, "gate": "NoHarm", "minRequests": 50},
        {"approval": {}},
        {"weight": 50, "minRequests": 100},
    ]
    rollout = shop.rollout(candidate, strategy={"steps": steps, "bake": {"seconds": 2}})
    workloads = [
        each
        for version in ("digits-v1", candidate)
        for each in manifests.controllable_version(
            version, version, namespace=shop.namespace, replicas=2
        )
    ]
    shares: list[float] = []
    with applied_again_and_again(*workloads, rollout) as said:
        shop.phase_is("Paused", seconds=60)
        shares.append(share(shop))
        shop.command("pause")
        kube.wait_until(lambda: shop.status().get("pause"), 20, "the pause")
        shop.command("resume")
        kube.wait_until(lambda: "pause" not in shop.status(), 20, "the end of the pause")
        shop.command("approve")
        shop.weight_is(50)
        shares.append(share(shop))
        shop.phase_is("Promoted", seconds=120)
        shares.append(share(shop))
    decided = [each["what"] for each in reversed(shop.status()["history"])]
    live = kube.get("modelrollout", ROLLOUT, shop.namespace)

    assert len(said) > 10
    assert [each for each in said if each.startswith("failed")] == []
    assert shares == sorted(shares)
    assert [each for each in decided if each in {"Paused", "Resumed", "Approved", "Promoted"}] == [
        "Paused",
        "Resumed",
        "Approved",
        "Promoted",
    ]
    assert shop.events("Drift") == []
    assert live["metadata"]["generation"] == 1
    assert shop.failures() == []


def share(shop: Shop) -> float:
    """The candidate's part of the weights on the route."""
    weights = shop.backends()
    return weights.get("digits-v2", 0) / sum(weights.values())
