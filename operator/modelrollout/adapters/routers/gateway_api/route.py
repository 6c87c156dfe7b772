"""
Pure: an HTTPRoute as it is, the traffic as it should be, and the next write from one to the other.

In an attached route only the backendRefs of the two versions in one rule, our mirror in that rule
and rules of our own are ours; everything else survives byte for byte. A managed route is ours as a
whole.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from modelrollout.adapters.cluster import FIELD_MANAGER, HTTP_ROUTES, Object, owner_of
from modelrollout.adapters.routers.gateway_api import backends, cookies, mirror, own_rules
from modelrollout.adapters.routers.gateway_api.buckets import Stage
from modelrollout.api import v1alpha1 as api
from modelrollout.core import shares
from modelrollout.core.evidence import Matcher, Split
from modelrollout.core.observation import Rollout
from modelrollout.core.plan import Traffic, comparator_of
from modelrollout.core.times import as_seconds
from modelrollout.errors import RouterRefused

MANAGED_RULE = "modelrollout"
PROPAGATION_SECONDS = 2.0
"""Between two writes: the gateway says that it has taken up a route before its proxy has. At
least a second, as the API server keeps the time of a write in whole seconds."""
PATIENCE_SECONDS = 5.0
CANDIDATE_PLACE = 1
"""In the user's rule, behind stable's first."""
UNSUPPORTED = "UnsupportedValue"
"""The reason of a gateway that does not know a type of match."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """What a route is to say, and where in it."""

    rollout: str
    rule: str | None
    """The name of the user's rule; None for the only one."""
    traffic: Traffic
    buckets: Stage = Stage.UNNEEDED


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """A route to be written. With `needs_rest`, the proxy must have the last write first."""

    route: Object
    needs_rest: bool


def effective(traffic: Traffic) -> Traffic:
    """At 100 % all users get the candidate: there is nobody to be told apart any more."""
    if traffic.weight < api.FULL_WEIGHT:
        return traffic
    return replace(traffic, sticky=None, cookie=None, cohort=())


def at_rest(traffic: Traffic) -> Traffic:
    """All users on stable, nobody told apart, nothing mirrored."""
    candidate = (traffic.candidate.service,) if traffic.candidate else ()
    return replace(
        traffic,
        candidate=None,
        weight=0,
        retired=(*traffic.retired, *candidate),
        sticky=None,
        cookie=None,
        cohort=(),
        mirror=None,
    )


# --- towards the aim ----------------------------------------------------------------------


def in_the_end(route: Object, aim: Aim) -> Object:
    """The route when nothing is left to write."""
    here = _Place.of(route, aim)
    own = own_rules.in_the_end(here.own, here.wanted)
    return here.with_rules(here.users_rule(final=True), own)


