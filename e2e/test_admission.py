"""Who may command, and who may name what: asked of the API server, which has the chart's policies."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

import kube
import operator_chart
from kube import KubectlError, Manifest
from shop import Shop

NAMESPACE = f"t-admission-{uuid4().hex[:6]}"
ROLES = f"{operator_chart.NAMESPACE}:{operator_chart.DEPLOYMENT}"
RBAC = "rbac.authorization.k8s.io"
ROUTES: Manifest = {
    "apiGroups": ["gateway.networking.k8s.io"],
    "resources": ["httproutes"],
    "verbs": ["patch"],
}
DEPLOYMENTS: Manifest = {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["patch"]}
PATCH: Manifest = {
    "apiGroups": ["modelrollout.dev"],
    "resources": ["modelrollouts"],
    "verbs": ["get", "patch"],
}

STATUS: Manifest = {
    "apiGroups": ["modelrollout.dev"],
    "resources": ["modelrollouts/status"],
    "verbs": ["update"],
}


def grant(namespace: str, user: str, role: str | list[Manifest]) -> Iterator[Manifest]:
    """One of the chart's ClusterRoles, or rules of the user's own."""
    name = user if isinstance(role, list) else f"{user}-{role}"
    reference = {"kind": "ClusterRole", "name": f"{ROLES}-{role}"}
    if isinstance(role, list):
        reference = {"kind": "Role", "name": name}
        yield {"kind": "Role", "rules": role, "metadata": {"name": name, "namespace": namespace}}
    yield {
        "kind": "RoleBinding",
        "metadata": {"name": name, "namespace": namespace},
        "roleRef": {"apiGroup": RBAC, **reference},
        "subjects": [{"kind": "User", "name": user, "apiGroup": RBAC}],
    }


def granted(namespace: str, grants: list[tuple[str, str | list[Manifest]]]) -> None:
    objects = [each for user, role in grants for each in grant(namespace, user, role)]
    kube.apply(*({"apiVersion": f"{RBAC}/v1", **each} for each in objects))


def a_rollout(name: str, **changes: Any) -> Manifest:
    spec = {
        "candidate": {"deployment": "ranker-v2"},
        "stable": {"deployment": "ranker-v1"},
        "port": 8080,
        "traffic": {"gatewayAPI": {"route": "ranker"}},
        "analysis": {"guardrails": [{"name": "errors", "preset": "envoy/errors"}]},
    }
    return {
        "apiVersion": "modelrollout.dev/v1alpha1",
        "kind": "ModelRollout",
        "metadata": {"name": name, "namespace": NAMESPACE, **changes.pop("metadata", {})},
        "spec": spec | changes,
    }


@pytest.fixture(scope="module", autouse=True)
def _team(operator: None) -> Iterator[None]:  # noqa: ARG001
    """ada releases, amy approves, bob may annotate, eve may edit ModelRollouts, oto also as the operator does."""
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    granted(
        NAMESPACE,
        [
            ("ada", "edit"),
            ("ada", [ROUTES, DEPLOYMENTS]),
            ("amy", "approver"),
            ("bob", [PATCH]),
            ("eve", "edit"),
            ("oto", "edit"),
            ("oto", [STATUS]),
        ],
    )
    # The API server takes up a policy a moment after it has stored it.
    unknown = a_rollout("unknown", metadata={"annotations": annotations("explode", "admin")})
    kube.wait_until(lambda: "must be one of" in outcome(unknown), 20, "the policies are in force")
    kube.wait_until(lambda: "may not" in outcome(a_rollout("r"), "eve"), 20, "eve's rights")
    try:
        yield
    finally:
        kube.kubectl("delete", "modelrollouts", "--all", "-n", NAMESPACE, "--timeout=90s")
        kube.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def annotations(command: str, by: str) -> dict[str, str]:
    return {"modelrollout.dev/command": command, "modelrollout.dev/by": by}


def outcome(manifest: Manifest, user: str = "") -> str:
    """What the API server would say to an object; nothing is stored."""
    as_user = [f"--as={user}"] if user else []
    try:
        return kube.kubectl(
            "create", "--dry-run=server", "-f", "-", *as_user, stdin=json.dumps(manifest)
        )
    except KubectlError as error:
        return str(error)


@pytest.fixture
def rollout(request: pytest.FixtureRequest) -> Iterator[str]:
    """
    A ModelRollout of ada's.

    It is being deleted and held by a finalizer: the operator obeys no commands there, so that what
    the API server let through can be looked at.
    """
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_"))[:60].strip("-")
    kube.apply(a_rollout(name, metadata={"finalizers": ["tests.modelrollout.dev/held"]}))
    kube.kubectl("delete", "modelrollout", name, "-n", NAMESPACE, "--wait=false")
    try:
        yield name
    finally:
        kube.patch("modelrollout", name, NAMESPACE, {"metadata": {"finalizers": None}})


def annotate(name: str, user: str, *changes: str, namespace: str = NAMESPACE) -> str:
    """What the API server says to a user's annotations; empty when it takes them."""
    keys = [f"modelrollout.dev/{each}" for each in changes]
    try:
        kube.kubectl(
            "annotate", "modelrollout", name, "-n", namespace, "--overwrite", f"--as={user}", *keys
        )
    except KubectlError as error:
        return str(error)
    return ""


