"""
What the comparator costs: `python tests/bench/bench_comparator.py`.

The real process, two servers and a load generator, each a process of its own, over loopback.
Its processor time per mirrored request says how many one core can take. It is measured in short bursts
in which hardly any was skipped: the best says what it needs, the median what other work on the machine
makes of that. Then the same rate for longer: a busy machine shows its back-pressure. Last, large bodies.
"""

from __future__ import annotations

import asyncio
import json
import math
import multiprocessing
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import uvloop
from aiohttp import ClientSession, TCPConnector, web

SMALL = 1000
LARGE = 2 * 1024 * 1024
RATE = 400
SECONDS = 12
BURSTS = 12
BURST = 200
ALMOST_ALL = 0.9
REST_SECONDS = 1.5
"""After which back-pressure is over, if there was any."""
PATH = "/v2/models/digits/infer"


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def request_of(identity: str, size: int) -> bytes:
    """An Open Inference request for ten digits' scores, about as large as asked."""
    generator = random.Random(identity)
    numbers = [round(generator.random(), 4) for _ in range(size // 8)]
    tensor = {"name": "x", "shape": [1, len(numbers)], "datatype": "FP32", "data": numbers}
    return json.dumps({"id": identity, "inputs": [tensor]}).encode()


def answer_of(size: int) -> bytes:
    scores = [0.01, 0.91, *[0.01] * 8]
    rest = {
        "name": "echo",
        "shape": [size // 8],
        "datatype": "FP32",
        "data": [0.1234] * (size // 8),
    }
    tensor = {"name": "scores", "shape": [1, 10], "datatype": "FP32", "data": scores}
    return json.dumps({"model_name": "digits", "outputs": [tensor, rest]}).encode()


def serve(port: int) -> None:
    """A server whose answers are as large as the requests."""
    answers = {size: answer_of(size) for size in (SMALL, LARGE)}

    async def handle(request: web.BaseRequest) -> web.Response:
        size = sum([len(chunk) async for chunk in request.content.iter_any()])
        body = answers[LARGE if size > LARGE // 2 else SMALL]
        return web.Response(body=body, content_type="application/json")

    async def forever() -> None:
        runner = web.ServerRunner(web.Server(handle, access_log=None))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        await asyncio.Event().wait()

    uvloop.run(forever())


def send(port: int, rate: float, count: int, size: int) -> None:
    """Send requests at a fixed rate, whatever happens to earlier ones."""

    async def all_of_them() -> None:
        url = f"http://127.0.0.1:{port}{PATH}"
        async with ClientSession(connector=TCPConnector(limit=0)) as session:

            async def one(index: int) -> None:
                body = request_of(f"{size}-{index}", size)
                headers = {"content-type": "application/json", "host": "digits.example-shadow"}
                async with session.post(url, data=body, headers=headers) as response:
                    assert response.status in {202, 503}, response.status

            began = time.monotonic()
            async with asyncio.TaskGroup() as group:
                for index in range(count):
                    await asyncio.sleep(max(0.0, began + index / rate - time.monotonic()))
                    group.create_task(one(index))

    uvloop.run(all_of_them())


def told(port: int) -> dict[str, float]:
    """All series of /metrics, and the sum of those of each name."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as response:
        lines = re.findall(r"^([a-z_]+)({.*})? (\S+)$", response.read().decode(), re.MULTILINE)
    found: dict[str, float] = {}
    for name, labels, value in lines:
        short = name.removeprefix("modelrollout_comparator_")
        for key in {short, f"{short}{labels}"}:
            found[key] = found.get(key, 0.0) + float(value)
    return found


def settled(port: int) -> dict[str, float]:
    while (found := told(port))["inflight"]:
        time.sleep(0.2)
    return found


def peak_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024


def run(share: str) -> None:
    stable, candidate, port, metrics = free_ports(4)
    config = {
        "namespace": "shop",
        "rollout": "digits",
        "stable": f"http://127.0.0.1:{stable}",
        "candidate": f"http://127.0.0.1:{candidate}",
        "stableVersion": "v1",
        "candidateVersion": "v2",
        "port": port,
        "metricsPort": metrics,
        "shadow": {
            "intent": "Equivalence",
            "idempotent": True,
            "paths": ["/v2/models"],
            "format": "OpenInference",
            "outputs": [
                {"name": "digit", "tensor": "scores", "label": {"by": "Argmax"}},
                {"name": "scores", "tensor": "scores", "probabilities": {"maxDifference": "0.01"}},
            ],
            "noiseFloor": {"share": share},
            "maxRequestsPerSecond": 10_000,
            "maxBodyBytes": 4 * 1024 * 1024,
        },
    }
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "config.json")
        file.write_text(json.dumps(config))
        servers = [
            multiprocessing.Process(target=serve, args=(each,), daemon=True)
            for each in (stable, candidate)
        ]
        for each in servers:
            each.start()
        command = [sys.executable, "-m", "modelrollout", "comparator", "--config", str(file)]
        comparator = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            measure(comparator.pid, port, metrics, share)
        finally:
            comparator.terminate()
            comparator.wait()
            for each in servers:
                each.terminate()


def measure(pid: int, port: int, metrics: int, share: str) -> None:
    while True:
        try:
            told(metrics)
            break
        except OSError:
            time.sleep(0.2)
    idle = peak_mib(pid)
    send(port, 100, 200, SMALL)
    print(f"stable asked again for {share} of the requests; {idle:.0f} MiB at rest")
    costs = []
    for _ in range(BURSTS):
        before, began = settled(metrics), processor_ms(pid)
        send(port, RATE, BURST, SMALL)
        grown = growth(before, settled(metrics))
        if grown["pairs"] >= ALMOST_ALL * BURST:
            costs.append((processor_ms(pid) - began) / grown["pairs"])
        time.sleep(REST_SECONDS)
    best, usual = (min(costs), statistics.median(costs)) if costs else (math.nan, math.nan)
    print(
        f"  1 kB, {len(costs)} bursts of {BURST}: {best:.2f} ms of processor each at best and"
        f" {usual:.2f} in the median: {1000 / best:.0f} and {1000 / usual:.0f} per second on one core"
    )
    before = settled(metrics)
    send(port, RATE, RATE * SECONDS, SMALL)
    grown = growth(before, settled(metrics))
    print(f"  1 kB at {RATE}/s: {said(grown)}; {peak_mib(pid):.0f} MiB at most")
    for rate, count in ((2, 10), (100, 30)):
        before = settled(metrics)
        send(port, rate, count, LARGE)
        grown = growth(before, settled(metrics))
        print(f"  2 MiB at {rate}/s: {said(grown)}; {peak_mib(pid):.0f} MiB at most")


def growth(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    names = ("received", "pairs", "skipped", "unpaired")
    return {name: after[f"{name}_total"] - before[f"{name}_total"] for name in names}


def said(grown: dict[str, float]) -> str:
    return ", ".join(f"{value:.0f} {name}" for name, value in grown.items())


def processor_ms(pid: int) -> float:
    """Of its first thread, which does all the work."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e6


if __name__ == "__main__":
    for noise in sys.argv[1:] or ("0.5", "1"):
        run(noise)
