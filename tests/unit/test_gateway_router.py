"""The order of the router's writes, and what it says when a gateway cannot do what is asked."""

from __future__ import annotations

import asyncio
import copy
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from builders import NOW, a_rollout
from modelrollout.adapters.cluster import (
    EXTENSION_POLICIES,
    FIELD_MANAGER,
    GATEWAY_CLASSES,
    GATEWAYS,
    HTTP_ROUTES,
    SECURITY_POLICIES,
    SERVICES,
    TRAFFIC_POLICIES,
)
from modelrollout.adapters.routers.gateway_api import GatewayAPIRouter
from modelrollout.adapters.routers.gateway_api.own_rules import names_of, sticky_rule
from modelrollout.api.conditions import Reason
from modelrollout.api.traffic import CohortMember, Sticky, StickyBy
from modelrollout.core.plan import Backend, Mirror, Traffic
from modelrollout.errors import Conflict, NotFound, Refused

STICKY = Sticky(header="x-user-id")
BETA = (CohortMember(header="x-beta", value="1"),)
REST = Traffic(
    stable=Backend(service="ranker-v1", label="ranker-v1"),
    candidate=None,
    weight=0,
    port=8080,
    retired=("ranker-v2",),
)
AWAY = replace(
    REST, candidate=Backend(service="ranker-v2", label="ranker-v2"), weight=20, retired=()
)
SHADOW = {"intent": "Change", "idempotent": True, "paths": ["/"], "format": "TFServing"}
ENVOY_GATEWAY = {EXTENSION_POLICIES, SECURITY_POLICIES, TRAFFIC_POLICIES}


class Site:
    """A namespace with a route and a gateway that takes up what is written, when it is told to."""

    def __init__(self, *rules, kinds=ENVOY_GATEWAY, has_lua=True):
        self.kinds = {HTTP_ROUTES, SERVICES, GATEWAYS, GATEWAY_CLASSES, *kinds}
        self.forbidden = set()
        self.has_lua = has_lua
        self.has_expressions = True
        self.now = NOW
        self.objects = defaultdict(dict)
        self.written = []
        spec = {"parentRefs": [{"name": "gw", "namespace": "infra"}], "rules": list(rules)}
        self.put(HTTP_ROUTES, {"metadata": {"name": "ranker", "namespace": "shop"}, "spec": spec})
        self.take_up()
        self.written.clear()
        self.router = GatewayAPIRouter(self, lambda: self.now)

    def put(self, resource, body):
        """Store an object as the API server does: a changed spec is another generation."""
        known = self.objects[resource].get(body["metadata"]["name"], {})
        is_new = known.get("spec") != body.get("spec")
        generation = known.get("metadata", {}).get("generation", 0) + is_new
        time = datetime.fromtimestamp(self.now, UTC).isoformat()
        meta = {
            **body["metadata"],
            "generation": generation,
            "managedFields": [{"manager": FIELD_MANAGER, "time": time}],
        }
        stored = copy.deepcopy({"status": known.get("status", {}), **body, "metadata": meta})
        self.objects[resource][meta["name"]] = stored
        self.written.append((resource, stored))

    async def get(self, resource, _namespace, name):
        """One object, or NotFound."""
        if name not in self.objects[resource]:
            raise NotFound(name)
        return copy.deepcopy(self.objects[resource][name])

    async def list(self, resource, _namespace=None, _selector=""):
        """All of a kind, or NotFound when the kind is not installed."""
        if resource in self.forbidden:
            raise Refused(f"{resource.plural} is forbidden")
        if resource not in self.kinds:
            raise NotFound(resource.plural)
        return copy.deepcopy(list(self.objects[resource].values()))

    async def patch(self, resource, _namespace, name, operations):
        """A test and a replacement."""
        body = copy.deepcopy(self.objects[resource][name])
        for each in operations:
            *path, last = each["path"].strip("/").split("/")
            parent = body
            for key in path:
                parent = parent[key]
            if each["op"] == "test" and parent[last] != each["value"]:
                raise Conflict(each["path"])
            parent[last] = each["value"]
        self.put(resource, body)

    async def apply(self, resource, _namespace, _name, body):
        """An object of ours, whole."""
        self.put(resource, body)

    async def delete(self, resource, _namespace, name):
        """Remove an object."""
        self.objects[resource].pop(name, None)
        self.written.append((resource, None))

    def take_up(self):
        """The gateway has seen everything; some seconds go by."""
        for each in self.objects[HTTP_ROUTES].values():
            told = [told_of(each, "Accepted", is_true=True)]
            told += [told_of(each, "ResolvedRefs", is_true=True)]
            if not self.has_expressions and "RegularExpression" in str(each["spec"]):
                unknown = told_of(each, "PartiallyInvalid", is_true=True)
                told += [unknown | {"reason": "UnsupportedValue", "message": "RegularExpression"}]
            each["status"] = {"parents": [{"conditions": told}]}
        for each in self.objects[EXTENSION_POLICIES].values():
            told = [told_of(each, "Accepted", is_true=self.has_lua)]
            each["status"] = {"ancestors": [{"conditions": told}]}
        self.now += 3

    def observe(self, traffic, **spec):
        """What a pass sees."""
        return asyncio.run(self.router.observe(rollout_with(**spec), traffic)).route

    def step(self, traffic, **spec):
        """One pass's write, which the gateway then takes up."""
        wrote = asyncio.run(self.router.set_traffic(rollout_with(**spec), traffic))
        self.take_up()
        return wrote

    def settle(self, traffic, **spec):
        """Passes until nothing is left to write."""
        for _ in range(20):
            if not self.step(traffic, **spec):
                return
        raise AssertionError(f"it writes for ever: {self.written[-2:]}")

    @property
    def rules(self):
        return self.objects[HTTP_ROUTES]["ranker"]["spec"]["rules"]

    @property
    def policy(self):
        return self.objects[EXTENSION_POLICIES].get("ranker-sticky")


