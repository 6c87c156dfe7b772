"""
Traffic through a Gateway API HTTPRoute.

`edited(route, ...)` is pure: the route as it is goes in, the rule's backendRefs as they should
be come out. In an attached route only the backendRefs of the two versions in one rule are ours
and everything else survives byte for byte; the write is a JSON Patch that first tests that
nobody changed what was read. HTTPRoute rules are atomic lists: server-side apply cannot own a
weight in somebody else's route. A managed route is ours as a whole and is applied as a whole.

Each of our backendRefs carries a response header that names the version. It tells clients who
answered, and it makes Envoy Gateway keep one cluster, and so one set of metrics, per backendRef:
without a filter of their own all backends of a rule share one.

A backend that leaves the route, or its place in the list, takes an Envoy cluster with it, and
for some milliseconds the proxy may still send requests there: they fail with 500. So the way
from one list to the next is a few writes (`core/shares.py`), and no backend comes or goes
while it carries traffic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from modelrollout.adapters.cluster import FIELD_MANAGER, HTTP_ROUTES, Object, Resource
from modelrollout.api import v1alpha1 as api
from modelrollout.api.conditions import Reason
from modelrollout.core import shares
from modelrollout.core.evidence import Matcher, Split
from modelrollout.core.facts import as_seconds
from modelrollout.core.observation import Problem, Rollout, Route
from modelrollout.core.plan import Backend, Traffic
from modelrollout.core.shares import Shares
from modelrollout.errors import Conflict, NotFound, RouterRefused

VERSION_HEADER = "x-model-version"
MANAGED_RULE = "modelrollout"
PROPAGATION_SECONDS = 2.0
"""Between two writes: the gateway says that it has taken up a route before its proxy has. At
least a second, as the API server keeps the time of a write in whole seconds."""
PATIENCE_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The route against what was intended, and how the gateway's metrics split the versions."""

    route: Route
    split: Split | None


class Routes(Protocol):
    """What the router needs of the Kubernetes API: see adapters/cluster.py."""

    async def get(self, resource: Resource, namespace: str, name: str) -> Object:
        """One object, or NotFound."""

    async def patch(
        self, resource: Resource, namespace: str, name: str, operations: Sequence[Object]
    ) -> Object:
        """A JSON Patch, or Conflict."""

    async def apply(self, resource: Resource, namespace: str, name: str, body: Object) -> Object:
        """Server-side apply of a whole object."""


class GatewayAPIRouter:
    """HTTPRoutes, the user's (attach) or ours (managed)."""

    def __init__(self, cluster: Routes, clock: Callable[[], float]) -> None:
        self._cluster = cluster
        self._clock = clock

    async def observe(self, rollout: Rollout, traffic: Traffic) -> View:
        """Compare the route with the intended traffic."""
        assert rollout.spec is not None
        given = rollout.spec.traffic.gateway_api
        name = given.route or rollout.name
        try:
            live = await self._cluster.get(HTTP_ROUTES, rollout.namespace, name)
        except NotFound:
            return _absent(given, name)
        try:
            wanted = _wanted(live, rollout, traffic)
            split = split_of(live, given.rule, traffic)
        except RouterRefused as refusal:
            problem = Problem(reason=Reason.ROUTE_NOT_MANAGED, message=str(refusal))
            route = Route(in_sync=False, accepted=False, message=str(refusal), problem=problem)
            return View(route=route, split=None)
        accepted, message = acceptance(live)
        in_sync = is_within(wanted, live)
        return View(route=Route(in_sync=in_sync, accepted=accepted, message=message), split=split)

    async def set_traffic(self, rollout: Rollout, traffic: Traffic) -> bool:
        """Bring the route one write closer to it. Returns whether a write was needed."""
        assert rollout.spec is not None
        given = rollout.spec.traffic.gateway_api
        if given.gateway is not None:
            return await self._set_managed(rollout, traffic)
        assert given.route is not None
        live = await self._cluster.get(HTTP_ROUTES, rollout.namespace, given.route)
        index = rule_index(live, given.rule)
        before = live["spec"]["rules"][index].get("backendRefs", [])
        after = edited(live, given.rule, traffic)["spec"]["rules"][index]["backendRefs"]
        if after == before or not self._may_write(live, before, after):
            return False
        path = f"/spec/rules/{index}"
        operations = [{"op": "test", "path": f"{path}/backendRefs", "value": before}]
        if given.rule is not None:
            operations.append({"op": "test", "path": f"{path}/name", "value": given.rule})
        operations.append({"op": "replace", "path": f"{path}/backendRefs", "value": after})
        await self._cluster.patch(HTTP_ROUTES, rollout.namespace, given.route, operations)
        return True

    async def _set_managed(self, rollout: Rollout, traffic: Traffic) -> bool:
        try:
            live = await self._cluster.get(HTTP_ROUTES, rollout.namespace, rollout.name)
        except NotFound:
            live = {}
        if live and not is_ours(live):
            raise RouterRefused(_foreign(rollout.name))
        route = managed(rollout, traffic, live)
        if is_within(route, live):
            return False
        after = route["spec"]["rules"][0]["backendRefs"]
        if live and not self._may_write(live, _managed_refs(live), after):
            return False
        try:
            await self._cluster.apply(HTTP_ROUTES, rollout.namespace, rollout.name, route)
        except NotFound as error:
            raise Conflict(f"the namespace went away: {error}") from error
        return True

    def _may_write(self, live: Object, before: list[Object], after: list[Object]) -> bool:
        needs_rest = shares.needs_rest(_shares(before), _shares(after))
        return not needs_rest or has_rested(live, self._clock())


