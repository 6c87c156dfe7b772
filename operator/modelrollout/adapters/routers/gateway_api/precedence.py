"""
Pure: whether rules of our own would take requests that belong to other rules of the user's.

In Gateway API the longest path wins, then the method, then the number of headers, then the number
of query parameters, then the first rule of the list. Our rules have one or two headers more than
the user's rule, and so could win against a rule that the user's rule loses to. Envoy Gateway
counts the method as a header, and exact matches before others.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from modelrollout.adapters.cluster import Object
from modelrollout.adapters.routers.gateway_api.own_rules import EVERYTHING

MAX_RULES = 16
MAX_MATCHES = 64
MAX_ALL_MATCHES = 128
Rank = tuple[int, int, int, int, int]


def obstacle(rules: list[Object], index: int, own: list[Object]) -> str:
    """
    Why our rules cannot stand beside the user's rule; empty when they can.

    `rules` are the user's, `index` is the one to edit.
    """
    everything = [*rules, *own]
    counts = [len(each.get("matches", EVERYTHING)) for each in everything]
    if len(everything) > MAX_RULES or max(counts) > MAX_MATCHES or sum(counts) > MAX_ALL_MATCHES:
        return (
            f"with the operator's own rules the HTTPRoute would have {len(everything)} rules and "
            f"{sum(counts)} matches; Gateway API allows {MAX_RULES}, {MAX_MATCHES} matches in one "
            f"rule and {MAX_ALL_MATCHES} in all: give the model an HTTPRoute of its own"
        )
    twice = _matched_twice(own)
    if twice:
        return (
            f"the rule matches on header {twice} already, and Gateway API allows one match for "
            "each header: tell sticky users or the cohort by another one"
        )
    if _rewrites_prefix(rules[index]) and max(counts[len(rules) :], default=1) > 1:
        return (
            "the rule rewrites its path's prefix, which Gateway API allows in a rule with one "
            "match only: give a cohort of one header or cookie"
        )
    taken = next(_taken(rules, index, own), None)
    if taken is not None:
        return (
            f"{taken} of the HTTPRoute has the same path as the rule to edit and is told from it "
            "by headers, method, query parameters or its place: rules for sticky users and the "
            "cohort would take its requests; move it to a path of its own"
        )
    return ""


def _matched_twice(own: list[Object]) -> str:
    for rule in own:
        for match in rule["matches"]:
            names = [each["name"].lower() for each in match.get("headers", [])]
            twice = [each for each in names if names.count(each) > 1]
            if twice:
                return str(twice[0])
    return ""


def _rewrites_prefix(rule: Object) -> bool:
    texts = (
        (each.get(kind) or {}).get("path", {}).get("type")
        for each in rule.get("filters", [])
        for kind in ("urlRewrite", "requestRedirect")
    )
    return "ReplacePrefixMatch" in texts


def _taken(rules: list[Object], index: int, own: list[Object]) -> Iterator[str]:
    """Other rules that win against the user's rule, and would lose against ours."""
    for place, rule in enumerate(rules):
        if place == index:
            continue
        name = f"rule {rule['name']}" if rule.get("name") else f"rule {place}"
        for other in rule.get("matches", EVERYTHING):
            if _is_taken(other, place, rules[index].get("matches", EVERYTHING), index, own):
                yield name


def _is_taken(
    other: Object, place: int, matches: list[Object], index: int, own: list[Object]
) -> bool:
    rank = _rank(other, place)
    loses = any(_overlap(other, each) and _rank(each, index) < rank for each in matches)
    wins = any(
        _overlap(other, match) and rank < _rank(match, MAX_RULES + at)
        for at, rule in enumerate(own)
        for match in rule["matches"]
    )
    return loses and wins


def _rank(match: Object, place: int) -> Rank:
    """The larger wins, among matches with the same path."""
    headers, queries = match.get("headers", []), match.get("queryParams", [])
    method = 1 if match.get("method") else 0
    return (
        len(headers) + method,
        _exact(headers) + method,
        len(queries),
        _exact(queries),
        -place,
    )


def _exact(conditions: list[Object]) -> int:
    return sum(each.get("type", "Exact") == "Exact" for each in conditions)


def _overlap(one: Object, other: Object) -> bool:
    """Whether a request may match both: the same path, and nothing that excludes it."""
    if _path(one) != _path(other):
        return False
    methods = {each["method"] for each in (one, other) if each.get("method")}
    if len(methods) > 1:
        return False
    values = _exact_values(other)
    return all(values.get(name, value) == value for name, value in _exact_values(one).items())


def _path(match: Object) -> tuple[str, str]:
    path: dict[str, Any] = match.get("path") or {}
    return path.get("type", "PathPrefix"), path.get("value", "/").rstrip("/")


def _exact_values(match: Object) -> dict[str, str]:
    return {
        each["name"].lower(): each["value"]
        for each in match.get("headers", [])
        if each.get("type", "Exact") == "Exact"
    }
