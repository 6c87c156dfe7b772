"""
The three tools, each with a shop of its own: how a release is begun with them, and what they made of it.

Everybody's shop is the same: two pods of stable and the candidate's, of the same server, behind the
same gateway, counted by the same Prometheus. Thresholds are read from the pods' own counters.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import kube
import operator_chart
from peers.controllers import PLUGIN
from shop import ERRORS, LATENCY, ROLLOUT, STEPS, Shop
from workloads import manifests

STABLE, CANDIDATE = "digits-v1", "digits-v2"
"""What answers call the versions; peers keep both below one name."""
P99_SECONDS = 0.5
"""The 99th percentile that peers let pass."""
WEIGHT = 20
PROMOTED, ROLLED_BACK, UNDECIDED = "promoted", "rolled back", "undecided"
READY_SECONDS = 120
GATEWAY = {"name": "gateway", "namespace": "gateway-system"}
ERROR_SHARE = (
    'sum(rate(model_requests_total{{namespace="{namespace}",pod=~"{pods}",code=~"5.."}}[{window}]))'
    ' / sum(rate(model_requests_total{{namespace="{namespace}",pod=~"{pods}"}}[{window}]))'
)
P99 = (
    "histogram_quantile(0.99, sum(rate(model_request_duration_seconds_bucket"
    '{{namespace="{namespace}",pod=~"{pods}"}}[30s])) by (le))'
)


@dataclass(frozen=True)
class Rules:
    """The share of errors that a peer lets pass, and over what time."""

    errors: float
    window: str


@dataclass
class Contender(ABC):
    """One tool with one way to set it up."""

    shop: Shop
    environment: Mapping[str, str]
    """How both versions behave at first, as the server's environment says it."""
    moves_on: bool
    """Whether the release goes through its steps; else it stays near WEIGHT."""
    objects: ClassVar[str]
    """The tool's own kind, as kubectl calls it."""

    @abstractmethod
    def open(self) -> None:
        """Stable behind its route."""

    @abstractmethod
    def release(self) -> None:
        """Begin with the candidate."""

    @abstractmethod
    def weight(self) -> int:
        """The candidate's share in per cent, as the tool says."""

    @abstractmethod
    def candidates(self) -> list[kube.Manifest]:
        """The candidate's pods."""

    @abstractmethod
    def outcome(self) -> str:
        """What the tool has decided by now."""

    @staticmethod
    @abstractmethod
    def idle(namespace: str, names: Sequence[str]) -> list[kube.Manifest]:
        """Objects of the tool, and what they stand on, that have nothing to do and no pod."""

    @staticmethod
    @abstractmethod
    def are_idle(namespace: str) -> int:
        """How many of them are where they are to be."""

    def stable(self) -> list[kube.Manifest]:
        """Deployment and Service that stable is made of."""
        return manifests.controllable_version(
            ROLLOUT,
            STABLE,
            namespace=self.shop.namespace,
            environment=self.environment,
            replicas=2,
        )

    def change(self, kind: str) -> None:
        """Write the candidate's environment into stable's template, which makes it a new revision."""
        told = {"MODEL_VERSION": CANDIDATE, **self.environment}
        variables = [{"name": key, "value": value} for key, value in told.items()]
        path = "/spec/template/spec/containers/0/env"
        body = [{"op": "replace", "path": path, "value": variables}]
        kube.patch(kind, ROLLOUT, self.shop.namespace, body, "json")


class ModelRollout(Contender):
    """This operator, a look each second, everything else as it comes."""

    objects = "modelrollouts"

    def open(self) -> None:
        self.shop.deploy("v1", self.environment, replicas=2)
        self.shop.route(STABLE)

    def release(self) -> None:
        self.shop.deploy("v2", self.environment)
        staying = [{"weight": WEIGHT, "minSeconds": 600}, {"weight": 50}]
        strategy = {"steps": STEPS if self.moves_on else staying}
        kube.apply(self.shop.rollout(CANDIDATE, strategy=strategy, guardrails=[ERRORS, LATENCY]))

    def weight(self) -> int:
        weight: int = self.shop.status().get("weight", {}).get("accepted", 0)
        return weight

    def candidates(self) -> list[kube.Manifest]:
        return self.shop.pods(CANDIDATE)

    def outcome(self) -> str:
        known = {"RolledBack": ROLLED_BACK, "Promoted": PROMOTED}
        return known.get(self.shop.status().get("phase", ""), UNDECIDED)

    @staticmethod
    def idle(namespace: str, names: Sequence[str]) -> list[kube.Manifest]:
        found = []
        for name in names:
            found += empty(namespace, name)
            found.append(
                manifests.http_route(name, f"{name}.{namespace}", name, namespace=namespace)
            )
            rollout = Shop(namespace).rollout(name, name, name=name)
            rollout["spec"]["traffic"]["gatewayAPI"]["route"] = name
            found.append(rollout)
        return found

    @staticmethod
    def are_idle(namespace: str) -> int:
        return phases(ModelRollout.objects, namespace).count("Promoted")


