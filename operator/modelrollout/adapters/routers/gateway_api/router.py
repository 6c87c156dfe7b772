"""The router: reads the route and what belongs to it, and makes one write at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from modelrollout.adapters.cluster import (
    EXTENSION_POLICIES,
    HTTP_ROUTES,
    SERVICES,
    Object,
    Resource,
    owner_of,
)
from modelrollout.adapters.routers.gateway_api import buckets, cookies, own_rules
from modelrollout.adapters.routers.gateway_api.buckets import Answer, Stage
from modelrollout.adapters.routers.gateway_api.gateways import Reader, in_their_way
from modelrollout.adapters.routers.gateway_api.obstacles import obstacle, policies_of
from modelrollout.adapters.routers.gateway_api.route import (
    MANAGED_RULE,
    PROPAGATION_SECONDS,
    Aim,
    acceptance,
    as_managed,
    at_rest,
    effective,
    has_rested,
    in_the_end,
    is_ours,
    is_same,
    is_within,
    managed,
    next_write,
    seconds_since_written,
    split_of,
    unsupported,
    version_of,
)
from modelrollout.api import v1alpha1 as api
from modelrollout.api.conditions import Reason
from modelrollout.core.evidence import Split
from modelrollout.core.observation import Problem, Rollout, Route
from modelrollout.core.plan import COMPARATOR_PORT, Backend, Mirror, Traffic, comparator_of
from modelrollout.core.steps import steps_of, weights_of
from modelrollout.errors import Conflict, NotFound, RouterRefused


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The route against what was intended, and how the gateway's metrics split the versions."""

    route: Route
    split: Split | None
    drawn_from: tuple[object, ...] = ()
    """All that it follows from: as long as that is the same, so is this. Empty if it is not known."""


class Routes(Reader, Protocol):
    """What the router needs of the Kubernetes API: see adapters/cluster.py."""

    async def patch(
        self, resource: Resource, namespace: str, name: str, operations: Sequence[Object]
    ) -> Object:
        """A JSON Patch, or Conflict."""

    async def apply(self, resource: Resource, namespace: str, name: str, body: Object) -> Object:
        """Server-side apply of a whole object."""

    async def delete(self, resource: Resource, namespace: str, name: str) -> None:
        """Remove an object, if it is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """The route and what belongs to it."""

    route: Object
    """As it is; a managed one without what is not ours."""
    live: Object
    aim: Aim
    policy: Object | None
    """Ours, that puts users into buckets."""
    wanted_policies: tuple[Object, Object] | None
    """At first on a rule of ours alone, then on the user's rule, too; None without sticky users."""
    obstacle: str
    """Why what was asked for cannot be had, so that all users get stable; empty when it can."""
    waits: str
    """For what it waits; empty when for nothing but the gateway."""


