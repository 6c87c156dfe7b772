"""What happens to users while something breaks, is changed by hand, or is away."""

from __future__ import annotations

import json
import math
import time

import pytest

import kube
import operator_chart
from modelrollout.adapters.lease import LEASE_SECONDS, RETRY_SECONDS
from shop import ERRORS, LATENCY, ROLLOUT, STEPS, Shop, now
from workloads import manifests

LONGEST_TAKE_OVER_SECONDS = 3 * (LEASE_SECONDS + RETRY_SECONDS)
"""On a machine that is slow; what it takes on an idle one is measured by the benchmarks."""


@pytest.fixture
def prometheus_away():
    """Prometheus without a pod, until the test asks for it back."""
    kube.kubectl("scale", "deployment/prometheus", "-n", "monitoring", "--replicas=0")
    kube.kubectl("wait", "--for=delete", "pod", "-l", "app=prometheus", "-n", "monitoring")

    def back() -> None:
        kube.kubectl("scale", "deployment/prometheus", "-n", "monitoring", "--replicas=1")
        kube.rollout_pods_are_ready("monitoring", "prometheus")

    yield back
    back()


def slow_steps(weight: int = 20, seconds: int = 600) -> dict:
    """A step to stay at while the test does something."""
    return {"steps": [{"weight": weight, "minSeconds": seconds}], "bake": {"seconds": 2}}


def test_two_minutes_without_prometheus_hold_and_then_it_goes_on(shop: Shop, request) -> None:
    shop.users(rate=150)
    candidate = shop.deploy("v2")
    steps = [{"weight": 20, "minRequests": 2000}, {"weight": 50, "minRequests": 100}]
    kube.apply(shop.rollout(candidate, strategy={"steps": steps, "bake": {"seconds": 2}}))
    shop.weight_is(20)
    back = request.getfixturevalue("prometheus_away")
    began = time.monotonic()
    kube.wait_until(
        lambda: shop.condition("Healthy").get("reason") == "MetricsUnavailable", 30, "blindness"
    )
    while time.monotonic() - began < 120:
        assert shop.backends() == {"digits-v1": 80, "digits-v2": 20}
        assert shop.status()["phase"] == "Progressing"
        time.sleep(2)
    back()
    shop.phase_is("Promoted", seconds=180)
    assert shop.failures() == []


def test_a_metric_without_series_holds_and_names_itself(shop: Shop) -> None:
    shop.users(rate=100)
    candidate = shop.deploy("v2")
    missing = {
        "name": "abstentions",
        "proportion": {
            "events": {"metric": "abstentions_total"},
            "total": {"metric": "answers_total"},
        },
    }
    kube.apply(shop.rollout(candidate, guardrails=[ERRORS, missing]))
    shop.weight_is(10)
    found = kube.wait_until(
        lambda: (c := shop.condition("Healthy")).get("reason") == "MetricsUnavailable" and c,
        30,
        "blindness",
    )
    assert "answers_total" in found["message"] or "abstentions_total" in found["message"]
    moment = now()
    kube.wait_until(lambda: len(shop.requests(moment)) > 1000, 30, "ten seconds of requests")
    assert shop.backends() == {"digits-v1": 90, "digits-v2": 10}


def test_a_candidate_that_never_becomes_ready_gets_no_user(shop: Shop) -> None:
    shop.users(rate=50)
    candidate = shop.deploy("v2", {"READY_DELAY_SECONDS": "3600"}, wait=False)
    patch = {"spec": {"progressDeadlineSeconds": 5}}
    kube.patch("deployment", candidate, shop.namespace, patch)
    kube.apply(shop.rollout(candidate))
    status = shop.phase_is("Stalled", seconds=60)
    assert "does not become ready" in status["reason"]
    assert shop.condition("Stalled")["reason"] == "CandidateNotReady"
    assert shop.versions(0) == {"digits-v1"}
    assert shop.failures() == []


