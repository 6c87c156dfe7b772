"""The page: what was decided first, then why, then everything that it rested on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from types import MappingProxyType

from modelrollout.api.v1alpha1 import Verdict
from modelrollout.core import times
from modelrollout.core.evidence import Kind
from modelrollout.core.trace import Guardrail, Row, Trace, Version
from modelrollout.report import ecdf, pictures, words
from modelrollout.report.course import (
    SIDE,
    Course,
    courses_of,
    is_limited,
    length,
    started,
    traffic_of,
)
from modelrollout.report.ecdf import Steps
from modelrollout.report.forest import Effect, effects_of
from modelrollout.report.markup import Markup, joined, tag
from modelrollout.report.prometheus import Pair
from modelrollout.stats.counts import Sample
from modelrollout.stats.intervals import difference_bounds, ratio_bounds

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""Nothing on the page is fetched, and nothing in it runs, whatever it holds."""
BADGES = {
    Verdict.PASS: ("good", "proved safe"),
    Verdict.FAIL: ("bad", "worse"),
    Verdict.INCONCLUSIVE: ("wait", "not decided"),
    Verdict.NO_DATA: ("wait", "no data"),
}
LIMIT_BADGES = {Verdict.PASS: ("good", "holds"), Verdict.FAIL: ("bad", "exceeded")}
OUTCOMES = {
    "Promoted": ("good", "Promoted"),
    "Replaced": ("wait", "Replaced by another candidate"),
    "Withdrawn": ("wait", "Withdrawn"),
    "Aborted": ("bad", "Aborted"),
}
NO_HISTOGRAMS: Mapping[str, Pair] = MappingProxyType({})


def page(trace: Trace, histograms: Mapping[str, Pair] = NO_HISTOGRAMS) -> str:
    """One HTML file that needs nothing else. Whole histograms, by guardrail, may be known."""
    courses = courses_of(trace)
    style = files("modelrollout.report").joinpath("style.css").read_text(encoding="utf-8")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag(
            "title",
            f"{trace.rollout}: {trace.candidate.deployment}, {times.moment(started(trace))}",
        ),
        tag("style", Markup(style)),
    )
    sections = (
        _verdict(trace, courses),
        _timeline(trace),
        _guardrails(trace, courses),
        _distributions(courses, histograms),
        _slices(trace, courses),
        _shadow(trace, courses),
        _decisions(trace),
        _environment(trace),
        _reading(trace),
    )
    body = tag("body", tag("main", *sections))
    return "<!doctype html>\n" + tag("html", head, body, lang="en") + "\n"


# --- the verdict ----------------------------------------------------------------------------


def _verdict(trace: Trace, courses: Sequence[Course]) -> Markup:
    colour, word = _outcome(trace)
    requests = words.candidate_requests(trace)
    steps = [each.step for each in trace.points if each.step is not None]
    reached = f"{steps[-1] + 1} of {trace.steps}" if steps and trace.steps else "none"
    ended = times.clock(trace.ended) + " UTC" if trace.ended else "not yet"
    return tag(
        "header",
        tag("p", f"{trace.namespace} / {trace.rollout}", class_="where"),
        tag("h1", sentence(trace)),
        tag("span", word, class_=f"badge {colour}"),
        tag(
            "dl",
            _fact("candidate", trace.candidate.deployment, _model(trace.candidate), "candidate"),
            _fact(
                "stable",
                trace.stable.deployment if trace.stable else "unknown",
                _model(trace.stable),
                "stable",
            ),
            _fact(
                "began",
                times.clock(started(trace)) + " UTC",
                f"{times.day(started(trace))}, ended {ended}",
            ),
            _fact("took", times.duration(length(trace)), f"reached step {reached}"),
            _fact("candidate's requests", words.number(requests), "while versions were compared"),
            _fact("guardrails", str(len(courses)), _held(courses)),
            class_="facts",
        ),
    )


