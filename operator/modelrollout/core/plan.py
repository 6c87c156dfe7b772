"""What should be true next. `apply` makes it so: status first, then route, then events."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from modelrollout.api.v1alpha1 import ModelRolloutStatus, VersionStatus
from modelrollout.core.observation import MissingService


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """A version as the route knows it."""

    service: str
    label: str
    """The value of the x-model-version response header."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """How requests are shared. Without a candidate the route is at rest."""

    stable: Backend
    candidate: Backend | None
    weight: int
    port: int
    retired: tuple[str, ...] = ()
    """Services that were ours on the route once and must not be on it now."""

    @property
    def is_rest(self) -> bool:
        """No user can reach the candidate."""
        return self.candidate is None


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
class Plan:
    """The outcome of one pass."""

    status: ModelRolloutStatus
    traffic: Traffic | None
    """None leaves the route alone."""
    finalizer: bool
    """Ours stays on the object while traffic is, or may be, away from rest."""
    look_again_seconds: float | None
    """None: nothing to do until something changes."""
    command_done: bool = False
    services: tuple[MissingService, ...] = ()
    """To be created."""
    notes: tuple[Note, ...] = ()


def traffic_of(status: ModelRolloutStatus, port: int) -> Traffic | None:
    """The traffic that a status intends; None before the first stable version is known."""
    if status.stable is None:
        return None
    away = status.candidate is not None and status.weight.wanted > 0
    return Traffic(
        stable=_backend(status.stable),
        candidate=_backend(status.candidate) if away and status.candidate else None,
        weight=status.weight.wanted if away else 0,
        port=port,
        retired=_off_route(status, away=away),
    )


def _backend(version: VersionStatus) -> Backend:
    return Backend(service=version.service, label=version.model_version or version.deployment)


def _off_route(status: ModelRolloutStatus, *, away: bool) -> tuple[str, ...]:
    versions = [each for each in (status.stable, status.candidate) if each is not None]
    on_route = [each for each in versions if away or each is not status.candidate]
    named = {*status.retired, *(each.service for each in versions)}
    return tuple(sorted(named - {each.service for each in on_route}))
