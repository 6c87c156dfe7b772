"""Native histograms in a real Prometheus: exponential ones, and classic ones that it converted."""

from __future__ import annotations

import asyncio
import json
import math
import random
import re
import struct
import threading
import time
import urllib.parse
import urllib.request
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest

from contract.conftest import Program, QuietHandler, Served, Server
from modelrollout.adapters.prometheus import Prometheus
from modelrollout.core.evidence import Grid, Kind, Matcher, Query, Selector
from modelrollout.core.windows import LOOKBACK_SECONDS
from modelrollout.errors import MetricsUnavailable

CONFIG = """
global: {{scrape_interval: 1s, scrape_timeout: 900ms}}
scrape_configs:
- {{job_name: classic, static_configs: [{text}]}}
- {{job_name: converted, convert_classic_histograms_to_nhcb: true, static_configs: [{text}]}}
- {{job_name: halting, convert_classic_histograms_to_nhcb: true, static_configs: [{halting}]}}
- job_name: exponential
  scrape_native_histograms: true
  always_scrape_classic_histograms: true
  static_configs: [{protobuf}]
  metric_relabel_configs:
  - {{source_labels: [__name__], regex: latency_(.*), target_label: __name__, replacement: plain_$1}}
- job_name: both
  scrape_native_histograms: true
  always_scrape_classic_histograms: true
  static_configs: [{protobuf}]
- job_name: limited
  scrape_native_histograms: true
  native_histogram_bucket_limit: 8
  static_configs: [{protobuf}]
- {{job_name: blunt, scrape_native_histograms: false, static_configs: [{protobuf}]}}
- job_name: itself
  scrape_native_histograms: true
  static_configs: [{{targets: ['127.0.0.1:{port}'], labels: {{namespace: shop, version: '1'}}}}]
"""
CLASSIC_BOUNDS = (0.25, 0.5, 1.0)
"""Of the protobuf programs: bounds of their exponential buckets as well."""
SCHEMA = 3


class Recorder:
    """A program that remembers every answer, and is asked what to show of them to Prometheus."""

    def __init__(self, version):
        self.version = version
        self.lock = threading.Lock()
        self.restart()
        program = self

        class Handler(QuietHandler):
            def do_GET(self):  # noqa: N802
                with program.lock:
                    kind, body = program.shown("protobuf" in self.headers.get("Accept", ""))
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self.served = Served(Handler)

    def restart(self):
        with self.lock:
            self.seen = []

    def answer(self, latency):
        with self.lock:
            self.seen.append(latency)


class Halting(Recorder):
    """Its histogram of one path can go away for a while, and come back as it was."""

    is_halted = False

    def shown(self, _):
        paths = ["/"] if self.is_halted else ["/", "/rare"]
        lines = [each for path in paths for each in text(self.seen, f'path="{path}",')]
        return "text/plain", "\n".join(["# TYPE latency histogram", *lines, ""]).encode()


def text(values, labels=""):
    yield f'latency_bucket{{{labels}le="1"}} {sum(each <= 1 for each in values)}'
    yield f'latency_bucket{{{labels}le="+Inf"}} {len(values)}'
    yield f"latency_sum{{{labels}}} {sum(values)}"
    yield f"latency_count{{{labels}}} {len(values)}"


class Exponential(Recorder):
    """A program with one exponential histogram: in protobuf, and as text with +Inf alone."""

    def shown(self, is_protobuf):
        if not is_protobuf:
            lines = [each for each in text(self.seen) if 'le="1"' not in each]
            return "text/plain", "\n".join(["# TYPE latency histogram", *lines, ""]).encode()
        kind = (
            "application/vnd.google.protobuf; encoding=delimited;"
            " proto=io.prometheus.client.MetricFamily"
        )
        return kind, self.protobuf()

    def protobuf(self):
        """A MetricFamily of Prometheus' client model, with its length before it."""
        buckets = b"".join(
            message(3, number(1, sum(each <= bound for each in self.seen)) + double(2, bound))
            for bound in CLASSIC_BOUNDS
        )
        histogram = b"".join(
            [
                number(1, len(self.seen)),
                double(2, sum(self.seen)),
                buckets,
                number(5, zigzag(SCHEMA)),
                double(6, 2.0**-128),
                number(7, 0),
                *exponential_buckets(self.seen),
            ]
        )
        family = message(1, b"latency") + number(3, 4) + message(4, message(7, histogram))
        return varint(len(family)) + family


def exponential_buckets(values):
    """Spans of one bucket each, with its distance from the one before; counts as differences."""
    filled = sorted(Counter(math.ceil(math.log2(each) * 2**SCHEMA) for each in values).items())
    if not filled:
        yield message(12, number(1, zigzag(0)) + number(2, 0))
    next_index, last = 0, 0
    for index, n in filled:
        yield message(12, number(1, zigzag(index - next_index)) + number(2, 1))
        yield number(13, zigzag(n - last))
        next_index, last = index + 1, n


