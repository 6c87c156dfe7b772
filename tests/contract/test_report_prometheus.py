"""The whole histograms of a rollout, as a real Prometheus remembers them."""

from __future__ import annotations

import time

import pytest

from modelrollout.core.evidence import Kind, Matcher
from modelrollout.core.trace import Guardrail, Trace, Version
from modelrollout.report.prometheus import Unreadable, histograms_of

PER_SECOND = {"v1": (8, 9, 10), "v2": (2, 8, 10)}
"""Answers within 0.1, within 0.5, and all."""
SCRAPE, LENGTH = 5, 600
ODD = 'a"b\\c'


@pytest.fixture(scope="module")
def began():
    return float(int(time.time()) - 3600)


@pytest.fixture(scope="module")
def url(remember, began):
    lines = ["# TYPE took histogram"]
    for version, rates in PER_SECOND.items():
        label = f'version="{version}",odd="a\\"b\\\\c"'
        for bound, rate in zip(("0.1", "0.5", "+Inf"), rates, strict=True):
            lines += [
                f'took_bucket{{{label},le="{bound}"}} {rate * at} {began + at}'
                for at in range(0, LENGTH + 1, SCRAPE)
            ]
    return remember([*lines, "# EOF"]).url


def a_trace(began, metric="took"):
    sides = tuple((Matcher(label="version", value=each),) for each in PER_SECOND)
    latency = Guardrail(
        name="latency",
        kind=Kind.DISTRIBUTION,
        metric=metric,
        matchers=((Matcher(label="odd", value=ODD),), *sides),
    )
    errors = Guardrail(name="errors", kind=Kind.PROPORTION, metric="errors_total")
    version = Version(deployment="ranker-v2", revision="c1")
    return Trace(
        namespace="shop",
        rollout="ranker",
        uid="u-1",
        candidate=version,
        stable=version,
        began=began,
        ended=began + LENGTH,
        guardrails=(latency, errors),
    )


def test_both_versions_have_their_own_buckets(url, began):
    found = histograms_of(a_trace(began), url)

    assert list(found) == ["latency"]
    for histogram, rates in zip(found["latency"], PER_SECOND.values(), strict=True):
        assert histogram.bounds == (0.1, 0.5, float("inf"))
        assert histogram.cumulative == pytest.approx([each * LENGTH for each in rates], rel=0.02)


def test_what_is_not_remembered_is_left_out(url, began):
    assert histograms_of(a_trace(began, "other"), url) == {}
    assert histograms_of(a_trace(began - 86_400), url) == {}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("prometheus:9090", "begins with http:// or https://"),
        ("file:///etc/passwd", "begins with http:// or https://"),
        ("http://127.0.0.1:1", "cannot be read as a Prometheus"),
    ],
)
def test_an_address_of_something_else_is_a_sentence(given, says, began):
    with pytest.raises(Unreadable, match=says):
        histograms_of(a_trace(began), given)
