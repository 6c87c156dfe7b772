"""A manifest and a world to try it in: whole by default, changed by name."""

from __future__ import annotations

from typing import Any

from modelrollout.adapters.cluster import ROLLOUTS
from modelrollout.simulation.rollout import Simulation, simulate
from modelrollout.simulation.scenario import scenario_of

STABLE = "ranker-v1"
CANDIDATE = "ranker-v2"
ACCURACY = {
    "name": "accuracy",
    "proportion": {
        "events": {"metric": "predictions_wrong_total"},
        "total": {"metric": "predictions_judged_total"},
    },
    "versionLabel": "version",
}
ENVOY_ERRORS = {"name": "errors", "preset": "envoy/errors"}
LATENCY = {"name": "latency", "preset": "envoy/latency"}
POD_ERRORS = {"name": "errors", "preset": "mlserver/errors"}
POD_LATENCY = {"name": "latency", "preset": "mlserver/latency"}
VERSION = {
    "errorRate": 0.01,
    "latency": {"medianSeconds": 0.020, "p99Seconds": 0.064},
    "accuracy": 0.97,
}


def a_manifest(
    *guardrails: dict[str, Any],
    steps: tuple[int, ...] = (5, 25, 50),
    step: dict[str, Any] | None = None,
    bake: int = 10,
    **changes: Any,
) -> dict[str, Any]:
    """A ModelRollout as a user writes it; `changes` are of its spec, analysis is added to."""
    chosen = list(guardrails or (ENVOY_ERRORS, LATENCY, ACCURACY))
    analysis = {"guardrails": chosen, "intervalSeconds": 5} | changes.pop("analysis", {})
    spec = {
        "candidate": {"deployment": CANDIDATE},
        "stable": {"deployment": STABLE},
        "port": 8080,
        "traffic": {"gatewayAPI": {"route": "ranker"}},
        "strategy": {
            "steps": [{"weight": each, **(step or {})} for each in steps],
            "bake": {"seconds": bake},
        },
        "analysis": analysis,
    }
    return {"metadata": {"name": "ranker", "namespace": "shop"}, "spec": spec | changes}


def a_world(
    *,
    stable: dict[str, Any] | None = None,
    candidate: dict[str, Any] | None = None,
    **changes: Any,
):
    """A WORLD.yaml: two versions alike, 200 requests per second, a scrape each second."""
    given = {
        "requestsPerSecond": 200,
        "scrapeSeconds": 1,
        "stable": VERSION | (stable or {}),
        "candidate": VERSION | (candidate or {}),
    }
    return scenario_of(given | changes)


class Watched(Simulation):
    """A simulation that remembers each status that was stored, and when."""

    def __init__(self, manifest, world, seed):
        super().__init__(manifest, world, seed)
        self.statuses = []
        self.store.written.append(self._remember)

    def _remember(self, resource, body):
        if resource == ROLLOUTS and "status" in body:
            self.statuses.append((self.now, body["status"]))


def after(manifest, world, seed):
    """The simulation when it is over, and its result."""
    simulation = Watched(manifest, world, seed)
    return simulation, simulation.run()


def simulated(manifest, world, runs, seed=0):
    """Rollouts that differ by chance only."""
    return [simulate(manifest, world, (seed, each)) for each in range(runs)]
