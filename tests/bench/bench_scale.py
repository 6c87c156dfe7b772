"""
How the operator grows with its fleet: `make bench-scale`.

A real kube-apiserver with etcd, a real Prometheus, and the operator as a process of its own on one
core; Deployments, endpoints and a gateway's answers are written by the bench, and one exporter has
the series of all. The figures are read from outside: from the kernel, from the operator's own
metrics, from those of the API server.

    python tests/bench/bench_scale.py [--sizes 100,300,1000,3000] [--loaded 1000] [--idle 5000]
        [--seconds 40] [--only growth,takeover,idle] [--json PATH] [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "operator")]

# ruff: noqa: E402
from bench.scale.fleet import LEASE_NAMESPACE, Client, Fleet, busy, path_of, take_up_routes
from bench.scale.processes import (
    MIB,
    Exporter,
    Operator,
    Sample,
    free_port,
    prometheus,
    quantile,
    samples,
    total,
)
from kube_apiserver import ApiServer, api_server
from modelrollout.adapters.cluster import LEASES, ROLLOUTS, Object

CALM_INTERVAL = 20
"""Seconds between two looks where growth is measured, so that the largest fleet fits on a core."""
INTERVAL = 5
MOST_SETTLE_SECONDS = 600.0
MOST_SECONDS = 120.0
"""Until rollouts are gone on with."""
WRITES = frozenset({"POST", "PUT", "PATCH", "APPLY", "DELETE"})
LATENESS = "modelrollout_late_seconds"

Row = dict[str, Any]


@dataclass
class Bench:
    """All that runs."""

    server: ApiServer
    client: Client
    fleet: Fleet
    exporter: Exporter
    prometheus: str
    folder: Path
    port: int
    rows: list[Row] = field(default_factory=list)

    def operator(self, identity: str = "operator-0", port: int | None = None) -> Operator:
        """One that is not started yet."""
        return Operator(
            self.folder, self.server, self.prometheus, identity=identity, port=port or self.port
        )

    def tell(self, what: str, **figures: float | str) -> None:
        """A row, as soon as it is known."""
        self.rows.append({"what": what, **figures})
        said = "  ".join(f"{name} {_shown(value)}" for name, value in figures.items())
        print(f"{what:34} {said}", flush=True)

    async def writes(self) -> float:
        """Of all objects by all, but Leases."""
        found = samples(await self.client.text("/metrics"), "apiserver_request_total")
        return sum(
            value
            for (_, labels), value in found.items()
            if (known := dict(labels))["verb"] in WRITES
            and known["resource"] not in {"leases", "apiservices"}
        )

    async def rollouts(self) -> list[Object]:
        """As they are stored."""
        return await self.client.pages(ROLLOUTS)


def _shown(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def is_settled(body: Object) -> bool:
    """On trial with evidence, or at rest."""
    status = body.get("status", {})
    is_busy = body["spec"]["candidate"] != body["spec"]["stable"]
    if not is_busy:
        return bool(status.get("phase")) and not status.get("candidate")
    counted = [each for each in status.get("guardrails", []) if each.get("candidate")]
    return bool(status.get("stepStartTime")) and len(counted) == len(
        body["spec"]["analysis"]["guardrails"]
    )


async def settle(bench: Bench, operator: Operator) -> float:
    """Seconds until every rollout is where it stays."""
    began = time.monotonic()
    while True:
        found = await bench.rollouts()
        missing = [each for each in found if not is_settled(each)]
        if len(found) == bench.fleet.size and not missing:
            return time.monotonic() - began
        if time.monotonic() - began > MOST_SETTLE_SECONDS:
            example = missing[0].get("status", {}).get("message") if missing else ""
            raise RuntimeError(f"{len(missing)} of {len(found)} do not settle: {example}")
        operator.sample_of_kernel()
        await asyncio.sleep(3)


async def reconciled(bench: Bench, operator: Operator) -> float:
    """Seconds from the start of a process until it has looked at all of them."""
    operator.seconds_to_ready()
    while total(operator.sample().metrics, "modelrollout_phase") < bench.fleet.size:
        if time.monotonic() - operator.started > MOST_SETTLE_SECONDS:
            raise RuntimeError("not all are looked at")
        await asyncio.sleep(1 + bench.fleet.size / 2000)
    return time.monotonic() - operator.started


async def watched(bench: Bench, operator: Operator, seconds: float) -> tuple[Sample, Sample, float]:
    """Two samples that far apart, and the writes between them."""
    before, wrote = operator.sample(), await bench.writes()
    await asyncio.sleep(seconds)
    after = operator.sample()
    return before, after, await bench.writes() - wrote


def figures_of(before: Sample, after: Sample, writes: float, on_trial: int) -> Row:
    """What a window of time says."""
    seconds = after.time - before.time
    passes = after.passes - before.passes
    return {
        "CPU cores": (after.cpu - before.cpu) / seconds,
        "RSS MiB": after.rss / MIB,
        "peak MiB": after.peak / MIB,
        "passes/s": passes / seconds,
        "CPU ms/pass": 1000 * (after.cpu - before.cpu) / max(1, passes),
        "late p50 s": quantile(before.metrics, after.metrics, LATENESS, 0.5),
        "late p95 s": quantile(before.metrics, after.metrics, LATENESS, 0.95),
        "late p99 s": quantile(before.metrics, after.metrics, LATENESS, 0.99),
        "writes/rollout/min": 60 * writes / seconds / max(1, on_trial),
        "threads": after.threads,
        "files": after.files,
    }


async def grow(bench: Bench, operator: Operator, size: int) -> None:
    """To a size, until it has settled."""
    began = time.monotonic()
    bench.exporter.serve(size)
    await bench.fleet.grow(size)
    made = time.monotonic() - began
    settled = await settle(bench, operator)
    bench.tell(f"{size:,} made", **{"s": made, "settled s": settled})


async def restart(bench: Bench, operator: Operator) -> None:
    """A new process, which finds everything as the one before left it."""
    operator.stop()
    await asyncio.sleep(1)
    operator.start()
    ready = operator.seconds_to_ready()
    start = await reconciled(bench, operator)
    now = operator.sample_of_kernel()
    bench.tell(
        f"{bench.fleet.size:,} start",
        **{
            "ready s": ready,
            "all looked at s": start,
            "CPU s": now.cpu,
            "peak MiB": now.peak / MIB,
        },
    )


async def growth(bench: Bench, operator: Operator, chosen: argparse.Namespace) -> None:
    """The same share on trial in each size, and the exponents."""
    found: list[tuple[int, Row]] = []
    seconds = chosen.seconds
    for size in chosen.sizes:
        await grow(bench, operator, size)
        await restart(bench, operator)
        await asyncio.sleep(CALM_INTERVAL)
        window = await watched(bench, operator, seconds)
        row = figures_of(*window, on_trial=len(busy(size)))
        bench.tell(f"{size:,} look every {CALM_INTERVAL} s", **row)
        found.append((size, row))
        if size == chosen.loaded:
            await load(bench, operator, seconds)
    if len(found) > 1:
        for name in ("CPU cores", "RSS MiB"):
            bench.tell(f"exponent of {name}", value=exponent([(n, row[name]) for n, row in found]))


def exponent(points: Sequence[tuple[float, float]]) -> float:
    """The slope of the logarithms: 1 is linear, below it less."""
    logs = [(math.log(x), math.log(y)) for x, y in points]
    middle_x, middle_y = (sum(each) / len(logs) for each in zip(*logs, strict=True))
    return sum((x - middle_x) * (y - middle_y) for x, y in logs) / sum(
        (x - middle_x) ** 2 for x, _ in logs
    )


async def load(bench: Bench, operator: Operator, seconds: float) -> None:
    """The bar: a fifth of them looked at every five seconds."""
    await bench.fleet.look_every(INTERVAL)
    await asyncio.sleep(30)
    window = await watched(bench, operator, max(60.0, seconds))
    on_trial = len(busy(bench.fleet.size))
    bench.tell(
        f"{bench.fleet.size:,} look every {INTERVAL} s",
        **figures_of(*window, on_trial=on_trial),
    )
    await bench.fleet.look_every(CALM_INTERVAL)


async def idle(bench: Bench, operator: Operator, size: int, seconds: float) -> None:
    """Nothing on trial."""
    await bench.fleet.grow(size, all_idle=True)
    await bench.fleet.rest()
    await settle(bench, operator)
    await restart(bench, operator)
    window = await watched(bench, operator, seconds)
    row = figures_of(*window, on_trial=size)
    bench.tell(f"{size:,} idle", **row)


async def take_over(bench: Bench, operator: Operator) -> None:
    """Killed: who goes on, and when."""
    other = bench.operator("operator-1", free_port())
    other.start()
    other.seconds_to_ready()
    await asyncio.sleep(4)
    try:
        first, last = await continued(bench, operator.kill)
        bench.tell("leader killed, standby goes on", **{"first s": first, "95 % s": last})
        first, last = await continued(bench, lambda: _at_once_anew(other))
        bench.tell("alone, killed and restarted", **{"first s": first, "95 % s": last})
    finally:
        other.stop()


def _at_once_anew(operator: Operator) -> None:
    operator.kill()
    operator.start()


async def lease(bench: Bench) -> tuple[str, str]:
    """Who holds it, and when that was said last."""
    path = path_of(LEASES, LEASE_NAMESPACE, "modelrollout-operator")
    spec = (await bench.client.ask("GET", path))["spec"]
    return spec.get("holderIdentity", ""), spec["renewTime"]


async def continued(bench: Bench, kill: Callable[[], None]) -> tuple[float, float]:
    """Seconds from a kill until the first, and until nearly all rollouts on trial were written again."""
    names = {each.name for each in busy(bench.fleet.size)}
    seen: dict[str, float] = {}
    kill()
    began, before = time.monotonic(), await lease(bench)
    while await lease(bench) == before and time.monotonic() - began < MOST_SECONDS:  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    changes = bench.client.changes(ROLLOUTS)
    async with asyncio.timeout(MOST_SECONDS):
        async for change in changes:
            name = change["object"]["metadata"]["name"]
            if name in names:
                seen.setdefault(name, time.monotonic() - began)
            if len(seen) >= 0.95 * len(names):
                break
    await changes.aclose()
    return min(seen.values()), max(seen.values())


@contextlib.asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Bench]:
    """Everything but the operator."""
    port = free_port()
    with (
        api_server(folder) as server,
        Exporter(folder).running() as exporter,
        prometheus(folder, exporter, port) as url,
    ):
        server.install_crds()
        client = Client(server)
        fleet = Fleet(client, CALM_INTERVAL)
        await fleet.found()
        gateway = asyncio.create_task(take_up_routes(client))
        try:
            yield Bench(
                server=server,
                client=client,
                fleet=fleet,
                exporter=exporter,
                prometheus=url,
                folder=folder,
                port=port,
            )
        finally:
            gateway.cancel()
            await client.close()


async def run(chosen: argparse.Namespace, folder: Path) -> list[Row]:
    """The parts that were asked for, one after the other."""
    async with running(folder) as bench:
        operator = bench.operator()
        operator.start()
        bench.tell("operator", **{"ready s": operator.seconds_to_ready()})
        try:
            if "growth" in chosen.only:
                await growth(bench, operator, chosen)
            if "takeover" in chosen.only:
                if not bench.fleet.size:
                    await grow(bench, operator, 100)
                await take_over(bench, operator)
                operator.start()
            if "idle" in chosen.only:
                await idle(bench, operator, chosen.idle, chosen.seconds)
        finally:
            operator.stop()
        return bench.rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    sizes = parser.add_argument(
        "--sizes", type=lambda text: [int(each) for each in text.split(",")]
    )
    sizes.default = [100, 300, 1000, 3000]
    parser.add_argument("--seconds", type=float, default=40.0)
    loaded = f"the size at which those on trial are looked at every {INTERVAL} s, too"
    parser.add_argument("--loaded", type=int, default=1000, help=loaded)
    parser.add_argument("--idle", type=int, default=5000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path, help="a folder for logs")
    parser.add_argument(
        "--only", type=lambda text: text.split(","), default=["growth", "takeover", "idle"]
    )
    chosen = parser.parse_args(arguments)
    with _folder(chosen.keep) as folder:
        rows = asyncio.run(run(chosen, folder))
    if chosen.json:
        chosen.json.write_text(json.dumps(rows, indent=1) + "\n")


@contextlib.contextmanager
def _folder(kept: Path | None) -> Iterator[Path]:
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept
        return
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


if __name__ == "__main__":
    main()
