"""What only some guardrails see, and what the operator says when it cannot know or must not trust."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

import kube
import operator_chart
from shop import ACCURACY, ERRORS, ROLLOUT, Shop, now, rolled_back

WEAK_DIGIT = "7"
CONFIDENCE: kube.Manifest = {
    "name": "confidence",
    "mean": {
        "sum": {"metric": "model_confidence_sum"},
        "count": {"metric": "model_confidence_count"},
    },
    "direction": "LowerIsWorse",
    "tolerance": {"ratio": "1.1"},
    "margin": {"ratio": "1.2"},
}
P90: kube.Manifest = {
    "name": "p90",
    "distribution": {
        "histogram": {"metric": "model_request_duration_seconds"},
        "quantile": "0.9",
    },
    "tolerance": {"ratio": "1.5"},
    "margin": {"ratio": "2.5"},
}
POD_ERRORS: kube.Manifest = {
    "name": "pod-errors",
    "proportion": {
        "events": {
            "metric": "model_requests_total",
            "matchers": [{"label": "code", "value": "500"}],
        },
        "total": {"metric": "model_requests_total"},
    },
}
MEDIAN_SECONDS = 0.035
"""Of stable, where latency is compared: the machine's own hiccups are small beside it."""


@pytest.fixture(autouse=True)
def the_log_has_no_traceback(operator: None) -> Iterator[None]:  # noqa: ARG001
    """Until the shop is closed, nothing goes wrong in the operator itself."""
    since = datetime.fromtimestamp(now(), UTC).isoformat()
    yield
    options = f"--since-time={since}"
    lines = kube.logs(operator_chart.NAMESPACE, operator_chart.SELECTOR, options)
    assert [each for each in lines if "Traceback" in each or '"severity": "error"' in each] == []


def one_step(weight: int, **step: Any) -> kube.Manifest:
    """A strategy of a single step before 100 %."""
    return {"steps": [{"weight": weight, **step}], "bake": {"seconds": 2}}


def healthy_is(shop: Shop, reason: str, seconds: float) -> kube.Manifest:
    """Wait until the condition Healthy has a reason; the condition."""

    def found() -> kube.Manifest | None:
        condition = shop.condition("Healthy")
        return condition if condition.get("reason") == reason else None

    condition: kube.Manifest = kube.wait_until(found, seconds, f"Healthy is {reason}")
    return condition


