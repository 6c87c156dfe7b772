"""
Evidence from pairs: the same request answered by both versions.

Only pairs in which exactly one version is wrong tell them apart. Counted are n10 (candidate
wrong, stable right), n01 (the reverse) and n00 (all others). With delta = 0 it is an anytime
version of McNemar's test. The same functions test a candidate's raw disagreement against the
disagreement of stable with itself: n10 = only the candidate differed, n01 = only the repeat did.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

_STAKES: Final = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7)
PAIRED_POINTS: Final[int] = len(_STAKES)
"""Grid points of either evidence."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """
    Numbers of pairs: only the candidate wrong, only stable wrong, neither or both.

    Raises ValueError for a negative or non-finite number.
    """

    candidate_only: float
    stable_only: float
    others: float

    def __post_init__(self) -> None:
        for name in ("candidate_only", "stable_only", "others"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"pairs must be finite numbers >= 0, not {name}={value}")


def log_harm(pairs: Pairs, margin: float = 0.0) -> tuple[float, ...]:
    """
    Evidence that the candidate is wrong more often, by more than `margin`: log e per grid point.

    Null hypothesis: P(candidate only) - P(stable only) <= margin, 0 <= margin < 1, in whatever
    way both change over time. Add to the running state, read with `combine.log_mixture`. Each
    pair is a bet on x - margin, x in {1, -1, 0}, whose mean is not above 0 under the null:
    e = product of 1 + l (x - margin) (Waudby-Smith and Ramdas, arXiv 2010.09686), with the
    stakes l scaled to stay below the 1 / (1 + margin) at which a pair could cost everything.
    Raises ValueError for a margin outside [0, 1).
    """
    _check_margin(margin)
    return tuple(_log_e(pairs, margin, stake / (1 + margin)) for stake in _STAKES)


def log_safety(pairs: Pairs, margin: float) -> tuple[float, ...]:
    """
    Evidence that the candidate is not wrong more often by `margin`: log e per grid point.

    Null hypothesis: P(candidate only) - P(stable only) >= margin. Else as `log_harm`, with the
    stakes negative and scaled to stay below 1 / (1 - margin). Errors and source too.
    """
    _check_margin(margin)
    return tuple(_log_e(pairs, margin, -stake / (1 - margin)) for stake in _STAKES)


def _log_e(pairs: Pairs, margin: float, stake: float) -> float:
    return (
        pairs.candidate_only * math.log1p(stake * (1 - margin))
        + pairs.stable_only * math.log1p(-stake * (1 + margin))
        + pairs.others * math.log1p(-stake * margin)
    )


def _check_margin(margin: float) -> None:
    if not 0 <= margin < 1:
        raise ValueError(f"a margin of paired answers must lie in [0, 1), not {margin}")
