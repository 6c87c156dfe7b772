"""
Where a Service leads, as the API server says it: no name server is asked.

What the operator asks of a Service, it asks from its own place in the network, which may reach
further than its user's. So a Service only leads to pods of its own namespace here: not to a name
elsewhere, and not to addresses that somebody wrote into an EndpointSlice.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from typing import Protocol

from aiohttp.abc import AbstractResolver, ResolveResult

from modelrollout.adapters.cluster import ENDPOINT_SLICES, PODS, SERVICES, Object, Resource
from modelrollout.errors import NotFound, RolloutError


class Reader(Protocol):
    """What is read of the Kubernetes API: see adapters/cluster.py."""

    async def get(self, resource: Resource, namespace: str, name: str) -> Object:
        """One object, or NotFound."""

    async def list(
        self, resource: Resource, namespace: str | None = None, selector: str = ""
    ) -> list[Object]:
        """All objects with the given labels."""


class ServiceResolver(AbstractResolver):
    """Resolves SERVICE.NAMESPACE.svc for an HTTP client; OSError says why it does not."""

    def __init__(self, cluster: Reader) -> None:
        self._cluster = cluster

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,  # noqa: ARG002  # all that there are
    ) -> list[ResolveResult]:
        """The addresses of the Service, or those of its pods where it is headless."""
        service, namespace, _ = host.split(".")
        try:
            addresses = await self._addresses(namespace, service)
        except NotFound as error:
            raise OSError(f"{host} is not known") from error
        except RolloutError as error:
            raise OSError(f"Service {service} cannot be looked at") from error
        if not addresses:
            raise OSError(f"Service {service} has no address")
        return [_resolved(host, port, each) for each in addresses]

    async def close(self) -> None:
        """Nothing is held."""

    async def _addresses(self, namespace: str, name: str) -> list[str]:
        service = await self._cluster.get(SERVICES, namespace, name)
        spec = service["spec"]
        selector = spec.get("selector") or {}
        if spec.get("type") == "ExternalName" or not selector:
            raise OSError(f"Service {name} does not lead to pods of its own namespace")
        by_service = f"kubernetes.io/service-name={name}"
        labels = ",".join(f"{key}={value}" for key, value in sorted(selector.items()))
        slices = await self._cluster.list(ENDPOINT_SLICES, namespace, by_service)
        pods = await self._cluster.list(PODS, namespace, labels)
        leads_to = {address for each in slices for address in _endpoints(each)}
        strangers = leads_to - {address for each in pods for address in _addresses_of(each)}
        if strangers:
            found = ", ".join(sorted(strangers)[:3])
            raise OSError(f"Service {name} leads to {found}, which no pod that it selects has")
        own = spec.get("clusterIPs") or [spec.get("clusterIP", "")]
        return [each for each in own if each not in {"", "None"}] or sorted(leads_to)


def _endpoints(found: Object) -> Iterable[str]:
    for each in found.get("endpoints") or []:
        yield from each.get("addresses") or []


def _addresses_of(pod: Object) -> Iterable[str]:
    for each in pod.get("status", {}).get("podIPs") or []:
        yield each["ip"]


def _resolved(host: str, port: int, address: str) -> ResolveResult:
    version = ipaddress.ip_address(address).version
    return ResolveResult(
        hostname=host,
        host=address,
        port=port,
        family=socket.AF_INET if version == 4 else socket.AF_INET6,  # noqa: PLR2004
        proto=0,
        flags=socket.AI_NUMERICHOST,
    )
