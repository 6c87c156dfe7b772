"""
A world on a virtual clock that runs the operator's own passes: observe, decide, apply, look again.

Users, a gateway, a Prometheus and the API server's objects are simulated, with numpy's seeded
generator; `reconcile`, the router, the reader of counters and the statistics are the operator's.
The same seed and scenario give the same run, to the last request.

    python -m modelrollout.simulation.world --runs 50
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import itertools
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from statistics import median
from typing import Any

import numpy as np

from modelrollout.adapters.cluster import HTTP_ROUTES, ROLLOUTS, Object, Resource
from modelrollout.adapters.routers.gateway_api import GatewayAPIRouter
from modelrollout.reconcile import reconcile
from modelrollout.simulation.cluster import (
    CANDIDATE,
    NAME,
    NAMESPACE,
    PORT,
    STABLE,
    Gateway,
    Store,
    furnish,
)
from modelrollout.simulation.metrics import Prometheus, Traffic, Version
from modelrollout.world import World

BEGINNING = 1_800_000_000.0
LEAD_SECONDS = 70.0
"""Users are there before the ModelRollout is."""
ACCURACY = {
    "name": "accuracy",
    "proportion": {
        "events": {"metric": "predictions_wrong_total"},
        "total": {"metric": "predictions_judged_total"},
    },
    "versionLabel": "version",
}
GUARDRAILS = (
    {"name": "errors", "preset": "envoy/errors"},
    {"name": "latency", "preset": "envoy/latency"},
    ACCURACY,
)


class Decision(StrEnum):
    """How a rollout ended."""

    PROMOTED = "promoted"
    ROLLED_BACK = "rolledBack"
    UNDECIDED = "undecided"


class Crash(Exception):
    """The operator is gone, between two writes or after one."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What the world is like. Times are seconds, from the creation of the ModelRollout."""

    stable: Version = field(default_factory=Version)
    candidate: Version = field(default_factory=Version)
    requests_per_second: float = 200.0
    users_until: float = math.inf
    """When the last of them leaves."""
    gateway_pods: int = 2
    scrape_seconds: float = 1.0
    propagation_seconds: float = 0.2
    ingest_seconds: float = 0.02
    """From a scrape until a query finds it."""
    gaps: tuple[tuple[float, float], ...] = ()
    """From, to: Prometheus neither scrapes nor answers."""
    silences: tuple[tuple[float, float], ...] = ()
    """From, to: Prometheus scrapes, and nobody can ask it."""
    crash_share: float = 0.0
    """Chance that the operator dies right before, and again right after, each of its writes."""
    crash_from: float = 0.0
    restart_seconds: float = 0.5
    drift: float = 0.0
    """Both error rates swing by this share."""
    drift_seconds: float = 300.0
    steps: tuple[int, ...] = (5, 25, 50)
    step: dict[str, Any] = field(default_factory=dict)
    """What else each step says."""
    bake_seconds: int = 10
    analysis: dict[str, Any] = field(default_factory=dict)
    limit_seconds: float = 1800.0

    def spec(self) -> Object:
        """The ModelRollout's, as a user writes it."""
        return {
            "candidate": {"deployment": CANDIDATE},
            "stable": {"deployment": STABLE},
            "port": PORT,
            "traffic": {"gatewayAPI": {"route": NAME}},
            "strategy": {
                "steps": [{"weight": each, **self.step} for each in self.steps],
                "bake": {"seconds": self.bake_seconds},
            },
            "analysis": {"guardrails": list(GUARDRAILS), "intervalSeconds": 5} | self.analysis,
        }

    def demand(self, seconds: float) -> float:
        """Requests per second."""
        return self.requests_per_second if seconds < self.users_until else 0.0

    def base(self, seconds: float) -> float:
        """What the error rates are multiplied by."""
        return 1.0 + self.drift * math.sin(2 * math.pi * seconds / self.drift_seconds)


