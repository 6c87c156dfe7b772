"""
Whole histograms, for a picture: traces have counts at a few thresholds only.

Read with the user's own access, by the series that the operator compared. What decided were raw
samples (docs/adr/0004); here `increase` is near enough.
"""

from __future__ import annotations

import http.client
import json
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from modelrollout.core.evidence import Histogram, Kind, Matcher
from modelrollout.core.trace import Guardrail, Trace
from modelrollout.report.course import length, started

SECONDS = 15
Pair = tuple[Histogram, Histogram]
"""Stable's and the candidate's."""


class Unreadable(Exception):
    """Prometheus, or what is at its address, did not answer as it should."""


def histograms_of(trace: Trace, url: str) -> Mapping[str, Pair]:
    """By guardrail, over the whole rollout; without those of which there is nothing any more."""
    if not url.startswith(("http://", "https://")):
        raise Unreadable(f"{url} is no address of a Prometheus: it begins with http:// or https://")
    found = {}
    for each in trace.guardrails:
        if each.kind is Kind.DISTRIBUTION and each.matchers:
            stable, candidate = (_histogram(trace, each, side, url) for side in (1, 2))
            if stable is not None and candidate is not None:
                found[each.name] = (stable, candidate)
    return found


def _histogram(trace: Trace, guardrail: Guardrail, side: int, url: str) -> Histogram | None:
    matchers = _text((*guardrail.matchers[0], *guardrail.matchers[side]))
    seconds = max(1, round(length(trace)))
    query = f"sum by (le) (increase({guardrail.metric}_bucket{{{matchers}}}[{seconds}s]))"
    buckets = {
        float(each["metric"]["le"]): float(each["value"][1])
        for each in _answer(url, query, started(trace) + seconds)
    }
    if not buckets.get(float("inf")):
        return None
    bounds = sorted(buckets)
    # Each bucket is extrapolated for itself: they may come out of order by a hair.
    cumulative = [
        max(buckets[each] for each in bounds[: place + 1]) for place in range(len(bounds))
    ]
    return Histogram(bounds=tuple(bounds), cumulative=tuple(cumulative))


def _text(matchers: Sequence[Matcher]) -> str:
    return ",".join(f"{each.label}{each.operator.value}{_quoted(each.value)}" for each in matchers)


def _quoted(value: str) -> str:
    """A string of PromQL, whatever it contains."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _answer(url: str, query: str, time: float) -> list[dict[str, Any]]:
    asked = urlencode({"query": query, "time": f"{time:.3f}"}).encode()
    request = urllib.request.Request(f"{url.rstrip('/')}/api/v1/query", asked)  # noqa: S310  # checked
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310  # checked
            found = json.load(answer)["data"]["result"]
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        raise Unreadable(f"{url} cannot be read as a Prometheus: {error}") from error
    if not isinstance(found, list):
        raise Unreadable(f"{url} cannot be read as a Prometheus: its answer is no list")
    return found
