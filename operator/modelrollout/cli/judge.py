"""The verdict on a list of windows, with the evidence after each: for tests, teaching, disputes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import compress, pairwise
from typing import Any, Final, TextIO

import click
from pydantic import ValidationError

from modelrollout.api.v1alpha1 import Difference, Verdict
from modelrollout.core.analysis import share_of
from modelrollout.core.collect import COMMON, ENOUGH_TO_CHOOSE
from modelrollout.core.forecast import bound_text, percent
from modelrollout.stats import counts, histograms, intervals
from modelrollout.stats.bounds import Bound
from modelrollout.stats.counts import Sample

MOST: Final = 2.0**53
"""Counts above are not exact any more as floating-point numbers."""
VERSIONS: Final = ("stable", "candidate")
DECIMAL: Final = r"(?:0|[1-9][0-9]*)(?:\.[0-9]+)?"
DIFFERENCE: Final = re.compile(rf"(?P<ratio>{DECIMAL})?(?:\+(?P<absolute>{DECIMAL}))?")

HELP = """
Judge a list of windows: Pass, Fail, Inconclusive or NoData.

WINDOWS is a JSON file (- reads standard input). Each window has the requests (n) and the events
among them (k) of both versions over the same interval:

\b
  [{"stable": {"n": 950, "k": 9}, "candidate": {"n": 50, "k": 1}}, ...]

or the cumulative counts of a histogram, one for each upper bound:

\b
  {"bounds": [0.1, 0.5, "+Inf"],
   "windows": [{"stable": {"counts": [900, 940, 950]},
                "candidate": {"counts": [44, 48, 50]}}, ...]}

Beside "windows" there may be a "baseline": stable's n and k, or counts, from before the first
window. What has to be fixed before a bet is fixed by it: the thresholds of a histogram, which
outcome is the rare one that is counted, and how often it usually comes. A histogram without a baseline uses its first windows,
up to 200 requests of stable, and judges the rest. "limits" are bounds that are compared in any
case (an SLO). Other fields are ignored. Windows are numbered from 1.

Evidence is log e, and as a share of what decides, -ln(alpha). Harm shows that the candidate is
worse than the tolerance, safety that it is within the margin. Both are a ratio to stable's rate
(1.25), an absolute part (+0.005), or both (1.5+0.001). Harm is final; Pass can be followed by it.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What the windows are held against."""

    tolerance: Bound
    margin: Bound
    alpha: float
    lower_is_worse: bool = False
    dispersion: float = 1.0

    @property
    def needed(self) -> float:
        """The log evidence that decides."""
        return -math.log(self.alpha)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Windows as they are judged."""

    columns: tuple[tuple[Sample, ...], ...]
    """One for plain counts, one for each threshold of a histogram; all of the same length."""
    thresholds: tuple[float, ...] = ()
    """Where the columns of a histogram count what lies above."""
    gated: tuple[float, ...] = ()
    """Those of them that must be proved safe."""
    counts_others: bool = False
    """Whether the requests without the event are counted, because it is the common outcome."""
    usual: tuple[float, ...] = ()
    """Of each column: stable's usual share of what is counted; 0 where it is not known."""
    unjudged: int = 0
    """How many windows came before these: the thresholds were chosen from them."""
    requests: tuple[float, float]
    """Of stable and of the candidate, in all windows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The log evidence after a window, and what it says."""

    window: int
    harm: float
    safety: float
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """All judged windows together, for people. The verdict never rests on such sums."""

    threshold: float | None
    gated: bool
    stable: tuple[float, float]
    candidate: tuple[float, float]
    """Requests and events."""
    ratio: tuple[float, float]
    difference: tuple[float, float]
    """Bounds for the candidate's rate over stable's, and less it; each holds at all looks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was found."""

    verdict: Verdict
    message: str
    decided: Look | None
    """The first look that said Pass or Fail."""
    looks: tuple[Look, ...]
    estimates: tuple[Estimate, ...]


