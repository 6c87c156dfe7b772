"""An earlier rollout: its decisions from the history, its evidence from the trace that was kept of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from modelrollout.api import v1alpha1 as api
from modelrollout.core import times
from modelrollout.core.evidence import Kind
from modelrollout.core.times import as_seconds, as_time
from modelrollout.core.trace import Guardrail, Level, Point, Slice, Trace, Version
from modelrollout.kubectl import kept, looks, story
from modelrollout.kubectl.differences import Change
from modelrollout.kubectl.failures import Failure, NotFound
from modelrollout.kubectl.printable import printable
from modelrollout.kubectl.seen import Seen
from modelrollout.report import words
from modelrollout.report.columns import columns, is_counted

SAME_PASS_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """What is known of it."""

    entries: tuple[api.HistoryEntry, ...]
    """The oldest first."""
    trace: Trace | None
    missing: str
    """Why there is no trace, in a sentence."""

    @property
    def last(self) -> Point | None:
        """The last moment at which it was judged."""
        points = self.trace.points if self.trace else ()
        return next((each for each in reversed(points) if each.guardrails), None)


def earlier(seen: Seen, revision: str, found: Sequence[Trace] | Failure) -> Earlier:
    """By what the history says of a revision, or of a Deployment, and by what was kept."""
    traces = () if isinstance(found, Failure) else tuple(printable(list(found)))
    try:
        entries = story.entries_at(seen, revision)
    except NotFound:
        try:
            trace = kept.chosen(traces, revision)
        except NotFound:
            trace = None
        if trace is None:
            raise
        return Earlier(entries=_entries(trace), trace=trace, missing="")
    if isinstance(found, Failure):
        return Earlier(entries=entries, trace=None, missing=found.message)
    told = story.told(entries)
    same = [each for each in traces if _is_of(each, told)]
    missing = f"it is not among those that are kept: {', '.join(map(kept.title, traces))}"
    return Earlier(entries=entries, trace=same[0] if same else None, missing=missing)


def _is_of(trace: Trace, told: api.HistoryEntry) -> bool:
    """The decision was made in the time of this trial."""
    who = trace.candidate.deployment, trace.candidate.revision
    began = (trace.began or 0.0) - SAME_PASS_SECONDS
    ended = float("inf") if trace.ended is None else trace.ended + SAME_PASS_SECONDS
    is_then = began <= as_seconds(told.time) <= ended
    return is_then and who == (told.deployment, told.revision)


def _entries(trace: Trace) -> tuple[api.HistoryEntry, ...]:
    return tuple(
        api.HistoryEntry(
            time=as_time(each.time),
            what=each.what,
            deployment=trace.candidate.deployment,
            revision=trace.candidate.revision,
            message=each.message,
            by=each.by,
        )
        for each in trace.decisions
    )


# --- for people -----------------------------------------------------------------------------------


def explanation(found: Earlier, width: int) -> RenderableType:
    """What became of it, what that rested on, and every decision."""
    parts: list[RenderableType] = [Text(story.earlier(found.entries))]
    if found.trace is None:
        said = f"Its evidence cannot be shown: {found.missing}."
        parts += ["", looks.marked("!", "yellow", Text(said))]
    elif found.last is None:
        parts += ["", Text("No evidence was collected: it was never judged.", style=looks.DIM)]
    else:
        parts += ["", *_evidence(found.trace, found.last, width)]
    if found.trace is not None and found.trace.stable is not None:
        parts += ["", *_differences(found.trace.candidate, found.trace.stable)]
    parts += ["", Text("Decisions", style="bold"), looks.history(found.entries)]
    return Group(*parts)


def _evidence(trace: Trace, point: Point, width: int) -> Iterator[RenderableType]:
    share = f"a mirror of {point.mirror} %" if point.mirror else f"{point.weight} %"
    step = "" if point.step is None else f"step {point.step + 1}/{trace.steps or '?'} at {share}, "
    yield Text.assemble(("Evidence as it was", "bold"), f" in {step}on {times.moment(point.time)}")
    levels = {each.name: each for each in point.guardrails}
    rows = [(each, levels[each.name]) for each in trace.guardrails if each.name in levels]
    yield _wide(trace, rows) if width >= looks.WIDE else _narrow(trace, rows)
    for each in trace.slices:
        if each.harm >= story.SUFFERS:
            yield Padding(_slice(trace, each), (0, 0, 0, 2))


def _narrow(trace: Trace, rows: Sequence[tuple[Guardrail, Level]]) -> Group:
    size = max(len("guardrail"), *(len(given.name) for given, _ in rows))
    parts: list[RenderableType] = [
        Text("guardrail".ljust(size) + "  verdict       ", style=looks.DIM) + looks.scale()
    ]
    for given, level in rows:
        head = Text(given.name.ljust(size + 2), style="bold")
        verdict = Text(level.verdict.ljust(14), style=looks.VERDICTS[level.verdict])
        parts.append(head + verdict + _bar(level))
        lines = (_figures(trace, given, level), Text(_limits(given, level), style=looks.DIM))
        parts += [Padding(each, (0, 0, 0, 2)) for each in lines]
    return Group(*parts)


def _wide(trace: Trace, rows: Sequence[tuple[Guardrail, Level]]) -> Table:
    grid = Table.grid(padding=(0, 2))
    for _ in range(5):
        grid.add_column(no_wrap=True)
    heads = (Text("guardrail"), Text("verdict"), looks.scale(), Text("measured"), Text("allowed"))
    grid.add_row(*(Text(each.plain, style=looks.DIM) for each in heads))
    for given, level in rows:
        grid.add_row(
            Text(given.name, style="bold"),
            Text(level.verdict, style=looks.VERDICTS[level.verdict]),
            _bar(level),
            _figures(trace, given, level),
            Text(_limits(given, level), style=looks.DIM),
        )
    return grid


def _bar(level: Level) -> Text:
    return looks.bar(
        api.GuardrailStatus(
            name=level.name,
            verdict=level.verdict,
            harm=None if level.harm is None else str(level.harm),
            safety=None if level.safety is None else str(level.safety),
        )
    )


def _figures(trace: Trace, given: Guardrail, level: Level) -> Text:
    if given.kind is None:
        return Text("no value" if level.value is None else f"{level.value:.4g}")
    if not is_counted(given, level):
        return Text("nothing was counted", style="yellow")
    stable, candidate = columns(given, level)
    other = trace.stable.deployment if trace.stable else "stable"
    return Text.assemble(
        (f"{trace.candidate.deployment} ", looks.CANDIDATE),
        _figure(given, level.candidate, candidate),
        (f"   {other} ", looks.STABLE),
        _figure(given, level.stable, stable),
    )


def _figure(given: Guardrail, row: Sequence[float], column: int) -> str:
    share = words.share_of(given, tuple(row), column)
    return _spaced(f"{share} of {words.exposure_of(given, tuple(row))}")


def _spaced(said: str) -> str:
    """The page's words, for a terminal: what is copied from it has plain spaces."""
    return said.replace("\N{NO-BREAK SPACE}", " ")


