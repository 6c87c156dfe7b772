"""
The contract with Prometheus, asked of VictoriaMetrics that scrapes the same programs: `make dialects`.

There is no `test_` in the name of this file, so that only those who ask for it run it: the server
takes minutes to build. What differs from Prometheus is pinned here, too, and told in
docs/prometheus-at-scale.md.
"""

from __future__ import annotations

import asyncio
import random
import time
import urllib.request
from dataclasses import replace

import pytest

from contract.test_prometheus import (
    DISTRIBUTION,
    PROPORTION,
    added,
    assert_counts,
    drive,
    look,
    value,
)
from modelrollout.adapters.prometheus import Prometheus
from modelrollout.core.evidence import Grid, Matcher, Selector
from modelrollout.errors import MetricsUnavailable

LATE_SECONDS = 8
"""Until a sample can be read that was scraped: some seconds, on a busy machine."""
HOSTILE = ['"', "\\", "a\nb", '",namespace="bank', "é🚢", "\x7f", "`'", "$(x) {{y}}", "a|b.*"]


def read(reader, query, seconds=20):
    now = time.time()
    return asyncio.run(
        reader.read(query, Grid(start=now - seconds, width=1.0, watermark=now - seconds), now)
    )


def test_an_error_counter_without_a_value_is_not_known(prometheus):
    """The first test on purpose. Prometheus knows it by the metadata of targets, which is not here."""
    time.sleep(LATE_SECONDS)

    assert read(prometheus, PROPORTION, 5).blind.startswith("No series of wrong_total was found")


def test_the_counts_are_exactly_what_the_programs_did_over_births_and_a_restart(
    prometheus,
    programs,
):
    chance = random.Random(1)  # noqa: S311
    time.sleep(2)
    start = time.time()
    time.sleep(2)
    truth = drive(programs, 4, chance)
    time.sleep(2)
    programs[1].restart()
    time.sleep(2)
    truth = added(truth, drive(programs, 3, chance))
    time.sleep(LATE_SECONDS)

    assert_counts(prometheus, truth, start, time.time())


def test_a_look_each_second_finds_what_one_look_afterwards_finds(prometheus, programs):
    """Samples that come late are waited for, and none is missed for it."""
    start = time.time()
    chance = random.Random(3)  # noqa: S311
    found, watermark = [], start
    for _ in range(12):
        drive(programs, 0.8, chance)
        grid = Grid(start=start, width=1.0, watermark=watermark)
        reading = asyncio.run(prometheus.read(PROPORTION, grid, time.time()))
        found += reading.windows
        watermark = reading.watermark
    time.sleep(LATE_SECONDS)
    now = time.time()
    rest = look(prometheus, PROPORTION, start, [now])

    assert found == rest[: len(found)]
    assert 2 < len(found) < len(rest)


def test_after_an_outage_nothing_is_missing(prometheus, programs, server):
    chance = random.Random(2)  # noqa: S311
    start = time.time()
    time.sleep(2)
    truth = drive(programs, 2, chance)
    server.stop()
    truth = added(truth, drive(programs, 3, chance))
    with pytest.raises(MetricsUnavailable, match=r"Prometheus at 127\.0\.0\.1 cannot be reached"):
        read(prometheus, PROPORTION)
    server.start()
    truth = added(truth, drive(programs, 2, chance))
    time.sleep(5 + LATE_SECONDS)

    assert_counts(prometheus, truth, start, time.time(), width=5.0)


def test_the_histogram_of_stable_is_what_it_grew_by(prometheus, programs):
    start = time.time()
    time.sleep(2)
    for latency in (0.01, 0.07, 0.07, 0.7, 7.0):
        programs[0].answer(latency)
        programs[1].answer(latency)
    time.sleep(LATE_SECONDS)
    found = asyncio.run(prometheus.histogram(DISTRIBUTION, start, time.time()))

    assert found.bounds == (0.05, 0.1, 0.5, 1.0, float("inf"))
    assert found.cumulative == (1, 3, 3, 4, 5)


def test_a_name_that_does_not_exist_is_blind_and_says_so(prometheus):
    misspelt = replace(PROPORTION, total=Selector(metric="anwsers_total"))
    assert read(prometheus, misspelt).blind.startswith("No series of anwsers_total")
    misspelt = replace(DISTRIBUTION, thresholds=(0.3,))
    assert 'histogram latency has no bucket le="0.3"' in read(prometheus, misspelt).blind


def test_limits_are_refused_as_nobody_says_which_series_they_touch(prometheus):
    with pytest.raises(MetricsUnavailable, match="does not know /api/v1/parse_query"):
        value(prometheus, 'count(up{namespace="shop"})')


def test_a_parameter_of_the_provider_narrows_each_question_to_one_cluster(server, programs):
    for each in programs:
        each.answer(0.2, "timeout")
    time.sleep(LATE_SECONDS)
    for namespace, is_found in (("shop", True), ("bank", False)):
        parameters = {"extra_filters[]": f'{{namespace="{namespace}"}}'}
        narrowed = Prometheus(server.url, parameters=parameters)
        try:
            reading = read(narrowed, PROPORTION, 30)
        finally:
            narrowed.close()
        assert bool(reading.windows) is is_found
        assert ("No series of answers_total" in reading.blind) is not is_found


def test_any_text_as_a_label_value_means_itself(prometheus, server):
    """Each value is written through another door than the one that is read by."""
    # Questions that are not for raw samples are answered as of half a minute ago.
    now = int(time.time() * 1000)
    lines = [
        f'hostile_total{{text="{escaped(text)}"}} {count + 10 * index} {now - 60_000 + 1000 * count}'
        for index, text in enumerate(HOSTILE)
        for count in range(5)
    ]
    request = urllib.request.Request(  # noqa: S310  # on loopback
        f"{server.url}/api/v1/import/prometheus",
        data="\n".join([*lines, ""]).encode(),
        headers={"Content-Type": "text/plain"},
    )
    urllib.request.urlopen(request, timeout=5).close()  # noqa: S310
    time.sleep(LATE_SECONDS)
    for text in HOSTILE:
        chosen = Selector(metric="hostile_total", matchers=(Matcher(label="text", value=text),))
        found = asyncio.run(prometheus.values(chosen, "text", now / 1000 - 90, time.time()))
        assert found == {text}


def escaped(text):
    """As the format of expositions has it."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
