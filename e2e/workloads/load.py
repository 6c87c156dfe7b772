"""Send held-out digits to a model at a fixed rate, and write down what each user got.

Open loop: a request is sent when its time has come, whether or not earlier ones were answered, as
users do. Bounded: in requests, in seconds, and in where it sends, which is never a public address.
With --feedback, each prediction goes to the feedback exporter at once and its label some time later.

GET /stats on --stats-port shows the counts by version and status: in total, and of the last
?seconds=10 (at most 60).
"""

import argparse
import asyncio
import contextlib
import dataclasses
import ipaddress
import json
import random
import signal
import sys
import time
import uuid
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

from workloads import digits
from workloads.digits import Digits
from workloads.traffic import Record

FLUSH_SECONDS = 0.1
RECENT_SECONDS = 60.0
CLUSTER_SUFFIXES = (".svc", ".svc.cluster.local", "localhost")


@dataclass(frozen=True)
class Options:
    """What is asked for on the command line; `rate` is in requests per second."""

    url: str
    host: str
    rate: float
    arrivals: str
    seed: int
    seconds: float
    requests: int
    timeout_seconds: float
    users: int
    """So many users share the requests, each with a header x-user-id; 0: nobody says who it is."""
    header: tuple[str, ...] = ()
    """Of every request, as NAME:VALUE."""


class Counts:
    """Live counts of what was answered; a row is a version, a status and how often it was wrong."""

    def __init__(self) -> None:
        self.sent = 0
        self.ended = 0
        self.worst_lag_seconds = 0.0
        self.total: Counter[tuple[str, int, bool]] = Counter()
        self.recent: deque[tuple[float, tuple[str, int, bool]]] = deque()

    def add(self, record: Record) -> None:
        key = (record.version, record.status, record.correct is False)
        now = time.monotonic()
        self.ended += 1
        self.total[key] += 1
        self.recent.append((now, key))
        while self.recent[0][0] < now - RECENT_SECONDS:
            self.recent.popleft()

    def last(self, seconds: float) -> Counter[tuple[str, int, bool]]:
        since = time.monotonic() - min(seconds, RECENT_SECONDS)
        return Counter(key for moment, key in self.recent if moment >= since)

    def message(self, seconds: float) -> dict[str, Any]:
        return {
            "sent": self.sent,
            "inFlight": self.sent - self.ended,
            "worstLagSeconds": round(self.worst_lag_seconds, 4),
            "total": rows(self.total),
            "recentSeconds": min(seconds, RECENT_SECONDS),
            "recent": rows(self.last(seconds)),
        }


def rows(counter: Counter[tuple[str, int, bool]]) -> list[dict[str, Any]]:
    keys = sorted({(version, status) for version, status, _ in counter})
    return [
        {
            "version": version,
            "status": status,
            "count": counter[version, status, False] + counter[version, status, True],
            "wrong": counter[version, status, True],
        }
        for version, status in keys
    ]