@click.command(help=HELP)
@click.argument("windows", type=click.File(encoding="utf-8"))
@click.option(
    "--tolerance",
    default="1.25",
    show_default=True,
    metavar="DIFFERENCE",
    help="What is no harm.",
)
@click.option(
    "--margin",
    default="2.0",
    show_default=True,
    metavar="DIFFERENCE",
    help="What Pass excludes.",
)
@click.option("--alpha", type=float, default=0.05, show_default=True, help="Error rate, each way.")
@click.option("--lower-is-worse", is_flag=True, help="Fewer events are worse.")
@click.option(
    "--dispersion",
    type=float,
    default=1.0,
    show_default=True,
    help="The factor by which events come in bursts.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def judge(windows: TextIO, tolerance: str, margin: str, *, as_json: bool, **options: Any) -> None:
    """Judge a list of windows."""
    question = _question(tolerance, margin, **options)
    record = record_of(_document(windows))
    finding = judged(record, question)
    if as_json:
        click.echo(json.dumps(_json(question, finding), indent=2))
    else:
        click.echo("\n".join(_lines(question, record, finding)))


# --- judge ----------------------------------------------------------------------------------------


def judged(record: Record, question: Question) -> Finding:
    """The verdict: Fail once harm has decided, else Pass once safety has."""
    looks = tuple(_looks(record, question))
    verdict = _together(record, [each.verdict for each in looks])
    return Finding(
        verdict=verdict,
        message=_message(record, question, verdict, looks),
        decided=next((each for each in looks if each.verdict is not Verdict.INCONCLUSIVE), None),
        looks=looks,
        estimates=tuple(_estimates(record, question)),
    )


def _looks(record: Record, question: Question) -> Iterator[Look]:
    harm_states = _states(record, question, question.tolerance, counts.log_harm_of)
    safety_states = _states(record, question, question.margin, counts.log_safety_of)
    is_gated = [not record.gated or each in record.gated for each in record.thresholds or (0.0,)]
    for index, (harms, safeties) in enumerate(zip(harm_states, safety_states, strict=True)):
        harm = histograms.log_harm(harms)
        safety = histograms.log_safety(list(compress(safeties, is_gated)))
        verdict = Verdict.INCONCLUSIVE
        if harm >= question.needed:
            verdict = Verdict.FAIL
        elif safety >= question.needed:
            verdict = Verdict.PASS
        window = record.unjudged + index + 1
        yield Look(window=window, harm=harm, safety=safety, verdict=verdict)


def _states(
    record: Record, question: Question, bound: Bound, evidence: Callable[..., Any]
) -> Iterator[tuple[list[float], ...]]:
    """After each window the running state of each column."""
    grown = []
    for column, usual in zip(record.columns, record.usual, strict=True):
        samples, held, lower = column, bound, question.lower_is_worse
        if record.counts_others:
            samples, held, lower = counts.complemented(column, bound, lower_is_worse=lower)
        logs = evidence(counts.table_of(samples), held, lower_is_worse=lower, usual=usual)
        grown.append((logs.cumsum(axis=0) / question.dispersion).tolist())
    return zip(*grown, strict=True)


def _together(record: Record, verdicts: Sequence[Verdict]) -> Verdict:
    for each in (Verdict.FAIL, Verdict.PASS):
        if each in verdicts:
            return each
    return Verdict.INCONCLUSIVE if all(record.requests) else Verdict.NO_DATA


def _message(record: Record, question: Question, verdict: Verdict, looks: Sequence[Look]) -> str:
    if verdict is Verdict.NO_DATA:
        absent = " and ".join(
            name for name, n in zip(VERSIONS, record.requests, strict=True) if not n
        )
        return f"there are no requests of {absent}"
    if not looks:
        return (
            f"thresholds are chosen from {ENOUGH_TO_CHOOSE} requests of stable, and there are"
            f" {record.requests[0]:g}: give a baseline"
        )
    first = next((each for each in looks if each.verdict is verdict), None)
    if first is None or verdict is Verdict.INCONCLUSIVE:
        last = looks[-1]
        return (
            f"after window {last.window} harm is {share_of(last.harm, question.alpha)} and safety"
            f" {share_of(last.safety, question.alpha)} of what decides"
        )
    what = "harm" if verdict is Verdict.FAIL else "safety"
    earlier = next((each for each in looks if each.verdict is not Verdict.INCONCLUSIVE), first)
    before = f", though window {earlier.window} said {earlier.verdict}" if earlier != first else ""
    return f"{what} decided after window {first.window}{before}"


def _estimates(record: Record, question: Question) -> Iterator[Estimate]:
    thresholds = record.thresholds or (None,)
    for threshold, column in zip(thresholds, record.columns, strict=False):
        options = {"dispersion": question.dispersion}
        yield Estimate(
            threshold=threshold,
            gated=threshold is None or threshold in record.gated,
            stable=(sum(s.stable_n for s in column), sum(s.stable_k for s in column)),
            candidate=(sum(s.candidate_n for s in column), sum(s.candidate_k for s in column)),
            ratio=intervals.ratio_bounds(
                column, question.alpha, margin=question.margin.ratio, **options
            ),
            difference=intervals.difference_bounds(column, question.alpha, **options),
        )


# --- what was given -------------------------------------------------------------------------------


def _question(tolerance: str, margin: str, **options: Any) -> Question:
    for name, least, most in (("alpha", 0, 1), ("dispersion", 1, math.inf)):
        value = options[name]
        if not (least <= value < most and value > 0):
            sense = "above 0 and below 1" if name == "alpha" else "1 or more"
            raise click.UsageError(f"--{name} must be a number {sense}, not {value}")
    low, high = _difference("--tolerance", tolerance), _difference("--margin", margin)
    if high.ratio < low.ratio or high.absolute < low.absolute:
        raise click.UsageError(
            f"--margin {margin} is below --tolerance {tolerance}, in ratio (1 if left out) or"
            " absolute part (0 if left out): what is tolerated cannot be excluded; give a larger one"
        )
    if high == Bound():
        raise click.UsageError(
            f"--margin {margin} leaves no room: that two versions are exactly equal cannot be"
            " proved; give a ratio above 1 or an absolute part above 0"
        )
    return Question(tolerance=low, margin=high, **options)


def _difference(name: str, given: str) -> Bound:
    found = DIFFERENCE.fullmatch(given)
    if not given or found is None:
        raise click.UsageError(
            f"{name} {given}: give a ratio (1.25), an absolute part (+0.005), or both (1.5+0.001)"
        )
    try:
        return Bound(*Difference(**found.groupdict()).numbers())
    except ValidationError as invalid:
        said = invalid.errors()[0]["msg"].removeprefix("Value error, ")
        raise click.UsageError(f"{name} {given}: {said}") from invalid


def _document(windows: TextIO) -> Any:
    try:
        return json.load(windows)
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"{windows.name} is not JSON: {error}") from error