def told_of(body, kind, *, is_true):
    return {
        "type": kind,
        "status": "True" if is_true else "False",
        "observedGeneration": body["metadata"]["generation"],
        "reason": "Accepted" if is_true else "Invalid",
        "message": "" if is_true else "Lua: the feature is disabled in the Gateway",
    }


def rollout_with(**traffic):
    return a_rollout(traffic={"gatewayAPI": {"route": "ranker"}} | traffic)


def a_rule(name=None, path="/", **more):
    ref = {"group": "", "kind": "Service", "name": "ranker-v1", "port": 8080, "weight": 1}
    header = {"set": [{"name": "x-model-version", "value": "ranker-v1"}]}
    ref["filters"] = [{"type": "ResponseHeaderModifier", "responseHeaderModifier": header}]
    rule = {"matches": [{"path": {"type": "PathPrefix", "value": path}}], "backendRefs": [ref]}
    return {**rule, **({"name": name} if name else {}), **more}


def targets(policy):
    return [each.get("sectionName") for each in policy["spec"]["targetRefs"]]


def test_the_policy_is_tried_on_a_rule_that_nobody_reaches_and_in_force_before_that_rule_wakes():
    site = Site(a_rule())
    site.settle(replace(AWAY, sticky=STICKY, cohort=BETA, salt="s"))
    kinds = [resource.plural for resource, _ in site.written]
    assert kinds == ["httproutes", "envoyextensionpolicies", "envoyextensionpolicies", "httproutes"]
    asleep, probe, whole, awake = (body for _, body in site.written)
    assert all("nobody" in str(each) for each in asleep["spec"]["rules"][1:])
    assert targets(probe) == [sticky_rule("ranker")]
    assert targets(whole) == [None]
    assert "nobody" not in str(awake)
    assert site.observe(replace(AWAY, sticky=STICKY, cohort=BETA, salt="s")).is_settled


def test_other_rules_of_the_route_get_no_policy():
    site = Site(a_rule("health", "/health"), a_rule("models", "/v2"))
    given = {"gatewayAPI": {"route": "ranker", "rule": "models"}}
    site.settle(replace(AWAY, sticky=STICKY), **given)
    assert targets(site.policy) == ["models", sticky_rule("ranker")]
    site.settle(replace(AWAY, sticky=STICKY, cohort=BETA), **given)
    assert targets(site.policy) == ["models", *names_of("ranker")[:2]]
    site.settle(REST, **given)
    assert site.rules == [a_rule("health", "/health"), a_rule("models", "/v2")]
    assert site.policy is None


