"""What the operator knows and intends, as it writes it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from modelrollout.api.fields import (
    FULL_WEIGHT,
    SHOWN,
    Name,
    PlainModel,
    Sentence,
    ServiceName,
    Text,
    Time,
    atomic,
    keyed,
)
from modelrollout.api.traffic import StickyBy


class Phase(StrEnum):
    """For people. Nothing reads it: conditions are the interface."""

    PENDING = "Pending"
    PREPARING = "Preparing"
    PROGRESSING = "Progressing"
    PAUSED = "Paused"
    BAKING = "Baking"
    PROMOTED = "Promoted"
    ROLLING_BACK = "RollingBack"
    ROLLED_BACK = "RolledBack"
    STALLED = "Stalled"


class Verdict(StrEnum):
    """What the evidence says of one guardrail, or of all."""

    PASS = "Pass"  # noqa: S105  # a verdict, not a password
    FAIL = "Fail"
    INCONCLUSIVE = "Inconclusive"
    NO_DATA = "NoData"


class VersionStatus(PlainModel):
    """One version as the operator knows it."""

    deployment: Name
    """deployment that serves it."""
    service: Name
    """service in front of it."""
    revision: Text
    """revision is the hash of pod template and model identity."""
    model_version: Text | None = None
    """modelVersion as given in the spec."""


class WeightStatus(PlainModel):
    """The candidate's percentage of requests."""

    wanted: Annotated[int, Field(ge=0, le=FULL_WEIGHT)] = 0
    """wanted is the weight that the operator decided on."""
    accepted: Annotated[int, Field(ge=0, le=FULL_WEIGHT)] | None = None
    """accepted is the weight that the gateway last confirmed."""


class Estimate(PlainModel):
    """One version's figures over the present step, for people."""

    requests: Annotated[int, Field(ge=0)] = 0
    """requests counted."""
    value: Annotated[str, Field(max_length=32)] | None = None
    """value is the rate of events among them."""


class IntervalKind(StrEnum):
    """How two rates are compared."""

    RATIO = "Ratio"
    """The candidate's over stable's."""
    DIFFERENCE = "Difference"
    """The candidate's less stable's."""


class Interval(PlainModel):
    """How the candidate's figure compares with stable's in this step, at most and at least."""

    kind: IntervalKind
    """kind is Difference (candidate less stable) where the guardrail's margin has an absolute part, else Ratio (candidate over stable)."""
    lower: Annotated[str, Field(max_length=32)] | None = None
    """lower bound; absent while there is none."""
    upper: Annotated[str, Field(max_length=32)] | None = None
    """upper bound; absent while there is none."""
    threshold: Annotated[str, Field(max_length=32)] | None = None
    """threshold is, of a distribution, the one beyond which answers are compared."""


class SliceStatus(PlainModel):
    """What is known of one slice of a guardrail."""

    name: Text
    """name is the value of the slices' label."""
    harm: Annotated[str, Field(max_length=16)]
    """harm is the evidence that the candidate is worse in this slice, as a share of what names it."""
    stable: Estimate
    """stable version's figures in this step."""
    candidate: Estimate
    """candidate version's figures in this step."""


class GuardrailStatus(PlainModel):
    """What is known of one guardrail."""

    name: Text
    """name of the guardrail."""
    verdict: Verdict
    """verdict of this guardrail."""
    message: Sentence = ""
    """message is the verdict in a sentence with numbers."""
    stable: Estimate | None = None
    """stable version's figures in this step."""
    candidate: Estimate | None = None
    """candidate version's figures in this step."""
    harm: Annotated[str, Field(max_length=16)] | None = None
    """harm is the evidence that the candidate is worse, as a share of what a rollback needs (1 decides)."""
    safety: Annotated[str, Field(max_length=16)] | None = None
    """safety is the evidence that the candidate is within its margin, as a share of what the next step needs (1 decides)."""
    placebo: Annotated[str, Field(max_length=16)] | None = None
    """placebo is the evidence that one half of stable's pods is worse than the other, as a share of what makes the guardrail untrusted (1 decides)."""
    interval: Interval | None = None
    """interval holds the candidate's figure over stable's, or less stable's, at every look: the bound on the worse side with error rate falsePromoteRate, the other with the guardrail's share of falseRollbackRate. It is computed anew whenever the candidate's requests have grown by a tenth."""
    needed: Annotated[int, Field(ge=0)] | None = None
    """needed is how many more of the candidate's requests (of a rate: pod-seconds) decide, if rates stay as they are in this step; absent when decided and when not known."""
    needed_users: Annotated[int, Field(ge=0)] | None = None
    """neededUsers is needed in users of the candidate, where traffic.sticky.users counts them."""
    chance_to_beat: Annotated[str, Field(max_length=16)] | None = None
    """chanceToBeat is, in an ABTest, the chance that the candidate's share is the better one, from the counts of this step and nothing else. It is for display: nothing is decided on it, and unlike interval it does not hold at every look."""
    slices: Annotated[
        tuple[SliceStatus, ...],
        atomic(20),
    ] = ()
    """slices one by one, the worst first."""


