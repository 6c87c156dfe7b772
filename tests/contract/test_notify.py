"""Decisions, delivered to a real HTTP server on loopback that behaves as told."""

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
from modelrollout.settings import Audience, Webhook, WebhookFormat

PAUSES = (0.01, 0.01)


def a_record(number=0, decision="RolledBack", namespace="shop", recipients=(), **body):
    given = {"id": f"u-1/{number}", "decision": decision, "message": "wörse\n"} | body
    return Record(
        id=given["id"],
        time="2027-01-15T08:00:00.000Z",
        decision=decision,
        namespace=namespace,
        rollout="ranker",
        body=given,
        recipients=recipients,
    )


@dataclass
class Receiver:
    """What it got, and what it answers next: 204 when nothing is said."""

    answers: list[int] = field(default_factory=list)
    got: list[tuple[dict[str, str], dict[str, object]]] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    never: asyncio.Event | None = None
    url: str = ""
    retry_after: str = ""
    times: list[float] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    async def handle(self, request):
        self.got.append((dict(request.headers), json.loads(await request.read())))
        self.times.append(asyncio.get_running_loop().time())
        self.paths.append(request.path)
        self.arrived.set()
        if self.never is not None:
            await self.never.wait()
        status = self.answers.pop(0) if self.answers else 204
        headers = {"Location": f"{self.url}/elsewhere"} if 300 <= status < 400 else {}
        if self.retry_after and status == 429:
            headers["Retry-After"] = self.retry_after
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


def notifier(name, url="", **settings):
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


@pytest.mark.parametrize(("asked", "at_least"), [("1", 1.0), ("soon", 0.0), ("-1", 0.0)])
def test_a_receiver_that_says_when_to_come_again_is_obeyed(asked, at_least, name):
    async def run():
        async with receiver(429) as server:
            server.retry_after = asked
            told = notifier(name, server.url)
            told.tell(a_record())
            await told.close()
        first, second = server.times
        return second - first

    assert asyncio.run(run()) >= at_least
    assert outcomes(name) == {"delivered": 1}


def test_an_address_that_is_a_secret_comes_from_a_file_as_it_is_when_it_is_sent(name, tmp_path):
    address = tmp_path / "address"

    async def run():
        async with receiver() as server:
            for path in ("/services/T1/B1/one", "/services/T1/B1/two"):
                address.write_text(f"{server.url}{path}\n")
                told = notifier(name, url_file=str(address))
                told.tell(a_record())
                await told.close()
        return server.paths

    assert asyncio.run(run()) == ["/services/T1/B1/one", "/services/T1/B1/two"]


def test_a_secret_address_is_in_no_log(name, tmp_path, caplog):
    address = tmp_path / "address"

    async def run():
        async with receiver() as server:
            gone = server.url
        for text in (f"{gone}/services/hunter2", "hunter2"):
            address.write_text(text)
            told = notifier(name, url_file=str(address))
            told.tell(a_record())
            await told.close()

    asyncio.run(run())

    assert outcomes(name) == {"failed": 2}
    assert "hunter2" not in caplog.text


ASKED = {"rollouts": Audience.NAMED}


@pytest.mark.parametrize(
    ("settings", "record", "is_told"),
    [
        ({}, {}, True),
        ({}, {"recipients": ("somebody-else",)}, True),
        (ASKED, {}, False),
        (ASKED, {"recipients": ("team",)}, True),
        (ASKED, {"recipients": ("somebody-else", "team")}, True),
        (ASKED, {"recipients": ("tea",)}, False),
        ({"namespaces": ("shop",)}, {}, True),
        ({"namespaces": ("bank",)}, {}, False),
        (ASKED | {"namespaces": ("bank",)}, {"recipients": ("team",)}, False),
        ({"decisions": ("RolledBack", "Paused")}, {}, True),
        ({"decisions": ("RolledBack", "Paused")}, {"decision": "StepStarted"}, False),
    ],
)
def test_who_is_told_of_what(settings, record, is_told):
    """The administrator's choice, and within it the ModelRollout's."""

    async def run():
        async with receiver() as server:
            told = notifier("team", server.url, **settings)
            told.tell(a_record(**record))
            await told.close()
        return server.ids

    assert asyncio.run(run()) == (["u-1/0"] if is_told else [])


LOST = {
    "message": "ranker-v2 was rolled back at 5 %: errors: candidate 5.01 % of 359, stable 0.92 %",
    "step": {"number": 1, "of": 5},
    "weight": {"before": 5, "after": 0},
    "evidence": {
        "guardrails": [
            {
                "name": "errors",
                "verdict": "Fail",
                "message": "candidate 5.01 % of 359, stable 0.92 %",
            },
            {"name": "latency", "verdict": "Inconclusive", "message": "p99 320 ms & <more>"},
        ]
    },
}


def told_to_slack(name, record):
    async def run():
        async with receiver(200) as server:
            told = notifier(name, server.url, format=WebhookFormat.SLACK)
            told.tell(record)
            await told.close()
        return server.got

    ((headers, body),) = asyncio.run(run())
    assert headers["Content-Type"] == "application/json; charset=utf-8"
    return body


def test_slack_gets_what_why_and_what_to_do(name):
    body = told_to_slack(name, a_record(**LOST))

    assert body.pop("text").splitlines() == [
        "*Rolled back: shop/ranker* (step 1 of 5, 5 % → 0 % of the requests)",
        "ranker-v2 was rolled back at 5 %: errors: candidate 5.01 % of 359, stable 0.92 %",
        "• latency: Inconclusive. p99 320 ms &amp; &lt;more&gt;",
        (
            "Users are on stable. Mend the model and deploy it; if the cause was elsewhere, retry. "
            "`kubectl modelrollout why ranker --namespace shop`"
        ),
    ]
    assert body == {"unfurl_links": False, "unfurl_media": False}


def test_what_users_of_the_cluster_wrote_mentions_nobody_and_adds_no_lines(name):
    asked = "ready?\n*Promoted: shop/other*\n<!channel> @here <https://evil.example|dashboard>"
    text = told_to_slack(name, a_record(decision="Paused", message=asked))["text"]

    assert len(text.splitlines()) == 3
    assert not {"<", ">"} & set(text)
    assert "@here" not in text
    assert "&lt;!channel&gt;" in text


def test_a_message_is_never_too_long_for_slack(name):
    many = [{"name": f"g{i}", "verdict": "Pass", "message": f"{i} <&> " * 400} for i in range(50)]
    record = a_record(**LOST | {"message": "<" * 2000, "evidence": {"guardrails": many}})

    assert len(told_to_slack(name, record)["text"]) < 4000


def test_an_approval_that_is_asked_for_says_what_to_do(name):
    text = told_to_slack(name, a_record(decision="Paused", message="look at the dashboard"))["text"]

    assert text.splitlines()[0] == "*Waits for a human: shop/ranker*"
    assert "approve" in text.splitlines()[-1]


def test_a_web_hook_that_was_told_nothing_has_nothing_to_close(name):
    asyncio.run(notifier(name, "http://127.0.0.1:9").close())

    assert outcomes(name) == {}
