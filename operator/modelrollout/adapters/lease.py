"""
Leader election by a Lease, with the client's own election code.

One of two replicas works; the other takes over when the Lease has not been renewed for its
duration. Whoever loses the Lease ends its process: what it had in hand is in status.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import aiohttp
from kubernetes.aio import client
from kubernetes.aio.leaderelection.electionconfig import Config
from kubernetes.aio.leaderelection.leaderelection import LeaderElection
from kubernetes.aio.leaderelection.resourcelock.leaselock import LeaseLock

from modelrollout.adapters.cluster import Cluster

LEASE_SECONDS = 10
RENEW_SECONDS = 7
RETRY_SECONDS = 2
"""Take-over: at most a lease and a retry after the last renewal, 12 s; at once after a release."""


class _PatientLease(LeaseLock):  # type: ignore[misc]  # the client is not typed
    """
    The client's lock, mended in two places.

    It lets network errors through, which would end a leader at a short blip; and its `create`
    passes `pretty=True` where the generated client of versions 36 and 37 takes a string only.
    """

    async def get(self, name: str, namespace: str) -> Any:
        try:
            return await asyncio.wait_for(super().get(name, namespace), RETRY_SECONDS)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return False, client.ApiException(status=0, reason=repr(error))

    async def update(self, name: str, namespace: str, updated_record: Any) -> bool:
        return await self._within(super().update(name, namespace, updated_record))

    async def create(self, name: str, namespace: str, election_record: Any) -> bool:
        lease = client.V1Lease(
            metadata=client.V1ObjectMeta(name=name), spec=self.update_lease(election_record)
        )
        return await self._within(self._create(namespace, lease))

    async def _create(self, namespace: str, lease: Any) -> bool:
        try:
            await self.api_instance.create_namespaced_lease(namespace, lease)
        except client.ApiException:
            return False
        return True

    async def release(self) -> None:
        """Give the Lease back: a standby takes it at its next look, without waiting for its end."""
        held = await self.get(self.name, self.namespace)
        if held[0] and held[1].holder_identity == self.identity and self.lease_reference:
            self.lease_reference.spec.holder_identity = None
            lease = self.api_instance.replace_namespaced_lease(
                self.name, self.namespace, self.lease_reference
            )
            with contextlib.suppress(client.ApiException, aiohttp.ClientError, TimeoutError):
                await asyncio.wait_for(lease, RETRY_SECONDS)

    @staticmethod
    async def _within(write: Awaitable[bool]) -> bool:
        try:
            return await asyncio.wait_for(write, RETRY_SECONDS)
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False


async def lead(
    cluster: Cluster,
    *,
    name: str,
    namespace: str,
    identity: str,
    work: Callable[[], Coroutine[Any, Any, None]],
) -> None:
    """Wait for the Lease, work while it is held, return when it is lost; when cancelled, give it back."""
    lock = _PatientLease(name, namespace, identity, cluster.api_client)

    async def lost() -> None:
        """The process ends after this: nothing to clean up."""

    election = LeaderElection(
        Config(
            lock,
            lease_duration=LEASE_SECONDS,
            renew_deadline=RENEW_SECONDS,
            retry_period=RETRY_SECONDS,
            onstarted_leading=work,
            onstopped_leading=lost,
        )
    )
    try:
        await election.run()
    except asyncio.CancelledError:
        await lock.release()
        raise