@dataclass
class Flagger(Contender):
    """Its tutorial for the Gateway API, with the shortest interval that it accepts."""

    objects = "canaries.flagger.app"

    rules: Rules

    def open(self) -> None:
        deployment, _ = self.stable()
        kube.apply(deployment)
        kube.rollout_pods_are_ready(self.shop.namespace, ROLLOUT)
        kube.apply(
            self.template("error-rate", f"{ERROR_SHARE} * 100"),
            self.template("latency", P99),
            self.canary(),
        )
        kube.wait_until(
            lambda: phases(self.objects, self.shop.namespace) == ["Initialized"],
            READY_SECONDS,
            "Flagger has taken the Deployment over",
            every=1,
        )

    def release(self) -> None:
        self.change("deployment")

    def weight(self) -> int:
        weight: int = self.status().get("canaryWeight", 0)
        return weight

    def candidates(self) -> list[kube.Manifest]:
        return self.shop.pods(ROLLOUT)

    def outcome(self) -> str:
        known = {"Failed": ROLLED_BACK, "Succeeded": PROMOTED}
        return known.get(self.status().get("phase", ""), UNDECIDED)

    def status(self) -> kube.Manifest:
        status: kube.Manifest = kube.get(self.objects, ROLLOUT, self.shop.namespace)["status"]
        return status

    def template(self, name: str, query: str) -> kube.Manifest:
        """A query about the candidate's pods, which have no `primary` in their names."""
        return {
            "apiVersion": "flagger.app/v1beta1",
            "kind": "MetricTemplate",
            "metadata": {"name": name, "namespace": self.shop.namespace},
            "spec": {
                "provider": {"type": "prometheus", "address": operator_chart.PROMETHEUS},
                "query": query.format(
                    namespace="{{ namespace }}",
                    pods="{{ target }}-[0-9a-z]+-[0-9a-z]+",
                    window="{{ interval }}",
                ),
            },
        }

    def canary(self) -> kube.Manifest:
        # One more per cent each interval is as near as it can be to staying at a weight.
        staying = {"stepWeights": [*range(WEIGHT, 51)]}
        moving = {"stepWeight": 10, "maxWeight": 50}
        analysis = {
            "interval": "10s",
            "threshold": 5,
            "metrics": [
                metric("error-rate", 100 * self.rules.errors, self.rules.window),
                metric("latency", P99_SECONDS, "30s"),
            ],
        }
        return canary(
            self.shop.namespace,
            ROLLOUT,
            self.shop.host,
            analysis | (moving if self.moves_on else staying),
        )

    @staticmethod
    def idle(namespace: str, names: Sequence[str]) -> list[kube.Manifest]:
        found = []
        for name in names:
            deployment, _ = empty(namespace, name)
            # Flagger would make it with a pod.
            primary, _ = empty(namespace, f"{name}-primary")
            analysis = {
                "interval": "1m",
                "threshold": 5,
                "stepWeight": 10,
                "maxWeight": 50,
                "metrics": [],
            }
            found += [
                deployment,
                primary,
                canary(namespace, name, f"{name}.{namespace}", analysis),
            ]
        return found

    @staticmethod
    def are_idle(namespace: str) -> int:
        return phases(Flagger.objects, namespace).count("Initialized")


