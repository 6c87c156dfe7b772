"""
Whether requests reach the versions in the shares that were asked for.

Where they do not, something is between the weights and the users that nobody told us of, and a
comparison of the versions may compare different users: nothing is promoted on it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from modelrollout.api.v1alpha1 import FULL_WEIGHT, SplitStatus
from modelrollout.core.evidence import Measure, Reading, Where
from modelrollout.stats import split

ALPHA = 0.001
TOLERANCE = 0.1
"""Of the smaller share: so much comes from gateways that take up a weight one after another."""
SETTLE_SECONDS = 5.0
"""After a step began: until every proxy has the weight and was scraped with it."""


def counted(
    known: SplitStatus | None,
    measures: Sequence[Measure],
    readings: Mapping[str, Reading],
    weight: int,
    step_start: float,
    now: str,
) -> SplitStatus | None:
    """The split with the windows of a reading, by the first guardrail that counts all requests."""
    names = [each.name for each in measures if each.where is Where.ROUTE and each.name in readings]
    if not names:
        return known
    windows = [
        each
        for each in readings[names[0]].windows
        if each.start >= step_start + SETTLE_SECONDS and not each.is_incomplete
    ]
    before = known or SplitStatus()
    found = before.model_copy(
        update={
            "stable": before.stable + int(sum(each.stable.n for each in windows)),
            "candidate": before.candidate + int(sum(each.candidate.n for each in windows)),
        }
    )
    if before.mismatch_time is None and _total_evidence(found, weight) >= -math.log(ALPHA):
        return found.model_copy(update={"mismatch_time": now})
    return found


def at_new_step(known: SplitStatus | None, weight: int) -> SplitStatus | None:
    """Other weights are a new test; what the steps before said stays, as evidence multiplies."""
    if known is None:
        return None
    return SplitStatus(
        earlier=f"{_total_evidence(known, weight):.4f}", mismatch_time=known.mismatch_time
    )


def message(known: SplitStatus, weight: int) -> str:
    """The mismatch in a sentence."""
    total = known.stable + known.candidate
    share = f"{known.candidate / total:.2%}".replace("%", " %") if total else "none"
    return (
        f"the candidate got {share} of {total:,.0f} requests instead of {weight} %: something else"
        " than the weights shares them out, so that the comparison cannot be trusted"
    )


def _total_evidence(known: SplitStatus, weight: int) -> float:
    """Log e of all steps so far."""
    share = weight / FULL_WEIGHT
    if not 0 < share < 1:
        return float(known.earlier)
    tolerance = TOLERANCE * min(share, 1 - share)
    here = split.log_mismatch_beyond((known.stable, known.candidate), share, tolerance)
    return float(known.earlier) + here
