"""Users with cookie jars before a gateway in miniature: who is on the candidate, and who moves."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelrollout.adapters.routers.gateway_api import cookies
from modelrollout.adapters.routers.gateway_api.cookies import Bucket
from modelrollout.adapters.routers.gateway_api.route import Aim, effective, in_the_end
from modelrollout.api.traffic import CohortMember
from modelrollout.core.plan import Backend, Traffic

STABLE, CANDIDATE = Backend(service="v1", label="v1"), Backend(service="v2", label="v2")
PEOPLE = 100
NAMES = ("x-beta", "cookie")
LADDERS = st.sets(st.integers(1, 99), min_size=1, max_size=4).map(sorted)
LONGEST = list(range(3, 99, 7))
few = settings(max_examples=5)
"""Each walks many users up a whole ladder."""


def a_route():
    ref = {"group": "", "kind": "Service", "name": "v1", "port": 80, "weight": 1}
    rule = {"matches": [{"path": {"type": "PathPrefix", "value": "/"}}], "backendRefs": [ref]}
    return {"metadata": {"name": "r", "namespace": "shop"}, "spec": {"rules": [rule]}}


def at(weight, weights, *, revision="r1", cohort=(), before=None):
    """The route at a weight of a strategy."""
    traffic = Traffic(
        stable=STABLE,
        candidate=CANDIDATE,
        weight=weight,
        port=80,
        cohort=cohort,
        weights=tuple(weights),
        cookie=cookies.cookie_of("shop", "ranker", f"ranker/{revision}"),
    )
    aim = Aim(rollout="ranker", rule=None, traffic=effective(traffic))
    return in_the_end(before or a_route(), aim)


def at_rest(before):
    """The route when a rollout is over and stable has everybody."""
    traffic = Traffic(stable=STABLE, candidate=None, weight=0, port=80, retired=("v2",))
    route = before
    for _ in range(3):
        route = in_the_end(route, Aim(rollout="ranker", rule=None, traffic=traffic))
    return route


@dataclass
class Visitor:
    """Somebody with a browser; `luck` from 0 to 1 is what the gateway draws for them."""

    luck: float
    headers: dict[str, str] = field(default_factory=dict)
    jar: dict[str, str] = field(default_factory=lambda: {"theme": "dark"})

    def ask(self, route):
        """The Service that answers."""
        sent = {"cookie": "; ".join(f"{key}={value}" for key, value in self.jar.items())}
        ref = drawn(rule_for(route, sent | self.headers)["backendRefs"], self.luck)
        for each in ref["filters"]:
            for header in each["responseHeaderModifier"].get("add", []):
                name, _, value = header["value"].partition(";")[0].partition("=")
                self.jar[name] = value
        return ref["name"]


def rule_for(route, headers):
    """More headers win, then the rule that comes first."""
    found = [
        (-len(match.get("headers", [])), place)
        for place, rule in enumerate(route["spec"]["rules"])
        for match in rule["matches"]
        if all(meets(each, headers) for each in match.get("headers", []))
    ]
    return route["spec"]["rules"][min(found)[1]]


def meets(wanted, headers):
    value = headers.get(wanted["name"])
    if value is None:
        return False
    if wanted["type"] == "RegularExpression":
        # Some implementations look for it anywhere, others hold it against the whole value.
        whole = re.fullmatch(wanted["value"], value) is not None
        assert whole is (re.search(wanted["value"], value) is not None)
        return whole
    return wanted["value"] == value


def drawn(refs, luck):
    at = luck * sum(each["weight"] for each in refs)
    for each in refs:
        at -= each["weight"]
        if at < 0:
            return each
    raise AssertionError("luck is below 1")


def crowd():
    return [Visitor(luck=(each + 0.5) / PEOPLE) for each in range(PEOPLE)]


def on_candidate(people, route):
    return {number for number, each in enumerate(people) if each.ask(route) == "v2"}


@few
@example(LONGEST)
@given(LADDERS)
def test_everybody_stays_but_those_who_must_move(weights):
    route, people, before = a_route(), crowd(), set()
    for weight in weights:
        route = at(weight, weights, before=route)
        now = on_candidate(people, route)
        assert len(now) == weight
        assert before <= now
        assert on_candidate(people, route) == now
        # A visitor's luck at a first visit decides nothing afterwards.
        for each in people:
            each.luck = 1 - each.luck
        assert on_candidate(people, route) == now
        before = now


@few
@given(LADDERS)
def test_whoever_comes_late_is_shared_out_as_those_who_came_before(weights):
    groups, route = [], a_route()
    for weight in weights:
        route = at(weight, weights, before=route)
        groups.append(crowd())
        for people in groups:
            assert len(on_candidate(people, route)) == weight


@few
@given(LADDERS, st.integers(0, 3))
def test_nobody_is_on_the_candidate_after_a_rollback_whatever_cookie_they_have(weights, place):
    weight = weights[min(place, len(weights) - 1)]
    people = crowd()
    route = at(weight, weights)
    on_candidate(people, route)
    after = at_rest(route)
    assert on_candidate(people, after) == set()
    assert [each.get("name") for each in after["spec"]["rules"]] == [None]
    (ref,) = after["spec"]["rules"][0]["backendRefs"]
    assert "add" not in ref["filters"][0]["responseHeaderModifier"]


@few
@given(LADDERS)
def test_the_next_release_is_drawn_anew(weights):
    people = crowd()
    on_candidate(people, at(weights[0], weights))
    strangers = crowd()
    for each in (*people, *strangers):
        each.luck = 1 - each.luck
    route = at(weights[0], weights, revision="r2")
    assert on_candidate(people, route) == on_candidate(strangers, route)
    # One cookie for all releases: jars do not fill up.
    assert {len(each.jar) for each in people} == {2}


@few
@given(LADDERS, LADDERS, st.integers(1, 99))
def test_a_strategy_that_is_edited_moves_nobody_while_the_weight_stays(before, after, weight):
    people = crowd()
    steps = sorted({*before, weight})
    first = on_candidate(people, at(weight, steps))
    assert on_candidate(people, at(weight, after, before=at(weight, steps))) == first


@given(st.integers(0, 99), st.integers(0, 99), st.integers(1, 99))
def test_a_bucket_is_on_one_side_or_drawn_anew(first, last, weight):
    first, last = sorted((first, last))
    cookie = cookies.cookie_of("shop", "ranker", "ranker/r1")
    pair = cookies.set_cookie(cookie, Bucket(first=first, last=last)).partition(";")[0]
    sent = {"cookie": pair}
    assert meets(cookies.of_candidate(cookie, weight), sent) is (last < weight)
    assert meets(cookies.of_stable(cookie, weight), sent) is (first >= weight)


@few
@given(LADDERS, st.sampled_from(NAMES))
def test_the_cohort_is_on_the_candidate_with_whatever_bucket(weights, name):
    member = (
        CohortMember(header="x-beta", value="1")
        if name == "x-beta"
        else CohortMember(cookie="group", value="beta")
    )
    people, route = crowd(), at(weights[0], weights)
    on_candidate(people, route)
    for each in people:
        each.headers.update({"x-beta": "1"} if name == "x-beta" else {})
        each.jar.update({"group": "beta"} if name == "cookie" else {})
    # Also where it is named when users have their buckets already.
    route = at(weights[0], weights, cohort=(member,), before=route)
    assert len(on_candidate(people, route)) == PEOPLE


@few
@given(LADDERS)
def test_requests_that_keep_no_cookie_are_shared_out_one_by_one(weights):
    for weight in weights:
        route, found = at(weight, weights), set()
        for number, each in enumerate(crowd()):
            each.jar.clear()
            found |= {number} if each.ask(route) == "v2" else set()
        assert len(found) == weight
