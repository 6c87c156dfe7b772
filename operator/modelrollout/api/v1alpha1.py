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
    NOTIFY,
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
from modelrollout.api.scaling import Scaling
from modelrollout.api.shadow import Intent, Shadow
from modelrollout.api.status import (
    CheckStatus,
    CohortStatus,
    Condition,
    ConditionStatus,
    Counted,
    Estimate,
    GuardrailCheckpoint,
    GuardrailStatus,
    HistoryEntry,
    IdleStatus,
    Interval,
    IntervalKind,
    ModelRolloutStatus,
    PauseStatus,
    Phase,
    Rejection,
    SliceCheckpoint,
    SliceStatus,
    SplitStatus,
    SplitUnit,
    Verdict,
    VersionStatus,
    WarmupStatus,
    WeightStatus,
)
from modelrollout.api.strategy import (
    Approval,
    Bake,
    Check,
    Expectation,
    Gate,
    HttpCheck,
    HttpMethod,
    JobCheck,
    OnPass,
    Revert,
    Step,
    Strategy,
    StrategyType,
)
from modelrollout.api.traffic import (
    CohortMember,
    DeletionPolicy,
    GatewayAPI,
    GatewayReference,
    Sticky,
    StickyBy,
    Traffic,
    UserCounter,
)