def record_of(document: Any) -> Record:
    """A parsed file; UsageError names the window and the field that is wrong, and the remedy."""
    given = {"windows": document} if isinstance(document, list) else document
    if not (isinstance(given, dict) and isinstance(given.get("windows"), list)):
        raise click.UsageError('give a list of windows, or an object with "windows"; see --help')
    return _tails(given) if "bounds" in given else _plain(given)


def _plain(given: Mapping[str, Any]) -> Record:
    pairs = [[_counted(*each) for each in _versions(w)] for w in enumerate(given["windows"], 1)]
    samples = tuple(Sample(*stable, *candidate) for stable, candidate in pairs)
    n, k = _counted("baseline", given["baseline"]) if "baseline" in given else (0.0, 0.0)
    is_common = k > COMMON * n
    return Record(
        columns=(samples,),
        counts_others=is_common,
        usual=(counts.usual_share([(n, n - k if is_common else k)]),),
        requests=(sum(s.stable_n for s in samples), sum(s.candidate_n for s in samples)),
    )


def _versions(numbered: tuple[int, Any]) -> Iterator[tuple[str, Any]]:
    number, window = numbered
    for version in VERSIONS:
        if not (isinstance(window, dict) and version in window):
            raise click.UsageError(
                f"window {number}: {version} is missing; each window has a stable and a candidate"
            )
        yield f"window {number}: {version}", window[version]


def _counted(where: str, given: Any) -> tuple[float, float]:
    """Requests and events."""
    for field in ("n", "k"):
        if not (isinstance(given, dict) and field in given):
            hint = '; counts of a histogram need "bounds" beside "windows"'
            raise click.UsageError(
                f"{where}.{field} is missing: give n, the requests, and k, the events among them"
                f"{hint if isinstance(given, dict) and 'counts' in given else ''}"
            )
    n, k = _count(f"{where}.n", given["n"]), _count(f"{where}.k", given["k"])
    if k > n:
        raise click.UsageError(
            f"{where}.k is {k:g} and n is {n:g}: k are the requests with the event among the n;"
            " count both over the same interval"
        )
    return n, k


def _count(where: str, given: Any) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise click.UsageError(f"{where} is {json.dumps(given)}: give a number")
    if given != given or given > MOST:  # noqa: PLR0124  # NaN alone differs from itself
        raise click.UsageError(f"{where} is {given}: give a finite count, at most 2^53")
    if given < 0:
        raise click.UsageError(
            f"{where} is {given}: a count is not negative; where a counter was reset, take its new value"
        )
    return float(given)


