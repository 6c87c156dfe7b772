"""The real helm, and the real API server of the cluster that e2e/cluster makes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CRD_NAME = "modelrollouts.modelrollout.dev"
CLUSTER = ROOT / "e2e" / "cluster" / "cluster"

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def helm() -> Run:
    """Run helm with some arguments; its exit code is the test's to judge."""
    binary = os.environ.get("HELM_BINARY") or _newest_helm() or shutil.which("helm")
    assert binary, "no helm: run `make cluster-build`, or set HELM_BINARY to one"

    def run(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return _run([binary, *arguments], stdin)

    return run


def _newest_helm() -> str | None:
    cache = Path(os.environ.get("CLUSTER_HOME", "~/.cache/modelrollout-cluster")).expanduser()
    found = sorted(cache.glob("bin/helm-*/helm"), key=lambda each: each.stat().st_mtime)
    return str(found[-1]) if found else None


@pytest.fixture(scope="session")
def kubectl() -> Run:
    """Run kubectl where the cluster's network is; its exit code is the test's to judge."""
    address = _run([str(CLUSTER), "kubeconfig"]).stdout.strip()
    is_inside = os.environ.get("KUBECONFIG") == address
    prefix = [] if is_inside else [str(CLUSTER), "enter"]

    def run(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return _run([*prefix, "kubectl", *arguments], stdin)

    ready = run("get", "--raw", "/readyz")
    assert ready.returncode == 0, f"no cluster: run `make cluster-up`. {ready.stderr}"
    return run


@pytest.fixture(scope="session")
def crd(kubectl: Run) -> dict[str, Any]:
    """The CRD, installed in the cluster; tests leave it there."""
    before = kubectl("get", "crd", CRD_NAME, "-o", "jsonpath={.metadata.generation}").stdout
    folder = str(ROOT / "crds")
    done = kubectl("apply", "--server-side", "--force-conflicts", "-f", folder)
    assert done.returncode == 0, done.stderr
    done = kubectl("wait", "--for=condition=Established", f"crd/{CRD_NAME}", "--timeout=30s")
    assert done.returncode == 0, done.stderr
    installed: dict[str, Any] = json.loads(kubectl("get", "crd", CRD_NAME, "-o", "json").stdout)
    if before != str(installed["metadata"]["generation"]):
        time.sleep(2)  # the API server takes up a changed schema a moment after it has stored it
    return installed


@pytest.fixture(scope="session")
def namespace(kubectl: Run) -> Iterator[str]:
    """A namespace that accepts only pods of the restricted Pod Security Standard."""
    name = f"schema-tests-{os.getpid()}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    done = kubectl("create", "-f", "-", stdin=json.dumps(body))
    assert done.returncode == 0, done.stderr
    account = ["get", "serviceaccount", "default", "-n", name]
    deadline = time.monotonic() + 30
    while kubectl(*account).returncode != 0:
        assert time.monotonic() < deadline, "the namespace gets no ServiceAccount"
        time.sleep(0.2)
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


def _run(command: list[str], stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, input=stdin, capture_output=True, text=True, timeout=120, check=False
    )
