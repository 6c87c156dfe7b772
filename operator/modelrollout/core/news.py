"""Whether a status says something new, or the same with newer figures."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from modelrollout.api.v1alpha1 import ModelRolloutStatus

FIGURES = frozenset({"reason", "requests", "coverage", "cohort", "warmup"})
"""Fields that change with every look."""
PARTLY = frozenset({"guardrails", "checkpoint", "conditions", "split"})
"""Fields that hold figures, and more."""

_others = attrgetter(*sorted({*ModelRolloutStatus.model_fields} - FIGURES - PARTLY))


def is_news(old: ModelRolloutStatus, new: ModelRolloutStatus) -> bool:
    """Whether they differ in more than figures."""
    return _without_figures(old) != _without_figures(new)


def _without_figures(status: ModelRolloutStatus) -> tuple[Any, ...]:
    split = status.split
    return (
        _others(status),
        [(each.type, each.status, each.reason) for each in status.conditions],
        [(each.name, each.verdict) for each in status.guardrails],
        # What is fixed before the first bet, and since when a limit has been exceeded.
        [
            (each.name, each.key, each.thresholds, each.dispersion, each.beyond_since)
            for each in status.checkpoint
        ],
        split and (split.earlier, split.mismatch_time),
    )