def stored(name: str) -> dict[str, str]:
    found = kube.get("modelrollout", name, NAMESPACE)["metadata"].get("annotations", {})
    return {key: value for key, value in found.items() if key.startswith("modelrollout.dev/")}


@pytest.mark.parametrize("verb", ["abort", "pause", "resume", "retry"])
def test_who_may_edit_may_stop_a_rollout_and_let_it_go_on(rollout: str, verb: str) -> None:
    assert annotate(rollout, "ada", f"command={verb}", "by=ada") == ""
    assert stored(rollout) == annotations(verb, "ada")


@pytest.mark.parametrize("verb", ["approve", "promote", "skip-step"])
def test_what_goes_past_the_evidence_is_the_approvers(rollout: str, verb: str) -> None:
    said = annotate(rollout, "ada", f"command={verb}", "by=ada")

    assert f"ada may not {verb} {rollout}: that needs update on modelrollouts/{verb}" in said
    assert f"the ClusterRole {ROLES}-approver" in said
    assert stored(rollout) == {}
    assert annotate(rollout, "amy", f"command={verb}", "by=amy") == ""
    assert stored(rollout) == annotations(verb, "amy")


def test_who_may_only_annotate_may_command_nothing(rollout: str) -> None:
    assert "bob may not abort" in annotate(rollout, "bob", "command=abort", "by=bob")


def test_an_unknown_word_is_refused_with_those_there_are(rollout: str) -> None:
    said = annotate(rollout, "amy", "command=aprove", "by=amy")

    assert "abort, pause, resume, promote, retry, approve and skip-step" in said


@pytest.mark.parametrize("given", [(), ("by=bob",)], ids=["missing", "forged"])
def test_a_user_that_is_not_ones_own_is_refused_with_the_command_that_works(
    rollout: str, given: tuple[str, ...]
) -> None:
    said = annotate(rollout, "ada", "command=abort", *given)
    found = re.search(r"kubectl (annotate .*)$", said)
    assert found is not None, said
    assert stored(rollout) == {}

    kube.kubectl(*shlex.split(found[1]), "--as=ada")

    assert stored(rollout) == annotations("abort", "ada")


def test_nobody_puts_another_name_to_a_command(rollout: str) -> None:
    assert annotate(rollout, "ada", "command=abort", "by=ada") == ""
    assert "by must be who gives the command" in annotate(rollout, "ada", "by=bob")
    assert "by must be who gives the command" in annotate(rollout, "ada", "by-")
    assert "bob may not abort" in annotate(rollout, "bob", "by=bob")
    assert stored(rollout) == annotations("abort", "ada")


def test_nobody_puts_a_name_there_before_the_command(rollout: str) -> None:
    assert "by must be who gives the command" in annotate(rollout, "bob", "by=amy")


def test_a_command_is_taken_back_by_whoever_may_give_it(rollout: str) -> None:
    assert annotate(rollout, "ada", "command=abort", "by=ada") == ""
    assert "bob may not take back the command abort" in annotate(rollout, "bob", "command-", "by-")
    assert annotate(rollout, "amy", "command-", "by-") == ""
    assert stored(rollout) == {}


def test_who_writes_the_status_may_say_that_a_command_was_carried_out_and_no_more(
    rollout: str,
) -> None:
    assert annotate(rollout, "amy", "command=approve", "by=amy") == ""
    assert "may not take back the command approve" in annotate(
        rollout, "oto", "command=abort", "by=oto"
    )
    assert "oto may not approve" in annotate(rollout, "oto", "by=oto")
    assert annotate(rollout, "oto", "command-", "by-") == ""
    assert stored(rollout) == {}


def test_a_command_is_replaced_by_whoever_may_give_both(rollout: str) -> None:
    assert annotate(rollout, "amy", "command=approve", "by=amy") == ""
    assert "ada may not take back the command approve" in annotate(
        rollout, "ada", "command=abort", "by=ada"
    )
    assert annotate(rollout, "amy", "command=abort", "by=amy") == ""


def test_other_annotations_are_nobodys_business(rollout: str) -> None:
    assert annotate(rollout, "ada", "command=abort", "by=ada") == ""
    kube.kubectl("annotate", "modelrollout", rollout, "-n", NAMESPACE, "--as=bob", "note=hello")


