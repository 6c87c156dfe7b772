"""The candidate has its pods before its users, and nobody loses a request when pods go."""

from __future__ import annotations

import kube
from kube import Manifest
from shop import ROLLOUT, Shop, now, rolled_back

V1, V2 = f"{ROLLOUT}-v1", f"{ROLLOUT}-v2"
BRIEF: Manifest = {"warmSeconds": 5, "drainSeconds": 5}


def replicas(shop: Shop, name: str) -> int:
    """The pods that a Deployment is to have."""
    count: int = kube.get("deployment", name, shop.namespace)["spec"]["replicas"]
    return count


def ready(shop: Shop, name: str) -> int:
    """The pods that it has."""
    count: int = kube.get("deployment", name, shop.namespace)["status"].get("readyReplicas", 0)
    return count


def is_scaled(shop: Shop, name: str, count: int, seconds: float) -> None:
    """Wait until a Deployment is to have so many pods."""
    kube.wait_until(lambda: replicas(shop, name) == count, seconds, f"{name} scaled to {count}")


def reason_is(shop: Shop, reason: str, seconds: float = 60) -> Manifest:
    """Wait for a reason to hold; the condition then."""

    def reached() -> Manifest | None:
        found = shop.condition("Progressing")
        return found if found.get("reason") == reason else None

    condition: Manifest = kube.wait_until(reached, seconds, f"reason {reason}")
    return condition


def moves_nobody(shop: Shop) -> None:
    """Some seconds in which users get stable alone."""
    moment = now()
    kube.wait_until(lambda: len(shop.requests(moment)) > 300, 30, "requests meanwhile")
    assert shop.versions(moment) == {V1}
    assert set(shop.backends()) == {V1}


def test_a_release_scales_up_before_and_down_after_and_loses_no_request(shop: Shop) -> None:
    shop.users(rate=150)
    candidate = shop.deploy("v2", replicas=0, wait=False)
    kube.apply(shop.rollout(candidate, scaling=BRIEF))
    shop.weight_is(10, seconds=90)
    assert replicas(shop, V2) == 1
    shop.weight_is(100, seconds=120)
    assert ready(shop, V2) == 2
    assert ready(shop, V1) == 2
    shop.phase_is("Promoted", seconds=60)
    is_scaled(shop, V1, 1, seconds=30)
    is_scaled(shop, V1, 0, seconds=90)
    moment = now() + 1
    kube.wait_until(lambda: len(shop.requests(moment)) > 300, 30, "requests after it")
    assert shop.failures() == []


def test_a_candidate_that_was_aborted_is_drained_and_scaled_to_0(shop: Shop) -> None:
    shop.users(rate=150)
    candidate = shop.deploy("v2", replicas=0, wait=False)
    steps = {"steps": [{"weight": 50, "minSeconds": 600}]}
    kube.apply(shop.rollout(candidate, strategy=steps, scaling=BRIEF))
    shop.weight_is(50, seconds=90)
    assert replicas(shop, V2) == 1
    shop.command("abort")
    rolled_back(shop, seconds=30)
    is_scaled(shop, V2, 0, seconds=30)
    assert shop.failures() == []


def test_a_promotion_by_command_waits_for_its_pods(shop: Shop) -> None:
    shop.users(rate=150)
    candidate = shop.deploy("v2", replicas=0, wait=False)
    steps = {"steps": [{"weight": 10, "minSeconds": 600}]}
    kube.apply(shop.rollout(candidate, strategy=steps, scaling=BRIEF))
    shop.weight_is(10, seconds=90)
    shop.command("promote")
    shop.phase_is("Promoted", seconds=60)
    assert ready(shop, V2) == 2
    assert "was promoted by" in shop.event("Promoted")["message"]
    assert shop.failures() == []


def test_a_quota_is_quoted_and_holds_until_there_is_room(shop: Shop) -> None:
    shop.users(rate=100)
    candidate = shop.deploy("v2", replicas=0, wait=False)
    there = len(kube.listed("pods", shop.namespace))
    kube.apply(
        {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "few", "namespace": shop.namespace},
            "spec": {"hard": {"pods": str(there)}},
        }
    )
    kube.apply(shop.rollout(candidate, scaling=BRIEF))
    condition = reason_is(shop, "CapacityMissing")
    assert "exceeded quota: few" in condition["message"]
    moves_nobody(shop)
    kube.kubectl("delete", "resourcequota", "few", "-n", shop.namespace)
    shop.phase_is("Promoted", seconds=240)
    assert shop.failures() == []


def test_the_scheduler_is_quoted_when_pods_fit_nowhere(shop: Shop) -> None:
    shop.users(rate=100)
    candidate = shop.deploy("v2", replicas=0, wait=False)

    def asks_for(cpu: str) -> None:
        path = "/spec/template/spec/containers/0/resources/requests/cpu"
        change = [{"op": "replace", "path": path, "value": cpu}]
        kube.patch("deployment", candidate, shop.namespace, change, style="json")

    asks_for("1000")
    kube.apply(shop.rollout(candidate, scaling=BRIEF))
    condition = reason_is(shop, "CapacityMissing")
    assert "Insufficient cpu" in condition["message"]
    moves_nobody(shop)
    asks_for("50m")
    shop.phase_is("Promoted", seconds=180)
    assert shop.failures() == []


def test_a_horizontal_pod_autoscaler_is_never_fought(shop: Shop) -> None:
    shop.users(rate=100)
    candidate = shop.deploy("v2", replicas=1)
    cpu = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}
    kube.apply(
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "one", "namespace": shop.namespace},
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": V2},
                "minReplicas": 1,
                "maxReplicas": 1,
                "metrics": [{"type": "Resource", "resource": cpu}],
            },
        }
    )
    before = kube.get("deployment", candidate, shop.namespace)["metadata"]["generation"]
    kube.apply(shop.rollout(candidate, scaling=BRIEF))
    assert "HorizontalPodAutoscaler one" in shop.event("LeftToAutoscaler")["message"]
    shop.phase_is("Promoted", seconds=180)
    after = kube.get("deployment", candidate, shop.namespace)["metadata"]["generation"]
    assert after == before


def test_going_back_to_a_warm_version_waits_for_no_pod(shop: Shop) -> None:
    shop.users(rate=150)
    candidate = shop.deploy("v2", replicas=0, wait=False)
    scaling = {"warmSeconds": 600, "drainSeconds": 5}
    kube.apply(shop.rollout(candidate, scaling=scaling))
    shop.phase_is("Promoted", seconds=180)
    pods = {each["metadata"]["uid"] for each in shop.pods(V1)}
    kube.apply(shop.rollout(V1, scaling=scaling))
    shop.weight_is(100, seconds=30)
    assert {each["metadata"]["uid"] for each in shop.pods(V1)} == pods
    kube.wait_until(
        lambda: (s := shop.status())["stable"]["deployment"] == V1 and s, 60, "v1 is stable again"
    )
    assert shop.failures() == []
