"""
A rollout among marked secrets: none of them is in anything that it leaves behind.

The operator's own adapters talk to servers that fail in all the ways that quote what they were
given, while everything logs as much as it can.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import itertools
import json
import logging
import socket
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver
from prometheus_client import generate_latest

from builders import ERRORS, NOW, a_spec
from contract.conftest import QuietHandler, Served
from modelrollout import telemetry
from modelrollout.adapters.checks import HttpChecker
from modelrollout.adapters.cluster import CONFIG_MAPS, DEPLOYMENTS, ROLLOUTS
from modelrollout.adapters.notify import Notifier
from modelrollout.adapters.prometheus import Prometheus
from modelrollout.adapters.recorder import Recorder
from modelrollout.adapters.routers.gateway_api import GatewayAPIRouter
from modelrollout.api import v1alpha1 as api
from modelrollout.core.observation import Comparator
from modelrollout.reconcile import reconcile
from modelrollout.settings import Provider, Webhook
from modelrollout.simulation.cluster import Gateway, Store, furnish
from modelrollout.world import World

MARK = "s3cr3t"


def marked(what: str) -> str:
    return f"{MARK}-{what}"


class Faulty:
    """A server that answers in one way after the other, each time with what it was sent."""

    def __init__(self, kinds: list[tuple[int, str]]) -> None:
        self.asked: list[str] = []
        self.bodies: list[str] = []
        turns, faulty = itertools.cycle(kinds), self

        class Handler(QuietHandler):
            def do_GET(self) -> None:  # noqa: N802
                length = int(self.headers.get("Content-Length") or 0)
                sent = self.rfile.read(length).decode()
                status, text = next(turns)
                faulty.asked.append(f"{self.path} {dict(self.headers)}")
                faulty.bodies.append(sent)
                body = text.replace("@", json.dumps(str(self.headers))[1:-1] + sent).encode()
                self.send_response(status)
                self.send_header("Location", f"http://127.0.0.1:1/?{marked('location')}")
                self.send_header("Set-Cookie", f"session={marked('cookie')}")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET  # noqa: N815

        self.served = Served(Handler)

    @property
    def authority(self) -> str:
        return self.served.url.removeprefix("http://")


FAULTS = [
    (500, "@"),
    (401, marked("challenge")),
    (302, "@"),
    (200, "<html>@</html>"),
    (503, json.dumps({"status": "error", "errorType": "internal", "error": marked("store")})),
    (200, '{"status": "success", "data": {"result": "@"}}'),
]


class Loopback(AbstractResolver):
    """Every Service is this machine."""

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[Any]:
        found = {"hostname": host, "host": "127.0.0.1", "port": port, "proto": 0, "flags": 0}
        return [found | {"family": family or socket.AF_INET}]

    async def close(self) -> None:
        pass


class NoComparator:
    """Nothing is mirrored."""

    async def observe(self, *_: Any) -> Comparator:
        return Comparator()

    async def deploy(self, *_: Any) -> None:
        pass

    async def remove(self, *_: Any) -> None:
        pass


def spec_with_secrets(port: int) -> dict[str, Any]:
    answer = {"pointer": "/token", "equals": f'"{marked("expected")}"'}
    http = {"path": "/", "method": "POST", "body": json.dumps({"password": marked("body")})}
    return a_spec(
        port=port,
        traffic={
            "gatewayAPI": {"route": "ranker"},
            "cohort": [{"cookie": "session", "value": marked("cohort")}],
        },
        strategy={
            "steps": [{"weight": 10}],
            "checks": [{"name": "answers", "http": http | {"json": [answer]}}],
            "checkSeconds": 20,
        },
        analysis={
            "guardrails": [ERRORS, {"name": "memory", "limit": {"query": "vector(1)", "max": "2"}}],
            "noDataTimeoutSeconds": 10,
            "onNoData": "Rollback",
        },
    )


class Cluster(Store):
    """With ConfigMaps that can be added to."""

    async def patch(self, resource: Any, namespace: str, name: str, operations: Any) -> Any:
        if resource != CONFIG_MAPS:
            return await super().patch(resource, namespace, name, operations)
        live = self.live(resource, name)
        added = {each["path"]: each["value"] for each in operations if each["op"] == "add"}
        data = {path.removeprefix("/binaryData/"): value for path, value in added.items()}
        return self.put(resource, {**live, "binaryData": {**live["binaryData"], **data}})


class Scene:
    """The operator's adapters in a small cluster, with secrets wherever there is a place for one."""

    def __init__(self, folder: Any, answers: list[tuple[int, str]]) -> None:
        self.time = [NOW]
        self.prometheus, self.candidate = Faulty(FAULTS), Faulty(answers)
        self.refusing, self.hook = Faulty(FAULTS), Faulty([(200, "@")])
        self.folder = folder
        for name in ("token", "header"):
            (folder / name).write_text(marked(name))
        self.store = Cluster(clock=lambda: self.time[0], disturb=lambda: None)
        gateway = Gateway(self.store, 0, lambda _, do: do(), lambda _: None)
        self.store.written.append(
            lambda kind, body: gateway.route_written(body) if kind.plural == "httproutes" else None
        )

    def furnish(self) -> None:
        spec = spec_with_secrets(self.candidate.served.port)
        metadata = {"name": "ranker", "namespace": "shop"}
        furnish(self.store, {"metadata": metadata, "spec": spec}, (2, 2))
        deployment = self.store.live(DEPLOYMENTS, "ranker-v2")
        container = deployment["spec"]["template"]["spec"]["containers"][0]
        container["env"] = [{"name": "PASSWORD", "value": marked("env")}]
        deployment["metadata"]["annotations"] = {"last-applied": marked("annotation")}

    def world(self, notifiers: list[Notifier], recorder: Recorder) -> World:
        provider = Provider(
            url=f"http://ada:{marked('password')}@{self.prometheus.authority}",
            headers={"X-Key": marked("provider")},
            bearer_token_file=str(self.folder / "token"),
        )
        source = Prometheus(
            provider.url,
            headers=provider.headers,
            bearer_token_file=provider.bearer_token_file,
            timeout_seconds=0.5,
        )
        comparators: Any = NoComparator()
        return World(
            cluster=self.store,
            metrics={"default": source},
            router=GatewayAPIRouter(self.store, lambda: self.time[0]),
            comparators=comparators,
            checker=HttpChecker(Loopback()),
            clock=lambda: self.time[0],
            listeners=notifiers,
            recorder=recorder,
        )

    async def play(self, passes: int) -> None:
        self.furnish()
        notifiers = [
            Notifier(
                name,
                Webhook(
                    url=f"http://ada:{marked('hook')}@{server.authority}/{path}",
                    header_files={"X-Token": str(self.folder / "header")},
                ),
                pauses=(0.0,),
            )
            for name, server, path in (
                ("good", self.hook, "in"),
                ("bad", self.refusing, marked("path")),
            )
        ]
        recorder = Recorder(self.store)
        world = self.world(notifiers, recorder)
        for turn in range(passes):
            await reconcile(("shop", "ranker"), world)
            self.time[0] += 5
            if turn == passes // 2:
                await self.command()
        await recorder.close()
        for each in notifiers:
            await each.close()

    async def command(self) -> None:
        live = self.store.live(ROLLOUTS, "ranker")
        annotations = {api.COMMAND: "pause", api.COMMAND_BY: "ada"}
        self.store.put(
            ROLLOUTS, {**live, "metadata": {**live["metadata"], "annotations": annotations}}
        )

    def left_behind(self) -> str:
        """Status, Events, what web hooks were told, and what a report is made of."""
        status = self.store.live(ROLLOUTS, "ranker")["status"]
        maps = self.store._objects.get(CONFIG_MAPS.plural, {}).values()  # noqa: SLF001  # all there are
        traces = [
            gzip.decompress(base64.b64decode(data)).decode()
            for each in maps
            for data in each["binaryData"].values()
        ]
        return json.dumps(
            [status, self.store.events, self.hook.bodies, self.refusing.bodies, traces]
        )