class GatewayAPIRouter:
    """HTTPRoutes, the user's (attach) or ours (managed)."""

    def __init__(self, cluster: Routes, clock: Callable[[], float]) -> None:
        self._cluster = cluster
        self._clock = clock

    async def observe(self, rollout: Rollout, traffic: Traffic, before: View | None = None) -> View:
        """Compare the route with the intended traffic, unless that is as it was `before`."""
        given = _given(rollout)
        name = given.route or rollout.name
        try:
            live = await self._cluster.get(HTTP_ROUTES, rollout.namespace, name)
        except NotFound:
            return _absent(given, name, is_deleting=rollout.is_deleting)
        drawn_from = _drawn_from(rollout, traffic, live)
        if drawn_from and before is not None and before.drawn_from == drawn_from:
            return before
        return replace(await self._compare(rollout, traffic, live), drawn_from=drawn_from)

    async def _compare(self, rollout: Rollout, traffic: Traffic, live: Object) -> View:
        try:
            seen = await self._look(rollout, traffic, live)
            is_final = in_the_end(seen.route, seen.aim) == seen.route and is_same(seen.route, live)
            split = split_of(seen.route, seen.aim)
        except RouterRefused as refusal:
            return _refused(str(refusal))
        in_sync = is_final and _policy_write(seen) is None
        if in_sync and (said := seen.obstacle or await self._preflight(rollout, traffic, seen)):
            # All users are on stable, and nothing is left to write: it can be refused safely.
            return _refused(said)
        if said := seen.obstacle or seen.waits:
            version = version_of(live)
            route = Route(in_sync=False, accepted=False, message=said, version=version)
            return View(route=route, split=split)
        accepted, message = self._acceptance(seen)
        route = Route(
            in_sync=in_sync,
            accepted=accepted,
            message=message,
            sticky_by=_sticky_by(seen.aim.traffic),
            version=version_of(live),
        )
        return View(route=route, split=split)

    async def set_traffic(
        self, rollout: Rollout, traffic: Traffic, seen: str | None = None
    ) -> bool:
        """
        Bring the route one write closer to it. Returns whether a write was needed.

        Only the route that was decided upon: another operator may have moved it meanwhile.
        """
        given = _given(rollout)
        name = given.route or rollout.name
        try:
            live = await self._cluster.get(HTTP_ROUTES, rollout.namespace, name)
        except NotFound:
            if given.gateway is None:
                raise
            return await self._write(rollout, {}, managed(rollout, traffic))
        if seen is not None and version_of(live) != seen:
            raise Conflict(f"HTTPRoute {name} was written since it was looked at")
        return await self._bring_closer(rollout, traffic, live)

    async def _bring_closer(self, rollout: Rollout, traffic: Traffic, live: Object) -> bool:
        seen = await self._look(rollout, traffic, live)
        write, policy = next_write(seen.route, seen.aim), _policy_write(seen)
        # A policy that is refused may have the gateway answer 500 on all rules that it names.
        is_urgent = write.route != seen.route and not write.needs_rest
        if policy is not None and (not is_urgent or seen.aim.buckets is Stage.REFUSED):
            return await self._write_policy(rollout, policy)
        if is_urgent:
            return await self._write(rollout, live, write.route)
        if write.route == seen.route and is_same(seen.route, live):
            return False
        if write.route != seen.route and not has_rested(live, self._clock()):
            return False
        return await self._write(rollout, live, write.route)

    # --- reading ------------------------------------------------------------------------

    async def _look(self, rollout: Rollout, traffic: Traffic, live: Object) -> _Seen:
        given = _given(rollout)
        rule, route = given.rule, live
        if given.gateway is not None:
            if not is_ours(live):
                raise RouterRefused(_foreign(rollout.name))
            rule = MANAGED_RULE
            traffic = _all_ours(traffic, live)
            route = as_managed(rollout, live, traffic)
        aim = Aim(rollout=rollout.name, rule=rule, traffic=effective(traffic))
        policies = await self._policies(rollout, aim, route)
        aim, said = await self._possible(route, aim, policies)
        waits = ""
        if said:
            aim = replace(aim, traffic=at_rest(aim.traffic))
        if aim.traffic.mirror and not await self._is_served(rollout, aim.traffic.mirror):
            waits = f"waits for Service {aim.traffic.mirror.service}, which is to get the copies"
            aim = replace(aim, traffic=replace(aim.traffic, mirror=None))
        policy = buckets.own_policy(policies or [], rollout.name)
        wanted = _wanted_policies(rollout, aim, route)
        answer = self._answer(aim, policy, wanted, live)
        if answer.stage is Stage.REFUSED:
            refusal = cookies.refusal if wanted is None else buckets.refusal
            waits = refusal(rollout.name, answer.message)
        if answer.stage is not aim.buckets:
            aim = replace(aim, buckets=answer.stage)
        return _Seen(
            route=route,
            live=live,
            aim=aim,
            policy=policy,
            wanted_policies=wanted,
            obstacle=said,
            waits=waits,
        )

    async def _policies(self, rollout: Rollout, aim: Aim, route: Object) -> list[Object] | None:
        """Those of the namespace, if they can concern us."""
        if not _concern_us(rollout, aim.traffic, route):
            return []
        return await policies_of(self._cluster, rollout.namespace)

    async def _is_served(self, rollout: Rollout, given: Mirror) -> bool:
        try:
            service = await self._cluster.get(SERVICES, rollout.namespace, given.service)
        except NotFound:
            return False
        return given.port in [each["port"] for each in service["spec"].get("ports", [])]

    async def _preflight(self, rollout: Rollout, traffic: Traffic, seen: _Seen) -> str:
        """Why what the spec will ask for cannot be had, told before anything moves."""
        assert rollout.spec is not None
        service = api.service_of(rollout.spec.candidate)
        if not traffic.is_rest or service == traffic.stable.service:
            return ""
        has_mirror = any(each.mirror for each in steps_of(rollout.spec.strategy))
        weights = weights_of(rollout.spec.strategy)
        future = replace(
            seen.aim.traffic,
            candidate=Backend(service=service, label=""),
            weight=min(weights, default=1),
            weights=weights,
            sticky=rollout.spec.traffic.sticky,
            cohort=rollout.spec.traffic.cohort,
            mirror=Mirror(service=comparator_of(rollout.name), port=COMPARATOR_PORT, percent=1)
            if has_mirror
            else None,
        )
        aim = replace(seen.aim, traffic=future)
        policies = await self._policies(rollout, aim, seen.route)
        _, said = await self._possible(seen.route, aim, policies)
        return said

    async def _possible(
        self, route: Object, aim: Aim, policies: list[Object] | None
    ) -> tuple[Aim, str]:
        """The aim in the way that the route's gateways have, and why it cannot be had, if so."""
        traffic, said = await in_their_way(self._cluster, route, aim.rollout, aim.traffic)
        aim = replace(aim, traffic=traffic)
        return aim, said or await obstacle(self._cluster, route, aim, policies)

    def _answer(
        self,
        aim: Aim,
        policy: Object | None,
        wanted: tuple[Object, Object] | None,
        live: Object,
    ) -> Answer:
        """How far the gateway is with what users' buckets need."""
        if wanted is None:
            return _answer_to_cookies(aim, live)
        if policy is None:
            return Answer(stage=Stage.PENDING)
        found = buckets.answer(policy, len(live["spec"].get("parentRefs", [])))
        if found.stage is not Stage.IN_FORCE:
            return found
        is_old = seconds_since_written(policy, self._clock()) >= PROPAGATION_SECONDS
        is_whole = _says(policy, wanted[1]) and is_old
        return Answer(stage=Stage.IN_FORCE if is_whole else Stage.PENDING)

    def _acceptance(self, seen: _Seen) -> tuple[bool, str]:
        accepted, message = acceptance(seen.live)
        if accepted and seen.aim.buckets is Stage.PENDING:
            return False, buckets.waiting(seen.aim.rollout)
        return accepted, message

    # --- writing ------------------------------------------------------------------------

    async def _write(self, rollout: Rollout, live: Object, route: Object) -> bool:
        given = _given(rollout)
        if given.gateway is not None:
            try:
                await self._cluster.apply(HTTP_ROUTES, rollout.namespace, rollout.name, route)
            except NotFound as error:
                raise Conflict(f"the namespace went away: {error}") from error
            return True
        assert given.route is not None
        operations = [
            # Also where it says the same again: what happened in between may be a whole rollout.
            {"op": "test", "path": "/metadata/generation", "value": live["metadata"]["generation"]},
            {"op": "test", "path": "/spec/rules", "value": live["spec"]["rules"]},
            {"op": "replace", "path": "/spec/rules", "value": route["spec"]["rules"]},
        ]
        await self._cluster.patch(HTTP_ROUTES, rollout.namespace, given.route, operations)
        return True

    async def _write_policy(self, rollout: Rollout, policy: Object) -> bool:
        name = buckets.policy_name(rollout.name)
        if not policy:
            await self._cluster.delete(EXTENSION_POLICIES, rollout.namespace, name)
        else:
            await self._cluster.apply(EXTENSION_POLICIES, rollout.namespace, name, policy)
        return True


