"""What is made of a native histogram in each case, one at a time."""

from __future__ import annotations

import math

import pytest

from modelrollout.core.evidence import Grid, Kind, Matcher, Query, Selector
from modelrollout.core.native import (
    MOST_BOUNDS,
    NativeHistogram,
    Scrape,
    classic,
    offered_bounds,
    unreadable,
)
from modelrollout.core.windows import Found, Samples, read


def scrape(*buckets, n=None, time=1000.0):
    filled = {(float(lower), float(upper)): float(count) for lower, upper, count in buckets}
    return Scrape(time, float(sum(filled.values()) if n is None else n), filled)


def histogram(*scrapes, **labels):
    return NativeHistogram(labels=tuple(sorted(labels.items())), scrapes=scrapes)


def columns(native, bounds):
    return {dict(each.labels)["le"]: each.values for each in classic([native], bounds)}


LATENCY = scrape((0.25, 0.5, 3), (0.5, 1, 4), (2, 4, 1))


def test_each_bound_has_a_series_and_so_have_all_observations():
    series = classic([histogram(LATENCY, instance="a:1", zone="b")], (1.0, 0.5))
    assert [each.labels for each in series] == [
        (("instance", "a:1"), ("le", "0.5"), ("zone", "b")),
        (("instance", "a:1"), ("le", "1.0"), ("zone", "b")),
        (("instance", "a:1"), ("le", "+Inf"), ("zone", "b")),
    ]
    assert [(each.times, each.values) for each in series] == [
        ((1000.0,), (3.0,)),
        ((1000.0,), (7.0,)),
        ((1000.0,), (8.0,)),
    ]


def test_where_nothing_was_observed_any_bound_will_do():
    assert columns(histogram(LATENCY), (0.1, 1.7, 9.0)) == {
        "0.1": (0.0,),
        "1.7": (7.0,),
        "9.0": (8.0,),
        "+Inf": (8.0,),
    }


def test_an_empty_histogram_is_all_zeros():
    assert columns(histogram(scrape()), (0.5,)) == {"0.5": (0.0,), "+Inf": (0.0,)}


def test_a_bound_inside_a_bucket_is_not_guessed_and_takes_its_scrape_out_of_all_series():
    first, second, third = (
        LATENCY._replace(time=float(time), n=n) for time, n in ((1, 8), (2, 9), (3, 10))
    )
    reduced = second._replace(buckets={(0.25, 1.0): 8.0, (1.0, 4.0): 1.0})
    found = classic([histogram(first, reduced, third)], (0.5,))
    assert {each.times for each in found} == {(1.0, 3.0)}
    assert [each.values for each in found] == [(3.0, 3.0), (8.0, 10.0)]


def test_a_histogram_that_can_be_counted_at_no_time_has_no_series():
    assert classic([histogram(scrape((0.25, 1, 8)))], (0.5,)) == ()


def test_zero_lies_in_a_bucket_of_its_own():
    observed = scrape((-2, -1, 5), (-0.001, 0.001, 7), (1, 2, 3))
    assert columns(histogram(observed), (-1.0, -0.001, 0.001, 1.0)) == {
        "-1.0": (5.0,),
        "-0.001": (5.0,),
        "0.001": (12.0,),
        "1.0": (12.0,),
        "+Inf": (15.0,),
    }
    assert columns(histogram(observed), (0.0,)) == {}


def test_what_is_not_a_number_is_beyond_every_bound():
    assert columns(histogram(scrape((0.5, 1, 4), n=6)), (1.0,)) == {"1.0": (4.0,), "+Inf": (6.0,)}


def test_a_bound_is_the_same_whether_its_last_digit_is_rounded_or_not():
    """Prometheus' table has half the square root of two as 0.7071067811865475."""
    root = scrape((1, 1.414213562373095, 3), (1.414213562373095, 2, 4))
    assert columns(histogram(root), (2**0.5,)) == {repr(2**0.5): (3.0,), "+Inf": (7.0,)}


