"""
Pure: the backendRefs of the two versions in the user's rule.

Each of our backendRefs carries a response header that names the version. It tells clients who
answered, and it makes Envoy Gateway keep one cluster, and so one set of metrics, per backendRef:
without a filter of their own all backends of a rule share one. Where users get a cookie for their
bucket, stable has a backendRef for each bucket, and the same filter sets the cookie.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from modelrollout.adapters.cluster import Object
from modelrollout.adapters.routers.gateway_api import cookies
from modelrollout.api import v1alpha1 as api
from modelrollout.core import shares
from modelrollout.core.plan import Backend, Traffic
from modelrollout.core.shares import Shares
from modelrollout.errors import RouterRefused

VERSION_HEADER = "x-model-version"
NUMBER = "#"
"""In no Service's name."""


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
    known = dict(zip(_keys(each["name"] for each in mine), mine, strict=True))
    given = _set_cookies(wanted, target, traffic)
    own = []
    for key, weight in wanted:
        service = _service_of(key)
        base = known.get(key) or known.get(service)
        own.append(backend_ref(base, service, weight, traffic, given.get(key)))
    first = next(position for position, each in enumerate(before) if each in mine)
    return [
        *[each for each in before[:first] if each not in mine],
        *own,
        *[each for each in before[first:] if each not in mine],
    ]


def own_refs(refs: list[Object], traffic: Traffic) -> list[Object]:
    """Those that lead to a version of ours, of now or of before."""
    ours = {traffic.stable.service, *traffic.retired}
    if traffic.candidate is not None:
        ours.add(traffic.candidate.service)
    return [each for each in refs if _is_service(each) and each["name"] in ours]


def shares_of(refs: list[Object]) -> Shares:
    """The weights by place; a Service's places after its first one are told apart by number."""
    keys = _keys(each["name"] for each in refs)
    return [(key, each.get("weight", 1)) for key, each in zip(keys, refs, strict=True)]


def _keys(services: Iterable[str]) -> list[str]:
    seen: Counter[str] = Counter()
    keys = []
    for each in services:
        seen[each] += 1
        keys.append(_key(each, seen[each]))
    return keys


def _key(service: str, number: int) -> str:
    return service if number == 1 else f"{service}{NUMBER}{number}"


def _service_of(key: str) -> str:
    return key.partition(NUMBER)[0]


def target_of(live: Shares, traffic: Traffic, *, is_alone: bool) -> Shares:
    """The final weights. Beside other backends they add up to what they added up to before."""
    total = sum(weight for _, weight in live)
    stable = traffic.stable.service
    if traffic.candidate is None:
        stays = is_alone and len(live) == 1 and total > 0
        return [(stable, total if stays or not is_alone else 1)]
    candidate = traffic.candidate.service
    if traffic.cookie is not None:
        last, *others = cookies.buckets_of(traffic)[1]
        more = [(_key(stable, place), each.size) for place, each in enumerate(others, 2)]
        # The bucket that joins the candidate next is the last in the list: no other place moves.
        return [(stable, last.size), (candidate, traffic.weight), *more]
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


def _set_cookies(wanted: Shares, target: Shares, traffic: Traffic) -> dict[str, str]:
    """
    What backendRefs set, by place; those on their way off the route set nothing.

    No bucket is given before each is given as often as it is large: while places are warmed,
    users would all get the same one.
    """
    if traffic.cookie is None or not shares.is_spread_as(wanted, target):
        return {}
    candidates, (last, *others) = cookies.buckets_of(traffic)
    keys = [key for key, _ in target]
    return {
        key: cookies.set_cookie(traffic.cookie, bucket)
        for key, bucket in zip(keys, [last, candidates, *others], strict=True)
    }


def backend_ref(
    known: Object | None, service: str, weight: int, traffic: Traffic, cookie: str | None = None
) -> Object:
    """A backendRef that names its version, and sets a cookie; what else the user gave it stays."""
    candidate = traffic.candidate.service if traffic.candidate else ""
    if known is not None and service not in {traffic.stable.service, candidate}:
        # On its way off the route: it still answers as who it is.
        return _without_cookie({**known, "weight": weight})
    base = known or {"group": "", "kind": "Service", "name": service, "port": traffic.port}
    filters = [each for each in base.get("filters", []) if not is_our_filter(each)]
    if not any(_sets_response_headers(each) for each in filters):
        filters.append(_our_filter(_backend_of(service, traffic), cookie))
    return {**base, "weight": weight, "filters": filters}


def cookie_of(ref: Object) -> str | None:
    """The cookie that a backendRef sets for us."""
    for each in filter(is_our_filter, ref.get("filters", [])):
        for header in each["responseHeaderModifier"].get("add", []):
            return str(header["value"])
    return None


def has_own_headers(ref: Object) -> bool:
    """Whether it changes response headers by a filter that is not ours."""
    filters = ref.get("filters", [])
    return any(_sets_response_headers(each) and not is_our_filter(each) for each in filters)


def _without_cookie(ref: Object) -> Object:
    if cookie_of(ref) is None:
        return ref
    filters = [
        {**each, "responseHeaderModifier": {"set": each["responseHeaderModifier"]["set"]}}
        if is_our_filter(each)
        else each
        for each in ref["filters"]
    ]
    return {**ref, "filters": filters}


def _is_service(ref: Object) -> bool:
    return (
        ref.get("group", "") == ""
        and ref.get("kind", "Service") == "Service"
        and not ref.get("namespace")
    )


def _backend_of(service: str, traffic: Traffic) -> Backend:
    candidate = traffic.candidate
    return candidate if candidate and candidate.service == service else traffic.stable


def _our_filter(backend: Backend, cookie: str | None) -> Object:
    modifier: Object = {"set": [{"name": VERSION_HEADER, "value": backend.label}]}
    if cookie is not None:
        modifier["add"] = [{"name": cookies.SET_COOKIE, "value": cookie}]
    return {"type": "ResponseHeaderModifier", "responseHeaderModifier": modifier}


def _sets_response_headers(entry: Object) -> bool:
    return bool(entry.get("type") == "ResponseHeaderModifier")


def is_our_filter(entry: Object) -> bool:
    """Whether it names the version, and sets at most our cookie beside."""
    modifier = entry.get("responseHeaderModifier") or {}
    names = [header.get("name") for header in modifier.get("set", [])]
    is_only = all(map(cookies.is_ours, modifier.get("add", []))) and not modifier.get("remove")
    return _sets_response_headers(entry) and names == [VERSION_HEADER] and is_only
