"""From two Deployments and an HTTPRoute to a manifest that the API server takes."""

from __future__ import annotations

import json
import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import yaml

from kube_apiserver import ApiServer
from modelrollout.kubectl.lint import findings
from terminal import Manifest, Shop, answering, deployment

GATEWAY = "/apis/gateway.networking.k8s.io/v1/namespaces"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def http_route_crd() -> Manifest:
    """The Gateway API's own, from what the test cluster is made of."""
    home = Path(os.environ.get("CLUSTER_HOME", Path.home() / ".cache" / "modelrollout-cluster"))
    files = sorted(home.glob("manifests/*/10-crds.yaml"), key=lambda each: each.stat().st_mtime)
    assert files, "no manifests: run `make cluster-build`"
    parts = files[-1].read_text().split("\n---")
    (found,) = [each for each in parts if "name: httproutes.gateway.networking.k8s.io" in each]
    return dict(yaml.safe_load(found))


@pytest.fixture(scope="module")
def gateway_api(kube: ApiServer) -> None:
    """HTTPRoutes can be stored."""
    body = json.dumps(http_route_crd())
    done = kube.kubectl("create", "-f", "-", stdin=body)
    assert done.returncode == 0 or "already exists" in done.stderr, done.stderr
    name = "crd/httproutes.gateway.networking.k8s.io"
    done = kube.kubectl("wait", "--for=condition=Established", name)
    assert done.returncode == 0, done.stderr


def service(name: str, **selector: str) -> Manifest:
    spec = {"selector": selector, "ports": [{"port": 8080}]}
    return {"metadata": {"name": name}, "spec": spec}


def route(name: str, *rules: Manifest) -> Manifest:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name},
        "spec": {"rules": list(rules)},
    }


def to(service: str, **more: Any) -> Manifest:
    return {"backendRefs": [{"name": service, "port": 8080}], **more}


@pytest.fixture
def shop(shop: Shop, gateway_api: None) -> Shop:  # noqa: ARG001
    """Users reach ranker-v1; ranker-v2 stands beside it."""
    shop.create(
        "services", service("ranker-v1", app="ranker", version="ranker-v1"), "/api/v1/namespaces"
    )
    shop.create("httproutes", route("ranker", to("ranker-v1")), GATEWAY)
    return shop


def test_what_init_writes_is_taken_by_the_api_server_as_it_is(shop: Shop, tmp_path):
    path = tmp_path / "rollout.yaml"

    done = shop.run("init", "--write", str(path))

    assert done.exit_code == 0, done.output
    body = yaml.safe_load(path.read_text())
    assert body["spec"]["candidate"] == {"deployment": "ranker-v2"}
    assert body["spec"]["stable"] == {"deployment": "ranker-v1"}
    assert body["spec"]["port"] == 8080
    assert body["spec"]["traffic"] == {"gatewayAPI": {"route": "ranker"}}
    assert findings(body) == ()
    assert shop.kube.kubectl("create", "-f", str(path)).returncode == 0


def test_from_two_deployments_and_a_route_it_takes_three_commands(shop: Shop, tmp_path):
    path = tmp_path / "rollout.yaml"

    first = shop.run("init", "--write", str(path)).output.splitlines()

    assert first == [
        "ranker-v2 is to take over from ranker-v1 on HTTPRoute ranker. Next:",
        f"  kubectl apply -f {path}",
        f"  kubectl modelrollout get ranker -n {shop.namespace} --watch",
    ]
    assert shop.kube.kubectl(*first[1].split()[1:]).returncode == 0
    assert shop.run("get", "ranker").exit_code == 0


def test_a_file_that_is_there_is_not_written_over(shop: Shop, tmp_path):
    path = tmp_path / "rollout.yaml"
    path.write_text("mine")

    done = shop.run("init", "--write", str(path))

    assert done.exit_code == 1
    assert "exists already" in done.output
    assert path.read_text() == "mine"


def test_the_candidate_is_named_where_there_are_several(shop: Shop):
    shop.create("deployments", deployment("other", "registry/other:1"))

    named = shop.run("init", "other")
    missing = shop.run("init", "nothing")

    assert "candidate: {deployment: other}" in named.output
    assert missing.exit_code == 3
    assert "there is no Deployment nothing: there are other, ranker-v1, ranker-v2" in missing.output


def test_users_of_several_deployments_are_asked_about(shop: Shop):
    shop.create("services", service("other", app="ranker", version="other"), "/api/v1/namespaces")
    shop.create("deployments", deployment("other", "registry/other:1"))
    shop.create("httproutes", route("other", to("other")), GATEWAY)

    vague = shop.run("init")
    exact = shop.run("init", "--stable", "ranker-v1")

    assert vague.exit_code == 1
    assert "other (route other), ranker-v1 (route ranker)" in vague.output
    assert exact.exit_code == 0


def test_a_rule_among_several_is_named(shop: Shop):
    path = {"path": {"type": "PathPrefix", "value": "/v2"}}
    found = shop.api("GET", f"{GATEWAY}/{shop.namespace}/httproutes/ranker")
    found["spec"]["rules"] = [
        to("elsewhere", name="rest"),
        to("ranker-v1", name="model", matches=[path]),
    ]
    shop.api("PUT", f"{GATEWAY}/{shop.namespace}/httproutes/ranker", found)

    assert "gatewayAPI: {route: ranker, rule: model}" in shop.run("init").output


def test_a_service_of_another_name_is_written(shop: Shop):
    found = shop.api("GET", f"{GATEWAY}/{shop.namespace}/httproutes/ranker")
    found["spec"]["rules"] = [to("front")]
    shop.api("PUT", f"{GATEWAY}/{shop.namespace}/httproutes/ranker", found)
    shop.create("services", service("front", version="ranker-v1"), "/api/v1/namespaces")

    assert "stable: {deployment: ranker-v1, service: front}" in shop.run("init").output


def test_versions_that_cannot_be_told_apart_are_refused(shop: Shop):
    alike = deployment("ranker-v9", "registry/ranker:9")
    alike["spec"]["selector"] = {"matchLabels": {"app": "ranker"}}
    shop.create("deployments", alike)

    done = shop.run("init", "ranker-v9")

    assert done.exit_code == 1
    assert "the selector of Deployment ranker-v9 also selects the pods of ranker-v1" in done.output


def test_a_namespace_without_a_route_is_said_so(shop: Shop):
    shop.api("DELETE", f"{GATEWAY}/{shop.namespace}/httproutes/ranker")

    done = shop.run("init")

    assert done.exit_code == 3
    assert "no HTTPRoute of the namespace sends requests to" in done.output


def prometheus(*names: str) -> AbstractContextManager[str]:
    """One that has these metrics, as Prometheus 3 answers."""
    body = json.dumps({"status": "success", "data": list(names)}).encode()
    return answering(200, body, at="/api/v1/label/__name__/values")


def test_only_guardrails_that_prometheus_can_feed_are_written(shop: Shop):
    with prometheus("rest_server_requests_total", "up") as url:
        text = shop.run("init", "--prometheus", url).output

    assert yaml.safe_load(text)["spec"]["analysis"]["guardrails"] == [
        {"name": "server-errors", "preset": "mlserver/errors"}
    ]


def test_a_prometheus_without_any_of_them_is_the_wrong_one(shop: Shop):
    with prometheus("up") as url:
        done = shop.run("init", "--prometheus", url)
    away = shop.run("init", "--prometheus", url)

    assert "is it the one that scrapes the gateway?" in done.output
    assert "does not answer as a Prometheus does" in away.output
    assert (done.exit_code, away.exit_code) == (1, 1)
