"""What Prometheus answers is bounded, whatever it is made of, and one tenant's is not another's wait."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.conftest import QuietHandler, Served
from modelrollout.adapters import prometheus as adapter
from modelrollout.adapters.prometheus import Prometheus
from modelrollout.core.evidence import Grid, Kind, Matcher, Query, Reading, Selector
from modelrollout.errors import MetricsUnavailable

START = 1_790_000_000.0
GRID = Grid(start=START, width=1.0, watermark=START)
VERSIONS = {
    "stable": (Matcher(label="v", value="1"),),
    "candidate": (Matcher(label="v", value="2"),),
}
QUERIES = [
    Query(
        name="errors",
        kind=Kind.PROPORTION,
        total=Selector(metric="answers_total"),
        events=Selector(metric="wrong_total"),
        **VERSIONS,
    ),
    Query(
        name="latency",
        kind=Kind.DISTRIBUTION,
        total=None,
        events=Selector(metric="seconds"),
        thresholds=(0.1, 1.0),
        **VERSIONS,
    ),
]


class Server:
    """It answers what the test says."""

    def __init__(self):
        self.body = b""
        self.enough = threading.Event()
        self.enough.set()
        server = self

        class Handler(QuietHandler):
            def do_GET(self):  # noqa: N802
                if "parse_query" in self.path:
                    server.enough.wait(30)
                self.send_response(200)
                self.send_header("Content-Length", str(len(server.body)))
                self.end_headers()
                self.wfile.write(server.body)

        self.served = Served(Handler)


@pytest.fixture(scope="module")
def server():
    found = Server()
    with found.served:
        yield found


@pytest.fixture(scope="module")
def prometheus(server):
    found = Prometheus(server.served.url, timeout_seconds=5.0)
    yield found
    found.close()


def answer(result):
    return json.dumps(
        {"status": "success", "data": {"resultType": "matrix", "result": result}}
    ).encode()


NUMBERS = st.one_of(st.integers(), st.floats(), st.just(10**400), st.text(max_size=4))
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
TIMES = st.one_of(st.floats(START - 70, START + 10), NUMBERS)
VALUES = st.one_of(st.integers(-9, 10**9).map(str), st.sampled_from(["NaN", "+Inf", "1e400"]), JSON)
LABELS = st.dictionaries(st.sampled_from(["v", "le", "instance", "job", "x"]), st.text(max_size=4))
SAMPLES = st.lists(st.one_of(st.tuples(TIMES, VALUES), JSON), max_size=6)
BUCKETS = st.lists(
    st.one_of(st.tuples(st.integers(0, 3), VALUES, VALUES, VALUES), JSON), max_size=3
)
NATIVE = st.one_of(
    st.fixed_dictionaries({"count": VALUES, "sum": VALUES, "buckets": BUCKETS}), JSON
)
SERIES = st.fixed_dictionaries(
    {"metric": st.one_of(LABELS, JSON)},
    optional={
        "values": st.one_of(SAMPLES, JSON),
        "value": JSON,
        "histograms": st.one_of(st.lists(st.tuples(TIMES, NATIVE), max_size=3), JSON),
    },
)
BODIES = st.one_of(
    st.lists(st.one_of(SERIES, JSON), max_size=4).map(answer),
    JSON.map(answer),
    JSON.map(lambda value: json.dumps({"data": value, "warnings": value}).encode()),
    JSON.map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=40),
    st.just(b'{"data": ' + b"[" * 100_000),
    st.just(b'["warnings"]'),
)


@settings(max_examples=150)
@given(body=BODIES, query=st.sampled_from(QUERIES))
def test_any_answer_is_a_reading_or_a_sentence(server, prometheus, body, query):
    server.body = body
    with contextlib.suppress(MetricsUnavailable):
        assert isinstance(asyncio.run(prometheus.read(query, GRID, START + 10)), Reading)


@settings(max_examples=60)
@given(body=BODIES)
def test_any_answer_is_a_number_or_a_sentence(server, prometheus, body):
    server.body = body
    with contextlib.suppress(MetricsUnavailable):
        found = asyncio.run(prometheus.value("vector(1)", "shop", START))
        assert found is None or abs(found) < float("inf")


def test_one_large_answer_is_held_at_a_time_and_small_ones_pass_it_by(server):
    """Together they would take more memory than the pod has."""
    prometheus = Prometheus(server.served.url, timeout_seconds=3.0)
    series = [
        {"metric": {"__name__": "answers_total", "v": "1"}, "values": [[START - 1, "1"]] * 40_000}
    ]
    large, small = answer(series), answer([])
    assert len(large) > adapter.LARGE_BYTES > len(small)

    def read(body):
        server.body = body
        return asyncio.run(prometheus.read(QUERIES[0], GRID, START + 10))

    async def while_another_is_held():
        held, enough = threading.Event(), threading.Event()

        def hold():
            adapter.ROOM.enter(1)
            adapter.ROOM.enter(1)  # of the same answer, or of the next one of this read
            held.set()
            enough.wait(30)

        other = asyncio.create_task(asyncio.to_thread(adapter.ROOM.left_after, hold))
        await asyncio.to_thread(held.wait)
        server.body = small
        await prometheus.read(QUERIES[0], GRID, START + 10)
        server.body = large
        with pytest.raises(MetricsUnavailable, match="did not answer within"):
            await prometheus.read(QUERIES[0], GRID, START + 10)
        enough.set()
        await other

    asyncio.run(while_another_is_held())
    assert isinstance(read(large), Reading)
    assert isinstance(read(large), Reading)
    prometheus.close()


def test_expressions_that_take_long_keep_no_comparison_waiting(server, prometheus):
    """A tenant may write as many limits as he likes, each as slow as it may be."""
    server.body = answer([])
    server.enough.clear()

    async def scene():
        slow = [
            asyncio.create_task(prometheus.value("vector(1)", "shop", START))
            for _ in range(4 * adapter.MAX_THREADS)
        ]
        await asyncio.sleep(0.1)
        async with asyncio.timeout(10):
            await prometheus.read(QUERIES[0], GRID, START + 10)
        server.enough.set()
        await asyncio.gather(*slow, return_exceptions=True)

    asyncio.run(scene())


@pytest.mark.parametrize("url", ["http://ada:s3cret@", "ftp://ada:s3cret@prometheus"])
def test_an_address_that_is_none_is_refused_without_its_password(url):
    with pytest.raises(ValueError, match="must be an http or https URL") as refused:
        Prometheus(url)

    assert "s3cret" not in str(refused.value)
