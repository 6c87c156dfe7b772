"""The composition root: settings, adapters, leader election, kopf. Nothing else wires anything."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
import time

import click
import kopf

from modelrollout import settings, telemetry
from modelrollout.adapters.checks import HttpChecker
from modelrollout.adapters.cluster import Cluster
from modelrollout.adapters.comparator import Comparators, NoComparators
from modelrollout.adapters.lease import lead
from modelrollout.adapters.notify import Notifier
from modelrollout.adapters.prometheus import Prometheus
from modelrollout.adapters.recorder import Recorder
from modelrollout.adapters.routers.gateway_api import GatewayAPIRouter
from modelrollout.adapters.services import ServiceResolver
from modelrollout.handlers import Shell
from modelrollout.settings import Settings
from modelrollout.world import World

LOG = logging.getLogger(__name__)


@click.command()
@click.option(
    "--log-format", type=click.Choice(["json", "full"]), default="json", show_default=True
)
@click.option(
    "--shard-selector",
    metavar="SELECTOR",
    help="Only ModelRollouts with these labels, as in kubectl: modelrollout.dev/shard=a."
    " In the place of MODELROLLOUT_SHARD_SELECTOR.",
)
def operator(log_format: str, shard_selector: str | None) -> None:
    """Run the operator. Its settings are MODELROLLOUT_* variables."""
    kopf.configure(log_format=kopf.LogFormat[log_format.upper()])
    # kopf tells of each event that it handed over; what we do with it is told by us.
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    telemetry.write_audit_trail()
    try:
        chosen = settings.from_environment(shard_selector=shard_selector)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_operate(chosen))
    # The Lease is lost, or the watch has ended: a new process starts from status.
    sys.exit(1)


async def _operate(chosen: Settings) -> None:
    cluster = await Cluster.connect()
    probes = await telemetry.serve(chosen.port)
    notifiers = [Notifier(name, each) for name, each in chosen.webhooks.items()]
    recorder = Recorder(cluster) if chosen.keeps_traces else None
    world = World(
        cluster=cluster,
        metrics={
            name: Prometheus(
                each.url,
                timeout_seconds=each.timeout_seconds,
                headers=each.headers,
                parameters=each.parameters,
                gateway_labels=each.gateway_labels,
                bearer_token_file=each.bearer_token_file,
                ca_file=each.ca_file,
            )
            for name, each in chosen.providers.items()
        },
        router=GatewayAPIRouter(cluster, time.time),
        comparators=Comparators(cluster, chosen.image, chosen.image_pull_policy)
        if chosen.runs_comparators
        else NoComparators(),
        checker=HttpChecker(ServiceResolver(cluster)),
        clock=time.time,
        shard=chosen.shard,
        listeners=notifiers,
        recorder=recorder,
    )

    leader = telemetry.LEADER.labels(chosen.shard.text)
    ended = asyncio.Event()
    # As process 1 of a container we get no default action for SIGTERM; kopf sets its own later.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)

    async def work() -> None:
        LOG.info("leads as %s%s", chosen.identity, _of_shard(chosen))
        leader.set(1)
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
        await asyncio.gather(*(each.close() for each in notifiers))
        if recorder is not None:
            await recorder.close()
        await probes.cleanup()
        await cluster.close()


def _of_shard(chosen: Settings) -> str:
    return f", for ModelRollouts with {chosen.shard.text}" if chosen.shard.text else ""