@dataclass(frozen=True, kw_only=True)
class Result:
    """One rollout, as it went."""

    decision: Decision
    seconds: float
    """Until the decision, or until nobody waited any longer."""
    candidate_requests: int
    """Until the decision."""
    bad_requests: int
    """Bad answers of the candidate, until it got no more requests."""
    reason: str
    passes: int


class Simulation:
    """One rollout in one world."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self.scenario = scenario
        self.now = BEGINNING - LEAD_SECONDS
        requests, scrapes, crashes = np.random.default_rng(seed).spawn(3)
        self._jitter, self._fate = scrapes, crashes
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._look_at = BEGINNING
        self.passes = 0
        self.crashes = 0
        self.shifts: list[tuple[float, bool]] = []
        """For each change of weights: the candidate's share then, and whether our finalizer was on."""
        self.traffic = Traffic(
            versions={STABLE: scenario.stable, CANDIDATE: scenario.candidate},
            demand=lambda now: scenario.demand(now - BEGINNING),
            pods=scenario.gateway_pods,
            base=lambda now: scenario.base(now - BEGINNING),
            generator=requests,
            now=self.now,
        )
        self.prometheus = Prometheus(
            self.traffic,
            ingest_seconds=scenario.ingest_seconds,
            is_away=lambda: self._is_within(scenario.gaps) or self._is_within(scenario.silences),
        )
        self.store = Store(clock=self.clock, disturb=self._disturb)
        furnish(self.store, scenario.spec())
        self._gateway = Gateway(
            self.store, scenario.propagation_seconds, later=self._later, shift=self._shift, seen=1
        )
        self.store.written = self._written
        self._world = World(
            cluster=self.store,
            metrics={"default": self.prometheus},
            router=GatewayAPIRouter(self.store, self.clock),
            clock=self.clock,
        )
        for target in range(self.prometheus.targets):
            phase = self._jitter.uniform(0, scenario.scrape_seconds)
            self._schedule_scrape(target, BEGINNING - LEAD_SECONDS + phase)

    def clock(self) -> float:
        """Unix seconds, virtual."""
        return self.now

    @property
    def rollout(self) -> Object:
        """The ModelRollout, as stored."""
        return self.store.live(ROLLOUTS, NAME)

    @property
    def status(self) -> Object:
        """Its status."""
        status: Object = self.rollout.get("status", {})
        return status

    def run(self) -> Result:
        """Until it is decided and everything is at rest again, or until the limit."""
        return asyncio.run(self._run())

    async def _run(self) -> Result:
        end = BEGINNING + self.scenario.limit_seconds
        decided: Result | None = None
        while self.now < end and (decided is None or self._look_at < math.inf):
            if self._agenda[0][0] <= self._look_at:
                self.now, _, act = heapq.heappop(self._agenda)
                act()
                continue
            self.now = self._look_at
            status = await self._look()
            if decided is None and decision_of(status) is not Decision.UNDECIDED:
                decided = self._result(status)
        decided = decided or self._result(self.status)
        if decided.decision is Decision.ROLLED_BACK:
            # Until the gateway had taken the candidate's traffic away.
            decided = replace(decided, bad_requests=self.traffic.count_of(CANDIDATE)[1])
        return decided

    async def _look(self) -> Object:
        """One pass, as the work queue would start it."""
        self.passes += 1
        self._look_at = math.inf
        try:
            done = await reconcile((NAMESPACE, NAME), self._world)
        except Crash:
            self.crashes += 1
            self._look_at = self.now + self.scenario.restart_seconds
        else:
            if done.look_again_seconds is not None:
                self._look_at = min(self._look_at, self.now + done.look_again_seconds)
        return self.status

    def candidate_share(self) -> float:
        """Of the requests, as the gateway has it."""
        shares = zip(self.traffic.services, self.traffic.shares, strict=False)
        return float(sum(share for service, share in shares if service == CANDIDATE))

    def _result(self, status: Object) -> Result:
        self.traffic.advance(self.now)
        requests, bad = self.traffic.count_of(CANDIDATE)
        return Result(
            decision=decision_of(status),
            seconds=self.now - BEGINNING,
            candidate_requests=requests,
            bad_requests=bad,
            reason=status.get("reason", ""),
            passes=self.passes,
        )

    # --- what happens without the operator --------------------------------------------------

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (self.now + seconds, next(self._order), act))

    def _schedule_scrape(self, target: int, due: float) -> None:
        def act() -> None:
            if not self._is_within(self.scenario.gaps):
                self.traffic.advance(self.now)
                self.prometheus.scrape(target, self.now)
            self._schedule_scrape(target, due + self.scenario.scrape_seconds)

        late = self._jitter.uniform(0, 0.005)
        heapq.heappush(self._agenda, (due + late, next(self._order), act))

    def _shift(self, weights: dict[str, int]) -> None:
        self.traffic.advance(self.now)
        self.traffic.shift(weights)
        has_finalizer = bool(self.rollout["metadata"].get("finalizers"))
        self.shifts.append((self.candidate_share(), has_finalizer))

    def _written(self, resource: Resource, body: Object) -> None:
        """A route that changes is a reason to look, as the watch has it."""
        if resource == HTTP_ROUTES:
            self._gateway.route_written(body)
            self._look_at = min(self._look_at, self.now + 0.01)

    def _is_within(self, spans: tuple[tuple[float, float], ...]) -> bool:
        return any(start <= self.now - BEGINNING < end for start, end in spans)

    def _disturb(self) -> None:
        is_due = self.now - BEGINNING >= self.scenario.crash_from
        if is_due and self._fate.random() < self.scenario.crash_share:
            raise Crash