def sentence(trace: Trace) -> str:
    """The outcome in one sentence."""
    name = trace.candidate.deployment
    after = f"after {times.duration(length(trace))}"
    match trace.outcome:
        case "":
            return f"{name} is on trial: it is not decided yet"
        case "Promoted":
            return f"{name} was promoted {after}: it has all traffic"
        case "Replaced" | "Withdrawn":
            return f"{name} was taken back {after}: {trace.message}"
        case _:
            said = trace.message or f"{name} was rolled back"
            return said if name in said else f"{name} was rolled back {after}: {said}"


def _outcome(trace: Trace) -> tuple[str, str]:
    if not trace.outcome:
        return "wait", "In progress"
    return OUTCOMES.get(trace.outcome, ("bad", f"Rolled back: {_spaced(trace.outcome)}"))


def _spaced(word: str) -> str:
    """A CamelCase reason in words."""
    return "".join(f" {each.lower()}" if each.isupper() else each for each in word).strip()


def _held(courses: Sequence[Course]) -> str:
    worse = [
        each.guardrail.name for each in courses if each.last and each.last.verdict is Verdict.FAIL
    ]
    return f"broken: {', '.join(worse)}" if worse else "none was broken"


def _model(version: Version | None) -> str:
    if version is None:
        return ""
    model = version.model.version if version.model and version.model.version else ""
    return ", ".join(
        each for each in (f"model {model}" if model else "", f"revision {version.revision}") if each
    )


def _fact(name: str, value: str, more: str, colour: str | None = None) -> Markup:
    return tag(
        "div", tag("dt", name), tag("dd", tag("span", value, class_=colour), tag("small", more))
    )


# --- the course -----------------------------------------------------------------------------


def _timeline(trace: Trace) -> Markup:
    if len(trace.points) < 2:  # noqa: PLR2004
        return Markup("")
    end = " The dashed line is the end." if trace.ended else ""
    note = f"The numbers are those of the decisions below.{end}"
    traffic = traffic_of(trace)
    if not traffic.is_known:
        note += " Requests per second are not shown: that takes two counts in a step, and there is one at most."
    versions = [("stable's requests", "stable"), ("candidate's requests", "candidate")]
    mirrored = (
        [("mirrored copies", "muted dashed")] if any(each.mirror for each in trace.points) else []
    )
    return tag(
        "section",
        tag("h2", "Traffic"),
        _legend(("wanted", "candidate"), ("accepted by the gateway", "dotted"), *mirrored),
        _legend(*versions) if traffic.is_known else "",
        pictures.timeline(trace, traffic),
        tag("p", note, class_="note"),
    )


def _guardrails(trace: Trace, courses: Sequence[Course]) -> Markup:
    judged = [each for each in courses if each.last is not None]
    if not judged:
        return tag(
            "section",
            tag("h2", "Guardrails"),
            tag("p", "No guardrail was judged: no step had begun."),
        )
    head = ("guardrail", "verdict", "stable", "candidate", "ratio", "tolerated", "to be proved")
    table = _table(
        head, [_summary(each) for each in judged if each.guardrail.kind is not None], numbers=()
    )
    drawn = [joined(*_guardrail(trace, each, index)) for index, each in enumerate(judged)]
    note = (
        "Figures of the last step that was judged. The ratio is the candidate's rate over stable's; "
        "its range, like each band below, holds with 95 % at all looks together."
    )
    return tag("section", tag("h2", "Guardrails"), table, tag("p", note, class_="note"), *drawn)


def _summary(course: Course) -> list[str]:
    given = course.guardrail
    badge = _badge(course)
    if not course.stretches:
        return [
            given.name,
            badge,
            "",
            "",
            "",
            _bound(given, is_margin=False),
            _bound(given, is_margin=True),
        ]
    stable, candidate = course.stretches[-1].rows
    return [
        given.name,
        badge,
        *(
            joined(
                tag("span", words.share_of(given, row, column), class_=colour),
                tag("small", f"of {words.exposure_of(given, row)}"),
            )
            for row, column, colour in (
                (stable, course.columns[0], "stable"),
                (candidate, course.columns[1], "candidate"),
            )
        ),
        _ratio(course),
        _bound(given, is_margin=False),
        _bound(given, is_margin=True),
    ]


