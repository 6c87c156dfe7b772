"""Servers that speak Prometheus' language, in the place of the one of tests/contract."""

from __future__ import annotations

import os
import subprocess
import time

import pytest

from contract.conftest import Server, programs
from contract.test_prometheus import prometheus

__all__ = ["programs", "prometheus"]


class VictoriaMetrics(Server):
    """A single-node one that scrapes some programs each second."""

    def start(self):
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    os.environ["VICTORIA_METRICS"],
                    f"-promscrape.config={self.directory}/prometheus.yml",
                    f"-storageDataPath={self.directory}/data",
                    f"-httpListenAddr=127.0.0.1:{self.port}",
                ],
                stdout=log,
                stderr=log,
            )
        since = time.time()
        while not self.has_scraped_all(since):
            if time.time() > since + 60 or self.process.poll() is not None:
                pytest.fail(f"it does not start: {(self.directory / 'log').read_text()}")
            time.sleep(0.1)


@pytest.fixture(scope="module")
def server(programs, tmp_path_factory):
    running = VictoriaMetrics(tmp_path_factory.mktemp("victoria-metrics"), programs)
    running.start()
    yield running
    running.stop()
