"""A model server that does as it is told: how often it fails, how long it takes, how often it errs.

It speaks the Open Inference Protocol v2 for one model, `digits`, on HTTP_PORT, and has no model: the
request says which digit it shows (`parameters.digit`), and the answer is that digit with probability
`accuracy`, else another one, with a confidence that has nothing to do with that. METRICS_PORT has
/metrics, and /control, where GET shows and PUT changes the behaviour while it runs.
`crashAfterSeconds` ends the process at once and without a goodbye.

The environment sets the behaviour at the start: ERROR_RATE, LATENCY_MEDIAN_SECONDS, LATENCY_SIGMA,
TAIL_SHARE, TAIL_SECONDS, ACCURACY, WEAK_DIGIT, WEAK_ACCURACY, CONFIDENCE, READY_DELAY_SECONDS,
CRASH_AFTER_SECONDS; MODEL_VERSION names the version, and SEED makes a run repeatable.
"""

import asyncio
import json
import math
import os
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Histogram, Summary

from workloads.web import metrics_page, serve

MODEL = "digits"
CLASSES = 10
CRASH_EXIT_CODE = 70
CONFIDENCE_CONCENTRATION = 20
"""Of the beta distribution: the larger, the nearer single confidences lie to their mean."""
BUCKETS_SECONDS = (
    *(0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075),
    *(0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0),
)


@dataclass(frozen=True)
class Behaviour:
    """Shares are from 0 to 1; the body of the latency is lognormal, confidence is beta-distributed.

    `weak_digit` has an accuracy of its own, `weak_accuracy`.
    """

    error_rate: float = 0.0
    latency_median_seconds: float = 0.002
    latency_sigma: float = 0.3
    tail_share: float = 0.0
    tail_seconds: float = 0.0
    accuracy: float = 0.97
    weak_digit: float | None = None
    weak_accuracy: float = 0.5
    confidence: float = 0.9
    ready_delay_seconds: float = 0.0
    crash_after_seconds: float | None = None

    def __post_init__(self) -> None:
        for name in ("error_rate", "tail_share", "accuracy", "weak_accuracy"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a share: from 0 to 1, not {getattr(self, name)}")
        for name, value in asdict(self).items():
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} is {value}, below zero or not finite")
        if self.latency_median_seconds == 0:
            raise ValueError("latency_median_seconds must be above zero")
        if self.weak_digit is not None and self.weak_digit not in range(CLASSES):
            raise ValueError(f"weak_digit is a digit, not {self.weak_digit}")
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence is a mean between 0 and 1, not {self.confidence}")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Behaviour":
        names = cls.__dataclass_fields__
        return cls(**{n: float(environment[n.upper()]) for n in names if n.upper() in environment})

    def changed(self, wish: Mapping[str, Any]) -> "Behaviour":
        """This behaviour with what a control message asks for; ValueError says what is wrong."""
        values: dict[str, float | None] = {}
        for key, value in flattened(wish).items():
            if key not in self.message():
                raise ValueError(f"{key} is not known; known are {', '.join(self.message())}")
            absent = value is None and key in {"crashAfterSeconds", "weakDigit"}
            if not absent and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise ValueError(f"{key} must be a number, not {value!r}")
            values[snake_case(key)] = value
        return replace(self, **values)  # type: ignore[arg-type]

    def message(self) -> dict[str, float | None]:
        return {camel_case(name): value for name, value in asdict(self).items()}

    def draw_latency_seconds(self, source: random.Random) -> float:
        body = source.lognormvariate(math.log(self.latency_median_seconds), self.latency_sigma)
        return body + (self.tail_seconds if source.random() < self.tail_share else 0.0)

    def draw_digit(self, truth: int, source: random.Random) -> int:
        accuracy = self.weak_accuracy if truth == self.weak_digit else self.accuracy
        if source.random() < accuracy:
            return truth
        return (truth + source.randrange(1, CLASSES)) % CLASSES

    def draw_confidence(self, source: random.Random) -> float:
        mean = self.confidence
        return source.betavariate(
            CONFIDENCE_CONCENTRATION * mean, CONFIDENCE_CONCENTRATION * (1 - mean)
        )


def flattened(wish: Mapping[str, Any]) -> dict[str, Any]:
    """`{"latencySeconds": {"median": m, "sigma": s}}` is the long form of two plain keys."""
    flat = {key: value for key, value in wish.items() if key != "latencySeconds"}
    for key, value in wish.get("latencySeconds", {}).items():
        flat[{"median": "latencyMedianSeconds", "sigma": "latencySigma"}.get(key, key)] = value
    return flat


