"""What the terminal shows of one rollout: calm at 80 columns, whole at 200."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from modelrollout.api import v1alpha1 as api
from modelrollout.api.v1alpha1 import Verdict
from modelrollout.core import times
from modelrollout.core.steps import Step, StepKind
from modelrollout.core.times import as_seconds
from modelrollout.kubectl import story, words
from modelrollout.kubectl.differences import Change
from modelrollout.kubectl.listing import PHASES
from modelrollout.kubectl.seen import Seen
from modelrollout.kubectl.story import Level

WIDE = 120
"""Columns from which a guardrail fits on one line."""
HALF = 12
"""Cells of a bar of evidence on each side of its middle."""
DIM = "dim"
STABLE, CANDIDATE = "blue", "magenta"
MARKS = {Level.GOOD: ("✓", "green"), Level.UNSURE: ("!", "yellow"), Level.BAD: ("✗", "red")}
VERDICTS = {
    Verdict.PASS: "green",
    Verdict.FAIL: "bold red",
    Verdict.INCONCLUSIVE: "",
    Verdict.NO_DATA: "yellow",
}
REVISION = 16
MANY_SLICES = 5


# --- one ------------------------------------------------------------------------------------------


def tree(seen: Seen, width: int) -> RenderableType:
    """Everything that matters now: safe or not, who gets what, how far, what speaks for it."""
    parts: list[RenderableType] = [_heading(seen), _safety(seen), "", _versions(seen, width)]
    if seen.status.candidate is not None:
        parts += ["", _steps(seen)]
    if seen.status.guardrails:
        parts += ["", guardrails(seen, width)]
    parts += list(_remarks(seen))
    parts += ["", _footer(seen)]
    return Group(*parts)


def _heading(seen: Seen) -> Text:
    phase = seen.status.phase
    line = Text(f"{seen.namespace}/{seen.name}", style="bold")
    line.append(f"  {phase}", style=PHASES.get(phase.value, "cyan"))
    if seen.status.step_text:
        age = seen.step_seconds
        since = f" for {times.duration(age)}" if age is not None else ""
        line.append(f"  step {seen.status.step_text}{since}", style="not bold")
    return line


def _safety(seen: Seen) -> RenderableType:
    told = story.safety(seen)
    mark, style = MARKS[told.level]
    return marked(mark, style, Text(told.sentence))


def marked(mark: str, style: str, text: RenderableType) -> Table:
    """A line with a mark before it."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column()
    grid.add_row(Text(mark, style=style), text)
    return grid


def _versions(seen: Seen, width: int) -> Table:
    grid = Table.grid(padding=(0, 2))
    for _ in range(4):
        grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True, justify="right")
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=width < WIDE, overflow="ellipsis")
    rows = list(_version_rows(seen))
    for index, row in enumerate(rows):
        branch = "└─" if index == len(rows) - 1 else "├─"
        grid.add_row(Text(branch, style=DIM), *row)
    return grid


def _version_rows(seen: Seen) -> Iterator[tuple[Text, ...]]:
    status = seen.status
    weight = status.weight.wanted
    if status.stable is not None:
        yield _version(seen, "stable", STABLE, status.stable, 100 - weight)
    if status.candidate is not None:
        yield _version(seen, "candidate", CANDIDATE, status.candidate, weight)
    elif status.rejected is not None and status.phase is not api.Phase.PROMOTED:
        lost = api.VersionStatus(
            deployment=status.rejected.deployment,
            service=status.rejected.service,
            revision=status.rejected.revision,
        )
        yield _version(seen, "rejected", CANDIDATE, lost, 0)
    elif status.previous is not None:
        yield _version(seen, "previous", "", status.previous, 0)


