"""The plugin as a new user has it: from two Deployments and a route to a rollout, and what follows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import kube
from shop import ROLLOUT, Shop, rolled_back

ROOT = Path(__file__).parent.parent


def plugin(shop: Shop, *arguments: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
    """kubectl modelrollout, in the shop's namespace."""
    command = [sys.executable, "-m", "modelrollout", *arguments, "-n", shop.namespace]
    return subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)


def test_three_commands_start_a_rollout_and_why_says_how_it_ended(
    shop: Shop, tmp_path: Path
) -> None:
    shop.users(rate=200)
    shop.deploy("v2", {"ERROR_RATE": "0.5"})
    path = tmp_path / "rollout.yaml"

    written = plugin(shop, "init", "--write", str(path))
    assert written.returncode == 0, written.stderr
    assert "digits-v2 is to take over from digits-v1 on HTTPRoute digits" in written.stdout
    checked = plugin_alone("lint", str(path), "--server")
    assert checked.returncode == 0, checked.stdout
    kube.kubectl("apply", "-f", str(path))
    watched = plugin(shop, "get", ROLLOUT, "--watch", seconds=180)

    assert watched.returncode == 1
    assert "Progressing  1/6  1 %" in watched.stdout
    rolled_back(shop, seconds=10)
    why = " ".join(plugin(shop, "why", ROLLOUT).stdout.split())
    assert "digits-v2 was rolled back at 1 %" in why
    assert "because guardrail errors failed: it measured" in why
    assert "All users are on digits-v1." in why
    assert f"kubectl modelrollout retry {ROLLOUT} -n {shop.namespace}" in why

    retried = plugin(shop, "retry", ROLLOUT, "--yes")
    assert retried.returncode == 0, retried.stderr
    assert f"retry of digits-v2 by {kube.user()}" in retried.stdout
    kube.wait_until(lambda: shop.status().get("candidate"), 20, "the trial has begun anew")
    aborted = plugin(shop, "abort", ROLLOUT, "--yes")
    assert aborted.returncode == 0, aborted.stderr
    assert f"digits-v2 was aborted by {kube.user()}" in aborted.stdout
    assert shop.status()["phase"] == "RolledBack"
    assert set(shop.backends()) == {"digits-v1"}
    again = plugin(shop, "abort", ROLLOUT, "--yes")
    assert again.returncode == 1
    assert "no candidate is on trial" in again.stderr


def plugin_alone(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Without a namespace of its own: the file names one."""
    command = [sys.executable, "-m", "modelrollout", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
