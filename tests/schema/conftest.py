"""The real helm, and a real API server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kube_apiserver import CRD_NAME, ApiServer

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
def kubectl(kube: ApiServer) -> Run:
    """Run kubectl as the administrator; its exit code is the test's to judge."""
    return kube.kubectl


@pytest.fixture(scope="session")
def crd(kubectl: Run) -> dict[str, Any]:
    """The CRD, as the API server has it."""
    installed: dict[str, Any] = json.loads(kubectl("get", "crd", CRD_NAME, "-o", "json").stdout)
    return installed


@pytest.fixture(scope="session")
def namespace(kubectl: Run) -> str:
    """A namespace that accepts only pods of the restricted Pod Security Standard."""
    name = "schema-tests"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    done = kubectl("create", "-f", "-", stdin=json.dumps(body))
    assert done.returncode == 0, done.stderr
    return name


def _run(command: list[str], stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, input=stdin, capture_output=True, text=True, timeout=120, check=False
    )
