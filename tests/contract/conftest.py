"""A real Prometheus on loopback, and small programs for it to scrape."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from prometheus_binary import prometheus_binary

CONFIG = """
global: {{scrape_interval: 1s, scrape_timeout: 900ms}}
scrape_configs:
- job_name: models
  static_configs:
{targets}
"""
TARGET = "  - {{targets: ['127.0.0.1:{port}'], labels: {{namespace: shop, version: '{version}'}}}}"
START_SECONDS = 60


class QuietHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Nobody reads it."""


class Served:
    """An HTTP server on a port of its own, in a thread of its own, as a context manager."""

    def __init__(self, handler):
        self.handler = handler

    def __enter__(self):
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self.handler)
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


class Program:
    """A model server that can be restarted: its counters begin at zero again."""

    def __init__(self, version):
        self.version = version
        self.lock = threading.Lock()
        self.restart()
        program = self

        class Handler(QuietHandler):
            def do_GET(self):
                with program.lock:
                    body = generate_latest(program.registry)
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self.served = Served(Handler)

    def restart(self):
        with self.lock:
            self.registry = CollectorRegistry()
            self.requests = Counter("answers", "All answers.", registry=self.registry)
            self.errors = Counter("wrong", "Bad ones.", ["reason"], registry=self.registry)
            self.latency = Histogram(
                "latency", "Seconds.", registry=self.registry, buckets=(0.05, 0.1, 0.5, 1.0)
            )

    def answer(self, latency, reason=None):
        with self.lock:
            self.requests.inc()
            self.latency.observe(latency)
            if reason:
                self.errors.labels(reason).inc()


class Server:
    """A Prometheus process that scrapes some programs each second."""

    def __init__(self, directory, programs, *flags):
        self.directory = directory
        self.flags = flags
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        targets = [TARGET.format(port=each.served.port, version=each.version) for each in programs]
        config = CONFIG.format(targets="\n".join(targets))
        (directory / "prometheus.yml").write_text(config)
        self.targets = len(targets)
        self.process = None

    def start(self):
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    prometheus_binary(),
                    f"--config.file={self.directory}/prometheus.yml",
                    f"--storage.tsdb.path={self.directory}/data",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                    *self.flags,
                ],
                stdout=log,
                stderr=log,
            )
        since = time.time()
        while not self.has_scraped_all(since):
            if time.time() > since + START_SECONDS or self.process.poll() is not None:
                pytest.fail(f"Prometheus does not start: {(self.directory / 'log').read_text()}")
            time.sleep(0.1)

    def has_scraped_all(self, since):
        """Which it begins some seconds after it answers."""
        query = urllib.parse.quote(f"count(timestamp(up) > {since} and up == 1) or vector(0)")
        try:
            url = f"{self.url}/api/v1/query?query={query}"
            with urllib.request.urlopen(url, timeout=1) as response:  # noqa: S310
                found = json.load(response)["data"]["result"]
        except OSError:
            return False
        return bool(found) and found[0]["value"][1] == str(self.targets)

    def stop(self):
        self.process.terminate()
        self.process.wait(30)


@pytest.fixture(scope="module")
def programs():
    """One of the stable version, two of the candidate."""
    found = [Program("1"), Program("2"), Program("2")]
    for each in found:
        each.served.__enter__()
    yield found
    for each in found:
        each.served.__exit__()


@pytest.fixture(scope="module")
def server(programs, tmp_path_factory):
    running = Server(tmp_path_factory.mktemp("prometheus"), programs)
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def remember(tmp_path_factory):
    """Starts a Prometheus that scrapes nobody, and remembers what OpenMetrics text says."""
    running = []

    def start(lines):
        directory = tmp_path_factory.mktemp("memory")
        text = directory / "history.txt"
        text.write_text("\n".join([*lines, ""]))
        promtool = Path(prometheus_binary()).with_name("promtool")
        create = [promtool, "tsdb", "create-blocks-from", "openmetrics", text, directory / "data"]
        subprocess.run(create, check=True, capture_output=True)
        running.append(Server(directory, []))
        running[-1].start()
        return running[-1]

    yield start
    for each in running:
        each.stop()