@dataclass
class ArgoRollouts(Contender):
    """The background analysis of its documents, with this bench's interval."""

    objects = "rollouts.argoproj.io"

    rules: Rules
    rate: str
    """The function over the window: `irate` in its documents."""
    first: str = ""
    """The hash of stable's pods before the release."""

    def open(self) -> None:
        _, service = self.stable()
        services = [
            service | {"metadata": service["metadata"] | {"name": name}}
            for name in ("digits-stable", "digits-canary")
        ]
        route = manifests.http_route(
            ROLLOUT, self.shop.host, "digits-stable", namespace=self.shop.namespace
        )
        backend = {"port": manifests.HTTP_PORT}
        route["spec"]["rules"][0]["backendRefs"] = [
            backend | {"name": "digits-stable", "weight": 100},
            backend | {"name": "digits-canary", "weight": 0},
        ]
        kube.apply(*services, route, self.analysis(), self.rollout())
        kube.wait_until(
            lambda: phases(self.objects, self.shop.namespace) == ["Healthy"],
            READY_SECONDS,
            "Argo Rollouts has stable's pods ready",
            every=1,
        )
        self.first = self.status()["stableRS"]

    def release(self) -> None:
        self.change(self.objects)

    def weight(self) -> int:
        weights = self.status().get("canary", {}).get("weights") or {}
        weight: int = weights.get("canary", {}).get("weight", 0)
        return weight

    def candidates(self) -> list[kube.Manifest]:
        label = f"rollouts-pod-template-hash={self.status()['currentPodHash']}"
        return kube.listed("pods", self.shop.namespace, "-l", label)

    def outcome(self) -> str:
        status = self.status()
        if status.get("abort"):
            return ROLLED_BACK
        return UNDECIDED if status["stableRS"] == self.first else PROMOTED

    def status(self) -> kube.Manifest:
        status: kube.Manifest = kube.get(self.objects, ROLLOUT, self.shop.namespace)["status"]
        return status

    def rollout(self) -> kube.Manifest:
        deployment, _ = self.stable()
        shares = (20, 40, 60, 80) if self.moves_on else (WEIGHT,)
        pause = "15s" if self.moves_on else "10m"
        steps = [
            step
            for each in shares
            for step in ({"setWeight": each}, {"pause": {"duration": pause}})
        ]
        latest = {"name": "hash", "valueFrom": {"podTemplateHashValue": "Latest"}}
        analysis = {
            "templates": [{"templateName": "success-rate"}],
            "startingStep": 1,
            "args": [latest],
        }
        return rollout(deployment, {"steps": steps, "analysis": analysis})

    def analysis(self) -> kube.Manifest:
        """Success rate as in the documents; latency is watched in the same way."""

        def measured(name: str, query: str, condition: str) -> dict[str, Any]:
            text = query.format(
                namespace=self.shop.namespace,
                pods=ROLLOUT + "-{{args.hash}}-.*",
                window=self.rules.window,
            )
            return {
                "name": name,
                "interval": "1s",
                # Until Prometheus has found the new pods; without values there would be errors.
                "initialDelay": "15s",
                "successCondition": condition,
                "failureLimit": 3,
                "provider": {"prometheus": {"address": operator_chart.PROMETHEUS, "query": text}},
            }

        success = "1 - " + ERROR_SHARE.replace("rate(", f"{self.rate}(")
        return {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "AnalysisTemplate",
            "metadata": {"name": "success-rate", "namespace": self.shop.namespace},
            "spec": {
                "args": [{"name": "hash"}],
                "metrics": [
                    measured("success-rate", success, f"result[0] >= {1 - self.rules.errors:g}"),
                    measured("latency", P99, f"result[0] <= {P99_SECONDS:g}"),
                ],
            },
        }

    @staticmethod
    def idle(namespace: str, names: Sequence[str]) -> list[kube.Manifest]:
        found = []
        for name in names:
            deployment, service = empty(namespace, name)
            route = manifests.http_route(name, f"{name}.{namespace}", name, namespace=namespace)
            other = service | {"metadata": service["metadata"] | {"name": f"{name}-canary"}}
            steps = [{"setWeight": WEIGHT}, {"pause": {"duration": "10m"}}]
            found += [service, other, route, rollout(deployment, {"steps": steps}, stable=name)]
        return found

    @staticmethod
    def are_idle(namespace: str) -> int:
        return phases(ArgoRollouts.objects, namespace).count("Healthy")


def metric(name: str, largest: float, window: str) -> dict[str, Any]:
    """A check of Flagger's."""
    return {
        "name": name,
        "templateRef": {"name": name},
        "thresholdRange": {"max": largest},
        "interval": window,
    }


def canary(namespace: str, name: str, host: str, analysis: Mapping[str, Any]) -> kube.Manifest:
    """A Canary over the Deployment of the same name."""
    return {
        "apiVersion": "flagger.app/v1beta1",
        "kind": "Canary",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "progressDeadlineSeconds": 60,
            "service": {
                "port": manifests.HTTP_PORT,
                "targetPort": manifests.HTTP_PORT,
                "hosts": [host],
                "gatewayRefs": [GATEWAY],
            },
            "analysis": dict(analysis),
        },
    }


def rollout(
    deployment: kube.Manifest, strategy: Mapping[str, Any], stable: str = "digits-stable"
) -> kube.Manifest:
    """A Rollout with the pods of a Deployment."""
    name = deployment["metadata"]["name"]
    canary_service = f"{name}-canary"
    spec = {key: deployment["spec"][key] for key in ("replicas", "selector", "template")}
    routing = {
        "canaryService": canary_service,
        "stableService": stable,
        "trafficRouting": {"plugins": {PLUGIN: {"httpRoute": name}}},
    }
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Rollout",
        "metadata": deployment["metadata"],
        "spec": spec | {"strategy": {"canary": routing | strategy}},
    }


def empty(namespace: str, name: str) -> list[kube.Manifest]:
    """A Deployment without pods, and its Service."""
    return manifests.controllable_version(name, name, namespace=namespace, replicas=0)


def phases(kind: str, namespace: str) -> list[str]:
    """Of all objects of a kind."""
    text = kube.kubectl("get", kind, "-n", namespace, "-o", "jsonpath={.items[*].status.phase}")
    return text.split()
