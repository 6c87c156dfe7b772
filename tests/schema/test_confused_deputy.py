"""Through the operator nobody does what he may not do himself: asked of a real API server."""

from __future__ import annotations

import json
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from builders import a_spec
from kube_apiserver import ADMIN_TOKEN, ApiServer
from modelrollout.api import v1alpha1 as api

CHART = Path(__file__).parents[2] / "charts" / "modelrollout"
ROLLOUTS = f"/apis/{api.API_VERSION}/namespaces"
Right = tuple[str, str, str, str]
"""Group, resource, verb, and the name of the object or nothing for all."""

ROUTE: Right = ("gateway.networking.k8s.io", "httproutes", "patch", "ranker")
NEW_ROUTE: Right = ("gateway.networking.k8s.io", "httproutes", "create", "")
CANDIDATE: Right = ("apps", "deployments", "patch", "ranker-v2")
STABLE: Right = ("apps", "deployments", "patch", "ranker-v1")
NEW_DEPLOYMENT: Right = ("apps", "deployments", "create", "")
OWN: list[Right] = [
    ("modelrollout.dev", "modelrollouts", each, "") for each in ("create", "update")
]
GATEWAY = {"gatewayAPI": {"gateway": {"name": "gateway", "namespace": "elsewhere"}}}
SHADOW = {
    "strategy": {"type": "Shadow"},
    "shadow": {
        "intent": "Change",
        "idempotent": True,
        "paths": ["/v2"],
        "format": "OpenInference",
    },
    "analysis": {"guardrails": [{"name": "errors", "preset": "comparator/errors"}]},
}
SHADOW["strategy"]["steps"] = [{"mirror": 100}, {"weight": 100}]


class Town:
    """A namespace with the chart's policies, and people with rights of their own."""

    def __init__(self, kube: ApiServer) -> None:
        self.kube, self.namespace = kube, f"deputy-{uuid4().hex[:6]}"

    def call(
        self, method: str, path: str, body: Any = None, user: str = ADMIN_TOKEN
    ) -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {user}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310  # loopback
            self.kube.url + path, data=data, headers=headers, method=method
        )
        trust = ssl.create_default_context()
        trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
        try:
            with urllib.request.urlopen(request, timeout=20, context=trust) as answer:  # noqa: S310
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refused:
            return refused.code, json.load(refused)["message"]

    def grant(self, user: str, rights: list[Right]) -> None:
        rules = [
            {"apiGroups": [group], "resources": [kind], "verbs": [verb]}
            | ({"resourceNames": [name]} if name else {})
            for group, kind, verb, name in rights
        ]
        group = "rbac.authorization.k8s.io"
        root = f"/apis/{group}/v1/namespaces/{self.namespace}"
        subject = {"kind": "User", "name": user, "apiGroup": group}
        reference = {"apiGroup": group, "kind": "Role", "name": user}
        for plural, body in (
            ("roles", {"rules": rules}),
            ("rolebindings", {"subjects": [subject], "roleRef": reference}),
        ):
            status, said = self.call(
                "POST", f"{root}/{plural}", {"metadata": {"name": user}, **body}
            )
            if status == 409:
                path = f"{root}/{plural}/{user}"
                status, said = self.call("PUT", path, {"metadata": {"name": user}, **body})
            assert status < 300, said

    def create(self, user: str, *, is_dry: bool = True, **spec: Any) -> tuple[int, str]:
        body = {
            "apiVersion": api.API_VERSION,
            "kind": api.KIND,
            "metadata": {"name": "another" if is_dry else "ranker"},
            "spec": a_spec(**spec),
        }
        query = "?dryRun=All" if is_dry else ""
        return self.call("POST", f"{ROLLOUTS}/{self.namespace}/{api.PLURAL}{query}", body, user)

    def command(self, user: str, text: str, by: str) -> tuple[int, str]:
        path = f"{ROLLOUTS}/{self.namespace}/{api.PLURAL}/ranker"
        body = json.loads(self.call("GET", path)[1])
        body["metadata"]["annotations"] = {api.COMMAND: text, api.COMMAND_BY: by}
        return self.call("PUT", f"{path}?dryRun=All", body, user)


@pytest.fixture(scope="module")
def town(kube, helm):
    found = Town(kube)
    status, said = found.call("POST", "/api/v1/namespaces", {"metadata": {"name": found.namespace}})
    assert status == 201, said
    values = json.dumps({"watchNamespaces": [found.namespace]})
    command = ["template", "deputy", str(CHART), "--namespace", found.namespace]
    done = helm(*command, "--show-only", "templates/admission.yaml", "-f", "-", stdin=values)
    assert done.returncode == 0, done.stderr
    assert kube.kubectl("apply", "-f", "-", stdin=done.stdout).returncode == 0
    found.grant("eve", OWN)
    deadline = time.monotonic() + 60
    while found.create("eve")[0] != 403 or found.create("admin")[0] != 201:
        assert time.monotonic() < deadline, "the policies are not in force"
        time.sleep(0.2)
    found.grant("ada", [*OWN, ROUTE, NEW_ROUTE, CANDIDATE, STABLE, NEW_DEPLOYMENT])
    assert found.create("admin", is_dry=False)[0] == 201
    yield found
    kube.kubectl("delete", "-f", "-", stdin=done.stdout)


def until(town: Town, user: str, status: int, **spec: Any) -> str:
    """What is said; rights that were just granted take a moment."""
    deadline = time.monotonic() + 10
    while True:
        found, said = town.create(user, **spec)
        if found == status or time.monotonic() > deadline:
            assert found == status, said
            return said
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("missing", "spec", "says"),
    [
        (ROUTE, {}, "names HTTPRoute ranker, which eve may not patch"),
        (NEW_ROUTE, {"traffic": GATEWAY}, "make an HTTPRoute, which eve may not create"),
        (CANDIDATE, {}, "names Deployment ranker-v2, which eve may not patch"),
        (STABLE, {}, "names Deployment ranker-v1, which eve may not patch"),
        (NEW_DEPLOYMENT, SHADOW, "make a Deployment for the comparator, which eve may not create"),
    ],
)
def test_who_may_not_do_it_himself_has_it_not_done_by_the_operator(town, missing, spec, says):
    rights = [ROUTE, NEW_ROUTE, CANDIDATE, STABLE, NEW_DEPLOYMENT]
    town.grant("eve", [*OWN, *(each for each in rights if each != missing)])

    deadline = time.monotonic() + 10
    said = ""
    while says not in said and time.monotonic() < deadline:
        said = town.create("eve", **spec)[1]

    assert says in said
    until(town, "ada", 201, **spec)


@pytest.mark.parametrize("command", ["abort", "promote", "approve", "skip-step"])
def test_a_command_takes_a_right_of_its_own(town, command):
    status, said = town.command("ada", command, "ada")

    assert status == 403
    assert f"ada may not {command} ranker" in said


def test_nobody_gives_a_command_in_anothers_name(town):
    right: Right = ("modelrollout.dev", "modelrollouts/abort", "update", "")
    town.grant("ada", [*OWN, ROUTE, NEW_ROUTE, CANDIDATE, STABLE, NEW_DEPLOYMENT, right])
    deadline = time.monotonic() + 10
    while town.command("ada", "abort", "ada")[0] != 200:
        assert time.monotonic() < deadline, "the right is not granted"

    status, said = town.command("ada", "abort", "eve")

    assert status == 403
    assert "modelrollout.dev/by must be who gives the command" in said