def test_a_gateway_without_lua_never_gets_the_policy_on_the_users_rule():
    site = Site(a_rule(), has_lua=False)
    traffic = replace(AWAY, sticky=STICKY)
    site.settle(traffic)
    policies = [body for resource, body in site.written if resource == EXTENSION_POLICIES]
    assert [targets(each) for each in policies] == [[sticky_rule("ranker")]]
    route = site.observe(traffic)
    assert "enable Lua" in route.message
    assert not route.is_settled
    assert route.problem is None
    site.settle(REST)
    assert site.rules == [a_rule()]
    assert site.policy is None


def test_lua_taken_away_under_way_frees_the_users_rule_of_the_policy_first():
    site = Site(a_rule())
    traffic = replace(AWAY, sticky=STICKY)
    site.settle(traffic)
    site.has_lua = False
    site.take_up()
    site.step(traffic)
    assert targets(site.policy) == [sticky_rule("ranker")]
    site.settle(traffic)
    assert "nobody" in str(site.rules[1])
    site.has_lua = True
    site.take_up()
    site.settle(traffic)
    assert site.observe(traffic).is_settled


def test_sticky_users_without_envoy_gateway_are_refused_before_anything_moves():
    site = Site(a_rule(), kinds=())
    route = site.observe(REST, sticky={"header": "x-user-id"})
    assert route.problem is not None
    assert route.problem.reason is Reason.ROUTE_NOT_MANAGED
    assert "EnvoyExtensionPolicy CRD is not installed" in route.problem.message
    assert site.observe(REST).problem is None


def test_what_becomes_impossible_under_way_takes_users_back_to_stable_and_says_why():
    site = Site(a_rule())
    traffic = replace(AWAY, sticky=STICKY)
    site.settle(traffic)
    name = {"name": "theirs"}
    target = {"kind": "HTTPRoute", "name": "ranker"}
    site.put(EXTENSION_POLICIES, {"metadata": name, "spec": {"targetRefs": [target]}})
    route = site.observe(traffic)
    assert "EnvoyExtensionPolicy theirs is attached" in route.message
    assert route.problem is None
    site.settle(traffic)
    assert site.rules == [a_rule()]
    assert site.observe(traffic).problem is not None
    del site.objects[EXTENSION_POLICIES]["theirs"]
    site.settle(traffic)
    assert site.observe(traffic).is_settled


@pytest.mark.parametrize("kind", sorted(ENVOY_GATEWAY, key=lambda each: each.plural))
def test_a_policy_on_the_users_rule_by_its_name_does_not_hold_for_ours(kind):
    site = Site(a_rule("models"))
    target = {"kind": "HTTPRoute", "name": "ranker", "sectionName": "models"}
    site.put(kind, {"metadata": {"name": "auth"}, "spec": {"targetRefs": [target]}})
    given = {
        "gatewayAPI": {"route": "ranker", "rule": "models"},
        "cohort": [{"header": "x-beta", "value": "1"}],
    }
    problem = site.observe(REST, **given).problem
    assert problem is not None
    assert f"policy auth ({kind.plural}) is attached to rule models" in problem.message


def test_a_rollback_needs_no_policy_that_may_not_be_listed():
    given = {"gatewayAPI": {"route": "ranker", "rule": "models"}}
    site = Site(a_rule("models"))
    traffic = replace(AWAY, sticky=STICKY, cohort=BETA)
    site.settle(traffic, **given)
    site.forbidden = ENVOY_GATEWAY
    assert "may not list" in site.observe(traffic, **given).message
    site.settle(REST, **given)
    assert site.rules == [a_rule("models")]
    site.settle(replace(AWAY, cohort=BETA), **given)
    assert "cannot be seen" in site.observe(replace(AWAY, cohort=BETA), **given).message


def test_sticky_users_need_a_rule_with_the_two_versions_alone():
    rule = a_rule()
    rule["backendRefs"].append({"kind": "Service", "name": "legacy", "port": 80, "weight": 1})
    problem = Site(rule).observe(REST, sticky={"header": "x-user-id"}).problem
    assert problem is not None
    assert "the rule has other backends" in problem.message


