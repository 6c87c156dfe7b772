"""
What the documents show of the terminal: `python docs/captures.py [FOLDER]`, or `make captures`.

The rollouts are simulated with a seed, the operator's own passes decide, and what is drawn is what
the plugin prints in so many columns.
"""

from __future__ import annotations

import copy
import re
import sys
from pathlib import Path
from typing import Any

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from modelrollout.core.times import as_time
from modelrollout.kubectl import listing, looks, story
from modelrollout.kubectl.seen import Object, Seen, seen
from modelrollout.simulation.rollout import CREATED, Simulation
from modelrollout.simulation.scenario import scenario_of

IMAGES = Path(__file__).parent / "images"
# No fonts from elsewhere: pages show the same without a network.
FORMAT = re.sub(r"@font-face \{\{.*?\}\}\n", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
THEME = TerminalTheme(
    (17, 19, 24),
    (218, 221, 226),
    [
        (17, 19, 24),
        (226, 98, 98),
        (118, 188, 112),
        (226, 178, 92),
        (92, 162, 232),
        (202, 142, 222),
        (104, 190, 202),
        (218, 221, 226),
    ],
)
THIRD_STEP, ENOUGH_TO_SHOW = 2, 700
META = {"name": "ranker", "namespace": "shop", "generation": 1}
STABLE = {
    "errorRate": 0.01,
    "latency": {"medianSeconds": 0.020, "p99Seconds": 0.065},
    "accuracy": 0.97,
    "pods": 4,
}
SPEC: dict[str, Any] = {
    "candidate": {"deployment": "ranker-v2", "model": {"version": "2.1"}},
    "stable": {"deployment": "ranker-v1", "model": {"version": "2.0"}},
    "port": 8080,
    "traffic": {"gatewayAPI": {"route": "ranker"}},
    "strategy": {
        "steps": [{"weight": 1, "gate": "NoHarm"}, *({"weight": each} for each in (5, 20, 50))],
        "bake": {"seconds": 300},
    },
    "analysis": {
        "guardrails": [
            {"name": "errors", "preset": "envoy/errors"},
            {"name": "latency", "preset": "envoy/latency"},
            {
                "name": "accuracy",
                "proportion": {
                    "events": {"metric": "predictions_wrong_total"},
                    "total": {"metric": "predictions_judged_total"},
                },
                "versionLabel": "version",
            },
        ]
    },
}


def recorded(seed: int, **candidate: Any) -> list[Seen]:
    """Every status that a rollout of such a candidate had."""
    world = {
        "requestsPerSecond": 100,
        "scrapeSeconds": 5,
        "stable": STABLE,
        "candidate": {**STABLE, **candidate},
    }
    simulation = Simulation({"metadata": META, "spec": SPEC}, scenario_of(world), seed)
    found: list[Seen] = []

    def remember(_resource: Any, body: Object) -> None:
        if body.get("kind", "ModelRollout") == "ModelRollout" and body.get("status"):
            status = copy.deepcopy(simulation.status)
            whole = {"metadata": META, "spec": SPEC, "status": status}
            found.append(seen(whole, simulation.now, DEPLOYMENTS))

    simulation.store.written.append(remember)
    simulation.run()
    return found


def deployment(image: str, memory: str, **environment: str) -> Object:
    """A version's Deployment, four pods ready."""
    container = {
        "name": "server",
        "image": image,
        "env": [{"name": key, "value": value} for key, value in environment.items()],
        "resources": {"limits": {"memory": memory}},
    }
    template = {"metadata": {}, "spec": {"containers": [container]}}
    return {"spec": {"replicas": 4, "template": template}, "status": {"readyReplicas": 4}}


DEPLOYMENTS = {
    "ranker-v1": deployment("models/ranker:2.0", "1Gi", MODEL_URI="models:/ranker/11"),
    "ranker-v2": deployment("models/ranker:2.1", "2Gi", MODEL_URI="models:/ranker/12"),
}


def body_of(one: Seen, name: str, created: float) -> Object:
    """As a list shows it."""
    meta = {**META, "name": name, "creationTimestamp": as_time(created)}
    return {**one.body, "metadata": meta}


def main(folder: Path) -> None:
    """Draw all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    good = recorded(7)
    halfway = next(
        each
        for each in good
        if each.status.step == THIRD_STEP and (each.status.requests or 0) > ENOUGH_TO_SHOW
    )
    slow = recorded(3, latency={"medianSeconds": 0.020, "p99Seconds": 0.45})[-1]
    draw(folder / "kubectl-get.svg", "get ranker", 96, looks.tree(halfway, 96))
    draw(folder / "kubectl-get-wide.svg", "get ranker", 150, looks.tree(halfway, 150))
    explained = looks.explanation(slow, story.changed(slow), 96)
    draw(folder / "kubectl-why.svg", "why ranker", 96, explained)
    bodies = [
        body_of(halfway, "ranker", halfway.now - 7200),
        body_of(slow, "reranker", halfway.now - 90_000),
        body_of(good[-1], "tagger", halfway.now - 400_000),
    ]
    lines = listing.listed(bodies, max(CREATED, halfway.now), 150, namespaces=False, wide=False)
    draw(folder / "kubectl-list.svg", "list", 150, *lines)


def draw(path: Path, command: str, width: int, *shown: Any) -> None:
    """As a terminal of that width shows it."""
    with Path("/dev/null").open("w") as nowhere:
        console = Console(
            record=True, width=width, file=nowhere, force_terminal=True, highlight=False
        )
        console.print(Text(f"$ kubectl modelrollout {command}", style="bold"))
        for each in shown:
            console.print(each)
        text = console.export_svg(title="", theme=THEME, code_format=FORMAT, unique_id=path.stem)
    path.write_text("\n".join(each.rstrip() for each in text.splitlines()) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGES)
