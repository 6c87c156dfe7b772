"""
Label selectors, as `kubectl --selector` takes them: which ModelRollouts are this operator's.

What is accepted here means the same to the API server, which is asked for the same ones by the
same text. It takes a little more (`>`, `<`, empty names in a list), which nobody needs here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_PART = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_PREFIX = rf"(?=[^/]{{1,253}}/){_PART}(?:\.{_PART})*/"
_NAME = r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_KEY = rf"(?:{_PREFIX})?{_NAME}"
_REQUIREMENT = re.compile(
    rf"""\s*(?:
        !\s*(?P<absent>{_KEY})
        | (?P<listed>{_KEY})\s+(?P<set>in|notin)\s*\(\s*(?P<names>{_NAME}(?:\s*,\s*{_NAME})*)\s*\)
        | (?P<equal>{_KEY})\s*(?P<sign>==?|!=)\s*(?P<value>(?:{_NAME})?)
        | (?P<present>{_KEY})
    )\s*(?P<end>,|$)""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Requirement:
    """Of one label."""

    key: str
    values: frozenset[str] | None
    """One of these; None: any, if only it is there."""
    is_negated: bool

    def is_met(self, labels: Mapping[str, str]) -> bool:
        is_there = self.key in labels
        is_one = is_there and (self.values is None or labels[self.key] in self.values)
        return is_one is not self.is_negated


@dataclass(frozen=True, slots=True)
class Selector:
    """All of its requirements must be met; one without any selects everything."""

    text: str
    requirements: tuple[_Requirement, ...]

    def selects(self, body: Mapping[str, Any]) -> bool:
        """Whether an object has these labels."""
        labels = body["metadata"].get("labels") or {}
        return all(each.is_met(labels) for each in self.requirements)


EVERYTHING = Selector("", ())


def parsed(text: str) -> Selector:
    """ValueError with a sentence, if it is none."""
    text = text.strip()
    if not text:
        return EVERYTHING
    found: list[_Requirement] = []
    position, is_more = 0, True
    while is_more:
        match = _REQUIREMENT.match(text, position)
        if match is None:
            raise ValueError(
                f"{text!r} is not a label selector: it goes wrong at {text[position:].strip()!r};"
                " write it as tier=gold, tier!=gold, tier in (gold, silver), tier notin (gold),"
                " tier or !tier, or several of these with commas between them"
            )
        found.append(_requirement(match))
        position, is_more = match.end(), match["end"] == ","
    return Selector(text, tuple(found))


def _requirement(match: re.Match[str]) -> _Requirement:
    if key := match["absent"] or match["present"]:
        return _Requirement(key=key, values=None, is_negated=match["absent"] is not None)
    if match["listed"]:
        names = frozenset(each.strip() for each in match["names"].split(","))
        return _Requirement(key=match["listed"], values=names, is_negated=match["set"] == "notin")
    value = frozenset({match["value"]})
    return _Requirement(key=match["equal"], values=value, is_negated=match["sign"] == "!=")
