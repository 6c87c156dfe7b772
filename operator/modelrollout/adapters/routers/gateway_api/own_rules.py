"""
Pure: rules of our own beside the user's rule, for users whom a weight does not decide about.

The cohort's rule has the user's matches and one more header, or cookie: more specific matches
win. The sticky rule matches the buckets below the weight. Both lead to the candidate alone. Where
buckets are cookies, users without one are drawn in the user's rule, and a rule that leads to
stable keeps those who are there. All have all else of the user's rule: filters, timeouts, retries.

A rule that is new has an Envoy cluster that is new, and a rule that goes takes its cluster with
it. So a rule is asleep at first, and again at last: it is on the route, with a match that nobody
can have. Rules are added behind all others and taken away from the end, as the place of a rule is
part of its cluster's name.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from modelrollout.adapters.cluster import Object
from modelrollout.adapters.routers.gateway_api import buckets, cookies
from modelrollout.adapters.routers.gateway_api.backends import backend_ref
from modelrollout.api import v1alpha1 as api
from modelrollout.core.plan import Traffic

NOBODY_HEADER = "x-modelrollout-nobody"
NOTHING = r"[^\s\S]"
"""A regular expression that matches no text at all."""
EVERYTHING = [{"path": {"type": "PathPrefix", "value": "/"}}]
"""What a rule without matches matches."""
NOBODY = {"type": "RegularExpression", "name": NOBODY_HEADER, "value": NOTHING}


def cohort_rule(rollout: str) -> str:
    """The name of the rule for the cohort."""
    return f"modelrollout-{rollout}-cohort"


def sticky_rule(rollout: str) -> str:
    """The name of the rule for the candidate's buckets."""
    return f"modelrollout-{rollout}-sticky"


def kept_rule(rollout: str) -> str:
    """The name of the rule for stable's buckets, where they are cookies."""
    return f"modelrollout-{rollout}-kept"


def names_of(rollout: str) -> tuple[str, str, str]:
    """The names of all rules of a rollout."""
    return cohort_rule(rollout), sticky_rule(rollout), kept_rule(rollout)


# --- what they are to be ------------------------------------------------------------------


def wanted_rules(rule: Object, traffic: Traffic, rollout: str) -> list[Object]:
    """The rules beside the user's rule while the candidate has weight, awake."""
    if traffic.candidate is None:
        return []
    candidate, stable = traffic.candidate.service, traffic.stable.service
    # Those who are kept at stable get what the user's rule says of it, to the letter.
    given = next((each for each in rule.get("backendRefs", []) if each["name"] == stable), None)
    found = []
    for name, heads in _heads(traffic, rollout):
        is_kept = name == kept_rule(rollout)
        ref = backend_ref(given if is_kept else None, stable if is_kept else candidate, 1, traffic)
        refs = [ref]
        matches = [
            {**match, "headers": [*match.get("headers", []), *head]}
            for match in rule.get("matches", EVERYTHING)
            for head in heads
        ]
        own = {"name": name, "matches": matches, "backendRefs": refs}
        found.append({**rule, **own})
    return found


def _heads(traffic: Traffic, rollout: str) -> list[tuple[str, list[list[Object]]]]:
    """By rule: the header matches, any list of which is enough."""
    if traffic.cookie is not None:
        # With as many headers as the others, the cohort goes first by its place: it is always there.
        members = [[_member(each)] for each in traffic.cohort] or [[NOBODY]]
        return [
            (cohort_rule(rollout), members),
            (sticky_rule(rollout), [[cookies.of_candidate(traffic.cookie, traffic.weight)]]),
            (kept_rule(rollout), [[cookies.of_stable(traffic.cookie, traffic.weight)]]),
        ]
    found = []
    # With buckets the cohort matches one header more than the sticky rule: it goes first.
    also = [_bucket(buckets.ANY)] if traffic.sticky is not None else []
    if traffic.cohort:
        found.append((cohort_rule(rollout), [[_member(each), *also] for each in traffic.cohort]))
    if traffic.sticky is not None:
        found.append((sticky_rule(rollout), [[_bucket(buckets.below(traffic.weight))]]))
    return found