# --- histograms -----------------------------------------------------------------------------------


def _tails(given: Mapping[str, Any]) -> Record:
    bounds = _bounds(given["bounds"])
    limits = tuple(_count(f"limits[{i}]", x) for i, x in enumerate(_list(given, "limits")))
    pairs = [
        tuple(_cumulative(where, version, bounds) for where, version in _versions(each))
        for each in enumerate(given["windows"], 1)
    ]
    requests = (sum(stable[-1] for stable, _ in pairs), sum(other[-1] for _, other in pairs))
    chosen_from, unjudged = _chosen_from(given, bounds, [stable for stable, _ in pairs])
    if chosen_from is None:
        return Record(columns=(), unjudged=len(pairs), requests=requests)
    try:
        thresholds = histograms.choose_thresholds(bounds, chosen_from, limits=limits)
        gated = histograms.gate_thresholds(thresholds, bounds, chosen_from, limits=limits)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    return Record(
        columns=tuple(
            tuple(_tail(stable, other, bounds.index(x)) for stable, other in pairs[unjudged:])
            for x in thresholds
        ),
        thresholds=thresholds,
        gated=gated,
        usual=tuple(_usual(given, chosen_from, bounds.index(x)) for x in thresholds),
        unjudged=unjudged,
        requests=requests,
    )


def _chosen_from(
    given: Mapping[str, Any], bounds: Sequence[float], stable: Sequence[Sequence[float]]
) -> tuple[Sequence[float] | None, int]:
    """Stable's counts that thresholds are chosen from, and how many windows they used up."""
    if "baseline" in given:
        baseline = _cumulative("baseline", given["baseline"], bounds)
        if baseline[-1] < ENOUGH_TO_CHOOSE:
            raise click.UsageError(
                f"the baseline has {baseline[-1]:g} requests, thresholds need {ENOUGH_TO_CHOOSE}:"
                " give a longer one, or leave it out"
            )
        return baseline, 0
    total = [0.0] * len(bounds)
    for used, each in enumerate(stable, 1):
        total = [old + new for old, new in zip(total, each, strict=True)]
        if total[-1] >= ENOUGH_TO_CHOOSE:
            return total, used
    return None, len(stable)


def _usual(given: Mapping[str, Any], chosen_from: Sequence[float], index: int) -> float:
    """As the operator, which has no past of stable either where it chooses from the windows."""
    total = chosen_from[-1]
    return counts.usual_share([(total, total - chosen_from[index])]) if "baseline" in given else 0.0


def _list(given: Mapping[str, Any], name: str) -> list[Any]:
    found = given.get(name, [])
    if not isinstance(found, list):
        raise click.UsageError(f"{name} is {json.dumps(found)}: give a list of numbers")
    return found


def _bounds(given: Any) -> tuple[float, ...]:
    """Ascending, the last one infinite; numbers may be in quotes, as Prometheus has them."""
    if not isinstance(given, list):
        raise click.UsageError("bounds must be a list of the histogram's upper bounds")
    bounds = []
    for index, each in enumerate(given):
        try:
            bounds.append(float(each))
        except (TypeError, ValueError, OverflowError) as error:
            raise click.UsageError(
                f"bounds[{index}] is {json.dumps(each)}: give a number"
            ) from error
        if not (index == 0 or bounds[index] > bounds[index - 1]) or math.isnan(bounds[index]):
            raise click.UsageError(
                f"bounds[{index}] is {each}, after {given[index - 1]}: bounds must ascend"
            )
    if len(bounds) < 2 or bounds[-1] != math.inf:  # noqa: PLR2004
        raise click.UsageError(
            'bounds must hold a finite bound and end with "+Inf", whose count is all requests'
        )
    return tuple(bounds)


def _cumulative(where: str, given: Any, bounds: Sequence[float]) -> tuple[float, ...]:
    found = given.get("counts") if isinstance(given, dict) else given
    if not isinstance(found, list):
        raise click.UsageError(f"{where}.counts is missing: give one count for each bound")
    if len(found) != len(bounds):
        raise click.UsageError(
            f"{where}.counts has {len(found)} numbers and there are {len(bounds)} bounds: give one"
            ' count for each, "+Inf" included'
        )
    numbers = tuple(_count(f"{where}.counts[{i}]", each) for i, each in enumerate(found))
    for i, (low, high) in enumerate(pairwise(numbers), 1):
        if high < low:
            raise click.UsageError(
                f"{where}.counts[{i}] is {high:g}, after {low:g}: counts are cumulative, each is of"
                " the requests at or below its bound"
            )
    return numbers


