"""
A mode, live: good versions are promoted, bad ones are rolled back by themselves.

    e2e/cluster/cluster enter env PYTHONPATH=e2e python -m demo [canary|shadow|bluegreen|abtest]

A real model server (MLServer) with a real model behind a real gateway, users at a fixed rate,
and the operator from its chart. What the terminal shows while a rollout runs is what
`kubectl get modelrollout` shows; the table at the end is counted from what users got.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.table import Table

import kube
import operator_chart
from demo.acts import MODES, Act
from shop import ROLLOUT, Shop
from workloads.traffic import Record

RATE = 200
NAMESPACE = "demo"
DECISION_SECONDS = 120
SCRAPE_SECONDS = LOOK_SECONDS = 1
USERS = 200
COLUMNS = ("STATE", "STEP", "WEIGHT", "VERDICT", "REQUESTS", "GUARDRAILS")
COMPARATOR = f"{ROLLOUT}-comparator"


@dataclass(frozen=True)
class Outcome:
    """What came of an act, counted from what users got."""

    act: Act
    status: kube.Manifest
    seconds_to_decide: float
    seconds_to_zero: float | None
    bad: int
    candidate_requests: int
    before_approval: int
    """Requests of users that the candidate answered until a human approved it, or its end."""
    comparison: str

    @property
    def is_right(self) -> bool:
        """Whether it ended as it must, for the reason it must, and who must not meet it did not."""
        reason = self.status.get("reason", "")
        is_as_told = self.status.get("phase") == self.act.ends and self.act.culprit in reason
        return is_as_told and (self.act.is_for_users or self.before_approval == 0)


def main(mode: str) -> int:
    """Play all acts of a mode; 0 when every outcome is right."""
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
        comparator = f"http://{COMPARATOR}.{NAMESPACE}.svc.cluster.local:9090"
        shop.users(rate=RATE, options=["--users", str(USERS), "--comparator", comparator])
    console.print(f"{RATE} requests/s of users, all answered by [bold]digits-v1[/bold]\n")
    try:
        outcomes = [play(act, shop, console) for act in MODES[mode]]
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
        candidate = shop.deploy(act.version, act.environment, replicas=act.replicas, real=True)
    began = time.time()
    kube.apply(shop.rollout(candidate, **act.rollout))
    seen = watch(act, shop, candidate, console)
    seconds = time.time() - began
    time.sleep(1)
    outcome = counted(act, shop, seen, seconds, candidate, began)
    mark = "[green]as it should be" if outcome.is_right else "[red]wrong"
    console.print(f"{seen.status.get('phase')}, {mark}[/]: {seen.status.get('reason')}")
    console.print(f"{outcome.comparison}\n" if outcome.comparison else "")
    return outcome


@dataclass
class Seen:
    """What was seen of a rollout while it ran."""

    status: kube.Manifest = field(default_factory=dict)
    approved: float | None = None
    """When a human approved, seconds since the epoch."""
    counters: dict[str, float] = field(default_factory=dict)
    """The comparator's, as long as there was one."""


def watch(act: Act, shop: Shop, candidate: str, console: Console) -> Seen:
    """Show what the operator shows at each change, until the rollout of this candidate is over."""
    began = time.monotonic()
    seen, shown = Seen(), ""
    due = dict(act.answers)
    console.print(f"{'':>6}  {line(COLUMNS)}", style="dim")
    with console.status("") as spinner:
        while time.monotonic() - began < DECISION_SECONDS:
            seen.status = shop.status()
            row = cells(seen.status)
            spinner.update(line(row))
            if line(row[:4]) != shown:
                shown = line(row[:4])
                console.print(f"{time.monotonic() - began:5.1f}s  {line(row)}")
            if is_over(seen.status, candidate):
                break
            if seen.status.get("mirror"):
                seen.counters = comparator_counters() or seen.counters
            if (verb := due.pop(seen.status.get("phase", ""), None)) is not None:
                console.print(f"        a human says: {verb} ({seen.status.get('reason')})")
                seen.approved = time.time()
                shop.command(verb)
            time.sleep(0.5)
    return seen


def comparator_counters() -> dict[str, float]:
    """What the comparator counted so far; nothing where it does not answer."""
    path = f"/api/v1/namespaces/{NAMESPACE}/services/{COMPARATOR}:9090/proxy/metrics"
    try:
        page = kube.kubectl("get", "--raw", path)
    except AssertionError:
        return {}
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            labels = {key: value for key, value in sample.labels.items() if key != "rollout"}
            found[" ".join([sample.name, *labels.values()])] = sample.value
    return found


def told_by(counters: dict[str, float]) -> str:
    """What the comparison of the answers came to, in a sentence; empty where there was none."""

    def count(name: str) -> int:
        return int(counters.get(f"modelrollout_comparator_{name}", 0))

    pairs = count("paired_total candidate")
    if not pairs:
        return ""
    said = (
        f"{pairs:,} requests answered by the candidate and twice by stable: {count('flips_total candidate'):,} answers"
        f" that only the candidate changed, {count('flips_total stable'):,} that only stable's repeat did"
    )
    labelled = count("labelled_total candidate")
    if labelled:
        negative, positive = count("negative_flips_total"), count("positive_flips_total")
        said += (
            f"; of {labelled:,} with their label {count('wrong_total stable'):,} wrong by stable,"
            f" {count('wrong_total candidate'):,} by the candidate; {negative} users' answers became wrong"
            f" ({100 * negative / labelled:.2f} % negative flips) and {positive} became right"
        )
    return said


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
    weight = status.get("weight", {}).get("wanted", 0)
    return (
        status.get("phase", ""),
        status.get("stepText", "-"),
        f"mirror {mirror}" if (mirror := status.get("mirror")) else f"{weight} %",
        status.get("verdict", "-"),
        str(status.get("requests", "-")),
        ", ".join(guardrails),
    )


def line(row: tuple[str, ...]) -> str:
    """A row in columns."""
    widths = (12, 5, 11, 13, 9, 0)
    return " ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False))


def counted(  # what an outcome is made of
    act: Act, shop: Shop, seen: Seen, seconds: float, candidate: str, began: float
) -> Outcome:
    """The outcome in what users got: bad is what this version's fault is about."""
    answered = [each for each in shop.requests(began) if each.version == candidate]
    bad = [each for each in answered if is_bad(act, each)]
    first = min((each.end for each in bad), default=None)
    last = max((each.start for each in answered), default=began)
    return Outcome(
        act=act,
        status=seen.status,
        seconds_to_decide=seconds,
        seconds_to_zero=None if first is None or act.ends == "Promoted" else last - first,
        bad=len(bad),
        candidate_requests=len(answered),
        before_approval=sum(seen.approved is None or e.start < seen.approved for e in answered),
        comparison=told_by(seen.counters),
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
    chosen = sys.argv[1] if len(sys.argv) > 1 else "canary"
    if chosen not in MODES:
        sys.exit(f"there is no mode {chosen}: choose one of {', '.join(MODES)}")
    sys.exit(main(chosen))
