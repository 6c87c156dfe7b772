"""
The operator's own metrics, logs and probes.

Labels are bounded by what users created (namespace and name of a ModelRollout and of its
guardrails, dropped with it), never by pods, revisions or runs. Liveness asks only whether passes
come to an end: a Prometheus or an API server that is away is no reason to be restarted.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Final

from aiohttp import web
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from modelrollout import __version__
from modelrollout.api import v1alpha1 as api

LONGEST_PASS_SECONDS = 120.0
KUBERNETES: Final = "kubernetes"
PROMETHEUS: Final = "prometheus"

disable_created_metrics()  # type: ignore[no-untyped-call]

PASS_SECONDS = Histogram(
    "modelrollout_pass_seconds",
    "Duration of one pass over one ModelRollout.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
LATE_SECONDS = Histogram(
    "modelrollout_late_seconds",
    "How long after it was due a pass began; those that have no cause are never due.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
PASS_FAILURES = Counter("modelrollout_pass_failures_total", "Passes that ended in an error.")
ROUTE_WRITES = Counter("modelrollout_route_writes_total", "Writes of weights to a route.")
NOTIFICATIONS = Counter(
    "modelrollout_notifications_total",
    "Decisions for web hooks, by what became of them.",
    ["webhook", "outcome"],
)
NOTES = Counter("modelrollout_events_total", "Things told, by reason.", ["reason"])
CALLS = Counter(
    "modelrollout_calls_total",
    "Calls of other servers: answered, or failed (unreachable, refused, in error).",
    ["server", "outcome"],
)
LEADER = Gauge(
    "modelrollout_leader", "1 while this process holds the Lease of its shard.", ["shard"]
)
BUILD = Gauge("modelrollout_build_info", "1 for the version that runs.", ["version"])
AUDIT = logging.getLogger("modelrollout.audit")

_ROLLOUT = ("namespace", "name")
_GUARDRAIL = (*_ROLLOUT, "guardrail")
OF_A_ROLLOUT = {
    "other_shard": ("1 for each that is not of this operator's shard, as it saw last.", _ROLLOUT),
    "phase": ("1 for the present phase.", (*_ROLLOUT, "phase")),
    "condition": (
        "1 for each condition as it is, with its reason.",
        (*_ROLLOUT, "condition", "status", "reason"),
    ),
    "weight_wanted_ratio": ("Share of requests that the candidate is meant to get.", _ROLLOUT),
    "weight_accepted_ratio": ("Share that the gateway confirmed last.", _ROLLOUT),
    "step": ("Number of the present step, from 1; 0 before the first.", _ROLLOUT),
    "steps": ("Number of all steps, the bake included.", _ROLLOUT),
    "step_start_timestamp_seconds": ("When the present step's share was in force.", _ROLLOUT),
    "step_deadline_timestamp_seconds": ("When the present step must be decided.", _ROLLOUT),
    "rejected_timestamp_seconds": ("When a candidate lost last, and why.", (*_ROLLOUT, "cause")),
    "guardrail_verdict": ("1 for the verdict in this step.", (*_GUARDRAIL, "verdict")),
    "guardrail_harm_ratio": ("Evidence of harm, 1 rolls back.", _GUARDRAIL),
    "guardrail_safety_ratio": ("Evidence of safety, 1 passes.", _GUARDRAIL),
    "guardrail_placebo_ratio": ("Evidence that stable differs from itself.", _GUARDRAIL),
    "guardrail_value": ("A version's figure in this step.", (*_GUARDRAIL, "version")),
    "guardrail_requests": ("A version's requests in this step.", (*_GUARDRAIL, "version")),
}
"""Text and labels of what is told of each ModelRollout, by the name behind `modelrollout_`."""

_Sample = tuple[str, tuple[str, ...], float]
"""Name, labels behind those of the ModelRollout, and value."""

_statuses: dict[tuple[str, str], tuple[_Sample, ...]] = {}
"""What is told of each; a tenth of what its status would take."""
_others: frozenset[tuple[str, str]] = frozenset()
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


def shown(namespace: str, name: str, status: api.ModelRolloutStatus) -> None:
    """What a ModelRollout is at now."""
    _statuses[namespace, name] = tuple(_samples(status))


def forget(namespace: str, name: str) -> None:
    """A ModelRollout is gone, and its series with it."""
    _statuses.pop((namespace, name), None)


def others(keys: Iterable[tuple[str, str]]) -> None:
    """The ModelRollouts that another operator should take care of."""
    global _others  # noqa: PLW0603  # like the statuses, it is the process'
    _others = frozenset(keys)


class Rollouts(Collector):
    """The metrics of all ModelRollouts, as their last passes left them."""

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """What there may be."""
        yield from _families().values()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """What there is."""
        families = _families()
        for key, told in list(_statuses.items()):
            for name, labels, value in told:
                families[name].add_metric((*key, *labels), value)
        for key in _others:
            families["other_shard"].add_metric(key, 1)
        yield from families.values()


def _families() -> dict[str, GaugeMetricFamily]:
    return {
        name: GaugeMetricFamily(f"modelrollout_{name}", text, labels=labels)
        for name, (text, labels) in OF_A_ROLLOUT.items()
    }


def _samples(status: api.ModelRolloutStatus) -> Iterator[_Sample]:
    yield "phase", (status.phase,), 1
    for each in status.conditions:
        yield "condition", (each.type, each.status, each.reason), 1
    yield "weight_wanted_ratio", (), status.weight.wanted / api.FULL_WEIGHT
    if status.weight.accepted is not None:
        yield "weight_accepted_ratio", (), status.weight.accepted / api.FULL_WEIGHT
    if status.rejected is not None:
        cause = (status.rejected.cause,)
        yield "rejected_timestamp_seconds", cause, _seconds(status.rejected.time)
    if status.candidate is not None:
        yield from _trial(status)


def _trial(status: api.ModelRolloutStatus) -> Iterator[_Sample]:
    """Of the candidate on trial."""
    yield "step", (), 0 if status.step is None else status.step + 1
    if status.steps is not None:
        yield "steps", (), status.steps
    if status.step_start_time is not None:
        yield "step_start_timestamp_seconds", (), _seconds(status.step_start_time)
    if status.step_deadline_time is not None:
        yield "step_deadline_timestamp_seconds", (), _seconds(status.step_deadline_time)
    for guardrail in status.guardrails:
        yield from _guardrail(guardrail)


def _guardrail(guardrail: api.GuardrailStatus) -> Iterator[_Sample]:
    name = guardrail.name
    yield "guardrail_verdict", (name, guardrail.verdict), 1
    for kind in ("harm", "safety", "placebo"):
        evidence = getattr(guardrail, kind)
        if evidence is not None:
            yield f"guardrail_{kind}_ratio", (name,), float(evidence)
    versions = {"stable": guardrail.stable, "candidate": guardrail.candidate}
    for version, figures in versions.items():
        if figures is not None:
            yield "guardrail_requests", (name, version), figures.requests
            if figures.value is not None:
                yield "guardrail_value", (name, version), float(figures.value)


def _seconds(time_of: str) -> float:
    return datetime.fromisoformat(time_of).timestamp()


REGISTRY.register(Rollouts())
BUILD.labels(__version__).set(1)
# A counter that is born with its first event hides it from rate() and increase().
for _server in (KUBERNETES, PROMETHEUS):
    for _outcome in ("answered", "failed"):
        CALLS.labels(_server, _outcome)
for _reason in ("Promoted", "RolledBack"):
    NOTES.labels(_reason)


def called(server: str, *, failed: bool = False) -> None:
    """A call of another server has ended."""
    CALLS.labels(server, "failed" if failed else "answered").inc()


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
    """A page of thousands of ModelRollouts takes a second to write: passes go on meanwhile."""
    body = await asyncio.to_thread(generate_latest)
    content = CONTENT_TYPE_LATEST.split(";", maxsplit=1)[0]
    return web.Response(body=body, content_type=content, charset="utf-8")