def _absent(given: api.GatewayAPI, name: str) -> View:
    """A managed route that is not there yet is only out of sync; it will be written."""
    if given.gateway is not None:
        return View(route=Route(in_sync=False, accepted=False), split=None)
    message = f"HTTPRoute {name} does not exist: create it, or give traffic.gatewayAPI.gateway"
    problem = Problem(reason=Reason.ROUTE_NOT_FOUND, message=message)
    route = Route(in_sync=False, accepted=False, message=message, problem=problem)
    return View(route=route, split=None)


def _wanted(live: Object, rollout: Rollout, traffic: Traffic) -> Object:
    assert rollout.spec is not None
    given = rollout.spec.traffic.gateway_api
    if given.gateway is None:
        return edited(live, given.rule, traffic, final=True)
    if not is_ours(live):
        raise RouterRefused(_foreign(rollout.name))
    return managed(rollout, traffic, None)


def _foreign(name: str) -> str:
    return (
        f"HTTPRoute {name} exists and is not this operator's: attach to it with "
        "traffic.gatewayAPI.route, or rename one of the two"
    )


# --- pure: an attached route --------------------------------------------------------------


def edited(
    route: Object, rule_name: str | None, traffic: Traffic, *, final: bool = False
) -> Object:
    """The route after the next write towards the traffic, or as it is to be in the end."""
    index = rule_index(route, rule_name)
    rules = list(route["spec"]["rules"])
    refs = _refs(rules[index].get("backendRefs", []), traffic, final=final)
    rules[index] = {**rules[index], "backendRefs": refs}
    return {**route, "spec": {**route["spec"], "rules": rules}}


def rule_index(route: Object, rule_name: str | None) -> int:
    """Which rule is ours: the named one, or the only one."""
    rules = route["spec"].get("rules", [])
    name = route["metadata"]["name"]
    if rule_name is None:
        if len(rules) == 1:
            return 0
        raise RouterRefused(
            f"HTTPRoute {name} has {len(rules)} rules: name the one to edit in "
            "traffic.gatewayAPI.rule"
        )
    found = [position for position, rule in enumerate(rules) if rule.get("name") == rule_name]
    if len(found) != 1:
        raise RouterRefused(f"HTTPRoute {name} has {len(found)} rules named {rule_name!r}, not one")
    return found[0]


def _refs(before: list[Object], traffic: Traffic, *, final: bool) -> list[Object]:
    ours = {traffic.stable.service, *traffic.retired}
    if traffic.candidate is not None:
        ours.add(traffic.candidate.service)
    mine = [each for each in before if _is_service(each) and each["name"] in ours]
    if not mine:
        raise RouterRefused(
            f"the rule has no backendRef to Service {traffic.stable.service}: "
            "point it to the stable version first"
        )
    live = _shares(mine)
    is_alone = len(mine) == len(before)
    target = _target(live, traffic, is_alone=is_alone)
    # Beside other backends a trickle would be no trickle: there it goes in one write.
    wanted = target if final or not is_alone else shares.following(live, target)
    known = {each["name"]: each for each in mine}
    pair = [_ref(known.get(name), name, weight, traffic) for name, weight in wanted]
    first = next(position for position, each in enumerate(before) if each in mine)
    return [
        *[each for each in before[:first] if each not in mine],
        *pair,
        *[each for each in before[first:] if each not in mine],
    ]


def _shares(refs: list[Object]) -> Shares:
    return [(each["name"], each.get("weight", 1)) for each in refs]


def _is_service(ref: Object) -> bool:
    return (
        ref.get("group", "") == ""
        and ref.get("kind", "Service") == "Service"
        and not ref.get("namespace")
    )


def _target(live: Shares, traffic: Traffic, *, is_alone: bool) -> Shares:
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


def _ref(known: Object | None, service: str, weight: int, traffic: Traffic) -> Object:
    base = known or {"group": "", "kind": "Service", "name": service, "port": traffic.port}
    filters = [each for each in base.get("filters", []) if not _is_our_filter(each)]
    if not any(_sets_response_headers(each) for each in filters):
        filters.append(_our_filter(_backend_of(service, traffic)))
    return {**base, "weight": weight, "filters": filters}


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


# --- pure: a managed route ----------------------------------------------------------------