def test_a_policy_of_our_name_that_is_somebody_elses_is_left_alone():
    site = Site(a_rule())
    site.put(EXTENSION_POLICIES, {"metadata": {"name": "ranker-sticky"}, "spec": {}})
    problem = site.observe(REST, sticky={"header": "x-user-id"}).problem
    assert problem is not None
    assert "ranker-sticky is not the operator's" in problem.message
    site.settle(replace(AWAY, sticky=STICKY))
    assert "lua" not in site.policy["spec"]


def test_nobody_is_mirrored_to_a_service_that_is_not_there():
    site = Site(a_rule())
    mirror = Mirror(service="ranker-comparator", port=8080, percent=20)
    traffic = replace(REST, mirror=mirror)
    site.settle(traffic)
    route = site.observe(traffic)
    assert site.rules == [a_rule()]
    assert "waits for Service ranker-comparator" in route.message
    assert route.problem is None
    service = {"metadata": {"name": "ranker-comparator"}, "spec": {"ports": [{"port": 8080}]}}
    site.put(SERVICES, service)
    site.settle(traffic)
    assert site.rules[0]["filters"][0]["requestMirror"]["percent"] == 20
    assert site.observe(traffic).is_settled
    del site.objects[SERVICES]["ranker-comparator"]
    assert not site.observe(traffic).is_settled
    site.settle(traffic)
    assert site.rules == [a_rule()]


@pytest.mark.parametrize(
    ("features", "is_refused"),
    [
        (["HTTPRouteRequestMirror", "HTTPRouteRequestPercentageMirror"], False),
        (["HTTPRouteRequestMirror"], True),
        ([], False),
    ],
)
def test_a_gateway_that_says_it_cannot_mirror_is_refused_and_one_that_says_nothing_is_not(
    features, is_refused
):
    site = Site(a_rule())
    site.put(GATEWAYS, {"metadata": {"name": "gw"}, "spec": {"gatewayClassName": "eg"}})
    listed = {"supportedFeatures": [{"name": each} for each in features]}
    site.put(GATEWAY_CLASSES, {"metadata": {"name": "eg"}, "status": listed})
    rollout = a_rollout(strategy={"type": "Shadow"}, shadow=SHADOW)
    problem = asyncio.run(site.router.observe(rollout, REST)).route.problem
    assert (problem is not None) is is_refused


def test_a_route_that_changed_since_it_was_read_is_not_written():
    site = Site(a_rule())
    read = site.get

    async def read_then_changed(resource, namespace, name):
        body = await read(resource, namespace, name)
        site.objects[HTTP_ROUTES]["ranker"]["spec"]["rules"][0]["timeouts"] = {"request": "1s"}
        return body

    site.get = read_then_changed
    with pytest.raises(Conflict):
        asyncio.run(site.router.set_traffic(rollout_with(), AWAY))


def test_a_managed_route_loses_what_somebody_else_put_into_it():
    site = Site(a_rule())
    given = {"gatewayAPI": {"gateway": {"name": "gw", "namespace": "infra"}}}
    del site.objects[HTTP_ROUTES]["ranker"]
    site.settle(replace(AWAY, cohort=BETA), **given)
    wanted = copy.deepcopy(site.rules)
    assert [each["name"] for each in wanted] == ["modelrollout", names_of("ranker")[0]]
    site.rules[0]["timeouts"] = {"request": "1s"}
    site.rules.append(a_rule("mine", "/mine"))
    assert not site.observe(replace(AWAY, cohort=BETA), **given).in_sync
    site.settle(replace(AWAY, cohort=BETA), **given)
    assert site.rules == wanted


# --- users told apart by cookies ----------------------------------------------------------

ISTIO = "istio.io/gateway-controller"
BY_UID = Sticky(cookie="uid")
BY_COOKIE = Sticky(by=StickyBy.COOKIE)
LADDER = {"salt": "ranker/r1", "weights": (10, 20, 50)}
SAYS_COOKIE = {"sticky": {"by": "Cookie"}}


def carried_out_by(controller, *rules):
    """A site whose gateway is somebody's, without the CRDs of Envoy Gateway."""
    site = Site(*(rules or [a_rule()]), kinds=())
    site.put(GATEWAYS, {"metadata": {"name": "gw"}, "spec": {"gatewayClassName": "edge"}})
    site.put(
        GATEWAY_CLASSES, {"metadata": {"name": "edge"}, "spec": {"controllerName": controller}}
    )
    site.written.clear()
    return site


