"""The processes around a fleet, and what the kernel and their own metrics say of the operator."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from bench.scale.fleet import LEASE_NAMESPACE
from kube_apiserver import ApiServer
from kube_apiserver import _free_port as free_port
from prometheus_binary import prometheus_binary

TICKS = os.sysconf("SC_CLK_TCK")
MIB = 2**20
START_SECONDS = 60
SCRAPE_SECONDS = 5
TESTS = Path(__file__).parents[2]
SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="([^"]*)"')

PROMETHEUS = """
global: {{scrape_interval: {scrape}s, scrape_timeout: {scrape}s}}
scrape_configs:
- job_name: fleet
  honor_labels: true
  static_configs: [{{targets: ['127.0.0.1:{exporter}']}}]
- job_name: operator
  scrape_interval: 15s
  static_configs: [{{targets: ['127.0.0.1:{operator}']}}]
"""

Labels = frozenset[tuple[str, str]]
Samples = dict[tuple[str, Labels], float]


def get(url: str) -> str:
    """A page."""
    with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310  # on loopback
        text: str = answer.read().decode()
        return text


def samples(text: str, *names: str) -> Samples:
    """Of a page of metrics, those with the names."""
    return {
        (name, frozenset(LABEL.findall(labels))): float(value)
        for name, labels, value in SAMPLE.findall(text)
        if name in names
    }


def total(found: Samples, name: str) -> float:
    """Over all labels."""
    return sum(value for (each, _), value in found.items() if each == name)


def answers(url: str) -> bool:
    """Whether somebody does."""
    try:
        get(url)
    except OSError:
        return False
    return True


def wait_for(url: str, what: str) -> float:
    """Seconds until it answers."""
    began = time.monotonic()
    while not answers(url):
        if time.monotonic() - began > START_SECONDS:
            raise RuntimeError(f"waited {START_SECONDS} s for {what}")
        time.sleep(0.02)
    return time.monotonic() - began


@dataclass
class Exporter:
    """Serves the series of all."""

    folder: Path
    port: int = field(default_factory=free_port)

    @contextmanager
    def running(self) -> Iterator[Exporter]:
        """While the block lasts."""
        command = [sys.executable, "-m", "bench.scale.exporter", str(self.port)]
        paths = os.pathsep.join([str(TESTS), str(TESTS.parent / "operator")])
        with _running(command, self.folder / "exporter.log", {"PYTHONPATH": paths}):
            wait_for(f"http://127.0.0.1:{self.port}/", "the exporter")
            yield self

    def serve(self, size: int) -> None:
        """The series of so many."""
        get(f"http://127.0.0.1:{self.port}/fleet?size={size}")


@contextmanager
def prometheus(folder: Path, exporter: Exporter, operator_port: int) -> Iterator[str]:
    """A real one; its address."""
    port = free_port()
    config = folder / "prometheus.yml"
    config.write_text(
        PROMETHEUS.format(scrape=SCRAPE_SECONDS, exporter=exporter.port, operator=operator_port)
    )
    command = [
        prometheus_binary(),
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'prometheus'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    url = f"http://127.0.0.1:{port}"
    with _running(command, folder / "prometheus.log", {}):
        wait_for(f"{url}/-/ready", "Prometheus")
        yield url


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What is known of an operator at one time."""

    time: float
    cpu: float
    rss: int
    peak: int
    threads: int
    files: int
    metrics: Samples

    @property
    def passes(self) -> float:
        """That have ended."""
        return total(self.metrics, "modelrollout_pass_seconds_count")


class Operator:
    """As the image starts it, on one core."""

    def __init__(
        self, folder: Path, server: ApiServer, prometheus_url: str, *, identity: str, port: int
    ) -> None:
        self.port = port
        providers = folder / "providers.yaml"
        providers.write_text(yaml.safe_dump({"default": {"url": prometheus_url}}))
        self._log = folder / f"{identity}.log"
        self._environment = {
            "KUBECONFIG": str(server.kubeconfig()),
            "MODELROLLOUT_PROVIDERS": str(providers),
            "MODELROLLOUT_PORT": str(port),
            "MODELROLLOUT_IDENTITY": identity,
            "MODELROLLOUT_LEASE_NAMESPACE": LEASE_NAMESPACE,
            "PYTHONUNBUFFERED": "1",
        }
        self._process: subprocess.Popen[bytes] | None = None
        self.started = 0.0

    def start(self) -> None:
        """A new process."""
        self.started = time.monotonic()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "modelrollout", "operator"],
                env=os.environ | self._environment,
                stdout=log,
                stderr=log,
                preexec_fn=_on_one_core,  # noqa: PLW1509  # no threads here
            )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def is_ready(self) -> bool:
        """Whether its probe says so."""
        return answers(f"http://127.0.0.1:{self.port}/readyz")

    def seconds_to_ready(self) -> float:
        """From its start."""
        wait_for(f"http://127.0.0.1:{self.port}/readyz", f"the operator, see {self._log}")
        return time.monotonic() - self.started

    def kill(self) -> None:
        """At once, and it gives nothing back."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """As a node does it."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(30)
            self._process = None

    def sample(self) -> Sample:
        """Everything at once."""
        page = get(f"http://127.0.0.1:{self.port}/metrics")
        names = (
            "modelrollout_pass_seconds_count",
            "modelrollout_pass_seconds_sum",
            "modelrollout_pass_failures_total",
            "modelrollout_late_seconds_bucket",
            "modelrollout_late_seconds_count",
            "modelrollout_calls_total",
            "modelrollout_phase",
        )
        return self.sample_of_kernel(samples(page, *names))

    def sample_of_kernel(self, metrics: Samples | None = None) -> Sample:
        """Without asking the process; an error when it has ended."""
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"the operator has ended, see {self._log}")
        folder = Path(f"/proc/{self.pid}")
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        status = dict(
            line.split(":", 1)
            for line in (folder / "status").read_text().splitlines()
            if ":" in line
        )
        return Sample(
            time=time.monotonic(),
            cpu=(int(fields[11]) + int(fields[12])) / TICKS,
            rss=int(status["VmRSS"].split()[0]) * 1024,
            peak=int(status["VmHWM"].split()[0]) * 1024,
            threads=int(status["Threads"]),
            files=len(list((folder / "fd").iterdir())),
            metrics=metrics or {},
        )


def _on_one_core() -> None:
    """The last one that there is."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


@contextmanager
def _running(command: list[str], log: Path, environment: Mapping[str, str]) -> Iterator[None]:
    with (
        log.open("w") as file,
        subprocess.Popen(
            command, stdout=file, stderr=file, env={**os.environ, **environment}
        ) as process,
    ):
        try:
            yield
        finally:
            process.kill()


def quantile(before: Samples, after: Samples, name: str, share: float) -> float:
    """The upper bound of the bucket in which it lies, as a histogram grew."""
    grown = sorted(
        (float(dict(labels)["le"]), value - before.get((each, labels), 0.0))
        for (each, labels), value in after.items()
        if each == f"{name}_bucket"
    )
    count = grown[-1][1] if grown else 0
    return next((bound for bound, value in grown if count and value >= share * count), float("nan"))
