"""What is not an answer of a healthy Prometheus is never a number."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import urllib.parse

import pytest

from contract.conftest import QuietHandler, Served
from modelrollout.adapters import prometheus as adapter
from modelrollout.adapters.prometheus import Prometheus
from modelrollout.core.evidence import Grid, Kind, Matcher, Query, Selector
from modelrollout.errors import MetricsUnavailable

START = 1_790_000_000.0
GRID = Grid(start=START, width=1.0, watermark=START)
QUERY = Query(
    name="errors",
    kind=Kind.PROPORTION,
    total=Selector(metric="answers_total"),
    events=Selector(metric="wrong_total"),
    stable=(Matcher(label="version", value="1"),),
    candidate=(Matcher(label="version", value="2"),),
)
STABLE = {"__name__": "answers_total", "version": "1"}


class Wrong:
    """A server that gives one fixed answer, and remembers what it was asked."""

    def __init__(self, body, status=200, headers=(), seconds=0.0, length=None):
        self.asked = []
        wrong = self

        class Handler(QuietHandler):
            def do_GET(self):  # noqa: N802
                wrong.asked.append((self.path, dict(self.headers)))
                time.sleep(seconds)
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(length or len(body)))
                self.end_headers()
                self.wfile.write(body)
                self.close_connection = length is not None

        self.served = Served(Handler)

    def read(self, timeout_seconds=1.0, user="", **options):
        with self.served:
            url = f"http://{user}127.0.0.1:{self.served.port}"
            prometheus = Prometheus(url, timeout_seconds=timeout_seconds, **options)
            try:
                return asyncio.run(prometheus.read(QUERY, GRID, START + 10))
            finally:
                prometheus.close()


def answer(result, **more):
    body = {"status": "success", "data": {"resultType": "matrix", "result": result}, **more}
    return json.dumps(body).encode()


def refusal(kind, text):
    return json.dumps({"status": "error", "errorType": kind, "error": text}).encode()


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (Wrong(b"oops", 500), "answered with status 500."),
        (Wrong(refusal("internal", "secret"), 500), "answered with status 500."),
        (Wrong(refusal("bad_data", "no\nsuch"), 400), "refused the query: no such."),
        (Wrong(b"not found", 404), "does not know /api/v1/query: check its address"),
        (Wrong(b"unsupported path requested", 400), "does not know /api/v1/query: check its"),
        (Wrong(b"sign in", 401), "answered with status 401."),
        (Wrong(b"<html>"), "gave an answer that is not Prometheus'."),
        (Wrong(b""), "gave an answer that is not Prometheus'."),
        (Wrong(b"[]"), "gave an answer that is not Prometheus'."),
        (Wrong(b'{"status": "success"}'), "gave an answer that is not Prometheus'."),
        (Wrong(answer(None)), "gave an answer that is not Prometheus'."),
        (Wrong(answer("text")), "gave an answer that is not Prometheus'."),
        (Wrong(answer([1])), "gave an answer that is not Prometheus'."),
        (Wrong(answer([{"metric": STABLE}])), "gave an answer that is not Prometheus'."),
        (
            Wrong(answer([{"metric": STABLE, "values": [[1, "x"]]}])),
            "gave an answer that is not Prometheus'.",
        ),
        # Nobody asked for these.
        (
            Wrong(answer([{"metric": {}, "values": [[1, "1"]]}])),
            "gave an answer that is not Prometheus'.",
        ),
        (
            Wrong(answer([{"metric": STABLE | {"version": "3"}, "values": [[1, "1"]]}])),
            "gave an answer that is not Prometheus'.",
        ),
        (Wrong(answer([]), length=10_000), "cannot be reached."),
        (
            Wrong(answer([], warnings=["store is away"])),
            "gave an answer with warnings: store is away.",
        ),
        (Wrong(answer([]), seconds=2), "did not answer within 1 s."),
        (
            Wrong(b"", 302, [("Location", "http://127.0.0.1:1/")]),
            "redirects, which is not followed: give its final address.",
        ),
        (Wrong(b"", 307, [("Location", "/elsewhere")]), "redirects, which is not followed"),
    ],
)
def test_a_wrong_answer_is_a_sentence(wrong, sentence):
    with pytest.raises(MetricsUnavailable) as caught:
        wrong.read()
    assert str(caught.value).startswith(f"Prometheus at 127.0.0.1 {sentence}")
    assert len(wrong.asked) == 1


def test_the_word_warnings_in_a_label_is_no_warning():
    labelled = [{"metric": STABLE | {"warnings": "warnings"}, "values": [[START - 1, "1"]]}]
    assert Wrong(answer(labelled, warnings=[])).read().windows == ()


def test_a_native_histogram_is_named():
    with pytest.raises(MetricsUnavailable, match="answers_total is a native histogram"):
        Wrong(answer([{"metric": STABLE, "histograms": [[START, {}]]}])).read()


def test_an_endless_answer_is_cut_off():
    body = b" " * (adapter.MAX_BYTES + 1)
    with pytest.raises(MetricsUnavailable, match="gave more than 24 MiB"):
        Wrong(body).read(timeout_seconds=20)


def test_credentials_go_to_the_server_and_into_no_sentence(tmp_path):
    token = tmp_path / "token"
    token.write_text("abc\n")
    wrong = Wrong(b"", 500)
    with pytest.raises(MetricsUnavailable) as caught:
        wrong.read(user="me:hunter2@", bearer_token_file=str(token), headers={"X-Scope": "shop"})
    (_, headers) = wrong.asked[0]
    assert headers["Authorization"] == "Bearer abc"
    assert headers["X-Scope"] == "shop"
    assert "hunter2" not in str(caught.value)
    wrong = Wrong(b"", 500)
    token.unlink()
    with pytest.raises(MetricsUnavailable, match=r"The token file .* cannot be read"):
        wrong.read(bearer_token_file=str(token))


def test_parameters_of_the_provider_go_along_with_each_question_and_replace_none_of_its_own():
    wrong = Wrong(answer([]))
    wrong.read(parameters={"partial_response": "false", "extra_filters[]": '{cluster="eu-1"}'})
    for path, _ in wrong.asked:
        asked = urllib.parse.parse_qs(urllib.parse.urlsplit(path).query)
        assert asked["partial_response"] == ["false"]
        assert asked["extra_filters[]"] == ['{cluster="eu-1"}']
        assert asked.keys() >= {"query", "time", "timeout"} or path.startswith("/api/v1/targets")


def test_nothing_is_asked_for_that_is_longer_than_a_pass():
    wrong = Wrong(answer([]))
    with wrong.served:
        prometheus = Prometheus(wrong.served.url)
        reading = asyncio.run(prometheus.read(QUERY, GRID, START + 86400))
        prometheus.close()
    assert reading.watermark == START + adapter.MAX_SPAN_SECONDS
    assert reading.blind
    asked = urllib.parse.parse_qs(urllib.parse.urlsplit(wrong.asked[0][0]).query)
    (query,) = asked["query"]
    assert query == '{__name__=~"answers_total|wrong_total",version=~"1|2"}[960000ms]'
    assert asked["time"] == [f"{START + 900:.3f}"]


def test_a_drop_now_and_then_is_no_answer():
    """Each byte comes in time, the whole never does."""

    class Handler(QuietHandler):
        def do_GET(self):  # noqa: N802
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            for _ in range(20):
                if enough.wait(0.1):
                    break
                self.wfile.write(b" ")
                self.wfile.flush()
            self.close_connection = True

    enough = threading.Event()
    with Served(Handler) as served:
        prometheus = Prometheus(served.url, timeout_seconds=0.5)
        since = time.monotonic()
        with pytest.raises(MetricsUnavailable, match=r"did not answer within 0\.5 s"):
            asyncio.run(prometheus.read(QUERY, GRID, START + 10))
        assert time.monotonic() - since < 1.5
        enough.set()
        prometheus.close()


def test_a_hanging_prometheus_holds_up_nobody_else():
    class Handler(QuietHandler):
        def do_GET(self):  # noqa: N802
            enough.wait(5)
            self.close_connection = True

    async def scene(hanging, healthy):
        crowd = [asyncio.create_task(hanging.read(QUERY, GRID, START + 10)) for _ in range(40)]
        await asyncio.sleep(0.1)
        since = time.monotonic()
        await healthy.read(QUERY, GRID, START + 10)
        await asyncio.to_thread(time.sleep, 0)
        took = time.monotonic() - since
        found = await asyncio.gather(*crowd, return_exceptions=True)
        return took, found, time.monotonic() - since

    enough = threading.Event()
    with Served(Handler) as stuck, Wrong(answer([])).served as well:
        hanging, healthy = Prometheus(stuck.url, timeout_seconds=0.5), Prometheus(well.url)
        took, found, in_all = asyncio.run(scene(hanging, healthy))
        enough.set()
        hanging.close()
        healthy.close()
    assert took < 0.4
    assert in_all < 4
    assert all(isinstance(each, MetricsUnavailable) for each in found)


@pytest.mark.parametrize("url", ["", "prometheus:9090", "file:///etc/passwd", "http://"])
def test_an_address_that_is_none_is_refused_at_the_start(url):
    with pytest.raises(ValueError, match="must be an http or https URL"):
        Prometheus(url)


def test_what_is_too_long_together_is_asked_for_one_by_one(monkeypatch):
    """The joined answer is longer than what is read of one; the versions' own are not."""
    monkeypatch.setattr(adapter, "MAX_BYTES", 1_500)
    asked = []

    class Handler(QuietHandler):
        def do_GET(self):  # noqa: N802
            (query,) = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)["query"]
            asked.append(query)
            body = answer([]) + b" " * (2_000 if "__name__" in query else 0)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with Served(Handler) as served:
        prometheus = Prometheus(served.url)
        reading = asyncio.run(prometheus.read(QUERY, GRID, START + 10))
        prometheus.close()
    assert "__name__" in asked[0]
    assert [each.partition("[")[0] for each in asked[1:5]] == [
        f'{name}{{version="{version}"}}'
        for name in ("answers_total", "wrong_total")
        for version in (1, 2)
    ]
    assert "gave more than" not in reading.blind
