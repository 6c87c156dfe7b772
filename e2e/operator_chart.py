"""The operator as users install it: from its chart, with its own ServiceAccount."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from datetime import UTC, datetime
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
READY_SECONDS = 120
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
    """
    Send SIGKILL to the leading process, from the node: it gets no time to say goodbye. Its pod.

    Somebody is there to take over: what is meant is a take-over, not the kubelet's patience.
    """
    kube.wait_until(_all_work, READY_SECONDS, "all replicas work, and one of them leads")
    name = leader()
    os.kill(process_of(name), signal.SIGKILL)
    return name


def take_over() -> float:
    """
    Kill the leader, and wait until somebody leads; the seconds that it took.

    A dead process does not give its Lease back: it runs out first, whoever takes it then.
    """
    kill_leader()
    killed = datetime.fromtimestamp(time.time(), UTC)
    after: datetime = kube.wait_until(
        lambda: (at := renewed()) > killed and at, READY_SECONDS, "a renewed Lease"
    )
    return (after - killed).total_seconds()


def renewed() -> datetime:
    """When a leader last renewed the Lease."""
    return datetime.fromisoformat(lease()["renewTime"])


def _all_work() -> bool:
    """
    Whether each replica has a ready process, one of which leads.

    A container that was killed a few times within ten minutes is kept waiting by the kubelet, for
    minutes in the end: its pod is replaced.
    """
    found = pods()
    for each in found:
        if _is_kept_waiting(each):
            name = each["metadata"]["name"]
            kube.kubectl("delete", "pod", name, "-n", NAMESPACE, "--ignore-not-found")
            return False
    wanted = kube.get("deployment", DEPLOYMENT, NAMESPACE)["spec"]["replicas"]
    began = {each["metadata"]["name"]: _began(each) for each in found if _works(each)}
    held = lease()
    leads = began.get(held.get("holderIdentity") or "")
    return len(began) == len(found) == wanted and leads is not None and leads < held["renewTime"]


def _is_kept_waiting(pod: kube.Manifest) -> bool:
    return any(each.get("waiting", {}).get("reason") == "CrashLoopBackOff" for each in _states(pod))


def _works(pod: kube.Manifest) -> bool:
    """Ready also in truth: the kubelet tells of a death only after a while."""
    conditions = pod.get("status", {}).get("conditions", [])
    is_ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    is_running = all("running" in each for each in _states(pod))
    return is_ready and is_running and _process(pod) is not None


def _began(pod: kube.Manifest) -> str:
    """As times are written, so that they can be compared: when its container was started last."""
    return max(each["running"]["startedAt"] for each in _states(pod))


def _states(pod: kube.Manifest) -> list[kube.Manifest]:
    return [each["state"] for each in pod.get("status", {}).get("containerStatuses", [])]


def process_of(pod: str) -> int:
    """The operator's process in a pod that runs on this machine."""
    found = _process(kube.get("pod", pod, NAMESPACE))
    assert found is not None, f"no process of pod {pod} runs on this machine"
    return found


def _process(pod: kube.Manifest) -> int | None:
    """By the control group that the kubelet gave it."""
    uid = pod["metadata"]["uid"]
    for each in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            is_operator = b"modelrollout\0operator" in (each / "cmdline").read_bytes()
            group = (each / "cgroup").read_text().replace("_", "-")
            if is_operator and f"pod{uid}" in group:
                return int(each.name)
    return None


def lease() -> kube.Manifest:
    """The Lease's spec."""
    found: kube.Manifest = kube.get("lease", "modelrollout-operator", NAMESPACE)["spec"]
    return found


def pods() -> list[kube.Manifest]:
    """All pods of the operator."""
    return kube.listed("pods", NAMESPACE, "-l", SELECTOR)
