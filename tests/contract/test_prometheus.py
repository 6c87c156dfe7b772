"""The adapter against a real Prometheus that scrapes real programs."""

from __future__ import annotations

import asyncio
import json
import random
import time
import urllib.parse
import urllib.request
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelrollout.adapters.prometheus import Prometheus, quoted
from modelrollout.api.v1alpha1 import LabelOperator
from modelrollout.core.evidence import Grid, Kind, Matcher, Query, Selector
from modelrollout.errors import MetricsUnavailable

SHOP = Matcher(label="namespace", value="shop")
PROPORTION = Query(
    name="errors",
    kind=Kind.PROPORTION,
    total=Selector(metric="answers_total"),
    events=Selector(metric="wrong_total"),
    stable=(SHOP, Matcher(label="version", value="1")),
    candidate=(SHOP, Matcher(label="version", operator=LabelOperator.MATCHES, value="2|3")),
)
RATE = replace(PROPORTION, kind=Kind.RATE, total=None)
DISTRIBUTION = replace(
    PROPORTION,
    kind=Kind.DISTRIBUTION,
    total=None,
    events=Selector(metric="latency"),
    thresholds=(0.1, 1.0),
)


@pytest.fixture
def prometheus(server):
    connected = Prometheus(server.url)
    yield connected
    connected.close()


def wait_for_scrapes(count=2):
    time.sleep(count + 0.3)


def drive(programs, seconds, chance):
    """Some requests to each program; what truly happened, by version: n, errors, tails."""
    truth = {version: [0, 0, 0, 0] for version in ("1", "2")}
    end = time.time() + seconds
    while time.time() < end:
        program = chance.choice(programs)
        latency = chance.expovariate(3)
        reason = chance.choice(["timeout", "5xx", None, None, None])
        program.answer(latency, reason)
        seen = (1, reason is not None, latency > 0.1, latency > 1.0)
        truth[program.version] = [
            old + new for old, new in zip(truth[program.version], seen, strict=True)
        ]
        time.sleep(0.01)
    return truth


def look(prometheus, query, start, nows, *, may_be_blind=False, width=1.0):
    windows, watermark = [], start
    for now in nows:
        grid = Grid(start=start, width=width, watermark=watermark)
        reading = asyncio.run(prometheus.read(query, grid, now))
        assert may_be_blind or not reading.blind
        windows += reading.windows
        watermark = reading.watermark
    return windows


def summed(windows, version):
    counts = [getattr(each, version) for each in windows]
    return [
        sum(each.n for each in counts),
        *map(sum, zip(*(each.k for each in counts), strict=True)),
    ]


def assert_counts(prometheus, truth, start, end, *, width=1.0):
    for version, name in (("1", "stable"), ("2", "candidate")):
        n, errors, over_tenth, over_second = truth[version]
        windows = look(prometheus, PROPORTION, start, [end], width=width)
        assert summed(windows, name) == [n, errors]
        windows = look(prometheus, DISTRIBUTION, start, [end], width=width)
        assert summed(windows, name) == [n, over_tenth, over_second]


def added(one, other):
    return {
        version: [a + b for a, b in zip(one[version], other[version], strict=True)]
        for version in one
    }


def test_an_error_counter_without_a_value_is_declared_and_so_no_misspelling(prometheus):
    """The first test on purpose: no error has happened yet, so there is no series of it."""
    wait_for_scrapes(1)
    start = time.time()
    time.sleep(4)
    windows = look(prometheus, PROPORTION, start, [time.time()])
    assert windows
    assert {each.candidate.k for each in windows} == {(0.0,)}