def test_to_create_with_a_command_is_to_command() -> None:
    approved = a_rollout("new", metadata={"annotations": annotations("approve", "ada")})
    forged = a_rollout("new", metadata={"annotations": annotations("abort", "amy")})
    own = a_rollout("new", metadata={"annotations": annotations("abort", "ada")})

    assert "ada may not approve new" in outcome(approved, "ada")
    assert "by must be who gives the command" in outcome(forged, "ada")
    assert "created (server dry run)" in outcome(own, "ada")


def test_the_status_is_no_way_around(rollout: str) -> None:
    changes = {"metadata": {"annotations": annotations("approve", "amy")}}
    kube.kubectl(
        "patch", "modelrollout", rollout, "-n", NAMESPACE, "--subresource=status",
        "--type=merge", "-p", json.dumps(changes),
    )  # fmt: skip

    assert stored(rollout) == {}


@pytest.mark.parametrize(
    ("allowed", "says"),
    [
        ([DEPLOYMENTS], "route names HTTPRoute ranker, which USER may not patch"),
        ([ROUTES], "spec.candidate.deployment names Deployment ranker-v2, which USER may not"),
        (
            [ROUTES, {**DEPLOYMENTS, "resourceNames": ["ranker-v2"]}],
            "spec.stable.deployment names Deployment ranker-v1, which USER may not",
        ),
        (
            [{**ROUTES, "resourceNames": ["other"]}, DEPLOYMENTS],
            "route names HTTPRoute ranker, which USER may not patch",
        ),
    ],
    ids=["no route", "no candidate", "no stable", "another route"],
)
def test_only_what_one_may_patch_may_be_named(
    request: pytest.FixtureRequest, allowed: list[Manifest], says: str
) -> None:
    user = "u-" + request.node.callspec.id.replace(" ", "-")
    granted(NAMESPACE, [(user, "edit"), (user, allowed)])
    expected = says.replace("USER", user)

    kube.wait_until(lambda: expected in outcome(a_rollout("mine"), user), 10, expected)
    assert "created (server dry run)" in outcome(a_rollout("mine"), "ada")


def test_a_route_of_the_operators_is_for_those_who_may_create_one() -> None:
    managed = a_rollout("mine", traffic={"gatewayAPI": {"gateway": {"name": "gateway"}}})
    assert "which ada may not create" in outcome(managed, "ada")
    granted(NAMESPACE, [("ann", "edit"), ("ann", [{**ROUTES, "verbs": ["create"]}, DEPLOYMENTS])])
    created = "created (server dry run)"
    kube.wait_until(lambda: created in outcome(managed, "ann"), 10, "ann may create routes")


def test_an_approver_commands_and_edits_nothing(rollout: str) -> None:
    body = json.dumps({"spec": {"port": 9090}})
    with pytest.raises(KubectlError, match="amy may not patch"):
        kube.kubectl(
            "patch",
            "modelrollout",
            rollout,
            "-n",
            NAMESPACE,
            "--as=amy",
            "--type=merge",
            "-p",
            body,
        )


def test_the_operator_obeys_a_user_and_records_who_it_was(shop: Shop) -> None:
    """With the policies in force: its own writes pass, the removal of the command among them."""
    granted(shop.namespace, [("ada", "edit")])
    shop.users(rate=50)
    candidate = shop.deploy("v2")
    kube.apply(shop.rollout(candidate, strategy={"steps": [{"weight": 20, "minSeconds": 600}]}))
    shop.weight_is(20)
    kube.wait_until(lambda: shop.status().get("guardrails"), 20, "the first evidence")
    name = "digits"

    assert "ada may not promote" in annotate(
        name, "ada", "command=promote", "by=ada", namespace=shop.namespace
    )
    assert annotate(name, "ada", "command=abort", "by=ada", namespace=shop.namespace) == ""

    status = shop.phase_is("RolledBack", seconds=20)
    assert "by ada" in status["history"][0]["message"]
    assert shop.event("Aborted")["message"].endswith("by ada")
    found = kube.get("modelrollout", name, shop.namespace)["metadata"]["annotations"]
    assert [key for key in found if key.startswith("modelrollout.dev/")] == []
    (record,) = [each for each in audit_trail(shop.namespace) if each["decision"] == "Aborted"]
    assert (record["command"], record["user"]) == ("abort", "ada")
    assert record["weight"] == {"before": 20, "after": 0}
    assert [each["name"] for each in record["evidence"]["guardrails"]] == ["errors", "latency"]
    assert shop.failures() == []


def audit_trail(namespace: str) -> list[Manifest]:
    """The operator's records of a namespace, as it wrote them."""
    lines = kube.logs(operator_chart.NAMESPACE, operator_chart.SELECTOR, "--since=300s")
    texts = [each.partition(" ")[2] for each in lines]
    found = [json.loads(each) for each in texts if each.startswith('{"id":')]
    return [each for each in found if each["namespace"] == namespace]
