"""A revision: the hash of a version's pod template and model identity, and nothing else."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from modelrollout.api.v1alpha1 import ModelIdentity

TEMPLATE_DIGITS = 10
MODEL_DIGITS = 6
CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def revision_of(template: dict[str, Any], model: ModelIdentity | None) -> str:
    """Scaling a Deployment, or editing guardrails, starts nothing: neither is in here."""
    name = _digest(template, TEMPLATE_DIGITS)
    identity = model.to_dict() if model is not None else {}
    return f"{name}-{_digest(identity, MODEL_DIGITS)}" if identity else name


def same_model(template: dict[str, Any], known: str) -> str:
    """The revision of a template that serves the model of a known revision."""
    name = _digest(template, TEMPLATE_DIGITS)
    _, dash, model = known.partition("-")
    return f"{name}{dash}{model}"


def _digest(value: dict[str, Any], digits: int) -> str:
    return hashlib.sha256(CANONICAL.encode(value).encode()).hexdigest()[:digits]
