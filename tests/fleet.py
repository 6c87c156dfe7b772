"""Deployments of a walk: their pods start when they are wanted, as far as there is room for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from builders import a_workload
from modelrollout.api.v1alpha1 import ModelRolloutStatus
from modelrollout.core.observation import Idle, Workload
from modelrollout.core.plan import Plan

FULL = "0/3 nodes are available: 3 Insufficient cpu."


@dataclass
class Fleet:
    """What is wanted and what is ready, by Deployment."""

    desired: dict[str, int]
    room: int = 1_000
    """Pods that fit into the cluster."""
    starting: int = 1_000
    """Pods that become ready from one pass to the next."""
    autoscaled: set[str] = field(default_factory=set)
    """Deployments with a HorizontalPodAutoscaler."""
    ready: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ready = self.ready or dict(self.desired)

    def workload(self, deployment: str, revision: str) -> Workload:
        """A version as a pass sees it."""
        desired, ready = self.desired[deployment], self.ready[deployment]
        is_full = ready < desired and sum(self.ready.values()) >= self.room
        return a_workload(
            deployment,
            revision,
            desired=desired,
            available=ready,
            endpoints=ready,
            autoscaler=self._autoscaler(deployment),
            unplaced=FULL if is_full else "",
        )

    def idle(self, status: ModelRolloutStatus) -> dict[str, Idle]:
        """The Deployments that status calls idle."""
        return {
            name: Idle(desired=self.desired[name], autoscaler=self._autoscaler(name))
            for name in (each.deployment for each in status.idle)
            if name in self.desired
        }

    def seen(
        self, status: ModelRolloutStatus, candidate: tuple[str, str], stable: str = "s1"
    ) -> dict[str, Any]:
        """What a pass sees of all of them; stable has its first revision until it is known."""
        known = status.stable
        name, revision = (known.deployment, known.revision) if known else ("ranker-v1", stable)
        return {
            "candidate": self.workload(*candidate),
            "stable": self.workload(name, revision or stable),
            "idle": self.idle(status),
        }

    def follow(self, plan: Plan) -> None:
        """Carry out what is planned, and let pods start and stop."""
        for scale in plan.scales:
            assert self.desired[scale.deployment] == scale.before
            self.desired[scale.deployment] = scale.replicas
        for name, desired in self.desired.items():
            free = max(0, self.room - sum(self.ready.values()))
            most = self.ready[name] + min(free, self.starting)
            self.ready[name] = min(desired, most)

    def _autoscaler(self, deployment: str) -> str:
        return f"{deployment}-autoscaler" if deployment in self.autoscaled else ""