def _limits(given: Guardrail, level: Level) -> str:
    if given.kind is None or given.tolerance is None:
        return given.limit
    said = f"tolerated {_spaced(words.bound(given.tolerance, given))}"
    if given.margin is not None:
        said += f", proved safe within {_spaced(words.bound(given.margin, given))}"
    if given.kind is Kind.DISTRIBUTION and given.thresholds and given.quantile is None:
        threshold = given.thresholds[columns(given, level)[1] if is_counted(given, level) else 0]
        return f"above {words.with_unit(threshold, words.unit_of(given))}; {said}"
    return said


def _slice(trace: Trace, found: Slice) -> Text:
    given = next((each for each in trace.guardrails if each.name == found.guardrail), None)
    if given is None:
        return Text(f"{found.guardrail} in {found.name}", style="red")
    candidate, stable = (_figure(given, row, 0) for row in (found.candidate, found.stable))
    where = f"{found.guardrail} in {given.slice_label or 'slice'} {found.name}"
    return Text(
        f"{where}: candidate {candidate}, stable {stable}", style="red" if found.harm >= 1 else ""
    )


def _differences(candidate: Version, stable: Version) -> Iterator[RenderableType]:
    """As far as they were written down: images, and the model's identity."""
    yield Text(f"What differed from {stable.deployment} to {candidate.deployment}", style="bold")
    changed = list(_changes(candidate, stable))
    if not changed:
        said = "neither images nor model; what else differed is not kept"
        yield Text(said, style=looks.DIM)
        return
    yield looks.changes(changed)


def _changes(candidate: Version, stable: Version) -> Iterator[Change]:
    one, other = (", ".join(each.images) for each in (stable, candidate))
    if one != other:
        yield Change(what="images", stable=one, candidate=other)
    before, after = (
        printable(each.model.to_dict()) if each.model else {} for each in (stable, candidate)
    )
    for name in dict.fromkeys([*before, *after]):
        if before.get(name) != after.get(name):
            yield Change(
                what=f"model {name}", stable=before.get(name, ""), candidate=after.get(name, "")
            )


# --- for programs ---------------------------------------------------------------------------------


def document(found: Earlier) -> dict[str, Any]:
    """All of it; `evidence` is null where it is not kept, and `missing` says why."""
    trace, point = found.trace, found.last
    evidence = None
    if trace is not None and point is not None:
        evidence = {
            "time": as_time(point.time),
            "step": None if point.step is None else point.step + 1,
            "of": trace.steps,
            "weight": point.weight,
            "mirror": point.mirror,
            "guardrails": [
                _judged(given, level)
                for given in trace.guardrails
                for level in point.guardrails
                if level.name == given.name
            ],
            "slices": [
                asdict(each) | {"stable": [*each.stable], "candidate": [*each.candidate]}
                for each in trace.slices
            ],
        }
    return {
        "paragraph": story.earlier(found.entries),
        "evidence": evidence,
        "missing": found.missing if trace is None else "",
        "history": [each.to_dict() for each in found.entries],
    }


def _judged(given: Guardrail, level: Level) -> dict[str, Any]:
    """Counts are the exposure, then the events beyond each threshold."""
    return {
        "name": given.name,
        "verdict": str(level.verdict),
        "harm": level.harm,
        "safety": level.safety,
        "stable": [*level.stable],
        "candidate": [*level.candidate],
        "thresholds": [*given.thresholds],
        "tolerance": asdict(given.tolerance) if given.tolerance else None,
        "margin": asdict(given.margin) if given.margin else None,
        "value": level.value,
        "limit": given.limit,
    }
