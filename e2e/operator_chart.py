"""The operator as users install it: from its chart, with its own ServiceAccount."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import kube
from workloads.manifests import IMAGE_PREFIX

ROOT = Path(__file__).parent.parent
NAMESPACE = "modelrollout-system"
SELECTOR = "app.kubernetes.io/name=modelrollout"
DEPLOYMENT = "modelrollout"
IMAGE = {"repository": f"{IMAGE_PREFIX}modelrollout-operator", "tag": "dev"}
PROMETHEUS = "http://prometheus.monitoring.svc.cluster.local:9090"
VALUES: dict[str, Any] = {
    "image": IMAGE,
    "providers": {"default": {"url": PROMETHEUS}},
    "jobChecks": {"enabled": True},
}


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
    holder: str = lease()["holderIdentity"]
    return holder


def kill_leader() -> str:
    """Send SIGKILL to the leading process, from the node: it gets no time to say goodbye. Its pod."""
    name = leader()
    uid = kube.get("pod", name, NAMESPACE)["metadata"]["uid"]
    os.kill(_process_of(uid), signal.SIGKILL)
    return name


def _process_of(pod: str) -> int:
    """The operator's process in a pod, by the control group that the kubelet gave it."""
    for each in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            is_operator = b"modelrollout\0operator" in (each / "cmdline").read_bytes()
            group = (each / "cgroup").read_text().replace("_", "-")
            if is_operator and f"pod{pod}" in group:
                return int(each.name)
    raise AssertionError(f"no process of pod {pod} runs on this machine")


def lease() -> kube.Manifest:
    """The Lease's spec."""
    found: kube.Manifest = kube.get("lease", "modelrollout-operator", NAMESPACE)["spec"]
    return found


def pods() -> list[kube.Manifest]:
    """All pods of the operator."""
    return kube.listed("pods", NAMESPACE, "-l", SELECTOR)
