"""A trace is bounded whatever happens, and keeps what its pictures need: ends of steps, and the end."""

from __future__ import annotations

import gzip
import random
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelrollout.api.v1alpha1 import Verdict
from modelrollout.core.trace import (
    MAX_BYTES,
    MAX_DECISIONS,
    MAX_PLAIN_BYTES,
    MAX_POINTS,
    Decision,
    Level,
    Point,
    Slice,
    Trace,
    Version,
    decoded,
    encoded,
    joined,
    thinned,
)

CHANCE = random.Random(7)  # noqa: S311  # a test's data


def a_point(time: float, step: int | None = 0, weight: int = 5, **more) -> Point:
    given = {"accepted": weight, "mirror": 0, "coverage": None, "requests": 7}
    return Point(time=time, step=step, weight=weight, **(given | more))


def a_level(name: str, columns: int) -> Level:
    counts = tuple(float(CHANCE.randrange(10**6)) for _ in range(columns))
    return Level(
        name=name,
        verdict=Verdict.INCONCLUSIVE,
        harm=CHANCE.random(),
        safety=CHANCE.random(),
        stable=counts,
        candidate=counts,
    )


def a_trace(**more) -> Trace:
    version = Version(deployment="ranker-v2", revision="c1")
    known = {"candidate": version, "stable": None, "began": 1_800_000_000.0}
    return Trace(namespace="shop", rollout="ranker", uid="u-1", **(known | more))


def a_decision(time: float) -> Decision:
    return Decision(time=time, what="StepStarted", message="m", by=None, is_warning=False, weight=5)


@given(
    st.lists(st.tuples(st.floats(0.01, 900), st.integers(0, 9)), min_size=1, max_size=400),
    st.integers(40, 120),
)
def test_thinning_keeps_the_first_the_last_and_both_sides_of_every_change(gaps, at_most):
    time, points = 0.0, []
    for gap, run in gaps:
        time += gap
        points.append(a_point(time, step=len(points) // 40, weight=run and 5))

    kept = thinned(points, at_most)

    assert len(kept) <= at_most
    assert [each.time for each in kept] == sorted({each.time for each in kept})
    assert kept[-1] == points[-1]


def test_few_points_stay_as_they_are_and_the_end_of_a_step_is_among_the_many():
    points = [a_point(5.0 * each, step=each // 500) for each in range(1000)]

    assert thinned(points[:240], 240) == tuple(points[:240])
    kept = thinned(points, 240)
    assert {points[0], points[499], points[500], points[999]} <= set(kept)
    assert max(b.time - a.time for a, b in pairwise(kept)) <= 2 * 5000 / 240 + 5


def test_two_parts_joined_are_one_trace():
    old = a_trace(points=(a_point(0), a_point(5)), decisions=(a_decision(0),))
    new = a_trace(began=None, points=(a_point(10),), decisions=(a_decision(10),), ended=10.0)

    both = joined(old, new)

    assert [each.time for each in both.points] == [0, 5, 10]
    assert (both.began, both.ended, len(both.decisions)) == (1_800_000_000.0, 10.0, 2)


def test_of_very_many_decisions_the_first_and_the_last_are_kept():
    old = a_trace(decisions=tuple(a_decision(each) for each in range(50)))
    new = a_trace(decisions=tuple(a_decision(each) for each in range(50, 200)))

    times = [each.time for each in joined(old, new).decisions]

    assert len(times) == MAX_DECISIONS
    assert (times[0], times[-1]) == (0, 199)


def test_a_file_says_what_was_put_into_it():
    point = a_point(5, guardrails=(a_level("errors", 2), a_level("latency", 9)))
    trace = a_trace(points=(point,), decisions=(a_decision(5),), outcome="Promoted", ended=6.0)

    assert decoded(encoded(trace)) == trace
    assert encoded(trace) == encoded(trace)


def test_the_largest_trace_fits_into_its_file():
    """Sixteen guardrails with eight thresholds, twenty slices each, texts that cannot be packed."""
    levels = [[a_level(f"guardrail-{i}", 9) for i in range(16)] for _ in range(MAX_POINTS)]
    points = tuple(a_point(5.0 * i, guardrails=tuple(each)) for i, each in enumerate(levels))
    names = ["".join(chr(CHANCE.randrange(0x4E00, 0x9FFF)) for _ in range(256)) for _ in range(320)]
    slices = tuple(
        Slice(guardrail="g", name=each, harm=0.1, stable=(1.0, 0.0), candidate=(1.0, 0.0))
        for each in names
    )
    said = "".join(chr(CHANCE.randrange(0x4E00, 0x9FFF)) for _ in range(512))
    decisions = tuple(replace(a_decision(each), message=said) for each in range(MAX_DECISIONS))

    data = encoded(a_trace(points=points, slices=slices, decisions=decisions))

    assert len(data) <= MAX_BYTES
    assert decoded(data).points


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not packed",
        gzip.compress(b"{}"),
        gzip.compress(b"[1, 2"),
        encoded(a_trace())[:-9],
        gzip.compress(b" " * (MAX_PLAIN_BYTES + 1)),
    ],
    ids=["nothing", "plain", "empty", "no JSON", "cut off", "far too large"],
)
def test_what_is_no_trace_is_refused(data):
    with pytest.raises(ValueError, match=r"not a trace|validation error"):
        decoded(data)
