"""Commands, from the word in the terminal to what the operator recorded of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from modelrollout.api import v1alpha1 as api
from terminal import ROLLOUTS, Shop
from walk import BAD, Walk

RBAC = "/apis/rbac.authorization.k8s.io/v1/namespaces"
APPROVAL = {
    "strategy": {
        "steps": [{"weight": 10, "minRequests": 10}, {"approval": {}}],
        "bake": {"seconds": 3600},
    }
}


@pytest.fixture
def shop(shop: Shop) -> Shop:
    """In which ada may look and annotate."""
    rules = [
        {"apiGroups": ["modelrollout.dev"], "resources": ["modelrollouts"], "verbs": ["*"]},
        {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "list"]},
        {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["list"]},
    ]
    shop.create("roles", {"metadata": {"name": "engineer"}, "rules": rules}, RBAC)
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "engineer"}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "ada"}
    binding = {"metadata": {"name": "ada"}, "roleRef": reference, "subjects": [subject]}
    shop.create("rolebindings", binding, RBAC)
    for name in ("ranker-v1", "ranker-v2"):
        path = f"/apis/apps/v1/namespaces/{shop.namespace}/deployments/{name}"
        body = shop.api("GET", path)
        body["status"] = {"replicas": 2, "readyReplicas": 2, "availableReplicas": 2}
        shop.api("PUT", f"{path}/status", body)
    return shop


def a_walk(until: api.Phase = api.Phase.PROGRESSING, **how: Any) -> Walk:
    walk = Walk(now=time.time() - 600, spec=how.pop("spec", {}))
    walk.until(until, **how)
    if walk.status.step_start_time is None and until is api.Phase.PROGRESSING:
        walk.step()
    return walk


@contextmanager
def operator(shop: Shop, walk: Walk, orders: list[str]) -> Iterator[None]:
    """`decide`, for the command that it finds; then the annotations go, as in the operator's passes."""
    ended = threading.Event()

    def obey() -> None:
        while not ended.wait(0.2):
            body = shop.get()
            annotations = body["metadata"].get("annotations", {})
            verb = annotations.get(api.COMMAND)
            if verb is None:
                continue
            orders.append(f"{verb} by {annotations[api.COMMAND_BY]}")
            walk.step(command=verb)
            for _ in range(6):
                walk.step(traffic=None)
            shop.put(walk)
            gone = {"metadata": {"annotations": {api.COMMAND: None, api.COMMAND_BY: None}}}
            path = f"{ROLLOUTS}/{shop.namespace}/modelrollouts/ranker"
            shop.api("PATCH", path, gone, "application/merge-patch+json")

    shop.put(walk)
    thread = threading.Thread(target=obey)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def approval() -> Walk:
    return a_walk(api.Phase.PAUSED, spec=APPROVAL)


def paused() -> Walk:
    walk = a_walk()
    walk.step(command="pause")
    return walk


def lost() -> Walk:
    return a_walk(api.Phase.ROLLED_BACK, traffic=BAD)


@pytest.mark.parametrize(
    ("verb", "walk", "foretold", "recorded"),
    [
        (
            "abort",
            a_walk,
            "The 10 % of requests that ranker-v2 gets go back to ranker-v1. Revision c1 is rejected",
            "ranker-v2 was aborted by ada",
        ),
        ("pause", a_walk, "ranker-v2 stays at 10 % of requests", "paused by ada"),
        ("resume", paused, "goes on at step 1/4", "resumed by ada"),
        ("approve", approval, "goes on to step 3/4: weight at 100 %", "was approved by ada"),
        ("skip-step", a_walk, "goes on to step 2/4: weight at 50 %", "was skipped by ada"),
        ("promote", a_walk, "whatever the evidence says", "ranker-v2 was promoted by ada"),
        ("retry", lost, "ranker-v2 (c1), which was rejected for GuardrailBreached", "retry of"),
    ],
)
def test_a_command_is_foretold_given_in_ones_own_name_and_waited_for(
    shop: Shop, verb: str, walk: Callable[[], Walk], foretold: str, recorded: str
):
    orders: list[str] = []
    with operator(shop, walk(), orders):
        done = shop.run(verb, "ranker", "--yes", token="ada")  # noqa: S106

    assert done.exit_code == 0, done.output
    assert foretold in done.output.splitlines()[0]
    assert recorded in done.output.splitlines()[-1]
    assert orders == [f"{verb} by ada"]


