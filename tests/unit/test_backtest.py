"""A backtest says what the operator would have said, and how often it would have been wrong."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace

import pytest
import yaml
from click.testing import CliRunner
from scipy.stats import binomtest

from builders import ERRORS, a_spec
from modelrollout.api import v1alpha1 as api
from modelrollout.api.v1alpha1 import Verdict
from modelrollout.backtest import report
from modelrollout.backtest.halves import Draw, calibrated, splits_of
from modelrollout.backtest.history import Period, Pods, Question, Unfit, measures_between, recorded
from modelrollout.backtest.release import replayed
from modelrollout.cli import main
from modelrollout.core.evidence import Grid, Split
from modelrollout.errors import MetricsUnavailable
from modelrollout.metrics import HISTORY_SECONDS
from modelrollout.stats.binomial import share_bounds
from past import Away, Pod, scraped

START = 1_790_000_000.0
BEFORE = START - HISTORY_SECONDS - 120
LATENCY = {
    "name": "latency",
    "distribution": {"histogram": {"metric": "model_latency_seconds"}},
}
RATE = {
    "name": "crashes",
    "required": False,
    "rate": {
        "events": {
            "metric": "model_requests_total",
            "matchers": [{"label": "code", "value": "500"}],
        }
    },
}
MEMORY = {"name": "memory", "limit": {"query": "memory", "max": "10", "forSeconds": 30}}


def a_question(*guardrails, seconds=1800.0, width=5.0, **analysis):
    given = {"guardrails": list(guardrails or (ERRORS,)), **analysis}
    spec = api.ModelRolloutSpec.model_validate(a_spec(analysis=given))
    return Question(
        analysis=spec.analysis,
        namespace="shop",
        pods=Pods(label="pod", namespace="shop"),
        period=Period(start=START, end=START + seconds, width=width),
    )


def stable(count=3, **changes):
    return [Pod(name=f"v1-{index}", **changes) for index in range(count)]


def candidate(error_rate=0.01, **changes):
    return Pod(name="v2-0", error_rate=lambda _: error_rate, since=START - 90, **changes)


def replay(past, question=None, advance=lambda _: None):
    return asyncio.run(replayed(past, question or a_question(), "v1-.*", "v2-.*", advance))


def calibrate(past, question=None, *, seconds=600.0, splits=4, seed=1):
    draw = Draw(seconds=seconds, splits=splits, seed=seed)
    return asyncio.run(calibrated(past, question or a_question(), "v1-.*", draw, lambda _: None))


# --- the operator's own reading -----------------------------------------------------------------


async def look_by_look(source, query, checkpoint, period):
    """As the operator reads: right after the end of each window."""
    windows, watermark = [], checkpoint.watermark
    for edge in period.edges():
        grid = Grid(start=period.start, width=period.width, watermark=watermark)
        reading = await source.read(query, grid, edge + 0.15)
        windows += reading.windows
        watermark = reading.watermark
    return tuple(windows)


@pytest.mark.parametrize("guardrail", [ERRORS, LATENCY, RATE], ids=lambda each: each["name"])
@pytest.mark.parametrize(
    ("pods", "every", "gaps"),
    [
        (stable(), 5.0, ()),
        (stable(), 15.0, ()),
        ([*stable(2), Pod(name="v1-late", since=START + 700)], 5.0, ()),
        ([*stable(2), Pod(name="v1-gone", until=START + 700)], 5.0, ()),
        (stable(), 5.0, [(START + 300, START + 500)]),
    ],
    ids=["steady", "scraped-seldom", "joined", "left", "gap"],
)
def test_windows_that_are_read_at_once_are_those_that_were_read_in_their_time(
    guardrail, pods, every, gaps
):
    question = a_question(ERRORS | {"name": "required"}, guardrail)
    if guardrail is ERRORS:
        question = a_question()
    past = scraped([*pods, candidate()], BEFORE, START + 1860, every=every, gaps=gaps)
    split = Split(stable=question.pods.matching("v1-.*"), candidate=question.pods.matching("v2-.*"))
    measure = measures_between(question, split)[-1]
    read = asyncio.run(recorded(past, measure, question.period, lambda _: None))
    query = replace(measure.query, thresholds=read.checkpoint.thresholds)
    then = asyncio.run(look_by_look(past, query, read.checkpoint, question.period))
    assert len(then) > 100
    assert read.windows[: len(then)] == then
    # What was scraped late was known late: the operator was at most a scrape behind.
    assert then[-1].end >= read.windows[-1].end - every - question.period.width


# --- a release ----------------------------------------------------------------------------------


def test_a_bad_release_fails_when_its_evidence_is_complete():
    found = replay(scraped([*stable(), candidate(0.05)], BEFORE, START + 1800))
    (story,) = found.stories
    assert found.verdict is Verdict.FAIL
    assert found.failed is not None
    assert story.failed is not None
    assert story.failed.time == found.failed.time < START + 300
    before = [float(p.status.harm) for p in story.curve if p.time < found.failed.time]
    assert max(before) < 1 <= float(story.curve[len(before)].status.harm)


def test_a_good_release_passes_and_the_requests_it_took_are_told():
    found = replay(scraped([*stable(), candidate()], BEFORE, START + 1800))
    assert (found.verdict, found.failed) == (Verdict.PASS, None)
    assert found.passed is not None
    assert found.passed.requests == pytest.approx(10 * (found.passed.time - START), rel=0.1)
    assert report.decision(found).startswith("It would have passed at 2026-")


def test_a_failure_takes_back_what_had_passed():
    def turned(now):
        return 0.01 if now < START + 900 else 0.1

    pods = [*stable(), Pod(name="v2-0", error_rate=turned, since=START - 90)]
    found = replay(scraped(pods, BEFORE, START + 1800))
    assert found.verdict is Verdict.FAIL
    assert found.failed is not None
    assert found.failed.time > START + 900
    assert "(after it had passed at 2026-" in report.decision(found)


def test_nothing_is_decided_on_few_requests():
    few = {"per_second": lambda _: 0.05}
    found = replay(scraped([*stable(**few), candidate(**few)], BEFORE, START + 1800))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert report.decision(found).startswith("It would not have been decided in 1,800 s: errors: ")


def test_thresholds_are_chosen_from_stable_before_the_release():
    found = replay(scraped([*stable(), candidate()], BEFORE, START + 1800), a_question(LATENCY))
    (story,) = found.stories
    assert story.record is not None
    assert story.record.checkpoint.thresholds
    assert story.record.windows[0].start == START
    assert story.blind_share == 0


def test_where_stable_was_silent_before_thresholds_come_from_its_first_minutes():
    pods = stable(since=START + 20)
    found = replay(scraped([*pods, candidate()], BEFORE, START + 1800), a_question(LATENCY))
    (story,) = found.stories
    assert story.record is not None
    assert story.record.windows[0].start == START + 60


def test_a_gap_is_reported_as_time_that_could_not_be_read():
    gap = [(START + 600, START + 900)]
    found = replay(scraped([*stable(), candidate()], BEFORE, START + 1800, gaps=gap))
    (story,) = found.stories
    assert story.blind_share == pytest.approx(300 / 1800, abs=0.02)
    complete = replay(scraped([*stable(), candidate()], BEFORE, START + 1800))
    assert complete.stories[0].blind_share == 0


def test_a_candidate_that_was_never_there_is_said_to_be_missing():
    past = scraped(stable(), BEFORE, START + 1800)
    with pytest.raises(MetricsUnavailable, match=r"errors: No series of .* for the candidate"):
        replay(past)


def test_one_guardrail_that_cannot_be_read_does_not_hide_the_others():
    misspelt = {**LATENCY, "distribution": {"histogram": {"metric": "letancy"}}}
    past = scraped([*stable(), candidate()], BEFORE, START + 1800)
    found = replay(past, a_question(ERRORS, misspelt))
    errors, latency = found.stories
    assert (errors.blind_share, latency.blind_share) == (0, 1)
    assert found.verdict is Verdict.NO_DATA
    assert "could not be read: No series of letancy_bucket" in "\n".join(report.release_text(found))


def test_a_limit_fails_when_it_was_exceeded_for_as_long_as_it_allows():
    past = scraped([*stable(), candidate()], BEFORE, START + 600)
    past.value_of = lambda now: 20.0 if now >= START + 100 else 5.0
    found = replay(past, a_question(ERRORS, MEMORY, seconds=600.0))
    assert found.failed is not None
    assert found.failed.time == START + 130
    assert found.failed.message == "memory: 20, max 10 for 30 s; beyond it for 30 s"
    past.value_of = lambda _: 5.0
    within = "\n".join(report.release_text(replay(past, a_question(ERRORS, MEMORY, seconds=600.0))))
    assert "memory (limit): would not have failed; at the end 5, max 10 for 30 s." in within


def test_a_limit_without_a_value_is_said_to_have_none():
    past = scraped([*stable(), candidate()], BEFORE, START + 600)
    found = replay(past, a_question(ERRORS, MEMORY, seconds=600.0))
    assert "memory (limit): could not be read: the expression has no result" in "\n".join(
        report.release_text(found)
    )


def test_a_pod_that_both_versions_match_is_refused():
    past = scraped([*stable(), candidate()], BEFORE, START + 600)
    with pytest.raises(Unfit, match="both match pod v2-0"):
        asyncio.run(replayed(past, a_question(), "v.*", "v2-.*", lambda _: None))


def test_all_that_is_read_is_counted_as_progress():
    seconds = []
    past = scraped([*stable(), candidate()], BEFORE, START + 600)
    replay(past, a_question(ERRORS, LATENCY, MEMORY, seconds=600.0), seconds.append)
    assert sum(seconds) == pytest.approx(3 * 600)


def test_a_prometheus_that_is_away_is_unavailable_at_once():
    with pytest.raises(MetricsUnavailable, match="cannot be reached"):
        replay(Away())
    with pytest.raises(MetricsUnavailable, match="cannot be reached"):
        calibrate(Away())


# --- halves -------------------------------------------------------------------------------------


def test_halves_share_out_all_pods_and_are_about_equal():
    pods = [f"v1-{index}" for index in range(7)]
    for halves in Draw(seconds=60, splits=30, seed=1).halves(a_question().period, pods):
        assert not halves.stable & halves.candidate
        assert halves.stable | halves.candidate == set(pods)
        assert len(halves.candidate) in {3, 4}


@pytest.mark.parametrize(("count", "ways"), [(2, 2), (3, 6), (4, 6), (5, 20), (6, 20)])
def test_no_split_is_judged_twice(count, ways):
    pods = [f"v1-{index}" for index in range(count)]
    drawn = Draw(seconds=60, splits=100, seed=1).halves(a_question().period, pods)
    assert splits_of(count) == len(drawn) == ways
    assert len({each.candidate for each in drawn}) == ways


def test_a_seed_always_draws_the_same():
    pods = [f"v1-{index}" for index in range(10)]

    def drawn(seed):
        halves = Draw(seconds=60, splits=5, seed=seed).halves(a_question().period, pods)
        return [each.candidate for each in halves]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_equal_pods_are_rolled_back_no_more_often_than_promised():
    """Without any tolerance, ten hours of ten-minute rollouts: 5 % are promised."""
    question = a_question(
        {**ERRORS, "tolerance": {"ratio": "1"}}, seconds=36_000.0, falseRollbackRate="0.05"
    )
    past = scraped(stable(4), BEFORE, START + 36_060, every=15.0)
    found = calibrate(past, question, splits=2)
    assert (found.stretches, len(found.trials)) == (60, 120)
    assert found.share().value <= 0.05
    assert found.keeps_promise
    assert report.advice(found).startswith("Automatic rollback can be armed on this data.")


def uneven(seconds):
    pods = [
        Pod(name=f"v1-{index}", error_rate=lambda _, index=index: (0.01, 0.04)[index % 2])
        for index in range(2)
    ]
    return scraped(pods, BEFORE, START + seconds + 60)


def test_pods_that_differ_are_false_alarms_and_the_tolerance_that_holds_is_named():
    question = a_question(seconds=3600.0)
    found = calibrate(uneven(3600), question, seconds=1800.0)
    assert found.share().value == 0.5
    assert found.share("errors").alarms == 2
    assert not found.keeps_promise
    assert found.tolerances is not None
    ratio = found.tolerances["errors"]
    assert f"A tolerance with ratio errors {ratio:g} would have held" in report.advice(found)
    wider = {**ERRORS, "tolerance": {"ratio": f"{ratio:g}"}, "margin": {"ratio": "10"}}
    held = calibrate(uneven(3600), a_question(wider, seconds=3600.0), seconds=1800.0)
    assert held.share().alarms == 0


def test_where_no_tolerance_would_do_it_says_so():
    pods = [
        Pod(name=f"v1-{index}", error_rate=lambda _, index=index: (0.001, 0.3)[index])
        for index in range(2)
    ]
    found = calibrate(scraped(pods, BEFORE, START + 660), a_question(seconds=600.0))
    assert found.tolerances is None
    assert "No ratio up to 10 would have held" in report.advice(found)


def test_a_guardrail_that_its_placebo_takes_out_is_named():
    """One half of the other half is much worse: the operator itself stops to trust the metric."""
    pods = [
        Pod(name=f"v1-{index}", error_rate=lambda _, index=index: (0.01, 0.1)[index == 0])
        for index in range(6)
    ]
    found = calibrate(scraped(pods, BEFORE, START + 660), a_question(seconds=600.0), splits=20)
    assert {trial.untrusted for trial in found.trials} == {(), ("errors",)}
    assert "untrusted in " in "\n".join(report.calibration_text(found, ()))


def test_a_guardrail_that_was_never_read_is_not_called_calibrated():
    misspelt = {**LATENCY, "distribution": {"histogram": {"metric": "letancy"}}}
    found = calibrate(scraped(stable(2), BEFORE, START + 1860), a_question(ERRORS, misspelt))
    text = "\n".join(report.calibration_text(found, ()))
    assert "This says nothing of latency, which could not be read." in text
    assert "latency could not be read in 100 % of the time. No series of letancy_bucket" in text


def test_one_pod_has_no_halves():
    past = scraped(stable(1), BEFORE, START + 1860)
    with pytest.raises(Unfit, match="matches only v1-0: two halves need at least two pods"):
        calibrate(past)


def test_a_stretch_with_one_pod_is_left_out_and_counted():
    pods = [Pod(name="v1-0"), Pod(name="v1-1", since=START + 1200)]
    found = calibrate(scraped(pods, BEFORE, START + 1860))
    assert found.stretches == 1
    assert [span.start for span, _ in found.left_out] == [START, START + 600]
    assert "Left out: 2 stretches; the first at" in "\n".join(report.calibration_text(found, ()))


def test_splits_of_one_stretch_count_as_one():
    found = calibrate(scraped(stable(4), BEFORE, START + 1860), splits=6)
    assert (found.stretches, len(found.trials)) == (3, 18)
    upper = binomtest(0, 3).proportion_ci(0.95).high
    assert found.share().bounds == (0, pytest.approx(upper))
    text = "\n".join(report.calibration_text(found, ["memory"]))
    assert "3 independent stretches and not 18 rollouts" in text
    assert "Left out: memory" in text


# --- statistics and options ---------------------------------------------------------------------


@pytest.mark.parametrize(("events", "trials"), [(0, 7), (3, 24), (24, 24), (1, 1000)])
def test_bounds_of_a_share_are_those_of_scipy(events, trials):
    known = binomtest(events, trials).proportion_ci(0.95, method="exact")
    assert share_bounds(events, trials, 0.05) == pytest.approx((known.low, known.high))


def test_bounds_of_a_share_widen_when_trials_count_for_fewer():
    wide, narrow = share_bounds(0.5, 10, 0.05), share_bounds(5, 100, 0.05)
    assert wide[0] < narrow[0] < 0.05 < narrow[1] < wide[1]


@pytest.mark.parametrize(
    ("events", "trials", "alpha"), [(-1, 3, 0.05), (4, 3, 0.05), (0, 0, 0.05), (1, 3, 0), (1, 3, 1)]
)
def test_impossible_counts_are_refused(events, trials, alpha):
    with pytest.raises(ValueError, match=r"cannot come of|between 0 and 1"):
        share_bounds(events, trials, alpha)


def test_how_long_it_takes_to_prove_the_promise_is_told():
    found = calibrate(scraped(stable(2), BEFORE, START + 1860))
    assert found.stretches_to_prove == 368
    upper = binomtest(0, 368).proportion_ci(0.95).high
    assert upper <= 0.01 < binomtest(0, 367).proportion_ci(0.95).high
    assert math.isclose(found.promised, 0.01)


@pytest.fixture
def manifest(tmp_path):
    file = tmp_path / "rollout.yaml"
    body = {
        "apiVersion": "modelrollout.dev/v1alpha1",
        "kind": "ModelRollout",
        "metadata": {"name": "ranker", "namespace": "shop"},
        "spec": a_spec(),
    }
    file.write_text(yaml.safe_dump(body))
    return str(file)


GIVEN = {
    "--prometheus": "http://127.0.0.1:1",
    "--stable": "v1-.*",
    "--candidate": "v2-.*",
    "--from": "2026-01-01T12:00:00Z",
    "--to": "2026-01-01T13:00:00+00:00",
}


def run(manifest, *flags, **changes):
    options = GIVEN | {f"--{name.replace('_', '-')}": each for name, each in changes.items()}
    given = [part for pair in options.items() if pair[1] is not None for part in pair]
    return CliRunner().invoke(main, ["backtest", manifest, *given, *flags])


@pytest.mark.parametrize(
    ("flags", "changes", "sentence"),
    [
        ((), {"stable": "v1-("}, "'--stable': 'v1-(' is not a regular expression"),
        ((), {"candidate": None}, "--candidate is missing: give its pods, or --aa"),
        ((), {"candidate": "v1-.*"}, "--candidate and --stable are the same"),
        ((), {"from": "2026-01-01T12:00:00"}, "'--from': '2026-01-01T12:00:00' is neither"),
        ((), {"from": "yesterday"}, "'--from': 'yesterday' is neither"),
        ((), {"from": "nan"}, "'--from': 'nan' is neither"),
        ((), {"to": "2026-01-01T12:00:00Z"}, "--to must lie at least two looks (10 s) after"),
        ((), {"to": "2126-01-01T12:00:00Z"}, "--to lies in the future"),
        ((), {"prometheus": "prometheus:9090"}, "--prometheus: The address of Prometheus must be"),
        ((), {"label": "pod-name"}, "--label 'pod-name' is not the name of a label"),
        ((), {"header": "X-Scope"}, "--header must be 'Name: value'"),
        ((), {"splits": "3"}, "--splits is for --aa"),
        ((), {"interval": "0"}, "'--interval'"),
        (
            ("--aa",),
            {"candidate": None, "interval": "60", "rollout_seconds": "100"},
            "--rollout-seconds must be at least two looks (120 s), not 100",
        ),
        (("--aa",), {}, "--candidate does not go with --aa"),
        (("--aa",), {"candidate": None, "rollout_seconds": "7200"}, "--rollout-seconds 7200 is"),
    ],
)
def test_an_option_that_cannot_be_is_named_with_the_remedy(manifest, flags, changes, sentence):
    result = run(manifest, *flags, **changes)
    assert result.exit_code == 2
    # Long sentences are broken into lines.
    assert sentence in " ".join(result.output.split())


def test_a_manifest_that_cannot_be_read_is_named(tmp_path):
    empty = tmp_path / "empty.yaml"
    empty.write_text("{}")
    result = run(str(empty))
    assert result.exit_code == 2
    assert "holds 0 ModelRollouts" in result.output


def test_halves_cannot_be_judged_by_limits_alone(tmp_path):
    file = tmp_path / "rollout.yaml"
    spec = a_spec(analysis={"guardrails": [MEMORY]})
    api_version = {"apiVersion": "modelrollout.dev/v1alpha1", "kind": "ModelRollout"}
    file.write_text(yaml.safe_dump({**api_version, "spec": spec}))
    result = run(str(file), "--aa", candidate=None)
    assert result.exit_code == 2
    assert "all of the manifest's are limits" in " ".join(result.output.split())


@pytest.mark.parametrize("flags", [(), ("--aa",)])
def test_a_prometheus_that_does_not_answer_is_exit_code_one(manifest, flags):
    result = run(manifest, *flags, candidate=None if flags else "v2-.*")
    assert result.exit_code == 1
    assert "Error: Prometheus at 127.0.0.1 cannot be reached." in result.output


def test_guardrails_that_count_at_the_gateway_need_another_label(tmp_path):
    file = tmp_path / "rollout.yaml"
    spec = a_spec(analysis={"guardrails": [{"name": "errors", "preset": "envoy/errors"}]})
    api_version = {"apiVersion": "modelrollout.dev/v1alpha1", "kind": "ModelRollout"}
    file.write_text(yaml.safe_dump({**api_version, "spec": spec}))
    assert "errors: counted at the gateway" in run(str(file)).stderr
    assert "gateway" not in run(str(file), label="envoy_cluster_name").stderr
