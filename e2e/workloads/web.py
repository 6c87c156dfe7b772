"""What the two small servers share: their metrics page and a run that ends without losing requests."""

import asyncio
import signal

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

# Longer than a gateway keeps an idle connection: otherwise the server closes one just when the
# gateway sends a request on it, and the user gets a 503 that is nobody's fault.
KEEP_ALIVE_SECONDS = 4000
DRAIN_SECONDS = 20


def metrics_page(registry: CollectorRegistry) -> web.RouteDef:
    """The route GET /metrics, in the format that Prometheus reads."""

    async def show(_: web.Request) -> web.Response:
        page = generate_latest(registry)
        return web.Response(body=page, headers={"Content-Type": CONTENT_TYPE_LATEST})

    return web.get("/metrics", show)


async def serve(applications: dict[int, web.Application]) -> None:
    """Serve each application on its port until SIGTERM; then answer what is under way and end."""
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    runners = [await started(application, port) for port, application in applications.items()]
    await stop.wait()
    for runner in runners:
        await runner.cleanup()


async def started(application: web.Application, port: int) -> web.AppRunner:
    runner = web.AppRunner(
        application,
        access_log=None,
        keepalive_timeout=KEEP_ALIVE_SECONDS,
        shutdown_timeout=DRAIN_SECONDS,
    )
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", port).start()
    return runner
