"""Blue/green, shadow, A/B test, approvals and reverts under real traffic."""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import Any

import kube
import operator_chart
from kube import Manifest
from shop import ERRORS, LATENCY, ROLLOUT, Shop, now, rolled_back
from workloads import manifests

COMPARATOR = f"{ROLLOUT}-comparator"
FLIPS: Manifest = {
    "name": "flips",
    "preset": "comparator/flips",
    "tolerance": {"absolute": "0.005"},
    "margin": {"absolute": "0.1"},
}
FAILURES: Manifest = {"name": "failures", "preset": "comparator/errors"}
SHADOW: Manifest = {
    "intent": "Equivalence",
    "idempotent": True,
    "paths": ["/v2/models"],
    "format": "OpenInference",
    "outputs": [{"name": "digit", "tensor": "predict", "label": {}}],
    "noiseFloor": {"share": "1"},
    "maxRequestsPerSecond": 200,
}
READY = {"path": "/v2/health/ready"}
UNREADY = {"path": "/v2/health/ready", "status": 418}
ASK = """
import os, urllib.request
service, port = (os.environ["MODELROLLOUT_" + key] for key in ("SERVICE", "PORT"))
urllib.request.urlopen(f"http://{service}:{port}{os.environ['ASKED']}", timeout=5)
"""
"""What a Job finds out: it fails unless the candidate answers 200 there."""


def shadowed(shop: Shop, candidate: str, **changes: Any) -> Manifest:
    strategy = {"type": "Shadow", "steps": [{"mirror": 100, "minRequests": 200}]}
    strategy |= changes.pop("strategy", {})
    guardrails = changes.pop("guardrails", [FLIPS, FAILURES])
    return shop.rollout(
        candidate, shadow=SHADOW | changes, strategy=strategy, guardrails=guardrails
    )


def without_steps(rollout: Manifest) -> Manifest:
    """With the default steps of its type."""
    del rollout["spec"]["strategy"]["steps"]
    return rollout


def asks(shop: Shop, what: str, seconds: float) -> None:
    """Wait until the reason says so."""
    kube.wait_until(lambda: what in shop.status().get("reason", ""), seconds, what)
    assert shop.status()["phase"] == "Paused"


# --- blue/green -----------------------------------------------------------------------------


def test_blue_green_moves_all_users_at_once_and_back_without_losing_a_request(shop: Shop) -> None:
    shop.users(rate=200)
    candidate = shop.deploy("v2", replicas=2)
    strategy = {
        "type": "BlueGreen",
        "checks": [{"name": "ready", "http": READY}],
        "bake": {"seconds": 600},
    }
    kube.apply(without_steps(shop.rollout(candidate, strategy=strategy)))
    shop.phase_is("Baking", seconds=60)
    status = shop.status()
    assert status["checks"] == [{"name": "ready", "passed": True, "message": ""}]
    moment = now() + 1
    kube.wait_until(lambda: len(shop.requests(moment)) > 400, 20, "requests after the move")
    assert shop.versions(moment) == {"digits-v2"}
    shop.command("abort")
    rolled_back(shop, seconds=30)
    assert shop.failures() == []


def test_a_failing_check_keeps_every_user_from_the_candidate(shop: Shop) -> None:
    shop.users(rate=100)
    candidate = shop.deploy("v2")
    strategy = {
        "type": "BlueGreen",
        "checks": [{"name": "teapot", "http": UNREADY}],
        "checkSeconds": 5,
    }
    kube.apply(without_steps(shop.rollout(candidate, strategy=strategy)))
    status = rolled_back(shop, seconds=60)
    assert status["reason"].endswith("check teapot: status 200, not 418")
    assert shop.condition("Healthy")["reason"] == "CheckFailed"
    assert {each.version for each in shop.requests()} == {"digits-v1"}