def stays(shop: Shop, weight: int, seconds: float) -> None:
    """The rollout moves no further, though its step is old enough and asks for nothing more."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        status = shop.status()
        assert (status["phase"], status["step"]) == ("Progressing", 0)
        assert status["weight"] == {"wanted": weight, "accepted": weight}
        time.sleep(0.5)


def slow_down(shop: Shop, deployment: str, median: float) -> None:
    """Have all pods of a version take so long from now on."""
    for pod in shop.pods(deployment):
        shop.tell(pod, latencySeconds={"median": median})


def sticky_by_user(namespace: str) -> kube.Manifest:
    """A policy of the gateway for the shop's route: who says the same name gets the same version."""
    header = {"type": "Headers", "headers": [{"name": "x-user-id"}]}
    return {
        "apiVersion": "gateway.envoyproxy.io/v1alpha1",
        "kind": "BackendTrafficPolicy",
        "metadata": {"name": ROLLOUT, "namespace": namespace},
        "spec": {
            "targetRefs": [
                {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": ROLLOUT}
            ],
            "loadBalancer": {"type": "ConsistentHash", "consistentHash": header},
        },
    }


def test_a_version_that_is_wrong_on_one_digit_is_rolled_back_by_that_slice(shop: Shop) -> None:
    shop.users(rate=150)
    candidate = shop.deploy("v2", {"WEAK_DIGIT": WEAK_DIGIT, "WEAK_ACCURACY": "0.3"})
    # All digits together are within this tolerance: 10 % are wrong instead of 3 %, 12 % may be.
    overall = ACCURACY | {
        "name": "overall",
        "tolerance": {"ratio": "1.5", "absolute": "0.08"},
        "margin": {"ratio": "1.5", "absolute": "0.1"},
    }
    sliced = overall | {"name": "accuracy", "slices": {"label": "digit", "top": 10}}
    steps = one_step(40, minRequests=3000)
    kube.apply(shop.rollout(candidate, guardrails=[overall, sliced], strategy=steps))
    status = rolled_back(shop)
    print(status["reason"])
    assert f"accuracy: digit {WEAK_DIGIT}; overall candidate" in status["reason"]
    by_name = {each["name"]: each for each in status["guardrails"]}
    print("harm", {name: each["harm"] for name, each in by_name.items()})
    assert by_name["accuracy"]["verdict"] == "Fail"
    worst, *others = by_name["accuracy"]["slices"]
    assert worst["name"] == WEAK_DIGIT
    assert float(worst["harm"]) >= 1 > max(float(each["harm"]) for each in others)
    assert len(others) == 9
    # The same counts without slices do not condemn it.
    assert float(by_name["overall"]["harm"]) < 0.5
    assert shop.failures() == []


def test_a_lower_average_with_a_known_largest_value_is_rolled_back(shop: Shop) -> None:
    shop.users(rate=150)
    candidate = shop.deploy("v2", {"CONFIDENCE": "0.6"})
    bounded = CONFIDENCE | {"mean": CONFIDENCE["mean"] | {"max": "1"}}
    kube.apply(shop.rollout(candidate, guardrails=[ERRORS, bounded], strategy=one_step(30)))
    status = rolled_back(shop)
    print(status["reason"])
    said = re.search(
        r"confidence: candidate (\S+) on average of \S+, stable (\S+) on average of \S+,"
        r" tolerance stable / 1\.1,",
        status["reason"],
    )
    assert said
    assert float(said[1]) == pytest.approx(0.6, abs=0.05)
    assert float(said[2]) == pytest.approx(0.9, abs=0.05)
    assert shop.failures() == []


def test_a_version_four_times_slower_is_rolled_back_by_its_quantile(shop: Shop) -> None:
    slow_down(shop, "digits-v1", MEDIAN_SECONDS)
    shop.users(rate=150)
    candidate = shop.deploy("v2", {"LATENCY_MEDIAN_SECONDS": str(4 * MEDIAN_SECONDS)})
    kube.apply(shop.rollout(candidate, guardrails=[P90], strategy=one_step(20)))
    status = rolled_back(shop)
    print(status["reason"])
    said = re.search(
        r"p90: candidate (\S+) % of \S+ above (\S+), stable (\S+) % of \S+ above (\S+),"
        r" tolerance 1\.5 x stable,",
        status["reason"],
    )
    assert said
    share, above, stable_share, stable_above = map(float, said.groups())
    # Stable's p90 is near its threshold, and the candidate is held to one 1.5 times as high.
    assert 2 < stable_share < 45
    assert 1.4 * stable_above < above < 4 * MEDIAN_SECONDS
    assert share > 80
    assert shop.failures() == []


def test_an_equal_version_is_promoted_by_quantile_and_average(shop: Shop) -> None:
    slow_down(shop, "digits-v1", MEDIAN_SECONDS)
    shop.users(rate=150)
    candidate = shop.deploy("v2", {"LATENCY_MEDIAN_SECONDS": str(MEDIAN_SECONDS)})
    kube.apply(shop.rollout(candidate, guardrails=[P90, CONFIDENCE], strategy=one_step(50)))
    shop.weight_is(50)
    kube.wait_until(lambda: shop.guardrail("p90").get("verdict") == "Pass", 30, "p90 passes")
    early = shop.guardrail("confidence")
    assert early["verdict"] == "Inconclusive"
    assert "an average begins to tell after 30 windows" in early["message"]
    shop.phase_is("Promoted", seconds=90)
    assert shop.failures() == []


def test_too_little_traffic_is_told_before_the_first_step_with_what_would_do(shop: Shop) -> None:
    shop.users(rate=5)
    moment = now()
    candidate = shop.deploy("v2")
    kube.wait_until(lambda: now() > moment + 30, 40, "half a minute of stable's traffic")
    steps = one_step(20, minRequests=20, maxSeconds=300)
    kube.apply(shop.rollout(candidate, guardrails=[ERRORS], strategy=steps))
    (warning,) = shop.weight_is(20)["warnings"]
    print(warning)
    said = re.fullmatch(
        r"errors: step 1 \(20 %\) will see about (\S+) of the candidate's requests in 300 s"
        r" and needs about (\S+) to prove its margin; a margin of 2 x stable \+ (\S+) %,"
        r" a weight of (\d+) %, or a maxSeconds of (\d+) would do",
        warning,
    )
    assert said
    numbers = [float(each.replace(",", "")) for each in said.groups()]
    requests, needed, margin, weight, max_seconds = numbers
    assert requests == pytest.approx(5 * 0.2 * 300, rel=0.4)
    assert needed > requests
    # Without an error so far, each way is a matter of proportion.
    assert max_seconds / 300 == pytest.approx(needed / requests, rel=0.15)
    assert weight / 20 == pytest.approx(needed / requests, rel=0.15)
    assert margin / 0.5 == pytest.approx(needed / requests, rel=0.15)
    event = shop.event("CannotDecideInTime")
    assert (event["type"], event["message"]) == ("Warning", warning)
    # Nobody was sent to the candidate before.
    told = datetime.fromisoformat(event["eventTime"]).timestamp()
    assert {each.version for each in shop.requests() if each.start < told} == {"digits-v1"}

    shop.command("abort")
    shop.phase_is("RolledBack", seconds=20)
    longer = one_step(20, minRequests=20, maxSeconds=int(1.5 * max_seconds))
    kube.patch("modelrollout", ROLLOUT, shop.namespace, {"spec": {"strategy": longer}})
    shop.command("retry")
    assert shop.weight_is(20)["warnings"] == []
    assert len(shop.events("CannotDecideInTime")) == 1
    assert shop.failures() == []


def test_users_that_stick_to_a_version_freeze_the_promotion(shop: Shop) -> None:
    kube.apply(sticky_by_user(shop.namespace))
    # Each of three users makes a third of the requests, and one of them is sent to the candidate.
    shop.users(rate=150, options=["--users=3"])
    candidate = shop.deploy("v2")
    errors = ERRORS | {"margin": {"ratio": "2", "absolute": "0.01"}}
    kube.apply(shop.rollout(candidate, guardrails=[errors], strategy=one_step(15, minSeconds=10)))
    shop.weight_is(15)
    moment = now()
    condition = healthy_is(shop, "SplitMismatch", 30)
    print(condition["message"])
    assert condition["status"] == "False"
    said = re.match(
        r"the candidate got (\S+) % of \S+ requests instead of 15 %:", condition["message"]
    )
    assert said
    assert float(said[1]) > 20
    event = shop.event("SplitMismatch")
    assert event["type"] == "Warning"

    kube.wait_until(lambda: shop.status()["verdict"] == "Pass", 40, "every guardrail passes")
    stays(shop, 15, seconds=4)
    assert shop.condition("Healthy")["reason"] == "SplitMismatch"
    split = shop.status()["split"]
    counted = split["candidate"] / (split["stable"] + split["candidate"])
    answered = [each.version for each in shop.requests(moment)]
    assert answered.count("digits-v2") / len(answered) == pytest.approx(counted, abs=0.05)
    assert shop.failures() == []


def test_an_ill_pod_of_stable_lets_nothing_be_proved(shop: Shop) -> None:
    ill, _ = shop.pods("digits-v1")
    shop.tell(ill, errorRate=0.25)
    shop.users(rate=150)
    candidate = shop.deploy("v2")
    steps = one_step(20, minRequests=200)
    kube.apply(shop.rollout(candidate, guardrails=[POD_ERRORS], strategy=steps))
    condition = healthy_is(shop, "PlaceboFailed", 60)
    print(condition["message"])
    assert condition["status"] == "Unknown"
    assert "pod-errors: untrusted, because two halves of stable differ" in condition["message"]
    kube.wait_until(lambda: shop.status()["requests"] > 200, 30, "the step's requests")
    stays(shop, 20, seconds=3)
    found = shop.guardrail("pod-errors")
    print(found["message"], "placebo", found["placebo"])
    assert float(found["placebo"]) >= 1
    assert float(found["safety"]) >= 1
    assert found["verdict"] == "Inconclusive"
    event = shop.event("PlaceboFailed")
    assert event["type"] == "Warning"
    assert {each.version for each in shop.failures()} == {"digits-v1"}