def managed(rollout: Rollout, traffic: Traffic, live: Object | None) -> Object:
    """The whole route when it is ours: after the next write, or (without `live`) in the end."""
    assert rollout.spec is not None
    given = rollout.spec.traffic.gateway_api
    assert given.gateway is not None
    stable = traffic.stable.service
    before = _shares(_managed_refs(live)) if live else []
    target = _target(before or [(stable, 1)], traffic, is_alone=True)
    wanted = shares.following(before, target) if before else target
    rule = {
        "name": MANAGED_RULE,
        "backendRefs": [_ref(None, name, weight, traffic) for name, weight in wanted],
    }
    spec: Object = {"parentRefs": [given.gateway.to_dict()], "rules": [rule]}
    if given.hostnames:
        spec["hostnames"] = list(given.hostnames)
    metadata: Object = {
        "name": rollout.name,
        "namespace": rollout.namespace,
        "labels": {
            "app.kubernetes.io/managed-by": "modelrollout",
            f"{api.GROUP}/rollout": rollout.name,
        },
    }
    if given.deletion_policy is api.DeletionPolicy.DELETE:
        metadata["ownerReferences"] = [_owner(rollout)]
    return {
        "apiVersion": f"{HTTP_ROUTES.group}/{HTTP_ROUTES.version}",
        "kind": "HTTPRoute",
        "metadata": metadata,
        "spec": spec,
    }


def _managed_refs(live: Object) -> list[Object]:
    rules = live["spec"].get("rules") or [{}]
    return list(rules[0].get("backendRefs", []))


def _owner(rollout: Rollout) -> Object:
    return {
        "apiVersion": api.API_VERSION,
        "kind": api.KIND,
        "name": rollout.name,
        "uid": rollout.uid,
    }


def is_ours(live: Object) -> bool:
    """A managed route carries our label; another of the same name is somebody's."""
    labels = live.get("metadata", {}).get("labels", {})
    return bool(labels.get(f"{api.GROUP}/rollout") == live["metadata"]["name"])


def is_within(wanted: Any, live: Any) -> bool:
    """Everything wanted is in the live object; what the API server defaulted does not matter."""
    if wanted == live:
        return True
    if isinstance(wanted, dict):
        return isinstance(live, dict) and all(
            key in live and is_within(value, live[key]) for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(live, list)
            and len(wanted) == len(live)
            and all(is_within(one, other) for one, other in zip(wanted, live, strict=True))
        )
    return False


# --- pure: reading back -------------------------------------------------------------------


def acceptance(route: Object) -> tuple[bool, str]:
    """Whether every parent has accepted this generation and resolved its backends."""
    generation = route["metadata"].get("generation", 0)
    parents = route.get("status", {}).get("parents", [])
    if not parents:
        return False, "no gateway has taken up the route"
    for parent in parents:
        known = {each["type"]: each for each in parent.get("conditions", [])}
        for kind in ("Accepted", "ResolvedRefs"):
            condition = known.get(kind)
            if condition is None or condition.get("observedGeneration", 0) < generation:
                return False, "waits until the gateway has taken up the weights"
            if condition["status"] != "True":
                said = condition.get("message", "")
                return False, f"the gateway says {kind}=False, {condition['reason']}: {said}"
    return True, ""


def has_rested(route: Object, now: float) -> bool:
    """
    Whether the gateway has had time for our last write: it has taken it up, and the proxy too.

    A gateway that is away must not keep us from the final state for ever: after a while we go on.
    """
    age = now - _last_written(route)
    if age >= PATIENCE_SECONDS:
        return True
    generation = route["metadata"].get("generation", 0)
    parents = route.get("status", {}).get("parents", [])
    taken_up = all(
        each.get("observedGeneration", 0) >= generation
        for parent in parents
        for each in parent.get("conditions", [])
    )
    return taken_up and age >= PROPAGATION_SECONDS


def _last_written(route: Object) -> float:
    """When we last wrote it, Unix seconds; 0 if never. The API server keeps whole seconds."""
    times = [
        as_seconds(each["time"])
        for each in route["metadata"].get("managedFields", [])
        if each.get("manager") == FIELD_MANAGER and each.get("time")
    ]
    return max(times, default=0)


def split_of(route: Object, rule_name: str | None, traffic: Traffic) -> Split | None:
    """
    How Envoy Gateway names the clusters of the two backends; None without stable's.

    A candidate that is not on the route yet has a name that no cluster has.
    """
    name = rule_name or (MANAGED_RULE if is_ours(route) else None)
    index = rule_index(route, name)
    refs = [each.get("name") for each in route["spec"]["rules"][index].get("backendRefs", [])]
    meta = route["metadata"]
    prefix = f"httproute/{meta['namespace']}/{meta['name']}/rule/{index}/backend"

    def cluster(service: str) -> tuple[Matcher, ...]:
        position = refs.index(service) if service in refs else "none"
        return (Matcher(label="envoy_cluster_name", value=f"{prefix}/{position}"),)

    if traffic.stable.service not in refs:
        return None
    candidate = traffic.candidate.service if traffic.candidate else ""
    return Split(stable=cluster(traffic.stable.service), candidate=cluster(candidate))
