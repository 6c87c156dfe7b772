"""Mirrors, cohorts and sticky users: what is written on the route, and when it is refused."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from modelrollout.adapters.routers.gateway_api import buckets, mirror, own_rules, precedence
from modelrollout.adapters.routers.gateway_api.buckets import Stage
from modelrollout.adapters.routers.gateway_api.route import Aim, effective, in_the_end, split_of
from modelrollout.api.traffic import CohortMember, Sticky
from modelrollout.api.v1alpha1 import LabelOperator
from modelrollout.core.plan import Backend, BucketCookie, Mirror, Traffic

V1 = Backend(service="v1", label="v1")
V2 = Backend(service="v2", label="v2")
BETA = CohortMember(header="x-beta", value="1")
STICKY = Sticky(header="x-user-id")
PATH = {"path": {"type": "PathPrefix", "value": "/v2"}}
COMPARATOR = "ranker-comparator"


def away(weight=20, **more):
    return Traffic(stable=V1, candidate=V2, weight=weight, port=80, **more)


def a_rule(*matches, **more):
    refs = [{"group": "", "kind": "Service", "name": "v1", "port": 80, "weight": 1}]
    return {"matches": list(matches) or [PATH], "backendRefs": refs} | more


def a_route(*rules):
    return {"metadata": {"name": "r", "namespace": "shop"}, "spec": {"rules": list(rules)}}


def header(name, value="1", kind="Exact"):
    return {"name": name, "type": kind, "value": value}


# --- rules of our own ---------------------------------------------------------------------


def test_our_rules_have_all_that_the_users_rule_has():
    rule = a_rule(timeouts={"request": "3s"}, filters=[{"type": "X"}], name="models")
    cohort, sticky = own_rules.wanted_rules(rule, away(cohort=(BETA,), sticky=STICKY), "ranker")
    for each in (cohort, sticky):
        assert each["timeouts"] == {"request": "3s"}
        assert each["filters"] == [{"type": "X"}]
        assert [ref["name"] for ref in each["backendRefs"]] == ["v2"]
        assert [match["path"] for match in each["matches"]] == [PATH["path"]]
    assert (cohort["name"], sticky["name"]) == own_rules.names_of("ranker")[:2]


def test_each_match_of_the_users_is_met_by_each_member_of_the_cohort():
    rule = a_rule(PATH, {**PATH, "headers": [header("x-model", "a")]})
    cookie = CohortMember(cookie="group", value="beta")
    (cohort,) = own_rules.wanted_rules(rule, away(cohort=(BETA, cookie)), "ranker")
    assert [[each["name"] for each in match["headers"]] for match in cohort["matches"]] == [
        ["x-beta"],
        ["cookie"],
        ["x-model", "x-beta"],
        ["x-model", "cookie"],
    ]


@pytest.mark.parametrize(
    ("cookies", "is_member"),
    [
        ("group=b.(x)+", True),
        ("a=b; group=b.(x)+", True),
        ("a=b;group=b.(x)+ ; c=d", True),
        ("a=b; group=b.(x)+; group=other", True),
        ("group=bxxx", False),
        ("group=b.(x)+2", False),
        ("xgroup=b.(x)+", False),
        ("a=group=b.(x)+", False),
        ("Group=b.(x)+", False),
        ("", False),
    ],
)
def test_a_cookie_is_compared_to_the_letter(cookies, is_member):
    member = CohortMember(cookie="group", value="b.(x)+")
    (cohort,) = own_rules.wanted_rules(a_rule(), away(cohort=(member,)), "ranker")
    (match,) = cohort["matches"][0]["headers"]
    assert (re.fullmatch(match["value"], cookies) is not None) is is_member


def test_a_rule_that_sleeps_can_be_matched_by_nobody_and_wakes_as_it_was():
    (rule,) = own_rules.wanted_rules(a_rule(), away(cohort=(BETA,)), "ranker")
    sleeping = own_rules.asleep(rule)
    assert own_rules.is_awake(rule)
    assert not own_rules.is_awake(sleeping)
    assert own_rules.asleep(sleeping) == sleeping
    for text in ("", "x", "any thing\n"):
        assert re.fullmatch(own_rules.NOTHING, text) is None


def test_at_all_traffic_nobody_is_told_apart():
    traffic = effective(away(100, cohort=(BETA,), sticky=STICKY))
    assert own_rules.wanted_rules(a_rule(), traffic, "ranker") == []


def test_the_cohorts_requests_are_in_neither_arm_of_the_comparison():
    for traffic, wanted in (
        (away(cohort=(BETA,)), ("rule/0/backend/0", "rule/0/backend/1")),
        (away(cohort=(BETA,), sticky=STICKY), ("rule/0/backend/0", "rule/2/backend/0")),
    ):
        aim = Aim(rollout="ranker", rule=None, traffic=traffic, buckets=Stage.IN_FORCE)
        route = in_the_end(a_route(a_rule()), aim)
        names = [each.get("name") for each in route["spec"]["rules"]]
        assert names.index(own_rules.cohort_rule("ranker")) == 1
        split = split_of(route, aim)
        found = tuple(
            each[0].value.removeprefix("httproute/shop/r/")
            for each in (split.stable, split.candidate)
        )
        assert found == wanted


def test_with_cookies_every_place_of_a_version_is_counted_in_all_steps_alike():
    found = set()
    for weight in (10, 30, 50):
        cookie = BucketCookie(name="modelrollout-1", release="2")
        traffic = away(weight, cohort=(BETA,), cookie=cookie, weights=(10, 30, 50))
        aim = Aim(rollout="ranker", rule=None, traffic=traffic)
        route = in_the_end(a_route(a_rule()), aim)
        split = split_of(route, aim)
        found.add(split)
        for place, rule in enumerate(route["spec"]["rules"]):
            for at, ref in enumerate(rule["backendRefs"]):
                name = f"httproute/shop/r/rule/{place}/backend/{at}"
                is_cohort = rule.get("name") == own_rules.cohort_rule("ranker")
                assert counts(split.stable, name) is (ref["name"] == "v1")
                assert counts(split.candidate, name) is (ref["name"] == "v2" and not is_cohort)
                assert counts(split.cohort, name) is is_cohort
    assert len(found) == 1


def counts(matchers, cluster):
    """Whether a cluster of the gateway's is one of a side's."""
    (one,) = matchers
    if one.operator is LabelOperator.EQUAL:
        return one.value == cluster
    return re.fullmatch(one.value, cluster) is not None


# --- buckets ------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", range(1, 101))
def test_the_buckets_below_a_weight_are_as_many_as_it_says(weight):
    found = [each for each in range(100) if re.fullmatch(buckets.below(weight), f"{each:02d}")]
    assert found == list(range(weight))


def test_another_release_is_tried_by_other_users_first():
    assert buckets.script(STICKY, "ranker/r1") != buckets.script(STICKY, "ranker/r2")
    assert buckets.script(STICKY, "ranker/r1") == buckets.script(STICKY, "ranker/r1")


@pytest.mark.parametrize("sticky", [STICKY, Sticky(cookie="user%id|~^")])
def test_the_script_is_whole(sticky):
    text = buckets.script(sticky, "ranker/r1")
    assert "@" not in text
    assert f'"{sticky.header or sticky.cookie}"' in text


def a_policy(*conditions, generation=2, name="ranker-sticky", **spec):
    told = [
        {"type": kind, "status": status, "observedGeneration": seen, "reason": "R", "message": "m"}
        for kind, status, seen in conditions
    ]
    return {
        "metadata": {
            "name": name,
            "generation": generation,
            "labels": {"modelrollout.dev/rollout": "ranker"},
        },
        "spec": spec,
        "status": {"ancestors": [{"conditions": told}] if told else []},
    }


@pytest.mark.parametrize(
    ("conditions", "stage"),
    [
        ([], Stage.PENDING),
        ([("Accepted", "True", 1)], Stage.PENDING),
        ([("Accepted", "False", 1)], Stage.PENDING),
        ([("Accepted", "True", 2)], Stage.IN_FORCE),
        ([("Accepted", "False", 2)], Stage.REFUSED),
        ([("Accepted", "True", 2), ("Merged", "True", 2)], Stage.REFUSED),
    ],
)
def test_a_policy_is_in_force_when_the_gateway_says_so_of_this_generation(conditions, stage):
    assert buckets.answer(a_policy(*conditions), 1).stage is stage


def test_every_gateway_of_the_route_must_accept_the_policy():
    policy = a_policy(("Accepted", "True", 2))
    assert buckets.answer(policy, 1).stage is Stage.IN_FORCE
    assert buckets.answer(policy, 2).stage is Stage.PENDING
    policy["status"]["ancestors"].append({"conditions": []})
    assert buckets.answer(policy, 2).stage is Stage.PENDING


@pytest.mark.parametrize(
    ("spec", "rule", "is_about"),
    [
        ({"targetRefs": [{"kind": "HTTPRoute", "name": "r"}]}, None, True),
        ({"targetRef": {"kind": "HTTPRoute", "name": "r"}}, None, True),
        ({"targetRefs": [{"kind": "HTTPRoute", "name": "s"}]}, None, False),
        ({"targetRefs": [{"kind": "Gateway", "name": "r"}]}, None, False),
        ({"targetRefs": [{"kind": "HTTPRoute", "name": "r", "sectionName": "m"}]}, "m", True),
        ({"targetRefs": [{"kind": "HTTPRoute", "name": "r", "sectionName": "m"}]}, None, False),
        ({"targetRefs": [{"kind": "HTTPRoute", "name": "r"}]}, "m", False),
        ({"targetSelectors": [{"kind": "HTTPRoute", "matchLabels": {"a": "b"}}]}, None, True),
        ({"targetSelectors": [{"kind": "HTTPRoute", "matchLabels": {"a": "c"}}]}, None, False),
    ],
)
def test_a_policy_of_somebody_elses_is_seen(spec, rule, is_about):
    route = {"metadata": {"name": "r", "labels": {"a": "b"}}}
    assert buckets.targets(a_policy(**spec), route, rule) is is_about


# --- beside rules of the user's -----------------------------------------------------------


def obstacle(rules, index, traffic):
    own = own_rules.wanted_rules(rules[index], traffic, "ranker")
    return precedence.obstacle(rules, index, own)


MODEL_A = {**PATH, "headers": [header("x-model", "a")]}
MODEL_B = {**PATH, "headers": [header("x-model", "b")]}
DEBUG = {**PATH, "queryParams": [{"name": "debug", "type": "Exact", "value": "1"}]}
TRACED = {**PATH, "headers": [header("x-trace", ".+", "RegularExpression")]}
POST = {**PATH, "method": "POST"}
DEEPER = {"path": {"type": "PathPrefix", "value": "/v2/models"}}


@pytest.mark.parametrize(
    ("other", "mine", "is_first", "taken"),
    [
        (DEEPER, PATH, True, False),
        (MODEL_A, MODEL_B, True, False),
        (POST, {**PATH, "method": "GET"}, True, False),
        (PATH, MODEL_A, True, False),
        ({**PATH, "headers": [header("x-group")]}, PATH, True, False),
        (DEBUG, PATH, True, True),
        (DEBUG, PATH, False, True),
        (TRACED, PATH, False, True),
        (PATH, PATH, True, True),
        (PATH, PATH, False, False),
    ],
)
def test_requests_of_other_rules_are_never_taken(other, mine, is_first, taken):
    rules = [a_rule(other, name="other"), a_rule(mine)]
    index = 1 if is_first else 0
    rules = rules if is_first else rules[::-1]
    said = obstacle(rules, index, away(cohort=(BETA,)))
    assert ("rule other of the HTTPRoute has the same path" in said) is taken


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ([a_rule({**PATH, "headers": [header("X-Beta", "2")]})], "matches on header x-beta"),
        ([a_rule(DEEPER)] * 15 + [a_rule()], "17 rules"),
        ([a_rule(*[PATH] * 40)], "120 matches"),
        (
            [
                a_rule(
                    filters=[{"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplacePrefixMatch"}}}]
                )
            ],
            "rewrites its path's prefix",
        ),
    ],
)  # fmt: skip
def test_what_gateway_api_would_refuse_is_said_before(rules, words):
    cohort = (BETA, CohortMember(cookie="b", value="1"))
    said = obstacle(rules, len(rules) - 1, away(cohort=cohort))
    assert words.lower() in said.lower()


# --- mirror -------------------------------------------------------------------------------


def a_mirror(percent=20):
    return Mirror(service=COMPARATOR, port=8080, percent=percent)


def copied_to(name, percent=None):
    backend = {"group": "", "kind": "Service", "name": name, "port": 8080}
    share = {} if percent is None else {"percent": percent}
    return {"type": "RequestMirror", "requestMirror": {"backendRef": backend} | share}


@pytest.mark.parametrize("filters", [[], [{"type": "X"}, {"type": "Y"}]])
def test_a_mirror_comes_grows_and_goes_and_other_filters_stay(filters):
    before = a_rule(filters=filters) if filters else a_rule()
    small = mirror.with_mirror(before, COMPARATOR, a_mirror())
    assert small["filters"] == [*filters, copied_to(COMPARATOR, 20)]
    large = mirror.with_mirror(small, COMPARATOR, a_mirror(100))
    assert large["filters"] == [*filters, copied_to(COMPARATOR, 100)]
    assert mirror.with_mirror(large, COMPARATOR, None) == before


def test_a_mirror_keeps_its_place():
    rule = a_rule(filters=[copied_to(COMPARATOR, 20), {"type": "X"}])
    after = mirror.with_mirror(rule, COMPARATOR, a_mirror(50))
    assert after["filters"] == [copied_to(COMPARATOR, 50), {"type": "X"}]


ALL = frozenset(mirror.FEATURES)


@pytest.mark.parametrize(
    ("filters", "features", "words"),
    [
        ([], ALL, ""),
        ([], frozenset(), ""),
        ([copied_to(COMPARATOR, 20)], ALL, ""),
        ([copied_to("archive")], ALL, "RequestMirror filter of its own"),
        ([], frozenset({"HTTPRouteRequestMirror"}), "not list HTTPRouteRequestPercentageMirror in"),
        ([], frozenset({"HTTPRoute"}), "HTTPRouteRequestMirror and HTTPRouteRequestPercentage"),
    ],
)
def test_a_mirror_is_refused_with_the_cause(filters, features, words):
    said = mirror.obstacle(a_rule(filters=filters), COMPARATOR, features)
    assert words in said
    assert bool(words) is bool(said)


def test_a_mirror_changes_nothing_for_users():
    traffic = Traffic(stable=V1, candidate=None, weight=0, port=80, mirror=a_mirror())
    aim = Aim(rollout="ranker", rule=None, traffic=traffic)
    before = in_the_end(a_route(a_rule()), replace(aim, traffic=replace(traffic, mirror=None)))
    after = in_the_end(before, aim)
    assert after["spec"]["rules"][0].pop("filters") == [copied_to(COMPARATOR, 20)]
    assert after == before
