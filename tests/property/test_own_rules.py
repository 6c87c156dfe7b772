"""On any way between two intents nobody meets a backend that is new to the proxy, or gone."""

from __future__ import annotations

import copy
import re

from hypothesis import given
from hypothesis import strategies as st

from modelrollout.adapters.routers.gateway_api.backends import cookie_of
from modelrollout.adapters.routers.gateway_api.buckets import Stage
from modelrollout.adapters.routers.gateway_api.own_rules import is_awake, names_of, service_of
from modelrollout.adapters.routers.gateway_api.route import (
    Aim,
    in_the_end,
    next_write,
    split_of,
)
from modelrollout.api.traffic import CohortMember, Sticky
from modelrollout.core.plan import Backend, BucketCookie, Mirror, Traffic
from modelrollout.core.shares import TRICKLE

SERVICES = ["v1", "v2", "v3"]
MOST_WRITES = 14
OURS = names_of("ranker")
COHORTS = st.sampled_from(
    [(), (CohortMember(header="x-beta", value="1"),), (CohortMember(cookie="b", value="1"),)]
)
COOKIE = BucketCookie(name="modelrollout-1", release="2")
WAYS = st.sampled_from(
    [
        {},
        {"sticky": Sticky(header="x-user-id")},
        {"sticky": Sticky(cookie="uid")},
        *[{"cookie": COOKIE, "weights": each} for each in ((), (50,), (5, 20, 50, 51, 80, 98))],
    ]
)
STAGES = st.sampled_from([Stage.PENDING, Stage.IN_FORCE, Stage.REFUSED])
MIRRORS = st.sampled_from(
    [None, *(Mirror(service="ranker-comparator", port=8080, percent=each) for each in (20, 100))]
)


def backend(name):
    return Backend(service=name, label=name)


def filtered(name, weight):
    header = {"set": [{"name": "x-model-version", "value": name}]}
    named = {"type": "ResponseHeaderModifier", "responseHeaderModifier": header}
    ref = {"group": "", "kind": "Service", "name": name, "port": 80, "weight": weight}
    return ref | {"filters": [named]}


def users_route(place):
    """A rule with a timeout and a filter at a place among other rules of the user's."""
    others = [
        {"name": f"other-{each}", "backendRefs": [filtered("v1", 3)]} for each in range(place)
    ]
    rule = {
        "name": "models",
        "matches": [{"path": {"type": "PathPrefix", "value": "/v2"}}],
        "filters": [{"type": "RequestHeaderModifier"}],
        "timeouts": {"request": "3s"},
        "backendRefs": [filtered("v1", 1)],
    }
    metadata = {"name": "r", "namespace": "shop"}
    return {"metadata": metadata, "spec": {"rules": [*others, rule]}}


@st.composite
def intents(draw, stable, on_trial):
    """What an operator may want while this version is stable."""
    wish = draw(st.sampled_from(["away", "away", "rest", "mirror"]))
    retired = tuple(each for each in SERVICES if each != stable)
    plain = Traffic(stable=backend(stable), candidate=None, weight=0, port=80, retired=retired)
    if wish == "rest":
        return plain
    if wish == "mirror":
        return Traffic(
            stable=backend(stable),
            candidate=None,
            weight=0,
            port=80,
            retired=retired,
            mirror=draw(MIRRORS),
        )
    return Traffic(
        stable=backend(stable),
        candidate=backend(on_trial),
        weight=draw(st.integers(1, 99)),
        port=80,
        retired=tuple(each for each in retired if each != on_trial),
        cohort=draw(COHORTS),
        **draw(WAYS),
    )


def aim_of(traffic, stage):
    buckets = stage if traffic.sticky else Stage.UNNEEDED
    if traffic.cookie and stage is Stage.REFUSED:
        buckets = stage
    return Aim(rollout="ranker", rule="models", traffic=traffic, buckets=buckets)


def way(route, traffic, stage):
    """All writes until nothing is left to do."""
    found = []
    while (write := next_write(route, aim_of(traffic, stage))).route != route:
        found.append((route, write))
        route = write.route
        assert len(found) < MOST_WRITES
    return route, found


@st.composite
def journeys(draw):
    """Intents one after the other, each followed for some writes, some to the end."""
    route = users_route(draw(st.integers(0, 2)))
    stable, on_trial, writes, is_promoted = "v1", "v2", [], False
    for _ in range(draw(st.integers(1, 4))):
        if is_promoted or draw(st.booleans()):
            # Another trial begins only when the route is at rest.
            route, before = way(route, aim_rest(stable), Stage.UNNEEDED)
            writes += before
            on_trial = draw(st.sampled_from([each for each in SERVICES if each != stable]))
        traffic = draw(intents(stable, on_trial))
        is_promoted = traffic.candidate is not None and draw(st.integers(0, 4)) == 0
        if is_promoted:
            stable, on_trial = on_trial, stable
            traffic = aim_rest(stable)
        for _ in range(draw(st.integers(1, 6))):
            write = next_write(route, aim_of(traffic, draw(STAGES)))
            if write.route == route:
                break
            writes.append((route, write))
            route = write.route
    return stable, route, writes


def aim_rest(stable):
    retired = tuple(each for each in SERVICES if each != stable)
    return Traffic(stable=backend(stable), candidate=None, weight=0, port=80, retired=retired)


