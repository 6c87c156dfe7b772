"""
What a read costs: `python tests/bench/bench_reader.py`.

Two versions of 20 pods each, a histogram of 20 buckets, a sample each second; 60 s unread after
the look-back. The answers come over loopback from a server that only sends bytes.
"""

from __future__ import annotations

import asyncio
import json
import random
import resource
import statistics
import sys
import threading
import time
import tracemalloc
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

sys.path.insert(0, str(Path(__file__).parents[2] / "operator"))

from modelrollout.adapters.prometheus import Prometheus
from modelrollout.core.evidence import Grid, Kind, Matcher, Query, Selector, Series
from modelrollout.core.windows import Found, Samples, lookback_seconds, read

if TYPE_CHECKING:
    from collections.abc import Callable

START = 1_790_000_000.0
PODS = 20
BOUNDS = [*(0.001 * 1.6**index for index in range(19)), float("inf")]
UNREAD = 60
GRID = Grid(start=START - 600, width=1.0, watermark=START)
QUERY = Query(
    name="latency",
    kind=Kind.DISTRIBUTION,
    total=None,
    events=Selector(metric="latency_seconds"),
    stable=(Matcher(label="version", value="1"),),
    candidate=(Matcher(label="version", value="2"),),
    thresholds=tuple(BOUNDS[8:16]),
)
ROUNDS = 15


def answer(version: str) -> bytes:
    chance = random.Random(version)
    first = START - lookback_seconds(GRID)
    count = int(lookback_seconds(GRID)) + UNREAD
    result = []
    for pod in range(PODS):
        phase, values = chance.random(), [0] * len(BOUNDS)
        rows = []
        for _ in range(count):
            for _ in range(10):
                latency = chance.expovariate(20)
                values = [old + (latency <= at) for old, at in zip(values, BOUNDS, strict=True)]
            rows.append(values)
        for index, bound in enumerate(BOUNDS):
            metric = {
                "__name__": "latency_seconds_bucket",
                "le": "+Inf" if bound == BOUNDS[-1] else f"{bound:g}",
                "instance": f"10.0.{version}.{pod}:8080",
                "namespace": "shop",
                "pod": f"ranker-v{version}-7d9c5b8f4-{pod:05}",
            }
            samples = [
                [round(first + phase + second, 3), str(row[index])]
                for second, row in enumerate(rows)
            ]
            result.append({"metric": metric, "values": samples})
    body = {"status": "success", "data": {"resultType": "matrix", "result": result}}
    return json.dumps(body, separators=(",", ":")).encode()


ANSWERS = {version: answer(version) for version in ("1", "2")}
QUERY_BOUNDS = tuple(float(f"{each:g}") for each in QUERY.thresholds)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""

    def do_GET(self) -> None:
        asked = parse_qs(urlsplit(self.path).query)["query"][0]
        body = ANSWERS["1" if 'version="1"' in asked else "2"]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def found(version: str) -> Found:
    result = json.loads(ANSWERS[version])["data"]["result"]
    return Found(
        events=tuple(
            Series(
                labels=tuple(sorted(each["metric"].items())),
                times=tuple(at for at, _ in each["values"]),
                values=tuple(float(value) for _, value in each["values"]),
            )
            for each in result
        )
    )


def timed(what: str, run: Callable[[], object]) -> None:
    took = []
    for _ in range(ROUNDS):
        since = time.perf_counter()
        run()
        took.append(time.perf_counter() - since)
    print(f"{what:<44} {statistics.median(took) * 1000:7.0f} ms, worst {max(took) * 1000:.0f} ms")


def main() -> None:
    query = Query(
        **{name: getattr(QUERY, name) for name in QUERY.__slots__ if name != "thresholds"},
        thresholds=QUERY_BOUNDS,
    )
    now = START + UNREAD
    samples = Samples(stable=found("1"), candidate=found("2"), until=now)
    series = len(samples.stable.events) * 2
    size = sum(map(len, ANSWERS.values())) / 2**20
    print(
        f"{series} series, {series * len(samples.stable.events[0].times)} samples, {size:.1f} MiB"
    )
    windows = read(query, GRID, samples, now).windows
    print(f"{len(windows)} windows, {windows[0].stable}")
    timed("core.windows.read", lambda: read(query, GRID, samples, now))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    prometheus = Prometheus(f"http://127.0.0.1:{server.server_port}")

    def whole() -> None:
        asyncio.run(prometheus.read(query, GRID, now))

    timed("Prometheus.read, HTTP and parsing included", whole)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    whole()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(f"{'peak of one read':<44} {peak / 2**20:7.0f} MiB (process so far {before / 2**10:.0f})")
    prometheus.close()
    server.shutdown()


if __name__ == "__main__":
    main()
