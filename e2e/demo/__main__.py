"""
The main job, live: a good version is promoted, three bad ones are rolled back by themselves.

    e2e/cluster/cluster enter env PYTHONPATH=e2e python -m demo

A real model server (MLServer) with a real model behind a real gateway, users at a fixed rate,
and the operator from its chart. What the terminal shows while a rollout runs is what
`kubectl get modelrollout` shows; the table at the end is counted from what users got.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

import kube
import operator_chart
from shop import ACCURACY, ERRORS, LATENCY, Shop
from workloads.traffic import Record

RATE = 200
NAMESPACE = "demo"
DECISION_SECONDS = 90
SCRAPE_SECONDS = LOOK_SECONDS = 1
COLUMNS = ("STATE", "STEP", "WEIGHT", "VERDICT", "REQUESTS", "GUARDRAILS")
STEPS = [
    {"weight": 10, "gate": "NoHarm", "minRequests": 100},
    {"weight": 50, "minRequests": 200},
]


@dataclass(frozen=True)
class Act:
    """One rollout of the demo, and how it has to end."""

    version: str
    what: str
    environment: dict[str, str]
    ends: str
    culprit: str = ""


ACTS = [
    Act("v2", "a good new version", {}, "Promoted"),
    Act("v3", "answers 8 % errors", {"ERROR_RATE": "0.08"}, "RolledBack", "errors"),
    Act(
        "v4",
        "6 % of answers 0.4 s slower",
        {"TAIL_SHARE": "0.06", "TAIL_SECONDS": "0.4"},
        "RolledBack",
        "latency",
    ),
    Act("v5", "fast, and wrong more often", {"MODEL_QUALITY": "poor"}, "RolledBack", "accuracy"),
]


@dataclass(frozen=True)
class Outcome:
    """What came of an act, counted from what users got."""

    act: Act
    status: kube.Manifest
    seconds_to_decide: float
    seconds_to_zero: float | None
    bad: int
    candidate_requests: int

    @property
    def is_right(self) -> bool:
        """Whether it ended as it must, for the reason it must."""
        reason = self.status.get("reason", "")
        return self.status.get("phase") == self.act.ends and self.act.culprit in reason


def main() -> int:
    """Play all acts; 0 when every outcome is right."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 150)
    began = time.monotonic()
    console.rule("[bold]ModelRollout")
    with console.status("installs the operator from its chart"):
        operator_chart.install()
    if kube.exists("namespace", NAMESPACE, "default"):
        kube.kubectl("delete", "namespace", NAMESPACE, "--timeout=60s")
    shop = Shop(NAMESPACE)
    with console.status("starts v1 on the model server, its route, and users"):
        shop.open()
        shop.deploy("v1", real=True, replicas=2)
        shop.route("digits-v1")
        shop.users(rate=RATE)
    console.print(f"{RATE} requests/s of users, all answered by [bold]digits-v1[/bold]\n")
    try:
        outcomes = [play(act, shop, console) for act in ACTS]
    finally:
        records = shop.load.stop() if shop.load else []
        shop.close()
    console.print(summary(outcomes))
    failed = unexplained(records)
    console.print(
        f"scrape and look each {SCRAPE_SECONDS} s, {RATE} requests/s; {len(records):,} requests of "
        f"users in all, {len(failed)} failed other than by an injected fault; "
        f"{time.monotonic() - began:.0f} s"
    )
    wrong = [each.act.version for each in outcomes if not each.is_right]
    if wrong:
        console.print(f"[red]wrong outcome: {', '.join(wrong)}")
    return 1 if wrong or failed else 0


def unexplained(records: list[Record]) -> list[Record]:
    """Failures of users that the bad version did not cause."""
    return [each for each in records if not each.ok and each.version != "digits-v3"]