def test_a_candidate_that_crashes_mid_step_loses_its_users(shop: Shop) -> None:
    shop.users(rate=100)
    candidate = shop.deploy("v2")
    kube.apply(shop.rollout(candidate, strategy=slow_steps()))
    shop.weight_is(20)
    kube.kubectl("delete", "pod", "-l", f"app={candidate}", "-n", shop.namespace,
                 "--grace-period=0", "--force")  # fmt: skip
    shop.phase_is("RollingBack", "RolledBack", seconds=20)
    shop.phase_is("RolledBack", seconds=20)
    moment = now() + 1
    kube.wait_until(lambda: len(shop.requests(moment)) > 100, 20, "requests after it")
    assert shop.versions(moment) == {"digits-v1"}
    assert shop.failures(moment) == []


def the_operator_is_killed_and_one_goes_on(shop: Shop) -> None:
    before = shop.status()
    took = operator_chart.take_over()
    print(f"the Lease was renewed {took:.1f} s after SIGKILL")
    assert took < LONGEST_TAKE_OVER_SECONDS
    after = shop.status()
    assert after.get("step", math.inf) >= before.get("step", 0)
    if "step" in before and before.get("step") == after.get("step"):
        goes_on_with_its_evidence(before, after)


def goes_on_with_its_evidence(before: kube.Manifest, after: kube.Manifest) -> None:
    """What was counted is counted still, and the step is the one that it was."""
    if before.get("checkpoint") and after.get("checkpoint"):
        assert after["stepStartTime"] == before["stepStartTime"]
        assert after["checkpoint"][0]["windows"] >= before["checkpoint"][0]["windows"]


def test_the_operator_killed_in_each_step_goes_on_with_its_evidence(shop: Shop) -> None:
    shop.users(rate=150)
    candidate = shop.deploy("v2")
    steps = [
        {"weight": 10, "minRequests": 400, "gate": "NoHarm"},
        {"weight": 50, "minRequests": 2500},
    ]
    kube.apply(shop.rollout(candidate, strategy={"steps": steps, "bake": {"seconds": 20}}))
    for weight in (10, 50, 100):
        shop.weight_is(weight, seconds=120)
        time.sleep(3)
        the_operator_is_killed_and_one_goes_on(shop)
    shop.phase_is("Promoted", seconds=180)
    assert shop.failures() == []


def test_a_route_edited_by_hand_is_put_back(shop: Shop) -> None:
    shop.users(rate=100)
    candidate = shop.deploy("v2")
    kube.apply(shop.rollout(candidate, strategy=slow_steps()))
    shop.weight_is(20)
    path = "/spec/rules/0/backendRefs"
    operations = [
        {"op": "replace", "path": f"{path}/0/weight", "value": 0},
        {"op": "replace", "path": f"{path}/1/weight", "value": 100},
    ]
    kube.patch("httproute", ROLLOUT, shop.namespace, operations, style="json")
    began = time.monotonic()
    kube.wait_until(
        lambda: shop.backends() == {"digits-v1": 80, "digits-v2": 20}, 5, "the route put back"
    )
    took = time.monotonic() - began
    print(f"put back within {took:.2f} s")
    assert took < 20
    events = kube.kubectl("events", "-n", shop.namespace, "--for", "modelrollout/digits")
    assert "edited by somebody else" in events


def test_a_new_revision_mid_rollout_starts_from_the_first_step(shop: Shop) -> None:
    shop.users(rate=100)
    candidate = shop.deploy("v2", replicas=2)
    kube.apply(shop.rollout(candidate, strategy=slow_steps()))
    first = shop.weight_is(20)["candidate"]["revision"]
    template = {"spec": {"template": {"metadata": {"annotations": {"model": "2.1"}}}}}
    kube.patch("deployment", candidate, shop.namespace, template)

    def restarted() -> bool:
        status = shop.status()
        return (status.get("candidate") or {}).get("revision", first) != first

    kube.wait_until(restarted, 30, "the new revision on trial")
    assert shop.weight_is(20)["step"] == 0
    history = [each["what"] for each in shop.status()["history"]]
    assert history[:2] == ["Restarted", "Started"]
    assert shop.failures() == []


def test_deletion_mid_rollout_gives_stable_its_users_back(shop: Shop) -> None:
    shop.users(rate=100)
    candidate = shop.deploy("v2")
    before = kube.get("httproute", ROLLOUT, shop.namespace)["spec"]
    kube.apply(shop.rollout(candidate, strategy=slow_steps()))
    shop.weight_is(20)
    kube.kubectl("delete", "modelrollout", ROLLOUT, "-n", shop.namespace, "--timeout=90s")
    assert kube.get("httproute", ROLLOUT, shop.namespace)["spec"] == before
    moment = now() + 1
    kube.wait_until(lambda: len(shop.requests(moment)) > 100, 20, "requests after it")
    assert shop.versions(moment) == {"digits-v1"}
    assert shop.failures() == []


