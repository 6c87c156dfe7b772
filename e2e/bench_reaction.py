"""
How long users meet a bad candidate: from the first bad answer to the last, on the real cluster.

    e2e/cluster/cluster enter env PYTHONPATH=e2e python e2e/bench_reaction.py [REPETITIONS] [DOUBLINGS]

Users send 100 requests a second. A candidate at 20 % of them begins to fail in half of its answers, and at
the same time in shops of their own others, at 50 %, begin to fail twice as often as stable: 20 % of the
time instead of 10. Prometheus scrapes each second, the operator looks
each second. After the rollback the candidate is mended and tried again.

The parts of the time are read where they happen. Scrape: from the first bad answer, by users' own
records, to the next sample that Prometheus has of it. Detection: to the pass that decides, by the
time of its record in the audit trail. Ours: from the beginning of that pass, which reads the samples,
to the route being written, by the time stamp that the container runtime gives the operator's line.
Gateway: to the last bad answer.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path

import numpy as np
import requests

import kube
import operator_chart
import turns
from shop import ERRORS, Shop

RATE = 100
STEADY_SECONDS = 2.0
"""At the weight before the fault, so that evidence of a healthy candidate is there to be outweighed."""
SETTLE_SECONDS = 2.0
"""After the rollback, for the last answers to come in."""
LIMIT_SECONDS = 300
BURST_BAR_SECONDS = 3.0
OURS_BAR_SECONDS = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Error rates of both versions: before, and of the candidate from the fault on."""

    name: str
    weight: int
    usual: float
    faulty: float
    shops: int
    """That repeat it at the same time."""


