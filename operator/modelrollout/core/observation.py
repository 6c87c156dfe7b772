"""What one pass saw. Facts only: what they mean is for `decide`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from modelrollout.api.conditions import Reason
from modelrollout.api.v1alpha1 import (
    ModelIdentity,
    ModelRolloutSpec,
    ModelRolloutStatus,
    StickyBy,
    VersionStatus,
)
from modelrollout.core.evidence import Measure, Past, Reading


class Verb(StrEnum):
    """A command of the user's, given as an annotation."""

    ABORT = "abort"
    PAUSE = "pause"
    RESUME = "resume"
    RETRY = "retry"
    PROMOTE = "promote"
    APPROVE = "approve"
    SKIP_STEP = "skip-step"


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What the annotation asks for. An unknown word has no verb: it is reported and removed."""

    text: str
    by: str
    verb: Verb | None

    @property
    def identity(self) -> str:
        """What tells it from another one that comes in its place."""
        return f"{self.text} by {self.by}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Why the spec cannot be carried out now."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A version's Deployment and Service as found."""

    version: VersionStatus
    desired: int
    available: int
    """Pods of the Deployment's present template that have been Ready for minReadySeconds."""
    endpoints: int
    """Ready endpoints behind the Service: the pods that can get traffic."""
    replica_sets: tuple[str, ...]
    stuck: str = ""
    """Why the Deployment gave up making progress, in its own words."""
    autoscaler: str = ""
    """The HorizontalPodAutoscaler that scales it. Asked for with spec.scaling only, as is whether there is room."""
    images: tuple[str, ...] = ()
    unplaced: str = ""
    """Why there is no room for some of its pods, in the quota's or the scheduler's own words."""
    obstacle: str = ""
    """What else keeps some of its pods from starting, in the kubelet's or the scheduler's own words."""

    @property
    def lacks_pods(self) -> bool:
        """Some of the wanted ones are not available."""
        return self.available < self.desired

    @property
    def is_asleep(self) -> bool:
        """It has an autoscaler that does nothing, as there is no pod to measure."""
        return bool(self.autoscaler) and self.desired == 0

    @property
    def is_ready(self) -> bool:
        """All wanted pods are available, and at least one is."""
        return self.desired > 0 and not self.lacks_pods and self.endpoints > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """A Deployment whose version gets no requests any more."""

    desired: int
    autoscaler: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """The route against the traffic that status says was intended."""

    in_sync: bool
    """It says what was intended."""
    accepted: bool
    """The gateway has taken up its present generation."""
    message: str = ""
    problem: Problem | None = None
    sticky_by: StickyBy | None = None
    """How users are told apart by it; None while nobody is."""
    version: str | None = field(default=None, compare=False)
    """Tells it from the route that somebody else makes of it; None where that is not known."""

    @property
    def is_settled(self) -> bool:
        """What was intended is in force."""
        return self.in_sync and self.accepted and self.problem is None


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingService:
    """A version's Service that is to be created in front of its Deployment."""

    name: str
    deployment: str
    deployment_uid: str
    selector: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A version to look for."""

    role: str
    deployment: str
    service: str
    model_version: str | None
    model: ModelIdentity | None
    known_revision: str | None
    """Of a stable version that was promoted: its model's identity is only in there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What there is of it."""

    wanted: Wanted
    workload: Workload | None = None
    problem: Problem | None = None
    labels: Mapping[str, str]
    """Of the pods."""
    selectors: tuple[Mapping[str, str], ...] = ()
    """Of Deployment and Service."""
    missing_service: MissingService | None = None
    drawn_from: tuple[object, ...] = ()
    """All that it follows from: as long as that is the same, so is this. Empty if it is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """A `limit` guardrail's value now; None when the expression has no result."""

    value: float | None
    blind: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """What a check of the candidate found."""

    passed: bool
    message: str = ""
    is_running: bool = False
    """It takes its time: nothing is known yet."""
    is_final: bool = False
    """It has failed, and is not tried again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparator:
    """The comparator of a rollout, as found."""

    exists: bool = False
    is_current: bool = False
    """It compares the versions that are compared now, as the spec says."""
    is_ready: bool = False
    is_taken: bool = False
    """Somebody else's Deployment has its name."""
    is_forbidden: bool = False
    """The administrator wants none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """The ModelRollout itself. A spec that cannot be parsed is None, with the sentence why."""

    namespace: str
    name: str
    uid: str
    generation: int
    spec: ModelRolloutSpec | None
    spec_error: str
    status: ModelRolloutStatus
    has_finalizer: bool
    is_deleting: bool
    command: Command | None
    recipients: tuple[str, ...] = ()
    """Web hooks that its owner asked to be told, by name."""

    @property
    def order(self) -> Command | None:
        """The command that is yet to be carried out; one whose annotation only stayed is none."""
        given = self.command
        return None if given is None or given.identity == self.status.obeyed else given


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """Everything else that this pass needed to know."""

    now: float
    """Unix seconds."""
    problem: Problem | None = None
    missing_services: tuple[MissingService, ...] = ()
    """Services of the two versions that do not exist yet."""
    stable: Workload | None = None
    candidate: Workload | None = None
    route: Route
    idle: Mapping[str, Idle] = field(default_factory=dict)
    """The Deployments that status calls idle, as far as they still exist."""
    comparator: Comparator = Comparator()
    checks: Mapping[str, CheckResult] = field(default_factory=dict)
    """Of those that had not passed yet, before the first step."""
    measures: tuple[Measure, ...] = ()
    """
    All comparisons; empty while no step is being judged.

    In a step only some of them are asked of the metrics: `readings` or `pasts` have those.
    """
    warmup: Reading | None = None
    """What the candidate answered since its first requests were counted last; None if they are not."""
    cohort: Reading | None = None
    """What the cohort got since it was counted last, as the candidate's; None if it is not counted."""
    users: Reading | None = None
    """How users were shared out since they were counted last; None where nobody counts them."""
    readings: Mapping[str, Reading] = field(default_factory=dict)
    pasts: Mapping[str, Past] = field(default_factory=dict)
    """What stable did before, for the guardrails whose evidence is about to begin."""
    levels: Mapping[str, Level] = field(default_factory=dict)
    coverage: float | None = None
    """In a mirror step: the share of the copied requests whose answers were compared."""