def test_a_bare_route_is_adopted_with_a_loss_that_ends_at_once(shop: Shop) -> None:
    kube.kubectl("delete", "httproute", ROLLOUT, "-n", shop.namespace)
    shop.route("digits-v1", names_version=False)
    shop.users(rate=150)
    candidate = shop.deploy("v2")
    began = now()
    kube.apply(shop.rollout(candidate, strategy=slow_steps()))
    shop.weight_is(20)
    lost = shop.failures(began - 1)
    print(f"adopting a route without x-model-version cost {len(lost)} requests at 150/s")
    assert all(each.start - lost[0].start < 1 for each in lost)


def test_two_rollouts_on_two_rules_of_a_route_leave_each_other_alone(shop: Shop) -> None:
    shop.users(rate=100)
    for version in ("a1", "a2", "v2"):
        shop.deploy(version, wait=False)
    kube.rollout_pods_are_ready(shop.namespace, "digits-a1", "digits-a2", "digits-v2")
    live = kube.get("httproute", ROLLOUT, shop.namespace)
    other = {
        "name": "other",
        "matches": [{"path": {"type": "PathPrefix", "value": "/other"}}],
        "backendRefs": [{"name": "digits-a1", "port": manifests.HTTP_PORT}],
    }
    # Stable's rule stays where it is: with its place in the list its backends would get new names.
    main = {"name": "main", **live["spec"]["rules"][0]}
    kube.patch("httproute", ROLLOUT, shop.namespace, {"spec": {"rules": [main, other]}})
    hold = slow_steps(weight=30)

    def on(rule: str) -> dict:
        return {"gatewayAPI": {"route": ROLLOUT, "rule": rule}}

    kube.apply(shop.rollout("digits-v2", traffic=on("main"), strategy=hold))
    shop.weight_is(30)
    second = shop.rollout(
        "digits-a2", stable="digits-a1", name="other", traffic=on("other"), strategy=hold
    )
    kube.apply(second)
    kube.wait_until(
        lambda: shop.backends(rule=1) == {"digits-a1": 70, "digits-a2": 30}, 30, "both shared"
    )
    shop.command("abort", name="other")
    kube.wait_until(lambda: set(shop.backends(rule=1)) == {"digits-a1"}, 30, "it is at rest")
    assert shop.backends(rule=0) == {"digits-v1": 70, "digits-v2": 30}
    rules = kube.get("httproute", ROLLOUT, shop.namespace)["spec"]["rules"]
    assert [each["name"] for each in rules] == ["main", "other"]
    assert rules[1]["matches"] == other["matches"]
    assert shop.failures() == []


