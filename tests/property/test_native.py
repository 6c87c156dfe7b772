"""Native histograms in classic form, against observations that are counted one by one."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction
from itertools import accumulate, pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from modelrollout.core.evidence import Grid, Kind, Matcher, Query, Selector, Series
from modelrollout.core.native import (
    FINEST_SCHEMA,
    MOST_BOUNDS,
    SCHEMAS,
    NativeHistogram,
    Scrape,
    classic,
    offered_bounds,
)
from modelrollout.core.windows import Found, Samples, histogram, read

ZERO = 2.0**-128
"""The zero threshold that the Go client has by default."""
INFINITY = math.inf


def bound(index, schema):
    return 2.0 ** (index / 2.0**schema)


def index_of(value, schema):
    """Of the first bound that is not below a positive value, found by looking."""
    index = math.floor(math.log2(value) * 2.0**schema) - 2
    while bound(index, schema) < value:
        index += 1
    return index


def exponential(values, schema, *, zero=ZERO, time=0.0):
    """A scrape of an exponential histogram that has seen these values."""
    filled = Counter()
    for value in values:
        if abs(value) <= zero:
            filled[-zero, zero] += 1
        elif not math.isnan(value):
            index = index_of(abs(value), schema)
            lower, upper = max(bound(index - 1, schema), zero), bound(index, schema)
            filled[(lower, upper) if value > 0 else (-upper, -lower)] += 1
    return Scrape(time, float(len(values)), filled)


def custom(values, bounds, *, time=0.0):
    """A scrape of a histogram with custom buckets."""
    edges = [-INFINITY, *bounds, INFINITY]
    filled = Counter()
    for value in values:
        place = next(index for index in range(1, len(edges)) if value <= edges[index])
        filled[edges[place - 1], edges[place]] += 1
    return Scrape(time, float(len(values)), filled)


def at_or_below(values, limit):
    """What lies on a negative bound is above it: those buckets are closed at their lower end."""
    return sum(value <= limit if limit >= 0 else value < limit for value in values)


def one(*scrapes, **labels):
    return NativeHistogram(labels=tuple(sorted(labels.items())), scrapes=scrapes)


def counted(scrape, bounds):
    """Counts by bound (infinity for all) in the only scrape; None if it was left out."""
    series = classic([one(scrape)], bounds)
    return {float(dict(each.labels)["le"]): each.values[0] for each in series} or None


POSITIVE = st.floats(1e-6, 1e6).map(lambda value: 10.0 ** math.log10(value))
VALUES = st.lists(POSITIVE, min_size=1, max_size=40)
SIGNED = st.lists(
    st.one_of(POSITIVE, POSITIVE.map(lambda value: -value), st.just(0.0)), min_size=1, max_size=40
)


@pytest.mark.parametrize("schema", SCHEMAS[1:])
def test_every_bound_of_a_coarser_schema_is_one_of_the_finer(schema):
    """2^(i / 2^(s-1)) is 2^(2i / 2^s), in exact numbers and as they are computed here."""
    for index in range(-1000, 1000):
        exponent = Fraction(index) / Fraction(2) ** (schema - 1)
        assert exponent == Fraction(2 * index) / Fraction(2) ** schema
        if abs(exponent) < 1000:
            assert bound(index, schema - 1) == bound(2 * index, schema)


@settings(deadline=None)
@given(SIGNED, st.sampled_from(SCHEMAS), st.sampled_from([ZERO, 0.0, 0.001]))
def test_at_each_bound_that_is_offered_the_count_is_exact(values, schema, zero):
    scrape = exponential(values, schema, zero=zero)
    bounds = offered_bounds([one(scrape)])
    assert bounds
    assert list(bounds) == sorted(set(bounds))
    found = counted(scrape, bounds)
    assert found == {each: at_or_below(values, each) for each in (*bounds, INFINITY)}


@settings(deadline=None)
@given(SIGNED, st.sampled_from(range(1, 9)))
def test_what_is_offered_can_be_counted_when_the_resolution_is_halved(values, schema):
    bounds = offered_bounds([one(exponential(values, schema))])
    for coarser in range(min(schema - 1, FINEST_SCHEMA), schema):
        assert counted(exponential(values, coarser), bounds) == counted(
            exponential(values, schema), bounds
        )


@settings(deadline=None)
@given(VALUES, VALUES, st.sampled_from(range(1, 9)))
def test_what_stable_offers_is_exact_for_any_other_values_at_that_resolution(
    stable, candidate, schema
):
    bounds = offered_bounds([one(exponential(stable, schema))])
    assume(len(bounds) > 1)
    for coarser in range(min(schema - 1, FINEST_SCHEMA), 9):
        found = counted(exponential(candidate, coarser), bounds)
        assert found
        assert all(found[each] == at_or_below(candidate, each) for each in bounds)


@settings(deadline=None)
@given(st.lists(st.floats(1e-37, 1e200), min_size=1, max_size=10), st.sampled_from(range(1, 9)))
def test_the_number_of_bounds_is_limited_and_all_that_was_seen_lies_between_them(values, schema):
    bounds = offered_bounds([one(exponential(values, schema))])
    assert 0 < sum(each > ZERO for each in bounds) <= MOST_BOUNDS
    assert any(each <= min(values) * (1 + 1e-9) for each in bounds)
    assert bounds[-1] >= max(values) * (1 - 1e-9)


@settings(deadline=None)
@given(SIGNED, st.sampled_from(SCHEMAS), st.floats(-1e6, 1e6))
def test_a_scrape_counts_unless_a_bound_lies_inside_one_of_its_buckets(values, schema, limit):
    scrape = exponential(values, schema)
    near = [each for edges in scrape.buckets for each in edges]
    assume(not any(each != limit and math.isclose(each, limit, rel_tol=1e-8) for each in near))
    found = counted(scrape, [limit])
    if any(lower < limit < upper for lower, upper in scrape.buckets):
        assert found is None
    else:
        assert found[limit] == sum(n for (_, upper), n in scrape.buckets.items() if upper <= limit)


CUSTOM = st.lists(
    st.floats(0.001, 1000), min_size=1, max_size=12, unique_by=lambda value: f"{value:.6g}"
).map(sorted)


@settings(deadline=None)
@given(VALUES, CUSTOM)
def test_custom_buckets_are_the_classic_histogram_that_they_were(values, bounds):
    scrape = custom(values, bounds)
    assert counted(scrape, bounds) == {
        each: sum(value <= each for value in values) for each in (*bounds, INFINITY)
    }
    assert set(offered_bounds([one(scrape)])) <= set(bounds)


@settings(deadline=None)
@given(VALUES, st.floats(0.5, 3), st.integers(1, 20))
def test_only_the_programs_own_bounds_are_offered_whatever_their_factor(values, factor, number):
    assume(abs(factor - 1) > 0.01)
    bounds = sorted(0.01 * factor**index for index in range(number))
    offered = offered_bounds([one(custom(values, bounds))])
    assert set(offered) <= set(bounds)
    powers = [2.0**index for index in range(-3, number)]
    assert set(offered_bounds([one(custom(values, powers))])) <= set(powers)


# --- the same windows as the same data as a classic histogram -------------------------------

START = 1_790_000_000.0
THRESHOLDS = (0.25, 0.5, 1.0)
QUERY = Query(
    name="latency",
    kind=Kind.DISTRIBUTION,
    total=None,
    events=Selector(metric="latency"),
    stable=(Matcher(label="version", value="1"),),
    candidate=(Matcher(label="version", value="2"),),
    thresholds=THRESHOLDS,
)


@st.composite
def lives(draw):
    """What a target had observed at each scrape: more and more, and after a restart anew."""
    seen, scrapes = [], []
    for second in range(30):
        if draw(st.integers(0, 12)) == 0:
            seen = []
        seen = seen + draw(st.lists(st.floats(0.01, 8.0), max_size=4))
        if draw(st.integers(0, 9)):
            scrapes.append((START - 8 + second, seen))
    return scrapes


def as_classic(pod, scrapes):
    times = tuple(time for time, _ in scrapes)
    return [
        Series(
            labels=(("le", "+Inf" if math.isinf(each) else str(each)), ("pod", pod)),
            times=times,
            values=tuple(float(at_or_below(seen, each)) for _, seen in scrapes),
        )
        for each in (*THRESHOLDS, INFINITY)
    ]


def as_native(pod, scrapes, schema):
    form = {
        None: lambda time, seen: custom(seen, (0.1, *THRESHOLDS, 2.5), time=time),
        **{
            each: lambda time, seen, each=each: exponential(seen, each, time=time)
            for each in range(9)
        },
    }[schema]
    return one(*(form(time, seen) for time, seen in scrapes), pod=pod)


@settings(deadline=None, max_examples=60)
@given(st.lists(lives(), min_size=2, max_size=4), st.sampled_from([None, 0, 1, 3, 8]))
def test_the_windows_are_those_of_the_classic_histogram_over_restarts_and_gaps(targets, schema):
    assume(all(targets))
    now = START + 22
    readings = []
    for form in ("classic", "native"):
        found = []
        for version in (0, 1):
            pods = [
                (f"{index}", each) for index, each in enumerate(targets) if index % 2 == version
            ]
            series = (
                [each for pod in pods for each in as_classic(*pod)]
                if form == "classic"
                else classic([as_native(*pod, schema) for pod in pods], THRESHOLDS)
            )
            found.append(Found(events=tuple(series)))
        samples = Samples(stable=found[0], candidate=found[1], until=now)
        readings.append(read(QUERY, Grid(start=START, width=2.0, watermark=START), samples, now))
    assert readings[0] == readings[1]


@settings(deadline=None, max_examples=60)
@given(lives(), st.sampled_from(range(1, 9)))
def test_thresholds_are_chosen_from_what_the_histogram_grew_by(scrapes, schema):
    assume(len(scrapes) > 1)
    native = as_native("a", scrapes, schema)
    bounds = offered_bounds([native])
    chosen = histogram("latency", classic([native], bounds), scrapes[0][0])
    assert chosen.bounds == (*bounds, INFINITY)
    assert list(chosen.cumulative) == list(accumulate(chosen.cumulative, max))
    if all(later[: len(sooner)] == sooner for (_, sooner), (_, later) in pairwise(scrapes)):
        grown = scrapes[-1][1][len(scrapes[0][1]) :]
        assert list(chosen.cumulative) == [at_or_below(grown, each) for each in chosen.bounds]
