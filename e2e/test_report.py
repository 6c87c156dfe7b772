"""The course of a rollout on a real cluster, kept by an operator that was killed in the middle of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import kube
import operator_chart
from shop import ERRORS, LATENCY, ROLLOUT, Shop


def test_a_report_has_what_was_before_a_kill_and_what_came_after(
    shop: Shop, tmp_path: Path
) -> None:
    shop.users(rate=150)
    candidate = shop.deploy("v2")
    steps = [{"weight": 40, "minRequests": 20}, {"weight": 50, "minSeconds": 600}]
    kube.apply(shop.rollout(candidate, guardrails=[ERRORS, LATENCY], strategy={"steps": steps}))
    shop.weight_is(50)
    kube.wait_until(
        lambda: kube.exists("configmap", f"{ROLLOUT}-trace", shop.namespace), 30, "a trace"
    )
    operator_chart.kill_leader()
    shop.command("abort")
    shop.phase_is("RolledBack", seconds=60)
    page = tmp_path / "report.html"

    def is_written() -> bool:
        command = ["report", ROLLOUT, "-n", shop.namespace, "-o", str(page)]
        done = subprocess.run(
            [sys.executable, "-m", "modelrollout", *command],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return "Aborted" in done.stderr

    kube.wait_until(is_written, 60, "the end in the trace")

    html = page.read_text(encoding="utf-8")
    for said in ("Started", "Step started", "Aborted", f"by {kube.user()}", "digits-v2"):
        assert said in html
    assert "Counted at " in html
    (version,) = {
        each["image"] for pod in shop.pods(candidate) for each in pod["spec"]["containers"]
    }
    assert version in html