def play(act: Act, shop: Shop, console: Console) -> Outcome:
    """Deploy a version, ask for its rollout, and watch it to its end."""
    console.rule(f"{act.version}: {act.what}", align="left")
    with console.status(f"waits for the pod of digits-{act.version}"):
        candidate = shop.deploy(act.version, act.environment, real=True)
    began = time.time()
    guardrails = [ERRORS, LATENCY, ACCURACY]
    strategy = {"steps": STEPS, "bake": {"seconds": 5}}
    kube.apply(shop.rollout(candidate, guardrails=guardrails, strategy=strategy))
    status = watch(shop, candidate, console)
    seconds = time.time() - began
    time.sleep(1)
    outcome = counted(act, shop, status, seconds, candidate, began)
    mark = "[green]as it should be" if outcome.is_right else "[red]wrong"
    console.print(f"{status.get('phase')}, {mark}[/]: {status.get('reason')}\n")
    return outcome


def watch(shop: Shop, candidate: str, console: Console) -> kube.Manifest:
    """Show what the operator shows at each change, until the rollout of this candidate is over."""
    began = time.monotonic()
    status: kube.Manifest = {}
    shown = ""
    console.print(f"{'':>6}  {line(COLUMNS)}", style="dim")
    with console.status("") as spinner:
        while time.monotonic() - began < DECISION_SECONDS:
            status = shop.status()
            row = cells(status)
            spinner.update(line(row))
            if line(row[:4]) != shown:
                shown = line(row[:4])
                console.print(f"{time.monotonic() - began:5.1f}s  {line(row)}")
            if is_over(status, candidate):
                break
            time.sleep(0.5)
    return status


def is_over(status: kube.Manifest, candidate: str) -> bool:
    """Promoted or rolled back, and this candidate at that."""
    phase = status.get("phase")
    promoted = (status.get("stable") or {}).get("deployment") == candidate
    rejected = (status.get("rejected") or {}).get("deployment") == candidate
    is_settled = status.get("weight", {}).get("accepted") is not None
    return is_settled and (
        (phase == "Promoted" and promoted) or (phase == "RolledBack" and rejected)
    )


def cells(status: kube.Manifest) -> tuple[str, ...]:
    """What `kubectl get modelrollout` shows, and the guardrails one by one."""
    guardrails = [f"{each['name']} {each['verdict']}" for each in status.get("guardrails", [])]
    return (
        status.get("phase", ""),
        status.get("stepText", "-"),
        f"{status.get('weight', {}).get('wanted', 0)} %",
        status.get("verdict", "-"),
        str(status.get("requests", "-")),
        ", ".join(guardrails),
    )


def line(row: tuple[str, ...]) -> str:
    """A row in columns."""
    widths = (12, 5, 7, 13, 9, 0)
    return " ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False))


def counted(  # what an outcome is made of
    act: Act, shop: Shop, status: kube.Manifest, seconds: float, candidate: str, began: float
) -> Outcome:
    """The outcome in what users got: bad is what this version's fault is about."""
    answered = [each for each in shop.requests(began) if each.version == candidate]
    bad = [each for each in answered if is_bad(act, each)]
    first = min((each.end for each in bad), default=None)
    last = max((each.start for each in answered), default=began)
    return Outcome(
        act=act,
        status=status,
        seconds_to_decide=seconds,
        seconds_to_zero=None if first is None or act.ends == "Promoted" else last - first,
        bad=len(bad),
        candidate_requests=len(answered),
    )


def is_bad(act: Act, record: Record) -> bool:
    """A request that suffered from what is wrong with this version."""
    if act.culprit == "latency":
        return record.latency_seconds > float(act.environment["TAIL_SECONDS"])
    if act.culprit == "accuracy":
        return record.correct is False
    return not record.ok


def summary(outcomes: list[Outcome]) -> Table:
    """One row per version."""
    table = Table(title="What came of it", title_justify="left")
    for column in (
        "version",
        "decision",
        "seconds",
        "first bad to zero traffic",
        "bad requests",
        "candidate requests",
        "reason",
    ):
        table.add_column(column, overflow="fold")
    for each in outcomes:
        zero = "-" if each.seconds_to_zero is None else f"{each.seconds_to_zero:.1f} s"
        table.add_row(
            f"{each.act.version} ({each.act.what})",
            each.status.get("phase", "undecided"),
            f"{each.seconds_to_decide:.0f}",
            zero,
            str(each.bad),
            str(each.candidate_requests),
            each.status.get("reason", ""),
        )
    return table


if __name__ == "__main__":
    Path("build").mkdir(exist_ok=True)
    sys.exit(main())