def _badge(course: Course) -> Markup:
    verdict = course.last.verdict if course.last else Verdict.NO_DATA
    badges = BADGES if course.guardrail.kind is not None else BADGES | LIMIT_BADGES
    colour, word = badges[verdict]
    return tag("span", word, class_=f"badge {colour}")


def _bound(given: Guardrail, *, is_margin: bool) -> str:
    found = given.margin if is_margin else given.tolerance
    return words.bound(found, given) if found is not None else given.limit


def _ratio(course: Course) -> Markup:
    samples = _samples(course)
    given = course.guardrail
    if not samples or given.kind in {Kind.MEAN, Kind.PAIRED}:
        return Markup("")
    (n, *_), (m, *_) = course.stretches[-1].rows
    k, j = (
        row[column + 1]
        for row, column in zip(course.stretches[-1].rows, course.columns, strict=True)
    )
    low, high = ratio_bounds(samples, SIDE, dispersion=_phi(course))
    ratio = f"{(j / m) / (k / n):.2f}" if k > 0 else "unknown"
    return joined(ratio, tag("small", _range(low, high)))


def _range(low: float, high: float) -> str:
    if not math.isfinite(high):
        return f"at least {low:.2f}" if low > 0 else "not known yet"
    return f"{low:.2f} to {high:.2f}" if low > 0 else f"at most {high:.2f}"


def _phi(course: Course) -> float:
    phis = course.guardrail.dispersion
    return max(1.0, (phis[course.columns[0] : course.columns[0] + 1] or phis[:1] or (1.0,))[0])


def _samples(course: Course) -> list[Sample]:
    """What was counted in the last step, at the threshold that is shown."""
    if not course.stretches:
        return []
    stable, candidate = course.stretches[-1].rows
    one, other = course.columns
    k, j = stable[one + 1], candidate[other + 1]
    return [Sample(max(stable[0], k), k, max(candidate[0], j), j)]


def _guardrail(trace: Trace, course: Course, index: int) -> Iterator[Markup]:
    given = course.guardrail
    required = "" if given.required else "not required"
    yield tag(
        "h3",
        given.name,
        _badge(course),
        tag("span", required, class_="note") if required else Markup(""),
    )
    if given.kind is None:
        yield tag("p", tag("code", given.metric), class_="note")
        if len(course.values) > 1:
            yield pictures.limit(trace, course, index)
        return
    yield tag("p", tag("code", given.metric), f", {_what(given)}", class_="note")
    if course.stretches:
        lines = [("stable", "stable"), ("candidate", "candidate")]
        if is_limited(course):
            lines.append(("tolerated", "bad dashed"))
        evidence = [("evidence that it is worse", "bad"), ("that it is safe", "dashed")]
        yield _legend(*lines, *evidence)
        yield pictures.guardrail(trace, course, index)
    else:
        yield tag("p", "Nothing was counted of both versions.")


def _what(given: Guardrail) -> str:
    burst = max(given.dispersion, default=1.0)
    tempered = f"; tempered by {burst:.1f}, as events come in bursts" if burst > 1.5 else ""  # noqa: PLR2004
    lower = "; lower is worse" if given.lower_is_worse else ""
    kinds = {
        Kind.PROPORTION: "a share of requests",
        Kind.RATE: "events over time",
        Kind.DISTRIBUTION: "a histogram",
        Kind.PAIRED: "pairs of answers to one request",
        Kind.MEAN: "an average: without counts of single values there is no band",
    }
    return f"{kinds[given.kind] if given.kind else ''}{lower}{tempered}"


# --- distributions, slices, shadows ---------------------------------------------------------


