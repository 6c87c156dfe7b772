"""What the reader of raw samples says and does in each case, one at a time."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from modelrollout.core.evidence import Counts, Grid, Kind, Matcher, Query, Selector, Series
from modelrollout.core.windows import Found, Samples, histogram, read, snapshot
from modelrollout.errors import MetricsUnavailable

QUERY = Query(
    name="errors",
    kind=Kind.PROPORTION,
    total=Selector(metric="requests_total"),
    events=Selector(metric="errors_total"),
    stable=(Matcher(label="version", value="1"),),
    candidate=(Matcher(label="version", value="2"),),
)
ENVOY = replace(
    QUERY,
    events=Selector(metric="requests_total", matchers=(Matcher(label="class", value="5"),)),
)
DISTRIBUTION = replace(
    QUERY,
    kind=Kind.DISTRIBUTION,
    total=None,
    events=Selector(metric="latency"),
    thresholds=(0.5, 1.0),
)
GRID = Grid(start=1000.0, width=1.0, watermark=1000.0)


def series(values, *, first=990.5, every=1.0, pod="a", **labels):
    """Samples from a time on; None where there is none."""
    given = [(first + index * every, each) for index, each in enumerate(values) if each is not None]
    times, numbers = zip(*given, strict=True)
    return Series(labels=tuple(sorted({"pod": pod, **labels}.items())), times=times, values=numbers)


def steady(per_second, seconds=20, **labels):
    return series([float(per_second * index) for index in range(seconds)], **labels)


def looked(query, stable, candidate, now=1006.0, grid=GRID, **more):
    samples = Samples(stable=stable, candidate=candidate, until=more.pop("until", now), **more)
    return read(query, grid, samples, now)


STABLE = Found(total=(steady(10),), events=(steady(1),))
CANDIDATE = Found(total=(steady(5, pod="b"),), events=(steady(2, pod="b"),))


def test_a_window_holds_what_both_versions_did_in_it():
    reading = looked(QUERY, STABLE, CANDIDATE)
    # The delta of the first window reaches back before the step, so it is joined to the next.
    assert [(each.start, each.end) for each in reading.windows][:3] == [
        (1000.0, 1002.0),
        (1002.0, 1003.0),
        (1003.0, 1004.0),
    ]
    assert {each.stable for each in reading.windows} == {Counts(n=10, k=(1,))}
    assert {each.candidate for each in reading.windows} == {Counts(n=5, k=(2,))}
    assert reading.watermark == reading.windows[-1].end == 1006.0
    assert (reading.blind, reading.incomplete) == ("", 0)


def test_the_first_error_counts_where_the_program_was_watched_before():
    born = Found(total=CANDIDATE.total, events=(series([None] * 14 + [3.0], pod="b"),))
    windows = looked(QUERY, STABLE, born).windows
    assert [each.candidate.k[0] for each in windows] == [0, 0, 0, 3, 0]


def test_an_old_counter_that_shows_up_again_is_no_burst_of_errors():
    """Such as when a collector forgot it for a while."""
    again = Found(
        total=CANDIDATE.total,
        events=(series([None] * 14 + [900.0] * 6, pod="b"),),
        events_before=(series([880.0], first=500.0, pod="b"),),
    )
    reading = looked(QUERY, STABLE, again)
    assert sum(each.candidate.k[0] for each in reading.windows) == 0
    assert [each.is_incomplete for each in reading.windows] == [False, False, False, True, False]


def test_an_old_counter_that_was_reset_counts_from_zero():
    again = Found(
        total=CANDIDATE.total,
        events=(series([None] * 14 + [3.0] * 6, pod="b"),),
        events_before=(series([880.0], first=500.0, pod="b"),),
    )
    assert sum(each.candidate.k[0] for each in looked(QUERY, STABLE, again).windows) == 3


def test_the_first_scrape_of_a_target_is_a_beginning_and_not_evidence():
    joined = Found(
        total=(*CANDIDATE.total, series([None] * 13 + [500.0, 501.0, 502.0], pod="c")),
        events=(*CANDIDATE.events, series([None] * 13 + [50.0, 50.0, 51.0], pod="c")),
    )
    reading = looked(QUERY, STABLE, joined)
    assert [each.candidate.n for each in reading.windows] == [5, 5, 5, 6, 6]
    assert [each.candidate.k[0] for each in reading.windows] == [2, 2, 2, 2, 3]
    assert [each.is_incomplete for each in reading.windows] == [False, False, True, False, False]


def test_after_a_restart_the_new_value_counts():
    values = [float(each) for each in (*range(100, 113), 2, 3, 4, 5)]
    restarted = Found(total=(series(values, pod="b"),), events=())
    reading = looked(ENVOY, STABLE, restarted)
    assert [each.candidate.n for each in reading.windows] == [1, 1, 2, 1, 1]
    assert reading.incomplete == 1


def test_missed_scrapes_count_in_the_window_of_the_next():
    values = [float(each) for each in range(20)]
    values[12] = values[13] = None
    pods = (steady(1, pod="b"), series(values, pod="c"))
    reading = looked(QUERY, STABLE, Found(total=pods, events=CANDIDATE.events))
    assert [each.candidate.n for each in reading.windows] == [2, 1, 1, 4, 2]
    assert [each.is_incomplete for each in reading.windows] == [False, True, True, False, False]


def test_what_a_target_did_while_it_was_away_for_long_is_left_out():
    values = [float(each) for each in range(40)]
    values[12:22] = [None] * 10
    pods = (steady(1, 40, pod="b"), series(values, pod="c"))
    stable = Found(total=(steady(10, 40),), events=())
    reading = looked(ENVOY, stable, Found(total=pods), now=1025.0)
    assert sum(each.candidate.n for each in reading.windows) == 24 + 24 - 11
    assert reading.windows[11].is_incomplete


def test_after_an_outage_both_versions_are_counted_over_the_same_time():
    def with_outage(per_second, pod):
        values = [float(per_second * each) for each in range(160)]
        values[15:135] = [None] * 120
        return series(values, pod=pod)

    stable, candidate = with_outage(10, "a"), with_outage(5, "b")
    during = looked(
        ENVOY,
        Found(total=(replace(stable, times=stable.times[:15], values=stable.values[:15]),)),
        Found(
            total=(replace(candidate, times=candidate.times[:15], values=candidate.values[:15]),)
        ),
        grid=replace(GRID, watermark=1005.0),
        now=1070.0,
    )
    assert during.watermark == 1005.0
    assert during.blind.startswith("The stable has given no sample of requests_total for 66 s")
    after = looked(ENVOY, Found(total=(stable,)), Found(total=(candidate,)), now=1150.0)
    wide = after.windows[4]
    assert (wide.start, wide.end) == (1005.0, 1126.0)
    assert wide.stable.n == 2 * wide.candidate.n == 1210
    assert sum(each.stable.n for each in after.windows) == 1490


def test_a_window_waits_for_a_late_target_but_not_for_ever():
    pods = (steady(1, 20, pod="b"), steady(1, 13, pod="c"))
    candidate = Found(total=pods)
    assert looked(ENVOY, _until(STABLE, 1004), _until(candidate, 1004), now=1004).watermark == 1003
    assert looked(ENVOY, _until(STABLE, 1006), _until(candidate, 1006), now=1006).watermark == 1006


def _until(found, end):
    return Found(
        total=tuple(
            Series(labels=each.labels, times=kept, values=each.values[: len(kept)])
            for each in found.total
            for kept in [tuple(time for time in each.times if time <= end)]
        )
    )


def test_windows_narrower_than_the_scrapes_are_joined():
    stable = series([float(15 * each) for each in range(30)], first=943.0, every=15.0)
    candidate = series([float(30 * each) for each in range(30)], first=949.0, every=15.0, pod="b")
    grid = replace(GRID, width=5.0)
    found = looked(ENVOY, Found(total=(stable,)), Found(total=(candidate,)), now=1105.0, grid=grid)
    assert {each.stable.n for each in found.windows} == {15.0}
    assert {each.candidate.n for each in found.windows} == {30.0}
    assert {each.end - each.start for each in found.windows[1:]} == {15.0}


def test_scrapes_too_seldom_for_the_windows_are_named():
    stable = series([float(each) for each in range(30)], first=900.0, every=60.0)
    found = looked(ENVOY, Found(total=(stable,)), Found(total=(stable,)), now=1500.0)
    assert found.blind == (
        "The stable's requests_total is scraped every 60 s, too seldom for windows of 1 s: set"
        " spec.analysis.intervalSeconds to at least 20."
    )


def test_a_version_without_a_series_is_blind_and_both_names_are_told():
    found = looked(QUERY, STABLE, Found())
    assert found.blind == (
        'No series of requests_total{version="2"} was found for the candidate: check the metric\'s'
        " name and labels and that Prometheus scrapes the candidate's targets."
    )
    assert found.watermark == 1000.0


def test_no_events_are_zero_where_the_name_cannot_be_wrong():
    none = Found(total=CANDIDATE.total)
    assert looked(ENVOY, Found(total=STABLE.total), none).windows
    assert looked(QUERY, STABLE, none).windows[0].candidate.k == (0.0,)
    unheard = looked(QUERY, Found(total=STABLE.total), none)
    assert unheard.blind.startswith("No series of errors_total was found for either version")
    assert looked(QUERY, Found(total=STABLE.total), none, is_events_metric_known=True).windows


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 0.5])
def test_a_value_that_is_no_count_spoils_its_scrape_and_no_more(value):
    events = [float(each) for each in range(20)]
    events[13] = value
    reading = looked(QUERY, STABLE, Found(total=CANDIDATE.total, events=(series(events, pod="b"),)))
    # The window is joined to the next: the scrape is as if it had not been.
    assert [each.candidate.n for each in reading.windows] == [5, 5, 10, 5]
    assert [each.candidate.k[0] for each in reading.windows] == [1, 1, 2, 1]
    assert [each.stable.n for each in reading.windows] == [10, 10, 20, 10]


def test_a_metric_that_is_no_counter_is_blind_and_says_so():
    gauge = Found(total=(series([0.25] * 20, pod="b"),))
    assert looked(ENVOY, STABLE, gauge).blind == (
        "The candidate's requests_total has the value 0.25, which is no count: name a counter that"
        " grows by one for each request or event."
    )
    turned = Found(total=(series([1.0] * 10 + [0.25] * 10, pod="b"),))
    assert "has the value 0.25" in looked(ENVOY, STABLE, turned, now=1009.0).blind


def test_two_servers_that_scrape_the_same_targets_are_found_out():
    both = Found(
        total=(
            steady(5, pod="b", prometheus_replica="0"),
            steady(5, pod="b", prometheus_replica="1", first=990.9),
        )
    )
    assert looked(ENVOY, STABLE, both).blind == (
        "Two Prometheus servers report the candidate's requests_total (series that differ in"
        " prometheus_replica only), which would count every request twice: let the query layer"
        " deduplicate them, or add a matcher for prometheus_replica."
    )


def test_replicas_of_a_program_behind_one_target_are_added():
    both = Found(total=(steady(5, pod="b", replica="0"), steady(3, pod="b", replica="1")))
    assert looked(ENVOY, STABLE, both).windows[1].candidate.n == 8


def buckets(pod, bounds, restart_at=None):
    return tuple(
        series(
            [float(n * each) for n in range(20)]
            if restart_at is None
            else [float(n * each) for n in (*range(100, 100 + restart_at), *range(20))][:20],
            pod=pod,
            le=bound,
        )
        for bound, each in bounds.items()
    )


def test_a_histogram_is_counted_above_its_thresholds_however_they_are_written():
    stable = Found(events=buckets("a", {"5e-1": 6, "1": 9, "2.5": 9, "+Inf": 10}))
    candidate = Found(events=buckets("b", {"0.5": 1, "1.0": 2, "+Inf": 5}, restart_at=13))
    reading = looked(DISTRIBUTION, stable, candidate)
    assert {each.stable for each in reading.windows} == {Counts(n=10, k=(4, 1))}
    # The restart empties the histogram, which counts from zero in all its buckets.
    expected = [Counts(n=5, k=(4, 3))] * 2 + [Counts(n=0, k=(0, 0))] + [Counts(n=5, k=(4, 3))] * 2
    assert [each.candidate for each in reading.windows] == expected


def test_a_missing_bucket_is_named():
    stable = Found(events=buckets("a", {"0.5": 6, "1": 9, "+Inf": 10}))
    candidate = Found(events=buckets("b", {"0.5": 6, "+Inf": 10}))
    assert looked(DISTRIBUTION, stable, candidate).blind == (
        'The candidate\'s histogram latency has no bucket le="1" (pod="b"): both versions must'
        " have the same buckets, and thresholds must be among them."
    )
    assert "must be a histogram, classic or native" in looked(DISTRIBUTION, stable, Found()).blind
    summary = Found(events=(steady(1, quantile="0.5"),))
    assert 'a series with le=""' in looked(DISTRIBUTION, summary, candidate).blind


def test_a_rate_counts_events_over_the_time_that_targets_were_watched():
    rate = replace(QUERY, kind=Kind.RATE, total=None)
    pods = Found(events=(*CANDIDATE.events, steady(0, pod="c"), steady(1, pod="c", reason="x")))
    windows = looked(rate, STABLE, pods).windows
    assert windows[2].stable == Counts(n=1, k=(1,))
    assert windows[2].candidate == Counts(n=2, k=(3,))


def test_a_span_that_is_history_is_left_behind_even_where_there_was_nothing():
    empty = looked(QUERY, Found(), Found(), now=5000.0, until=1900.0)
    assert empty.watermark == 1900.0
    assert empty.blind
    short = looked(QUERY, STABLE, CANDIDATE, now=5000.0, until=1900.0)
    assert short.watermark == 1010.0
    assert looked(QUERY, Found(), Found(), now=1901.0, until=1900.0).watermark == 1000.0


def test_a_watermark_that_was_rounded_is_the_edge_beside_it():
    grid = Grid(start=1000.1234567, width=1.0, watermark=1003.123457)
    assert looked(QUERY, STABLE, CANDIDATE, grid=grid).windows[0].start == 1003.1234567


def test_a_scrape_that_came_between_two_questions_is_taken_out_of_the_later_answer():
    total = steady(5, 10, pod="b")
    events = (steady(2, 11, pod="b"), steady(2, 11, pod="c"), series([None] * 10 + [1.0], pod="b"))
    (asked_first, asked_later) = snapshot((total,), events)
    assert asked_first == (total,)
    assert [len(each.times) for each in asked_later] == [10, 11]


def test_the_histogram_to_choose_thresholds_from_has_what_all_targets_have():
    both = (*buckets("a", {"0.5": 6, "1": 9, "+Inf": 10}), *buckets("b", {"1.0": 1, "+Inf": 2}))
    found = histogram("latency", both, 1000.0)
    assert found.bounds == (1.0, math.inf)
    assert found.cumulative == (90, 108)
    with pytest.raises(MetricsUnavailable, match="No series of latency_bucket was found"):
        histogram("latency", (), 1000.0)
    with pytest.raises(MetricsUnavailable, match=r"has no bucket le=\"\+Inf\""):
        histogram("latency", both[:1], 1000.0)


def test_labels_that_change_from_scrape_to_scrape_are_named():
    restless = tuple(series([1.0], first=990.5 + index, pod=f"p{index}") for index in range(200))
    stable = Found(total=(steady(10, 200),))
    blind = looked(ENVOY, stable, Found(total=restless), now=1189.6).blind
    assert blind.startswith("For 190 s no target of both versions has given requests_total")