class Rejection(PlainModel):
    """A candidate that lost. It is not tried again until it changes or a retry is asked for."""

    deployment: Name
    """deployment of the rejected version."""
    service: Name
    """service of the rejected version."""
    revision: Text
    """revision that was rejected."""
    cause: Text
    """cause is the reason in one word."""
    message: Sentence
    """message is the reason in a sentence."""
    time: Time
    """time of the decision."""


class PauseStatus(PlainModel):
    """Why the rollout waits for a human."""

    cause: Text
    """cause is Command, Inconclusive or NoData."""
    message: Sentence
    """message says who or what paused it and how to go on."""
    time: Time
    """time when it was paused."""


class CheckStatus(PlainModel):
    """How a check of this candidate went last."""

    name: Text
    """name of the check."""
    passed: bool
    """passed is true for good once it has; what has not passed is tried again."""
    job: Name | None = None
    """job is, of a check by Job, the Job's name."""
    message: Sentence = ""
    """message says what was wrong with the answer. It never quotes the answer's body."""


class CohortStatus(PlainModel):
    """What the members of traffic.cohort got from this candidate. They are compared with nobody."""

    requests: Annotated[int, Field(ge=0)] = 0
    """requests of theirs that were answered, over all weight steps."""
    errors: Annotated[int, Field(ge=0)] = 0
    """errors among them, as preset envoy/errors counts them."""
    until_time: Time
    """untilTime is the end of the last window that was counted."""
    message: Sentence | None = None
    """message says why they could not be counted last."""


class WarmupStatus(PlainModel):
    """Requests that the candidate answers before they are evidence."""

    requests: Annotated[int, Field(ge=0)] = 0
    """requests that it has answered, of strategy.warmupRequests."""
    until_time: Time
    """untilTime is the end of the last window that was counted."""
    message: Sentence | None = None
    """message says why they could not be counted last."""


class IdleStatus(PlainModel):
    """A version that gets no requests any more and is being scaled down."""

    deployment: Name
    """deployment that is scaled down."""
    replicas: Annotated[int, Field(ge=0)] | None = None
    """replicas that it had as stable; absent for a candidate that was given up."""
    since_time: Time | None = None
    """sinceTime is when the gateway had accepted the route without it; absent until then."""


class HistoryEntry(PlainModel):
    """Something that was decided."""

    time: Time
    """time of the decision."""
    what: Text
    """what happened, in one word."""
    deployment: Name
    """deployment that it happened to."""
    revision: Text
    """revision that it happened to."""
    message: Sentence
    """message explains it."""
    by: Text | None = None
    """by is the user who asked for it; absent where the operator decided."""


Points = Annotated[tuple[float, ...], Field(max_length=64)]


class Counted(StrEnum):
    """Which outcome the evidence is made of."""

    EVENTS = "Events"
    OTHERS = "Others"


class SliceCheckpoint(PlainModel):
    """The evidence of one slice."""

    name: Text
    """name is the value of the slices' label."""
    harm: Annotated[tuple[Points, ...], Field(max_length=8)] = ()
    """harm evidence, as of the guardrail."""
    stable: Annotated[tuple[float, ...], Field(max_length=9)] = ()
    """stable version's exposure and events in this step."""
    candidate: Annotated[tuple[float, ...], Field(max_length=9)] = ()
    """candidate version's exposure and events in this step."""