BURST = Fault(name="half of its answers", weight=20, usual=0.0, faulty=0.5, shops=1)
DOUBLING = Fault(name="twice the error rate", weight=50, usual=0.1, faulty=0.2, shops=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reaction:
    """Seconds, one part after the other; then all of them, and how many answers were bad."""

    scrape: float
    detection: float
    ours: float
    gateway: float
    total: float
    bad: int


def main() -> int:
    """Print the figures; 1 when one of them misses what is promised."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "repetitions", type=int, nargs="?", default=30, help="of the burst; 0: none"
    )
    parser.add_argument("doublings", type=int, nargs="?", default=6, help="likewise")
    given = parser.parse_args()
    operator_chart.install()
    wanted = {BURST: given.repetitions, DOUBLING: given.doublings}
    with ThreadPoolExecutor() as pool:
        under_way = {
            fault: [
                pool.submit(measured, fault, shop, repetitions // fault.shops)
                for shop in range(fault.shops)
            ]
            for fault, repetitions in wanted.items()
            if repetitions
        }
        results = {
            fault: [reaction for each in shops for reaction in each.result()]
            for fault, shops in under_way.items()
        }
    print(f"{RATE} requests/s, scrape and look each second; seconds, p50 / p95")
    print(f"{'fault':<21} {'n':>3}" + "".join(f"{each.name:>17}" for each in fields(Reaction)))
    for fault, found in results.items():
        row = [spread(found, each.name) for each in fields(Reaction)]
        print(f"{fault.name:<21} {len(found):>3}" + "".join(f"{each:>17}" for each in row))
    told = {fault.name: [asdict(each) for each in found] for fault, found in results.items()}
    turns.store("reaction", {"rate": RATE, "reactions": told})
    held = [burst_is_short(results.get(BURST, [])), ours_is_short(results.values())]
    return 0 if all(held) else 1


def burst_is_short(found: Sequence[Reaction]) -> bool:
    """Whether users meet an error burst for as short as is promised."""
    if not found:
        return True
    total = quantile([each.total for each in found], 0.95)
    print(f"the burst is over in {total:.2f} s at p95 (bar: {BURST_BAR_SECONDS:g} s)")
    return total <= BURST_BAR_SECONDS


def ours_is_short(results: Iterable[Sequence[Reaction]]) -> bool:
    """Whether what was detected becomes a route as quickly as is promised."""
    ours = 1000 * quantile([each.ours for found in results for each in found], 0.95)
    bar = 1000 * OURS_BAR_SECONDS
    print(f"status and route are written in {ours:.0f} ms at p95 (bar: {bar:g} ms)")
    return ours <= bar


def measured(fault: Fault, number: int, repetitions: int) -> list[Reaction]:
    """The same fault again and again, in a shop of its own."""
    name = f"bench-reaction-{int(1000 * fault.faulty)}-{number}"
    shop = Shop(f"{name}-{turns.RUN}", Path("build", "load", name))
    shop.open()
    try:
        usual = {"ERROR_RATE": str(fault.usual)}
        stable = shop.deploy("v1", usual, replicas=2)
        candidate = shop.deploy("v2", usual)
        (pod,) = shop.pods(candidate)
        shop.route(stable)
        shop.users(rate=RATE, feedback="", seconds=3600, requests=1_000_000)
        steps = [{"weight": fault.weight, "minSeconds": 3600}, {"weight": 90}]
        kube.apply(shop.rollout(candidate, strategy={"steps": steps}, guardrails=[ERRORS]))
        found = []
        for _ in range(repetitions):
            shop.weight_is(fault.weight)
            time.sleep(STEADY_SECONDS)
            found.append(reaction(shop, pod, fault))
            print(f"{name}: {found[-1]}", flush=True)
            shop.tell(pod, errorRate=fault.usual)
            shop.command("retry")
        return found
    finally:
        shop.close()


def reaction(shop: Shop, pod: kube.Manifest, fault: Fault) -> Reaction:
    """Let the candidate fail, and watch until users are rid of it."""
    begun = time.time()
    shop.tell(pod, errorRate=fault.faulty)
    shop.phase_is("RolledBack", seconds=LIMIT_SECONDS)
    time.sleep(SETTLE_SECONDS)
    decided, written = moments(shop, begun)
    bad = [
        each.end
        for each in shop.requests(begun)
        if not each.ok and each.version == "digits-v2" and each.end >= begun
    ]
    first, last = min(bad), max(bad)
    scraped = sampled(shop, first)
    return Reaction(
        scrape=scraped - first,
        detection=decided - scraped,
        ours=written - decided,
        gateway=max(0.0, last - written),
        total=last - first,
        bad=len(bad),
    )


def moments(shop: Shop, begun: float) -> tuple[float, float]:
    """When the pass that decided began, and when it had written the route."""
    since = datetime.fromtimestamp(begun).astimezone().isoformat(timespec="seconds")
    decided = None
    for line in kube.logs(
        operator_chart.NAMESPACE, operator_chart.SELECTOR, f"--since-time={since}"
    ):
        _, text = line.split(" ", 1)
        told = json.loads(text) if text.startswith("{") else {}
        if told.get("namespace") != shop.namespace:
            continue
        if told.get("decision") == "RolledBack":
            decided = datetime.fromisoformat(told["time"]).timestamp()
        elif decided is not None and told["message"] == "route written":
            return decided, datetime.fromisoformat(told["timestamp"]).timestamp()
    raise AssertionError("the operator does not tell of the rollback")


def sampled(shop: Shop, moment: float) -> float:
    """When Prometheus looked at the gateway next."""
    cluster = f"httproute/{shop.namespace}/digits/rule/0/backend/1"
    query = f'envoy_cluster_upstream_rq_xx{{envoy_cluster_name="{cluster}"}}[{LIMIT_SECONDS + 60}s]'
    answer = requests.get(f"{operator_chart.PROMETHEUS}/api/v1/query", {"query": query}, timeout=10)
    series = answer.json()["data"]["result"]
    return min(time for each in series for time, _ in each["values"] if time >= moment)


def spread(found: Sequence[Reaction], part: str) -> str:
    """Median and 95th percentile."""
    values = [getattr(each, part) for each in found]
    digits = 0 if part == "bad" else 2
    return f"{statistics.median(values):.{digits}f} / {quantile(values, 0.95):.{digits}f}"


def quantile(values: Sequence[float], q: float) -> float:
    """The nearest rank above."""
    return float(np.quantile(values, q, method="inverted_cdf"))


if __name__ == "__main__":
    sys.exit(main())
