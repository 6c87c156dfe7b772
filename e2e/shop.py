"""A user's namespace: versions of a model behind a route, users, and a ModelRollout."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

import kube
from kube import Manifest
from workloads import manifests
from workloads.traffic import Load, Record

GATEWAY = "http://gateway.envoy-gateway-system.svc.cluster.local"
ROLLOUT = "digits"
ERRORS: Manifest = {"name": "errors", "preset": "envoy/errors"}
LOST_SECONDS = 30.0
"""A rollout that is at rest for so long stays there."""
LATENCY: Manifest = {"name": "latency", "preset": "envoy/latency"}
ACCURACY: Manifest = {
    "name": "accuracy",
    "proportion": {
        "events": {"metric": "predictions_wrong_total"},
        "total": {"metric": "predictions_judged_total"},
    },
    "versionLabel": "version",
    "tolerance": {"ratio": "1.5", "absolute": "0.01"},
    "margin": {"ratio": "1.5", "absolute": "0.05"},
}
STEPS: list[Manifest] = [
    {"weight": 10, "gate": "NoHarm", "minRequests": 50},
    {"weight": 50, "minRequests": 100},
]


@dataclass
class Shop:
    """Everything of one user. `host` keeps the routes of different shops apart."""

    namespace: str
    records: Path = Path("build", "load")
    """Where it is written down what users got."""
    load: Load | None = None
    deployed: list[str] = field(default_factory=list)

    @property
    def host(self) -> str:
        return f"{self.namespace}.example"

    def open(self) -> None:
        """The namespace with the feedback exporter."""
        kube.apply(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}},
            *manifests.feedback(namespace=self.namespace),
        )

    def close(self) -> None:
        """Take everything down, the rollout first, so that its finalizer can be answered."""
        if self.load is not None and self.load.is_running:
            self.load.stop()
        kube.kubectl("delete", "modelrollouts", "--all", "-n", self.namespace, "--timeout=90s")
        kube.kubectl("delete", "namespace", self.namespace, "--wait=false")

    def deploy(
        self,
        version: str,
        environment: Mapping[str, str] | None = None,
        *,
        replicas: int = 1,
        wait: bool = True,
        real: bool = False,
    ) -> str:
        """A version on the controllable (or the real) server; its Deployment's name."""
        name = f"{ROLLOUT}-{version}"
        make = manifests.mlserver_version if real else manifests.controllable_version
        objects = make(
            name, name, namespace=self.namespace, environment=environment, replicas=replicas
        )
        kube.apply(*objects)
        if wait:
            kube.rollout_pods_are_ready(self.namespace, name)
        return name

    def pods(self, name: str) -> list[Manifest]:
        """The pods of a Deployment, by name."""
        found = kube.listed("pods", self.namespace, "-l", f"app={name}")
        return sorted(found, key=lambda pod: pod["metadata"]["name"])

    def tell(self, pod: Manifest, **behaviour: Any) -> None:
        """Have one pod of the controllable server behave differently from now on."""
        url = f"http://{pod['status']['podIP']}:{manifests.METRICS_PORT}/control"
        requests.put(url, json=behaviour, timeout=5).raise_for_status()

    def route(self, backend: str, name: str = ROLLOUT, *, names_version: bool = True) -> None:
        """The user's own route, all traffic on one version, and the proof that it works."""
        route = manifests.http_route(name, self.host, backend, namespace=self.namespace)
        if names_version:
            header = {"set": [{"name": "x-model-version", "value": backend}]}
            named = {"type": "ResponseHeaderModifier", "responseHeaderModifier": header}
            route["spec"]["rules"][0]["backendRefs"][0]["filters"] = [named]
        kube.apply(route)

        def accepted() -> bool:
            parents = kube.get("httproute", name, self.namespace).get("status", {}).get("parents")
            return bool(parents) and all(
                each["status"] == "True" for each in parents[0]["conditions"]
            )

        kube.wait_until(accepted, 30, f"route {name} is accepted")

    def users(self, rate: float = 100, **options: Any) -> Load:
        """Users that send requests until the test ends."""
        exporter = f"http://feedback.{self.namespace}.svc.cluster.local:8080"
        self.load = Load.start(
            GATEWAY,
            host=self.host,
            rate=rate,
            feedback=options.pop("feedback", exporter),
            label_delay_seconds=options.pop("label_delay_seconds", 0.5),
            directory=self.records,
            **options,
        )
        first = kube.wait_until(
            lambda: [each for each in self.requests() if each.ok], 30, "a first answer"
        )
        assert first
        return self.load

    def requests(self, since: float = 0) -> list[Record]:
        """What users got so far."""
        assert self.load is not None
        return self.load.requests_since(since)

    def failures(self, since: float = 0) -> list[Record]:
        """Requests of users that got no good answer."""
        return [each for each in self.requests(since) if not each.ok]

    def versions(self, since: float) -> set[str]:
        """Who has answered requests that were sent since then."""
        return {each.version for each in self.requests(since)}

    def rollout(self, candidate: str, stable: str = f"{ROLLOUT}-v1", **spec: Any) -> Manifest:
        """A ModelRollout as a user writes it, quick enough for a test."""
        guardrails = spec.pop("guardrails", [ERRORS, LATENCY])
        analysis = {"intervalSeconds": 1, "guardrails": guardrails} | spec.pop("analysis", {})
        strategy = {"steps": STEPS, "bake": {"seconds": 2}} | spec.pop("strategy", {})
        name = spec.pop("name", ROLLOUT)
        return {
            "apiVersion": "modelrollout.dev/v1alpha1",
            "kind": "ModelRollout",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {
                "candidate": {"deployment": candidate},
                "stable": {"deployment": stable},
                "port": manifests.HTTP_PORT,
                "traffic": {"gatewayAPI": {"route": ROLLOUT}},
                "strategy": strategy,
                "analysis": analysis,
                **spec,
            },
        }

    def status(self, name: str = ROLLOUT) -> Manifest:
        """The rollout's status."""
        status: Manifest = kube.get("modelrollout", name, self.namespace).get("status", {})
        return status

    def condition(self, kind: str, name: str = ROLLOUT) -> Manifest:
        """One condition; empty while there is none."""
        found = [each for each in self.status(name).get("conditions", []) if each["type"] == kind]
        return found[0] if found else {}

    def guardrail(self, name: str) -> Manifest:
        """What status says of a guardrail; empty while it says nothing."""
        found = [each for each in self.status().get("guardrails", []) if each["name"] == name]
        return found[0] if found else {}

    def events(self, reason: str) -> list[Manifest]:
        """The Events of the rollout with a reason."""
        about = f"involvedObject.kind=ModelRollout,involvedObject.name={ROLLOUT},reason={reason}"
        return kube.listed("events", self.namespace, "--field-selector", about)

    def event(self, reason: str) -> Manifest:
        """The only Event with a reason; it is told right after the status that has the fact."""
        (event,) = kube.wait_until(lambda: self.events(reason), 10, f"Event {reason}")
        return event

    def phase_is(self, *phases: str, seconds: float, name: str = ROLLOUT) -> Manifest:
        """Wait for a phase; the status then. Who waits for another end waits no longer for it."""
        lost: list[float] = []

        def reached() -> Manifest | None:
            status = self.status(name)
            if phases == ("Promoted",) and status.get("phase") == "RolledBack":
                lost.append(time.monotonic())
                assert lost[-1] - lost[0] < LOST_SECONDS, "it was rolled back"
            return status if status.get("phase") in phases else None

        try:
            status: Manifest = kube.wait_until(reached, seconds, f"phase {phases}")
        except AssertionError as error:
            now = self.status(name)
            said = f"{error}; now {now.get('phase')} {now.get('stepText')}: {now.get('reason')}"
            raise AssertionError(said) from None
        return status

    def weight_is(self, weight: int, seconds: float = 60) -> Manifest:
        """Wait until the gateway has accepted a weight and the step's evidence is on."""

        def reached() -> Manifest | None:
            status = self.status()
            in_force = status.get("weight", {}).get("accepted") == weight
            return status if in_force and status.get("stepStartTime") else None

        try:
            status: Manifest = kube.wait_until(reached, seconds, f"weight {weight}")
        except AssertionError as error:
            now = self.status()
            raise AssertionError(f"{error}; now {now.get('phase')}: {now.get('reason')}") from None
        return status

    def command(self, verb: str, name: str = ROLLOUT) -> None:
        """A command, as a user gives it."""
        kube.kubectl(
            "annotate", "modelrollout", name, "-n", self.namespace, "--overwrite",
            f"modelrollout.dev/command={verb}", f"modelrollout.dev/by={kube.user()}",
        )  # fmt: skip

    def backends(self, name: str = ROLLOUT, rule: int = 0) -> dict[str, int]:
        """The weights on the route."""
        refs = kube.get("httproute", name, self.namespace)["spec"]["rules"][rule]["backendRefs"]
        return {each["name"]: each.get("weight", 1) for each in refs}


def rolled_back(shop: Shop, seconds: float = 120) -> Manifest:
    """Wait for the rollback, and check what must be true after any; the status then."""
    status = shop.phase_is("RolledBack", seconds=seconds)
    assert shop.condition("Promoted")["status"] == "False"
    assert shop.condition("Ready")["status"] == "False"
    assert set(shop.backends()) == {"digits-v1"}
    moment = now() + 1
    kube.wait_until(lambda: len(shop.requests(moment)) > 100, 20, "requests after the rollback")
    assert shop.versions(moment) == {"digits-v1"}
    return status


def now() -> float:
    """Seconds since the epoch, as records have them."""
    return time.time()
