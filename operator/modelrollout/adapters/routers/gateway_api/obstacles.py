"""Why what is asked for cannot be had on a route and its gateways: told before anything moves."""

from __future__ import annotations

from modelrollout.adapters.cluster import (
    EXTENSION_POLICIES,
    SECURITY_POLICIES,
    TRAFFIC_POLICIES,
    Object,
)
from modelrollout.adapters.routers.gateway_api import (
    backends,
    buckets,
    cookies,
    mirror,
    own_rules,
    precedence,
)
from modelrollout.adapters.routers.gateway_api.gateways import Reader, features_of
from modelrollout.adapters.routers.gateway_api.route import Aim, rule_index, users_rules
from modelrollout.core.plan import Traffic, comparator_of
from modelrollout.errors import NotFound, Refused

RULE_POLICIES = (EXTENSION_POLICIES, SECURITY_POLICIES, TRAFFIC_POLICIES)
"""What Envoy Gateway attaches to one rule by its name, and so not to ours beside it."""


async def policies_of(cluster: Reader, namespace: str) -> list[Object] | None:
    """
    The EnvoyExtensionPolicies of a namespace; None where there can be none, or none can be seen.

    A rollback needs no policy: it must not fail because they cannot be listed.
    """
    try:
        return await cluster.list(EXTENSION_POLICIES, namespace)
    except (NotFound, Refused):
        return None


async def obstacle(cluster: Reader, route: Object, aim: Aim, policies: list[Object] | None) -> str:
    """Why the aim cannot be had; empty when it can."""
    rule = route["spec"]["rules"][rule_index(route, aim.rule, aim.rollout)]
    said = await _mirror_obstacle(cluster, route, rule, aim)
    if not said and aim.traffic.sticky is not None:
        said = _hash_obstacle(route, rule, aim, policies)
    if not said and aim.traffic.cookie is not None:
        said = _cookie_obstacle(rule, aim.traffic)
    own = own_rules.wanted_rules(rule, aim.traffic, aim.rollout)
    if said or not own:
        return said
    theirs = users_rules(route, aim.rollout)
    said = precedence.obstacle(theirs, theirs.index(rule), own)
    return said or await _policy_obstacle(cluster, route, rule.get("name"), aim)


async def _mirror_obstacle(cluster: Reader, route: Object, rule: Object, aim: Aim) -> str:
    if aim.traffic.mirror is None:
        return ""
    return mirror.obstacle(rule, comparator_of(aim.rollout), await features_of(cluster, route))


def _hash_obstacle(route: Object, rule: Object, aim: Aim, policies: list[Object] | None) -> str:
    if policies is None:
        return (
            "traffic.sticky by a hash needs Envoy Gateway, and its EnvoyExtensionPolicy CRD is not "
            "installed, or the operator may not list it: leave out traffic.sticky, route through "
            "Envoy Gateway 1.9 or later, or give traffic.sticky.by: Cookie"
        )
    return _foreign_policy(route, aim, policies) or _other_backends(rule, aim.traffic)


def _cookie_obstacle(rule: Object, traffic: Traffic) -> str:
    count = 1 + len(cookies.buckets_of(traffic)[1])
    if count > cookies.MAX_BUCKETS:
        return (
            f"traffic.sticky by cookies needs {count} backendRefs, one for each bucket of users, and "
            f"Gateway API allows {cookies.MAX_BUCKETS} in a rule: give the strategy at most "
            f"{cookies.MAX_BUCKETS - 1} different weights below 100"
        )
    if any(map(backends.has_own_headers, backends.own_refs(rule.get("backendRefs", []), traffic))):
        return (
            "a backendRef of the rule has a ResponseHeaderModifier filter, and Gateway API allows "
            "one, which traffic.sticky by cookies needs: set those headers in the rule's filters"
        )
    if any(map(cookies.are_dropped_by, rule.get("filters", []))):
        return (
            f"a filter of the rule sets or removes {cookies.SET_COOKIE}, which traffic.sticky by "
            "cookies needs: leave that out of the filter, or leave out traffic.sticky"
        )
    return _other_backends(rule, traffic)


def _foreign_policy(route: Object, aim: Aim, policies: list[Object]) -> str:
    ours = buckets.own_policy(policies, aim.rollout)
    for each in policies:
        name = each["metadata"]["name"]
        if each is ours:
            continue
        if name == buckets.policy_name(aim.rollout):
            return (
                f"EnvoyExtensionPolicy {name} is not the operator's, and traffic.sticky needs the "
                "name: rename it"
            )
        if buckets.targets(each, route, None):
            return (
                f"EnvoyExtensionPolicy {name} is attached to the HTTPRoute, and Envoy Gateway takes "
                "one for a route: leave out traffic.sticky, or take that policy off"
            )
    return ""


def _other_backends(rule: Object, traffic: Traffic) -> str:
    refs = rule.get("backendRefs", [])
    if len(backends.own_refs(refs, traffic)) == len(refs):
        return ""
    return (
        "the rule has other backends, which get requests of all users: traffic.sticky needs a "
        "rule with the two versions alone"
    )


async def _policy_obstacle(cluster: Reader, route: Object, rule: str | None, aim: Aim) -> str:
    """A policy on the user's rule by its name would not hold for ours."""
    for resource in RULE_POLICIES if rule is not None else ():
        try:
            found = await cluster.list(resource, route["metadata"]["namespace"])
        except NotFound:
            continue
        except Refused as refusal:
            return f"whether a policy is attached to rule {rule} alone cannot be seen: {refusal}"
        ours = buckets.own_policy(found, aim.rollout)
        for each in found:
            if each is not ours and buckets.targets(each, route, rule):
                return (
                    f"policy {each['metadata']['name']} ({resource.plural}) is attached to rule "
                    f"{rule} by its name, and would not hold for the operator's rules for sticky "
                    "users and the cohort: attach it to the whole HTTPRoute"
                )
    return ""