def test_custom_buckets_begin_and_end_at_infinity():
    observed = scrape((-math.inf, 0.1, 2), (0.1, 0.25, 3), (10, math.inf, 1))
    assert columns(histogram(observed), (0.1, 0.25, 10.0)) == {
        "0.1": (2.0,),
        "0.25": (5.0,),
        "10.0": (5.0,),
        "+Inf": (6.0,),
    }
    assert offered_bounds([histogram(observed)]) == (0.1, 0.25, 10.0)


# --- read as windows ------------------------------------------------------------------------

QUERY = Query(
    name="latency",
    kind=Kind.DISTRIBUTION,
    total=None,
    events=Selector(metric="latency"),
    stable=(Matcher(label="version", value="1"),),
    candidate=(Matcher(label="version", value="2"),),
    thresholds=(0.5,),
)


def reading(*contents):
    """Of stable, scraped each second with this in (0.25, 0.5] and (0.5, 1]; candidate is calm."""
    at = [(1000.5 + index, each) for index, each in enumerate(contents)]
    stable = [scrape((0.25, 0.5, low), (0.5, 1, high), time=time) for time, (low, high) in at]
    calm = [scrape((0.25, 0.5, 10), time=time) for time, _ in at]
    samples = Samples(
        stable=Found(events=classic([histogram(*stable, pod="a")], QUERY.thresholds)),
        candidate=Found(events=classic([histogram(*calm, pod="b")], QUERY.thresholds)),
        until=at[-1][0],
    )
    return read(QUERY, Grid(start=1000.0, width=1.0, watermark=1000.0), samples, at[-1][0])


def test_a_restart_is_one_for_all_bounds_though_only_one_bucket_fell():
    """Ten answers in all before it and twelve after it: so many came that the count did not fall."""
    windows = reading((8, 2), (8, 2), (1, 11), (2, 12), (2, 12)).windows
    assert [(each.stable.n, *each.stable.k) for each in windows] == [(0, 0), (12, 11), (2, 1)]
    assert [each.is_incomplete for each in windows[1:]] == [True, False]


def test_counts_that_are_no_whole_numbers_are_no_counts():
    """A histogram that a rule made, such as a rate."""
    found = reading((8.5, 2), (9.5, 2), (10.5, 2))
    assert not found.windows
    assert "which is no count" in found.blind


# --- unreadable -----------------------------------------------------------------------------


def test_the_sentence_names_the_threshold_the_bucket_the_target_and_the_remedy():
    native = histogram(scrape((0.25, 0.5, 3)), instance="10.0.0.1:80", pod="ranker-1")
    found = unreadable([native], (0.3,), 0.0, "the candidate's latency")
    assert found == (
        "The threshold 0.3 lies inside a bucket from 0.25 to 0.5 of the candidate's latency"
        " (ranker-1), a native histogram, so what is beyond it cannot be counted: both versions"
        " must have buckets that end there, and enough of them that their resolution is not"
        " reduced. Raise the limit on buckets, in the program or in Prometheus"
        " (native_histogram_bucket_limit), or start anew: a rollout chooses its thresholds at its"
        " start."
    )


def test_one_target_that_cannot_be_counted_makes_the_version_unreadable():
    """It is the one whose observations spread: what is left of the version would be flattering."""
    well, ill = (
        histogram(LATENCY, instance="a:1"),
        histogram(scrape((0.25, 1, 9)), instance="b:1"),
    )
    assert unreadable([well, ill], (0.5,), 0.0, "it") != ""
    assert unreadable([well], (0.5,), 0.0, "it") == ""
    assert unreadable([well, ill], (0.25, 1.0), 0.0, "it") == ""


def test_a_target_that_can_be_counted_again_or_is_gone_holds_nobody_up():
    reduced = scrape((0.25, 1, 9), time=999.0)
    assert unreadable([histogram(reduced)], (0.5,), 998.0, "it") != ""
    assert unreadable([histogram(reduced, LATENCY)], (0.5,), 998.0, "it") == ""
    assert unreadable([histogram(reduced)], (0.5,), 999.0, "it") == ""