def test_the_counts_are_exactly_what_the_programs_did_over_births_and_a_restart(
    prometheus, programs
):
    chance = random.Random(1)  # noqa: S311
    wait_for_scrapes(1)
    start = time.time()
    wait_for_scrapes()
    truth = drive(programs, 4, chance)
    wait_for_scrapes()
    programs[1].restart()
    wait_for_scrapes()
    truth = added(truth, drive(programs, 3, chance))
    wait_for_scrapes()
    end = time.time()
    assert_counts(prometheus, truth, start, end)
    often = [start + 0.4 * index for index in range(int((end - start) / 0.4))]
    for query in (PROPORTION, DISTRIBUTION, RATE):
        # A rate has no totals: it is blind until there is a series of its events.
        in_turn = look(prometheus, query, start, [*often, end], may_be_blind=query is RATE)
        assert in_turn == look(prometheus, query, start, [end])
    exposure = summed(look(prometheus, RATE, start, [end]), "candidate")[0]
    assert exposure > 5


def test_a_stopped_prometheus_is_unavailable_and_afterwards_nothing_is_missing(
    prometheus, programs, server
):
    chance = random.Random(2)  # noqa: S311
    drive(programs, 0.5, chance)
    wait_for_scrapes(1)
    start = time.time()
    wait_for_scrapes()
    truth = drive(programs, 2, chance)
    server.stop()
    truth = added(truth, drive(programs, 3, chance))
    with pytest.raises(MetricsUnavailable, match=r"Prometheus at 127\.0\.0\.1 cannot be reached"):
        look(prometheus, PROPORTION, start, [time.time()])
    server.start()
    truth = added(truth, drive(programs, 2, chance))
    # An outage longer than five windows would be left out: a busy machine may need some seconds.
    width = 5.0
    wait_for_scrapes(width + 2)
    end = time.time()
    assert_counts(prometheus, truth, start, end, width=width)
    in_turn = look(prometheus, PROPORTION, start, [end - 6, end], width=width)
    assert in_turn == look(prometheus, PROPORTION, start, [end], width=width)


def test_windows_come_at_once(prometheus):
    """Each window is there within a scrape interval after its end, most are there at once."""
    wait_for_scrapes(1)
    start = time.time()
    time.sleep(4)
    watermark, delays = start, []
    while len(delays) < 5:
        grid = Grid(start=start, width=1.0, watermark=watermark)
        reading = asyncio.run(prometheus.read(PROPORTION, grid, time.time()))
        if watermark > start:
            delays += [time.time() - each.end for each in reading.windows]
        watermark = reading.watermark
        time.sleep(0.05)
    assert max(delays) < 0.6


def test_a_name_that_does_not_exist_is_blind_and_says_so(prometheus):
    wait_for_scrapes(3)
    now = time.time()
    grid = Grid(start=now - 1, width=1.0, watermark=now - 1)
    misspelt = replace(PROPORTION, total=Selector(metric="anwsers_total"))
    reading = asyncio.run(prometheus.read(misspelt, grid, now))
    assert reading.blind.startswith(
        'No series of anwsers_total{namespace="shop", version="1"} was found for the stable'
    )
    misspelt = replace(PROPORTION, events=Selector(metric="worng_total"))
    assert "No series of worng_total" in asyncio.run(prometheus.read(misspelt, grid, now)).blind
    misspelt = replace(DISTRIBUTION, thresholds=(0.3,))
    reading = asyncio.run(prometheus.read(misspelt, grid, now))
    assert 'histogram latency has no bucket le="0.3"' in reading.blind


def test_events_that_never_happened_are_zero_where_their_metric_exists(prometheus, programs):
    for each in programs:
        each.answer(0.2, "timeout")
    wait_for_scrapes(1)
    start = time.time()
    time.sleep(4)
    never = Selector(metric="wrong_total", matchers=(Matcher(label="reason", value="moon"),))
    windows = look(prometheus, replace(PROPORTION, events=never), start, [time.time()])
    assert windows
    assert {each.candidate.k for each in windows} == {(0.0,)}


