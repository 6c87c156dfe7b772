"""The comparator's two ports, and its life from the start to SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
from typing import Any, Final

from aiohttp import ClientError, web
from aiohttp.web_protocol import RequestPayloadError
from prometheus_client import CONTENT_TYPE_LATEST, disable_created_metrics, generate_latest

from modelrollout.api.shadow import Shadow
from modelrollout.shadow.calls import Caller
from modelrollout.shadow.comparator import Arrived, Comparator
from modelrollout.shadow.comparisons import label_text
from modelrollout.shadow.labels import Answer as Label
from modelrollout.shadow.metrics import Loss
from modelrollout.shadow.settings import Settings
from modelrollout.shadow.throttle import Hold

LOG = logging.getLogger(__name__)
FINISH_SECONDS: Final = 5.0
"""For what is under way at the end; a pod has 30 s."""
REFUSALS: Final = {Loss.TOO_LARGE: 413, Loss.MEMORY: 503, Loss.TIMEOUT: 408, Loss.CANCELLED: 400}
"""Nobody reads them but who tries it by hand."""
LABELS_AT_ONCE: Final = 10_000
MOST_LABEL_BYTES: Final = 4 * 1024 * 1024


async def serve(settings: Settings) -> None:
    """Compare until SIGTERM or SIGINT."""
    disable_created_metrics()  # type: ignore[no-untyped-call]
    stopping = asyncio.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(each, stopping.set)
    shadow = settings.shadow
    async with Caller(
        timeout_seconds=shadow.timeout_seconds, max_body_bytes=shadow.max_body_bytes
    ) as caller:
        comparator = Comparator(settings, caller)
        mirror = await _mirror(comparator, settings)
        told = await _told(comparator, settings.metrics_port)
        LOG.info(
            "compares %s with %s for %s/%s on port %d",
            settings.candidate_version,
            settings.stable_version,
            settings.namespace,
            settings.rollout,
            settings.port,
        )
        await stopping.wait()
        # No new requests, and the last ones to their end; metrics until then.
        await mirror.cleanup()
        await comparator.finish(FINISH_SECONDS)
        await told.cleanup()


# --- mirrored requests ----------------------------------------------------------------------------


async def _mirror(comparator: Comparator, settings: Settings) -> web.ServerRunner:
    """Below aiohttp's routes and middlewares: there is one handler for all paths."""

    async def handle(request: web.BaseRequest) -> web.Response:
        return await _take(comparator, request, settings.shadow)

    # Bodies are passed on as they are, compressed ones too.
    server = web.Server(handle, access_log=None, auto_decompress=False)
    runner = web.ServerRunner(server, shutdown_timeout=FINISH_SECONDS)
    await runner.setup()
    await web.TCPSite(runner, port=settings.port, backlog=1024).start()
    return runner


async def _take(comparator: Comparator, request: web.BaseRequest, shadow: Shadow) -> web.Response:
    """
    Take a request in, and answer before anything is done with it.

    Its body has to be read first: a gateway that gets an answer earlier gives up sending.
    """
    if comparator.arrives(request.method, request.raw_path):
        hold = comparator.hold()
        try:
            body = await _body(request, shadow, hold)
        except asyncio.CancelledError:
            comparator.lose(Loss.CANCELLED, hold)
            raise
        if isinstance(body, Loss):
            comparator.lose(body, hold)
            return web.Response(status=REFUSALS[body])
        arrived = Arrived(
            method=request.method,
            path=request.raw_path,
            headers=tuple(request.headers.items()),
            body=body,
        )
        comparator.repeat(arrived, hold)
    return web.Response(status=202)


async def _body(request: web.BaseRequest, shadow: Shadow, hold: Hold) -> bytes | Loss:
    body = bytearray()
    try:
        async with asyncio.timeout(shadow.timeout_seconds):
            async for chunk in request.content.iter_any():
                if len(body) + len(chunk) > shadow.max_body_bytes:
                    return Loss.TOO_LARGE
                if not hold.take(len(chunk)):
                    return Loss.MEMORY
                body += chunk
    except TimeoutError:
        return Loss.TIMEOUT
    except (ClientError, ConnectionError, RequestPayloadError):
        return Loss.CANCELLED
    return bytes(body)


# --- what is told ---------------------------------------------------------------------------------


async def _told(comparator: Comparator, port: int) -> web.AppRunner:
    app = web.Application(client_max_size=MOST_LABEL_BYTES)

    async def metrics(_: web.Request) -> web.Response:
        content = CONTENT_TYPE_LATEST.split(";", maxsplit=1)[0]
        body = generate_latest(comparator.metrics.registry)
        return web.Response(body=body, content_type=content, charset="utf-8")

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def labels(request: web.Request) -> web.Response:
        try:
            found = _labels(await request.read())
        except ValueError as error:
            return web.Response(status=400, text=f"{error}\n")
        known = sum(comparator.learn(*each) for each in found)
        return web.json_response({"matched": known, "unknown": len(found) - known})

    app.add_routes(
        [
            web.get("/metrics", metrics),
            web.get("/healthz", healthz),
            web.post("/labels", labels),
        ]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, port=port).start()
    return runner


def _labels(body: bytes) -> list[tuple[str, Label]]:
    """One label or a list of them; ValueError says what is wrong."""
    given = None
    with contextlib.suppress(ValueError, RecursionError):
        given = json.loads(body)
    found = given if isinstance(given, list) else [given]
    if len(found) > LABELS_AT_ONCE:
        raise ValueError(f"send at most {LABELS_AT_ONCE} labels at once")
    return [_label(each) for each in found]


def _label(given: Any) -> tuple[str, Label]:
    if not isinstance(given, dict) or not isinstance(given.get("requestId"), str):
        raise ValueError(  # noqa: TRY004  # bad input, not a bad call
            'a label is {"requestId": "...", "label": ...}; a list of them may be sent'
        )
    label = given.get("label")
    labels = label if isinstance(label, list) else [label]
    if not labels or not all(isinstance(each, str | int | float) for each in labels):
        raise ValueError("label is a text or a number, or for a batch a list of them")
    return given["requestId"], tuple(map(label_text, labels))
