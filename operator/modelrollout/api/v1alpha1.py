"""
ModelRollout, version v1alpha1: what a user writes in `spec` and reads in `status`.

These types are the only source of the CRD: `api/crd.py` turns them into its schema, and the
docstring under a field is the text of `kubectl explain`. A `Rule` is stated twice, as CEL for
the API server and as Python for objects that reached the operator past it; a test feeds both
the same objects. Decimals are strings (the API conventions forbid floats in a spec), durations
are integers that end in `Seconds`.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field

from modelrollout.api.fields import (
    API_VERSION,
    COMMAND,
    COMMAND_BY,
    DAY_SECONDS,
    FINALIZER,
    FULL_WEIGHT,
    GROUP,
    KIND,
    PLURAL,
    VERSION,
    ApiModel,
    Name,
    Rule,
    ServiceName,
    Text,
    sentence_of,
)
from modelrollout.api.guardrails import (
    Analysis,
    Difference,
    Direction,
    Distribution,
    EventRate,
    Guardrail,
    LabelMatcher,
    LabelOperator,
    Limit,
    Mean,
    MetricSelector,
    OnInconclusive,
    OnNoData,
    Preset,
    Proportion,
    Slices,
)
from modelrollout.api.status import (
    Condition,
    ConditionStatus,
    Counted,
    Estimate,
    GuardrailCheckpoint,
    GuardrailStatus,
    HistoryEntry,
    ModelRolloutStatus,
    PauseStatus,
    Phase,
    Rejection,
    SliceCheckpoint,
    SliceStatus,
    SplitStatus,
    Verdict,
    VersionStatus,
    WeightStatus,
)
from modelrollout.api.strategy import Bake, Gate, Step, Strategy, StrategyType
from modelrollout.api.traffic import DeletionPolicy, GatewayAPI, GatewayReference, Traffic

__all__ = [
    "API_VERSION",
    "COMMAND",
    "COMMAND_BY",
    "DAY_SECONDS",
    "FINALIZER",
    "FULL_WEIGHT",
    "GROUP",
    "KIND",
    "PLURAL",
    "VERSION",
    "Analysis",
    "ApiModel",
    "Bake",
    "Condition",
    "ConditionStatus",
    "Counted",
    "DeletionPolicy",
    "Difference",
    "Direction",
    "Distribution",
    "Estimate",
    "EventRate",
    "Gate",
    "GatewayAPI",
    "GatewayReference",
    "Guardrail",
    "GuardrailCheckpoint",
    "GuardrailStatus",
    "HistoryEntry",
    "LabelMatcher",
    "LabelOperator",
    "Limit",
    "Mean",
    "MetricSelector",
    "ModelIdentity",
    "ModelRolloutSpec",
    "ModelRolloutStatus",
    "OnInconclusive",
    "OnNoData",
    "PauseStatus",
    "Phase",
    "Preset",
    "Proportion",
    "Rejection",
    "Rule",
    "SliceCheckpoint",
    "SliceStatus",
    "Slices",
    "SplitStatus",
    "Step",
    "Strategy",
    "StrategyType",
    "Traffic",
    "Verdict",
    "Version",
    "VersionStatus",
    "WeightStatus",
    "sentence_of",
    "service_of",
]


class ModelIdentity(ApiModel):
    """Which model a version serves. A change of any of these is a new revision."""

    version: Text | None = None
    """version is the model's version as its registry calls it."""
    uri: Text | None = None
    """uri says where the model comes from, for example models:/ranker/12."""
    digest: Text | None = None
    """digest is the checksum of the model's artifact."""


UNFIT_FOR_SERVICE = re.compile(r"^[0-9]|[.]|^.{64}")


class Version(ApiModel):
    """One version of the model: a Deployment, and the Service in front of it."""

    rules = (
        Rule(
            "has(self.service) || !self.deployment.matches(r'^[0-9]|[.]|^.{64}')",
            "a Service cannot have this Deployment's name (a dot, a leading digit, or more than 63 characters): give service",
            lambda it: it.service is not None or not UNFIT_FOR_SERVICE.search(it.deployment),
        ),
    )
    deployment: Name
    """deployment names the Deployment that serves this version, in the rollout's namespace."""
    service: ServiceName | None = None
    """service names the Service in front of the Deployment. It defaults to the Deployment's name and is created when it does not exist."""
    model: ModelIdentity | None = None
    """model identifies the model that the Deployment serves."""


class ModelRolloutSpec(ApiModel):
    """What the user wants: this candidate, reached safely."""

    rules = (
        # The same Deployment may be both: after a promotion that is how one goes back.
        Rule(
            "self.candidate.deployment == self.stable.deployment || (has(self.candidate.service) ? self.candidate.service : self.candidate.deployment) != (has(self.stable.service) ? self.stable.service : self.stable.deployment)",
            "candidate and stable name the same Service: each version needs a Service of its own",
            lambda it: (
                it.candidate.deployment == it.stable.deployment
                or service_of(it.candidate) != service_of(it.stable)
            ),
        ),
    )
    candidate: Version
    """candidate is the version you want. Changing it starts a rollout."""
    stable: Version
    """stable is the version users have now. It is used only until the operator has promoted something itself."""
    port: Annotated[int, Field(ge=1, le=65535)]
    """port of the versions' Services."""
    traffic: Traffic
    """traffic says how requests reach the versions."""
    strategy: Strategy = Strategy()
    """strategy is the list of steps."""
    analysis: Analysis
    """analysis says what is measured and how sure the operator must be."""
    paused: bool = False
    """paused holds the rollout where it is; guardrails stay armed."""


def service_of(version: Version) -> str:
    """The Service in front of a version: the one named, else the Deployment's namesake."""
    return version.service or version.deployment
