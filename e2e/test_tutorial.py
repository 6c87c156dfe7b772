"""The tutorial, command by command, as a reader types it."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import kube

ROOT = Path(__file__).parents[1]
NAMESPACE = "tutorial"
BLOCK = re.compile(r"^<!-- run -->\n```console\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
SECONDS = 300


def script() -> str:
    """All commands that are to be run, each told before it is."""
    page = (ROOT / "docs" / "tutorial.md").read_text()
    lines = "".join(BLOCK.findall(page)).splitlines()
    return "\n".join(line.removeprefix("$ ") for line in lines)


@pytest.fixture
def reader(tmp_path: Path, operator: None) -> Iterator[dict[str, str]]:  # noqa: ARG001
    """The environment of a shell with settings of its own; nothing of the shop stays behind."""
    leave()
    config = tmp_path / "kubeconfig"
    config.write_bytes(Path(os.environ["KUBECONFIG"]).read_bytes())
    yield os.environ | {"KUBECONFIG": str(config)}
    leave("--wait=false")


def leave(*options: str) -> None:
    """Take it down, the rollout first."""
    if kube.exists("namespace", NAMESPACE, "default"):
        kube.kubectl("delete", "modelrollouts", "--all", "-n", NAMESPACE, "--timeout=90s")
        kube.kubectl("delete", "namespace", NAMESPACE, "--timeout=60s", *options)


def test_the_tutorial_goes_as_it_says(reader: dict[str, str]) -> None:
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", script()],
        cwd=ROOT,
        env=reader,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    print(done.stdout, done.stderr)
    assert done.returncode == 0

    said = done.stdout
    assert re.search(r"^digits-v2 .*has all traffic$", said, flags=re.MULTILINE)
    assert re.search(r"digits-v3 was rolled back at \d+ %: errors: candidate", said)
    assert "\ndigits-v2\n" in said
    assert "What to do next" in said
    assert re.search(r"Aborted .*digits-v3.* by ", said)