__all__ = [
    "API_VERSION",
    "COMMAND",
    "COMMAND_BY",
    "DAY_SECONDS",
    "FINALIZER",
    "FULL_WEIGHT",
    "GROUP",
    "KIND",
    "NOTIFY",
    "PLURAL",
    "VERSION",
    "Analysis",
    "ApiModel",
    "Approval",
    "Bake",
    "Check",
    "CheckStatus",
    "CohortMember",
    "CohortStatus",
    "Condition",
    "ConditionStatus",
    "Counted",
    "DeletionPolicy",
    "Difference",
    "Direction",
    "Distribution",
    "Estimate",
    "EventRate",
    "Expectation",
    "Gate",
    "GatewayAPI",
    "GatewayReference",
    "Guardrail",
    "GuardrailCheckpoint",
    "GuardrailStatus",
    "HistoryEntry",
    "HttpCheck",
    "HttpMethod",
    "IdleStatus",
    "Intent",
    "Interval",
    "IntervalKind",
    "JobCheck",
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
    "OnPass",
    "PauseStatus",
    "Phase",
    "Preset",
    "Proportion",
    "Rejection",
    "Revert",
    "Rule",
    "Scaling",
    "Shadow",
    "SliceCheckpoint",
    "SliceStatus",
    "Slices",
    "SplitStatus",
    "SplitUnit",
    "Step",
    "Sticky",
    "StickyBy",
    "Strategy",
    "StrategyType",
    "Traffic",
    "UserCounter",
    "Verdict",
    "Version",
    "VersionStatus",
    "WarmupStatus",
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


def _mirrors(spec: ModelRolloutSpec) -> bool:
    steps = spec.strategy.steps
    if steps is None:
        return spec.strategy.type is StrategyType.SHADOW
    return any(each.mirror is not None for each in steps)


def _weighs(spec: ModelRolloutSpec) -> bool:
    """Users are shared out between the versions in some step."""
    steps = spec.strategy.steps
    if steps is None:
        return spec.strategy.type in {StrategyType.CANARY, StrategyType.AB_TEST}
    return any(each.weight is not None and each.weight < FULL_WEIGHT for each in steps)


def _can_stop(spec: ModelRolloutSpec) -> bool:
    """Something can speak against a candidate that all users get in one move."""
    strategy = spec.strategy
    steps = strategy.steps or ()
    return (
        bool(strategy.checks)
        or strategy.on_pass is OnPass.HOLD
        or any(each.mirror is not None or each.approval is not None for each in steps)
        or any(each.limit or each.delay_seconds for each in spec.analysis.guardrails)
    )


def _is_judged_without(spec: ModelRolloutSpec, prefix: str) -> bool:
    """Some guardrail that must pass is no preset of this kind."""
    return any(
        each.required and not (each.preset or "").startswith(prefix)
        for each in spec.analysis.guardrails
    )


CEL_MIRRORS = "(has(self.strategy) && (has(self.strategy.steps) ? self.strategy.steps.exists(s, has(s.mirror)) : has(self.strategy.type) && self.strategy.type == 'Shadow'))"
CEL_WEIGHS = "(!has(self.strategy) || (has(self.strategy.steps) ? self.strategy.steps.exists(s, has(s.weight) && s.weight < 100) : !has(self.strategy.type) || self.strategy.type in ['Canary', 'ABTest']))"


def _cel_is_judged_without(prefix: str) -> str:
    other = f"!(has(g.preset) && g.preset.startsWith('{prefix}'))"
    return f"self.analysis.guardrails.exists(g, (!has(g.required) || g.required) && {other})"


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
        Rule(
            "!has(self.strategy) || !has(self.strategy.type) || self.strategy.type != 'ABTest' || has(self.traffic.sticky)",
            "an ABTest needs traffic.sticky: a user who changes sides is evidence for neither",
            lambda it: (
                it.strategy.type is not StrategyType.AB_TEST or it.traffic.sticky is not None
            ),
        ),
        Rule(
            f"!{CEL_MIRRORS} || has(self.shadow)",
            "a mirror step needs shadow: what may be repeated, and how answers are compared",
            lambda it: not _mirrors(it) or it.shadow is not None,
        ),
        Rule(
            f"!{CEL_MIRRORS} || {_cel_is_judged_without('envoy/')}",
            "no guardrail can be judged in a mirror step, where users meet stable alone: add one with preset comparator/flips or comparator/errors, or one that is counted by the pods",
            lambda it: not _mirrors(it) or _is_judged_without(it, "envoy/"),
        ),
        Rule(
            f"!{CEL_WEIGHS} || {_cel_is_judged_without('comparator/')}",
            "no guardrail can be judged in a weight step, where nothing is mirrored: add one that is counted at the gateway (preset envoy/errors) or by the pods",
            lambda it: not _weighs(it) or _is_judged_without(it, "comparator/"),
        ),
        Rule(
            f"{CEL_MIRRORS} || !self.analysis.guardrails.exists(g, has(g.preset) && g.preset.startsWith('comparator/'))",
            "the comparator presets are counted in mirror steps, and there is none: add a mirror step, or leave them out",
            lambda it: (
                _mirrors(it)
                or not any(
                    (each.preset or "").startswith("comparator/") for each in it.analysis.guardrails
                )
            ),
        ),
        Rule(
            "!has(self.strategy) || !has(self.strategy.type) || self.strategy.type != 'BlueGreen' || (has(self.strategy.checks) && self.strategy.checks.size() > 0) || (has(self.strategy.onPass) && self.strategy.onPass == 'Hold') || (has(self.strategy.steps) && self.strategy.steps.exists(s, has(s.mirror) || has(s.approval))) || self.analysis.guardrails.exists(g, has(g.limit) || has(g.delaySeconds))",
            "nothing here could stop a bad candidate: after one move there is nothing to compare it with, so give this BlueGreen checks, a mirror or an approval step, or a guardrail with limit or delaySeconds",
            lambda it: it.strategy.type is not StrategyType.BLUE_GREEN or _can_stop(it),
        ),
        Rule(
            "!has(self.shadow) || self.shadow.intent != 'Change' || !self.analysis.guardrails.exists(g, has(g.preset) && g.preset == 'comparator/flips')",
            "a version that is meant to answer differently cannot be judged by flips: leave comparator/flips out, or set shadow.intent to Equivalence",
            lambda it: (
                it.shadow is None
                or it.shadow.intent is not Intent.CHANGE
                or all(
                    each.preset is not Preset.COMPARATOR_FLIPS for each in it.analysis.guardrails
                )
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
    shadow: Shadow | None = None
    """shadow says what is mirrored in mirror steps, and how the answers are compared."""
    scaling: Scaling | None = None
    """scaling has the operator scale the two Deployments. Without it replica counts are left alone, as they are where a HorizontalPodAutoscaler scales a Deployment."""
    analysis: Analysis
    """analysis says what is measured and how sure the operator must be."""
    paused: bool = False
    """paused holds the rollout where it is; guardrails stay armed."""


def service_of(version: Version) -> str:
    """The Service in front of a version: the one named, else the Deployment's namesake."""
    return version.service or version.deployment
