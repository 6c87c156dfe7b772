"""
One of the worlds by the whole operator: its own passes, on simulated scrapes, on a virtual clock.

The table is computed window by window, without Prometheus, routes and passes. Here they are, and
what comes out must be the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bench.decision_quality.measure import SEED, quantile
from bench.decision_quality.worlds import ALPHA
from modelrollout.simulation.rollout import Decision, simulate
from modelrollout.simulation.scenario import scenario_of

WORLD = "1 %, 2 times"
MANIFEST = {
    "metadata": {"name": "ranker", "namespace": "shop"},
    "spec": {
        "candidate": {"deployment": "ranker-v2"},
        "stable": {"deployment": "ranker-v1"},
        "port": 8080,
        "traffic": {"gatewayAPI": {"route": "ranker"}},
        "strategy": {"steps": [{"weight": 5, "maxSeconds": 7200}], "bake": {"seconds": 10}},
        "analysis": {
            "intervalSeconds": 5,
            "falseRollbackRate": str(ALPHA),
            "guardrails": [
                {
                    "name": "errors",
                    "preset": "envoy/errors",
                    "tolerance": {"ratio": "1", "absolute": "0"},
                    "margin": {"ratio": "1.01", "absolute": "0"},
                }
            ],
        },
    },
}
"""Nothing is tolerated, and what is to be proved is out of reach: only harm decides."""
SCENARIO = {
    "requestsPerSecond": 100,
    "stable": {"errorRate": 0.01},
    "candidate": {"errorRate": 0.02},
    "scrapeSeconds": 5,
}


@dataclass(frozen=True, kw_only=True)
class Whole:
    """What the operator did."""

    runs: int
    missed: float
    median: float
    p95: float


def by_the_operator(runs: int) -> Whole:
    """So many rollouts."""
    scenario = scenario_of(SCENARIO)
    results = [simulate(MANIFEST, scenario, (SEED, run)) for run in range(runs)]
    requests = np.array(
        [
            each.candidate_requests if each.decision is Decision.ROLLED_BACK else math.inf
            for each in results
        ]
    )
    return Whole(
        runs=runs,
        missed=float(np.isinf(requests).mean()),
        median=quantile(requests, 0.5),
        p95=quantile(requests, 0.95),
    )