class GuardrailCheckpoint(PlainModel):
    """The evidence of one guardrail, as compact as it can be resumed from."""

    name: Text
    """name of the guardrail."""
    key: Text
    """key is a digest of what the evidence was collected with; other settings start anew."""
    watermark: float = 0
    """watermark is the end of the last window that was counted, in Unix seconds."""
    thresholds: Annotated[tuple[float, ...], Field(max_length=8)] = ()
    """thresholds of a distribution."""
    gated: Annotated[tuple[float, ...], Field(max_length=8)] = ()
    """gated are the thresholds that must be proved safe."""
    thinning: float | None = None
    """thinning is, where a quantile is compared, how many times fewer of stable's answers lie beyond the margin's threshold than beyond stable's own."""
    harm: Annotated[tuple[Points, ...], Field(max_length=8)] = ()
    """harm evidence: log e per threshold and mixture point."""
    safety: Annotated[tuple[Points, ...], Field(max_length=8)] = ()
    """safety evidence of this step."""
    stable: Annotated[tuple[float, ...], Field(max_length=9)] = ()
    """stable version's exposure and events in this step."""
    candidate: Annotated[tuple[float, ...], Field(max_length=9)] = ()
    """candidate version's exposure and events in this step."""
    windows: Annotated[int, Field(ge=0)] = 0
    """windows counted in this step."""
    dispersion: Annotated[tuple[float, ...], Field(max_length=8)] = ()
    """dispersion is the factor by which events come in bursts, per threshold; empty until stable's history was read."""
    usual: Annotated[tuple[float, ...], Field(max_length=8)] = ()
    """usual is stable's usual share of the counted outcome, per threshold, on which bets are centred; 0 where it is not known."""
    counted: Counted = Counted.EVENTS
    """counted is the rarer outcome: the events, or all other requests."""
    placebo: Annotated[tuple[Points, ...], Field(max_length=16)] = ()
    """placebo is the harm evidence between two halves of stable's pods, both ways."""
    slices: Annotated[
        tuple[SliceCheckpoint, ...],
        keyed("name", 20),
    ] = ()
    """slices and their evidence."""
    beyond_since: float | None = None
    """beyondSince is since when a limit has been exceeded, in Unix seconds."""


class SplitUnit(StrEnum):
    """What is shared out."""

    REQUESTS = "Requests"
    USERS = "Users"


class SplitStatus(PlainModel):
    """Whether requests, or users, reach the versions in the shares that were asked for."""

    unit: SplitUnit = SplitUnit.REQUESTS
    """unit is what is counted: Requests, or with traffic.sticky.users Users."""
    stable: Annotated[int, Field(ge=0)] = 0
    """stable version's requests, or users, at this step's weight."""
    candidate: Annotated[int, Field(ge=0)] = 0
    """candidate version's requests, or users, at this step's weight."""
    earlier: Annotated[str, Field(max_length=32)] = "0"
    """earlier is the evidence of a mismatch in the steps before, as log e."""
    until_time: Time | None = None
    """untilTime is, of users, the end of the last window that was counted."""
    message: Sentence | None = None
    """message says why users could not be counted last."""
    mismatch_time: Time | None = None
    """mismatchTime is when it was proved that they do not; it stays until the next candidate."""