def varint(value):
    low, rest = value & 127, value >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


def zigzag(value):
    return 2 * value if value >= 0 else -2 * value - 1


def number(field, value):
    return varint(field << 3) + varint(value)


def double(field, value):
    return varint(field << 3 | 1) + struct.pack("<d", value)


def message(field, content):
    return varint(field << 3 | 2) + varint(len(content)) + content


class NativeServer(Server):
    """Scrapes each kind of program, by jobs that make different things of it, and itself."""

    def __init__(self, directory, text, protobuf, halting):
        super().__init__(directory, text)

        def targets(programs):
            return ", ".join(
                f"{{targets: ['127.0.0.1:{each.served.port}'],"
                f" labels: {{namespace: shop, version: '{each.version}'}}}}"
                for each in programs
            )

        config = CONFIG.format(
            text=targets(text),
            protobuf=targets(protobuf),
            halting=targets(halting),
            port=self.port,
        )
        (directory / "prometheus.yml").write_text(config)
        self.targets = 15


@contextmanager
def running(*programs):
    with ExitStack() as stack:
        for each in programs:
            stack.enter_context(each.served)
        yield programs


@pytest.fixture(scope="module")
def text_programs():
    with running(Program("1"), Program("2")) as programs:
        yield programs


@pytest.fixture(scope="module")
def protobuf_programs():
    with running(Exponential("1"), Exponential("2")) as programs:
        yield programs


@pytest.fixture(scope="module")
def halting_programs():
    with running(Halting("1"), Halting("2")) as programs:
        yield programs


@pytest.fixture(scope="module")
def server(text_programs, protobuf_programs, halting_programs, tmp_path_factory):
    directory = tmp_path_factory.mktemp("prometheus")
    found = NativeServer(directory, text_programs, protobuf_programs, halting_programs)
    found.start()
    yield found
    found.stop()


@pytest.fixture(scope="module", autouse=True)
def halted(server, halting_programs):
    """The time since when a histogram that had observed something is away."""
    assert server.process
    for _ in range(50):
        halting_programs[1].answer(0.7)
    settle()
    halting_programs[1].is_halted = True
    return time.time()


@pytest.fixture
def prometheus(server):
    connected = Prometheus(server.url)
    yield connected
    connected.close()


def query(job, *, metric="latency", thresholds=CLASSIC_BOUNDS):
    def version(value):
        return (
            Matcher(label="namespace", value="shop"),
            Matcher(label="version", value=value),
            Matcher(label="job", value=job),
        )

    return Query(
        name="latency",
        kind=Kind.DISTRIBUTION,
        total=None,
        events=Selector(metric=metric),
        stable=version("1"),
        candidate=version("2"),
        thresholds=thresholds,
    )


def look(prometheus, asked, start, now, width=1.0):
    grid = Grid(start=start, width=width, watermark=start)
    return asyncio.run(prometheus.read(asked, grid, now))


def chosen(prometheus, asked, start):
    return asyncio.run(prometheus.histogram(asked, start, time.time()))


def totals(windows, version):
    counts = [getattr(each, version) for each in windows]
    return [
        sum(each.n for each in counts),
        *(sum(each) for each in zip(*(each.k for each in counts), strict=True)),
    ]


def truth(latencies, thresholds):
    return [len(latencies), *(sum(each > at for each in latencies) for at in thresholds)]


def drive(programs, number, chance, *, low=0.02, high=4.0):
    """So many answers of each program, spread evenly over the octaves; what they were."""
    done = []
    for program in programs:
        answers = [low * (high / low) ** chance.random() for _ in range(number)]
        for each in answers:
            program.answer(each)
        done.append(answers)
    return done


def settle():
    """Two scrapes by every job, and the answer in the store."""
    time.sleep(2.4)


def queries_so_far(server):
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=5) as response:  # noqa: S310
        lines = response.read().decode().splitlines()
    prefix = 'prometheus_http_requests_total{code="200",handler="/api/v1/query"}'
    return sum(float(each.rsplit(" ", 1)[1]) for each in lines if each.startswith(prefix))


