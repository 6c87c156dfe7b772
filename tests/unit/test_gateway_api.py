"""What becomes of an HTTPRoute: only the two versions' backendRefs of one rule."""

from __future__ import annotations

import copy

import pytest

from builders import a_rollout
from modelrollout.adapters.routers.gateway_api import route as routes
from modelrollout.adapters.routers.gateway_api.route import (
    Aim,
    acceptance,
    as_managed,
    in_the_end,
    is_within,
    managed,
    next_write,
)
from modelrollout.core.plan import Backend, Traffic
from modelrollout.errors import RouterRefused

V1 = Backend(service="v1", label="v1")
V2 = Backend(service="v2", label="2.0.1")


def ref(name, weight=1, **more):
    return {"group": "", "kind": "Service", "name": name, "port": 80, "weight": weight} | more


def route(*rules):
    return {
        "metadata": {"name": "r", "namespace": "shop", "generation": 3, "annotations": {"a": "b"}},
        "spec": {"hostnames": ["x.example"], "rules": list(rules)},
    }


def traffic(weight, *, candidate=V2, stable=V1, retired=()):
    return Traffic(
        stable=stable,
        candidate=candidate if weight else None,
        weight=weight,
        port=80,
        retired=tuple(retired),
    )


def shares(given, rule=0):
    return [(each["name"], each["weight"]) for each in given["spec"]["rules"][rule]["backendRefs"]]


def aim(rule, wanted):
    return Aim(rollout="ranker", rule=rule, traffic=wanted)


def edited(before, rule, wanted):
    """The route after the next write."""
    return next_write(before, aim(rule, wanted)).route


def settled(before, rule, wanted):
    """The route when nothing is left to write."""
    way = [before]
    while (after := edited(way[-1], rule, wanted)) != way[-1]:
        way.append(after)
        assert len(way) < 8
    assert way[-1] == in_the_end(before, aim(rule, wanted))
    return way[-1]


def at_rest(name="v1", label=None, weight=1):
    header = {"set": [{"name": "x-model-version", "value": label or name}]}
    named = {"type": "ResponseHeaderModifier", "responseHeaderModifier": header}
    return route({"backendRefs": [ref(name, weight, filters=[named])]})


def test_a_lone_backend_is_shared_in_percent_with_stable_first():
    assert shares(settled(at_rest(), None, traffic(5))) == [("v1", 95), ("v2", 5)]


def test_a_route_as_the_user_wrote_it_gets_nothing_but_the_name_of_its_version():
    assert settled(route({"backendRefs": [ref("v1")]}), None, traffic(0)) == at_rest()


def test_all_traffic_on_the_candidate_leaves_stable_a_trickle():
    after = settled(at_rest(), None, traffic(100))
    assert shares(after) == [("v1", 1), ("v2", 999_999)]


def test_each_version_names_itself_in_a_response_header():
    after = settled(at_rest(), None, traffic(5))
    headers = [
        each["filters"][0]["responseHeaderModifier"]["set"][0]
        for each in after["spec"]["rules"][0]["backendRefs"]
    ]
    assert headers == [
        {"name": "x-model-version", "value": "v1"},
        {"name": "x-model-version", "value": "2.0.1"},
    ]


def test_a_rollback_takes_the_candidate_off_the_route_and_leaves_it_as_it_was():
    away = settled(at_rest(), None, traffic(50))
    assert settled(away, None, traffic(0, retired=["v2"])) == at_rest()


def test_a_promotion_replaces_the_old_stable():
    away = settled(at_rest(), None, traffic(100))
    after = settled(away, None, traffic(0, stable=V2, retired=["v1"]))
    assert after == at_rest("v2", "2.0.1")


def test_at_rest_nothing_is_written():
    before = at_rest(weight=7)
    assert edited(before, None, traffic(0)) == before


def test_everything_that_is_not_ours_survives():
    rules = [
        {"name": "other", "matches": [{"path": {"value": "/x"}}], "backendRefs": [ref("v1", 3)]},
        {
            "name": "models",
            "filters": [{"type": "RequestHeaderModifier"}],
            "timeouts": {"request": "3s"},
            "backendRefs": [ref("legacy", 100), ref("v1", 900, filters=[{"type": "X"}])],
        },
    ]
    before = route(*rules)
    kept = copy.deepcopy(before)
    after = edited(before, "models", traffic(5))
    assert before == kept
    assert after["spec"]["rules"][0] == rules[0]
    assert shares(after, 1) == [("legacy", 100), ("v1", 855), ("v2", 45)]
    assert after["spec"]["rules"][1]["backendRefs"][1]["filters"][0] == {"type": "X"}
    assert after["metadata"] == before["metadata"]
    assert shares(edited(after, "models", traffic(0, retired=["v2"])), 1) == [
        ("legacy", 100),
        ("v1", 900),
    ]