def _distributions(courses: Sequence[Course], histograms: Mapping[str, Pair]) -> Markup:
    parts = []
    for index, each in enumerate(courses):
        given = each.guardrail
        if given.kind is not Kind.DISTRIBUTION or not each.stretches:
            continue
        parts.append(tag("h3", given.name))
        if given.name in histograms:
            stable, candidate = (ecdf.of_histogram(side) for side in histograms[given.name])
            note = f"All {len(stable.at)} buckets, as Prometheus has them of the whole rollout; between them the lines only guide the eye. Bars are 95 %."
        else:
            stable, candidate = (ecdf.of_thresholds(given.thresholds, row) for row in each.totals)
            note = f"Counted at {len(given.thresholds)} thresholds, over all steps; between them the lines only guide the eye. Bars are 95 %."
        parts += _distribution(given, stable, candidate, index)
        parts.append(tag("p", note, class_="note"))
    return tag("section", tag("h2", "Distributions"), *parts) if parts else Markup("")


def _distribution(
    given: Guardrail, stable: Steps, candidate: Steps, index: int
) -> Iterator[Markup]:
    yield _legend(("stable", "stable"), ("candidate", "candidate"))
    yield pictures.ecdf(given.name, words.unit_of(given), stable, candidate, index)


def _slices(trace: Trace, courses: Sequence[Course]) -> Markup:
    parts: list[Markup] = []
    for index, each in enumerate(courses):
        whole = _whole(each)
        effects = effects_of(each.guardrail, trace.slices, whole)
        if effects:
            title = f"{each.guardrail.name} by {each.guardrail.slice_label or 'slice'}"
            parts += [
                tag("h3", title),
                pictures.forest(title, effects, index),
                _slice_table(each.guardrail, effects),
            ]
    if not parts:
        return Markup("")
    note = "Over the last step that was judged. Slices in the warning colour are named by the evidence; the others' ranges are for orientation, as there are many of them."
    return tag("section", tag("h2", "Slices"), tag("p", note, class_="note"), *parts)


def _whole(course: Course) -> tuple[Row, Row] | None:
    samples = _samples(course)
    if not samples:
        return None
    (one,) = samples
    return (one.stable_n, one.stable_k), (one.candidate_n, one.candidate_k)


def _slice_table(given: Guardrail, effects: Sequence[Effect]) -> Markup:
    rows = [
        [
            joined(each.name, " ", tag("span", "named", class_="badge bad"))
            if each.is_named
            else each.name,
            joined(
                words.share_of(given, each.stable, 0),
                tag("small", f"of {words.exposure_of(given, each.stable)}"),
            ),
            joined(
                words.share_of(given, each.candidate, 0),
                tag("small", f"of {words.exposure_of(given, each.candidate)}"),
            ),
            _range(each.low, each.high),
        ]
        for each in effects
    ]
    return _table(("slice", "stable", "candidate", "ratio"), rows, numbers=())


def _shadow(trace: Trace, courses: Sequence[Course]) -> Markup:
    paired = [each for each in courses if each.guardrail.kind is Kind.PAIRED and each.stretches]
    if not paired:
        return Markup("")
    covered = [each.coverage for each in trace.points if each.coverage is not None]
    coverage = (
        f" {words.percent(covered[-1])} of the copied requests could be compared."
        if covered
        else ""
    )
    rows = []
    for each in paired:
        (n, k), (m, j) = (row[:2] for row in each.totals)
        low, high = difference_bounds([Sample(max(n, k), k, max(m, j), j)], SIDE)
        rows.append(
            [
                each.guardrail.name,
                words.number(max(n, m)),
                tag("span", words.number(j), class_="candidate"),
                tag("span", words.number(k), class_="stable"),
                joined(
                    words.percent(j / m - k / n),
                    tag("small", f"{words.percent(low)} to {words.percent(high)}"),
                ),
            ]
        )
    note = f"Stable answered some requests twice: what differs there is how much answers differ anyway.{coverage}"
    head = (
        "comparison",
        "pairs",
        "only the candidate differs",
        "only stable's repeat differs",
        "excess",
    )
    return tag(
        "section",
        tag("h2", "Shadow disagreements"),
        tag("p", note, class_="note"),
        _table(head, rows, numbers=()),
    )


