"""
The operator's own metrics, logs and probes.

Labels are bounded by what users created (namespace and name of a ModelRollout, dropped with
it), never by pods, revisions or runs. Liveness asks only whether passes come to an end: a
Prometheus or an API server that is away is no reason to be restarted.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, Histogram, generate_latest

LONGEST_PASS_SECONDS = 120.0

PASS_SECONDS = Histogram(
    "modelrollout_pass_seconds",
    "Duration of one pass over one ModelRollout.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
PASS_FAILURES = Counter("modelrollout_pass_failures_total", "Passes that ended in an error.")
ROUTE_WRITES = Counter("modelrollout_route_writes_total", "Writes of weights to a route.")
NOTIFICATIONS = Counter(
    "modelrollout_notifications_total",
    "Decisions for web hooks, by what became of them.",
    ["webhook", "outcome"],
)
NOTES = Counter("modelrollout_events_total", "Things told, by reason.", ["reason"])
WEIGHT = Gauge(
    "modelrollout_candidate_weight",
    "Percentage of requests that the candidate is meant to get.",
    ["namespace", "name"],
)
PHASE = Gauge("modelrollout_phase", "1 for the present phase.", ["namespace", "name", "phase"])
LEADER = Gauge("modelrollout_leader", "1 while this process holds the Lease.")
AUDIT = logging.getLogger("modelrollout.audit")

_phases: dict[tuple[str, str], str] = {}
_running: dict[tuple[str, str], float] = {}


def write_audit_trail() -> None:
    """Bare lines on stdout, one JSON object each; the log goes to stderr in a form of its own."""
    AUDIT.addHandler(logging.StreamHandler(sys.stdout))
    AUDIT.setLevel(logging.INFO)
    AUDIT.propagate = False


@contextmanager
def running(namespace: str, name: str) -> Iterator[None]:
    """Mark a pass as under way, for liveness and for its duration."""
    began = time.monotonic()
    _running[namespace, name] = began
    try:
        yield
    finally:
        del _running[namespace, name]
        PASS_SECONDS.observe(time.monotonic() - began)


def shown(namespace: str, name: str, phase: str, weight: int) -> None:
    """What a ModelRollout is at now."""
    before = _phases.get((namespace, name))
    if before is not None and before != phase:
        PHASE.remove(namespace, name, before)
    _phases[namespace, name] = phase
    PHASE.labels(namespace, name, phase).set(1)
    WEIGHT.labels(namespace, name).set(weight)


def forget(namespace: str, name: str) -> None:
    """A ModelRollout is gone, and its series with it."""
    phase = _phases.pop((namespace, name), None)
    if phase is not None:
        PHASE.remove(namespace, name, phase)
        WEIGHT.remove(namespace, name)


def overdue() -> list[str]:
    """Passes that have run for longer than any call's time-out allows."""
    now = time.monotonic()
    return [
        f"{namespace}/{name}"
        for (namespace, name), began in _running.items()
        if now - began > LONGEST_PASS_SECONDS
    ]


async def serve(port: int) -> web.AppRunner:
    """Answer /healthz, /readyz and /metrics on all addresses of the pod."""
    app = web.Application()
    app.add_routes(
        [web.get("/healthz", _healthz), web.get("/readyz", _readyz), web.get("/metrics", _metrics)]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, port=port).start()
    logging.getLogger(__name__).info("probes and metrics on port %d", port)
    return runner


async def _healthz(_: web.Request) -> web.Response:
    late = overdue()
    return web.Response(status=503 if late else 200, text=f"overdue: {late}" if late else "ok")


async def _readyz(_: web.Request) -> web.Response:
    """A standby is ready too: it is there to take over."""
    return web.Response(text="ok")


async def _metrics(_: web.Request) -> web.Response:
    content = CONTENT_TYPE_LATEST.split(";", maxsplit=1)[0]
    return web.Response(body=generate_latest(), content_type=content, charset="utf-8")
