"""The stand-in for quality telemetry: joins predictions with the labels that arrive later.

    POST /predictions  [{"id": "a", "version": "v1", "predicted": 3}, ...]
    POST /labels       [{"id": "a", "label": 3}, ...]
    GET  /metrics      predictions_judged_total{version, digit}, predictions_wrong_total{...}

`digit` is the label: what the picture showed, whatever was predicted.

The two halves of a pair may come in either order. A half whose other half does not come within
TTL_SECONDS, or that is the oldest of more than CAPACITY, is dropped and counted.
"""

import asyncio
import os
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter

from workloads.web import metrics_page, serve

DIGITS = range(10)

Half = TypeVar("Half")


@dataclass(frozen=True)
class Prediction:
    version: str
    predicted: int


@dataclass
class Waiting(Generic[Half]):
    """Halves of pairs by id, oldest first: at most `capacity`, none older than `ttl_seconds`."""

    capacity: int
    ttl_seconds: float
    halves: "OrderedDict[str, tuple[float, Half]]" = field(default_factory=OrderedDict)

    def add(self, identity: str, half: Half, now: float) -> int:
        """How many were dropped to keep within the bounds; an id that waits already is kept."""
        self.halves.setdefault(identity, (now, half))
        dropped = 0
        while len(self.halves) > self.capacity or self.oldest_is_stale(now):
            self.halves.popitem(last=False)
            dropped += 1
        return dropped

    def oldest_is_stale(self, now: float) -> bool:
        oldest = next(iter(self.halves.values()), None)
        return oldest is not None and oldest[0] < now - self.ttl_seconds

    def take(self, identity: str) -> Half | None:
        found = self.halves.pop(identity, None)
        return None if found is None else found[1]


class Feedback:
    def __init__(self, capacity: int = 100_000, ttl_seconds: float = 600.0) -> None:
        self.predictions: Waiting[Prediction] = Waiting(capacity, ttl_seconds)
        self.labels: Waiting[int] = Waiting(capacity, ttl_seconds)
        self.registry = CollectorRegistry()
        by = ("version", "digit")
        self.judged = self.counter("predictions_judged", "Predictions whose label came.", *by)
        self.wrong = self.counter("predictions_wrong", "Judged predictions not right.", *by)
        self.dropped = self.counter("feedback_dropped", "Halves that found no other half.", "half")
        for half in ("prediction", "label"):
            self.dropped.labels(half)

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def predict(self, identity: str, prediction: Prediction, now: float) -> None:
        # All are born at zero when a version is first seen, so that no rise from zero is missed.
        for digit in DIGITS:
            self.judged.labels(prediction.version, digit)
            self.wrong.labels(prediction.version, digit)
        label = self.labels.take(identity)
        if label is None:
            dropped = self.predictions.add(identity, prediction, now)
            self.dropped.labels("prediction").inc(dropped)
        else:
            self.judge(prediction, label)

    def label(self, identity: str, label: int, now: float) -> None:
        prediction = self.predictions.take(identity)
        if prediction is None:
            self.dropped.labels("label").inc(self.labels.add(identity, label, now))
        else:
            self.judge(prediction, label)

    def judge(self, prediction: Prediction, label: int) -> None:
        self.judged.labels(prediction.version, label).inc()
        if prediction.predicted != label:
            self.wrong.labels(prediction.version, label).inc()

    async def take_predictions(self, request: web.Request) -> web.Response:
        batch = await batch_of(request, {"id": str, "version": str, "predicted": int})
        for row in batch:
            prediction = Prediction(row["version"], row["predicted"])
            self.predict(row["id"], prediction, time.monotonic())
        return web.Response(status=204)

    async def take_labels(self, request: web.Request) -> web.Response:
        for row in await batch_of(request, {"id": str, "label": int}):
            self.label(row["id"], row["label"], time.monotonic())
        return web.Response(status=204)

    def application(self) -> web.Application:
        application = web.Application(client_max_size=8 * 1024 * 1024)
        application.add_routes(
            [
                web.post("/predictions", self.take_predictions),
                web.post("/labels", self.take_labels),
                web.get("/ready", ready),
                metrics_page(self.registry),
            ]
        )
        return application


async def ready(_: web.Request) -> web.Response:
    return web.Response()


async def batch_of(request: web.Request, fields: Mapping[str, type]) -> list[dict[str, Any]]:
    """The rows of a batch; a batch with one bad row is refused whole, before any of it counts."""
    try:
        rows = await request.json()
    except ValueError as error:
        raise web.HTTPBadRequest(text=f"not JSON: {error}") from error
    if not isinstance(rows, list):
        raise web.HTTPBadRequest(text="a batch is a list")
    for row in rows:
        if not isinstance(row, dict) or any(type(row.get(n)) is not t for n, t in fields.items()):
            wanted = ", ".join(f"{name}: {kind.__name__}" for name, kind in fields.items())
            raise web.HTTPBadRequest(text=f"each row of a batch has {wanted}")
    return rows


async def run(environment: Mapping[str, str]) -> None:
    feedback = Feedback(
        capacity=int(environment.get("CAPACITY", "100000")),
        ttl_seconds=float(environment.get("TTL_SECONDS", "600")),
    )
    await serve({int(environment.get("HTTP_PORT", "8080")): feedback.application()})


if __name__ == "__main__":
    asyncio.run(run(os.environ))
