"""
What users feel of something that is on and off by turns, in one run.

Each block has one turn of every arm, one right after the other, so that what changes on the machine
in the course of a run is in all arms alike. A quantile is of all turns of an arm together; the interval
of a ratio of two comes from drawing blocks again, with both of their turns.
"""

from __future__ import annotations

import argparse
import json
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from workloads.traffic import Record

SETTLE_SECONDS = 1.0
"""At the start of a turn, for what was under way and for proxies to take up the change."""
QUANTILES = {"p50": 0.5, "p99": 0.99}
RESAMPLES = 1000
CONFIDENCE = 0.95
BAR = 1.03
"""A ratio of latencies that is promised."""
RESULTS = Path("build", "bench")
RUN = uuid4().hex[:6]
"""Part of each namespace: what an earlier run left in Prometheus is not this one's past."""

Latencies = Mapping[str, Sequence[np.ndarray]]
"""Of each arm the milliseconds of its turns, in the order of the blocks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A time in which one arm was in force; seconds since the epoch."""

    block: int
    arm: str
    start: float
    end: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """A quantile of one arm over that of another, with its confidence interval."""

    value: float
    lower: float
    upper: float

    @property
    def verdict(self) -> str:
        """What the interval says of the bar."""
        if self.upper <= BAR:
            return "held"
        return "missed" if self.lower > BAR else "open"

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.lower:.3f} to {self.upper:.3f})"


def arguments(description: str, blocks: int) -> tuple[int, bool]:
    """What a command line asks for: how many blocks, and whether all share both processors."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("blocks", type=int, nargs="?", default=blocks, help=f"how many; {blocks} unless told")
    add("--shared", action="store_true", help="everything runs on both processors")
    given = parser.parse_args()
    return given.blocks, given.shared


def latencies(turns: Iterable[Turn], records: Iterable[Record]) -> Latencies:
    """What the answers took that users asked for within the turns; blocks that lack a turn are left out."""
    answered = sorted((each for each in records if each.ok), key=lambda each: each.start)
    starts = [each.start for each in answered]
    found: dict[str, dict[int, np.ndarray]] = {}
    for turn in turns:
        first = bisect_left(starts, turn.start + SETTLE_SECONDS)
        last = bisect_left(starts, turn.end)
        milliseconds = [1000 * each.latency_seconds for each in answered[first:last]]
        found.setdefault(turn.arm, {})[turn.block] = np.array(milliseconds)
    blocks = sorted(set.intersection(*(set(each) for each in found.values())))
    return {arm: [of_arm[block] for block in blocks] for arm, of_arm in found.items()}


def ratios(found: Latencies, arm: str, reference: str) -> dict[str, Ratio]:
    """How many times as long it takes in one arm as in the other, by quantile."""

    def of(blocks: Sequence[int]) -> np.ndarray:
        above, below = (
            np.quantile(np.concatenate([found[each][block] for block in blocks]), levels)
            for each in (arm, reference)
        )
        return above / below

    levels, count = list(QUANTILES.values()), len(found[arm])
    draws = np.random.default_rng(1).integers(count, size=(RESAMPLES, count))
    tail = (1 - CONFIDENCE) / 2
    limits = np.quantile([of(blocks) for blocks in draws], (tail, 1 - tail), axis=0)
    values = zip(QUANTILES, of(range(count)), *limits, strict=True)
    return {
        name: Ratio(value=float(value), lower=float(lower), upper=float(upper))
        for name, value, lower, upper in values
    }


def report(
    name: str,
    turns: Sequence[Turn],
    records: Sequence[Record],
    comparisons: Sequence[tuple[str, str]],
    **told: Any,
) -> int:
    """Print the figures and store them as JSON; how many requests of users failed."""
    found = latencies(turns, records)
    failed = failures(turns, records)
    print(f"{'':<16} {'turns':>5} {'requests':>9} {'p50 ms':>8} {'p99 ms':>8} {'failed':>6}")
    arms = {}
    for arm, samples in found.items():
        together = np.concatenate(samples)
        quantiles = {key: float(np.quantile(together, q)) for key, q in QUANTILES.items()}
        arms[arm] = {"requests": len(together), **quantiles, "failed": failed.get(arm, 0)}
        print(
            f"{arm:<16} {len(samples):>5} {len(together):>9,} {quantiles['p50']:>8.2f} {quantiles['p99']:>8.2f} {failed.get(arm, 0):>6}"
        )
    print(
        f"of all {len(records):,} requests, those between the turns included, {sum(failed.values())} failed"
    )
    compared = {}
    for arm, reference in comparisons:
        for key, each in ratios(found, arm, reference).items():
            compared[f"{key} {arm} / {reference}"] = asdict(each) | {"verdict": each.verdict}
            print(f"{key} {arm + ' / ' + reference:<28} {each!s:<26} within 3 %: {each.verdict}")
    store(name, {**told, "turns": len(turns), "arms": arms, "ratios": compared})
    return sum(failed.values())


def failures(turns: Sequence[Turn], records: Iterable[Record]) -> dict[str, int]:
    """How many requests failed in each arm, and under an empty name in no turn."""
    ordered = sorted(turns, key=lambda each: each.start)
    assert all(before.end <= after.start for before, after in pairwise(ordered))
    failed: dict[str, int] = {}
    for record in records:
        if not record.ok:
            arms = [each.arm for each in ordered if each.start <= record.start < each.end]
            arm = arms[0] if arms else ""
            failed[arm] = failed.get(arm, 0) + 1
    return failed


def store(name: str, figures: Mapping[str, Any]) -> None:
    """As JSON, for those who compare runs."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(figures, indent=1) + "\n")
    print(f"also in {path}")