def _version(
    seen: Seen, role: str, style: str, version: api.VersionStatus, share: int
) -> tuple[Text, ...]:
    told = [f"model {version.model_version}"] if version.model_version else []
    told.append(version.revision[:REVISION])
    accepted = seen.status.weight.accepted
    if role == "candidate" and accepted != seen.status.weight.wanted:
        has = "nothing confirmed yet" if accepted is None else f"the gateway has {accepted} %"
        told.insert(0, has)
    if role == "candidate" and seen.status.mirror:
        told.insert(0, f"{seen.status.mirror} % mirrored")
    return (
        Text(role, style=style),
        Text(version.deployment, style="bold"),
        _share_bar(share, style),
        Text(f"{share} %"),
        Text(_pods(seen, version.deployment)),
        Text("  ".join(told), style=DIM),
    )


def _share_bar(share: int, style: str) -> Text:
    cells = 10
    full = round(share * cells / 100)
    full = max(full, 1) if share else 0
    return Text("━" * full, style=style) + Text("─" * (cells - full), style=DIM)


def _pods(seen: Seen, deployment: str) -> str:
    if deployment not in seen.deployments:
        return ""
    found = seen.deployments[deployment]
    if found is None:
        return "Deployment is gone"
    ready = (found.get("status") or {}).get("readyReplicas", 0)
    return f"{ready}/{found['spec'].get('replicas', 1)} ready"


def _steps(seen: Seen) -> RenderableType:
    bar = Text()
    bar.append("steps  ", style=DIM)
    for index, each in enumerate(seen.steps):
        present = seen.status.step
        if index:
            bar.append(" ─ ", style=DIM)
        if present is None or index > present:
            bar.append(f"○ {_step_name(each)}", style=DIM)
        elif index < present:
            bar.append(f"✓ {_step_name(each)}", style="green")
        else:
            bar.append(f"● {_step_name(each)}", style="bold")
    return Group(bar, *_step_remark(seen))


def _step_name(step: Step) -> str:
    match step.kind:
        case StepKind.WEIGHT:
            return f"{step.weight} %"
        case StepKind.MIRROR:
            return f"mirror {step.mirror} %"
        case StepKind.BAKE:
            return f"bake {times.duration(step.min_seconds)}"
        case StepKind.PAUSE:
            return f"pause {times.duration(step.min_seconds)}"
    return step.kind


def _step_remark(seen: Seen) -> Iterator[Text]:
    step, status = seen.step, seen.status
    if step is None:
        return
    told = []
    if step.is_judged and status.requests is not None:
        least = f" of at least {step.min_requests:,}" if status.requests < step.min_requests else ""
        told.append(f"{status.requests:,}{least} requests")
        told.append(f"gate {step.gate}")
    age = seen.step_seconds
    if age is not None and step.min_seconds > age:
        told.append(f"{times.duration(step.min_seconds - age)} left")
    if status.step_deadline_time and status.pause is None:
        left = as_seconds(status.step_deadline_time) - seen.now
        told.append(f"decided in {times.duration(left)} at the latest")
    if told:
        yield Text("       " + ", ".join(told), style=DIM)


# --- guardrails -----------------------------------------------------------------------------------


def guardrails(seen: Seen, width: int) -> RenderableType:
    """Each with its evidence between Fail and Pass, and its figures."""
    return _wide_guardrails(seen) if width >= WIDE else _narrow_guardrails(seen)


def _wide_guardrails(seen: Seen) -> Table:
    grid = Table.grid(padding=(0, 2))
    for _ in range(7):
        grid.add_column(no_wrap=True)
    candidate, stable = seen.compared
    heads = (
        "guardrail",
        "verdict",
        scale(),
        candidate,
        stable,
        "candidate against stable",
        "still needed",
    )
    grid.add_row(*(each if isinstance(each, Text) else Text(each, style=DIM) for each in heads))
    for each in seen.status.guardrails:
        guardrail = seen.guardrails.get(each.name)
        if each.harm is None:
            grid.add_row(*_head(each), Text(each.message, overflow="ellipsis"))
            continue
        grid.add_row(
            *_head(each),
            Text(_figure(each.candidate, guardrail)),
            Text(_figure(each.stable, guardrail)),
            Text(_against(each, guardrail)),
            Text(needs(seen, each), style=DIM),
        )
        if each.verdict is Verdict.NO_DATA:
            grid.add_row("", "", "", Text(each.message, style="yellow"))
    return grid


