"""
What this process knows of rollouts on trial beyond what is stored: newer figures, and what it saw.

Counts grow with every look, and to write them each time would be most of what the API server has
to do for us. So figures are stored every `WRITE_SECONDS`; what is more than a figure, at once. A
process that dies loses nothing: the evidence is read again from the watermark that was stored.

Nearly every pass finds all objects as the pass before it has found them, and their
resourceVersions say so. What that pass has made of them is kept, so that it is not made again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from modelrollout.adapters.routers.gateway_api import View
from modelrollout.api.v1alpha1 import ModelRolloutStatus
from modelrollout.core.observation import Found, Rollout

WRITE_SECONDS = 20.0

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class _Draft:
    version: str
    """The resourceVersion of the object that it goes on from."""
    status: ModelRolloutStatus
    stored: float
    """When a status was stored last, Unix seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What a pass saw. Each part says what it was drawn from; a spec is that of a generation."""

    rollout: Rollout | None = None
    view: View | None = None
    stable: Found | None = None
    candidate: Found | None = None


NOTHING_SEEN = Sight()


class Drafts:
    """One status and one sight for each rollout on trial."""

    def __init__(self) -> None:
        self._drafts: dict[Key, _Draft] = {}
        self._sights: dict[Key, Sight] = {}

    def status_of(self, meta: dict[str, Any]) -> ModelRolloutStatus | None:
        """The newest of an object as read; None when somebody else may have written a newer one."""
        draft = self._drafts.get(_key(meta))
        return draft.status if draft and draft.version == meta["resourceVersion"] else None

    def is_due(self, meta: dict[str, Any], now: float) -> bool:
        """Whether it is time to store figures, too."""
        draft = self._drafts.get(_key(meta))
        return draft is None or not 0 <= now - draft.stored < WRITE_SECONDS

    def stored(self, meta: dict[str, Any], status: ModelRolloutStatus, now: float) -> None:
        """A status as the API server has it, and the object's metadata since."""
        if status.candidate is None:
            self.forget(_key(meta))
        else:
            self._drafts[_key(meta)] = _Draft(meta["resourceVersion"], status, now)

    def kept(self, meta: dict[str, Any], status: ModelRolloutStatus) -> None:
        """A status with newer figures than the stored one."""
        before = self._drafts[_key(meta)].stored
        self._drafts[_key(meta)] = _Draft(meta["resourceVersion"], status, before)

    def sight_of(self, key: Key) -> Sight:
        """What the last pass saw; what has changed since is to be looked at anew."""
        return self._sights.get(key, NOTHING_SEEN)

    def saw(self, key: Key, sight: Sight) -> None:
        """What this pass saw."""
        self._sights[key] = sight

    def forget(self, key: Key) -> None:
        """A rollout is gone, or at rest."""
        self._drafts.pop(key, None)
        self._sights.pop(key, None)


def _key(meta: dict[str, Any]) -> Key:
    return meta["namespace"], meta["name"]
