"""The workloads as Kubernetes objects, as plain dicts: what a user of the operator would write.

Each version is a Deployment of its own, with labels that no other has, and a Service of the same name.

    kubectl apply -f - <<< "$(python -m workloads.manifests)"      # v1, its route and the feedback
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

Manifest = dict[str, Any]

IMAGE_PREFIX = os.environ.get("IMAGE_PREFIX", "localhost/")
"""The registry of a cluster that is not ours, with its slash at the end."""
MLSERVER_IMAGE = f"{IMAGE_PREFIX}modelrollout-mlserver:1"
MODEL_IMAGE = f"{IMAGE_PREFIX}modelrollout-model:1"
HTTP_PORT = 8080
METRICS_PORT = 8082
STATS_PORT = 8090
# The gateway sends requests to a pod until it has heard that the pod is to end; only then may it.
DRAIN_SECONDS = 5
GRACE_SECONDS = 30
SECURITY = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def mlserver_version(
    name: str,
    version: str,
    *,
    namespace: str = "default",
    environment: Mapping[str, str] | None = None,
    replicas: int = 1,
) -> list[Manifest]:
    """A version on the real server: its Deployment and Service.

    `environment` has what distinguishes it: MODEL_QUALITY, ERROR_RATE, TAIL_SHARE, TAIL_SECONDS.
    """
    settings = {"MODEL_VERSION": version, **(environment or {})}
    model = container(MLSERVER_IMAGE, settings, ready="/v2/health/ready")
    model["resources"] = {
        "requests": {"cpu": "100m", "memory": "256Mi"},
        "limits": {"memory": "512Mi"},
    }
    return with_service(deployment(name, namespace, model, replicas=replicas))


def controllable_version(
    name: str,
    version: str,
    *,
    namespace: str = "default",
    environment: Mapping[str, str] | None = None,
    replicas: int = 1,
) -> list[Manifest]:
    """A version on the server that does as it is told: its Deployment and Service."""
    settings = {"MODEL_VERSION": version, **(environment or {})}
    arguments = ["workloads.model_server"]
    model = container(MODEL_IMAGE, settings, args=arguments, ready="/v2/health/ready")
    return with_service(deployment(name, namespace, model, replicas=replicas))


def feedback(name: str = "feedback", *, namespace: str = "default") -> list[Manifest]:
    """The feedback exporter: one replica, as it joins in memory."""
    exporter = container(MODEL_IMAGE, {}, args=["workloads.feedback"], ready="/ready")
    return with_service(deployment(name, namespace, exporter, metrics_port=HTTP_PORT))


def load_pod(
    arguments: Sequence[str], *, name: str = "load", namespace: str = "default"
) -> Manifest:
    """The load generator as a pod, with GET /stats on its port 8090; records are in /tmp."""
    options = ["--digits=/digits.json", "--out=/tmp/requests.jsonl", f"--stats-port={STATS_PORT}"]
    load = container(MODEL_IMAGE, {}, args=["workloads.load", *options, *arguments])
    load["volumeMounts"] = [{"name": "records", "mountPath": "/tmp"}]  # noqa: S108  a pod's own
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "spec": {
            "restartPolicy": "Never",
            "containers": [load],
            "volumes": [{"name": "records", "emptyDir": {}}],
        },
    }


def container(
    image: str, environment: Mapping[str, str], *, args: Sequence[str] = (), ready: str = ""
) -> Manifest:
    """The container `server`; it becomes ready when GET `ready` on the HTTP port answers 200."""
    server: Manifest = {
        "name": "server",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "env": [{"name": key, "value": value} for key, value in environment.items()],
        "resources": {
            "requests": {"cpu": "50m", "memory": "64Mi"},
            "limits": {"memory": "256Mi"},
        },
        "securityContext": SECURITY,
    }
    if args:
        server["args"] = list(args)
    if ready:
        server["ports"] = [{"name": "http", "containerPort": HTTP_PORT}]
        server["readinessProbe"] = {
            "httpGet": {"path": ready, "port": "http"},
            "periodSeconds": 1,
            # A pod that only lacks processor time keeps its users: slow is better than a 503.
            # A container that has ended is taken out at once, whatever the probe says.
            "timeoutSeconds": 3,
            "failureThreshold": 10,
        }
        server["lifecycle"] = {"preStop": {"sleep": {"seconds": DRAIN_SECONDS}}}
    return server


def deployment(
    name: str,
    namespace: str,
    server: Manifest,
    *,
    replicas: int = 1,
    metrics_port: int = METRICS_PORT,
) -> Manifest:
    """A Deployment whose pods Prometheus scrapes, and which never has fewer pods than it should."""
    labels = {"app": name}
    annotations = {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(metrics_port),
        "prometheus.io/path": "/metrics",
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "replicas": replicas,
            "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels, "annotations": annotations},
                "spec": {"containers": [server], "terminationGracePeriodSeconds": GRACE_SECONDS},
            },
        },
    }


def with_service(deployment: Manifest) -> list[Manifest]:
    """The Deployment and, of the same name, the Service of its pods."""
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": deployment["metadata"],
        "spec": {
            "selector": deployment["spec"]["selector"]["matchLabels"],
            "ports": [{"name": "http", "port": HTTP_PORT, "targetPort": "http"}],
        },
    }
    return [deployment, service]


def http_route(
    name: str,
    hostname: str,
    backend: str,
    *,
    namespace: str = "default",
    gateway: str = "gateway",
    gateway_namespace: str = "gateway-system",
) -> Manifest:
    """A route with one rule and one backend, as a user has it before the first rollout."""
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "parentRefs": [{"name": gateway, "namespace": gateway_namespace}],
            "hostnames": [hostname],
            "rules": [{"backendRefs": [{"name": backend, "port": HTTP_PORT}]}],
        },
    }


def as_list(manifests: Sequence[Manifest]) -> Manifest:
    """One object that kubectl applies whole."""
    return {"apiVersion": "v1", "kind": "List", "items": list(manifests)}


def main() -> None:
    """Print the starting point of the demo."""
    objects = [
        *mlserver_version("digits-v1", "v1"),
        http_route("digits", "digits.example", "digits-v1"),
        *feedback(),
    ]
    json.dump(as_list(objects), sys.stdout, indent=1)


if __name__ == "__main__":
    main()
