"""The composition root: settings, adapters, leader election, kopf. Nothing else wires anything."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import signal
import sys
import time

import kopf

from modelrollout import __version__, settings, telemetry
from modelrollout.adapters.cluster import Cluster
from modelrollout.adapters.lease import lead
from modelrollout.adapters.prometheus import Prometheus
from modelrollout.adapters.routers.gateway_api import GatewayAPIRouter
from modelrollout.handlers import Shell
from modelrollout.settings import Settings
from modelrollout.world import World

LOG = logging.getLogger(__name__)


def main() -> int:
    """Parse the command line. The image runs `modelrollout operator`."""
    parser = argparse.ArgumentParser(prog="modelrollout", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    operator = commands.add_parser("operator", help="run the operator")
    operator.add_argument("--log-format", choices=["json", "full"], default="json")
    arguments = parser.parse_args()
    kopf.configure(log_format=kopf.LogFormat[arguments.log_format.upper()])
    # kopf tells of each event that it handed over; what we do with it is told by us.
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    try:
        chosen = settings.from_environment()
    except ValueError as error:
        sys.stderr.write(f"modelrollout: {error}\n")
        return 2
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_operate(chosen))
    # The Lease is lost, or the watch has ended: a new process starts from status.
    return 1


async def _operate(chosen: Settings) -> None:
    cluster = await Cluster.connect()
    probes = await telemetry.serve(chosen.port)
    world = World(
        cluster=cluster,
        metrics={
            name: Prometheus(
                each.url,
                timeout_seconds=each.timeout_seconds,
                headers=each.headers,
                bearer_token_file=each.bearer_token_file,
                ca_file=each.ca_file,
            )
            for name, each in chosen.providers.items()
        },
        router=GatewayAPIRouter(cluster, time.time),
        clock=time.time,
    )

    ended = asyncio.Event()
    # As process 1 of a container we get no default action for SIGTERM; kopf sets its own later.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)

    async def work() -> None:
        LOG.info("leads as %s", chosen.identity)
        telemetry.LEADER.set(1)
        try:
            await Shell(world, chosen).run()
        except Exception:
            LOG.exception("the watch has ended")
            raise
        finally:
            ended.set()

    leading = asyncio.create_task(
        lead(
            cluster,
            name=chosen.lease_name,
            namespace=chosen.lease_namespace,
            identity=chosen.identity,
            work=work,
        )
    )
    stopping = asyncio.create_task(ended.wait())
    try:
        await asyncio.wait({leading, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        leading.cancel()
        stopping.cancel()
        outcome, _ = await asyncio.gather(leading, stopping, return_exceptions=True)
        if isinstance(outcome, Exception):
            LOG.error("leader election failed", exc_info=outcome)
        await probes.cleanup()
        await cluster.close()


if __name__ == "__main__":
    sys.exit(main())