@pytest.mark.parametrize(
    "answers",
    [
        [(500, "@"), (200, "<html>@"), (302, "@"), (200, '{"token": "@"}')],
        [(200, json.dumps({"token": marked("expected")}))],
    ],
    ids=["checks that fail", "checks that pass"],
)
def test_no_secret_is_in_anything_that_a_rollout_leaves_behind(answers, tmp_path, caplog):
    scene = Scene(tmp_path, answers)
    caplog.set_level(logging.DEBUG)
    telemetry.AUDIT.setLevel(logging.INFO)

    with (
        scene.prometheus.served,
        scene.candidate.served,
        scene.refusing.served,
        scene.hook.served,
    ):
        asyncio.run(scene.play(12))

    left = scene.left_behind()
    logged = "\n".join(logging.Formatter("%(message)s").format(each) for each in caplog.records)
    # Everybody was there, and was given what is theirs.
    assert marked("body") in "".join(scene.candidate.bodies)
    assert marked("header") in "".join(scene.hook.asked)
    assert marked("token") in "".join(scene.prometheus.asked)
    assert marked("provider") in "".join(scene.prometheus.asked)
    assert '"decision"' in logged
    assert len(scene.hook.bodies) > 1
    # And nobody told.
    assert places_of(MARK, left) == []
    assert places_of(MARK, logged) == []


def places_of(word: str, text: str) -> list[str]:
    """Where it is, for people."""
    starts = [at for at in range(len(text)) if text.startswith(word, at)]
    return [text[max(0, at - 120) : at + 40] for at in starts][:5]


def test_no_metric_of_the_operator_quotes_what_it_was_given(tmp_path):
    scene = Scene(tmp_path, [(500, "@")])
    with (
        scene.prometheus.served,
        scene.candidate.served,
        scene.refusing.served,
        scene.hook.served,
    ):
        asyncio.run(scene.play(4))

    assert MARK.encode() not in generate_latest()