# --- the record -----------------------------------------------------------------------------


def _decisions(trace: Trace) -> Markup:
    if not trace.decisions:
        return Markup("")
    rows = [
        [
            str(index),
            joined(
                times.clock(each.time),
                tag("small", f"after {times.duration(each.time - started(trace))}"),
            ),
            joined(
                tag(
                    "span",
                    _spaced(each.what).capitalize(),
                    class_="bad" if each.is_warning else None,
                ),
                tag("small", f"by {each.by}") if each.by else Markup(""),
            ),
            f"{each.weight} %",
            each.message,
        ]
        for index, each in enumerate(trace.decisions, start=1)
    ]
    head = ("", "time (UTC)", "decision", "weight", "why")
    return tag("section", tag("h2", "Decisions"), _table(head, rows, numbers=(0, 3)))


def _environment(trace: Trace) -> Markup:
    versions = [("stable", trace.stable), ("candidate", trace.candidate)]
    known = {name: _identity(each) for name, each in versions if each is not None}
    rows = [
        [what, *(known[name].get(what, "unknown") for name in known)]
        for what in dict.fromkeys(key for each in known.values() for key in each)
    ]
    settings = [
        ("false rollbacks", f"at most {100 * trace.false_rollback_rate:g} % of rollouts"),
        ("false promotions", f"at most {100 * trace.false_promote_rate:g} % of steps"),
        ("ModelRollout", f"{trace.namespace}/{trace.rollout}, uid {trace.uid}"),
    ]
    return tag(
        "section",
        tag("h2", "Environment"),
        _table(("", *known), rows, numbers=()),
        _table(("setting", "value"), [list(each) for each in settings], numbers=()),
    )


def _identity(version: Version) -> dict[str, str]:
    model = version.model
    given = {
        "Deployment": version.deployment,
        "revision": version.revision,
        "images": ", ".join(version.images),
        "model version": model.version if model else None,
        "model": model.uri if model else None,
        "model digest": model.digest if model else None,
    }
    return {key: value for key, value in given.items() if value}


def _reading(trace: Trace) -> Markup:
    said = (
        "How to read it: bands and ranges of 95 % are made to be looked at all the time, so they are wider than those of a test that "
        "looks once. Evidence at the line decides: for a rollback with the guardrail's share of the false-rollback rate, for going on "
        "with the false-promotion rate. Evidence of harm is kept over all steps; figures and evidence of safety begin anew in each, as "
        "load changes with the weight. The course is recorded at intervals, and of a long rollout at longer ones; the decisions were "
        "taken on every window. Times are UTC."
    )
    ended = "" if trace.ended else " This rollout had not ended when the report was made."
    return tag("footer", tag("p", said + ended))


def _legend(*lines: tuple[str, str]) -> Markup:
    """What the lines of the next picture are."""
    keys = (
        tag("span", tag("i", class_=f"line {style}"), name, class_="key") for name, style in lines
    )
    return tag("p", *keys, class_="legend")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[int]) -> Markup:
    def kind(index: int) -> str | None:
        return "number" if index in numbers else None

    return tag(
        "table",
        tag(
            "thead",
            tag(
                "tr",
                *(
                    tag("th", each, class_=kind(index), scope="col")
                    for index, each in enumerate(head)
                ),
            ),
        ),
        tag(
            "tbody",
            *(
                tag(
                    "tr",
                    *(
                        tag("td", tag("div", each), class_=kind(index), data_label=head[index])
                        for index, each in enumerate(row)
                    ),
                )
                for row in rows
            ),
        ),
    )
