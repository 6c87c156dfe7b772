"""
Argo Rollouts and Flagger beside this operator, on the real cluster.

    make bench-peers [WHAT="burst double tail blind healthy idle"] [REPETITIONS=1] [PEERS=flagger]

README.md beside this file has how each is set up, where that is documented, and figures.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import kube
import operator_chart
from peers import controllers
from peers.contenders import PROMOTED, ROLLED_BACK, ArgoRollouts, Contender, Flagger, ModelRollout
from peers.scenarios import SCENARIOS, Result, Scenario, played

OBJECTS = 100
IDLE = "idle"
IDLE_SECONDS = 60
SETTLE_SECONDS = 15
RESULTS = Path("build", "peers", "results.json")
MIB = 2**20


@dataclass(frozen=True)
class Cost:
    """Of a controller with nothing and with many objects that have nothing to do."""

    contender: str
    empty_mib: float
    idle_mib: float
    idle_cores: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", default=[*SCENARIOS, IDLE], help="scenarios, or idle")
    parser.add_argument("--repetitions", type=int, default=1)
    parser.add_argument("--peer", action="append", choices=controllers.PEERS, default=[])
    options = parser.parse_args()
    unknown = set(options.what) - {*SCENARIOS, IDLE}
    if unknown:
        parser.error(f"there is no {', '.join(unknown)}: choose of {', '.join(SCENARIOS)}, {IDLE}")
    # Whoever ends the bench from outside gets the cluster back as it was, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    run = f"{int(time.time()) % 100_000:05}"
    operator_chart.install()
    found: dict[str, list[Result]] = {name: [] for name in options.what if name != IDLE}
    costs: list[Cost] = []
    with controllers.running(options.peer) as pids:
        if IDLE in options.what:
            costs = idle_costs(pids, run)
            keep(found, costs)
            print(told_costs(costs), flush=True)
        for name, results in found.items():
            for each in range(options.repetitions):
                results.extend(played(SCENARIOS[name], f"{name}-{run}-{each}", options.peer))
                keep(found, costs)
            print(told(SCENARIOS[name], results), flush=True)


def keep(found: Mapping[str, Sequence[Result]], costs: Sequence[Cost]) -> None:
    """Write down what there is so far."""
    body = {name: [asdict(each) for each in results] for name, results in found.items()}
    body[IDLE] = [asdict(each) for each in costs]
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(body, indent=1))


def told(scenario: Scenario, results: Sequence[Result]) -> str:
    """A scenario's table; medians where it was repeated."""
    lines = [f"\n{scenario.name}"]
    lines.append(
        f"{'':<26} {'rolled back':>11} {'promoted':>8} {'exposed s':>9} {'bad':>6} {'lost':>5}"
    )
    for name in dict.fromkeys(each.contender for each in results):
        its = [each for each in results if each.contender == name]
        back = sum(each.outcome == ROLLED_BACK for each in its)
        on = sum(each.outcome == PROMOTED for each in its)
        exposed = median([each.exposed_seconds for each in its])
        time_told = "-" if math.isnan(exposed) or scenario.moves_on else f"{exposed:.1f}"
        lines.append(
            f"{name:<26} {f'{back}/{len(its)}':>11} {f'{on}/{len(its)}':>8} {time_told:>9}"
            f" {median([each.bad for each in its]):>6.0f} {sum(each.lost for each in its):>5}"
        )
    return "\n".join(lines)


def median(values: Sequence[float]) -> float:
    """The lower one of two; what never ended is the longest."""
    ordered = sorted(values, key=lambda each: math.inf if math.isnan(each) else each)
    return ordered[(len(ordered) - 1) // 2]


def idle_costs(pids: Mapping[str, int], run: str) -> list[Cost]:
    """One tool after the other, each with objects of its own that are taken away again."""
    operator = kube.wait_until(leading_process, 60, "an operator that leads")
    kinds: dict[str, type[Contender]] = {
        controllers.FLAGGER: Flagger,
        controllers.ROLLOUTS: ArgoRollouts,
    }
    costs = [idle_cost("modelrollout", ModelRollout, operator, f"peers-{run}-idle")]
    for name, pid in pids.items():
        costs.append(idle_cost(name, kinds[name], pid, f"peers-{run}-idle-{name}"))
    return costs


def leading_process() -> int | None:
    """The operator that works; None while the Lease is still one's that was replaced."""
    leader = operator_chart.leader()
    if leader not in {each["metadata"]["name"] for each in operator_chart.pods()}:
        return None
    return operator_chart.process_of(leader)


def idle_cost(name: str, kind: type[Contender], pid: int, namespace: str) -> Cost:
    """Memory before, and memory and processor time with the objects."""
    empty = controllers.usage(pid)
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    try:
        kube.apply(*kind.idle(namespace, [f"idle-{each}" for each in range(OBJECTS)]))
        kube.wait_until(
            lambda: kind.are_idle(namespace) == OBJECTS, 180, f"{name} has all at rest", every=2
        )
        time.sleep(SETTLE_SECONDS)
        before = controllers.usage(pid)
        time.sleep(IDLE_SECONDS)
        after = controllers.usage(pid)
    finally:
        kube.kubectl("delete", kind.objects, "--all", "-n", namespace, "--timeout=60s")
        kube.kubectl("delete", "namespace", namespace, "--wait=false")
    return Cost(
        contender=name,
        empty_mib=empty.memory_bytes / MIB,
        idle_mib=after.memory_bytes / MIB,
        idle_cores=(after.processor_seconds - before.processor_seconds) / IDLE_SECONDS,
    )


def told_costs(costs: Sequence[Cost]) -> str:
    """The table of the controllers."""
    lines = [f"\n{'controller':<16} {'empty MiB':>9} {f'{OBJECTS} idle MiB':>12} {'core':>6}"]
    lines += [
        f"{each.contender:<16} {each.empty_mib:>9.0f} {each.idle_mib:>12.0f} {each.idle_cores:>6.3f}"
        for each in costs
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
