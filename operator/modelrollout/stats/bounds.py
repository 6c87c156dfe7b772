"""What the candidate is held against."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bound:
    """
    What the candidate's rate is held against: `ratio * stable's rate + absolute`.

    When lower is worse it is the lowest rate allowed: `stable's rate / ratio - absolute`.
    `absolute` is in events per unit of exposure. Raises ValueError for a negative or non-finite
    part, and for a bound of zero, which every candidate with one event would break.
    """

    ratio: float = 1.0
    absolute: float = 0.0

    def __post_init__(self) -> None:
        for name in ("ratio", "absolute"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"a bound's {name} must be a finite number >= 0, not {value}")
        if self.ratio == 0 and self.absolute == 0:
            raise ValueError("a bound of zero cannot be tested: ratio and absolute are both 0")