def drawn(rule):
    """Service, weight and bucket of each backendRef that gives users a bucket."""
    found = []
    for ref in rule["backendRefs"]:
        (header,) = ref["filters"][0]["responseHeaderModifier"]["add"]
        bucket = header["value"].partition(";")[0].rpartition(".")[2]
        found.append((ref["name"], ref["weight"], bucket))
    return found


def test_on_a_gateway_that_has_no_lua_users_with_a_cookie_get_one_more():
    site = carried_out_by(ISTIO)
    assert site.observe(REST, sticky={"cookie": "uid"}).problem is None
    traffic = replace(AWAY, sticky=BY_UID, **LADDER)
    site.settle(traffic)
    # What is new is there before anybody is sent to it, and nobody gets a bucket before all do.
    assert [resource for resource, _ in site.written] == [HTTP_ROUTES] * 2
    assert "Set-Cookie" not in str(site.written[0][1])
    # The bucket that joins next is the last.
    assert drawn(site.rules[0]) == [
        ("ranker-v1", 50, "50-99"),
        ("ranker-v2", 20, "00-19"),
        ("ranker-v1", 30, "20-49"),
    ]
    assert [each.get("name") for each in site.rules[1:]] == list(names_of("ranker"))
    assert site.policy is None
    route = site.observe(traffic)
    assert route.is_settled
    assert route.sticky_by is StickyBy.COOKIE
    site.settle(replace(traffic, weight=50))
    assert drawn(site.rules[0]) == [("ranker-v1", 50, "50-99"), ("ranker-v2", 50, "00-49")]
    site.settle(REST)
    assert site.rules == [a_rule()]


def test_envoy_gateway_hashes():
    site = Site(a_rule())
    site.put(GATEWAYS, {"metadata": {"name": "gw"}, "spec": {"gatewayClassName": "eg"}})
    envoy = {"controllerName": "gateway.envoyproxy.io/gatewayclass-controller"}
    site.put(GATEWAY_CLASSES, {"metadata": {"name": "eg"}, "spec": envoy})
    traffic = replace(AWAY, sticky=BY_UID, **LADDER)
    site.settle(traffic)
    assert site.observe(traffic).sticky_by is StickyBy.HASH
    # Who asks for cookies gets them there, too, and what hashed goes.
    traffic = replace(AWAY, sticky=BY_COOKIE, **LADDER)
    site.settle(traffic)
    assert site.observe(traffic).sticky_by is StickyBy.COOKIE
    assert site.policy is None
    site.settle(REST)
    assert site.rules == [a_rule()]


@pytest.mark.parametrize(
    ("controller", "sticky", "words"),
    [
        (ISTIO, {"header": "x-user-id"}, "if your clients keep cookies"),
        (ISTIO, {"cookie": "uid", "by": "Hash"}, "traffic.sticky.by: Hash needs Envoy Gateway"),
        ("example.org/edge", {"cookie": "uid"}, "is of example.org/edge: give traffic.sticky.by"),
        ("example.org/edge", {"by": "Cookie"}, ""),
        (ISTIO, {"by": "Cookie"}, ""),
    ],
)
def test_who_is_not_known_to_be_able_is_not_tried_without_the_users_word(controller, sticky, words):
    site = carried_out_by(controller)
    problem = site.observe(REST, sticky=sticky).problem
    assert (problem is not None) is bool(words)
    assert problem is None or words in problem.message
    assert site.written == []


def test_a_gateway_that_does_not_know_the_matches_moves_nobody_and_says_why():
    site = carried_out_by("example.org/edge")
    site.has_expressions = False
    traffic = replace(AWAY, sticky=BY_COOKIE, **LADDER)
    site.settle(traffic)
    assert site.rules[0] == a_rule()
    assert all("nobody" in str(each) for each in site.rules[1:])
    route = site.observe(traffic)
    assert not route.is_settled
    assert route.problem is None
    assert "UnsupportedValue" in route.message
    assert "route through one, or leave out traffic.sticky" in route.message
    site.has_expressions = True
    site.take_up()
    site.settle(traffic)
    assert site.observe(traffic).is_settled
    site.settle(REST)
    assert site.rules == [a_rule()]