def _tail(stable: Sequence[float], candidate: Sequence[float], index: int) -> Sample:
    return Sample(
        stable[-1], stable[-1] - stable[index], candidate[-1], candidate[-1] - candidate[index]
    )


# --- what is printed ------------------------------------------------------------------------------


def _lines(question: Question, record: Record, finding: Finding) -> Iterator[str]:
    lower = question.lower_is_worse
    tolerance, margin = (
        bound_text(each, percent(each.absolute), lower_is_worse=lower)
        for each in (question.tolerance, question.margin)
    )
    yield f"tolerance {tolerance}, margin {margin}; log e of {question.needed:.2f} decides"
    if record.counts_others:
        yield "More than half of the baseline has the event: the requests without it are counted."
    if record.unjudged:
        yield f"Thresholds are chosen from windows 1 to {record.unjudged}, which are not judged."
    if finding.looks:
        yield ""
        yield from _table(_look_cells(question, record, finding.looks))
        yield ""
        yield from _table(_estimate_cells(finding.estimates))
    yield ""
    yield f"{finding.verdict}: {finding.message}"


def _table(rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    cells = list(rows)
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    for line in cells:
        padded = (cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        yield "  ".join(padded).rstrip()


def _look_cells(
    question: Question, record: Record, looks: Sequence[Look]
) -> Iterator[tuple[str, ...]]:
    yield "window", "stable", "candidate", "harm", "share", "safety", "share", "verdict"
    for look, sample in zip(looks, record.columns[0], strict=True):
        stable, candidate = (
            (sample.stable_n, sample.stable_k),
            (sample.candidate_n, sample.candidate_k),
        )
        yield (
            str(look.window),
            f"{stable[0]:g}" if record.thresholds else _of(*stable),
            f"{candidate[0]:g}" if record.thresholds else _of(*candidate),
            f"{look.harm:.2f}",
            share_of(look.harm, question.alpha),
            f"{look.safety:.2f}",
            share_of(look.safety, question.alpha),
            "" if look.verdict is Verdict.INCONCLUSIVE else look.verdict,
        )


def _estimate_cells(estimates: Sequence[Estimate]) -> Iterator[tuple[str, ...]]:
    """The confidence bounds."""
    yield "", "stable", "candidate", "ratio", "difference"
    for each in estimates:
        where = "all"
        if each.threshold is not None:
            where = f"above {each.threshold:g}{'' if each.gated else ' (harm only)'}"
        yield (
            where,
            _of(*each.stable),
            _of(*each.candidate),
            " to ".join(f"{x:.3g}" for x in each.ratio),
            " to ".join(percent(x) for x in each.difference),
        )


def _of(n: float, k: float) -> str:
    return f"{k:g} of {n:g}"


def _json(question: Question, finding: Finding) -> dict[str, Any]:
    decided = finding.decided
    return {
        "verdict": finding.verdict,
        "message": finding.message,
        "decided": None
        if decided is None
        else {"window": decided.window, "verdict": decided.verdict},
        "alpha": question.alpha,
        "needed": question.needed,
        "tolerance": asdict(question.tolerance),
        "margin": asdict(question.margin),
        "lowerIsWorse": question.lower_is_worse,
        "dispersion": question.dispersion,
        "windows": [
            {
                "window": each.window,
                "harm": each.harm,
                "harmShare": each.harm / question.needed,
                "safety": each.safety,
                "safetyShare": each.safety / question.needed,
                "verdict": each.verdict,
            }
            for each in finding.looks
        ],
        "estimates": [
            {
                "threshold": each.threshold,
                "gated": each.gated,
                "stable": dict(zip("nk", each.stable, strict=True)),
                "candidate": dict(zip("nk", each.candidate, strict=True)),
                "ratio": _finite(each.ratio),
                "difference": _finite(each.difference),
            }
            for each in finding.estimates
        ],
    }


def _finite(bounds: tuple[float, float]) -> list[float | None]:
    """JSON has no infinity: there is no bound on that side."""
    return [each if math.isfinite(each) else None for each in bounds]
