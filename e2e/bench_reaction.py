"""
How long users meet a bad candidate: from the first bad answer to the last, on the real cluster.

    e2e/cluster/cluster enter env PYTHONPATH=e2e python e2e/bench_reaction.py [REPETITIONS]

A candidate at 20 % of 100 requests a second begins to fail, half of its answers in one series of
repetitions, twice stable's error rate in the other. Prometheus scrapes each second, the operator
looks each second. After the rollback the candidate is mended and tried again. The parts of the time
are read where they happen: users' own records, and the time stamps that the container runtime
gives the operator's lines for the decision and for the route.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import kube
import operator_chart
from shop import ERRORS, Shop

RATE = 100
WEIGHT = 20
STEADY_SECONDS = 3.0
"""At the weight before the fault, so that evidence of a healthy candidate is there to be outweighed."""
SETTLE_SECONDS = 3.0
"""After the route is back, for the last answers to come in."""
LIMIT_SECONDS = 120
STRATEGY = {"steps": [{"weight": WEIGHT, "minSeconds": 600}, {"weight": 50}]}


@dataclass(frozen=True)
class Fault:
    """Error rates of both versions: before, and of the candidate from the fault on."""

    name: str
    usual: float
    faulty: float


FAULTS = (Fault("half of its answers", 0.0, 0.5), Fault("twice the error rate", 0.05, 0.10))


@dataclass(frozen=True)
class Reaction:
    """Seconds from the fault's first bad answer."""

    decided: float
    written: float
    last: float
    bad: int

    @property
    def propagation(self) -> float:
        """From the route's write to the last bad answer."""
        return max(0.0, self.last - self.written)


def main() -> int:
    """Print the figures; 1 when one of them misses what is promised."""
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    operator_chart.install()
    results = {fault: measured(fault, repetitions) for fault in FAULTS}
    print(f"{RATE} requests/s, candidate at {WEIGHT} %, scrape and look each second; p50 / p95")
    print(
        f"{'fault':<22} {'n':>3} {'decided s':>13} {'route ms':>11} {'gateway s':>13} {'last bad s':>13} {'bad':>9}"
    )
    for fault, found in results.items():
        told = [
            spread([each.decided for each in found]),
            spread([1000 * (each.written - each.decided) for each in found], digits=0),
            spread([each.propagation for each in found]),
            spread([each.last for each in found]),
            spread([each.bad for each in found], digits=0),
        ]
        print(
            f"{fault.name:<22} {len(found):>3} {told[0]:>13} {told[1]:>11} {told[2]:>13} {told[3]:>13} {told[4]:>9}"
        )
    burst = results[FAULTS[0]]
    return 0 if quantile([each.last for each in burst], 0.95) <= 3.0 else 1


def measured(fault: Fault, repetitions: int) -> list[Reaction]:
    """The same fault again and again, in a shop of its own."""
    name = f"bench-reaction-{int(1000 * fault.faulty)}"
    shop = Shop(name, Path("build", "load", name))
    shop.open()
    try:
        usual = {"ERROR_RATE": str(fault.usual)}
        shop.deploy("v1", usual, replicas=2)
        candidate = shop.deploy("v2", usual)
        (pod,) = shop.pods(candidate)
        shop.route("digits-v1")
        shop.users(rate=RATE, seconds=3600, requests=1_000_000)
        kube.apply(shop.rollout(candidate, strategy=STRATEGY, guardrails=[ERRORS]))
        found = []
        for _ in range(repetitions):
            shop.weight_is(WEIGHT)
            time.sleep(STEADY_SECONDS)
            found.append(reaction(shop, pod, fault))
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
        each
        for each in shop.requests(begun)
        if not each.ok and each.version == "digits-v2" and each.end >= begun
    ]
    first = min(each.end for each in bad)
    return Reaction(
        decided=decided - first,
        written=written - first,
        last=max(each.end for each in bad) - first,
        bad=len(bad),
    )


def moments(shop: Shop, begun: float) -> tuple[float, float]:
    """When the decision was put on record, and when the route was written."""
    since = datetime.fromtimestamp(begun).astimezone().isoformat(timespec="seconds")
    decided = written = math.nan
    for line in kube.logs(
        operator_chart.NAMESPACE, operator_chart.SELECTOR, f"--since-time={since}", "--timestamps"
    ):
        _, stamp, text = line.split(" ", 2)
        told = json.loads(text) if text.startswith("{") else {}
        if told.get("namespace") != shop.namespace:
            continue
        moment = datetime.fromisoformat(stamp).timestamp()
        if moment < begun:
            continue
        if told.get("decision") == "RolledBack":
            decided = moment
        elif told.get("weight") == 0 and math.isnan(written):
            written = moment
    assert not math.isnan(decided + written), "the operator's lines are not there"
    return decided, written


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median and 95th percentile."""
    return f"{quantile(values, 0.5):.{digits}f} / {quantile(values, 0.95):.{digits}f}"


def quantile(values: Sequence[float], q: float) -> float:
    """The nearest rank."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)]


if __name__ == "__main__":
    sys.exit(main())