def next_write(route: Object, aim: Aim) -> Write:
    """
    The write that comes next; the route as it is when there is none.

    What takes users away from a backend goes first and at once; what sends them to one that may
    be new to the proxy goes afterwards, alone.
    """
    here = _Place.of(route, aim)
    narrowed = own_rules.narrowed(
        here.own, here.wanted, may_be_awake=aim.buckets is not Stage.REFUSED, leader=here.leader
    )
    quick = here.with_rules(here.users_rule(quickly=True), narrowed)
    if quick != route:
        return Write(route=quick, needs_rest=False)
    widened = own_rules.widened(
        here.own,
        here.wanted,
        may_wake=aim.buckets in {Stage.UNNEEDED, Stage.IN_FORCE},
        has_arrived=here.has_arrived,
    )
    return Write(route=here.with_rules(here.users_rule(), widened), needs_rest=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """The user's rule and ours in a route."""

    route: Object
    aim: Aim
    index: int
    rule: Object
    own: list[Object]
    traffic: Traffic
    """Of the user's rule."""

    @classmethod
    def of(cls, route: Object, aim: Aim) -> _Place:
        index = rule_index(route, aim.rule, aim.rollout)
        rules = route["spec"]["rules"]
        names = own_rules.names_of(aim.rollout)
        # Who has no bucket below the weight gets stable: the user's rule needs no weights.
        is_bare = aim.traffic.sticky is not None or aim.buckets is Stage.REFUSED
        return cls(
            route=route,
            aim=aim,
            index=index,
            rule=rules[index],
            own=[each for each in rules if each.get("name") in names],
            traffic=at_rest(aim.traffic) if is_bare else aim.traffic,
        )

    @property
    def refs(self) -> list[Object]:
        return list(self.rule.get("backendRefs", []))

    @property
    def wanted(self) -> list[Object]:
        service = comparator_of(self.aim.rollout)
        rule = mirror.with_mirror(self.rule, service, self.aim.traffic.mirror)
        return own_rules.wanted_rules(rule, self.aim.traffic, self.aim.rollout)

    @property
    def leader(self) -> str:
        """The Service that is to have all traffic of the user's rule."""
        target = backends.refs_after_next_write(self.refs, self.traffic, final=True)
        mine = backends.shares_of(backends.own_refs(target, self.traffic))
        service, weight = max(mine, key=lambda each: each[1])
        return service if weight >= sum(each for _, each in mine) - shares.TRICKLE else ""

    @property
    def has_arrived(self) -> bool:
        final = backends.refs_after_next_write(self.refs, self.traffic, final=True)
        return backends.shares_of(final) == backends.shares_of(self.refs)

    def users_rule(self, *, final: bool = False, quickly: bool = False) -> Object:
        """The user's rule after the next write; `quickly`: if that write can be made at once."""
        refs = backends.refs_after_next_write(self.refs, self.traffic, final=final)
        if quickly and shares.needs_rest(backends.shares_of(self.refs), backends.shares_of(refs)):
            refs = self.refs
        rule = {**self.rule, "backendRefs": refs}
        return mirror.with_mirror(rule, comparator_of(self.aim.rollout), self.aim.traffic.mirror)

    def with_rules(self, rule: Object, own: list[Object]) -> Object:
        """The route with these rules; each of ours where it is, new ones at the end."""
        left = {each["name"]: each for each in own}
        names = own_rules.names_of(self.aim.rollout)
        rules = []
        for place, each in enumerate(self.route["spec"]["rules"]):
            if place == self.index:
                rules.append(rule)
            elif each.get("name") not in names:
                rules.append(each)
            elif each["name"] in left:
                rules.append(left.pop(each["name"]))
        spec = {**self.route["spec"], "rules": [*rules, *left.values()]}
        return {**self.route, "spec": spec}


def rule_index(route: Object, rule: str | None, rollout: str) -> int:
    """Which rule is to be edited: the named one, or the only one that is not our own."""
    own = own_rules.names_of(rollout)
    rules = dict(enumerate(route["spec"].get("rules", [])))
    theirs = [place for place, each in rules.items() if each.get("name") not in own]
    name = route["metadata"]["name"]
    if rule is None:
        if len(theirs) == 1:
            return theirs[0]
        raise RouterRefused(
            f"HTTPRoute {name} has {len(theirs)} rules: name the one to edit in "
            "traffic.gatewayAPI.rule"
        )
    found = [place for place in theirs if rules[place].get("name") == rule]
    if len(found) != 1:
        raise RouterRefused(f"HTTPRoute {name} has {len(found)} rules named {rule!r}, not one")
    return found[0]


def users_rules(route: Object, rollout: str) -> list[Object]:
    """The rules that are not our own."""
    own = own_rules.names_of(rollout)
    return [each for each in route["spec"].get("rules", []) if each.get("name") not in own]


# --- a managed route ----------------------------------------------------------------------


def managed(rollout: Rollout, traffic: Traffic) -> Object:
    """The whole route when it is ours and new: all traffic on stable."""
    refs = [backends.backend_ref(None, traffic.stable.service, 1, traffic)]
    return _managed(rollout, [{"name": MANAGED_RULE, "backendRefs": refs}])


def as_managed(rollout: Rollout, live: Object, traffic: Traffic) -> Object:
    """The live route with all that is not ours gone: nobody else has a say in it."""
    names = own_rules.names_of(rollout.name)
    rules = live["spec"].get("rules") or [{}]
    refs = [
        backends.backend_ref(
            None, each["name"], each.get("weight", 1), traffic, backends.cookie_of(each)
        )
        for each in rules[0].get("backendRefs", [])
    ]
    own = [each for each in rules[1:] if each.get("name") in names]
    filters = [
        each
        for each in rules[0].get("filters", [])
        if mirror.is_ours(each, comparator_of(rollout.name))
    ]
    rule = {"name": MANAGED_RULE, "matches": own_rules.EVERYTHING, "backendRefs": refs}
    if filters:
        rule["filters"] = filters
    return _managed(rollout, [rule, *own])


def _managed(rollout: Rollout, rules: list[Object]) -> Object:
    assert rollout.spec is not None
    given = rollout.spec.traffic.gateway_api
    assert given.gateway is not None
    spec: Object = {"parentRefs": [given.gateway.to_dict()], "rules": rules}
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
        metadata["ownerReferences"] = [owner_of(rollout)]
    return {
        "apiVersion": f"{HTTP_ROUTES.group}/{HTTP_ROUTES.version}",
        "kind": "HTTPRoute",
        "metadata": metadata,
        "spec": spec,
    }


def is_ours(live: Object) -> bool:
    """A managed route carries our label; another of the same name is somebody's."""
    labels = live.get("metadata", {}).get("labels", {})
    return bool(labels.get(f"{api.GROUP}/rollout") == live["metadata"]["name"])


def is_same(wanted: Object, live: Object) -> bool:
    """The route as it is wanted, but for what the API server defaulted; no rule says more."""
    pairs = zip(wanted["spec"]["rules"], live["spec"].get("rules", []), strict=False)
    return is_within(wanted, live) and all(set(one) == set(other) for one, other in pairs)


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


# --- reading back -------------------------------------------------------------------------


def acceptance(route: Object) -> tuple[bool, str]:
    """Whether every parent has accepted this generation, whole, and resolved its backends."""
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
                return False, _said(condition)
        partly = known.get("PartiallyInvalid", {"status": "False"})
        if partly["status"] == "True" and partly.get("observedGeneration", 0) >= generation:
            return False, _said(partly)
    return True, ""


def unsupported(route: Object) -> str:
    """What a gateway says that does not know matches by regular expressions; empty if none does."""
    for parent in route.get("status", {}).get("parents", []):
        for each in parent.get("conditions", []):
            is_bad = (each["type"], each["status"]) in {
                ("Accepted", "False"),
                ("PartiallyInvalid", "True"),
            }
            if is_bad and each.get("reason") == UNSUPPORTED:
                return _said(each)
    return ""


def _said(condition: Object) -> str:
    kind, status, reason = condition["type"], condition["status"], condition["reason"]
    return f"the gateway says {kind}={status}, {reason}: {condition.get('message', '')}"


def has_rested(route: Object, now: float) -> bool:
    """
    Whether the gateway has had time for our last write: it has taken it up, and the proxy too.

    A gateway that is away must not keep us from the final state for ever: after a while we go on.
    """
    age = seconds_since_written(route, now)
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


def seconds_since_written(live: Object, now: float) -> float:
    """
    How old our last write of an object is.

    A time that is yet to come is of another clock than ours, which was moved: then what has
    arrived may be relied upon, and nothing waits until that time comes.
    """
    age = now - last_written(live)
    return age if age > -PATIENCE_SECONDS else PROPAGATION_SECONDS


def last_written(live: Object) -> float:
    """When we last wrote an object, Unix seconds; 0 if never. The API server keeps whole seconds."""
    times = [
        as_seconds(each["time"])
        for each in live["metadata"].get("managedFields", [])
        if each.get("manager") == FIELD_MANAGER and each.get("time")
    ]
    return max(times, default=0)


def version_of(live: Object) -> str:
    """What is new with each change of the spec, and with another route of the name."""
    metadata = live["metadata"]
    return f"{metadata.get('uid', '')}/{metadata.get('generation', 0)}"


def split_of(route: Object, aim: Aim) -> Split | None:
    """
    How Envoy Gateway names the clusters of the two versions' randomised requests.

    None without stable's. With buckets the candidate's is that of the sticky rule; the cohort's
    requests are in neither, but apart. Where buckets are cookies, first visits are in the user's
    rule and all others in a rule of ours for each version. A candidate that is not on the route yet
    has a name that no cluster has.
    """
    index = rule_index(route, aim.rule, aim.rollout)
    stable, candidate = aim.traffic.stable.service, aim.traffic.candidate
    cluster = _cluster(route, index, stable)
    if cluster is None:
        return None
    if candidate is not None and aim.traffic.cookie is not None:
        return _split_by_cookies(route, aim, index, candidate.service)
    if candidate is not None and aim.traffic.sticky is not None:
        index = _own_index(route, own_rules.sticky_rule(aim.rollout))
    other = _cluster(route, index, candidate.service) if candidate is not None else None
    return Split(
        stable=_matchers(cluster),
        candidate=_matchers(other or _no_cluster(route)),
        cohort=_of_cohort(route, aim),
    )


def _split_by_cookies(route: Object, aim: Aim, index: int, candidate: str) -> Split:
    """The places that stable's buckets have had and will have are the same in all steps."""
    refs = route["spec"]["rules"][index].get("backendRefs", [])
    names = [each.get("name") for each in refs]
    drawn = names.index(candidate) if candidate in names else CANDIDATE_PLACE
    others = "|".join(str(each) for each in range(cookies.MAX_BUCKETS) if each != drawn)
    kept = _own_index(route, own_rules.kept_rule(aim.rollout))
    sticky = _own_index(route, own_rules.sticky_rule(aim.rollout))
    if kept == sticky:
        # Neither is there yet.
        kept, sticky = kept + 2, sticky + 1
    return Split(
        stable=_among(route, f"{index}/backend/(?:{others})", f"{kept}/backend/0"),
        candidate=_among(route, f"{index}/backend/{drawn}", f"{sticky}/backend/0"),
        cohort=_of_cohort(route, aim),
    )


def _among(route: Object, *places: str) -> tuple[Matcher, ...]:
    """Clusters of rules of the route, by regular expressions of their places."""
    value = f"{re.escape(_prefix(route))}/rule/(?:{'|'.join(places)})"
    return (Matcher(label="envoy_cluster_name", operator=api.LabelOperator.MATCHES, value=value),)


def _of_cohort(route: Object, aim: Aim) -> tuple[Matcher, ...]:
    """The cohort's rule has a cluster of its own; none without a cohort, or before its rule is there."""
    if aim.traffic.candidate is None or not aim.traffic.cohort:
        return ()
    index = _own_index(route, own_rules.cohort_rule(aim.rollout))
    cluster = _cluster(route, index, aim.traffic.candidate.service)
    return _matchers(cluster) if cluster else ()


def _own_index(route: Object, name: str) -> int:
    """The place of a rule of ours; one behind all others if it is not there."""
    names = [each.get("name") for each in route["spec"]["rules"]]
    return names.index(name) if name in names else len(names)


def _cluster(route: Object, index: int, service: str) -> str | None:
    rules = route["spec"]["rules"]
    refs = rules[index].get("backendRefs", []) if index < len(rules) else []
    places = [place for place, each in enumerate(refs) if each.get("name") == service]
    return f"{_prefix(route)}/rule/{index}/backend/{places[0]}" if places else None


def _no_cluster(route: Object) -> str:
    return f"{_prefix(route)}/none"


def _prefix(route: Object) -> str:
    return f"httproute/{route['metadata']['namespace']}/{route['metadata']['name']}"


def _matchers(cluster: str) -> tuple[Matcher, ...]:
    return (Matcher(label="envoy_cluster_name", value=cluster),)
