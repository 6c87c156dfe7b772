"""Where the tests find a real Prometheus, and promtool beside it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def prometheus_binary() -> str:
    """Prometheus 3: named by PROMETHEUS_BINARY, or as the test cluster has it."""
    named = os.environ.get("PROMETHEUS_BINARY")
    if named:
        return named
    home = Path(os.environ.get("CLUSTER_HOME", Path.home() / ".cache" / "modelrollout-cluster"))
    built = sorted(home.glob("bin/prometheus-*/prometheus"), key=lambda each: each.stat().st_mtime)
    if not built:
        pytest.fail(
            "These tests need a Prometheus 3: run `e2e/cluster/cluster build`, or set"
            " PROMETHEUS_BINARY to the path of one."
        )
    return str(built[-1])
