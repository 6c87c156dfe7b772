"""What should be true next. `apply` makes it so: status first, then route, then events."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from operator import attrgetter

from modelrollout.api.v1alpha1 import (
    CohortMember,
    ModelRolloutSpec,
    ModelRolloutStatus,
    Sticky,
    VersionStatus,
)
from modelrollout.core.observation import MissingService
from modelrollout.core.steps import weights_of

COMPARATOR_PORT = 8080


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """A version as the route knows it."""

    service: str
    label: str
    """The value of the x-model-version response header."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """Copies of users' requests, whose answers nobody waits for."""

    service: str
    port: int
    percent: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketCookie:
    """What the gateway gives each user at the first visit, and knows the user's bucket by."""

    name: str
    release: str
    """Begins its value: the cookie of another release says nothing about this one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """How requests are shared. Without a candidate users get stable alone."""

    stable: Backend
    candidate: Backend | None
    weight: int
    port: int
    retired: tuple[str, ...] = ()
    """Services that were ours on the route once and must not be on it now."""
    sticky: Sticky | None = None
    """What a user is known by; None where each request is shared out for itself."""
    salt: str = ""
    """Mixed into each user's hash, so that every release is tried by other users first."""
    weights: tuple[int, ...] = ()
    """The strategy's, with sticky users: no bucket of theirs reaches over one of them."""
    cookie: BucketCookie | None = None
    """Instead of `sticky`, where a router has users told apart by a cookie of its own."""
    cohort: tuple[CohortMember, ...] = ()
    """Users who get the candidate whatever the weight; none without a candidate."""
    mirror: Mirror | None = None

    @property
    def is_rest(self) -> bool:
        """No user can reach the candidate, and no request is copied."""
        return self.candidate is None and self.mirror is None

    @property
    def is_by_weight(self) -> bool:
        """The candidate gets a share of all requests: no user is told apart, no request copied."""
        is_told_apart = self.sticky is not None or bool(self.cohort)
        return self.candidate is not None and self.mirror is None and not is_told_apart


class Severity(StrEnum):
    """The two types of a Kubernetes Event."""

    NORMAL = "Normal"
    WARNING = "Warning"


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """An Event to tell, after everything it speaks of has been written."""

    severity: Severity
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """A Deployment that is to have another number of pods than it was seen to want."""

    deployment: str
    before: int
    replicas: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The outcome of one pass."""

    status: ModelRolloutStatus
    traffic: Traffic | None
    """None leaves the route alone."""
    is_written: bool = False
    """The route says it already, as this pass saw it."""
    finalizer: bool
    """Ours stays on the object while traffic is, or may be, away from rest."""
    look_again_seconds: float | None
    """None: nothing to do until something changes."""
    command_done: bool = False
    services: tuple[MissingService, ...] = ()
    """To be created."""
    comparator: bool | None = None
    """To be deployed, comparing the status' two versions, or (False) removed; None leaves it alone."""
    scales: tuple[Scale, ...] = ()
    """Up before a share that is yet to come, down after all shares are gone."""
    notes: tuple[Note, ...] = ()


def comparator_of(rollout: str) -> str:
    """The name of the comparator's objects."""
    return f"{rollout}-comparator"


def traffic_of(
    status: ModelRolloutStatus, spec: ModelRolloutSpec | None, rollout: str
) -> Traffic | None:
    """The traffic that a status intends; None before the first stable version is known."""
    if status.stable is None or spec is None:
        return None
    away = status.candidate is not None and status.weight.wanted > 0
    mirror = None
    if status.candidate is not None and status.mirror:
        service = comparator_of(rollout)
        mirror = Mirror(service=service, port=COMPARATOR_PORT, percent=status.mirror)
    return Traffic(
        stable=_backend(status.stable),
        candidate=_backend(status.candidate) if away and status.candidate else None,
        weight=status.weight.wanted if away else 0,
        port=spec.port,
        retired=_off_route(status, away=away),
        sticky=spec.traffic.sticky if away else None,
        salt=f"{rollout}/{status.candidate.revision}" if away and status.candidate else "",
        weights=weights_of(spec.strategy) if away and spec.traffic.sticky else (),
        cohort=spec.traffic.cohort if away else (),
        mirror=mirror,
    )


UNFIT_FOR_HEADER = re.compile(r"[^ -$&-~]")
"""All but printable ASCII, and the sign that Envoy takes for the beginning of a command."""

shares_of = attrgetter("stable", "candidate", "weight", "mirror", "retired")
"""What of a status `traffic_of` depends on."""


def _backend(version: VersionStatus) -> Backend:
    """A gateway may refuse all its routes for one header that it does not understand."""
    label = UNFIT_FOR_HEADER.sub("_", version.model_version or "").strip()
    return Backend(service=version.service, label=label or version.deployment)


def _off_route(status: ModelRolloutStatus, *, away: bool) -> tuple[str, ...]:
    stable, candidate = (
        {each.service} if each is not None else set() for each in (status.stable, status.candidate)
    )
    return tuple(sorted({*status.retired, *candidate} - stable - (candidate if away else set())))
