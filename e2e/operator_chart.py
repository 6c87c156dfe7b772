"""The operator as users install it: from its chart, with its own ServiceAccount."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import kube

ROOT = Path(__file__).parent.parent
NAMESPACE = "modelrollout-system"
SELECTOR = "app.kubernetes.io/name=modelrollout"
DEPLOYMENT = "modelrollout"
IMAGE = {"repository": "localhost/modelrollout-operator", "tag": "dev", "pullPolicy": "Never"}
PROMETHEUS = "http://prometheus.monitoring.svc.cluster.local:9090"
VALUES: dict[str, Any] = {"image": IMAGE, "providers": {"default": {"url": PROMETHEUS}}}


def install() -> None:
    """Install or upgrade, and start the pods anew: the image may have changed under its tag."""
    kube.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))
    chart = str(ROOT / "charts" / "modelrollout")
    command = ["helm", "upgrade", "--install", "modelrollout", chart, "--namespace", NAMESPACE]
    command += ["--create-namespace", "--skip-crds", "--values", "-"]
    subprocess.run(command, input=json.dumps(VALUES), text=True, check=True, capture_output=True)
    kube.kubectl("rollout", "restart", f"deployment/{DEPLOYMENT}", "-n", NAMESPACE)
    kube.rollout_pods_are_ready(NAMESPACE, DEPLOYMENT)


def leader() -> str:
    """The name of the pod that holds the Lease."""
    lease = kube.get("lease", "modelrollout-operator", NAMESPACE)
    holder: str = lease["spec"]["holderIdentity"]
    return holder


def kill_leader() -> str:
    """End the leading pod at once, as a node that fails would; its name."""
    name = leader()
    kube.kubectl("delete", "pod", name, "-n", NAMESPACE, "--grace-period=0", "--force")
    return name


def pods() -> list[kube.Manifest]:
    """All pods of the operator."""
    return kube.listed("pods", NAMESPACE, "-l", SELECTOR)
