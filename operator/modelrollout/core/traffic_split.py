"""
Whether requests, or users, reach the versions in the shares that were asked for.

Where they do not, something is between the weights and the users that nobody told us of, and a
comparison of the versions may compare different users: nothing is promoted on it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from modelrollout.api.v1alpha1 import FULL_WEIGHT, ModelRolloutSpec, SplitStatus, SplitUnit
from modelrollout.core.evidence import Measure, Reading, Where, Window
from modelrollout.core.steps import steps_of
from modelrollout.core.times import as_time
from modelrollout.stats import split

ALPHA = 0.001
TOLERANCE = 0.1
"""Of the smaller share: so much comes from gateways that take up a weight one after another."""
UNCHECKED = (
    "which version each user gets is not checked, as requests cannot tell: name a counter of users"
    " in traffic.sticky.users"
)
SETTLE_SECONDS = 5.0
"""After a step began: until every proxy has the weight and was scraped with it."""


def counted(
    known: SplitStatus | None,
    measures: Sequence[Measure],
    readings: Mapping[str, Reading],
    weight: int,
    step_start: float,
    now: float,
) -> SplitStatus | None:
    """The split with the windows of a reading, by the first guardrail that counts all requests."""
    names = [each.name for each in measures if each.where is Where.ROUTE and each.name in readings]
    if not names:
        return known
    windows = _whole(readings[names[0]].windows, step_start + SETTLE_SECONDS)
    return _grown(known or SplitStatus(), windows, weight, now)


def counted_users(
    known: SplitStatus | None,
    reading: Reading,
    weight: int,
    counts_from: float,
    now: float,
) -> SplitStatus:
    """The split of users with the windows of a reading that begin when they may."""
    before = known or SplitStatus()
    read = before.model_copy(
        update={
            "unit": SplitUnit.USERS,
            "until_time": as_time(reading.watermark),
            "message": reading.blind[:1024] or None,
        }
    )
    return _grown(read, _whole(reading.windows, counts_from), weight, now)


def users_from(spec: ModelRolloutSpec, weight: int, step_start: float) -> float | None:
    """
    From when on users are counted in a step, Unix seconds; None where they are not.

    Whoever is counted once in a test is news to a version only at its first weight; later most of
    stable's users are known already. One that is counted again and again is news after that time.
    """
    users = spec.traffic.sticky.users if spec.traffic.sticky else None
    if users is None or not 0 < weight < FULL_WEIGHT:
        return None
    if users.repeat_seconds:
        return step_start + users.repeat_seconds
    first = next(each.weight for each in steps_of(spec.strategy) if each.weight)
    return step_start + SETTLE_SECONDS if weight == first else None


def _whole(windows: Iterable[Window], start: float) -> list[Window]:
    return [each for each in windows if each.start >= start and not each.is_incomplete]


def _grown(before: SplitStatus, windows: Sequence[Window], weight: int, now: float) -> SplitStatus:
    found = before.model_copy(
        update={
            "stable": before.stable + int(sum(each.stable.n for each in windows)),
            "candidate": before.candidate + int(sum(each.candidate.n for each in windows)),
        }
    )
    if before.mismatch_time is None and _total_evidence(found, weight) >= -math.log(ALPHA):
        return found.model_copy(update={"mismatch_time": as_time(now)})
    return found


def at_new_step(known: SplitStatus | None, weight: int) -> SplitStatus | None:
    """Other weights are a new test; what the steps before said stays, as evidence multiplies."""
    if known is None:
        return None
    return SplitStatus(
        unit=known.unit,
        earlier=f"{_total_evidence(known, weight):.4f}",
        mismatch_time=known.mismatch_time,
    )


def message(known: SplitStatus, weight: int) -> str:
    """The mismatch in a sentence."""
    total = known.stable + known.candidate
    share = f"{known.candidate / total:.2%}".replace("%", " %") if total else "none"
    return (
        f"the candidate got {share} of {total:,.0f} {known.unit.lower()} instead of {weight} %:"
        " something else than the weights shares them out, so that the comparison cannot be trusted"
    )


def _total_evidence(known: SplitStatus, weight: int) -> float:
    """Log e of all steps so far."""
    share = weight / FULL_WEIGHT
    if not 0 < share < 1:
        return float(known.earlier)
    tolerance = TOLERANCE * min(share, 1 - share)
    here = split.log_mismatch_beyond((known.stable, known.candidate), share, tolerance)
    return float(known.earlier) + here