def _given(rollout: Rollout) -> api.GatewayAPI:
    assert rollout.spec is not None
    return rollout.spec.traffic.gateway_api


def _drawn_from(rollout: Rollout, traffic: Traffic, live: Object) -> tuple[object, ...]:
    """All that a view follows from, where that is the route alone: no other object, and no clock."""
    if not traffic.is_by_weight or _concern_us(rollout, traffic, live):
        return ()
    version = live["metadata"]["resourceVersion"]
    return rollout.uid, rollout.generation, traffic, version


def _concern_us(rollout: Rollout, traffic: Traffic, route: Object) -> bool:
    """Whether policies of the namespace can: users are told apart, or are to be, or were."""
    assert rollout.spec is not None
    names = own_rules.names_of(rollout.name)
    is_marked = any(each.get("name") in names for each in route["spec"].get("rules", []))
    return bool(rollout.spec.traffic.sticky or traffic.sticky or is_marked)


def _absent(given: api.GatewayAPI, name: str, *, is_deleting: bool) -> View:
    """
    A managed route that is not there yet is only out of sync; it will be written.

    Unless the ModelRollout is being deleted: in a namespace that goes with it nothing can be made.
    """
    if given.gateway is not None and not is_deleting:
        return View(route=Route(in_sync=False, accepted=False), split=None)
    message = f"HTTPRoute {name} does not exist: create it, or give traffic.gatewayAPI.gateway"
    problem = Problem(reason=Reason.ROUTE_NOT_FOUND, message=message)
    route = Route(in_sync=False, accepted=False, message=message, problem=problem)
    return View(route=route, split=None)


