"""Which of a guardrail's counts are shown of the two versions."""

from __future__ import annotations

import math

from modelrollout.core.trace import Guardrail, Level


def is_counted(guardrail: Guardrail, level: Level) -> bool:
    """Both versions answered something that can be compared."""
    width = max(2, len(guardrail.thresholds) + 1)
    rows = level.stable, level.candidate
    return guardrail.kind is not None and all(len(each) == width and each[0] > 0 for each in rows)


def columns(guardrail: Guardrail, last: Level | None) -> tuple[int, int]:
    """Stable's threshold and the candidate's: where they differ most, for the chance there is in it."""
    if guardrail.quantile is not None:
        return 0, 1
    if last is None or len(guardrail.thresholds) <= 1:
        return 0, 0

    def distance(column: int) -> float:
        (n, *ks), (m, *js) = last.stable, last.candidate
        k, j = ks[column], js[column]
        spread = math.sqrt((k + j + 1) / (n + m) * (1 / n + 1 / m))
        return abs(j / m - k / n) / spread

    best = max(range(len(guardrail.thresholds)), key=distance)
    return best, best