def job_check(shop: Shop, name: str, path: str) -> Manifest:
    """A check by Job, and the suspended CronJob that it is made from."""
    server = manifests.container(manifests.MLSERVER_IMAGE, {"ASKED": path})
    pod = {"restartPolicy": "Never", "containers": [server | {"command": ["python", "-c", ASK]}]}
    template = {"spec": {"backoffLimit": 0, "template": {"spec": pod}}}
    kube.apply(
        {
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "metadata": {"name": name, "namespace": shop.namespace},
            "spec": {"suspend": True, "schedule": "0 0 1 1 *", "jobTemplate": template},
        }
    )
    return {"name": name, "job": {"cronJob": name, "timeoutSeconds": 60}}


def test_jobs_that_ask_the_candidate_decide_whether_users_meet_it(shop: Shop) -> None:
    shop.users(rate=50)
    candidate = shop.deploy("v2")
    checks = [job_check(shop, "ready", READY["path"]), job_check(shop, "teapot", "/teapot")]
    strategy = {"type": "BlueGreen", "checks": checks}
    kube.apply(without_steps(shop.rollout(candidate, strategy=strategy)))
    status = rolled_back(shop, seconds=90)
    ready, teapot = status["checks"]
    assert ready["passed"]
    assert f"Job {teapot['job']} failed (BackoffLimitExceeded)" in status["reason"]
    assert "404" in kube.kubectl("logs", f"job/{teapot['job']}", "-n", shop.namespace)
    assert {each.version for each in shop.requests()} == {"digits-v1"}
    assert len(kube.listed("jobs", shop.namespace)) == len(checks)


# --- approvals and reverts ------------------------------------------------------------------


def test_an_approval_is_waited_for_and_recorded_with_its_user(shop: Shop) -> None:
    shop.users(rate=150)
    candidate = shop.deploy("v2")
    steps = [{"weight": 20, "minRequests": 50}, {"approval": {"message": "look at the answers"}}]
    kube.apply(shop.rollout(candidate, strategy={"steps": steps}))
    asks(shop, "waits for approval at 20 %: look at the answers", seconds=120)
    moment = now()
    kube.wait_until(lambda: len(shop.requests(moment)) > 1000, 30, "some seconds of requests")
    assert shop.status()["weight"]["wanted"] == 20
    shop.command("approve")
    status = shop.phase_is("Promoted", seconds=60)
    approved = next(each for each in status["history"] if each["what"] == "Approved")
    assert approved["by"] == kube.user()
    assert shop.failures() == []


def test_a_version_that_was_stable_before_comes_back_at_once(shop: Shop) -> None:
    shop.users(rate=150)
    candidate = shop.deploy("v2")
    kube.apply(shop.rollout(candidate))
    shop.phase_is("Promoted", seconds=120)
    moment = now()
    kube.apply(shop.rollout("digits-v1"))
    kube.wait_until(lambda: shop.status()["stable"]["deployment"] == "digits-v1", 30, "the revert")
    weights = {each.version for each in shop.requests(moment)}
    assert weights == {"digits-v1", "digits-v2"}
    assert "Started" in [each["what"] for each in shop.status()["history"][:2]]
    assert now() - moment < 20
    assert shop.failures() == []


# --- shadow ---------------------------------------------------------------------------------


def test_a_shadow_of_an_equal_model_waits_for_approval_and_no_user_met_it(shop: Shop) -> None:
    """Both err at random in 3 % of the answers, each on its own: that is the floor."""
    shop.users(rate=100)
    candidate = shop.deploy("v2")
    began = now()
    kube.apply(shadowed(shop, candidate))
    asks(shop, "waits for approval at 0 %", seconds=180)
    assert {each.version for each in shop.requests(began)} == {"digits-v1"}
    flips = shop.guardrail("flips")
    assert flips["verdict"] == "Pass"
    assert flips["stable"]["requests"] >= 200
    kube.wait_until(
        lambda: not kube.exists("deployment", COMPARATOR, shop.namespace), 30, "no comparator"
    )
    shop.command("approve")
    shop.phase_is("Promoted", seconds=60)
    assert shop.failures() == []
    assert not kube.exists("service", COMPARATOR, shop.namespace)