def headers_of(**modifier):
    return {"type": "ResponseHeaderModifier", "responseHeaderModifier": modifier}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"refs": headers_of(set=[{"name": "x-a", "value": "1"}])}, "set those headers in the"),
        ({"rule": headers_of(remove=["set-cookie"])}, "sets or removes Set-Cookie"),
        ({"rule": headers_of(set=[{"name": "Set-Cookie", "value": "a=b"}])}, "sets or removes"),
        ({"rule": headers_of(add=[{"name": "Set-Cookie", "value": "a=b"}])}, ""),
        ({"other": {"kind": "Service", "name": "x", "port": 80}}, "the rule has other backends"),
        ({"match": {"name": "cookie", "value": "a=b"}}, "matches on header cookie already"),
        ({"weights": range(1, 17)}, "at most 15 different weights"),
        ({"weights": range(1, 16)}, ""),
    ],
)
def test_what_leaves_no_room_for_a_cookie_is_refused_before_anything_moves(change, words):
    rule = a_rule()
    if "refs" in change:
        rule["backendRefs"][0]["filters"] = [change["refs"]]
    if "rule" in change:
        rule["filters"] = [change["rule"]]
    if "other" in change:
        rule["backendRefs"].append(change["other"])
    if "match" in change:
        rule["matches"][0]["headers"] = [change["match"]]
    site = carried_out_by(ISTIO, rule)
    steps = {"steps": [{"weight": each} for each in change.get("weights", (10, 50))]}
    rollout = a_rollout(traffic={"gatewayAPI": {"route": "ranker"}} | SAYS_COOKIE, strategy=steps)
    problem = asyncio.run(site.router.observe(rollout, REST)).route.problem
    assert (problem is not None) is bool(words)
    assert problem is None or words in problem.message


def test_the_longest_strategy_fits_a_rule():
    site = carried_out_by(ISTIO)
    traffic = replace(AWAY, weight=1, sticky=BY_COOKIE, salt="s", weights=tuple(range(1, 16)))
    site.settle(traffic)
    found = drawn(site.rules[0])
    assert len(found) == 16
    assert sum(weight for _, weight, _ in found) == 100


@pytest.mark.parametrize("is_managed", [False, True])
def test_what_somebody_makes_of_our_cookies_is_made_good(is_managed):
    site = carried_out_by(ISTIO)
    given = {"gatewayAPI": {"gateway": {"name": "gw", "namespace": "infra"}}} if is_managed else {}
    if is_managed:
        del site.objects[HTTP_ROUTES]["ranker"]
    traffic = replace(AWAY, sticky=BY_COOKIE, **LADDER)
    site.settle(traffic, **given)
    assert site.observe(traffic, **given).is_settled
    wanted = copy.deepcopy(site.rules)
    header = site.rules[0]["backendRefs"][1]["filters"][0]["responseHeaderModifier"]["add"][0]
    header["value"] = header["value"].replace("00-19", "00-99")
    assert not site.observe(traffic, **given).in_sync
    site.settle(traffic, **given)
    assert site.rules == wanted
    del site.rules[3]
    site.settle(traffic, **given)
    assert site.rules == wanted


def test_a_user_who_is_kept_at_stable_gets_all_that_the_rule_says_of_it():
    rule = a_rule(timeouts={"request": "3s"})
    rule["backendRefs"][0] |= {"port": 9090}
    rule["backendRefs"][0]["filters"].insert(0, {"type": "RequestHeaderModifier"})
    before = copy.deepcopy(rule)
    site = carried_out_by(ISTIO, rule)
    site.settle(replace(AWAY, sticky=BY_COOKIE, **LADDER))
    kept = site.rules[3]
    assert kept["timeouts"] == rule["timeouts"]
    assert kept["backendRefs"] == before["backendRefs"]
    for each in (0, 2):
        ref = site.rules[0]["backendRefs"][each]
        assert ref["port"] == 9090
        assert ref["filters"][0] == {"type": "RequestHeaderModifier"}
    site.settle(REST)
    assert site.rules == [before]
