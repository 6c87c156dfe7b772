"""
What users feel of a rollout: their latency without one, at a fixed weight, and while weights move.

    e2e/cluster/cluster enter env PYTHONPATH=e2e python e2e/bench_users_path.py [BLOCKS] [--shared]

Each block has a turn without a ModelRollout, one in which a rollout goes up by ten weights, each as
soon as the one before it is in force, and one in which it stays at the last of them, while the operator
looks each second. Then the ModelRollout is deleted. Ten blocks are a hundred moves.

Users, gateway and both versions have one processor, the rest of the cluster the other, as on two nodes;
--shared lets all of them run on both. The model waits for 20 ms, as one that computes on an accelerator
does.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import cores
import kube
import operator_chart
import turns
from shop import ROLLOUT, Shop
from turns import Turn

RATE = 200
BLOCKS = 10
WEIGHTS = range(11, 21)
"""Ten moves. Stable has two pods and the candidate one: near a third each pod has as much to do as before."""
TURN_SECONDS = 6
MODEL = {"LATENCY_MEDIAN_SECONDS": "0.02", "LATENCY_SIGMA": "0.1"}
NONE, MOVES, STEADY = "no rollout", "weights move", "fixed weight"


def main() -> int:
    """Print the figures; 1 when a user's request failed."""
    blocks, shared = turns.arguments(__doc__, BLOCKS)
    operator_chart.install()
    shop = Shop(f"bench-users-path-{turns.RUN}", Path("build", "load", "bench-users-path"))
    shop.open()
    try:
        stable = shop.deploy("v1", MODEL, replicas=2)
        candidate = shop.deploy("v2", MODEL)
        shop.route(stable)
        pods = [*shop.pods(stable), *shop.pods(candidate)]
        with cores.placed(*pods, shared=shared) as place:
            shop.users(rate=RATE, feedback="")
            place()
            found = [turn for block in range(blocks) for turn in taken(shop, candidate, block)]
            records = shop.requests()
    finally:
        shop.close()
    where = cores.SHARED if shared else cores.APART
    moves = blocks * len(WEIGHTS)
    print(f"{RATE} requests/s of users, {moves} moves of weight; {where}")
    name = "users-path-shared" if shared else "users-path"
    failed = turns.report(name, found, records, [(STEADY, NONE), (MOVES, NONE)], rate=RATE)
    return 1 if failed else 0


def taken(shop: Shop, candidate: str, block: int) -> list[Turn]:
    """One of each arm."""
    began = time.time()
    time.sleep(TURN_SECONDS)
    none = Turn(block=block, arm=NONE, start=began, end=time.time())
    began = time.time()
    kube.apply(rollout(shop, candidate))
    shop.weight_is(WEIGHTS[-1])
    moves = Turn(block=block, arm=MOVES, start=began, end=time.time())
    began = time.time()
    time.sleep(TURN_SECONDS)
    steady = Turn(block=block, arm=STEADY, start=began, end=time.time())
    kube.kubectl("delete", "modelrollout", ROLLOUT, "-n", shop.namespace)
    assert list(shop.backends()) == ["digits-v1"], "the route is back at rest"
    return [none, moves, steady]


def rollout(shop: Shop, candidate: str) -> kube.Manifest:
    """Up by one weight after the other, and to the last one to stay."""
    quick = {"minRequests": 0, "gate": "NoHarm"}
    steps = [{"weight": each} | quick for each in WEIGHTS[:-1]]
    steps.append({"weight": WEIGHTS[-1], "minSeconds": 600})
    return shop.rollout(candidate, strategy={"steps": steps})


if __name__ == "__main__":
    sys.exit(main())
