"""
A tool that applies manifests from Git, again and again, while a rollout runs.

Real are the API server, Prometheus, and the operator: a process with no more rights than the
chart gives it for one namespace. A few lines stand for the gateway, the controllers of
Deployments, and users.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from contract.shop import (
    DEPLOYMENTS,
    HOME,
    NAMESPACE,
    ROLLOUT,
    ROUTE,
    SYSTEM,
    Git,
    Plane,
    api_of,
    looping,
    operating,
    until,
)

ROOT = Path(__file__).parents[2]
APPLY_SECONDS = 0.2


@pytest.fixture(scope="module")
def api(kube):
    return api_of(kube)


@pytest.fixture(scope="module")
def token(kube, api):  # noqa: ARG001  # the CRDs come first
    """Of the ServiceAccount that the chart makes for an operator of one namespace."""
    helm = sorted(HOME.glob("bin/helm-*/helm"), key=lambda each: each.stat().st_mtime)
    assert helm, "no helm: run `make cluster-build`"
    values = {"watchNamespaces": [NAMESPACE], "userRoles": {"create": False}}
    command = [helm[-1], "template", "modelrollout", ROOT / "charts" / "modelrollout"]
    command += ["--namespace", SYSTEM, "--values", "-"]
    done = subprocess.run(
        command, input=json.dumps(values), capture_output=True, text=True, check=True
    )
    objects = [each for each in yaml.safe_load_all(done.stdout) if each]
    assert not [each for each in objects if each["kind"].startswith("ClusterRole")]
    wanted = [e for e in objects if e["kind"] in {"Role", "RoleBinding", "ServiceAccount"}]
    for each in wanted:
        each["metadata"].setdefault("namespace", SYSTEM)
    for each in (SYSTEM, NAMESPACE):
        kube.kubectl("create", "namespace", each)
    body = json.dumps({"apiVersion": "v1", "kind": "List", "items": wanted})
    done = kube.kubectl("apply", "--server-side", "-f", "-", stdin=body)
    assert done.returncode == 0, done.stderr
    done = kube.kubectl("create", "token", "modelrollout", "--namespace", SYSTEM)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def operator(kube, token, server, tmp_path_factory):
    """The program itself, in one namespace, with the rights of the chart."""
    tmp_path = tmp_path_factory.mktemp("operator")
    kubeconfig = yaml.safe_load(kube.kubeconfig().read_text())
    kubeconfig["users"][0]["user"]["token"] = token
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
    settings = {"NAMESPACES": NAMESPACE, "LEASE_NAMESPACE": SYSTEM}
    with operating(tmp_path, tmp_path / "kubeconfig", server.url, **settings) as running:
        until(running.leads, "the operator leads")
        yield running


@pytest.fixture
def plane(api, programs, operator):  # noqa: ARG001  # the operator is there first
    plane = Plane(api, programs)
    with looping(plane.follow, 0.1), looping(plane.ask, 0.02):
        yield plane


@pytest.fixture
def told(api):
    """The reasons of the rollout's Events; what is there is taken away when the test ends."""

    def reasons():
        found = api.get(f"/apis/events.k8s.io/v1/namespaces/{NAMESPACE}/events")["items"]
        return [each["reason"] for each in found]

    yield reasons
    for path in (ROLLOUT, ROUTE):
        api.call("DELETE", path)
    until(lambda: api.find(ROLLOUT) is None, "the rollout is gone")
    for path in (DEPLOYMENTS, f"/apis/events.k8s.io/v1/namespaces/{NAMESPACE}/events"):
        api.call("DELETE", path)


def status(api):
    return (api.find(ROLLOUT) or {}).get("status", {})


def reached(api, **wanted):
    """Wait for a status; what it was then."""

    def is_there():
        found = status(api)
        flat = {**found, "accepted": found.get("weight", {}).get("accepted")}
        return found if wanted.items() <= flat.items() else None

    return until(is_there, lambda: f"{wanted}; now {status(api).get('reason')}")


def command(api, verb):
    """As a human gives it, with the tool at work; returns when it was carried out."""
    notes = {"modelrollout.dev/command": verb, "modelrollout.dev/by": "ada"}
    api.merge(ROLLOUT, {"metadata": {"annotations": notes}})
    until(
        lambda: (
            "modelrollout.dev/command"
            not in (api.get(ROLLOUT)["metadata"].get("annotations") or {})
        ),
        f"the command {verb} is carried out",
    )


def test_applying_again_and_again_moves_nobody_and_loses_no_command(api, operator, plane, told):
    git = Git(api, "gitops")
    before = operator.metric("modelrollout_route_writes_total")
    git.sync()
    with looping(git.sync, APPLY_SECONDS) as loop:
        reached(api, accepted=10)
        command(api, "pause")
        reached(api, phase="Paused")
        command(api, "resume")
        reached(api, phase="Paused", stepText="2/5")
        command(api, "approve")
        reached(api, accepted=50)
        found = reached(api, phase="Promoted")
        turns = loop.turns
    live = api.get(ROUTE)
    written = operator.metric("modelrollout_route_writes_total") - before
    decided = [each["what"] for each in reversed(found["history"])]

    assert turns > 20
    assert [each for each in decided if each in DECIDED] == DECIDED
    assert plane.shares == sorted(plane.shares)
    assert "Drift" not in told()
    assert api.get(ROLLOUT)["metadata"]["generation"] == 1
    assert live["metadata"]["generation"] == 1 + written
    assert live["spec"]["rules"][0]["timeouts"] == {"request": "3s"}
    assert operator.metric("modelrollout_pass_failures_total") == 0


DECIDED = ["Paused", "Resumed", "Approved", "Promoted"]


def test_rules_that_come_back_from_git_are_put_right_and_told_of(api, plane, told):
    """A sync with old rules, as of a tool that was not told, or that took them from its memory."""
    git = Git(api, "gitops")
    git.sync()
    before = reached(api, accepted=10)
    git.route_as_it_is()
    until(lambda: "Drift" in told(), "it is told of")
    until(lambda: plane.share == 0.1, lambda: f"the weight is back; now {plane.weights}")
    after = reached(api, accepted=10)

    assert (after["step"], after["history"]) == (before["step"], before["history"])
    assert told().count("Drift") == 1