def decision_of(status: Object) -> Decision:
    """What a stored status has decided."""
    if status.get("rejected"):
        return Decision.ROLLED_BACK
    is_promoted = status.get("stable", {}).get("deployment") == CANDIDATE
    return Decision.PROMOTED if is_promoted else Decision.UNDECIDED


def simulate(scenario: Scenario, seed: int) -> Result:
    """One rollout."""
    return Simulation(scenario, seed).run()


def simulated(scenario: Scenario, runs: int, seed: int = 0) -> list[Result]:
    """Many rollouts that differ by chance only."""
    return [simulate(scenario, seed + each) for each in range(runs)]


# --- figures ----------------------------------------------------------------------------------

SCENARIOS = {
    "equal": Scenario(),
    "errors 1 % -> 3 %": Scenario(candidate=Version(error_rate=0.03)),
    "5 % slower by 400 ms": Scenario(candidate=Version(slow_share=0.05)),
    "accuracy 97 % -> 85 %": Scenario(candidate=Version(accuracy=0.85)),
}


def summary(name: str, results: list[Result]) -> str:
    """One line of the table."""
    counts = Counter(each.decision for each in results)
    numbers = [
        *(counts[each] for each in Decision),
        *(
            median(getattr(each, field) for each in results)
            for field in ("seconds", "candidate_requests", "bad_requests")
        ),
    ]
    return f"{name:24}" + "".join(f"{each:12,.0f}" for each in numbers)


def _heading() -> str:
    columns = [*Decision, "seconds", "requests", "bad"]
    return f"{'medians of what follows':24}" + "".join(f"{each:>12}" for each in columns)


def _lines(runs: int, seed: int, only: str) -> Iterator[str]:
    yield _heading()
    for name, scenario in SCENARIOS.items():
        if only in name:
            began = time.process_time()
            line = summary(name, simulated(scenario, runs, seed))
            yield f"{line}   ({time.process_time() - began:.0f} s of CPU)"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Rollouts in simulated worlds.")
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="worlds whose name has this in it")
    chosen = parser.parse_args()
    for line in _lines(chosen.runs, chosen.seed, chosen.only):
        print(line, flush=True)  # noqa: T201  # a command that prints


if __name__ == "__main__":
    main()
