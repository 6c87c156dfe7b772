"""One rollout in one world with one fault, on a virtual clock."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from chaos.apiserver import ApiServer
from chaos.clock import BEGAN, VirtualLoop
from chaos.metrics import Prometheus
from chaos.observer import Observer
from chaos.operators import Call, Fault, Operator, no_fault
from chaos.plane import Plane
from chaos.stories import GOOD, Act, Story
from modelrollout.adapters.cluster import (
    DEPLOYMENTS,
    GATEWAYS,
    HTTP_ROUTES,
    ROLLOUTS,
    SERVICES,
    Object,
)
from modelrollout.api import v1alpha1 as api
from modelrollout.errors import NotFound

LONGEST_SECONDS = 600.0
QUIET_SECONDS = 12.0
RESTART_SECONDS = 5.0
BY = "ada"

Happening = Callable[["Run"], Awaitable[None]]
"""What goes wrong, and when; it runs beside the rollout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a run ended."""

    ending: str
    """Promoted, RolledBack, Deleted, or the phase in which nothing happened any more."""
    seconds: float
    violations: tuple[str, ...]
    left_behind: tuple[str, ...]
    lost_requests: float
    seconds_to_safety: float | None
    """From the news that the candidate is bad until no user reached it; None without such news."""
    calls: tuple[Call, ...]
    """Of the first operator."""
    history: tuple[str, ...]


class Run:
    """A world, and the coroutines in it."""

    def __init__(
        self,
        story: Story,
        fault_of: Callable[[Run], Fault] = lambda _: no_fault,
        server_of: Callable[[Callable[[], float]], ApiServer] = ApiServer,
    ) -> None:
        random.seed(7)  # the queue's jitter
        self.story = story
        self.loop = VirtualLoop()
        self.skew = 0.0
        """The operators' clock against everybody else's."""
        self.server = server_of(self.clock)
        self.plane = Plane(self.server, self.loop, self.clock, "shop")
        self.observer = Observer(story, self.server, self.plane)
        self.observers = [self.observer]
        self.prometheus = Prometheus(self.plane)
        self.is_api_away = False
        self.is_watching = True
        self.operators: list[Operator] = []
        self._fault = fault_of(self)
        self._closing: list[Operator] = []
        self.plane.error_rates = {"ranker-v1": GOOD, "ranker-v2": story.errors}

    def clock(self) -> float:
        return BEGAN + self.loop.time()

    @property
    def rule(self) -> str:
        """The name of the rule that is edited."""
        is_managed = "gateway" in self.story.spec["traffic"]["gatewayAPI"]
        return "modelrollout" if is_managed else "main"

    @property
    def rollout(self) -> Object:
        return self.server.get(ROLLOUTS, "shop", "ranker")

    @property
    def status(self) -> Object:
        return self.observer.status

    # --- from beginning to end ------------------------------------------------------------

    def go(self, happening: Happening | None = None) -> Outcome:
        try:
            return self.loop.run_until_complete(self._go(happening))
        finally:
            self.loop.close()

    async def _go(self, happening: Happening | None) -> Outcome:
        self._furnish()
        first = self.start_operator(self._fault)
        beside = [asyncio.create_task(self._human())]
        if happening is not None:
            beside.append(asyncio.create_task(_as_coroutine(happening(self))))
        ended = await self._until_quiet(beside)
        for each in beside:
            each.cancel()
        for task in await asyncio.gather(*beside, return_exceptions=True):
            if isinstance(task, Exception):
                raise task
        for operator in self._closing:
            await operator.close()
        return Outcome(
            ending=self._ending(),
            seconds=ended,
            violations=tuple(said for each in self.observers for said in each.violations),
            left_behind=tuple(self.observer.left_behind()),
            lost_requests=self.plane.lost_requests,
            seconds_to_safety=self.observer.seconds_to_safety(),
            calls=tuple(first.connection.calls),
            history=tuple(each["what"] for each in self.status.get("history", [])),
        )

    async def _until_quiet(self, beside: list[asyncio.Task[None]]) -> float:
        """Until it is decided and nothing has been left for a while; the time of that."""
        since: float | None = None
        while self.loop.time() < LONGEST_SECONDS:
            await asyncio.sleep(0.5)
            self.server.collect()
            self.plane.advance()
            for each in self.observers:
                each.pods_were_left_alone(
                    can_act=not self.is_api_away and not self.plane.gateway_is_down
                )
            is_over = self._is_over() and all(each.done() for each in beside[1:])
            since = (since or self.loop.time()) if is_over else None
            if since is not None and self.loop.time() - since > QUIET_SECONDS:
                return since
        return self.loop.time()

    def _is_over(self) -> bool:
        is_ended = self._ending() in {"Promoted", "RolledBack", "Deleted"}
        return is_ended and self._acts_left == 0 and not self.observer.left_behind()

    def _ending(self) -> str:
        try:
            return str(self.rollout.get("status", {}).get("phase", "Pending"))
        except NotFound:
            return "Deleted"

    # --- who is there ---------------------------------------------------------------------

    def start_operator(self, fault: Fault = no_fault) -> Operator:
        operator = Operator(
            self.loop,
            self.server,
            self.plane,
            self.prometheus,
            lambda: self.clock() + self.skew,
            fault,
        )
        operator.is_watching = self.is_watching
        self.operators.append(operator)
        self._closing.append(operator)
        return operator

    def kill(self, operator: Operator, seconds: float = RESTART_SECONDS) -> None:
        """Gone at once; another one comes."""
        operator.die()
        self.operators.remove(operator)
        self.loop.later(seconds, self._restart)

    def _restart(self) -> None:
        self.start_operator()

    async def until(self, seen: Callable[[Object], bool], seconds: float = 600.0) -> bool:
        """Wait for something in the status; whether it came."""
        end = self.loop.time() + seconds
        while self.loop.time() < end:
            if seen(self.status):
                return True
            await asyncio.sleep(0.1)
        return False

    async def _human(self) -> None:
        """Does what the story says, and approves."""
        self._acts_left = len(self.story.acts)
        for act in self.story.acts:
            await self._time_of(act)
            if act.delete:
                self.server.delete(ROLLOUTS, "shop", "ranker")
            else:
                self.command(act.command)
            self._acts_left -= 1
            await asyncio.sleep(0.3)
        while self.story.approves:
            await asyncio.sleep(0.3)
            if self._awaits_approval() and self._is_unasked():
                self.command("approve")

    async def _time_of(self, act: Act) -> None:
        while not (act.when(self.status) and self._is_unasked()):  # noqa: ASYNC110  # as a human
            await asyncio.sleep(0.3)

    def _is_unasked(self) -> bool:
        try:
            return api.COMMAND not in self.rollout["metadata"].get("annotations", {})
        except NotFound:
            return False

    def _awaits_approval(self) -> bool:
        reasons = {each["reason"] for each in self.status.get("conditions", [])}
        return "AwaitingApproval" in reasons

    def command(self, text: str) -> None:
        """As kubectl annotate does it."""
        live = self.rollout
        annotations = {
            **live["metadata"].get("annotations", {}),
            api.COMMAND: text,
            api.COMMAND_BY: BY,
        }
        for each in self.observers:
            each.commands.append((self.clock(), text))
        self.server.put(
            ROLLOUTS, {**live, "metadata": {**live["metadata"], "annotations": annotations}}
        )

    # --- what there is at first -----------------------------------------------------------

    def _furnish(self) -> None:
        spec: dict[str, Any] = self.story.spec
        self._acts_left = len(self.story.acts)
        is_scaled = "scaling" in spec
        for name, replicas in (("ranker-v1", 4), ("ranker-v2", 0 if is_scaled else 2)):
            self.deploy(name, replicas)
        self.plane.follow()
        gateway = {"spec": {"gatewayClassName": "class"}, "metadata": {"name": "gateway"}}
        self.server.create(GATEWAYS, "shop", gateway)
        if "route" in spec["traffic"]["gatewayAPI"]:
            self.server.create(HTTP_ROUTES, "shop", a_route(self.story.route))
        self.plane.remember()
        body = {"metadata": {"name": "ranker", "labels": {}}, "spec": spec}
        self.server.create(ROLLOUTS, "shop", body)

    def deploy(self, name: str, replicas: int, version: str = "1") -> None:
        """A Deployment and its Service."""
        labels = {"app": name}
        template = {
            "metadata": {"labels": labels},
            "spec": {"containers": [{"image": f"{name}:{version}"}]},
        }
        deployment = {
            "metadata": {"name": name, "labels": labels},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": labels},
                "template": template,
            },
        }
        self.server.create(DEPLOYMENTS, "shop", deployment)
        ports = [{"name": "http", "port": 8080}]
        service = {"metadata": {"name": name}, "spec": {"selector": labels, "ports": ports}}
        self.server.create(SERVICES, "shop", service)


def a_route(name: str) -> Object:
    """The user's: a rule of another team's, and the one to edit."""
    other = {
        "name": "other",
        "matches": [{"path": {"type": "PathPrefix", "value": "/other"}}],
        "backendRefs": [{"name": "ranker-v1", "port": 8080, "weight": 1}],
        "timeouts": {"request": "3s"},
    }
    ref = {"group": "", "kind": "Service", "name": "ranker-v1", "port": 8080, "weight": 1}
    main = {
        "name": "main",
        "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
        "filters": [
            {"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": ["x-secret"]}}
        ],
        "backendRefs": [ref],
    }
    return {
        "metadata": {"name": name, "annotations": {"team": "search"}},
        "spec": {"parentRefs": [{"name": "gateway"}], "rules": [main, other]},
    }


async def _as_coroutine(given: Awaitable[None]) -> None:
    """What is to be disturbed may be gone already: then there is nothing to disturb."""
    with contextlib.suppress(NotFound):
        await given