class ConditionStatus(StrEnum):
    """The three values of a condition."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(PlainModel):
    """A metav1.Condition."""

    type: Annotated[str, Field(max_length=316)]
    """type of the condition."""
    status: ConditionStatus
    """status is True, False or Unknown."""
    observed_generation: Annotated[int, Field(ge=0)]
    """observedGeneration is the generation of the spec that the condition speaks of."""
    last_transition_time: Time
    """lastTransitionTime is when status last changed."""
    reason: Annotated[str, Field(max_length=1024, min_length=1)]
    """reason in one CamelCase word."""
    message: Annotated[str, Field(max_length=4096), SHOWN] = ""
    """message for people."""


class ModelRolloutStatus(PlainModel):
    """What the operator knows and intends. Facts first; phase and reason are for people."""

    observed_generation: Annotated[int, Field(ge=0)] = 0
    """observedGeneration is the generation of the spec that this status speaks of."""
    phase: Phase = Phase.PENDING
    """phase sums it up for people. Use conditions in programs."""
    reason: Sentence = ""
    """reason is what happens and why, in one sentence with numbers."""
    stable: VersionStatus | None = None
    """stable is the version that users have."""
    candidate: VersionStatus | None = None
    """candidate is the version on trial, while it is on trial."""
    previous: VersionStatus | None = None
    """previous is the version that stable replaced."""
    rejected: Rejection | None = None
    """rejected is the candidate that lost last."""
    retired: Annotated[
        tuple[ServiceName, ...],
        atomic(20),
    ] = ()
    """retired are Services that the operator took off the route; it keeps them off."""
    step: Annotated[int, Field(ge=0)] | None = None
    """step is the index of the present step, from 0; absent before the first."""
    steps: Annotated[int, Field(ge=0)] | None = None
    """steps is how many there are, the bake included."""
    step_text: Text | None = None
    """stepText is the step for people: 2/6."""
    step_start_time: Time | None = None
    """stepStartTime is when the gateway had accepted this step's weight."""
    step_deadline_time: Time | None = None
    """stepDeadlineTime is when analysis.onInconclusive decides."""
    weight: WeightStatus = WeightStatus()
    """weight of the candidate."""
    mirror: Annotated[int, Field(ge=0, le=FULL_WEIGHT)] | None = None
    """mirror is the percentage of requests that are copied to the comparator, in a mirror step."""
    sticky_by: StickyBy | None = None
    """stickyBy is how the gateway tells users apart now: by a Hash of the id, or by a Cookie that it sets at the first visit; absent while nobody is told apart."""
    obeyed: Annotated[str, Field(max_length=1024)] | None = None
    """obeyed is the command that was carried out, as long as its annotation is there: it counts once."""
    coverage: Annotated[str, Field(max_length=16)] | None = None
    """coverage is the share of this mirror step's copied requests whose answers were compared."""
    replicas: Annotated[int, Field(ge=0)] | None = None
    """replicas is, where spec.scaling is given, how many pods stable was meant to have when the trial began: as many as the candidate needs for all requests."""
    idle: Annotated[
        tuple[IdleStatus, ...],
        keyed("deployment", 20),
    ] = ()
    """idle are the versions without requests that are being scaled down, as spec.scaling says."""
    is_revert: bool | None = None
    """isRevert is true while a version comes back that was stable before."""
    checks: Annotated[tuple[CheckStatus, ...], keyed("name", 8)] = ()
    """checks that the candidate must pass before the first step."""
    check_since_time: Time | None = None
    """checkSinceTime is since when checks have been tried."""
    warmup: WarmupStatus | None = None
    """warmup is there while the candidate's first requests are counted, before any is evidence."""
    verdict: Verdict | None = None
    """verdict over all required guardrails in this step."""
    requests: Annotated[int, Field(ge=0)] | None = None
    """requests that the candidate answered in this step."""
    no_data_since_time: Time | None = None
    """noDataSinceTime is since when metrics have been unreadable."""
    pause: PauseStatus | None = None
    """pause is set while the rollout waits for a human."""
    guardrails: Annotated[
        tuple[GuardrailStatus, ...],
        keyed("name", 16),
    ] = ()
    """guardrails one by one."""
    warnings: Annotated[
        tuple[Sentence, ...],
        atomic(16),
    ] = ()
    """warnings say, before the first step, what these settings and this traffic cannot decide."""
    split: SplitStatus | None = None
    """split compares the shares of requests, or users, with the weights; absent where nothing counts them: no guardrail counts at the gateway, or users are sticky and traffic.sticky.users is not given."""
    cohort: CohortStatus | None = None
    """cohort is what the members of traffic.cohort got; absent unless a guardrail has preset envoy/errors, by whose metrics they are told apart."""
    history: Annotated[
        tuple[HistoryEntry, ...],
        atomic(20),
    ] = ()
    """history of decisions, the newest first."""
    checkpoint: Annotated[
        tuple[GuardrailCheckpoint, ...],
        keyed("name", 16),
    ] = ()
    """checkpoint is the evidence to resume from."""
    conditions: Annotated[
        tuple[Condition, ...],
        keyed("type", 16),
    ] = ()
    """conditions: Ready, Reconciling, Stalled, Accepted, Progressing, Healthy, Promoted, RouteSynced."""