def test_one_target_scraped_by_two_jobs_gives_the_same_windows_in_both_forms(
    prometheus, text_programs
):
    """Each window's answers are given at once in its middle, when no job is in between."""
    chance = random.Random(1)  # noqa: S311
    width, thresholds = 4.0, (0.05, 0.5, 1.0)
    settle()
    start = time.time()
    expected = []
    for index in range(4):
        time.sleep(max(0.0, start + width * index + 1.5 - time.time()))
        if index == 2:
            # What it had observed since the scrape before its restart is nobody's knowledge.
            text_programs[1].restart()
        done = drive(text_programs, 40, chance)
        expected.append([truth(each, thresholds) for each in done])
    time.sleep(start + 4 * width + 1.8 - time.time())
    now = time.time()
    classic = look(prometheus, query("classic", thresholds=thresholds), start, now, width)
    converted = look(prometheus, query("converted", thresholds=thresholds), start, now, width)
    assert converted == classic
    assert [
        [[each.n, *each.k] for each in (window.stable, window.candidate)]
        for window in converted.windows
    ] == expected
    assert [each.is_incomplete for each in converted.windows] == [False, False, True, False]


def test_one_scrape_gives_the_same_windows_in_both_forms(prometheus, protobuf_programs):
    chance = random.Random(2)  # noqa: S311
    settle()
    start = time.time()
    settle()
    done = [[], []]
    for index in range(10):
        if index == 5:
            settle()
            protobuf_programs[1].restart()
        for before, new in zip(done, drive(protobuf_programs, 20, chance), strict=True):
            before.extend(new)
        time.sleep(0.37)
    settle()
    now = time.time()
    native = look(prometheus, query("exponential"), start, now)
    classic = look(prometheus, query("exponential", metric="plain"), start, now)
    assert native.windows
    assert native == classic
    assert totals(native.windows, "stable") == truth(done[0], CLASSIC_BOUNDS)
    assert totals(native.windows, "candidate") == truth(done[1], CLASSIC_BOUNDS)


def test_thresholds_are_bounds_that_the_real_server_has(prometheus, protobuf_programs):
    """Its bounds are not powers to the last digit; what is counted at ours is the truth."""
    chance = random.Random(3)  # noqa: S311
    asked = query("exponential")
    settle()
    start = time.time()
    settle()
    done = drive(protobuf_programs, 500, chance)
    settle()
    found = chosen(prometheus, asked, start)
    assert len(found.bounds) > 50
    assert 2**-0.25 in found.bounds
    assert list(found.cumulative) == [sum(each <= at for each in done[0]) for at in found.bounds]
    thresholds = found.bounds[10:40]
    reading = look(prometheus, replace(asked, thresholds=thresholds), start, time.time())
    assert totals(reading.windows, "candidate") == truth(done[1], thresholds)


def test_prometheus_own_histograms_are_read(prometheus):
    """By its own client library, with labels of their own, and thresholds of two reductions."""
    asked = query("itself", metric="prometheus_http_request_duration_seconds")
    settle()
    start = time.time()
    settle()
    for _ in range(30):
        chosen(prometheus, query("classic"), start)
    settle()
    found = chosen(prometheus, asked, start)
    assert found.cumulative[-1] >= 30
    assert len(found.bounds) > 50
    assert all(
        math.isclose(at, 2 ** (round(math.log2(at) * 4) / 4), rel_tol=1e-9)
        for at in found.bounds[:-1]
    )


def test_a_histogram_in_both_forms_is_read_in_the_classic_one(prometheus):
    """Seen by what only one of the forms has a bucket for."""
    settle()
    start = time.time()
    time.sleep(3)
    now = time.time()
    assert look(prometheus, query("both"), start, now).windows
    finer = look(prometheus, query("both", thresholds=(2**-0.5,)), start, now)
    assert 'has no bucket le="0.707107"' in finer.blind
    assert chosen(prometheus, query("both"), start).bounds == (*CLASSIC_BOUNDS, math.inf)


@pytest.mark.parametrize(("job", "first"), [("classic", 1), ("converted", 3)])
def test_the_form_is_found_out_once_and_then_both_versions_are_one_question(server, job, first):
    prometheus = Prometheus(server.url)
    settle()
    start = time.time() - 10
    asked = []
    for _ in range(3):
        before = queries_so_far(server)
        assert look(prometheus, query(job, thresholds=()), start, time.time()).windows
        asked.append(queries_so_far(server) - before)
    prometheus.close()
    assert asked == [first, 1, 1]


def test_a_limit_on_buckets_makes_a_threshold_unreadable_and_another_stays(
    prometheus, protobuf_programs
):
    """Prometheus itself reduces the resolution, when the candidate's answers spread."""
    for each in protobuf_programs:
        each.restart()
    settle()
    start = time.time()
    narrow = [2.0 ** (exponent / 16) for exponent in (1, 3, 5, 7)]
    for program in protobuf_programs:
        for each in narrow:
            program.answer(each)
    settle()
    settle()
    thresholds = (1.0, 2**0.25)
    asked = query("limited", thresholds=thresholds)
    reading = look(prometheus, asked, start, time.time())
    assert reading.windows
    assert not reading.blind
    for exponent in range(-3, 5):
        protobuf_programs[1].answer(1.5 * 2.0**exponent)
    settle()
    reading = look(prometheus, asked, start, time.time())
    assert reading.windows == ()
    assert reading.watermark > start
    assert reading.blind.startswith(
        "The threshold 1.18921 lies inside a bucket from 1 to 2 of the candidate's latency"
    )
    assert "native_histogram_bucket_limit" in reading.blind
    coarse = look(prometheus, replace(asked, thresholds=(1.0,)), start, time.time())
    assert not coarse.blind
    protobuf_programs[1].restart()
    settle()
    assert not look(prometheus, asked, start, time.time()).blind


