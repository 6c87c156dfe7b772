"""
What a simulated rollout costs: `python tests/bench/bench_simulate.py`.

The example's manifest with steps that last two hours, at 100 requests per second, equal versions,
a look every 5 s; on one core, and then 200 runs on all cores as `modelrollout simulate` makes them.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import yaml

from modelrollout.simulation.rollout import simulate
from modelrollout.simulation.scenario import scenario_of
from modelrollout.simulation.summary import results_of

EXAMPLES = Path(__file__).parents[2] / "examples"
ONE_CORE_RUNS = 3
RUNS = 200
MOST_SECONDS = 120.0
"""For all runs, on two cores."""


def two_hours() -> dict:
    manifest = yaml.safe_load((EXAMPLES / "ROLLOUT.yaml").read_text())
    for step in manifest["spec"]["strategy"]["steps"]:
        step["minSeconds"] = step["maxSeconds"]
    return manifest


def main() -> int:
    manifest = two_hours()
    world = yaml.safe_load((EXAMPLES / "WORLD.yaml").read_text())
    scenario = scenario_of(world | {"candidate": world["stable"]})
    for run in range(ONE_CORE_RUNS):
        began = time.process_time()
        result = simulate(manifest, scenario, (0, run))
        seconds = time.process_time() - began
        print(
            f"{result.decision.value} after {result.rollout_seconds:,.0f} s: {seconds:.2f} s of CPU,"
            f" {result.passes} passes, {1000 * seconds / result.passes:.2f} ms each"
        )
    if "--quick" in sys.argv:
        return 0
    began, jobs = time.perf_counter(), os.cpu_count() or 1
    list(results_of(manifest, scenario, runs=RUNS, seed=0, jobs=jobs))
    seconds = time.perf_counter() - began
    print(f"{RUNS} runs on {jobs} cores: {seconds:.0f} s (at most {MOST_SECONDS:.0f} on 2)")
    return 0 if seconds <= MOST_SECONDS else 1


if __name__ == "__main__":
    sys.exit(main())
