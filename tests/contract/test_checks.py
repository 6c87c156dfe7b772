"""Checks of a candidate, made of a real HTTP server on loopback that answers as told."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver

from modelrollout.adapters.checks import MOST_BYTES, HttpChecker
from modelrollout.api.v1alpha1 import HttpCheck

WORDS = "the answer's own words"


class Loopback(AbstractResolver):
    """Every name is this machine; the names that were asked for are kept."""

    def __init__(self):
        self.names = []

    async def resolve(self, host, port=0, family=socket.AF_INET):  # noqa: ARG002
        self.names.append(host)
        found = {"hostname": host, "host": "127.0.0.1", "port": port}
        return [found | {"family": socket.AF_INET, "proto": 0, "flags": 0}]

    async def close(self):
        pass


class Nowhere(Loopback):
    """No name is known."""

    async def resolve(self, host, port=0, family=socket.AF_INET):  # noqa: ARG002
        raise OSError(f"{host} is not known")


@dataclass
class Candidate:
    """What it was asked, and what it answers: each handler is a coroutine of a request."""

    answer: object
    asked: list[dict[str, object]] = field(default_factory=list)
    port: int = 0

    async def handle(self, request):
        asked = {
            "method": request.method,
            "path": request.raw_path,
            "headers": dict(request.headers),
            "body": (await request.read()).decode(),
        }
        self.asked.append(asked)
        return await self.answer(request)


@asynccontextmanager
async def candidate(answer):
    found = Candidate(answer)
    server = web.Server(found.handle)
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.port = site._server.sockets[0].getsockname()[1]  # noqa: SLF001  # aiohttp has no other way
    try:
        yield found
    finally:
        await runner.cleanup()


def says(body="", status=200, **headers):
    async def answer(_request):
        text = body if isinstance(body, str) else json.dumps(body)
        return web.Response(status=status, text=text, headers=headers)

    return answer


def run(answer, resolver=None, **check):
    """The result of one check, and what the candidate was asked."""

    async def made():
        async with candidate(answer) as found:
            checker = HttpChecker(resolver or Loopback())
            given = HttpCheck.model_validate({"path": "/"} | check)
            result = await checker.run(given, "shop", "ranker-v2", found.port)
            return result, found.asked

    return asyncio.run(made())


def message(answer, **check):
    """Why a check failed."""
    result, _ = run(answer, **check)
    assert not result.passed
    return result.message


def expect(pointer, equals):
    return {"json": [{"pointer": pointer, "equals": equals}]}


# --- what is asked --------------------------------------------------------------------------


def test_a_check_goes_to_the_service_in_the_rollouts_namespace():
    names = Loopback()
    result, (asked,) = run(says(), resolver=names)
    assert result.passed
    assert names.names == ["ranker-v2.shop.svc"]
    assert asked["headers"]["Host"].startswith("ranker-v2.shop.svc:")


@pytest.mark.parametrize(
    "path",
    [
        "/v2/models/ranker?trace=1&x=%2F",
        "//evil.example/x",
        "/../up",
        "/a/./b",
        "/%2e%2e/%zz",
        "/@evil.example",
        "/a\\b",
        "/?next=http://evil.example",
    ],
)
def test_a_path_arrives_as_it_was_written_at_the_same_host(path):
    names = Loopback()
    result, (asked,) = run(says(), resolver=names, path=path)
    assert result.passed
    assert asked["path"] == path
    assert names.names == ["ranker-v2.shop.svc"]


def test_a_body_arrives_as_json_and_as_it_was_written():
    body = '{"inputs": ["ü"],\n "n": 1}'
    _, (asked,) = run(says(), method="POST", body=body)
    assert (asked["method"], asked["body"]) == ("POST", body)
    assert asked["headers"]["Content-Type"] == "application/json"


def test_nothing_of_ours_goes_along():
    _, (asked,) = run(says())
    assert set(asked["headers"]) == {"Host", "Accept", "Accept-Encoding", "User-Agent"}


def test_a_cookie_is_not_sent_back():
    async def twice():
        async with candidate(says(**{"Set-Cookie": "session=1"})) as found:
            checker = HttpChecker(Loopback())
            for _ in range(2):
                await checker.run(HttpCheck(path="/"), "shop", "ranker-v2", found.port)
            return found.asked

    assert all("Cookie" not in each["headers"] for each in asyncio.run(twice()))


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_an_answer_and_is_not_followed(status):
    elsewhere = says(status=status, Location="/elsewhere")
    result, asked = run(elsewhere)
    assert result.message == f"status {status}, not 200"
    assert len(asked) == 1
    assert run(elsewhere, status=status)[0].passed


# --- what comes back ------------------------------------------------------------------------


def test_another_status_is_told_and_the_body_is_not():
    told = message(says(WORDS, status=503))
    assert told == "status 503, not 200"


def test_an_expected_failure_passes():
    assert run(says(status=404), status=404)[0].passed


def test_what_the_answer_says_never_enters_the_message():
    found = {"error": WORDS, WORDS: 1, "list": [WORDS]}
    for expected in (expect("/error", '"ok"'), expect("/list/0", "1"), expect("/none", "1")):
        assert WORDS not in message(says(found), **expected)
    assert WORDS not in message(says(WORDS), **expect("", "1"))


@pytest.mark.parametrize(
    ("pointer", "equals"),
    [
        ("", '{"a/b": 1, "m~n": [true, null, "x"], "": 2.0, " ": {"~1": 3}}'),
        ("/a~1b", "1"),
        ("/a~1b", "1.0"),
        ("/m~0n/0", "true"),
        ("/m~0n/1", "null"),
        ("/m~0n/2", '"x"'),
        ("/m~0n", '[true, null, "x"]'),
        ("/", "2"),
        ("/ ", '{"~1": 3}'),
        ("/ /~01", "3"),
    ],
)
def test_a_pointer_finds_its_place(pointer, equals):
    document = {"a/b": 1, "m~n": [True, None, "x"], "": 2, " ": {"~1": 3}}
    assert run(says(document), **expect(pointer, equals))[0].passed


@pytest.mark.parametrize(
    ("pointer", "equals", "told"),
    [
        ("/ready", "1", "/ready is not 1"),
        ("/one", "true", "/one is not true"),
        ("/zero", "false", "/zero is not false"),
        ("/zero", "null", "/zero is not null"),
        ("/deep", '[{"x": [1]}]', '/deep is not [{"x": [1]}]'),
        ("/text", "1", "/text is not 1"),
        ("/deep", "[]", "/deep is not []"),
        ("", "{}", "the whole answer is not {}"),
        ("/none", "null", "the answer has no /none"),
        ("/deep/1", "1", "the answer has no /deep/1"),
        ("/deep/-1", "1", "the answer has no /deep/-1"),
        ("/deep/00", "1", "the answer has no /deep/00"),
        ("/deep/\u0660", "1", "the answer has no /deep/\u0660"),
        ("/text/0", '"1"', "the answer has no /text/0"),
    ],
)
def test_what_is_not_there_or_not_the_same_is_told_by_its_place(pointer, equals, told):
    document = {"ready": True, "one": 1, "zero": 0, "text": "1", "deep": [{"x": [True]}]}
    assert message(says(document), **expect(pointer, equals)) == told


@pytest.mark.parametrize(
    "body", ["", "<html>", "{", "\ud800".encode("utf-8", "surrogatepass").decode("latin-1")]
)
def test_an_answer_that_is_not_json_is_said(body):
    assert message(says(body), **expect("", "1")) == "the answer is not JSON"


def test_an_answer_of_a_million_brackets_is_not_json():
    assert message(says("[" * 1_000_000), **expect("", "1")) == "the answer is not JSON"


def test_an_expectation_that_is_not_json_is_said():
    """The schema lets brackets pass whatever is between them."""
    told = message(says({}), **expect("/a", "[FP32]"))
    assert told == "equals of /a is not JSON: text needs quotes of its own"


def test_an_answer_without_an_end_is_left_after_a_megabyte():
    sent = 0

    async def endless(request):
        nonlocal sent
        answer = web.StreamResponse()
        await answer.prepare(request)
        while sent < 100 * MOST_BYTES:
            await answer.write(b" " * 65_536)
            sent += 65_536
        return answer

    assert message(endless, **expect("", "1")) == f"the answer has more than {MOST_BYTES} bytes"
    assert sent < 50 * MOST_BYTES


def test_an_answer_of_exactly_a_megabyte_is_read_to_its_end():
    body = '{"ready": true' + " " * (MOST_BYTES - 15) + "}"
    assert len(body) == MOST_BYTES
    assert run(says(body), **expect("/ready", "true"))[0].passed


def test_a_body_that_nobody_looks_at_is_not_waited_for():
    async def slow_body(request):
        answer = web.StreamResponse()
        await answer.prepare(request)
        await asyncio.sleep(30)
        return answer

    assert run(slow_body, timeoutSeconds=10)[0].passed


# --- what does not come back ----------------------------------------------------------------


def test_an_answer_that_does_not_come_is_not_waited_for():
    async def never(_request):
        await asyncio.sleep(30)

    assert message(never, timeoutSeconds=1) == "no answer in 1 s"


def test_a_body_that_trickles_is_not_waited_for():
    async def trickle(request):
        answer = web.StreamResponse()
        await answer.prepare(request)
        for _ in range(300):
            await answer.write(b" ")
            await asyncio.sleep(0.1)
        return answer

    assert message(trickle, timeoutSeconds=1, **expect("", "1")) == "no answer in 1 s"


def test_a_service_that_nobody_listens_at_is_said():
    async def made():
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
            checker = HttpChecker(Loopback())
            return await checker.run(HttpCheck(path="/"), "shop", "ranker-v2", port)

    assert asyncio.run(made()).message == "no answer: the connection failed, or was cut"


def test_a_service_without_a_name_is_said():
    result, asked = run(says(), resolver=Nowhere())
    assert result.message == "no answer: ranker-v2.shop.svc is not known"
    assert asked == []


@pytest.mark.parametrize("said", [b"", b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 200 OK\r\nContent-"])
def test_a_server_that_speaks_no_http_is_said(said):
    async def made():
        async def answer(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(said)
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            checker = HttpChecker(Loopback())
            return await checker.run(HttpCheck(path="/"), "shop", "ranker-v2", port)

    result = asyncio.run(made())
    assert not result.passed
    assert result.message.startswith("no answer")
