"""
What users feel of a mirror: their latency with and without it, in turns, in one run.

    e2e/cluster/cluster enter env PYTHONPATH=e2e python e2e/bench_mirror.py

One rollout whose steps are mirror, pause, mirror, pause ...: the operator itself switches it on and
off. Everything runs on one machine here, the two versions and the comparator included, so that what
they take from each other's processors is in the figures, too: the model waits for 20 ms, as one that
computes on an accelerator does, and takes little processor itself.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import kube
import operator_chart
from shop import Shop
from workloads.traffic import Record

RATE = 200
TURNS = 4
TURN_SECONDS = 20
SETTLE_SECONDS = 2.0
MIRROR = 25
"""Per cent of the users' requests."""
MODEL = {"LATENCY_MEDIAN_SECONDS": "0.02", "LATENCY_SIGMA": "0.1"}
FAILURES = {"name": "failures", "preset": "comparator/errors"}
SHADOW = {
    "intent": "Change",
    "idempotent": True,
    "paths": ["/v2/models"],
    "format": "OpenInference",
    "outputs": [{"name": "digit", "tensor": "predict", "label": {}}],
}


def main() -> int:
    """Print the figures; 1 when a user's request failed."""
    operator_chart.install()
    shop = Shop("bench-mirror", Path("build", "load", "bench-mirror"))
    shop.open()
    try:
        shop.deploy("v1", MODEL, replicas=2)
        candidate = shop.deploy("v2", MODEL)
        shop.route("digits-v1")
        shop.users(rate=RATE)
        steps: list[kube.Manifest] = []
        for _ in range(TURNS):
            steps.append({"mirror": MIRROR, "minSeconds": TURN_SECONDS, "minRequests": 10})
            steps.append({"pauseSeconds": TURN_SECONDS})
        strategy = {"type": "Shadow", "steps": steps}
        kube.apply(shop.rollout(candidate, shadow=SHADOW, strategy=strategy, guardrails=[FAILURES]))
        turns = watched(shop)
        records = shop.requests()
    finally:
        shop.close()
    return told(turns, records)


def watched(shop: Shop) -> list[tuple[float, bool]]:
    """When the mirror was switched on (True) and off, seconds since the epoch."""
    turns: list[tuple[float, bool]] = []
    until = time.monotonic() + 4 * TURNS * TURN_SECONDS + 120
    while time.monotonic() < until:
        status = shop.status()
        if "waits for approval" in status.get("reason", ""):
            return turns
        is_on = bool(status.get("mirror"))
        is_running = bool(status.get("stepStartTime"))
        if is_running and (not turns or turns[-1][1] != is_on):
            turns.append((time.time(), is_on))
        time.sleep(0.1)
    raise SystemExit(f"not through in time: {shop.status().get('reason')}")


def told(turns: Sequence[tuple[float, bool]], records: Sequence[Record]) -> int:
    """Quantiles of both, over all turns of each."""
    ends = [start for start, _ in turns[1:]]
    latency: dict[bool, list[float]] = {True: [], False: []}
    for (start, is_on), end in zip(turns, ends, strict=False):
        latency[is_on] += [
            each.latency_seconds
            for each in records
            if each.ok and start + SETTLE_SECONDS <= each.start < end - SETTLE_SECONDS
        ]
    failed = sum(not each.ok for each in records)
    print(f"{RATE} requests/s of users, {MIRROR} % of them mirrored, {failed} failed")
    print(f"{'':>10} {'requests':>9} {'p50 ms':>8} {'p99 ms':>8}")
    for is_on, name in ((False, "off"), (True, "on")):
        median, tail = (1000 * quantile(latency[is_on], q) for q in (0.5, 0.99))
        print(f"{name:>10} {len(latency[is_on]):>9,} {median:>8.3f} {tail:>8.2f}")
    ratios = [quantile(latency[True], q) / quantile(latency[False], q) for q in (0.5, 0.99)]
    print(f"{'on / off':>10} {'':>9} {ratios[0]:>8.3f} {ratios[1]:>8.3f}")
    return 1 if failed else 0


def quantile(values: Sequence[float], q: float) -> float:
    """The nearest rank."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)]


if __name__ == "__main__":
    sys.exit(main())