def test_a_shadow_finds_different_answers_before_any_user_does(shop: Shop) -> None:
    shop.users(rate=100)
    candidate = shop.deploy("v2", {"ACCURACY": "0.85"})
    kube.apply(shadowed(shop, candidate))
    status = rolled_back(shop, seconds=180)
    assert "flips: candidate" in status["reason"]
    assert "at a mirror of 100 %" in status["reason"]
    assert {each.version for each in shop.requests()} == {"digits-v1"}
    assert shop.failures() == []


def test_users_notice_nothing_when_the_comparator_dies_and_status_says_so(shop: Shop) -> None:
    shop.users(rate=150)
    candidate = shop.deploy("v2")
    steps = [{"mirror": 50, "minSeconds": 600}]
    kube.apply(shadowed(shop, candidate, strategy={"steps": steps}))
    shop.phase_is("Progressing", seconds=120)
    kube.wait_until(lambda: shop.guardrail("flips").get("candidate"), 60, "pairs")
    # It cannot come back: its image does not exist.
    kube.patch(
        "deployment",
        COMPARATOR,
        shop.namespace,
        {"spec": {"template": {"spec": {"containers": [{"name": "comparator", "image": "none"}]}}}},
        style="strategic",
    )
    moment = now()
    kube.wait_until(
        lambda: "comparator is not ready" in shop.status()["reason"], 60, "the reason says so"
    )
    kube.wait_until(lambda: len(shop.requests(moment)) > 1000, 30, "some seconds of requests")
    assert shop.status()["mirror"] == 50
    assert {each.version for each in shop.requests()} == {"digits-v1"}
    assert shop.failures() == []
    shop.command("abort")
    rolled_back(shop, seconds=30)
    kube.wait_until(
        lambda: not kube.exists("deployment", COMPARATOR, shop.namespace), 30, "no comparator"
    )


def test_a_mirror_comes_first_and_users_later(shop: Shop) -> None:
    shop.users(rate=150)
    candidate = shop.deploy("v2")
    steps = [{"mirror": 100, "minRequests": 100}, {"weight": 50, "minRequests": 100}]
    strategy = {"type": "Canary", "steps": steps}
    # Two cores do the work of five machines: the latencies of two equal versions differ by that.
    wide = {
        "tolerance": {"ratio": "2", "absolute": "0.5"},
        "margin": {"ratio": "3", "absolute": "0.6"},
    }
    guardrails = [FLIPS, FAILURES, ERRORS, LATENCY | wide]
    kube.apply(shadowed(shop, candidate, strategy=strategy, guardrails=guardrails))
    status = shop.phase_is("Promoted", seconds=240)
    assert {each["name"] for each in status["guardrails"]} == {
        "flips",
        "failures",
        "errors",
        "latency",
    }
    assert shop.failures() == []


# --- A/B test -------------------------------------------------------------------------------


def test_an_ab_test_keeps_each_user_on_one_side(shop: Shop) -> None:
    shop.users(rate=150, options=["--users", "200"])
    candidate = shop.deploy("v2", replicas=2)
    traffic = {"gatewayAPI": {"route": ROLLOUT}, "sticky": {"header": "x-user-id"}}
    strategy = {"type": "ABTest", "steps": [{"weight": 50, "minSeconds": 20}]}
    kube.apply(shop.rollout(candidate, strategy=strategy, traffic=traffic))
    shop.weight_is(50, seconds=90)
    moment = now() + 1
    kube.wait_until(lambda: len(shop.requests(moment)) > 2000, 60, "requests of many users")
    until = now() - 1
    sides: dict[str, set[str]] = {}
    for each in shop.requests(moment):
        if each.start < until and each.user:
            sides.setdefault(each.user, set()).add(each.version)
    assert len(sides) > 150
    assert all(len(each) == 1 for each in sides.values())
    share = sum(each == {"digits-v2"} for each in sides.values()) / len(sides)
    assert 0.35 < share < 0.65
    shop.phase_is("Promoted", seconds=120)
    assert shop.failures() == []


