"""What happens to users with each tool: the same fault in everybody's candidate at the same moment."""

from __future__ import annotations

import contextlib
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

import kube
from peers.contenders import (
    CANDIDATE,
    P99_SECONDS,
    UNDECIDED,
    WEIGHT,
    ArgoRollouts,
    Contender,
    Flagger,
    ModelRollout,
    Rules,
)
from peers.controllers import FLAGGER, ROLLOUTS
from shop import GATEWAY, Shop
from workloads import manifests
from workloads.traffic import Load, Record

RATE = 100
DOCUMENTED = {FLAGGER: Rules(errors=0.01, window="1m"), ROLLOUTS: Rules(errors=0.05, window="5m")}
INFORMED = Rules(errors=0.015, window="1m")
"""Half-way between the 1 % of a healthy version and the 2 % of a bad one: who knows both would say so."""
SLOW_SECONDS = P99_SECONDS
"""An answer that takes longer is a bad one."""
BEGIN_SECONDS = 150
STEADY_SECONDS = 20
SETTLE_SECONDS = 3
ANSWERED = re.compile(r'^model_requests_total\{code="500"\} (\S+)$', re.MULTILINE)


@dataclass(frozen=True)
class Scenario:
    """What is done to the candidate, or around it, once everybody's release is at its weight."""

    name: str
    usual: Mapping[str, str] = field(default_factory=dict)
    """How both versions behave before."""
    fault: Mapping[str, float] = field(default_factory=dict)
    limit_seconds: float = 120
    """Who has not decided by then is undecided."""
    moves_on: bool = False
    blind_seconds: float = 0
    """So long is Prometheus away."""


ONE_PER_CENT = {"ERROR_RATE": "0.01"}
SCENARIOS = {
    "burst": Scenario("half of the answers are errors", fault={"errorRate": 0.5}),
    "double": Scenario(
        "errors double, 1 % to 2 %", ONE_PER_CENT, {"errorRate": 0.02}, limit_seconds=180
    ),
    "tail": Scenario("5 % take a second longer", fault={"tailShare": 0.05, "tailSeconds": 1.0}),
    "blind": Scenario(
        "Prometheus is away for 90 s, all is well", limit_seconds=100, blind_seconds=90
    ),
    "healthy": Scenario(
        "both versions have 1 % errors", ONE_PER_CENT, limit_seconds=240, moves_on=True
    ),
}


@dataclass(frozen=True)
class Result:
    """What one tool made of a scenario, and what its users had of it."""

    contender: str
    outcome: str
    exposed_seconds: float
    """From the fault to the last answer of the candidate; nan where it kept its users."""
    bad: int
    """Answers of the candidate that were errors or slow, from the fault on."""
    lost: int
    """Requests from the fault on that got no answer of a version: none is anybody's fault but the move's."""


def contenders(scenario: Scenario, run: str, peers: Sequence[str]) -> dict[str, Contender]:
    """This operator and the peers, by name."""

    def common(name: str) -> tuple[Shop, Mapping[str, str], bool]:
        namespace = f"peers-{run}-{name}"
        shop = Shop(namespace, Path("build", "peers", namespace))
        return shop, scenario.usual, scenario.moves_on

    found: dict[str, Contender] = {"ModelRollout": ModelRollout(*common("modelrollout"))}
    if FLAGGER in peers:
        documented = DOCUMENTED[FLAGGER]
        found["Flagger, documented"] = Flagger(*common("flagger-d"), documented)
        found["Flagger, informed"] = Flagger(*common("flagger-i"), INFORMED)
    if ROLLOUTS in peers:
        documented = DOCUMENTED[ROLLOUTS]
        found["Argo Rollouts, documented"] = ArgoRollouts(*common("argo-d"), documented, "irate")
        found["Argo Rollouts, informed"] = ArgoRollouts(*common("argo-i"), INFORMED, "rate")
    return found


def played(scenario: Scenario, run: str, peers: Sequence[str]) -> list[Result]:
    """Everybody's results."""
    everybody = contenders(scenario, run, peers)
    try:
        together([lambda each=each: open_shop(each) for each in everybody.values()])
        together([each.release for each in everybody.values()])
        if not scenario.moves_on:
            together([lambda each=each: is_at_weight(each) for each in everybody.values()])
            time.sleep(STEADY_SECONDS)
        return watched(scenario, everybody)
    finally:
        together([each.shop.close for each in everybody.values()])


