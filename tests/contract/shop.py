"""
A shop whose model is rolled out: a real API server, Prometheus and operator, and the rest in a few lines.

The few lines stand for the gateway, the controllers of Deployments, users, and a tool that applies
manifests from Git.
"""

from __future__ import annotations

import json
import os
import random
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from kube_apiserver import ADMIN_TOKEN
from modelrollout.simulation.cluster import accepted

HOME = Path(os.environ.get("CLUSTER_HOME", Path.home() / ".cache" / "modelrollout-cluster"))
NAMESPACE = "shop"
SYSTEM = "modelrollout-system"
ROLLOUT = f"/apis/modelrollout.dev/v1alpha1/namespaces/{NAMESPACE}/modelrollouts/ranker"
ROUTE = f"/apis/gateway.networking.k8s.io/v1/namespaces/{NAMESPACE}/httproutes/ranker"
DEPLOYMENTS = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"
SLICES = f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices"
SERVICES = f"/api/v1/namespaces/{NAMESPACE}/services"
NEEDED = ("httproutes", "gateways", "gatewayclasses")
RATE = 400
"""Requests per second of all users."""
PATIENCE_SECONDS = 180


class Api:
    """The API server, as an administrator and with no client library between."""

    def __init__(self, url):
        self._url = url
        # It shows a certificate that it made itself a moment ago.
        self._context = ssl.create_default_context()
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE

    def call(self, method, path, body=None, content_type="application/json"):
        request = urllib.request.Request(  # noqa: S310  # on loopback
            f"{self._url}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {ADMIN_TOKEN}", "Content-Type": content_type},
        )
        with urllib.request.urlopen(request, timeout=10, context=self._context) as answer:  # noqa: S310
            return json.load(answer)

    def get(self, path):
        return self.call("GET", path)

    def find(self, path):
        """An object, or None while it is not there."""
        try:
            return self.get(path)
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise

    def apply(self, path, body, manager):
        return self.call(
            "PATCH",
            f"{path}?fieldManager={manager}&force=true",
            body,
            "application/apply-patch+yaml",
        )

    def merge(self, path, body):
        return self.call("PATCH", path, body, "application/merge-patch+json")


@dataclass
class Loop(threading.Thread):
    """Does something again and again until it is told to stop; what fails, fails the test."""

    act: object
    seconds: float
    turns: int = 0
    error: BaseException | None = None
    _stopping: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self):
        super().__init__(daemon=True)

    def __hash__(self):
        return id(self)

    def run(self):
        try:
            while not self._stopping.wait(self.seconds):
                self.act()
                self.turns += 1
        except BaseException as error:  # noqa: BLE001  # told by `end`
            self.error = error

    def end(self):
        self._stopping.set()
        self.join(20)
        if self.error is not None:
            raise self.error


@contextmanager
def looping(act, seconds):
    loop = Loop(act, seconds)
    loop.start()
    try:
        yield loop
    finally:
        loop.end()


class Plane:
    """A gateway that takes up routes, Deployments whose pods are ready, and users."""

    def __init__(self, api, programs):
        self._api = api
        self._stable, self._candidate, _ = programs
        self._random = random.Random(7)  # noqa: S311  # seeded users
        self.weights = {"ranker-v1": 1}
        self.shares = []
        """The candidate's, one for each route that the gateway took up."""

    def follow(self):
        for deployment in self._api.get(DEPLOYMENTS)["items"]:
            self._follow_deployment(deployment)
        for service in self._api.get(SERVICES)["items"]:
            self._follow_service(service["metadata"]["name"])
        route = self._api.find(ROUTE)
        if route is not None:
            self._follow_route(route)

    def _follow_deployment(self, deployment):
        generation, pods = deployment["metadata"]["generation"], deployment["spec"]["replicas"]
        counts = ("replicas", "updatedReplicas", "availableReplicas", "readyReplicas")
        status = {"observedGeneration": generation, **dict.fromkeys(counts, pods)}
        if not status.items() <= deployment.get("status", {}).items():
            name = deployment["metadata"]["name"]
            self._api.merge(f"{DEPLOYMENTS}/{name}/status", {"status": status})

    def _follow_service(self, name):
        if self._api.find(f"{SLICES}/{name}") is None:
            body = {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
                "addressType": "IPv4",
                "endpoints": [{"addresses": ["10.1.0.1"], "conditions": {"ready": True}}],
                "ports": [{"port": 8080}],
            }
            self._api.call("POST", SLICES, body)

    def _follow_route(self, route):
        generation = route["metadata"]["generation"]
        known = [
            each["observedGeneration"]
            for parent in route.get("status", {}).get("parents", [])
            for each in parent["conditions"]
        ]
        if min(known, default=0) >= generation:
            return
        refs = route["spec"]["rules"][0]["backendRefs"]
        self.weights = {each["name"]: each.get("weight", 1) for each in refs}
        self.shares.append(self.share)
        (parent,) = accepted(generation)["parents"]
        for each in parent["conditions"]:
            each |= {"lastTransitionTime": "2026-01-01T00:00:00Z", "message": ""}
        parent |= {"parentRef": {"name": "gateway"}, "controllerName": "example.com/gateway"}
        self._api.merge(f"{ROUTE}/status", {"status": {"parents": [parent]}})

    @property
    def share(self):
        return self.weights.get("ranker-v2", 0) / sum(self.weights.values())

    def ask(self):
        """What users do in a fiftieth of a second: one answer in a hundred is wrong."""
        for _ in range(RATE // 50):
            is_candidate = self._random.random() < self.share
            is_wrong = self._random.random() < 0.01
            program = self._candidate if is_candidate else self._stable
            program.answer(0.01, "wrong" if is_wrong else None)


def deployment(version):
    labels = {"app": f"ranker-v{version}"}
    container = {"name": "model", "image": f"ranker:{version}"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": f"ranker-v{version}"},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


def route():
    """As it is in Git: for ever with the first version."""
    header = {"set": [{"name": "x-model-version", "value": "1"}]}
    named = {"type": "ResponseHeaderModifier", "responseHeaderModifier": header}
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "ranker", "labels": {"team": "models"}},
        "spec": {
            "parentRefs": [{"name": "gateway"}],
            "hostnames": ["ranker.example"],
            "rules": [
                {
                    "timeouts": {"request": "3s"},
                    "backendRefs": [{"name": "ranker-v1", "port": 8080, "filters": [named]}],
                }
            ],
        },
    }