def carrying(route):
    """Places of the versions that somebody can reach, by rule and backend: with which Service."""
    found = {}
    for index, rule in enumerate(route["spec"]["rules"]):
        if rule["name"].startswith("other"):
            continue
        refs = rule["backendRefs"]
        total = sum(each["weight"] for each in refs)
        for place, ref in enumerate(refs):
            if is_awake(rule) and ref["weight"] / total > 0.001:
                found[(index, place)] = ref["name"]
    return found


def present(route):
    return {
        (index, place): ref["name"]
        for index, rule in enumerate(route["spec"]["rules"])
        for place, ref in enumerate(rule["backendRefs"])
    }


@given(journeys())
def test_no_place_that_somebody_reaches_is_new_or_gone(journey):
    for before, write in journey[2]:
        for place, service in carrying(before).items():
            assert present(write.route).get(place) == service
        for place, service in carrying(write.route).items():
            assert present(before).get(place) == service


@given(journeys())
def test_a_write_that_sends_users_to_new_places_rests_first(journey):
    for before, write in journey[2]:
        if set(carrying(write.route)) - set(carrying(before)):
            assert write.needs_rest


@given(journeys())
def test_a_bucket_is_given_as_often_as_it_is_large(journey):
    for _, write in journey[2]:
        for rule in write.route["spec"]["rules"]:
            total = sum(each["weight"] for each in rule["backendRefs"])
            for ref in rule["backendRefs"]:
                bucket = cookie_of(ref)
                if bucket is not None:
                    first, last = re.search(r"[.](..)-(..);", bucket).groups()
                    assert round(100 * ref["weight"] / total) == int(last) - int(first) + 1


@given(journeys())
def test_the_users_other_rules_and_all_else_survive(journey):
    for before, write in journey[2]:
        after = write.route
        theirs = [each for each in before["spec"]["rules"] if each["name"] not in OURS]
        mine = [each for each in after["spec"]["rules"] if each["name"] not in OURS]
        assert after["metadata"] == before["metadata"]
        assert mine[:-1] == theirs[:-1]
        kept = {"name", "matches", "timeouts"}
        assert {key: mine[-1][key] for key in kept} == {key: theirs[-1][key] for key in kept}
        assert mine[-1]["filters"][0] == {"type": "RequestHeaderModifier"}


@given(journeys())
def test_the_first_write_of_a_rollback_takes_everybody_off_the_candidate(journey):
    stable, route, _ = journey
    write = next_write(route, aim_of(aim_rest(stable), Stage.UNNEEDED))
    rule = next(each for each in route["spec"]["rules"] if each["name"] == "models")
    has_users = rule["backendRefs"][0]["weight"] > TRICKLE or len(rule["backendRefs"]) == 1
    if rule["backendRefs"][0]["name"] == stable and has_users:
        assert set(carrying(write.route).values()) == {stable}
        assert set(carrying(route).values()) == {stable} or not write.needs_rest


@given(journeys())
def test_every_way_ends_and_rest_is_the_route_as_it_was(journey):
    stable, route, _ = journey
    at_last, _ = way(route, aim_rest(stable), Stage.UNNEEDED)
    assert at_last == in_the_end(route, aim_of(aim_rest(stable), Stage.UNNEEDED))
    place = next(at for at, each in enumerate(at_last["spec"]["rules"]) if each["name"] == "models")
    wanted = copy.deepcopy(users_route(place))
    wanted["spec"]["rules"][-1]["backendRefs"] = [filtered(stable, 1)]
    assert at_last == wanted


@given(journeys(), st.data())
def test_every_intent_is_reached_once_the_gateway_has_the_policy(journey, data):
    stable, route, _ = journey
    on_trial = data.draw(st.sampled_from([each for each in SERVICES if each != stable]))
    traffic = data.draw(intents(stable, on_trial))
    aim = aim_of(traffic, Stage.IN_FORCE)
    at_last, _ = way(route, traffic, Stage.IN_FORCE)
    assert at_last == in_the_end(at_last, aim)
    awake = [each for each in at_last["spec"]["rules"] if each["name"] in OURS and is_awake(each)]
    assert len(awake) == (bool(traffic.sticky) + 2 * bool(traffic.cookie) + bool(traffic.cohort))
    assert {service_of(each) for each in awake} <= {on_trial, *([stable] if traffic.cookie else [])}
    split = split_of(at_last, aim)
    assert split is not None
    assert split.stable != split.candidate


@given(journeys(), st.sampled_from([{"sticky": Sticky(header="x-user-id")}, {"cookie": COOKIE}]))
def test_nobody_is_told_apart_while_what_it_needs_is_refused(journey, sticky):
    _, route, _ = journey
    traffic = Traffic(
        stable=backend("v1"),
        candidate=backend("v2"),
        weight=30,
        port=80,
        retired=("v3",),
        cohort=(CohortMember(header="x-beta", value="1"),),
        **sticky,
    )
    write = next_write(route, aim_of(traffic, Stage.REFUSED))
    awake = [each for each in write.route["spec"]["rules"] if each["name"] in OURS]
    services = {service_of(each) for each in awake if is_awake(each)}
    assert "v2" not in services