def test_weights_beside_other_backends_must_divide():
    with pytest.raises(RouterRefused, match="multiple of 100"):
        edited(route({"backendRefs": [ref("legacy"), ref("v1")]}), None, traffic(5))


def test_a_response_header_of_the_users_own_is_not_repeated():
    own = {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": "y"}]}}
    before = route({"backendRefs": [ref("v1", filters=[own])]})
    after = edited(before, None, traffic(5))
    assert after["spec"]["rules"][0]["backendRefs"][0]["filters"] == [own]
    assert settled(after, None, traffic(0, retired=["v2"])) == before


@pytest.mark.parametrize(
    ("rules", "name", "words"),
    [
        ([{"backendRefs": [ref("v1")]}] * 2, None, "has 2 rules: name the one"),
        ([{"backendRefs": [ref("v1")]}], "models", "0 rules named 'models'"),
        ([{"backendRefs": [ref("v9")]}], None, "no backendRef to Service v1"),
        ([{}], None, "no backendRef to Service v1"),
        ([{"backendRefs": [ref("v1", namespace="other")]}], None, "no backendRef to Service v1"),
    ],
)
def test_a_route_that_is_not_understood_is_not_touched(rules, name, words):
    with pytest.raises(RouterRefused, match=words):
        edited(route(*rules), name, traffic(5))


def parent(**conditions):
    return {
        "conditions": [
            {"type": kind, "status": status, "observedGeneration": generation, "reason": "R"}
            for kind, (status, generation) in conditions.items()
        ]
    }


@pytest.mark.parametrize(
    ("parents", "accepted"),
    [
        ([], False),
        ([parent(Accepted=("True", 3), ResolvedRefs=("True", 3))], True),
        ([parent(Accepted=("True", 2), ResolvedRefs=("True", 3))], False),
        ([parent(Accepted=("True", 3), ResolvedRefs=("False", 3))], False),
        ([parent(Accepted=("True", 3))], False),
        ([parent(Accepted=("True", 3), ResolvedRefs=("True", 3)), parent()], False),
    ],
)
def test_a_weight_counts_when_every_parent_has_taken_up_this_generation(parents, accepted):
    given = route() | {"status": {"parents": parents}}
    assert acceptance(given)[0] is accepted


def test_the_metrics_of_the_two_backends_are_told_apart_by_their_place():
    after = edited(
        route({"backendRefs": [ref("old")]}, {"name": "m", "backendRefs": [ref("v1")]}),
        "m",
        traffic(5),
    )
    split = routes.split_of(after, aim("m", traffic(5)))
    assert split.stable[0].value == "httproute/shop/r/rule/1/backend/0"
    assert split.candidate[0].value == "httproute/shop/r/rule/1/backend/1"


def test_a_managed_route_is_whole_and_ours():
    rollout = a_rollout(
        traffic={
            "gatewayAPI": {
                "gateway": {"name": "gw", "namespace": "infra"},
                "hostnames": ["m.example"],
                "deletionPolicy": "Delete",
            }
        }
    )
    new = managed(rollout, traffic(20))
    assert routes.is_ours(new)
    assert shares(new) == [("v1", 1)]
    wanted = settled(as_managed(rollout, new, traffic(20)), "modelrollout", traffic(20))
    assert wanted["spec"]["parentRefs"] == [{"name": "gw", "namespace": "infra"}]
    assert shares(wanted) == [("v1", 80), ("v2", 20)]
    assert wanted["metadata"]["ownerReferences"][0]["uid"] == "u-1"
    live = copy.deepcopy(wanted)
    live["spec"]["parentRefs"][0]["kind"] = "Gateway"
    assert is_within(wanted, live)
    live["spec"]["rules"].append({})
    assert not is_within(wanted, live)
    assert as_managed(rollout, live, traffic(20)) == wanted