def test_the_histogram_of_stable_is_what_it_grew_by(prometheus, programs):
    wait_for_scrapes()
    start = time.time()
    wait_for_scrapes()
    for latency in (0.01, 0.07, 0.07, 0.7, 7.0):
        programs[0].answer(latency)
        programs[1].answer(latency)
    wait_for_scrapes()
    found = asyncio.run(prometheus.histogram(DISTRIBUTION, start, time.time()))
    assert found.bounds == (0.05, 0.1, 0.5, 1.0, float("inf"))
    assert found.cumulative == (1, 3, 3, 4, 5)
    assert not asyncio.run(prometheus.histogram(DISTRIBUTION, start, start)).bounds


def value(prometheus, expression):
    return asyncio.run(prometheus.value(expression, "shop", time.time()))


def test_a_limit_gives_its_one_number(prometheus):
    assert value(prometheus, 'count(up{namespace="shop"})') == 3
    assert value(prometheus, 'scalar(count(up{namespace="shop"})) * 2') == 6
    assert value(prometheus, 'up{namespace="shop", version="9"}') is None
    assert value(
        prometheus, 'max(max_over_time(up{namespace="shop"}[1m:1s] offset 1s)) or vector(7)'
    )


@pytest.mark.parametrize(
    ("expression", "sentence"),
    [
        ("sum(up)", 'up in the expression .* add namespace="shop" to each selector'),
        ('up{namespace="shop"} and on () up{namespace="bank"}', "is not limited to this namespace"),
        ('up{namespace=~"shop"}', "is not limited to this namespace"),
        ('rate(answers_total{namespace!="shop"}[1m])', "is not limited to this namespace"),
        ('quantile(scalar(up), up{namespace="shop"})', "is not limited to this namespace"),
        ('{__name__=~".+"}', "a selector without a name"),
        ('up{namespace="shop"} or up{namespace="shop",', "refused the query: .*parse error"),
        ('up{namespace="shop"}', "gives 3 series: aggregate them"),
        ("vector(0) / 0", "gives nan, which cannot be compared"),
        ('up{namespace="shop"}[1m]', "gives 3 series"),
        ('"text"', "an answer that is not Prometheus'"),
    ],
)
def test_an_expression_that_reaches_further_or_gives_no_number_is_refused(
    prometheus, expression, sentence
):
    with pytest.raises(MetricsUnavailable, match=sentence):
        value(prometheus, expression)


@settings(deadline=None, max_examples=300)
@given(value=st.text())
def test_any_text_as_a_label_value_means_itself_to_the_real_parser(server, value):
    expression = urllib.parse.quote(f"up{{a={quoted(value)}}}")
    url = f"{server.url}/api/v1/parse_query?query={expression}"
    with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310
        tree = json.load(response)["data"]
    assert tree["type"] == "vectorSelector"
    assert {each["name"]: each["value"] for each in tree["matchers"]} == {
        "a": value,
        "__name__": "up",
    }


@pytest.mark.parametrize(
    "selector",
    [
        Selector(metric='up{} or up{a="'),
        Selector(metric="up\n"),
        Selector(metric=""),
        Selector(metric="up", matchers=(Matcher(label='a="b",c', value="d"),)),
        Selector(metric="up", matchers=(Matcher(label="__name__", value="d"),)),
        Selector(metric="up", matchers=(Matcher(label="a", value="\ud83d"),)),
    ],
)
def test_names_that_are_not_names_never_reach_prometheus(prometheus, selector):
    now = time.time()
    grid = Grid(start=now - 5, width=1.0, watermark=now - 5)
    with pytest.raises(MetricsUnavailable, match="is not"):
        asyncio.run(prometheus.read(replace(PROPORTION, total=selector), grid, now))


def test_a_reader_that_was_dead_for_hours_catches_up_in_pieces(prometheus):
    wait_for_scrapes(4)
    now = time.time()
    watermark, passes = now - 4 * 3600, 0
    grid = Grid(start=watermark, width=1.0, watermark=watermark)
    windows = []
    while not windows:
        reading = asyncio.run(prometheus.read(PROPORTION, grid, now))
        assert reading.watermark > grid.watermark
        grid = replace(grid, watermark=reading.watermark)
        windows += reading.windows
        passes += 1
    assert 15 <= passes <= 17
