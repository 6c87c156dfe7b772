"""
Pure: the backendRefs of the two versions in the user's rule.

Each of our backendRefs carries a response header that names the version. It tells clients who
answered, and it makes Envoy Gateway keep one cluster, and so one set of metrics, per backendRef:
without a filter of their own all backends of a rule share one.
"""

from __future__ import annotations

from modelrollout.adapters.cluster import Object
from modelrollout.api import v1alpha1 as api
from modelrollout.core import shares
from modelrollout.core.plan import Backend, Traffic
from modelrollout.core.shares import Shares
from modelrollout.errors import RouterRefused

VERSION_HEADER = "x-model-version"


def refs_after_next_write(before: list[Object], traffic: Traffic, *, final: bool) -> list[Object]:
    """The rule's backendRefs, or (final) as they are to be in the end; foreign ones as they are."""
    mine = own_refs(before, traffic)
    if not mine:
        raise RouterRefused(
            f"the rule has no backendRef to Service {traffic.stable.service}: "
            "point it to the stable version first"
        )
    live = shares_of(mine)
    is_alone = len(mine) == len(before)
    target = target_of(live, traffic, is_alone=is_alone)
    # Beside other backends a trickle would be no trickle: there it goes in one write.
    wanted = target if final or not is_alone else shares.following(live, target)
    known = {each["name"]: each for each in mine}
    pair = [backend_ref(known.get(name), name, weight, traffic) for name, weight in wanted]
    first = next(position for position, each in enumerate(before) if each in mine)
    return [
        *[each for each in before[:first] if each not in mine],
        *pair,
        *[each for each in before[first:] if each not in mine],
    ]


def own_refs(refs: list[Object], traffic: Traffic) -> list[Object]:
    """Those that lead to a version of ours, of now or of before."""
    ours = {traffic.stable.service, *traffic.retired}
    if traffic.candidate is not None:
        ours.add(traffic.candidate.service)
    return [each for each in refs if _is_service(each) and each["name"] in ours]


def shares_of(refs: list[Object]) -> Shares:
    """The weights by place."""
    return [(each["name"], each.get("weight", 1)) for each in refs]


def target_of(live: Shares, traffic: Traffic, *, is_alone: bool) -> Shares:
    """The final weights. Beside other backends they add up to what they added up to before."""
    total = sum(weight for _, weight in live)
    stable = traffic.stable.service
    if traffic.candidate is None:
        stays = is_alone and len(live) == 1 and total > 0
        return [(stable, total if stays or not is_alone else 1)]
    candidate = traffic.candidate.service
    if is_alone:
        total = shares.WHOLE if traffic.weight == api.FULL_WEIGHT else api.FULL_WEIGHT
    if total * traffic.weight % api.FULL_WEIGHT:
        raise RouterRefused(
            f"the rule has other backends, and the weights of the two versions add up to {total}: "
            f"{traffic.weight} % of that is no whole number; make it a multiple of 100"
        )
    if total == 0:
        raise RouterRefused("the weights of the two versions add up to 0: give stable's a weight")
    weight = total * traffic.weight // api.FULL_WEIGHT
    if weight == total:
        # Weight 0 would take stable's cluster away at once, with requests on their way to it.
        weight -= shares.TRICKLE
    return [(stable, total - weight), (candidate, weight)]


def backend_ref(known: Object | None, service: str, weight: int, traffic: Traffic) -> Object:
    """A backendRef that names its version; what else the user gave it stays."""
    candidate = traffic.candidate.service if traffic.candidate else ""
    if known is not None and service not in {traffic.stable.service, candidate}:
        # On its way off the route: it still answers as who it is.
        return {**known, "weight": weight}
    base = known or {"group": "", "kind": "Service", "name": service, "port": traffic.port}
    filters = [each for each in base.get("filters", []) if not _is_our_filter(each)]
    if not any(_sets_response_headers(each) for each in filters):
        filters.append(_our_filter(_backend_of(service, traffic)))
    return {**base, "weight": weight, "filters": filters}


def _is_service(ref: Object) -> bool:
    return (
        ref.get("group", "") == ""
        and ref.get("kind", "Service") == "Service"
        and not ref.get("namespace")
    )


def _backend_of(service: str, traffic: Traffic) -> Backend:
    candidate = traffic.candidate
    return candidate if candidate and candidate.service == service else traffic.stable


def _our_filter(backend: Backend) -> Object:
    header = {"name": VERSION_HEADER, "value": backend.label}
    return {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [header]}}


def _sets_response_headers(entry: Object) -> bool:
    return bool(entry.get("type") == "ResponseHeaderModifier")


def _is_our_filter(entry: Object) -> bool:
    modifier = entry.get("responseHeaderModifier") or {}
    names = [header.get("name") for header in modifier.get("set", [])]
    is_only = not modifier.get("add") and not modifier.get("remove")
    return _sets_response_headers(entry) and names == [VERSION_HEADER] and is_only
