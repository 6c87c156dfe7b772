"""The release of the chart: tested by helm, and changed while a rollout is in progress."""

from __future__ import annotations

import subprocess

import kube
import operator_chart
from shop import Shop, now

RELEASE = "modelrollout"


def helm(*arguments: str) -> str:
    """What helm prints, about the operator's release."""
    command = ["helm", *arguments, "--namespace", operator_chart.NAMESPACE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_upgrade_and_a_downgrade_lose_nothing_of_a_rollout(shop: Shop) -> None:
    shop.users(rate=100)
    candidate = shop.deploy("v2")
    steps = [{"weight": 20, "minSeconds": 600}, {"weight": 50, "minRequests": 100}]
    kube.apply(shop.rollout(candidate, strategy={"steps": steps, "bake": {"seconds": 2}}))
    began = shop.weight_is(20)["stepStartTime"]
    first = operator_chart.leader()
    chart = str(operator_chart.ROOT / "charts" / "modelrollout")
    change = ["--reset-then-reuse-values", "--set", "workers=8,podAnnotations.release=next"]

    helm("upgrade", RELEASE, chart, "--skip-crds", *change)
    second = goes_on(shop, began, first)
    helm("rollback", RELEASE)
    goes_on(shop, began, second)
    shop.command("skip-step")
    shop.phase_is("Promoted", seconds=120)

    assert helm("test", RELEASE, "--timeout", "60s").count("Phase:") >= 1
    assert shop.failures() == []


def other_leader_than(before: str) -> str:
    """Empty while it is the same one, or between two."""
    holder: str = operator_chart.lease().get("holderIdentity") or ""
    return "" if holder == before else holder


def goes_on(shop: Shop, began: str, before: str) -> str:
    """Another pod leads, the step is the same, and evidence comes in on top of what there was."""
    requests = shop.status().get("requests") or 0
    kube.rollout_pods_are_ready(operator_chart.NAMESPACE, operator_chart.DEPLOYMENT)
    leader = kube.wait_until(lambda: other_leader_than(before), 40, "a new leader")
    moment = now()
    status = kube.wait_until(
        lambda: (s := shop.status()).get("requests", 0) > requests and s,
        40,
        "more requests counted",
    )
    print(f"{leader} leads; {status['requests']} requests, {requests} before")
    assert status["stepStartTime"] == began
    assert status["weight"] == {"wanted": 20, "accepted": 20}
    assert shop.versions(moment) <= {"digits-v1", "digits-v2"}
    return str(leader)
