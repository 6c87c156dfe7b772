"""
What users feel of a mirror: their latency with it and without it, in short turns, in one run.

    e2e/cluster/cluster enter env PYTHONPATH=e2e python e2e/bench_mirror.py [BLOCKS] [--shared]

One rollout whose steps are mirror, pause, mirror, pause ...: the operator itself switches it on and
off. In each pause there is a turn in which nothing happens, and a control: the same requests at the
same rate go to the comparator directly, past the gateway. So on / off is what users feel of it all,
on / control is the gateway's part, and control / off that of the calls that stable answers besides,
and of a processor next door that is busy.

Users, gateway and stable have one processor; candidate, comparator and the rest of the cluster the
other, as on two nodes. --shared lets all of them run on both. The model waits for 20 ms, as one that
computes on an accelerator does, and takes little processor itself.
"""

from __future__ import annotations

import contextlib
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from itertools import count
from pathlib import Path

import requests

import cores
import kube
import operator_chart
import turns
from shop import Shop
from turns import Turn
from workloads import digits
from workloads.load import body_of, identified

RATE = 200
MIRROR = 25
"""Per cent of the users' requests."""
BLOCKS = 14
"""A strategy has at most 30 steps, and the last pause must have a mirror behind it."""
TURN_SECONDS = 6
EVERY_SECONDS = 0.5
"""Between two looks at the rollout."""
MODEL = {"LATENCY_MEDIAN_SECONDS": "0.02", "LATENCY_SIGMA": "0.1"}
FAILURES = {"name": "failures", "preset": "comparator/errors"}
SHADOW = {
    "intent": "Change",
    "idempotent": True,
    "paths": ["/v2/models"],
    "format": "OpenInference",
    "outputs": [{"name": "digit", "tensor": "predict", "label": {}}],
    # Five times the rate that is mirrored: it begins with a fifth of it.
    "maxRequestsPerSecond": 5 * RATE * MIRROR // 100,
}
OFF, ON, CONTROL = "off", "on", "control"


def main() -> int:
    """Print the figures; 1 when a user's request failed."""
    blocks, shared = turns.arguments(__doc__, BLOCKS)
    operator_chart.install()
    shop = Shop(f"bench-mirror-{turns.RUN}", Path("build", "load", "bench-mirror"))
    shop.open()
    try:
        stable = shop.deploy("v1", MODEL, replicas=2)
        candidate = shop.deploy("v2", MODEL)
        shop.route(stable)
        with cores.placed(*shop.pods(stable), shared=shared) as place:
            shop.users(rate=RATE, feedback="")
            kube.apply(rollout(shop, candidate, blocks))
            look = Look(shop, place)
            found = [turn for block in range(blocks) for turn in taken(look, block)]
            compared = counters(shop)
            records = shop.requests()
    finally:
        shop.close()
    where = cores.SHARED if shared else cores.APART
    print(f"{RATE} requests/s of users, {MIRROR} % of them mirrored; {where}")
    print("comparator: " + ", ".join(f"{value:,.0f} {key}" for key, value in compared.items()))
    pairs = [(ON, OFF), (ON, CONTROL), (CONTROL, OFF)]
    name = "mirror-shared" if shared else "mirror"
    return 1 if turns.report(name, found, records, pairs, rate=RATE, comparator=compared) else 0


def rollout(shop: Shop, candidate: str, blocks: int) -> kube.Manifest:
    """A mirror and a pause of twice its time for each block, and a last mirror that nobody waits for."""
    mirror = {"mirror": MIRROR, "minSeconds": TURN_SECONDS, "minRequests": 0, "gate": "NoHarm"}
    steps = [mirror, {"pauseSeconds": 2 * TURN_SECONDS}] * blocks + [{"mirror": MIRROR}]
    strategy = {"type": "Shadow", "steps": steps}
    return shop.rollout(candidate, shadow=SHADOW, strategy=strategy, guardrails=[FAILURES])


class Look:
    """Looks at the rollout, and at where its pods run, until something is so."""

    def __init__(self, shop: Shop, place: Callable[[], None]) -> None:
        self.shop = shop
        self._place = place

    def until(self, reached: Callable[[kube.Manifest], bool], what: str) -> float:
        """When it was seen."""

        def seen() -> bool:
            self._place()
            return reached(self.shop.status())

        kube.wait_until(seen, 60 + 4 * TURN_SECONDS, what, every=EVERY_SECONDS)
        return time.time()


def taken(look: Look, block: int) -> Iterator[Turn]:
    """A mirror's turn as the operator makes it, and two in the pause behind it."""
    step = 2 * block + 1
    began = look.until(lambda status: is_in(status, step), f"mirror {block + 1}")
    yield Turn(block=block, arm=ON, start=began, end=began + TURN_SECONDS - EVERY_SECONDS)
    began = look.until(lambda status: is_in(status, step + 1), f"pause {block + 1}")
    # The other way round in every second block: what comes last is not always the same.
    for place, arm in enumerate((OFF, CONTROL) if block % 2 else (CONTROL, OFF)):
        start = began + place * (TURN_SECONDS - EVERY_SECONDS)
        end = start + TURN_SECONDS - 2 * EVERY_SECONDS
        with copies(look.shop) if arm is CONTROL else contextlib.nullcontext():
            time.sleep(max(0.0, end - time.time()))
        yield Turn(block=block, arm=arm, start=start, end=end)


def is_in(status: kube.Manifest, step: int) -> bool:
    """Whether a step, from 1, has begun."""
    return bool(status.get("stepStartTime")) and status["step"] + 1 == step


@contextlib.contextmanager
def copies(shop: Shop) -> Iterator[None]:
    """As many requests to the comparator as the gateway would copy, by a thread at the back."""
    ended = threading.Event()
    thread = threading.Thread(target=send, args=(shop, ended))
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@cache
def bodies() -> list[bytes]:
    """What users send."""
    data = digits.held_out()
    return [body_of(*pair) for pair in zip(data.pixels, data.labels, strict=True)]


def send(shop: Shop, ended: threading.Event) -> None:
    """Open loop, at random moments, as users do."""
    source = random.Random(time.time_ns())  # noqa: S311  it makes traffic
    url = f"http://digits-comparator.{shop.namespace}.svc.cluster.local:8080"
    due = time.monotonic()
    with requests.Session() as session:
        for number in count():
            due += source.expovariate(RATE * MIRROR / 100)
            if ended.wait(max(0.0, due - time.monotonic())):
                return
            identity = f"copy-{source.getrandbits(48):x}-{number}"
            body = identified(source.choice(bodies()), identity)
            headers = {"Content-Type": "application/json", "x-request-id": identity}
            path = f"{url}/v2/models/digits/infer"
            session.post(path, data=body, headers=headers, timeout=5).raise_for_status()


def counters(shop: Shop) -> dict[str, float]:
    """What became of the copies, as the comparator itself says."""
    url = f"http://digits-comparator.{shop.namespace}.svc.cluster.local:9090/metrics"
    found = {"received": 0.0, "skipped": 0.0, "unpaired": 0.0, "pairs": 0.0}
    for line in requests.get(url, timeout=5).text.splitlines():
        name = line.removeprefix("modelrollout_comparator_").split("_total")[0]
        if name in found and not line.startswith("#"):
            found[name] += float(line.rsplit(" ", 1)[1])
    return found


if __name__ == "__main__":
    sys.exit(main())