def _narrow_guardrails(seen: Seen) -> Group:
    size = max(len(each.name) for each in seen.status.guardrails)
    size = max(size, len("guardrail"))
    parts: list[RenderableType] = [
        Text("guardrail".ljust(size) + "  verdict       ", style=DIM) + scale()
    ]
    for each in seen.status.guardrails:
        name, verdict, bar = _head(each)
        name.pad_right(size - len(name) + 2)
        verdict.pad_right(14 - len(verdict))
        parts.append(name + verdict + bar)
        parts += [Padding(line, (0, 0, 0, 2)) for line in _narrow_lines(seen, each)]
    return Group(*parts)


def _narrow_lines(seen: Seen, found: api.GuardrailStatus) -> Iterator[Text]:
    guardrail = seen.guardrails.get(found.name)
    if found.harm is None or found.verdict is Verdict.NO_DATA:
        yield Text(found.message, style=VERDICTS[found.verdict])
        return
    candidate, stable = seen.compared
    yield Text.assemble(
        (f"{candidate} ", CANDIDATE),
        _figure(found.candidate, guardrail),
        (f"   {stable} ", STABLE),
        _figure(found.stable, guardrail),
    )
    told = [_against(found, guardrail), needs(seen, found)]
    if any(told):
        yield Text("; ".join(each for each in told if each), style=DIM)


def _head(found: api.GuardrailStatus) -> tuple[Text, Text, Text]:
    style = VERDICTS[found.verdict]
    return Text(found.name, style="bold"), Text(found.verdict, style=style), bar(found)


def scale() -> Text:
    """What the two ends of a bar of evidence mean."""
    return Text(f"{'Fail':<{HALF}} {'Pass':>{HALF}}", style=DIM)


def bar(found: api.GuardrailStatus) -> Text:
    """Evidence from the middle: to the left that it is worse, to the right that it is within its margin."""
    if found.harm is None:
        return Text(" " * (2 * HALF + 1))
    harm, safety = _cells(found.harm), _cells(found.safety)
    return Text.assemble(
        ("·" * (HALF - harm), DIM),
        ("█" * harm, "red"),
        ("│", ""),
        ("█" * safety, "green"),
        ("·" * (HALF - safety), DIM),
    )


def _cells(share: str | None) -> int:
    """Full only when it has decided."""
    value = float(share or 0)
    if value >= 1:
        return HALF
    return min(HALF - 1, max(0, round(value * HALF)))


def _figure(estimate: api.Estimate | None, guardrail: api.Guardrail | None) -> str:
    if estimate is None or estimate.value is None:
        return "nothing yet"
    return f"{words.figure(estimate, guardrail)} {words.exposure(estimate, guardrail)}".strip()


def _against(found: api.GuardrailStatus, guardrail: api.Guardrail | None) -> str:
    """Where a tail is compared, the interval, and the chance, which decides nothing."""
    told = (words.beyond(found, guardrail), words.interval(found, guardrail))
    whole = ": ".join(each for each in told if each)
    chance = found.chance_to_beat
    return f"{whole}, chance to be better {100 * float(chance):.0f} %" if chance else whole


def needs(seen: Seen, found: api.GuardrailStatus) -> str:
    """How many requests are missing, and how long that takes at the present pace."""
    is_open = found.verdict is Verdict.INCONCLUSIVE and seen.status.candidate is not None
    if not is_open or found.needed is None:
        return ""
    guardrail = seen.guardrails.get(found.name)
    if guardrail is not None and guardrail.rate is not None:
        return f"about {times.duration(found.needed)} of pod time more"
    if found.needed_users is not None:
        return f"about {found.needed_users:,} users more"
    pace = seen.requests_per_second
    left = f", {times.duration(found.needed / pace)}" if pace else ""
    return f"about {found.needed:,} requests more{left}"


