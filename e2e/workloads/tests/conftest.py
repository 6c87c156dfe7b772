"""The workloads as processes on loopback, each on ports of its own."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from workloads.digits import Digits

E2E = Path(__file__).parents[2]


@dataclass(frozen=True)
class Server:
    process: subprocess.Popen[bytes]
    port: int
    metrics_port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def private_url(self) -> str:
        return f"http://127.0.0.1:{self.metrics_port}"

    def control(self, **behaviour: Any) -> requests.Response:
        return requests.put(f"{self.private_url}/control", json=behaviour, timeout=5)

    def metric(self, sample: str) -> float | None:
        """The value of a sample, written as on the page: name{label="value"}."""
        found = re.search(rf"^{re.escape(sample)} (\S+)$", self.page(), re.MULTILINE)
        return float(found[1]) if found else None

    def summed(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels, whatever others they have."""
        samples = (
            sample
            for family in text_string_to_metric_families(self.page())
            for sample in family.samples
        )
        return sum(
            each.value
            for each in samples
            if each.name == name and labels.items() <= each.labels.items()
        )

    def page(self) -> str:
        return requests.get(f"{self.private_url}/metrics", timeout=5).text


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=1).ok
    except requests.RequestException:
        return False


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)


def run_module(name: str, ready: str, environment: dict[str, str]) -> Iterator[Server]:
    port = free_port()
    metrics_port = free_port() if name == "model_server" else port
    ports = {"HTTP_PORT": str(port), "METRICS_PORT": str(metrics_port), "PYTHONPATH": str(E2E)}
    command = [sys.executable, "-m", f"workloads.{name}"]
    with subprocess.Popen(command, env=os.environ | ports | environment) as process:
        try:
            until(lambda: answers(f"http://127.0.0.1:{port}{ready}"))
            yield Server(process, port, metrics_port)
        finally:
            process.terminate()


@pytest.fixture
def model() -> Iterator[Server]:
    settings = {"SEED": "7", "LATENCY_MEDIAN_SECONDS": "0.001", "MODEL_VERSION": "v9"}
    yield from run_module("model_server", "/v2/health/live", settings)


@pytest.fixture
def feedback() -> Iterator[Server]:
    yield from run_module("feedback", "/ready", {})


@pytest.fixture
def digits_file(tmp_path: Path) -> Path:
    """Ten blank pictures: the server under test is told the digit and looks at no pixel."""
    path = tmp_path / "digits.json"
    Digits(pixels=[[0] * 64] * 10, labels=list(range(10))).write(path)
    return path
