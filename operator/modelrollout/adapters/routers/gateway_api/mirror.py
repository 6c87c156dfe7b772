"""
Pure: the RequestMirror filter of ours on the user's rule.

It is known by the Service that it copies to. A copy that cannot be delivered is dropped by the
proxy, and its answer is read by nobody: users notice neither. One thing they would notice: Envoy
Gateway answers 500 for the whole rule while the Service of a mirror does not exist. So the filter
is written only while the Service is there.
"""

from __future__ import annotations

from modelrollout.adapters.cluster import Object
from modelrollout.core.plan import Mirror

FEATURES = ("HTTPRouteRequestMirror", "HTTPRouteRequestPercentageMirror")
"""What a GatewayClass must support."""


def with_mirror(rule: Object, service: str, mirror: Mirror | None) -> Object:
    """The rule with our mirror to `service`, or without; the filters of the user's as they are."""
    before = rule.get("filters", [])
    wanted = [_filter_of(mirror)] if mirror is not None else []
    place = next((at for at, each in enumerate(before) if is_ours(each, service)), len(before))
    filters = [each for each in before if not is_ours(each, service)]
    filters[place:place] = wanted
    if filters == before:
        return rule
    return {**{key: value for key, value in rule.items() if key != "filters"}} | (
        {"filters": filters} if filters else {}
    )


def is_ours(entry: Object, service: str) -> bool:
    """Whether a filter copies requests to the comparator."""
    backend = (entry.get("requestMirror") or {}).get("backendRef", {})
    is_here = not backend.get("namespace") and backend.get("kind", "Service") == "Service"
    return bool(is_here and backend.get("name") == service)


def obstacle(rule: Object, service: str, features: frozenset[str]) -> str:
    """Why the rule cannot be mirrored; empty when it can. No known features are no news."""
    if any(_is_foreign(each, service) for each in rule.get("filters", [])):
        return (
            "the rule has a RequestMirror filter of its own, and not every gateway can copy a "
            "request twice: take it away while a mirror step runs, or leave the mirror steps out"
        )
    missing = [each for each in FEATURES if each not in features] if features else []
    if missing:
        return (
            f"the GatewayClass does not list {' and '.join(missing)} in status.supportedFeatures: "
            "leave the mirror steps out, or use a gateway that can mirror"
        )
    return ""


def _filter_of(mirror: Mirror) -> Object:
    backend = {"group": "", "kind": "Service", "name": mirror.service, "port": mirror.port}
    return {
        "type": "RequestMirror",
        "requestMirror": {"backendRef": backend, "percent": mirror.percent},
    }


def _is_foreign(entry: Object, service: str) -> bool:
    return entry.get("type") == "RequestMirror" and not is_ours(entry, service)