def camel_case(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def snake_case(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name)


class ModelServer:
    def __init__(self, version: str, behaviour: Behaviour, source: random.Random) -> None:
        self.version = version
        self.source = source
        self.crash: asyncio.TimerHandle | None = None
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "model_requests", "Inference requests answered.", ["code"], registry=self.registry
        )
        # Born at zero, so that the first error is a rise and not a birth.
        for code in ("200", "500"):
            self.requests.labels(code)
        self.duration = Histogram(
            "model_request_duration_seconds",
            "Time to answer an inference request.",
            buckets=BUCKETS_SECONDS,
            registry=self.registry,
        )
        self.confidence = Summary(
            "model_confidence", "Confidence of the answers given.", registry=self.registry
        )
        self.behave(behaviour)

    def behave(self, behaviour: Behaviour) -> None:
        """Delays count from now: from the start of the process, or from the control message."""
        now = asyncio.get_running_loop().time()
        self.behaviour = behaviour
        self.ready_at = now + behaviour.ready_delay_seconds
        if self.crash is not None:
            self.crash.cancel()
        self.crash = None
        if behaviour.crash_after_seconds is not None:
            loop = asyncio.get_running_loop()
            self.crash = loop.call_later(behaviour.crash_after_seconds, os._exit, CRASH_EXIT_CODE)

    async def infer(self, request: web.Request) -> web.Response:
        began = asyncio.get_running_loop().time()
        response = await self.answer(request)
        self.requests.labels(str(response.status)).inc()
        self.duration.observe(asyncio.get_running_loop().time() - began)
        return response

    async def answer(self, request: web.Request) -> web.Response:
        try:
            message = await request.json()
            truth = int(message["parameters"]["digit"])
        except (ValueError, KeyError, TypeError):
            return refusal(400, "parameters.digit must say which digit the request shows")
        await asyncio.sleep(self.behaviour.draw_latency_seconds(self.source))
        if self.source.random() < self.behaviour.error_rate:
            return refusal(500, "injected fault")
        identity = message.get("id") or request.headers.get("x-request-id", "")
        return web.json_response(self.inference(identity, truth))

    def inference(self, identity: str, truth: int) -> dict[str, Any]:
        predicted = self.behaviour.draw_digit(truth, self.source)
        confidence = self.behaviour.draw_confidence(self.source)
        self.confidence.observe(confidence)
        return {
            "model_name": MODEL,
            "model_version": self.version,
            "id": identity,
            "outputs": [
                tensor("predict", "INT64", predicted),
                tensor("confidence", "FP64", confidence),
            ],
        }

    async def ready(self, _: web.Request) -> web.Response:
        is_ready = asyncio.get_running_loop().time() >= self.ready_at
        return web.Response(status=200 if is_ready else 503)

    async def live(self, _: web.Request) -> web.Response:
        return web.Response()

    async def show(self, _: web.Request) -> web.Response:
        return web.json_response(self.behaviour.message())

    async def control(self, request: web.Request) -> web.Response:
        try:
            behaviour = self.behaviour.changed(await request.json())
        except (ValueError, TypeError, AttributeError) as error:
            return refusal(400, str(error))
        self.behave(behaviour)
        return web.json_response(behaviour.message())

    def public(self) -> web.Application:
        application = web.Application()
        application.add_routes(
            [
                web.post(f"/v2/models/{MODEL}/infer", self.infer),
                web.get(f"/v2/models/{MODEL}/ready", self.ready),
                web.get("/v2/health/ready", self.ready),
                web.get("/v2/health/live", self.live),
            ]
        )
        return application

    def private(self) -> web.Application:
        """On a port of its own, which no Service exposes: users cannot reach the controls."""
        application = web.Application()
        application.add_routes(
            [
                metrics_page(self.registry),
                web.get("/control", self.show),
                web.put("/control", self.control),
            ]
        )
        return application


def tensor(name: str, datatype: str, value: float) -> dict[str, Any]:
    return {"name": name, "shape": [1, 1], "datatype": datatype, "data": [value]}


def refusal(status: int, sentence: str) -> web.Response:
    return web.Response(
        status=status, text=json.dumps({"error": sentence}), content_type="application/json"
    )


async def run(environment: Mapping[str, str]) -> None:
    server = ModelServer(
        environment.get("MODEL_VERSION", "v1"),
        Behaviour.from_environment(environment),
        random.Random(environment.get("SEED")),  # noqa: S311  it makes faults
    )
    http_port = int(environment.get("HTTP_PORT", "8080"))
    metrics_port = int(environment.get("METRICS_PORT", "8082"))
    await serve({http_port: server.public(), metrics_port: server.private()})


if __name__ == "__main__":
    asyncio.run(run(os.environ))