def test_a_managed_route_is_the_operators_and_outlives_the_rollout(shop: Shop) -> None:
    kube.kubectl("delete", "httproute", ROLLOUT, "-n", shop.namespace)
    candidate = shop.deploy("v2")
    traffic = {
        "gatewayAPI": {
            "gateway": {"name": "gateway", "namespace": "gateway-system"},
            "hostnames": [shop.host],
        }
    }
    kube.apply(shop.rollout(candidate, traffic=traffic, strategy=slow_steps()))
    shop.weight_is(20)
    shop.users(rate=100)
    shop.command("promote")
    shop.phase_is("Promoted", seconds=20)
    kube.wait_until(lambda: set(shop.backends()) == {"digits-v2"}, 10, "the route at rest")
    kube.kubectl("delete", "modelrollout", ROLLOUT, "-n", shop.namespace, "--timeout=90s")
    moment = now() + 1
    kube.wait_until(lambda: len(shop.requests(moment)) > 100, 20, "requests after it")
    assert shop.versions(moment) == {"digits-v2"}
    assert shop.failures(moment - 10) == []


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        ({"candidate": {"deployment": "absent"}}, "CandidateNotFound", "absent (candidate)"),
        ({"stable": {"deployment": "absent"}}, "StableNotFound", "absent (stable)"),
        ({"traffic": {"gatewayAPI": {"route": "absent"}}}, "RouteNotFound", "does not exist"),
        (
            {"traffic": {"gatewayAPI": {"route": ROLLOUT, "rule": "absent"}}},
            "RouteNotManaged",
            "rules named 'absent'",
        ),
        ({"port": 4711}, "ServiceMismatch", "no port 4711"),
        (
            {"analysis": {"provider": "absent", "guardrails": [LATENCY]}},
            "ProviderNotFound",
            "there is default",
        ),
    ],
)
def test_what_does_not_exist_is_named_and_nothing_moves(
    shop: Shop, change: dict, reason: str, words: str
) -> None:
    before = kube.get("httproute", ROLLOUT, shop.namespace)["spec"]
    candidate = shop.deploy("v2")
    good = shop.rollout(candidate, strategy=slow_steps())
    kube.apply({**good, "spec": good["spec"] | change})
    found = kube.wait_until(
        lambda: (c := shop.condition("Accepted")).get("status") == "False" and c, 20, "refusal"
    )
    assert found["reason"] == reason
    assert words in found["message"]
    assert kube.get("httproute", ROLLOUT, shop.namespace)["spec"] == before
    kube.kubectl("delete", "modelrollout", ROLLOUT, "-n", shop.namespace, "--timeout=90s")
    kube.apply(good)
    kube.wait_until(lambda: shop.condition("Accepted").get("status") == "True", 20, "acceptance")


def test_an_absent_candidate_that_appears_is_rolled_out(shop: Shop) -> None:
    kube.apply(shop.rollout("digits-v2", strategy=slow_steps()))
    kube.wait_until(lambda: shop.condition("Accepted").get("status") == "False", 20, "refusal")
    shop.deploy("v2")
    shop.weight_is(20)


def test_versions_that_select_each_others_pods_are_refused(shop: Shop) -> None:
    candidate = shop.deploy("v2")
    service = {"spec": {"selector": {"app": "digits-v1"}}}
    kube.patch("service", candidate, shop.namespace, service)
    kube.apply(shop.rollout(candidate))
    found = kube.wait_until(
        lambda: (c := shop.condition("Accepted")).get("status") == "False" and c, 20, "refusal"
    )
    assert found["reason"] in {"ServiceMismatch", "SelectorOverlap"}
    assert set(shop.backends()) == {"digits-v1"}


def test_a_missing_service_is_made_for_the_candidate(shop: Shop) -> None:
    candidate = shop.deploy("v2")
    kube.kubectl("delete", "service", candidate, "-n", shop.namespace)
    kube.apply(shop.rollout(candidate, strategy=slow_steps()))
    shop.weight_is(20)
    service = kube.get("service", candidate, shop.namespace)
    assert service["metadata"]["ownerReferences"][0]["name"] == candidate


def test_status_speaks_to_people_and_to_tools(shop: Shop) -> None:
    shop.users(rate=150)
    candidate = shop.deploy("v2")
    kube.apply(shop.rollout(candidate, strategy={"steps": STEPS, "bake": {"seconds": 20}}))
    shop.weight_is(50, seconds=120)
    table = kube.kubectl("get", "mro", "-n", shop.namespace)
    print(table)
    assert table.split()[:8] == [
        "NAME", "STATE", "STEP", "WEIGHT", "VERDICT", "REQUESTS", "AGE", "digits",
    ]  # fmt: skip
    conditions = {each["type"] for each in shop.status()["conditions"]}
    assert {"Ready", "Reconciling", "Stalled", "Accepted", "Progressing", "Healthy"} <= conditions
    generation = kube.get("modelrollout", ROLLOUT, shop.namespace)["metadata"]["generation"]
    assert {each["observedGeneration"] for each in shop.status()["conditions"]} == {generation}
    wait = ["wait", "--for=condition=Promoted", "mro/digits", "-n", shop.namespace]
    kube.kubectl(*wait, "--timeout=300s")
    events = json.loads(kube.kubectl("get", "events", "-n", shop.namespace, "-o", "json"))
    told = [e["message"] for e in events["items"] if e["involvedObject"]["kind"] == "ModelRollout"]
    assert any("50 % of requests go to digits-v2" in each for each in told)