class FeedbackSender:
    """Posts predictions and labels in batches; what the exporter does not take is lost, and counted."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        label_delay_seconds: float,
        comparator: str = "",
    ) -> None:
        """`comparator` gets the labels as well; while there is none, it gets none."""
        self.session = session
        self.url = url
        self.comparator = comparator
        self.label_delay_seconds = label_delay_seconds
        self.predictions: list[dict[str, Any]] = []
        self.labels: deque[tuple[float, dict[str, Any]]] = deque()
        self.lost = 0

    def add(self, record: Record, predicted: int, label: int) -> None:
        identity = record.id
        self.predictions.append({"id": identity, "version": record.version, "predicted": predicted})
        due = time.monotonic() + self.label_delay_seconds
        self.labels.append((due, {"id": identity, "label": label}))

    async def run(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await self.flush(time.monotonic())

    async def flush(self, until: float) -> None:
        """Post all predictions, and the labels that are due at `until`."""
        predictions, self.predictions = self.predictions, []
        await self.post("predictions", predictions)
        labels = []
        while self.labels and self.labels[0][0] <= until:
            labels.append(self.labels.popleft()[1])
        await self.post("labels", labels)
        if self.comparator and labels:
            known = [{"requestId": each["id"], "label": each["label"]} for each in labels]
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                await self.session.post(f"{self.comparator}/labels", json=known)

    async def post(self, kind: str, batch: list[dict[str, Any]]) -> None:
        if not batch:
            return
        try:
            async with self.session.post(f"{self.url}/{kind}", json=batch) as response:
                response.raise_for_status()
        except (aiohttp.ClientError, TimeoutError) as error:
            self.lost += len(batch)
            print(f"{len(batch)} {kind} lost: {error!r}", file=sys.stderr)


class LoadGenerator:
    def __init__(
        self,
        session: aiohttp.ClientSession,
        options: Options,
        data: Digits,
        take: Callable[[Record, int | None, int], None],
    ) -> None:
        """`take` is called at the end of each request, with the digits predicted and shown."""
        self.session = session
        self.options = options
        self.labels = data.labels
        self.bodies = [body_of(*pair) for pair in zip(data.pixels, data.labels, strict=True)]
        self.take = take
        self.counts = Counts()
        self.source = random.Random(options.seed)  # noqa: S311  it makes traffic
        self.prefix = uuid.uuid4().hex[:12]
        self.under_way: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Send until the bounds are met; cancel it to send no more. Then call `finish`."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        for due in self.moments():
            wait = began + due - loop.time()
            # Yields even when late, so that answers are read while the generator catches up.
            await asyncio.sleep(max(0.0, wait))
            lag = loop.time() - began - due
            self.counts.worst_lag_seconds = max(self.counts.worst_lag_seconds, lag)
            self.send(loop)

    async def finish(self) -> None:
        """Wait for the answers that are under way: each comes, or its time is up."""
        await asyncio.gather(*self.under_way)

    def moments(self) -> Iterator[float]:
        """When to send, in seconds from the start."""
        due = 0.0
        for _ in range(self.options.requests):
            even = self.options.arrivals == "even"
            due += 1 / self.options.rate if even else self.source.expovariate(self.options.rate)
            if due > self.options.seconds:
                return
            yield due

    def send(self, loop: asyncio.AbstractEventLoop) -> None:
        identity = f"{self.prefix}-{self.counts.sent}"
        self.counts.sent += 1
        task = loop.create_task(self.request(identity, self.source.randrange(len(self.labels))))
        self.under_way.add(task)
        task.add_done_callback(self.under_way.discard)

    async def request(self, identity: str, index: int) -> None:
        start, clock = time.time(), time.perf_counter()
        status, error, version, predicted = 0, "", "", None
        headers = {"Content-Type": "application/json", "x-request-id": identity}
        if self.options.host:
            headers["Host"] = self.options.host
        headers |= dict(each.split(":", 1) for each in self.options.header)
        user = f"user-{self.source.randrange(self.options.users)}" if self.options.users else ""
        if user:
            headers["x-user-id"] = user
        try:
            async with self.session.post(
                self.options.url, data=identified(self.bodies[index], identity), headers=headers
            ) as response:
                version = response.headers.get("x-model-version", "")
                answer = await response.read()
                status = response.status
            if status == 200:
                version, predicted = read_answer(answer, version)
        except (aiohttp.ClientError, TimeoutError, OSError) as failure:
            # Also when the answer breaks off after its status line: the user did not get it.
            status, error = 0, repr(failure)
        latency = round(time.perf_counter() - clock, 6)
        label = self.labels[index]
        correct = None if predicted is None else predicted == label
        record = Record(identity, start, latency, status, error, version, correct, user)
        self.counts.add(record)
        self.take(record, predicted, label)


def body_of(pixels: list[int], label: int) -> bytes:
    """A request of the Open Inference Protocol; the label is for servers that have no model."""
    tensor = {"name": "pixels", "shape": [1, len(pixels)], "datatype": "INT32", "data": pixels}
    return json.dumps({"inputs": [tensor], "parameters": {"digit": label}}).encode()


def identified(body: bytes, identity: str) -> bytes:
    """The request with its id, by which a label finds it: a gateway may give x-request-id anew."""
    return b'{"id": "' + identity.encode() + b'", ' + body[1:]


def read_answer(answer: bytes, version: str) -> tuple[str, int | None]:
    """The version that answered, unless a header told it already, and the digit it predicted."""
    try:
        message = json.loads(answer)
        return version or message["model_version"], int(message["outputs"][0]["data"][0])
    except (ValueError, KeyError, IndexError, TypeError):
        return version, None


def refuse_public_address(url: str) -> None:
    """Load is for servers of one's own: loopback, private addresses and names inside a cluster."""
    host = urlsplit(url).hostname or ""
    try:
        allowed = ipaddress.ip_address(host).is_private
    except ValueError:
        allowed = host.endswith(CLUSTER_SUFFIXES)
    if not allowed:
        raise SystemExit(f"{url} is not in a network of one's own: no load is sent there")


def stats_application(counts: Counts) -> web.Application:
    async def show(request: web.Request) -> web.Response:
        return web.json_response(counts.message(float(request.query.get("seconds", "10"))))

    application = web.Application()
    application.add_routes([web.get("/stats", show)])
    return application


