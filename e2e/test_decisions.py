"""The main job under real traffic: good versions are promoted, bad ones lose their users."""

from __future__ import annotations

import pytest

import kube
from shop import ACCURACY, ERRORS, LATENCY, Shop, now, rolled_back


def test_a_good_version_is_promoted_and_no_user_notices(shop: Shop) -> None:
    shop.users(rate=150)
    candidate = shop.deploy("v2", replicas=2)
    kube.apply(shop.rollout(candidate, guardrails=[ERRORS, LATENCY, ACCURACY]))
    status = shop.phase_is("Promoted", seconds=180)
    assert status["stable"]["deployment"] == "digits-v2"
    kube.kubectl(
        "wait",
        "--for=condition=Ready",
        "modelrollout/digits",
        "-n",
        shop.namespace,
        "--timeout=90s",
    )
    assert shop.condition("Promoted")["status"] == "True"
    moment = now() + 1
    kube.wait_until(lambda: len(shop.requests(moment)) > 100, 20, "requests after the promotion")
    assert shop.versions(moment) == {"digits-v2"}
    assert set(shop.backends()) == {"digits-v2"}
    assert shop.failures() == []
    assert "finalizers" not in kube.get("modelrollout", "digits", shop.namespace)["metadata"]


def test_more_errors_are_rolled_back(shop: Shop) -> None:
    shop.users(rate=150)
    candidate = shop.deploy("v3", {"ERROR_RATE": "0.2"})
    kube.apply(shop.rollout(candidate))
    status = rolled_back(shop)
    assert shop.condition("Healthy")["reason"] == "GuardrailBreached"
    assert "errors: candidate" in status["reason"]
    assert {each.version for each in shop.failures()} == {"digits-v3"}


def test_a_worse_tail_is_rolled_back_and_no_request_fails(shop: Shop) -> None:
    shop.users(rate=150)
    candidate = shop.deploy("v4", {"TAIL_SHARE": "0.06", "TAIL_SECONDS": "0.4"})
    kube.apply(shop.rollout(candidate))
    status = rolled_back(shop)
    assert "latency: candidate" in status["reason"]
    assert shop.failures() == []


def test_worse_answers_are_rolled_back_though_they_are_fast(shop: Shop) -> None:
    shop.users(rate=150)
    candidate = shop.deploy("v5", {"ACCURACY": "0.8"})
    kube.apply(shop.rollout(candidate, guardrails=[ERRORS, LATENCY, ACCURACY]))
    status = rolled_back(shop)
    assert "accuracy: candidate" in status["reason"]
    assert shop.failures() == []


def test_a_rejected_revision_is_not_retried_until_somebody_asks(shop: Shop) -> None:
    shop.users(rate=150)
    candidate = shop.deploy("v3", {"ERROR_RATE": "0.3"})
    kube.apply(shop.rollout(candidate))
    rolled_back(shop)
    kube.kubectl("annotate", "modelrollout", "digits", "-n", shop.namespace, "touched=1")
    moment = now()
    kube.wait_until(lambda: len(shop.requests(moment)) > 1500, 30, "ten seconds of requests")
    assert shop.versions(moment) == {"digits-v1"}
    shop.command("retry")
    kube.wait_until(lambda: "digits-v3" in shop.versions(moment), 30, "the candidate gets users")
    rolled_back(shop)
    annotations = kube.get("modelrollout", "digits", shop.namespace)["metadata"]["annotations"]
    assert "modelrollout.dev/command" not in annotations


def test_limits_need_no_comparison(shop: Shop) -> None:
    shop.users(rate=100)
    candidate = shop.deploy("v2")
    query = f'sum(rate(model_requests_total{{namespace="{shop.namespace}"}}[5s]))'
    limit = {"name": "load", "limit": {"query": query, "max": "20", "forSeconds": 2}}
    kube.apply(shop.rollout(candidate, guardrails=[ERRORS, limit]))
    status = shop.phase_is("RolledBack", seconds=60)
    assert "load: " in status["reason"]
    assert "max 20" in status["reason"]


@pytest.mark.parametrize("verb", ["abort", "promote"])
def test_a_command_is_carried_out_and_recorded_with_its_user(shop: Shop, verb: str) -> None:
    shop.users(rate=100)
    candidate = shop.deploy("v2")
    kube.apply(shop.rollout(candidate, strategy={"steps": [{"weight": 20, "minSeconds": 600}]}))
    shop.weight_is(20)
    shop.command(verb)
    final, backend = ("RolledBack", "digits-v1") if verb == "abort" else ("Promoted", "digits-v2")
    status = shop.phase_is(final, seconds=20)
    assert f"by {kube.user()}" in status["history"][0]["message"]
    kube.wait_until(lambda: set(shop.backends()) == {backend}, 10, "the route at rest")
    assert shop.failures() == []


def test_a_pause_holds_and_a_resume_goes_on(shop: Shop) -> None:
    shop.users(rate=150)
    candidate = shop.deploy("v2")
    kube.apply(shop.rollout(candidate))
    shop.weight_is(10)
    shop.command("pause")
    shop.phase_is("Paused", seconds=20)
    moment = now()
    kube.wait_until(lambda: len(shop.requests(moment)) > 1000, 30, "some seconds of requests")
    assert shop.status()["phase"] == "Paused"
    shop.command("resume")
    shop.phase_is("Promoted", seconds=180)
    assert shop.failures() == []