def test_a_native_histogram_that_is_not_scraped_as_one_is_named(prometheus, protobuf_programs):
    settle()
    start = time.time()
    settle()
    drive(protobuf_programs, 10, random.Random(4))  # noqa: S311
    settle()
    with pytest.raises(MetricsUnavailable, match=r"no bucket but .Inf: .*scrape_native_hist"):
        chosen(prometheus, query("blunt"), start)


def test_what_is_no_histogram_or_no_counter_is_named(prometheus):
    now = time.time()
    reading = look(prometheus, query("converted", metric="latnecy"), now - 5, now)
    assert "No series of latnecy_bucket" in reading.blind
    assert "must be a histogram, classic or native" in reading.blind
    reading = look(prometheus, query("converted", metric="answers_total"), now - 5, now)
    assert "No series of answers_total_bucket" in reading.blind
    rate = replace(query("converted"), kind=Kind.RATE, thresholds=())
    with pytest.raises(MetricsUnavailable, match="latency is a native histogram, which has no"):
        look(prometheus, rate, now - 5, now)


class Stored:
    """A server that has fixed samples of each metric, for both versions, and counts questions."""

    def __init__(self, **metrics):
        self.asked = []
        stored = self

        class Handler(QuietHandler):
            def do_GET(self):  # noqa: N802
                (expression,) = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)[
                    "query"
                ]
                metric = expression.removeprefix("last_over_time(").partition("{")[0]
                stored.asked.append(metric)
                found = [] if "last_over" in expression else metrics.get(metric, [])
                if one := re.search('version="(.)"', expression):
                    found = [each for each in found if each["metric"]["version"] == one[1]]
                body = json.dumps({"status": "success", "data": {"result": found}}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self.metrics = metrics
        self.served = Served(Handler)

    def questions(self):
        asked, self.asked[:] = list(self.asked), []
        return asked


def stored_classic(times):
    return [
        {
            "metric": {"__name__": "latency_bucket", "version": version, "le": le},
            "values": [[time, f"{10 * time}"] for time in times],
        }
        for version in ("1", "2")
        for le in ("1", "+Inf")
    ]


def stored_native(times):
    points = [
        [time, {"count": f"{10 * time}", "sum": "1", "buckets": [[0, "0.5", "1", f"{10 * time}"]]}]
        for time in times
    ]
    return [
        {"metric": {"__name__": "latency", "version": version}, "histograms": points}
        for version in ("1", "2")
    ]


def test_a_form_that_falls_silent_is_asked_about_and_its_successor_is_read():
    """As when a Prometheus begins to convert histograms, or its settings are put back."""
    asked = query("any", thresholds=(1.0,))
    stored = Stored(latency_bucket=stored_classic(range(1000, 1100)))
    with stored.served:
        prometheus = Prometheus(stored.served.url)

        def asked_for(now):
            reading = look(prometheus, asked, 1090.0, now)
            return bool(reading.windows), stored.questions()

        classic, native = "latency_bucket", "latency"
        assert asked_for(1100.0) == (True, [classic])
        stored.metrics["latency"] = stored_native(range(1100, 1200))
        assert asked_for(1120.0) == (True, [classic])
        is_read, questions = asked_for(1170.0)
        assert is_read
        assert questions[:3] == [classic, native, native]
        is_read, questions = asked_for(1180.0)
        assert is_read
        assert questions[0] == native
        assert classic not in questions
        stored.metrics["latency_bucket"] = stored_classic(range(1200, 1300))
        is_read, questions = asked_for(1270.0)
        assert is_read
        assert questions[:3] == [native, classic, classic]
        prometheus.close()


def test_a_histogram_that_shows_up_again_is_no_burst(prometheus, halting_programs, halted):
    """The last test on purpose: it was away for longer than the look-back, and goes on."""
    asked = query("halting", thresholds=(1.0,))
    time.sleep(max(0.0, halted + LOOKBACK_SECONDS + 3 - time.time()))
    settle()
    start = time.time()
    settle()
    halting_programs[1].is_halted = False
    settle()
    for _ in range(3):
        halting_programs[1].answer(1.7)
    settle()
    reading = look(prometheus, asked, start, time.time())
    assert totals(reading.windows, "candidate") == [6, 6]