def rollout():
    errors = {
        "name": "errors",
        "proportion": {"events": {"metric": "wrong_total"}, "total": {"metric": "answers_total"}},
        "versionLabel": "version",
        "tolerance": {"ratio": "2", "absolute": "0.05"},
        "margin": {"ratio": "2", "absolute": "0.2"},
    }
    steps = [
        {"weight": 10, "minSeconds": 3, "minRequests": 50},
        {"approval": {"message": "Is it good?"}},
        {"weight": 50, "minSeconds": 2, "minRequests": 50},
    ]
    return {
        "apiVersion": "modelrollout.dev/v1alpha1",
        "kind": "ModelRollout",
        "metadata": {"name": "ranker"},
        "spec": {
            "candidate": {"deployment": "ranker-v2", "model": {"version": "2"}},
            "stable": {"deployment": "ranker-v1", "model": {"version": "1"}},
            "port": 8080,
            "traffic": {"gatewayAPI": {"route": "ranker"}},
            "strategy": {"steps": steps, "bake": {"seconds": 2}},
            "analysis": {"intervalSeconds": 1, "guardrails": [errors]},
        },
    }


class Git:
    """What a tool applies from it, by server-side apply and with force."""

    def __init__(self, api, manager):
        self._api = api
        self._manager = manager

    def sync(self):
        """Everything; the route only once, as a route with `ssa: IfNotPresent` in Flux."""
        for version in (1, 2):
            self._apply(f"{DEPLOYMENTS}/ranker-v{version}", deployment(version))
        self._apply(ROLLOUT, rollout())
        if self._api.find(ROUTE) is None:
            self._apply(ROUTE, route())

    def route_as_it_is(self):
        """With all traffic on the first version."""
        self._apply(ROUTE, route())

    def _apply(self, path, body):
        self._api.apply(path, body, self._manager)


@dataclass(frozen=True)
class Operator:
    """A running one."""

    port: int
    log: Path

    def leads(self):
        try:
            return self.metric("modelrollout_leader") == 1
        except OSError:
            return False

    def metric(self, name, /, **labels):
        address = f"http://127.0.0.1:{self.port}/metrics"
        with urllib.request.urlopen(address, timeout=5) as answer:
            families = text_string_to_metric_families(answer.read().decode())
        return sum(
            each.value
            for family in families
            for each in family.samples
            if each.name == name and labels.items() <= each.labels.items()
        )


@contextmanager
def operating(folder, kubeconfig, prometheus_url, **settings):
    """The program itself, with MODELROLLOUT_* settings; it may not lead yet."""
    (folder / "providers.yaml").write_text(json.dumps({"default": {"url": prometheus_url}}))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        "PATH": os.environ["PATH"],
        "KUBECONFIG": str(kubeconfig),
        "MODELROLLOUT_PROVIDERS": str(folder / "providers.yaml"),
        "MODELROLLOUT_PORT": str(port),
        **{f"MODELROLLOUT_{name}": value for name, value in settings.items()},
    }
    running = Operator(port, folder / "operator.log")
    command = [sys.executable, "-m", "modelrollout", "operator"]
    with (
        running.log.open("w") as log,
        subprocess.Popen(command, env=environment, stdout=log, stderr=log) as process,
    ):
        try:
            yield running
        finally:
            process.terminate()
            process.wait(20)


def api_of(kube):
    """An API server that knows Gateway API."""
    crds = sorted(HOME.glob("manifests/*/10-crds.yaml"), key=lambda each: each.stat().st_mtime)
    assert crds, "no CRDs of Gateway API: run `make cluster-build`"
    documents = crds[-1].read_text().split("\n---\n")
    needed = [
        each
        for each in documents
        for kind in NEEDED
        if f"\n  name: {kind}.gateway.networking.k8s.io\n" in each
    ]
    assert len(needed) == len(NEEDED)
    done = kube.kubectl("apply", "--server-side", "-f", "-", stdin="\n---\n".join(needed))
    assert done.returncode == 0, done.stderr
    names = [f"crd/{kind}.gateway.networking.k8s.io" for kind in NEEDED]
    done = kube.kubectl("wait", "--for=condition=Established", *names)
    assert done.returncode == 0, done.stderr
    return Api(kube.url)


def until(is_done, what):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := is_done()):
        assert time.monotonic() < deadline, (
            f"waited {PATIENCE_SECONDS} s for: {what() if callable(what) else what}"
        )
        time.sleep(0.1)
    return found
