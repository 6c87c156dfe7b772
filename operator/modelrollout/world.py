"""The collaborators of a pass. Tests and simulations bring their own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from modelrollout.adapters.cluster import Object, Resource
from modelrollout.adapters.routers.gateway_api import View
from modelrollout.api import v1alpha1 as api
from modelrollout.core.audit import Record
from modelrollout.core.evidence import Grid, Histogram, Query, Reading
from modelrollout.core.observation import CheckResult, Comparator, Observation, Rollout
from modelrollout.core.plan import Plan, Traffic
from modelrollout.drafts import Drafts
from modelrollout.selector import EVERYTHING, Selector

T = TypeVar("T")


class Cluster(Protocol):
    """The Kubernetes API: see adapters/cluster.py."""

    async def get(self, resource: Resource, namespace: str, name: str) -> Object:
        """One object, or NotFound."""

    async def list(
        self, resource: Resource, namespace: str | None = None, selector: str = ""
    ) -> list[Object]:
        """All objects with the given labels."""

    async def create(self, resource: Resource, namespace: str, body: Object) -> Object:
        """A new object, or Conflict."""

    async def patch(
        self, resource: Resource, namespace: str, name: str, operations: Sequence[Object]
    ) -> Object:
        """A JSON Patch, or Conflict."""

    async def replace_status(self, resource: Resource, body: Object) -> Object:
        """The status of an object as read, or Conflict."""


class MetricSource(Protocol):
    """Where counts come from: see adapters/prometheus.py. Every failure is MetricsUnavailable."""

    async def read(self, query: Query, grid: Grid, now: float) -> Reading:
        """The windows since the grid's watermark."""

    async def histogram(self, query: Query, start: float, end: float) -> Histogram:
        """Stable's histogram over a span, to choose thresholds from."""

    async def value(self, expression: str, namespace: str, now: float) -> float | None:
        """The one value of a PromQL expression."""


class Router(Protocol):
    """What moves traffic: see adapters/routers."""

    async def observe(self, rollout: Rollout, traffic: Traffic, before: View | None) -> View:
        """The route against the intended traffic; `before` is what the last pass saw."""

    async def set_traffic(self, rollout: Rollout, traffic: Traffic, seen: str | None) -> bool:
        """Make the route say it; whether that took a write. Conflict if it is not the one `seen`."""


class Listener(Protocol):
    """Who is told of decisions: see adapters/notify.py."""

    @property
    def name(self) -> str:
        """What a ModelRollout calls it by."""

    def is_open_to(self, namespace: str) -> bool:
        """Whether it is told of ModelRollouts in there."""

    def tell(self, record: Record) -> None:
        """Take it for later. Never waits, never fails."""


class Recorder(Protocol):
    """Who keeps the course of rollouts for people: see adapters/recorder.py."""

    def record(self, rollout: Rollout, seen: Observation, plan: Plan) -> None:
        """Take a pass for later. Never waits, never fails."""


class Comparators(Protocol):
    """What compares the answers to mirrored requests: see adapters/comparator.py."""

    async def observe(self, rollout: Rollout, known: api.ModelRolloutStatus) -> Comparator:
        """What there is of a rollout's."""

    async def deploy(self, rollout: Rollout, known: api.ModelRolloutStatus) -> None:
        """Make it compare the versions on trial."""

    async def remove(self, rollout: Rollout) -> None:
        """Take it away."""


class Checker(Protocol):
    """What asks a candidate before users do: see adapters/checks.py."""

    async def run(
        self, check: api.HttpCheck, namespace: str, service: str, port: int
    ) -> CheckResult:
        """Ask once; never an exception."""


class Together(Protocol):
    """How several questions are asked at once: see asyncio.gather."""

    def __call__(self, *questions: Coroutine[Any, Any, T]) -> Awaitable[list[T]]:
        """The answers, in the order of the questions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Everything outside of a pass."""

    cluster: Cluster
    metrics: Mapping[str, MetricSource]
    """By provider name."""
    router: Router
    comparators: Comparators
    checker: Checker
    clock: Callable[[], float]
    """Unix seconds."""
    shard: Selector = EVERYTHING
    """The ModelRollouts that are this operator's."""
    listeners: Sequence[Listener] = ()
    recorder: Recorder | None = None
    drafts: Drafts = field(default_factory=Drafts)
    together: Together = asyncio.gather
