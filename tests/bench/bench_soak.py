"""
What a process keeps of rollouts that are over: `python tests/bench/bench_soak.py [--rollouts 10000] [--seconds 180]`.

Simulated rollouts, one after the other through the operator's own passes, each of a ModelRollout
that is deleted in the end. What is the process' own is shared by all: drafts, the metrics, all caches. Printed as it goes: memory, objects, tasks, the length of `/metrics`; and in
the end what grows, over the second half, when all caches are full.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "operator")]

# ruff: noqa: E402
import yaml
from prometheus_client import generate_latest

from modelrollout.adapters.cluster import ROLLOUTS
from modelrollout.drafts import Drafts
from modelrollout.reconcile import reconcile
from modelrollout.simulation.loop import InstantLoop
from modelrollout.simulation.rollout import Simulation
from modelrollout.simulation.scenario import Scenario, scenario_of

EXAMPLES = ROOT / "examples"
BETWEEN = 50
"""Rollouts from one figure to the next."""
KIB = 1024
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What the process has after so many rollouts."""

    rollouts: int
    passes: int
    rss: int
    objects: int
    drafts: int
    page: int

    def __str__(self) -> str:
        return (
            f"{self.rollouts:6} rollouts {self.passes:9,} passes  RSS {self.rss // KIB:8,} KiB"
            f"  {self.objects:8,} objects  {self.drafts} drafts  /metrics {self.page:,} bytes"
        )


class Soak:
    """One process, as the operator's."""

    def __init__(self) -> None:
        self.drafts = Drafts()
        self.passes = 0
        world = yaml.safe_load((EXAMPLES / "WORLD.yaml").read_text())
        good, bad = world["stable"], world["stable"] | {"errorRate": 0.3}
        self._scenarios = [scenario_of(world | {"candidate": each}) for each in (bad, good)]
        self._manifest = yaml.safe_load((EXAMPLES / "ROLLOUT.yaml").read_text())
        step = {"minSeconds": 30, "maxSeconds": 120}
        self._manifest["spec"]["strategy"] = {
            "steps": [{"weight": each, **step} for each in (10, 50)],
            "bake": {"seconds": 30},
        }

    def run(self, number: int) -> None:
        """From its creation until after it was deleted."""
        manifest = {
            **self._manifest,
            "metadata": {"name": f"model-{number}", "namespace": f"team-{number % 50}"},
        }
        scenario: Scenario = self._scenarios[number % 2]
        simulation = Simulation(manifest, scenario, (0, number))
        world = replace(simulation._world, drafts=self.drafts)  # noqa: SLF001  # shared by all
        simulation._world = world  # noqa: SLF001
        simulation.run()
        self.passes += simulation.passes
        name, namespace = manifest["metadata"]["name"], manifest["metadata"]["namespace"]
        InstantLoop().run(simulation.store.delete(ROLLOUTS, namespace, name))
        InstantLoop().run(reconcile((namespace, name), world))

    def figures(self, rollouts: int) -> Figures:
        """Now, without what is garbage."""
        gc.collect()
        return Figures(
            rollouts=rollouts,
            passes=self.passes,
            rss=int(Path("/proc/self/statm").read_text().split()[1]) * PAGE,
            objects=len(gc.get_objects()),
            drafts=len(self.drafts._drafts),  # noqa: SLF001  # what would be kept
            page=len(generate_latest()),
        )


def slope(found: Sequence[Figures], name: str) -> tuple[float, float]:
    """By how much it grows with 1,000 rollouts, and the standard error of that."""
    points = [(each.rollouts / 1000, float(getattr(each, name))) for each in found]
    count = len(points)
    middle_x, middle_y = (sum(each) / count for each in zip(*points, strict=True))
    spread = sum((x - middle_x) ** 2 for x, _ in points)
    rise = sum((x - middle_x) * (y - middle_y) for x, y in points) / spread
    rests = sum((y - middle_y - rise * (x - middle_x)) ** 2 for x, y in points)
    return rise, (rests / max(1, count - 2) / spread) ** 0.5


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rollouts", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    logging.disable()
    soak, found, began = Soak(), [], time.monotonic()
    for number in range(chosen.rollouts):
        if number % BETWEEN == 0:
            found.append(soak.figures(number))
            print(found[-1], flush=True)
            if time.monotonic() - began > chosen.seconds:
                break
        soak.run(number)
    half = found[len(found) // 2 :]
    rows = {}
    for name in ("rss", "objects", "page"):
        if len(half) > 2:
            rise, error = slope(half, name)
            rows[name] = [rise, error]
            print(f"{name} grows by {rise:,.0f} (+- {2 * error:,.0f}) with 1,000 rollouts")
    if chosen.json:
        chosen.json.write_text(json.dumps(rows) + "\n")


if __name__ == "__main__":
    asyncio.set_event_loop(None)
    main()
