"""Slices beside each other: how many times stable's rate the candidate's is in each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from modelrollout.core.evidence import Kind
from modelrollout.core.trace import Guardrail, Row, Slice
from modelrollout.report.course import SIDE
from modelrollout.stats.counts import Sample
from modelrollout.stats.intervals import ratio_bounds

COMPARABLE = frozenset({Kind.PROPORTION, Kind.DISTRIBUTION, Kind.RATE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """One row of a forest plot."""

    name: str
    ratio: float
    low: float
    high: float
    stable: Row
    candidate: Row
    is_named: bool
    """The evidence says that it suffered."""
    is_whole: bool = False
    """All requests, not a slice of them."""


def effects_of(
    guardrail: Guardrail, slices: Sequence[Slice], whole: tuple[Row, Row] | None
) -> tuple[Effect, ...]:
    """All requests first, then the slices, the worst first."""
    if guardrail.kind not in COMPARABLE:
        return ()
    found = [
        _effect(each.name, each.stable, each.candidate, is_named=each.harm >= 1)
        for each in slices
        if each.guardrail == guardrail.name and len(each.stable) == len(each.candidate) == 2  # noqa: PLR2004
    ]
    if not found or whole is None:
        return tuple(found)
    return (_effect("all requests", *whole, is_named=False, is_whole=True), *found)


def _effect(
    name: str, stable: Row, candidate: Row, *, is_named: bool, is_whole: bool = False
) -> Effect:
    (n, k), (m, j) = stable, candidate
    low, high = (0.0, math.inf)
    if n > 0 and m > 0:
        low, high = ratio_bounds([Sample(n, k, m, j)], SIDE)
    ratio = math.nan
    if n > 0 and m > 0 and k > 0:
        ratio = (j / m) / (k / n)
    return Effect(
        name=name,
        ratio=ratio,
        low=low,
        high=high,
        stable=stable,
        candidate=candidate,
        is_named=is_named,
        is_whole=is_whole,
    )