async def wait_for_stop(*, until_stdin_closes: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    if until_stdin_closes:
        await loop.connect_read_pipe(lambda: WhenClosed(stop.set), sys.stdin)
    await stop.wait()


class WhenClosed(asyncio.Protocol):
    def __init__(self, call: Callable[[], None]) -> None:
        self.call = call

    def connection_lost(self, _: Exception | None) -> None:
        self.call()


async def first_of(*work: asyncio.Task[None]) -> None:
    """Wait until one has ended, end the others, and pass on what went wrong."""
    await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
    for task in work:
        task.cancel()
    for result in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(result, Exception):
            raise result


async def run(arguments: argparse.Namespace) -> None:
    names = {field.name for field in dataclasses.fields(Options)}
    options = Options(**{k: v for k, v in vars(arguments).items() if k in names})
    data = Digits.read(arguments.digits) if arguments.digits else digits.held_out()
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(session_for(options))
        comparator = arguments.comparator
        sender = FeedbackSender(session, arguments.feedback, arguments.label_delay, comparator)
        out = stack.enter_context(arguments.out.open("w", buffering=1))

        def take(record: Record, predicted: int | None, label: int) -> None:
            out.write(record.line())
            if arguments.feedback and predicted is not None:
                sender.add(record, predicted, label)

        generator = LoadGenerator(session, options, data, take)
        if arguments.stats_port:
            application = stats_application(generator.counts)
            stack.push_async_callback(await served(application, arguments.stats_port))
        await send_until_told(generator, sender, until_stdin_closes=arguments.until_stdin_closes)
    print(json.dumps(generator.counts.message(RECENT_SECONDS)))


def session_for(options: Options) -> aiohttp.ClientSession:
    # Without a limit: a request that waits for a connection would not be open loop.
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=options.timeout_seconds)
    return aiohttp.ClientSession(connector=connector, timeout=timeout)


async def served(application: web.Application, port: int) -> Callable[[], Awaitable[None]]:
    """Serve it, and return what ends that."""
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", port).start()
    return runner.cleanup


async def send_until_told(
    generator: LoadGenerator, sender: FeedbackSender, *, until_stdin_closes: bool
) -> None:
    posting = asyncio.create_task(sender.run())
    sending = asyncio.create_task(generator.run())
    stop = asyncio.create_task(wait_for_stop(until_stdin_closes=until_stdin_closes))
    await first_of(sending, stop)
    await generator.finish()
    posting.cancel()
    await asyncio.wait([posting])
    # At the end no label is waited for: what was predicted is judged.
    await sender.flush(float("inf"))


def parser() -> argparse.ArgumentParser:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = arguments.add_argument
    add("--url", required=True, help="where the gateway or the server is, without the model's path")
    add("--path", default="/v2/models/digits/infer")
    add("--host", default="", help="Host header")
    add("--rate", type=float, default=100.0, help="requests per second (at most 1000)")
    add("--arrivals", choices=["poisson", "even"], default="poisson")
    add("--seed", type=int, default=1, help="of the moments and of the order of the digits")
    add("--seconds", type=float, default=600.0, help="stop after so many (at most 3600)")
    add("--requests", type=int, default=200_000, help="stop after so many (at most 1000000)")
    add("--timeout", dest="timeout_seconds", type=float, default=10.0, help="seconds")
    add("--users", type=int, default=0, help="send x-user-id, of so many users (0: do not)")
    add("--header", action="append", default=[], help="NAME:VALUE of each request; repeatable")
    add("--feedback", default="", help="URL of the feedback exporter")
    add("--comparator", default="", help="URL of a comparator that gets the labels as well")
    add("--label-delay", type=float, default=2.0, help="seconds from a prediction to its label")
    add("--digits", type=Path, help="JSON file of workloads.digits; else from scikit-learn")
    add("--out", type=Path, default=Path("requests.jsonl"), help="one JSON object per request")
    add("--stats-port", type=int, default=0, help="serve GET /stats there (0: do not)")
    add("--until-stdin-closes", action="store_true", help="stop when standard input ends")
    return arguments


def main() -> None:
    arguments = parser().parse_args()
    for address in filter(None, (arguments.url, arguments.feedback, arguments.comparator)):
        refuse_public_address(address)
    if not (0 < arguments.rate <= 1000 and arguments.seconds <= 3600):
        raise SystemExit("at most 1000 requests a second, for at most 3600 seconds")
    arguments.requests = min(arguments.requests, 1_000_000)
    arguments.url = arguments.url.rstrip("/") + arguments.path
    asyncio.run(run(arguments))


if __name__ == "__main__":
    main()
