"""
How well rollouts are decided: this engine and the rules that people use, in the same worlds.

    PYTHONPATH=tests python -m bench.decision_quality [--runs N] [--only WORLD] [--whole N] [--json FILE]

Every method sees the same seeded requests, window by window. The engine is computed by the
operator's own functions (`stats.counts`, `stats.histograms`, `stats.dispersion`), for many runs
at once: the same mathematics as in the operator, without what is around it.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.decision_quality import measure, report
from bench.decision_quality.measure import Promotion, Row
from bench.decision_quality.whole import WORLD, by_the_operator
from bench.decision_quality.worlds import ALPHA, WORLDS

PROMOTIONS = "promotions"


def main() -> None:
    parser = argparse.ArgumentParser(description="How well rollouts are decided.")
    parser.add_argument("--runs", type=int, default=report.ENOUGH_RUNS)
    parser.add_argument(
        "--only", default="", help=f"worlds whose name has this in it, or '{PROMOTIONS}'"
    )
    parser.add_argument(
        "--whole", type=int, default=300, help=f"rollouts by the whole operator in '{WORLD}'"
    )
    parser.add_argument("--json", type=Path, help="write all figures there as well")
    chosen = parser.parse_args()
    began = time.process_time()
    rows: list[Row] = []
    equal: report.Equals = {}
    worlds = [each for each in WORLDS if chosen.only in each.name]
    for world, (lines, alike) in zip(worlds, measure.rows(worlds, chosen.runs), strict=True):
        rows += lines
        equal[world.versions] = alike
    promotions: list[Promotion] = []
    if chosen.only in PROMOTIONS:
        promotions = list(measure.promotions(chosen.runs))
    is_told = chosen.whole > 0 and any(each.name == WORLD for each in worlds)
    whole = by_the_operator(chosen.whole) if is_told else None
    bars = list(report.bars(rows, equal, promotions))
    print(
        f"{chosen.runs:,} runs of each world with equal versions, and as many with a worse"
        f" candidate; seed {measure.SEED}; nominal rate of false decisions {ALPHA:.0%}."
    )
    for lines in (
        report.summaries(rows) if rows else (),
        report.table(rows) if rows else (),
        report.promotion_table(promotions) if promotions else (),
        report.bar_lines(bars),
        [report.whole_line(whole, rows)] if whole else (),
    ):
        print("", *lines, sep="\n")
    if chosen.json:
        figures = {
            "runs": chosen.runs,
            "seed": measure.SEED,
            "alpha": ALPHA,
            "rows": [asdict(each) | {"ratio": each.ratio} for each in rows],
            "promotions": [asdict(each) for each in promotions],
            "whole": asdict(whole) if whole else None,
            "bars": [asdict(each) for each in bars],
        }
        chosen.json.write_text(json.dumps(_finite(figures), indent=1) + "\n")
    print(f"\n{time.process_time() - began:.0f} s of CPU")


def _finite(value: Any) -> Any:
    """JSON has no infinity; what never happened is null."""
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    main()
