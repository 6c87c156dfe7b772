"""What is played: rollouts of each mode, and how they have to end."""

from __future__ import annotations

from dataclasses import dataclass, field

import kube
from shop import ACCURACY, ERRORS, LATENCY, ROLLOUT

FLIPS = {"name": "flips", "preset": "comparator/flips", "margin": {"absolute": "0.02"}}
FAILURES = {"name": "failures", "preset": "comparator/errors"}
LABELS = {
    "name": "labels",
    "preset": "comparator/accuracy",
    "tolerance": {"ratio": "1.5", "absolute": "0.01"},
    "margin": {"ratio": "1.5", "absolute": "0.05"},
}
CANARY = {
    "strategy": {
        "steps": [
            {"weight": 10, "gate": "NoHarm", "minRequests": 100},
            {"weight": 50, "minRequests": 200},
        ],
        "bake": {"seconds": 5},
    },
    "guardrails": [ERRORS, LATENCY, ACCURACY],
}
COMPARED = {
    "idempotent": True,
    "paths": ["/v2/models"],
    "format": "OpenInference",
    "outputs": [{"name": "digit", "tensor": "predict", "label": {}}],
    "noiseFloor": {"share": "1"},
    "maxRequestsPerSecond": 100,
}
BLUE_GREEN = {
    "strategy": {
        "type": "BlueGreen",
        "steps": [{"weight": 100}],
        "checks": [{"name": "ready", "http": {"path": "/v2/health/ready"}}],
        "checkSeconds": 10,
        "bake": {"seconds": 20},
    },
    "guardrails": [ERRORS, LATENCY, ACCURACY],
}
AB_TEST = {
    "strategy": {
        "type": "ABTest",
        "steps": [{"weight": 50, "minSeconds": 15}],
        "bake": {"seconds": 5},
    },
    "traffic": {"gatewayAPI": {"route": ROLLOUT}, "sticky": {"header": "x-user-id"}},
    "guardrails": [ERRORS, LATENCY, ACCURACY],
}


def shadow(intent: str, *guardrails: kube.Manifest) -> kube.Manifest:
    """A shadow with what it is judged by."""
    return {
        "strategy": {
            "type": "Shadow",
            "steps": [{"mirror": 100, "minRequests": 500}],
            "bake": {"seconds": 5},
        },
        "shadow": {"intent": intent, **COMPARED},
        "guardrails": list(guardrails),
    }


def with_failing_check(rollout: kube.Manifest) -> kube.Manifest:
    """Asks for a model that is not there."""
    check = {"name": "model", "http": {"path": "/v2/models/letters/ready"}}
    return {**rollout, "strategy": {**rollout["strategy"], "checks": [check]}}


@dataclass(frozen=True)
class Act:
    """One rollout of the demo, and how it has to end."""

    version: str
    what: str
    environment: dict[str, str]
    ends: str
    culprit: str = ""
    rollout: kube.Manifest = field(default_factory=lambda: CANARY)
    answers: tuple[tuple[str, str], ...] = ()
    """Commands that a human gives, by the phase in which they are given."""
    replicas: int = 1
    is_for_users: bool = True
    """Else no user may meet it before a human approves."""


POOR = {"MODEL_QUALITY": "poor"}
MODES: dict[str, tuple[Act, ...]] = {
    "canary": (
        Act("v2", "a good new version", {}, "Promoted"),
        Act("v3", "answers 8 % errors", {"ERROR_RATE": "0.08"}, "RolledBack", "errors"),
        Act(
            "v4",
            "6 % of answers 0.4 s slower",
            {"TAIL_SHARE": "0.06", "TAIL_SECONDS": "0.4"},
            "RolledBack",
            "latency",
        ),
        Act("v5", "fast, and wrong more often", POOR, "RolledBack", "accuracy"),
    ),
    "shadow": (
        Act(
            "v5",
            "a smaller copy that should answer alike",
            POOR,
            "RolledBack",
            "flips",
            shadow("Equivalence", FLIPS, FAILURES),
            is_for_users=False,
        ),
        Act(
            "v6",
            "retrained, as accurate as before",
            {"MODEL_QUALITY": "retrained"},
            "Promoted",
            rollout=shadow("Change", FAILURES, LABELS),
            answers=(("Paused", "approve"),),
            is_for_users=False,
        ),
    ),
    "bluegreen": (
        Act(
            "v7",
            "lacks what its check asks for",
            {},
            "RolledBack",
            "check model",
            with_failing_check(BLUE_GREEN),
            is_for_users=False,
        ),
        Act(
            "v2",
            "a good new version that a human takes back",
            {},
            "RolledBack",
            "aborted",
            BLUE_GREEN,
            (("Baking", "abort"),),
        ),
        Act("v8", "a good new version", {}, "Promoted", "", BLUE_GREEN),
    ),
    "abtest": (
        Act("v2", "as good as before", {}, "Promoted", "", AB_TEST, replicas=2),
        Act(
            "v5", "fast, and wrong more often", POOR, "RolledBack", "accuracy", AB_TEST, replicas=2
        ),
    ),
}