# --- bounds to choose from ------------------------------------------------------------------


def octave(schema, *indices):
    """The buckets of a schema with these upper bounds, ten observations in each."""
    return [
        (2.0 ** ((each - 1) / 2.0**schema), 2.0 ** (each / 2.0**schema), 10) for each in indices
    ]


@pytest.mark.parametrize(
    ("seen", "offered"), [(1, 0), (2, 1), (3, 2), (4, 2), (5, 2), (6, 2), (7, 2), (8, 2)]
)
def test_offered_are_the_bounds_of_the_next_coarser_schema_and_of_none_too_fine(seen, offered):
    native = histogram(scrape(*octave(seen, *range(1, 2**seen + 1))))
    found = offered_bounds([native])
    assert found == tuple(2.0 ** (index / 2.0**offered) for index in range(MOST_BOUNDS))


def test_beyond_what_was_seen_there_is_room_for_a_limit():
    """All answers within 10 to 12 ms: a limit at half a second is not tested at 12 ms."""
    found = offered_bounds([histogram(scrape(*octave(3, -53, -52)))])
    assert found[0] <= 0.0102
    assert max(each for each in found if each <= 0.5) > 0.4
    assert found[-1] > 300


def test_offered_is_only_what_all_scrapes_can_be_counted_at():
    fine, coarse = octave(3, *range(1, 9)), [(1.0, 4.0, 80)]
    natives = [histogram(scrape(*fine), pod="a"), histogram(scrape(*coarse), pod="b")]
    assert offered_bounds(natives) == (1.0, 4.0)
    assert offered_bounds([histogram(scrape(*fine), scrape(*coarse))]) == (1.0, 4.0)


def test_buckets_of_a_factor_of_two_offer_what_is_seen_and_no_more():
    """They may be custom ones, of a program that counts sizes of batches: there is no 64."""
    seen = scrape((1, 2, 5), (2, 4, 5), (16, 32, 1))
    assert offered_bounds([histogram(seen)]) == (1, 2, 4, 16, 32)


def test_custom_bounds_are_offered_even_where_most_of_them_are_powers_of_two():
    seen = scrape((0.1, 0.25, 5), (0.25, 0.5, 5), (0.5, 1, 5))
    assert offered_bounds([histogram(seen)]) == (0.1, 0.25, 0.5, 1)


def test_the_zero_bucket_and_the_one_that_it_cuts_off_do_not_hide_the_schema():
    cut = (0.001, 2.0 ** (-79 / 8), 4)
    assert 2.0**-10 < cut[0] < cut[1]
    found = offered_bounds([histogram(scrape((-0.001, 0.001, 3), cut, *octave(3, 1, 2, 3)))])
    assert found[:3] == (-0.001, 0.001, 2.0**-9.75)
    assert {1.0, 2.0**0.25, 2.0**0.5, 2.0} <= set(found)
    assert 2.0**0.125 not in found


def test_negative_values_have_bounds_as_well():
    negative = [(-upper, -lower, n) for lower, upper, n in octave(3, 1, 2)]
    found = offered_bounds([histogram(scrape(*negative, *octave(3, 1)))])
    assert {-(2.0**0.25), -1.0, 1.0, 2.0**0.25} <= set(found)
    assert list(found) == sorted(found)


def test_nothing_observed_nothing_offered():
    assert offered_bounds([]) == ()
    assert offered_bounds([histogram(scrape())]) == ()
    assert offered_bounds([histogram(scrape(n=300))]) == ()


def test_the_largest_numbers_there_are_break_nothing():
    largest = 1.7976931348623157e308
    seen = scrape((2.0**1023, largest, 1), (largest, math.inf, 1), (2.0**-1074, 2.0**-1073, 1))
    assert all(math.isfinite(each) for each in offered_bounds([histogram(seen)]))