def test_a_service_called_like_the_comparator_is_left_alone(shop: Shop) -> None:
    candidate = shop.deploy("v2")
    objects = manifests.controllable_version(COMPARATOR, COMPARATOR, namespace=shop.namespace)
    kube.apply(*objects)
    kube.rollout_pods_are_ready(shop.namespace, COMPARATOR)
    before = kube.get("deployment", COMPARATOR, shop.namespace)["metadata"]["generation"]
    kube.apply(shadowed(shop, candidate))
    status = shop.phase_is("Stalled", seconds=30)
    assert f"{COMPARATOR} is the comparator's name" in status["reason"]
    after = kube.get("deployment", COMPARATOR, shop.namespace)["metadata"]["generation"]
    assert after == before


# --- take-over ------------------------------------------------------------------------------


def windows_of(shop: Shop) -> int:
    """The windows that the step in force has counted."""
    counted = shop.status().get("checkpoint") or [{"windows": 0}]
    return int(counted[0]["windows"])


def another_shop(shop: Shop, name: str, stack: ExitStack) -> Shop:
    """Of another user, with v1 and v2 that are on their way up."""
    other = Shop(f"{shop.namespace}-{name}", shop.records.with_name(f"{shop.records.name}-{name}"))
    other.open()
    stack.enter_context(closing(other))
    for version in ("v1", "v2"):
        other.deploy(version, wait=False)
    return other


def test_a_killed_operator_costs_no_strategy_its_evidence_and_no_user_a_request(shop: Shop) -> None:
    """One kill in the middle of three rollouts: all users are at the candidate, copies are, half of them are."""
    with ExitStack() as stack:
        shop.deploy("v2", wait=False)
        shadow, ab_test = (another_shop(shop, name, stack) for name in ("s", "a"))
        shops = (shop, shadow, ab_test)
        for each in shops:
            kube.rollout_pods_are_ready(each.namespace, "digits-v1", "digits-v2")
        for each in (shadow, ab_test):
            each.route("digits-v1")
        for each in shops:
            each.users(rate=60)
        checks = [{"name": "ready", "http": READY}]
        blue_green = {"type": "BlueGreen", "checks": checks, "bake": {"seconds": 600}}
        kube.apply(without_steps(shop.rollout("digits-v2", strategy=blue_green)))
        steps = [{"mirror": 100, "minSeconds": 600}]
        kube.apply(shadowed(shadow, "digits-v2", strategy={"steps": steps}))
        traffic = {"gatewayAPI": {"route": ROLLOUT}, "sticky": {"header": "x-user-id"}}
        halves = {"type": "ABTest", "steps": [{"weight": 50, "minSeconds": 600}]}
        kube.apply(ab_test.rollout("digits-v2", strategy=halves, traffic=traffic))
        shop.phase_is("Baking", seconds=120)
        for each in (shadow, ab_test):
            kube.wait_until(lambda at=each: windows_of(at) > 0, 120, f"evidence in {each.host}")
        before = [(each, each.status(), windows_of(each)) for each in shops]

        print(f"the Lease was renewed {operator_chart.take_over():.1f} s after SIGKILL")

        for each, _, count in before[1:]:
            kube.wait_until(
                lambda at=each, least=count: windows_of(at) > least, 60, f"more in {each.host}"
            )
        for each, known, _ in before:
            after = each.status()
            for key in ("phase", "step", "stepStartTime", "weight", "mirror", "candidate"):
                assert after.get(key) == known.get(key), (each.host, key)
        shop.command("abort")
        rolled_back(shop, seconds=60)
        assert [each.failures() for each in shops] == [[], [], []]
        assert {each.version for each in shadow.requests()} == {"digits-v1"}
