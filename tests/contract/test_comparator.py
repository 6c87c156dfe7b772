"""The real process between real servers: each request says what the versions answer to it."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import re
import resource
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from aiohttp import web
from sklearn.ensemble import RandomForestClassifier

from workloads import digits

PATH = "/v2/models/digits/infer"
START_SECONDS = 60
WAIT_SECONDS = 30
MIB = 1024 * 1024


class Version:
    """A server that does as the request says, and remembers what it was asked."""

    def __init__(self, name):
        self.name = name
        self.seen = []
        self.released = threading.Event()

    async def answer(self, request):
        body = await request.read()
        self.seen.append((request, body))
        wanted = json.loads(body).get(self.name, {})
        if wanted.get("hold"):
            await asyncio.to_thread(self.released.wait)
        await asyncio.sleep(wanted.get("seconds", 0))
        if wanted.get("drop"):
            request.transport.close()
        if "chunks" in wanted:
            return await self.stream(request, wanted)
        if "size" in wanted:
            return web.Response(body=b"1" * wanted["size"])
        return web.Response(
            status=wanted.get("status", 200),
            body=wanted["raw"] if "raw" in wanted else json.dumps(wanted.get("says", {"label": 1})),
            headers={"location": "http://127.0.0.1:1/"} if wanted.get("status") == 302 else None,
            content_type="application/json",
        )

    async def stream(self, request, wanted):
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for each in wanted["chunks"]:
            await response.write(each.encode())
        if wanted.get("endless"):
            await asyncio.to_thread(self.released.wait)
        return response


@pytest.fixture(scope="module")
def loop():
    made = asyncio.new_event_loop()
    thread = threading.Thread(target=made.run_forever)
    thread.start()
    yield made
    made.call_soon_threadsafe(made.stop)
    thread.join()
    made.close()


@pytest.fixture(scope="module")
def versions(loop):
    found, runners = {}, []

    async def start(version, port):
        app = web.Application(client_max_size=16 * MIB)
        app.router.add_route("*", "/{path:.*}", version.answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        runners.append(runner)

    for name, port in zip(("stable", "candidate"), free_ports(2), strict=True):
        found[name] = Version(name)
        found[name].port = port
        asyncio.run_coroutine_threadsafe(start(found[name], port), loop).result()
    yield found
    for each in found.values():
        each.released.set()
    for runner in runners:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Comparator:
    """The process, and what it tells."""

    def __init__(self, folder, versions, most_bytes_of_a_file=resource.RLIM_INFINITY, **shadow):
        self.port, self.metrics_port = free_ports(2)
        config = {
            "namespace": "shop",
            "rollout": "digits",
            "stable": f"http://127.0.0.1:{versions['stable'].port}",
            "candidate": f"http://127.0.0.1:{versions['candidate'].port}",
            "stableVersion": "v1",
            "candidateVersion": "v2",
            "port": self.port,
            "metricsPort": self.metrics_port,
            "shadow": {
                "intent": "Equivalence",
                "idempotent": True,
                "paths": ["/v2/models"],
                "outputs": [{"name": "label", "path": "$.label", "label": {}}],
                "noiseFloor": {"share": "1"},
                "maxRequestsPerSecond": 10_000,
                "timeoutSeconds": 10,
            }
            | shadow,
        }
        file = folder / f"{self.port}.json"
        file.write_text(json.dumps(config))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "modelrollout", "comparator", "--config", str(file)]
        )
        sizes = (most_bytes_of_a_file, most_bytes_of_a_file)
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, sizes)
        self._await_start()

    def _await_start(self):
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                assert self.get("/healthz") == "ok"
                break
            except OSError:
                assert self.process.poll() is None, "the comparator has ended"
                assert time.monotonic() < until, "the comparator does not start"
                time.sleep(0.05)

    def end(self):
        self.process.terminate()
        assert self.process.wait(timeout=30) == 0

    def get(self, path):
        url = f"http://127.0.0.1:{self.metrics_port}{path}"
        with urllib.request.urlopen(url, timeout=10) as response:
            return response.read().decode()

    def series(self):
        lines = re.findall(r"^(modelrollout_\w+){(.*)} (\S+)$", self.get("/metrics"), re.MULTILINE)
        return Counter(
            {
                f"{name.removeprefix('modelrollout_comparator_')}{{{labels}}}".replace(
                    'rollout="digits",', ""
                )
                .replace(',rollout="digits"', "")
                .replace('{rollout="digits"}', ""): float(value)
                for name, labels, value in lines
            }
        )

    def mirror(self, body, path=PATH, method="POST", headers=()):
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            given = {"host": "digits.example-shadow", "content-type": "application/json"}
            connection.request(method, path, raw, given | dict(headers))
            return connection.getresponse().status
        finally:
            connection.close()

    def settled(self, before):
        """What has grown, when nothing is under way any more."""
        until = time.monotonic() + WAIT_SECONDS
        while True:
            grown = self.series() - before
            done = total(grown, "skipped") + total(grown, "unpaired") + grown["pairs_total"]
            if done == grown["received_total"]:
                return grown
            assert time.monotonic() < until, grown
            time.sleep(0.02)

    def grown_by(self, body, **how):
        """What has grown by a request; on a busy machine it may have to be sent again."""
        while True:
            before = self.series()
            self.mirror(body, **how)
            grown = self.settled(before)
            if not grown['skipped_total{reason="backpressure"}']:
                return grown
            time.sleep(0.2)

    def label(self, given):
        """The status, and what is said of it."""
        connection = http.client.HTTPConnection("127.0.0.1", self.metrics_port, timeout=20)
        try:
            connection.request("POST", "/labels", json.dumps(given))
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()


def total(grown, name):
    return sum(value for series, value in grown.items() if series.startswith(f"{name}_total{{"))


def without_times(grown):
    """Counters alone: times and loads are not the same twice."""
    return {
        series: value for series, value in grown.items() if re.match(r"\w+_total", series) and value
    }


@pytest.fixture(scope="module")
def comparator(versions, tmp_path_factory):
    made = Comparator(tmp_path_factory.mktemp("comparator"), versions)
    yield made
    made.end()


PAIR = {
    "received_total": 1,
    "pairs_total": 1,
    'answers_total{side="stable"}': 1,
    'answers_total{side="candidate"}': 1,
    'answers_total{side="repeat"}': 1,
    'paired_total{side="stable"}': 1,
    'paired_total{side="candidate"}': 1,
}


def test_all_series_are_there_from_the_start(versions, tmp_path):
    made = Comparator(tmp_path, versions)
    try:
        series = made.series()
    finally:
        made.end()
    counters = {name: value for name, value in series.items() if re.match(r"\w+_total", name)}

    assert set(counters.values()) == {0}
    assert {
        *PAIR,
        'flips_total{side="stable"}',
        'flips_total{side="candidate"}',
        'disagreements_total{kind="label",output="label"}',
        'noise_disagreements_total{kind="label",output="label"}',
        'failures_total{reason="status_5xx",side="candidate"}',
        'unpaired_total{leg="request",reason="too_large"}',
        'skipped_total{reason="backpressure"}',
        'labelled_total{side="stable"}',
        "negative_flips_total",
    } <= set(counters)


def test_a_full_disk_is_nothing_to_it(versions, tmp_path):
    """It may write no byte to any file, has none open to write to, and compares all the same."""
    made = Comparator(tmp_path, versions, most_bytes_of_a_file=0)
    try:
        assert without_times(made.grown_by({})) == PAIR
        assert made.label({"requestId": "nobody", "label": 1})[0] < 500
        assert files_written_by(made.process.pid) == []
    finally:
        made.end()


def files_written_by(pid):
    """What is open for writing and lies on a disk; what it was started with is not its own."""
    own = []
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a connection that ended
            told = Path(f"/proc/{pid}/fdinfo/{each.name}").read_text()
            flags = int(re.search(r"flags:\s+(\d+)", told).group(1), 8)
            is_for_writing = flags & (os.O_WRONLY | os.O_RDWR)
            if int(each.name) > 2 and is_for_writing and each.resolve().is_file():
                own.append(str(each.resolve()))
    return own


def test_versions_that_agree_are_a_pair_and_nothing_else(comparator):
    assert without_times(comparator.grown_by({})) == PAIR


def test_a_candidate_that_differs_is_a_flip(comparator):
    grown = comparator.grown_by({"candidate": {"says": {"label": 2}}})

    assert without_times(grown) == PAIR | {
        'disagreements_total{kind="label",output="label"}': 1,
        'flips_total{side="candidate"}': 1,
    }


FAILURES = [
    ({"status": 500}, "status_5xx"),
    ({"status": 404}, "status_4xx"),
    ({"status": 302}, "status_3xx"),
    ({"raw": "{"}, "malformed"),
    ({"raw": '{"label": NaN}'}, "malformed"),
    ({"says": {"other": 1}}, "shape"),
    ({"drop": True}, "connection"),
]


@pytest.mark.parametrize(("answer", "reason"), FAILURES)
def test_an_answer_that_fails_is_no_disagreement(comparator, answer, reason):
    grown = without_times(comparator.grown_by({"candidate": answer}))

    calls = {series: 1 for series in PAIR if series.startswith(("received", "answers"))}
    assert grown == calls | {
        f'failures_total{{reason="{reason}",side="candidate"}}': 1,
        f'unpaired_total{{leg="candidate",reason="{reason}"}}': 1,
    }


def test_an_answer_that_does_not_come_is_a_timeout(versions, tmp_path):
    made = Comparator(tmp_path, versions, timeoutSeconds=1)
    try:
        grown = made.grown_by({"candidate": {"seconds": 3}})
    finally:
        made.end()

    assert grown['failures_total{reason="timeout",side="candidate"}'] == 1
    assert grown['unpaired_total{leg="candidate",reason="timeout"}'] == 1


def chunk(content, finish=None):
    delta = {"index": 0, "delta": {"content": content}, "finish_reason": finish}
    return f"data: {json.dumps({'choices': [delta]})}\n\n"


def test_streams_are_read_to_their_end_or_to_the_time_they_have(versions, tmp_path):
    done = "data: [DONE]\n\n"
    made = Comparator(tmp_path, versions, timeoutSeconds=1, format="OpenAIChat", outputs=None)
    try:
        same = made.grown_by(
            {
                "stable": {"chunks": [chunk("It is "), chunk("3.", "stop"), done]},
                "candidate": {"chunks": [chunk("it"), chunk(" is 3.", "stop") + done]},
            }
        )
        endless = made.grown_by(
            {
                "stable": {"chunks": [chunk("It is 3.", "stop"), done]},
                "candidate": {"chunks": [chunk("It is ")], "endless": True},
            }
        )
    finally:
        versions["candidate"].released.set()
        made.end()
    versions["candidate"].released.clear()

    assert (same["pairs_total"], total(same, "disagreements")) == (1, 0)
    assert endless['failures_total{reason="timeout",side="candidate"}'] == 1


def test_a_stable_that_fails_leaves_no_pair_either(comparator):
    grown = comparator.grown_by({"stable": {"status": 500}})

    assert grown['failures_total{reason="status_5xx",side="stable"}'] == 1
    assert grown['failures_total{reason="status_5xx",side="repeat"}'] == 1
    assert grown['unpaired_total{leg="stable",reason="status_5xx"}'] == 1
    assert grown["pairs_total"] == total(grown, "paired") == total(grown, "flips") == 0


def test_a_request_that_both_refuse_is_nobodys_failure(comparator):
    grown = comparator.grown_by({"stable": {"status": 422}, "candidate": {"status": 422}})

    assert grown['skipped_total{reason="refused"}'] == 1
    assert total(grown, "failures") == 0


def test_a_redirect_is_not_followed(comparator):
    """It leads to a closed port: followed, it would be a connection that failed."""
    grown = comparator.grown_by({"candidate": {"status": 302}})

    assert grown['failures_total{reason="status_3xx",side="candidate"}'] == 1


def test_other_paths_and_methods_are_skipped(comparator):
    assert without_times(comparator.grown_by({}, path="/admin")) == {
        "received_total": 1,
        'skipped_total{reason="path"}': 1,
    }
    assert without_times(comparator.grown_by({}, method="PUT")) == {
        "received_total": 1,
        'skipped_total{reason="method"}': 1,
    }


def test_versions_see_the_request_marked_and_without_credentials(comparator, versions):
    for each in versions.values():
        each.seen.clear()
    headers = {
        "authorization": "Bearer secret",
        "cookie": "session=1",
        "x-request-id": "r-1",
        "x-shadow": "no",
    }

    comparator.grown_by({"a": 1.50}, path=f"{PATH}?q=a%20b", headers=headers)

    assert [len(versions[each].seen) for each in ("stable", "candidate")] == [2, 1]
    for name, version in versions.items():
        for request, body in version.seen:
            assert request.raw_path == f"{PATH}?q=a%20b", name
            assert body == b'{"a": 1.5}'
            assert {name.lower(): value for name, value in request.headers.items()} == {
                "host": f"127.0.0.1:{version.port}",
                "content-type": "application/json",
                "x-request-id": "r-1",
                "x-shadow": "true",
                "content-length": "10",
            }


def test_the_gateway_has_its_answer_before_the_versions_have_given_theirs(comparator, versions):
    before = comparator.series()

    assert comparator.mirror({"stable": {"hold": True}}) == 202

    assert (comparator.series() - before)["pairs_total"] == 0
    versions["stable"].released.set()
    assert comparator.settled(before)["pairs_total"] == 1
    versions["stable"].released.clear()


def padded(size, **said):
    body = json.dumps(said | {"pad": ""}).encode()
    return body[:-2] + b"x" * (size - len(body)) + body[-2:]


def test_two_mebibytes_are_compared(comparator):
    grown = comparator.grown_by(padded(2 * MIB))

    assert without_times(grown) == PAIR


def test_what_is_larger_than_the_cap_is_counted(comparator):
    assert without_times(comparator.grown_by(padded(4 * MIB + 1))) == {
        "received_total": 1,
        'unpaired_total{leg="request",reason="too_large"}': 1,
    }
    grown = comparator.grown_by({"candidate": {"size": 4 * MIB + 1}})

    assert grown['unpaired_total{leg="candidate",reason="too_large"}'] == 1
    assert total(grown, "failures") == 0


def test_many_large_bodies_at_once_are_counted_one_by_one(comparator):
    before = comparator.series()
    threads = [
        threading.Thread(target=comparator.mirror, args=(padded(2 * MIB, id=str(i)),))
        for i in range(16)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()

    grown = comparator.settled(before)

    assert grown["received_total"] == 16
    assert grown["pairs_total"] >= 1
    assert (comparator.series())["held_bytes"] == 0


def test_whatever_happens_a_request_is_counted_once(comparator):
    generator = np.random.default_rng(1)
    answers = [{}, {"says": {"label": 2}}, *(each for each, _ in FAILURES)]
    grown = Counter()
    for _ in range(60):
        stable, candidate = (answers[i] for i in generator.integers(len(answers), size=2))
        grown += comparator.grown_by({"stable": stable, "candidate": candidate})

    assert grown["received_total"] == 60
    assert grown["pairs_total"] >= 1
    assert total(grown, "paired") <= 2 * grown["pairs_total"]
    for side in ("stable", "candidate", "repeat"):
        assert grown[f'answers_total{{side="{side}"}}'] == 60
        failed = sum(
            n for each, n in grown.items() if each.startswith("failures") and f'"{side}"' in each
        )
        assert failed < 60


def test_a_request_that_ends_half_way_is_counted(comparator):
    before = comparator.series()
    with socket.create_connection(("127.0.0.1", comparator.port)) as half:
        half.sendall(f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{{".encode())
        while not (comparator.series() - before)["received_total"]:
            time.sleep(0.02)

    grown = comparator.settled(before)

    assert grown['unpaired_total{leg="request",reason="cancelled"}'] == 1
    assert comparator.series()["held_bytes"] == 0


@pytest.mark.parametrize("given", [None, 3, {"label": 3}, {"requestId": "a"}, [{"requestId": 1}]])
def test_a_label_that_says_nothing_is_refused_with_a_sentence(comparator, given):
    status, says = comparator.label(given)

    assert status == 400
    assert "label is" in says


def test_labels_show_which_users_a_retrained_model_of_equal_accuracy_fails(comparator):
    """
    Two forests that differ in their seed alone: as good as each other, and wrong about others.

    Positive-congruent training (arXiv 2011.09161) names the share of them negative flips.
    """
    known, new = digits.training(), digits.held_out()
    said = [
        RandomForestClassifier(60, random_state=seed)
        .fit(known.pixels, known.labels)
        .predict(new.pixels)
        for seed in (1, 2)
    ]
    right = [each == new.labels for each in said]
    assert abs(right[0].mean() - right[1].mean()) < 0.01, "equally accurate"
    assert np.mean(right[0] & ~right[1]) > 0.005, "and yet some users are worse off"
    before = comparator.series()

    for index, (stable, candidate) in enumerate(zip(*said, strict=True)):
        comparator.mirror(
            {
                "id": f"digit-{index}",
                "stable": {"says": {"label": int(stable)}},
                "candidate": {"says": {"label": int(candidate)}},
            }
        )
    comparator.settled(before)
    truths = [{"requestId": f"digit-{i}", "label": int(x)} for i, x in enumerate(new.labels)]
    told = [json.loads(comparator.label(each)[1])["matched"] for each in truths]
    grown = comparator.series() - before

    # On a busy machine not all of them were compared.
    compared = np.array(told, bool)
    count = int(compared.sum())
    assert count > 300
    assert grown['labelled_total{side="candidate"}'] == count
    for side, is_right in zip(("stable", "candidate"), right, strict=True):
        assert grown[f'wrong_total{{side="{side}"}}'] == np.sum(compared & ~is_right)
    assert grown["negative_flips_total"] == np.sum(compared & right[0] & ~right[1])
    assert grown["positive_flips_total"] == np.sum(compared & ~right[0] & right[1])


def test_a_request_that_does_not_end_is_counted_and_its_memory_given_back(versions, tmp_path):
    made = Comparator(tmp_path, versions, timeoutSeconds=1)
    before = made.series()
    try:
        with socket.create_connection(("127.0.0.1", made.port)) as half:
            half.sendall(
                f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{{".encode()
            )
            assert half.recv(100).startswith(b"HTTP/1.1 408")
        grown = made.settled(before)
        held = made.series()["held_bytes"]
    finally:
        made.end()

    assert grown['unpaired_total{leg="request",reason="timeout"}'] == 1
    assert held == 0


def test_a_pattern_that_backtracks_for_ever_is_counted_and_stops_nothing_else(versions, tmp_path):
    schema = json.dumps({"pattern": "^(a+)+$"})
    outputs = [{"name": "text", "path": "$.text", "text": {"jsonSchema": schema}}]
    comparator = Comparator(tmp_path, versions, outputs=outputs)
    fine, slow = ({"says": {"text": json.dumps("a" * 60 + end)}} for end in ("", "!"))

    grown = comparator.grown_by({"stable": fine, "candidate": slow})

    assert grown['unpaired_total{leg="candidate",reason="slow"}'] == 1
    assert comparator.grown_by({"stable": fine, "candidate": fine})["pairs_total"] == 1
    comparator.end()


def test_a_budget_is_kept(versions, tmp_path):
    made = Comparator(tmp_path, versions, maxRequestsPerSecond=1)
    try:
        before = made.series()
        for _ in range(30):
            made.mirror({})
        grown = made.settled(before)
    finally:
        made.end()

    assert grown["pairs_total"] >= 1
    assert grown['skipped_total{reason="budget"}'] >= 20
    assert grown['skipped_total{reason="backpressure"}'] == 0


def test_it_ends_in_time_while_a_version_hangs(versions, tmp_path):
    made = Comparator(tmp_path, versions, timeoutSeconds=600)
    made.mirror({"stable": {"hold": True}})

    made.end()

    versions["stable"].released.set()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"stable": "ranker-v1:8080"}, "stable must be the address of a Service"),
        ({"stable": "http://x/path"}, "stable must be the address of a Service"),
        ({"shadow": {"idempotent": False}}, "say idempotent: true if they have no side effects"),
        ({"shadow": {"outputs": None}}, "format JSON needs outputs"),
        (
            {"shadow": {"outputs": [{"name": "a", "path": "$.a[", "exact": {}}]}},
            "shadow.outputs.a: path $.a[ is not a JSONPath",
        ),
        ({"shadow": {"force": [{"field": "mode", "value": "[x]"}]}}, "write a text in quotes"),
        ({"port": 0}, "port"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_a_bad_configuration_is_refused_with_a_sentence(tmp_path, change, says):
    shadow = {
        "intent": "Change",
        "idempotent": True,
        "paths": ["/"],
        "outputs": [{"name": "a", "path": "$.a", "exact": {}}],
    }
    config = {
        "namespace": "shop",
        "rollout": "ranker",
        "stable": "http://ranker-v1:8080",
        "candidate": "http://ranker-v2:8080",
        "stableVersion": "v1",
        "candidateVersion": "v2",
    }
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config | change | {"shadow": shadow | change.get("shadow", {})}))

    done = subprocess.run(
        [sys.executable, "-m", "modelrollout", "comparator", "--config", str(file)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert says in " ".join(done.stderr.split())
