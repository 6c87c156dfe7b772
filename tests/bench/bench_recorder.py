"""
What recording costs a pass, and what a write and a page cost: `python tests/bench/bench_recorder.py`.

The passes are those of a simulated rollout with five guardrails, two of them distributions.
"""

from __future__ import annotations

import asyncio
import logging
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2] / "operator"))

import yaml

from modelrollout.adapters.recorder import Recorder
from modelrollout.core.trace import MAX_POINTS, Trace, decoded, encoded, joined
from modelrollout.core.tracing import described, followed
from modelrollout.errors import ClusterUnavailable
from modelrollout.report.page import page
from modelrollout.simulation.rollout import Simulation
from modelrollout.simulation.scenario import scenario_of

EXAMPLES = Path(__file__).parents[2] / "examples"
ROUNDS = 7
MORE = (
    {"name": "errors-too", "preset": "envoy/errors"},
    {"name": "tail", "preset": "envoy/latency"},
)

Passes = list[tuple[Any, Any, Any]]


class Tape:
    """What a recorder is given."""

    def __init__(self) -> None:
        self.passes: Passes = []

    def record(self, *given: Any) -> None:
        """One pass."""
        self.passes.append(given)


class Away:
    """No API server: what is measured is the pass alone."""

    async def get(self, *_: Any) -> Any:
        """Never an answer."""
        raise ClusterUnavailable("away")

    create = patch = get


def passes() -> Passes:
    """A healthy candidate that takes an hour."""
    manifest, world = (
        yaml.safe_load((EXAMPLES / each).read_text()) for each in ("ROLLOUT.yaml", "WORLD.yaml")
    )
    manifest["spec"]["analysis"]["guardrails"] += MORE
    manifest["spec"]["strategy"]["steps"] = [
        {"weight": each, "minSeconds": 1200, "maxSeconds": 3600} for each in (5, 25, 50)
    ]
    world["candidate"]["errorRate"] = world["stable"]["errorRate"]
    tape = Tape()
    Simulation(manifest, scenario_of(world), 7, tape).run()
    return tape.passes


async def record(given: Passes) -> list[float]:
    """Microseconds of each pass."""
    recorder, taken = Recorder(Away()), []
    for each in given:
        start = time.thread_time()
        recorder.record(*each)
        taken.append(1e6 * (time.thread_time() - start))
        await recorder.settle()
    return taken


def whole(given: Passes) -> Trace:
    """All of it."""
    trace: Trace | None = None
    for each in given:
        if trace is None or trace.ended is None:
            (trace, *_) = followed(trace, *each, MAX_POINTS)
            trace = described(trace, *each)
    assert trace is not None
    return trace


def milliseconds(act: Any) -> float:
    """The best of some."""
    found = []
    for _ in range(ROUNDS):
        start = time.thread_time()
        act()
        found.append(1e3 * (time.thread_time() - start))
    return min(found)


def main() -> None:
    """Print the figures, in CPU time: a busy machine changes them little."""
    logging.disable()
    given = [each for each in passes() if each[0].status.candidate or each[2].status.candidate]
    rounds = [asyncio.run(record(given)) for _ in range(ROUNDS)]
    best = min(rounds, key=statistics.fmean)
    print(
        f"record: {statistics.fmean(best):.0f} us a pass (median {statistics.median(best):.0f},"
        f" of {len(given)} passes)"
    )
    trace = whole(given)
    data = encoded(trace)
    print(
        f"trace: {len(trace.points)} points of {len(trace.guardrails)} guardrails, {len(data):,} bytes"
    )
    write = milliseconds(lambda: encoded(joined(decoded(data), trace)))
    print(f"write: {write:.1f} ms to read it, add to it and pack it")
    print(f"page: {milliseconds(lambda: page(trace)) / 1e3:.1f} s, {len(page(trace)):,} bytes")


if __name__ == "__main__":
    main()