def _refused(said: str) -> View:
    problem = Problem(reason=Reason.ROUTE_NOT_MANAGED, message=said)
    route = Route(in_sync=False, accepted=False, message=said, problem=problem)
    return View(route=route, split=None)


def _foreign(name: str) -> str:
    return (
        f"HTTPRoute {name} exists and is not this operator's: attach to it with "
        "traffic.gatewayAPI.route, or rename one of the two"
    )


def _sticky_by(traffic: Traffic) -> api.StickyBy | None:
    if traffic.cookie is not None:
        return api.StickyBy.COOKIE
    return api.StickyBy.HASH if traffic.sticky is not None else None


def _answer_to_cookies(aim: Aim, live: Object) -> Answer:
    """Refused by a gateway that does not know the matches of our rules, as far as it has said."""
    names = own_rules.names_of(aim.rollout)
    has_rules = any(each.get("name") in names for each in live["spec"]["rules"])
    said = unsupported(live) if aim.traffic.cookie is not None and has_rules else ""
    return Answer(stage=Stage.REFUSED, message=said) if said else Answer(stage=Stage.UNNEEDED)


def _all_ours(traffic: Traffic, live: Object) -> Traffic:
    """In a managed route whatever is not a version of now was one before, or is nobody's."""
    rules = live["spec"].get("rules") or [{}]
    present = {each["name"] for each in rules[0].get("backendRefs", [])}
    candidate = {traffic.candidate.service} if traffic.candidate else set()
    others = present - candidate - {traffic.stable.service}
    return replace(traffic, retired=(*traffic.retired, *sorted(others)))


def _wanted_policies(rollout: Rollout, aim: Aim, route: Object) -> tuple[Object, Object] | None:
    sticky = aim.traffic.sticky
    if sticky is None:
        return None
    lua = buckets.script(sticky, aim.traffic.salt)
    probe: list[str | None] = [own_rules.sticky_rule(rollout.name)]
    rules: list[str | None] = [None]
    if aim.rule is not None:
        # Other rules of the user's get no policy of ours. A name that no rule has is refused.
        names = (aim.rule, *own_rules.names_of(rollout.name))
        present = [each.get("name") for each in route["spec"]["rules"]]
        rules = [each for each in names if each in present]
    owner, name = owner_of(rollout), route["metadata"]["name"]
    first, whole = (
        buckets.policy(rollout.name, rollout.namespace, owner, name, each, lua)
        for each in (probe, rules)
    )
    return first, whole


def _policy_write(seen: _Seen) -> Object | None:
    """The policy to write next; an empty one is to be removed, None is as it should be."""
    names = own_rules.names_of(seen.aim.rollout)
    own = [each for each in seen.route["spec"]["rules"] if each.get("name") in names]
    policy = seen.policy
    if seen.wanted_policies is None:
        is_relied_on = any(own_rules.is_awake(each) and own_rules.has_hash(each) for each in own)
        return {} if policy is not None and not is_relied_on else None
    probe, whole = seen.wanted_policies
    if own_rules.sticky_rule(seen.aim.rollout) not in [each["name"] for each in own]:
        return None
    if policy is None:
        return probe
    stage = buckets.answer(policy, len(seen.route["spec"].get("parentRefs", []))).stage
    if stage is Stage.IN_FORCE:
        return None if _says(policy, whole) else whole
    is_pending = stage is Stage.PENDING and _says(policy, whole)
    return None if is_pending or _says(policy, probe) else probe


def _says(policy: Object, wanted: Object) -> bool:
    """The same spec to the letter: a target that names a rule is less than one that names none."""
    is_same = bool(policy["spec"] == wanted["spec"])
    return is_same and is_within(wanted["metadata"], policy["metadata"])