def together(acts: Sequence[Callable[[], Any]]) -> list[Any]:
    """All at once: what they return, or the first error."""
    with ThreadPoolExecutor(len(acts)) as pool:
        return [each.result() for each in [pool.submit(act) for act in acts]]


def open_shop(contender: Contender) -> None:
    """A namespace with stable and its users."""
    shop = contender.shop
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": shop.namespace}})
    contender.open()
    shop.load = Load.start(
        GATEWAY,
        host=shop.host,
        rate=RATE,
        seconds=3600,
        requests=1_000_000,
        directory=shop.records,
    )
    kube.wait_until(lambda: any(each.ok for each in shop.requests()), 30, "a first answer")


def is_at_weight(contender: Contender) -> None:
    """Wait until the candidate has its share of users."""
    what = f"{contender.shop.namespace} is at {WEIGHT} %"
    kube.wait_until(lambda: contender.weight() >= WEIGHT, BEGIN_SECONDS, what, every=1)


def watched(scenario: Scenario, everybody: Mapping[str, Contender]) -> list[Result]:
    """Let it happen, and wait until all have decided or the time is over."""
    counters = {name: ErrorCounter() for name in everybody}
    if not scenario.moves_on:
        for name, each in everybody.items():
            counters[name] = ErrorCounter([pod["status"]["podIP"] for pod in each.candidates()])
    begun = time.time()
    for each in everybody.values():
        for pod in each.candidates() if scenario.fault else []:
            each.shop.tell(pod, **scenario.fault)
    with away(scenario.blind_seconds):
        outcomes = decided(scenario, everybody, counters, begun)
    time.sleep(SETTLE_SECONDS)
    return [
        result(name, each.shop.requests(begun), outcomes[name], counters[name], begun)
        for name, each in everybody.items()
    ]


@contextmanager
def away(seconds: float) -> Iterator[None]:
    """Prometheus without a pod for so long, and back when the block ends."""
    if not seconds:
        yield
        return
    kube.kubectl("scale", "deployment/prometheus", "-n", "monitoring", "--replicas=0")
    try:
        yield
    finally:
        kube.kubectl("scale", "deployment/prometheus", "-n", "monitoring", "--replicas=1")
        kube.rollout_pods_are_ready("monitoring", "prometheus")


def decided(
    scenario: Scenario,
    everybody: Mapping[str, Contender],
    counters: Mapping[str, ErrorCounter],
    begun: float,
) -> dict[str, str]:
    """Everybody's outcome."""
    outcomes = dict.fromkeys(everybody, UNDECIDED)
    limit = scenario.blind_seconds or scenario.limit_seconds
    while UNDECIDED in outcomes.values() and time.time() < begun + limit:
        for name, each in everybody.items():
            if outcomes[name] == UNDECIDED:
                outcomes[name] = each.outcome()
            counters[name].read()
        time.sleep(0.5)
    return outcomes


class ErrorCounter:
    """How many errors pods have answered with since it was made: the pods are drained slowly enough for a last look."""

    def __init__(self, addresses: Sequence[str] = ()) -> None:
        self._latest = dict.fromkeys(addresses, 0.0)
        self.read()
        self._first = dict(self._latest)

    def read(self) -> None:
        for address in self._latest:
            url = f"http://{address}:{manifests.METRICS_PORT}/metrics"
            with contextlib.suppress(requests.RequestException):
                found = ANSWERED.search(requests.get(url, timeout=1).text)
                self._latest[address] = float(found[1]) if found else 0.0

    def total(self) -> int:
        self.read()
        return int(sum(self._latest.values()) - sum(self._first.values()))


def result(
    name: str, records: Sequence[Record], outcome: str, errors: ErrorCounter, begun: float
) -> Result:
    """From the records of users, and the candidate's own count where errors do not say whose they are."""
    its = [each for each in records if each.version == CANDIDATE]
    slow = sum(each.latency_seconds > SLOW_SECONDS for each in its)
    kept = outcome == UNDECIDED or not its
    return Result(
        contender=name,
        outcome=outcome,
        exposed_seconds=math.nan if kept else max(each.end for each in its) - begun,
        bad=errors.total() + slow,
        lost=sum(each.status not in {200, 500} for each in records),
    )
