"""Decisions as CloudEvents, delivered to a real HTTP server on loopback that behaves as told."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from modelrollout import telemetry
from modelrollout.adapters.notify import Notifier
from modelrollout.core.audit import Record
from modelrollout.settings import Webhook

PAUSES = (0.01, 0.01)


def a_record(number=0):
    body = {"id": f"u-1/{number}", "decision": "RolledBack", "message": "wörse\n", "weight": number}
    return Record(
        id=body["id"],
        time="2027-01-15T08:00:00.000Z",
        decision="RolledBack",
        namespace="shop",
        rollout="ranker",
        body=body,
    )


@dataclass
class Receiver:
    """What it got, and what it answers next: 204 when nothing is said."""

    answers: list[int] = field(default_factory=list)
    got: list[tuple[dict[str, str], dict[str, object]]] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    never: asyncio.Event | None = None
    url: str = ""

    async def handle(self, request):
        self.got.append((dict(request.headers), json.loads(await request.read())))
        self.arrived.set()
        if self.never is not None:
            await self.never.wait()
        status = self.answers.pop(0) if self.answers else 204
        headers = {"Location": f"{self.url}/elsewhere"} if 300 <= status < 400 else {}
        return web.Response(status=status, headers=headers)

    @property
    def ids(self):
        return [event["id"] for _, event in self.got]


@asynccontextmanager
async def receiver(*answers, hangs=False):
    found = Receiver(list(answers), never=asyncio.Event() if hangs else None)
    app = web.Application()
    app.add_routes([web.post("/{path:.*}", found.handle), web.get("/{path:.*}", found.handle)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]  # noqa: SLF001  # aiohttp has no other way
    found.url = f"http://127.0.0.1:{port}"
    try:
        yield found
    finally:
        if found.never is not None:
            found.never.set()
        await runner.cleanup()


def outcomes(name):
    """How many records of a web hook met which end."""
    samples = next(iter(telemetry.NOTIFICATIONS.collect())).samples
    return {
        each.labels["outcome"]: int(each.value)
        for each in samples
        if each.labels["webhook"] == name and each.name.endswith("_total")
    }


@pytest.fixture
def name(request):
    """Counters are the process': each test has its own."""
    return request.node.name


def notifier(name, url, **settings):
    queue = {key: settings.pop(key) for key in ("queue_length",) if key in settings}
    return Notifier(name, Webhook(url=url, **settings), pauses=PAUSES, **queue)


def test_a_decision_arrives_as_a_structured_cloud_event(name):
    async def run():
        async with receiver() as server:
            told = notifier(name, server.url)
            told.tell(a_record())
            await told.close()
        return server.got

    ((headers, event),) = asyncio.run(run())

    assert headers["Content-Type"] == "application/cloudevents+json; charset=utf-8"
    assert event == {
        "specversion": "1.0",
        "id": "u-1/0",
        "source": "/apis/modelrollout.dev/v1alpha1/namespaces/shop/modelrollouts/ranker",
        "type": "dev.modelrollout.RolledBack",
        "subject": "shop/ranker",
        "time": "2027-01-15T08:00:00.000Z",
        "datacontenttype": "application/json",
        "data": a_record().body,
    }
    assert outcomes(name) == {"delivered": 1}


def test_events_arrive_in_order_and_once_though_the_server_fails_in_between(name):
    async def run():
        async with receiver(204, 503, 429, 204) as server:
            told = notifier(name, server.url)
            for number in range(3):
                told.tell(a_record(number))
            await told.close()
        return server.ids

    assert asyncio.run(run()) == ["u-1/0", "u-1/1", "u-1/1", "u-1/1", "u-1/2"]
    assert outcomes(name) == {"delivered": 3}


def test_what_is_refused_is_not_sent_again(name):
    async def run():
        async with receiver(400, 204) as server:
            told = notifier(name, server.url)
            told.tell(a_record(0))
            told.tell(a_record(1))
            await told.close()
        return server.ids

    assert asyncio.run(run()) == ["u-1/0", "u-1/1"]
    assert outcomes(name) == {"failed": 1, "delivered": 1}


def test_a_redirect_is_not_followed(name):
    async def run():
        async with receiver(307) as server:
            told = notifier(name, server.url)
            told.tell(a_record())
            await told.close()
        return server.ids

    assert asyncio.run(run()) == ["u-1/0"]
    assert outcomes(name) == {"failed": 1}


def test_a_server_that_stays_ill_is_given_up_and_the_next_record_is_tried(name):
    async def run():
        async with receiver(500, 500, 500, 204) as server:
            told = notifier(name, server.url)
            told.tell(a_record(0))
            told.tell(a_record(1))
            await told.close()
        return server.ids

    assert asyncio.run(run()) == ["u-1/0", "u-1/0", "u-1/0", "u-1/1"]
    assert outcomes(name) == {"failed": 1, "delivered": 1}


def test_an_address_where_nobody_listens_is_no_error_of_ours(name, caplog):
    async def run():
        async with receiver() as server:
            gone = server.url.replace("http://", "http://user:hunter2@")
        told = notifier(name, gone)
        told.tell(a_record())
        await told.close()

    asyncio.run(run())

    assert outcomes(name) == {"failed": 1}
    assert "u-1/0 failed" in caplog.text
    assert "hunter2" not in caplog.text


def test_headers_come_from_files_as_they_are_when_it_is_sent(name, tmp_path):
    token = tmp_path / "authorization"
    token.write_text("Bearer one\n")

    async def run():
        async with receiver() as server:
            for text in ("Bearer one\n", "Bearer two\n"):
                token.write_text(text)
                told = notifier(name, server.url, header_files={"Authorization": str(token)})
                told.tell(a_record())
                await told.close()
        return [headers["Authorization"] for headers, _ in server.got]

    assert asyncio.run(run()) == ["Bearer one", "Bearer two"]


@pytest.mark.parametrize("setting", ["header_files", "ca_file"])
def test_nothing_is_sent_without_the_file_that_is_asked_for(setting, name, tmp_path):
    missing = str(tmp_path / "missing")
    settings = {"header_files": {"Authorization": missing}, "ca_file": missing}

    async def run():
        async with receiver() as server:
            told = notifier(name, server.url, **{setting: settings[setting]})
            told.tell(a_record())
            await told.close()
        return server.got

    assert asyncio.run(run()) == []
    assert outcomes(name) == {"failed": 1}


def test_a_full_queue_drops_what_comes_and_counts_it(name):
    async def run():
        async with receiver() as server:
            told = notifier(name, server.url, queue_length=2)
            for number in range(5):
                told.tell(a_record(number))
            await told.close()
        return server.ids

    assert asyncio.run(run()) == ["u-1/0", "u-1/1"]
    assert outcomes(name) == {"dropped": 3, "delivered": 2}


def test_the_end_of_the_operator_waits_for_no_server_and_counts_what_is_lost(name):
    async def run():
        async with receiver(hangs=True) as server:
            told = notifier(name, server.url)
            told.tell(a_record(0))
            told.tell(a_record(1))
            await server.arrived.wait()
            await told.close(patience_seconds=0)

    asyncio.run(run())

    assert outcomes(name) == {"dropped": 2}


def test_a_web_hook_that_was_told_nothing_has_nothing_to_close(name):
    asyncio.run(notifier(name, "http://127.0.0.1:9").close())

    assert outcomes(name) == {}