@pytest.mark.parametrize(
    ("verb", "walk", "why"),
    [
        ("approve", a_walk, "no approval is asked for now"),
        ("resume", a_walk, "the rollout is not paused"),
        ("retry", a_walk, "no version was rejected"),
        ("abort", lost, "no candidate is on trial"),
    ],
)
def test_a_command_without_a_point_is_not_given(shop: Shop, verb, walk, why):
    shop.put(walk())

    done = shop.run(verb, "ranker", "--yes", token="ada")  # noqa: S106

    assert done.exit_code == 1
    assert f"{verb} ranker would do nothing: {why}" in done.output
    assert "annotations" not in shop.get()["metadata"]


def test_where_steps_were_edited_the_plugin_refuses_nothing(shop: Shop):
    walk = a_walk()
    shop.put(walk)
    steps = {"spec": {"strategy": {"steps": [{"weight": 30}]}}}
    path = f"{ROLLOUTS}/{shop.namespace}/modelrollouts/ranker"
    shop.api("PATCH", path, steps, "application/merge-patch+json")

    done = shop.run("skip-step", "ranker", "--yes", "--no-wait", token="ada")  # noqa: S106

    assert done.exit_code == 0
    assert "what follows is for the operator to say" in done.output


def test_a_candidate_without_pods_cannot_be_promoted(shop: Shop):
    shop.put(a_walk())
    path = f"/apis/apps/v1/namespaces/{shop.namespace}/deployments/ranker-v2"
    body = shop.api("GET", path)
    body["status"] = {"replicas": 2}
    shop.api("PUT", f"{path}/status", body)

    done = shop.run("promote", "ranker", "--yes", token="ada")  # noqa: S106

    assert done.exit_code == 1
    assert "ranker-v2 is not ready" in done.output


def test_nothing_is_done_without_a_yes(shop: Shop):
    shop.put(a_walk())

    done = shop.run("abort", "ranker", token="ada")  # noqa: S106

    assert done.exit_code == 1
    assert "give --yes" in done.output
    assert "annotations" not in shop.get()["metadata"]


def test_who_aborts_while_the_operator_is_away_learns_how_to_do_it_by_hand(shop: Shop):
    shop.put(a_walk())

    done = shop.run("abort", "ranker", "--yes", "--timeout", "0", token="ada")  # noqa: S106

    assert done.exit_code == 6
    by_hand = f"by hand: kubectl edit httproute ranker -n {shop.namespace}."
    assert f"take ranker-v2 out of the route {by_hand}" in done.output


def test_an_operator_that_is_away_is_said_after_the_time_and_the_command_stays(shop: Shop):
    shop.put(a_walk())

    done = shop.run("pause", "ranker", "--yes", "--timeout", "0.5", token="ada")  # noqa: S106
    again = shop.run("abort", "ranker", "--yes", "--no-wait", token="ada")  # noqa: S106

    assert done.exit_code == 6
    assert "is it running? To take the command back: kubectl annotate" in done.output
    assert "It replaces a command that was not carried out yet: pause by ada." in again.output
    assert again.exit_code == 0
    assert shop.get()["metadata"]["annotations"] == {api.COMMAND: "abort", api.COMMAND_BY: "ada"}


def test_who_may_not_look_hears_so_in_a_sentence(shop: Shop):
    shop.put(a_walk())

    done = shop.run("abort", "ranker", "--yes", token="eve")  # noqa: S106

    assert done.exit_code == 4
    assert done.output.count("\n") == 1
    assert 'User "eve" cannot get resource "modelrollouts"' in done.output


def test_a_refusal_by_policy_is_the_policys_own_sentence(shop: Shop):
    shop.put(a_walk())
    root = "/apis/admissionregistration.k8s.io/v1"
    name = f"{shop.namespace}.test"
    rule = {
        "apiGroups": ["modelrollout.dev"],
        "apiVersions": ["*"],
        "resources": ["modelrollouts"],
        "operations": ["UPDATE"],
    }
    said = "ada may not promote ranker: that needs update on modelrollouts/promote"
    place = {"matchLabels": {"kubernetes.io/metadata.name": shop.namespace}}
    has_command = "has(object.metadata.annotations)"
    shop.api(
        "POST",
        f"{root}/validatingadmissionpolicies",
        {
            "metadata": {"name": name},
            "spec": {
                "matchConstraints": {"resourceRules": [rule], "namespaceSelector": place},
                "validations": [{"expression": f"!{has_command}", "message": said}],
            },
        },
    )
    shop.api(
        "POST",
        f"{root}/validatingadmissionpolicybindings",
        {"metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]}},
    )
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        done = shop.run("promote", "ranker", "--yes", "--no-wait", token="ada")  # noqa: S106
        if done.exit_code:
            break
        time.sleep(0.3)

    assert done.exit_code in {1, 4}
    assert done.output.splitlines()[-1] == f"Error: {said}"