# --- around it ------------------------------------------------------------------------------------


def _remarks(seen: Seen) -> Iterator[RenderableType]:
    said = story.operator_says(seen)
    repeats = seen.status.guardrails and seen.reason == "NotEnoughEvidence"
    if said and not repeats:
        yield ""
        yield marked("it says", DIM, Text(said))
    failing = [each for each in seen.status.checks if not each.passed and each.name not in said]
    for each in failing:
        yield marked("check", "yellow", Text(f"{each.name}: {each.message}"))
    for warning in seen.status.warnings:
        yield marked("!", "yellow", Text(warning))
    if not seen.is_current and seen.status.conditions:
        yield marked(
            "!", "yellow", Text("the operator has not looked at the last edit of the spec yet")
        )


def _footer(seen: Seen) -> Text:
    line = Text()
    line.append("you can ", style=DIM)
    for each in story.offers(seen):
        line.append(each)
        line.append(", ", style=DIM)
    line.append("ask ", style=DIM)
    line.append("why")
    return line


# --- why ------------------------------------------------------------------------------------------


def explanation(
    seen: Seen, changed: Sequence[Change] | str, width: int, dashboard: str = ""
) -> RenderableType:
    """The decision in one paragraph, then what it rests on."""
    parts: list[RenderableType] = [_heading(seen), "", Text(story.paragraph(seen))]
    if seen.status.guardrails:
        parts += ["", Text("Evidence", style="bold"), guardrails(seen, width)]
        parts += [Padding(each, (0, 0, 0, 2)) for each in _slices(seen)]
    parts += ["", *differences(seen, changed)]
    told = story.next_steps(seen)
    parts += ["", Text("What to do next", style="bold"), Text(told.sentence)]
    parts += [Text(f"  {each}", style="cyan") for each in told.commands]
    parts.append(Text(f"  docs/operations.md has more under {told.reason}", style=DIM))
    if dashboard:
        parts.append(Text(f"  {dashboard}", style="cyan", no_wrap=True, overflow="ignore"))
    return Group(*parts)


def _slices(seen: Seen) -> Iterator[Text]:
    for each in seen.status.guardrails:
        guardrail = seen.guardrails.get(each.name)
        suffering = [it for it in each.slices if float(it.harm) >= story.SUFFERS][:MANY_SLICES]
        for one in suffering:
            label = guardrail.slices.label if guardrail and guardrail.slices else "slice"
            is_named = float(one.harm) >= 1
            yield Text(
                f"{each.name} in {label} {one.name}: candidate {_figure(one.candidate, guardrail)},"
                f" stable {_figure(one.stable, guardrail)}"
                f" ({'suffers' if is_named else f'{100 * float(one.harm):.0f} % of the evidence that names it'})",
                style="red" if is_named else "",
            )


def differences(seen: Seen, changed: Sequence[Change] | str) -> Iterator[RenderableType]:
    """What is not the same in the two versions."""
    candidate, stable = seen.compared
    yield Text(f"What changed from {stable} to {candidate}", style="bold")
    if isinstance(changed, str):
        yield Text(changed, style=DIM)
        return
    if not changed:
        yield Text("nothing in the pod template, and nothing in the model's identity", style=DIM)
        return
    yield changes(changed)


def changes(changed: Sequence[Change]) -> Table:
    """What each version has of each thing that differs."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(overflow="fold")
    grid.add_column(overflow="fold", style=STABLE)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold", style=CANDIDATE)
    for each in changed:
        grid.add_row(
            Text(each.what), Text(each.stable or "(none)"), "→", Text(each.candidate or "(none)")
        )
    return grid


def history(entries: Sequence[api.HistoryEntry]) -> RenderableType:
    """Decisions, the oldest first."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style=DIM)
    grid.add_column(no_wrap=True)
    grid.add_column()
    for each in entries:
        by = f" (by {each.by})" if each.by else ""
        grid.add_row(times.moment(as_seconds(each.time)), each.what, Text(f"{each.message}{by}"))
    return grid
