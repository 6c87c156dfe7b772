"""The verdict on windows from a file is the operator's, and bad files are told what is wrong."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from builders import NOW, a_rollout, a_spec, an_observation, the_measures
from modelrollout.api.v1alpha1 import Verdict
from modelrollout.cli import main
from modelrollout.cli.judge import HELP, Question, judged, record_of
from modelrollout.core import analysis, collect
from modelrollout.core.evidence import Counts, Histogram, Past, Reading, Window
from modelrollout.stats import histograms
from modelrollout.stats.bounds import Bound
from modelrollout.stats.combine import log_mixture
from modelrollout.stats.counts import Sample, log_harm, log_safety
from modelrollout.stats.intervals import difference_bounds, ratio_bounds

PAGE = Path(__file__).parents[2] / "docs" / "planning.md"
QUESTION = Question(tolerance=Bound(1.25), margin=Bound(2.0), alpha=0.05)
BOUNDS = [0.1, 0.2, 0.5, 1.0, "+Inf"]
BASELINE = [5000, 9000, 9900, 9990, 10_000]
USUAL = [450, 810, 890, 899, 900]
USUAL_TENTH = [50, 90, 99, 100, 100]
SLOW_TENTH = [30, 60, 80, 90, 100]


def window(stable, candidate):
    return {
        "stable": dict(zip("nk", stable, strict=True)),
        "candidate": dict(zip("nk", candidate, strict=True)),
    }


BAD = [window((950, 9), (50, 4))] * 20
GOOD = [window((950, 9), (50, 0))] * 20
UNCLEAR = [window((95, 1), (5, 0))]
EMPTY = window((0, 0), (0, 0))


def histogram(stable, candidate, count=10, **changes):
    pair = {"stable": {"counts": stable}, "candidate": {"counts": candidate}}
    return {"bounds": BOUNDS, "baseline": BASELINE, "windows": [pair] * count} | changes


def judge(document, *options):
    text = document if isinstance(document, str) else json.dumps(document)
    return CliRunner().invoke(main, ["judge", "-", *options], input=text)


# --- the verdict ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("windows", "verdict"),
    [
        (BAD, Verdict.FAIL),
        (GOOD, Verdict.PASS),
        (UNCLEAR, Verdict.INCONCLUSIVE),
        ([EMPTY], Verdict.NO_DATA),
        ([window((95, 1), (0, 0))], Verdict.NO_DATA),
        ([], Verdict.NO_DATA),
        (GOOD + BAD * 2, Verdict.FAIL),
        (BAD + GOOD * 9, Verdict.FAIL),
    ],
)
def test_harm_is_final_and_no_requests_are_no_data(windows, verdict):
    assert judged(record_of(windows), QUESTION).verdict is verdict


def test_the_first_window_that_decided_is_named_and_what_came_after_it():
    finding = judged(record_of(GOOD + BAD * 2), QUESTION)
    assert finding.decided is not None
    assert finding.decided.verdict is Verdict.PASS
    undecided = finding.looks[: finding.decided.window - 1]
    assert {each.verdict for each in undecided} == {Verdict.INCONCLUSIVE}
    assert f"though window {finding.decided.window} said Pass" in finding.message


rates = st.floats(0, 1)
exposures = st.one_of(st.just(0), st.integers(1, 5000))


@st.composite
def some_windows(draw):
    pairs = []
    for _ in range(2):
        n = draw(exposures)
        pairs.append((n, round(draw(rates) * n)))
    return window(*pairs)


questions = st.builds(
    Question,
    tolerance=st.builds(Bound, st.floats(1, 2), st.sampled_from((0.0, 0.01))),
    margin=st.builds(Bound, st.floats(2, 4), st.sampled_from((0.01, 0.05))),
    alpha=st.sampled_from((0.01, 0.05)),
    lower_is_worse=st.booleans(),
    dispersion=st.sampled_from((1.0, 3.0)),
)


@given(st.lists(some_windows(), max_size=6), questions)
def test_the_evidence_after_each_window_is_that_of_direct_calls(windows, question):
    samples = [Sample(*w["stable"].values(), *w["candidate"].values()) for w in windows]
    options = {"lower_is_worse": question.lower_is_worse, "dispersion": question.dispersion}
    for number, look in enumerate(judged(record_of(windows), question).looks, 1):
        assert look.window == number
        harm = log_mixture(log_harm(samples[:number], question.tolerance, **options))
        safety = log_mixture(log_safety(samples[:number], question.margin, **options))
        assert look.harm == pytest.approx(harm, abs=1e-9)
        assert look.safety == pytest.approx(safety, abs=1e-9)


@given(st.lists(some_windows(), min_size=1, max_size=4), questions, st.integers(2, 5))
def test_splitting_windows_at_a_constant_ratio_changes_nothing(windows, question, parts):
    whole = judged(record_of(windows), question).looks[-1]
    split = [
        {v: {field: x / parts for field, x in w[v].items()} for v in w}
        for w in windows
        for _ in range(parts)
    ]
    last = judged(record_of(split), question).looks[-1]
    assert last.harm == pytest.approx(whole.harm, abs=1e-6)
    assert last.safety == pytest.approx(whole.safety, abs=1e-6)


@given(st.lists(some_windows(), max_size=5), questions, st.lists(st.integers(0, 5), max_size=5))
def test_windows_without_requests_never_change_the_verdict(windows, question, places):
    more = list(windows)
    for place in places:
        more.insert(place, EMPTY)
    assert judged(record_of(more), question).verdict is judged(record_of(windows), question).verdict


# --- as the operator ------------------------------------------------------------------------------


def operators_verdicts(guardrail, counted, prepare=lambda _measure, checkpoint: checkpoint):
    """The verdict of the operator after each window."""
    rates = {"falseRollbackRate": "0.05", "falsePromoteRate": "0.05"}
    rollout = a_rollout(analysis=a_spec()["analysis"] | rates | {"guardrails": [guardrail]})
    (measure,) = the_measures(rollout, an_observation())
    checkpoint = prepare(measure, collect.fresh(measure, NOW))
    for index, (stable, candidate) in enumerate(counted):
        start = NOW + 5 * index
        given = Window(
            start=start,
            end=start + 5,
            stable=Counts(n=stable[0], k=tuple(stable[1:])),
            candidate=Counts(n=candidate[0], k=tuple(candidate[1:])),
        )
        reading = Reading(windows=(given,), watermark=start + 5)
        checkpoint = collect.collect(measure, checkpoint, reading)
        settings = rollout.spec.analysis
        yield analysis.judge(settings, [measure], {measure.name: checkpoint}, {}, {}, NOW).verdict


PROPORTION = {
    "name": "wrong",
    "proportion": {"events": {"metric": "wrong_total"}, "total": {"metric": "judged_total"}},
    "tolerance": {"ratio": "1.25"},
    "margin": {"ratio": "2"},
}


@pytest.mark.parametrize("windows", [BAD, GOOD, UNCLEAR * 9, GOOD + BAD * 2])
def test_counts_are_judged_as_the_operator_judges_them(windows):
    counted = [(tuple(w["stable"].values()), tuple(w["candidate"].values())) for w in windows]
    found = [each.verdict for each in judged(record_of(windows), QUESTION).looks]
    assert found == list(operators_verdicts(PROPORTION, counted))


@pytest.mark.parametrize("candidate", [USUAL_TENTH, SLOW_TENTH])
def test_histograms_are_judged_as_the_operator_judges_them(candidate):
    latency = {
        "name": "latency",
        "distribution": {"histogram": {"metric": "seconds"}, "limits": ["0.2"]},
        "tolerance": {"ratio": "1.25"},
        "margin": {"ratio": "2"},
    }
    record = record_of(histogram(USUAL, candidate, 40, limits=[0.2]))
    past = Histogram(bounds=(0.1, 0.2, 0.5, 1.0, math.inf), cumulative=tuple(BASELINE))
    tails = tuple(10_000.0 - BASELINE[past.bounds.index(x)] for x in record.thresholds)

    def prepare(measure, checkpoint):
        windows = (Counts(n=10_000.0, k=tails),)
        known = Past(histogram=past, windows=windows)
        chosen = collect.prepared(measure, checkpoint, known, NOW)
        assert chosen.thresholds == record.thresholds
        assert chosen.gated == record.gated
        assert chosen.usual == record.usual == tuple(each / 10_000 for each in tails)
        return chosen

    counted = [
        tuple(
            (version[-1], *(version[-1] - version[past.bounds.index(x)] for x in record.thresholds))
            for version in (USUAL, candidate)
        )
    ] * len(record.columns[0])
    found = [each.verdict for each in judged(record, QUESTION).looks]
    assert found == list(operators_verdicts(latency, counted, prepare))
    assert set(found) - {Verdict.INCONCLUSIVE}


# --- histograms -----------------------------------------------------------------------------------


def test_a_slower_candidate_fails_and_an_equal_one_passes():
    assert judged(record_of(histogram(USUAL, SLOW_TENTH)), QUESTION).verdict is Verdict.FAIL
    assert judged(record_of(histogram(USUAL, USUAL_TENTH, 40)), QUESTION).verdict is Verdict.PASS


def test_evidence_of_a_histogram_is_that_of_its_thresholds():
    record = record_of(histogram(USUAL, SLOW_TENTH, 3))
    states = [
        log_harm(column, QUESTION.tolerance, usual=usual)
        for column, usual in zip(record.columns, record.usual, strict=True)
    ]
    last = judged(record, QUESTION).looks[-1]
    assert last.harm == pytest.approx(histograms.log_harm(states))
    assert len(record.columns) == len(record.thresholds) > 1
    assert set(record.gated) < set(record.thresholds)


def test_without_a_baseline_the_first_windows_choose_and_are_not_judged():
    document = histogram([90, 160, 178, 180, 180], SLOW_TENTH, 6)
    del document["baseline"]
    record = record_of(document)
    assert record.unjudged == 2
    assert set(record.usual) == {0.0}
    looks = judged(record, QUESTION).looks
    assert [each.window for each in looks] == [3, 4, 5, 6]


def test_with_too_little_of_stable_nothing_is_judged_and_the_remedy_is_named():
    document = histogram([10, 15, 20, 20, 20], SLOW_TENTH, 3)
    del document["baseline"]
    finding = judged(record_of(document), QUESTION)
    assert finding.verdict is Verdict.INCONCLUSIVE
    assert finding.looks == ()
    assert "200 requests of stable, and there are 60: give a baseline" in finding.message


def test_bounds_may_be_written_as_labels_and_limits_are_always_compared():
    written = histogram(USUAL, USUAL_TENTH, bounds=[str(x) for x in BOUNDS], limits=[0.7])
    assert 0.5 in record_of(written).gated


# --- which outcome is counted ---------------------------------------------------------------------


def test_with_a_baseline_that_has_the_event_mostly_the_others_are_counted():
    right = [window((950, 931), (50, 45))] * 12
    wrong = [window((950, 19), (50, 5))] * 12
    fewer = Question(
        tolerance=Bound(1.0, 0.01), margin=Bound(1.0, 0.05), alpha=0.05, lower_is_worse=True
    )
    more = Question(tolerance=Bound(1.0, 0.01), margin=Bound(1.0, 0.05), alpha=0.05)
    record = record_of({"windows": right, "baseline": {"n": 1000, "k": 980}})
    others = record_of({"windows": wrong, "baseline": {"n": 1000, "k": 20}})
    assert record.counts_others
    assert record.usual == others.usual == (0.02,)
    found = judged(record, fewer).looks[-1].harm
    assert found == pytest.approx(judged(others, more).looks[-1].harm)
    assert found > judged(record_of(right), fewer).looks[-1].harm


def test_a_baseline_says_what_is_usual_and_a_common_event_decides_sooner():
    windows = [window((950, 285), (50, 25))] * 12
    plain = judged(record_of(windows), QUESTION).looks[-1].harm
    record = record_of({"windows": windows, "baseline": {"n": 1000, "k": 300}})
    assert record.usual == (0.3,)
    assert judged(record, QUESTION).looks[-1].harm > 1.3 * plain > 0
    assert record_of({"windows": windows, "baseline": {"n": 100, "k": 30}}).usual == (0.0,)


# --- the command ----------------------------------------------------------------------------------


def test_the_examples_of_the_help_can_be_judged():
    blocks = [each.partition("\n\n")[0] for each in HELP.split("\b\n")[1:]]
    for block in blocks:
        done = judge(block.replace(", ...", "").strip())
        assert done.exit_code == 0, done.output


@pytest.mark.parametrize("block", re.findall(r"```json\n(.*?)```", PAGE.read_text(), re.DOTALL))
def test_the_examples_of_the_page_can_be_judged(block):
    done = judge(block)
    assert done.exit_code == 0, done.output


def test_the_table_shows_each_window_and_ends_with_the_verdict(tmp_path):
    path = tmp_path / "windows.json"
    path.write_text(json.dumps(BAD[:12]))
    done = CliRunner().invoke(main, ["judge", str(path)])
    lines = done.output.splitlines()
    assert lines[0] == "tolerance 1.25 x stable, margin 2 x stable; log e of 3.00 decides"
    assert lines[2].split() == [
        *("window", "stable", "candidate", "harm", "share", "safety", "share", "verdict")
    ]
    assert [line.split()[0] for line in lines[3:15]] == [str(i) for i in range(1, 13)]
    assert lines[14].split()[1:7] == ["9", "of", "950", "4", "of", "50"]
    assert lines[14].endswith("Fail")
    assert lines[-1].startswith("Fail: harm decided after window ")


def test_json_has_the_evidence_as_log_e_and_as_share_and_the_bounds_of_the_intervals():
    found = json.loads(judge(BAD, "--json", "--alpha", "0.01", "--margin", "3+0.01").output)
    samples = [Sample(950, 9, 50, 4)] * 20
    assert found["verdict"] == found["decided"]["verdict"] == "Fail"
    assert found["needed"] == pytest.approx(math.log(100))
    assert found["margin"] == {"ratio": 3.0, "absolute": 0.01}
    for each in found["windows"]:
        assert each["harmShare"] == pytest.approx(each["harm"] / found["needed"])
    (estimate,) = found["estimates"]
    assert estimate["candidate"] == {"n": 1000.0, "k": 80.0}
    assert estimate["ratio"] == pytest.approx(ratio_bounds(samples, 0.01, margin=3.0))
    assert estimate["difference"] == pytest.approx(difference_bounds(samples, 0.01))


def test_bounds_that_are_infinite_are_null_in_json():
    found = json.loads(judge([window((95, 0), (5, 0))], "--json").output)
    assert found["estimates"][0]["ratio"] == [0.0, None]


@pytest.mark.parametrize(
    ("given", "bound"),
    [("1.25", Bound(1.25)), ("+0.005", Bound(1, 0.005)), ("1.5+0.001", Bound(1.5, 0.001))],
)
def test_a_difference_is_a_ratio_an_absolute_part_or_both(given, bound):
    found = json.loads(judge(GOOD, "--tolerance", given, "--margin", "3+0.5", "--json").output)
    assert Bound(**found["tolerance"]) == bound


def test_bursts_need_more_evidence_and_a_wrong_direction_is_no_harm():
    calm, bursty = (
        json.loads(judge(BAD, "--json", *options).output)["windows"][-1]
        for options in ((), ("--dispersion", "4"))
    )
    assert bursty["harm"] < calm["harm"] / 2
    better = json.loads(judge(BAD, "--lower-is-worse", "--json").output)
    assert better["verdict"] == "Pass"
    assert "tolerance stable / 1.25" in judge(BAD, "--lower-is-worse").output


# --- what is refused ------------------------------------------------------------------------------


def second(**changes):
    """Two windows, the second one's candidate changed."""
    return [BAD[0], {"stable": BAD[0]["stable"], "candidate": changes}]