def _bucket(expression: str) -> Object:
    return {"type": "RegularExpression", "name": buckets.HEADER, "value": expression}


def _member(member: api.CohortMember) -> Object:
    if member.header is not None:
        return {"type": "Exact", "name": member.header, "value": member.value}
    assert member.cookie is not None
    return cookies.matching(f"{re.escape(member.cookie)}={re.escape(member.value)}")


# --- from write to write ------------------------------------------------------------------


def is_awake(rule: Object) -> bool:
    """Whether somebody can match it."""
    return any(NOBODY not in match.get("headers", []) for match in rule.get("matches", EVERYTHING))


def has_hash(rule: Object) -> bool:
    """Whether it matches buckets that are hashed."""
    return any(
        header["name"] == buckets.HEADER
        for match in rule.get("matches", EVERYTHING)
        for header in match.get("headers", [])
    )


def asleep(rule: Object) -> Object:
    """The rule with matches that nobody has."""
    matches = [
        match
        if NOBODY in match.get("headers", [])
        else {**match, "headers": [*match.get("headers", []), NOBODY]}
        for match in rule.get("matches", EVERYTHING)
    ]
    return {**rule, "matches": matches}


def service_of(rule: Object) -> str:
    """Where it leads; nowhere if somebody else has had a hand in it."""
    refs = rule.get("backendRefs", [])
    return str(refs[0]["name"]) if len(refs) == 1 else ""


def in_the_end(live: list[Object], wanted: list[Object]) -> list[Object]:
    """
    The rules when nothing is left to write.

    One that nobody wants any more stays, asleep, while one behind it is wanted.
    """
    by_name = {each["name"]: each for each in wanted}
    present = [each["name"] for each in live]
    kept = [by_name.get(each["name"]) or asleep(each) for each in live]
    return _without_tail([*kept, *_absent(wanted, present)], by_name)


def narrowed(
    live: list[Object], wanted: list[Object], *, may_be_awake: bool, leader: str
) -> list[Object]:
    """
    What can be written at once: those who leave a rule go to clusters that carry traffic already.

    A rule to the `leader`, the Service that is to have all traffic, waits until the user's rule
    leads there, too.
    """
    by_name = {each["name"]: each for each in wanted}

    def changed(rule: Object) -> Object:
        aim = by_name.get(rule["name"])
        if not is_awake(rule) or (aim is None and service_of(rule) == leader):
            return rule
        if aim is None or not may_be_awake or service_of(aim) != service_of(rule):
            return asleep(rule)
        return aim

    return [changed(each) for each in live]


def widened(
    live: list[Object], wanted: list[Object], *, may_wake: bool, has_arrived: bool
) -> list[Object]:
    """What the proxy must be ready for: rules that come, go, wake, or lead elsewhere."""
    by_name = {each["name"]: each for each in wanted}
    prepared = [_prepared(each, by_name.get(each["name"])) for each in live]
    present = [each["name"] for each in live]
    listed = _without_tail(
        [*prepared, *[asleep(each) for each in _absent(wanted, present)]], by_name
    )
    if listed != live:
        return listed
    return [_woken(each, by_name, may_wake=may_wake, has_arrived=has_arrived) for each in live]


def _prepared(rule: Object, aim: Object | None) -> Object:
    return rule if aim is None or is_awake(rule) else asleep(aim)


def _woken(
    rule: Object, by_name: dict[str, Object], *, may_wake: bool, has_arrived: bool
) -> Object:
    aim = by_name.get(rule["name"])
    if aim is None:
        return asleep(rule) if has_arrived else rule
    return aim if may_wake else rule


def _absent(wanted: list[Object], present: Collection[str]) -> list[Object]:
    return [each for each in wanted if each["name"] not in present]


def _without_tail(rules: list[Object], by_name: dict[str, Object]) -> list[Object]:
    """Without the last ones that nobody wants and nobody can match."""
    end = len(rules)
    while end and rules[end - 1]["name"] not in by_name and not is_awake(rules[end - 1]):
        end -= 1
    return rules[:end]
