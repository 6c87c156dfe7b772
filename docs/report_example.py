"""
The report that the documents show: a simulated rollout, recorded and drawn as a real one, always the same.

`python docs/report_example.py` writes docs/images/report.png and report-phone.png as Chromium shows
the page; with `--html FILE` the page itself.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import yaml
from playwright.sync_api import sync_playwright

from modelrollout.core.observation import Observation, Rollout
from modelrollout.core.plan import Plan
from modelrollout.core.trace import MAX_POINTS, Trace
from modelrollout.core.tracing import described, followed, is_decision
from modelrollout.report.page import page
from modelrollout.simulation.rollout import Simulation
from modelrollout.simulation.scenario import scenario_of

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
CHROMIUM = Path("/usr/bin/chromium")
SEED = 7
MODELS = {
    "stable": {"version": "2.0.0", "uri": "models:/ranker/11", "digest": "sha256:5b1c0ffe"},
    "candidate": {"version": "2.0.1", "uri": "models:/ranker/12", "digest": "sha256:9e7ba5ed"},
}
ERROR_RATE = 0.02
"""The candidate's, a little above what is tolerated: the first step does not see it."""
DESK = {"width": 1000, "height": 1640}
PHONE = {"width": 390, "height": 844}


class Tape:
    """Keeps the trace in memory, where the operator writes it beside the ModelRollout."""

    def __init__(self) -> None:
        self.trace: Trace | None = None

    def record(self, rollout: Rollout, seen: Observation, plan: Plan) -> None:
        """One pass."""
        if self.trace is not None and self.trace.ended is not None:
            return
        for each in followed(self.trace, rollout, seen, plan, MAX_POINTS):
            is_open = each.ended is None and is_decision(rollout, plan)
            self.trace = described(each, rollout, seen, plan) if is_open else each


def example() -> Trace:
    """The rollout of examples/ROLLOUT.yaml, in a world a little kinder than examples/WORLD.yaml."""
    manifest, world = (_document(each) for each in ("ROLLOUT.yaml", "WORLD.yaml"))
    for name, model in MODELS.items():
        manifest["spec"][name]["model"] = model
    world["candidate"]["errorRate"] = ERROR_RATE
    tape = Tape()
    Simulation(manifest, scenario_of(world), SEED, tape).run()
    assert tape.trace is not None
    return tape.trace


def _document(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "examples" / name).read_text(encoding="utf-8"))
    return found


def photograph(html: str, folder: Path) -> None:
    """At a desk, and on a phone in the dark."""
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as made, sync_playwright() as playwright:
        file = Path(made) / "report.html"
        file.write_text(html, encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for name, size, scheme in (("report", DESK, "light"), ("report-phone", PHONE, "dark")):
            shown = browser.new_page(viewport=size, color_scheme=scheme, device_scale_factor=1)
            shown.goto(file.as_uri())
            shown.screenshot(path=folder / f"{name}.png")
        browser.close()


def main() -> None:
    """Write what is asked for."""
    parser = argparse.ArgumentParser(description="Draw the report that the documents show.")
    parser.add_argument("--html", type=Path, help="Write the page here, and no pictures.")
    given = parser.parse_args()
    html = page(example())
    if given.html is not None:
        given.html.write_text(html, encoding="utf-8")
    else:
        photograph(html, IMAGES)


if __name__ == "__main__":
    main()