def second_counts(counts):
    document = histogram(USUAL, USUAL_TENTH, 1)
    document["windows"].append({"stable": {"counts": USUAL}, "candidate": {"counts": counts}})
    return document


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "<stdin> is not JSON"),
        ("[" * 100_000, "<stdin> is not JSON"),
        ({"stable": 1}, 'give a list of windows, or an object with "windows"'),
        ([BAD[0], {"stable": {"n": 1, "k": 0}}], "window 2: candidate is missing"),
        ([3], "window 1: stable is missing"),
        (second(n=50), "window 2: candidate.k is missing: give n, the requests, and k"),
        (second(counts=[3]), 'need "bounds" beside "windows"'),
        (second(n=50, k=51), "window 2: candidate.k is 51 and n is 50"),
        (second(n=-1, k=0), "window 2: candidate.n is -1: a count is not negative"),
        (second(n=50, k=math.nan), "window 2: candidate.k is nan: give a finite count"),
        (second(n=math.inf, k=0), "window 2: candidate.n is inf: give a finite count"),
        (second(n=10**400, k=0), "give a finite count, at most 2^53"),
        (second(n="50", k=0), 'window 2: candidate.n is "50": give a number'),
        (second(n=True, k=0), "window 2: candidate.n is true: give a number"),
        (second(n=None, k=0), "window 2: candidate.n is null: give a number"),
        ({"windows": [], "baseline": {"n": 1, "k": 2}}, "baseline.k is 2 and n is 1"),
        (second_counts([50, 40, 99, 100, 100]), "window 2: candidate.counts[1] is 40, after 50"),
        (second_counts([50, 100]), "window 2: candidate.counts has 2 numbers and there are 5"),
        (second_counts(None), "window 2: candidate.counts is missing"),
        (second_counts([-1, 0, 0, 0, 0]), "window 2: candidate.counts[0] is -1"),
        (histogram(USUAL, USUAL, bounds=[0.1, 0.5, 0.2, 1, "+Inf"]), "bounds[2] is 0.2, after 0.5"),
        (histogram(USUAL, USUAL, bounds=[0.1, math.nan]), "bounds[1] is nan, after 0.1"),
        (histogram(USUAL, USUAL, bounds=[0.1, "slow"]), 'bounds[1] is "slow": give a number'),
        (histogram(USUAL, USUAL, bounds=[0.1, 0.2]), 'end with "+Inf"'),
        (histogram(USUAL, USUAL, bounds=["+Inf"]), "must hold a finite bound"),
        (histogram(USUAL, USUAL, bounds=3), "bounds must be a list"),
        (histogram(USUAL, USUAL, baseline=[1, 2, 3, 4, 5]), "the baseline has 5 requests"),
        (histogram(USUAL, USUAL, baseline=[3, 2, 1, 0, 0]), "baseline.counts[1] is 2, after 3"),
        (histogram(USUAL, USUAL, limits=0.5), "limits is 0.5: give a list of numbers"),
        (histogram(USUAL, USUAL, limits=["a"]), 'limits[0] is "a": give a number'),
    ],
)
def test_a_bad_file_is_told_which_window_which_field_and_what_to_do(document, message):
    done = judge(document)
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tolerance", "0.5"], "--tolerance 0.5: ratio must be at least 1"),
        (["--tolerance", "much"], "--tolerance much: give a ratio (1.25)"),
        (["--margin", ""], "--margin : give a ratio (1.25)"),
        (["--margin", "1.2"], "--margin 1.2 is below --tolerance 1.25"),
        (["--tolerance", "+0.01"], "--margin 2.0 is below --tolerance +0.01"),
        (["--tolerance", "1", "--margin", "1"], "--margin 1 leaves no room"),
        (["--alpha", "0"], "--alpha must be a number above 0 and below 1, not 0.0"),
        (["--alpha", "nan"], "--alpha must be a number above 0 and below 1, not nan"),
        (["--alpha", "1"], "--alpha must be a number above 0 and below 1, not 1.0"),
        (["--dispersion", "0.5"], "--dispersion must be a number 1 or more, not 0.5"),
        (["--dispersion", "inf"], "--dispersion must be a number 1 or more, not inf"),
    ],
)
def test_a_bad_option_is_named(options, message):
    done = judge(BAD, *options)
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())
