"""What the gateways of a route are, and so in which way they can tell users apart."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from modelrollout.adapters.cluster import GATEWAY_CLASSES, GATEWAYS, Object, Resource
from modelrollout.adapters.routers.gateway_api import cookies
from modelrollout.api.traffic import Sticky, StickyBy
from modelrollout.core.plan import Traffic
from modelrollout.errors import NotFound, Refused

ENVOY_GATEWAY = "gateway.envoyproxy.io/gatewayclass-controller"
CAN_MATCH_COOKIES = frozenset(
    {
        ENVOY_GATEWAY,
        "istio.io/gateway-controller",
        "io.cilium/gateway-controller",
    }
)
"""
Who is known to match headers by regular expressions and to set response headers by backend.

Both are left to the implementation, and no feature of a GatewayClass tells. One that takes such a
match for a match of everything would send all users to the candidate: whoever is not known to be
able is not tried without the user's word.
"""


class Reader(Protocol):
    """What is read of the Kubernetes API: see adapters/cluster.py."""

    async def get(self, resource: Resource, namespace: str, name: str) -> Object:
        """One object, or NotFound."""

    async def list(
        self, resource: Resource, namespace: str | None = None, selector: str = ""
    ) -> list[Object]:
        """All objects of a namespace, or NotFound where the kind is not installed."""


async def features_of(cluster: Reader, route: Object) -> frozenset[str]:
    """What all gateways of the route support; empty if one does not tell, or must not be asked."""
    found = [
        frozenset(each["name"] for each in kind.get("status", {}).get("supportedFeatures") or [])
        for kind in await _classes_of(cluster, route)
    ]
    return frozenset.intersection(*found) if found and all(found) else frozenset()


async def controllers_of(cluster: Reader, route: Object) -> frozenset[str]:
    """Who carries out the route; empty if one of its gateways is not known, or must not be asked."""
    found = [
        str(kind.get("spec", {}).get("controllerName", ""))
        for kind in await _classes_of(cluster, route)
    ]
    return frozenset(found) if all(found) else frozenset()


async def _classes_of(cluster: Reader, route: Object) -> list[Object]:
    """The GatewayClass of each gateway of the route; an empty object for one that is not known."""
    here = route["metadata"]["namespace"]
    return [
        await _class_of(cluster, each.get("namespace") or here, each["name"])
        for each in route["spec"].get("parentRefs", [])
        if each.get("kind", "Gateway") == "Gateway"
    ]


async def _class_of(cluster: Reader, namespace: str, name: str) -> Object:
    try:
        gateway = await cluster.get(GATEWAYS, namespace, name)
        classes = await cluster.list(GATEWAY_CLASSES)
    except (NotFound, Refused):
        return {}
    kind = gateway["spec"]["gatewayClassName"]
    return next((each for each in classes if each["metadata"]["name"] == kind), {})


async def in_their_way(
    cluster: Reader, route: Object, rollout: str, traffic: Traffic
) -> tuple[Traffic, str]:
    """The traffic with users told apart in the way that the gateways have; or why they have none."""
    if traffic.sticky is None:
        return traffic, ""
    by, said = await _way_of(cluster, route, traffic.sticky)
    if by is not StickyBy.COOKIE:
        return traffic, said
    cookie = cookies.cookie_of(route["metadata"]["namespace"], rollout, traffic.salt)
    return replace(traffic, sticky=None, cookie=cookie), ""


async def _way_of(cluster: Reader, route: Object, sticky: Sticky) -> tuple[StickyBy, str]:
    """Where it cannot be known what a gateway is, it is taken for what was asked for."""
    if sticky.by is StickyBy.COOKIE:
        return StickyBy.COOKIE, ""
    others = await controllers_of(cluster, route) - {ENVOY_GATEWAY}
    if not others:
        return StickyBy.HASH, ""
    if sticky.by is None and sticky.cookie is not None and others <= CAN_MATCH_COOKIES:
        return StickyBy.COOKIE, ""
    return StickyBy.HASH, _no_way(sticky, others)


def _no_way(sticky: Sticky, others: frozenset[str]) -> str:
    asked = "traffic.sticky.by: Hash" if sticky.by else "traffic.sticky by a hash of the user's id"
    name = min(others - CAN_MATCH_COOKIES, default=min(others))
    able = (
        "if your clients keep cookies"
        if name in CAN_MATCH_COOKIES
        else "if it matches headers by regular expressions, sets response headers by backend, and "
        "your clients keep cookies"
    )
    return (
        f"{asked} needs Envoy Gateway, and a gateway of the HTTPRoute is of {name}: give "
        f"traffic.sticky.by: Cookie {able}, or leave out traffic.sticky"
    )
