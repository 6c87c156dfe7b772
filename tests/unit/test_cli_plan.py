"""The plan of a manifest: its figures, its picture, and what it asks for."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from matplotlib.image import imread

from builders import a_spec
from modelrollout.api.v1alpha1 import Gate, Strategy
from modelrollout.cli import main, picture
from modelrollout.core import forecast
from modelrollout.core.forecast import Comparison, Pods
from modelrollout.core.steps import Step, StepKind, steps_of
from modelrollout.stats.bounds import Bound

PAGE = Path(__file__).parents[2] / "docs" / "planning.md"
COUNTERS = {"events": {"metric": "bad_total"}, "total": {"metric": "all_total"}}
ERRORS = {
    "name": "errors",
    "proportion": COUNTERS,
    "tolerance": {"ratio": "1.5", "absolute": "0.001"},
    "margin": {"ratio": "2", "absolute": "0.005"},
}
LATENCY = {"name": "latency", "distribution": {"histogram": {"metric": "seconds"}}}
RESTARTS = {"name": "restarts", "rate": {"events": {"metric": "restarts_total"}}}
SCORE = {"name": "score", "mean": {"sum": {"metric": "sum"}, "count": {"metric": "count"}}}
LOAD = {"name": "load", "limit": {"query": 'up{namespace="shop"}', "max": "1"}}
STEPS = [{"weight": 5, "gate": "NoHarm"}, {"pauseSeconds": 60}, {"weight": 50, "maxSeconds": 600}]


@pytest.fixture
def manifest(tmp_path):
    def write(*guardrails, **strategy):
        analysis = {"guardrails": list(guardrails)}
        body = {
            "apiVersion": "modelrollout.dev/v1alpha1",
            "kind": "ModelRollout",
            "metadata": {"name": "ranker", "namespace": "shop"},
            "spec": a_spec(analysis=analysis, strategy=strategy),
        }
        path = tmp_path / "rollout.yaml"
        path.write_text(yaml.safe_dump(body))
        return str(path)

    return write


def plan(path, *options, traffic="100"):
    return CliRunner().invoke(main, ["plan", path, "--requests-per-second", traffic, *options])


def as_json(path, *options, traffic="100"):
    done = plan(path, *options, "--json", traffic=traffic)
    assert done.exit_code == 0, done.output
    return json.loads(done.output)


# --- figures --------------------------------------------------------------------------------------


A_COMPARISON = Comparison(
    name="errors",
    tolerance=Bound(1.5, 0.001),
    margin=Bound(2, 0.005),
    stable_rate=0.01,
    alpha=0.01,
    beta=0.05,
)


def test_the_figures_are_those_of_the_forecast(manifest):
    found = as_json(manifest(ERRORS, steps=STEPS), "--base-rate", "errors=0.01")
    first = Step(
        kind=StepKind.WEIGHT, weight=5, max_seconds=3600, min_requests=100, gate=Gate.NO_HARM
    )
    (expected,) = forecast.forecasts(A_COMPARISON, [first], 100.0)
    (guardrail,) = found["guardrails"]
    step = guardrail["steps"][0]
    assert step["neededRequests"] == pytest.approx(expected.needed_requests)
    assert step["neededSeconds"] == pytest.approx(expected.needed_seconds)
    assert step["limitRequests"] == pytest.approx(expected.limit_requests)
    assert step["visibleRate"] == pytest.approx(expected.visible_rate)
    assert step["requests"] == 18_000
    assert step["message"] == forecast.sentence(A_COMPARISON, expected)
    assert [(each["step"], each["weight"], each["gate"]) for each in guardrail["steps"]] == [
        (1, 5, "NoHarm"),
        (3, 50, "Pass"),
    ]


def test_the_table_has_a_line_for_each_step_of_each_guardrail(manifest):
    done = plan(manifest(ERRORS, LATENCY), "--base-rate", "errors=0.01")
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[0] == (
        "shop/ranker: 100 requests per second, falseRollbackRate 1 %, falsePromoteRate 5 %"
    )
    headings = [line.partition(":")[0] for line in lines if ": stable" in line]
    assert headings == [
        *("errors", "latency beyond p50", "latency beyond p90", "latency beyond p99")
    ]
    weights = [re.findall(r"^ +(\d) +(\d+ %) ", line) for line in lines]
    assert [each[0] for each in weights if each] == [
        *(("1", "1 %"), ("2", "5 %"), ("3", "20 %"), ("4", "50 %"))
    ] * 4
    assert "for all 2 required guardrails together (90 % for each)" in done.output
    assert lines[-1] == "All steps can decide in time."


def test_the_page_shows_what_is_printed(manifest):
    done = plan(manifest(ERRORS), "--base-rate", "errors=0.01", traffic="20")
    assert done.output in PAGE.read_text()


def test_a_step_without_enough_traffic_is_told_with_what_would_do(manifest):
    found = as_json(manifest(ERRORS), "--base-rate", "errors=0.01", traffic="20")
    first, *others = found["guardrails"][0]["steps"]
    assert not found["inTime"]
    assert not first["inTime"]
    assert all(each["inTime"] and each["remedy"] is None for each in others)
    remedy = first["remedy"]
    assert remedy["weight"] == 2
    assert remedy["maxSeconds"] > 3600
    assert remedy["margin"]["absolute"] > 0.005
    text = plan(manifest(ERRORS), "--base-rate", "errors=0.01", traffic="20").output
    assert f"Not in time: {first['message']}." in text
    assert "All steps" not in text


def test_what_no_number_proves_is_null_in_json_and_said_in_the_table(manifest):
    ratio = ERRORS | {"tolerance": {"ratio": "1.5"}, "margin": {"ratio": "2"}}
    found = as_json(manifest(ratio), "--base-rate", "errors=0")
    assert found["guardrails"][0]["steps"][0]["neededRequests"] is None
    text = plan(manifest(ratio), "--base-rate", "errors=0").output
    assert re.search(r"infinite +never", text)


def test_all_kinds_are_planned_or_told_why_not(manifest):
    optional = ERRORS | {"name": "optional", "required": False}
    path = manifest(ERRORS, optional, RESTARTS, SCORE, LOAD)
    rates = ["--base-rate", "errors=0.01", "--base-rate", "optional=0.01"]
    options = [*rates, "--base-rate", "restarts=0.0001", "--pods", "10", "2"]
    found = as_json(path, *options)
    assert [each["name"] for each in found["guardrails"]] == ["errors", "optional", "restarts"]
    assert found["guardrails"][2]["steps"][0]["requests"] == 2 * 3600
    assert found["notPlanned"].keys() == {"load", "score"}
    text = plan(path, *options).output
    assert "optional (not required): stable 1 %" in text
    assert "restarts: stable 0.0001/s, tolerance 1.5 x stable, margin 2 x stable" in text
    assert "Not planned: load, because a limit is a plain threshold" in text


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "stable's rate of errors is not known: give --base-rate errors=RATE"),
        (["--base-rate", "errors=1%"], "--base-rate errors=1%: give NAME=RATE with a rate from 0"),
        (["--base-rate", "errors"], "--base-rate errors: give NAME=RATE"),
        (["--base-rate", "errors=1.5"], "--base-rate errors=1.5: give NAME=RATE"),
        (["--base-rate", "errors=nan"], "--base-rate errors=nan: give NAME=RATE"),
        (
            ["--base-rate", "errors=0.1", "--base-rate", "errors=0.2"],
            "--base-rate errors is given twice",
        ),
        (
            ["--base-rate", "typo=0.1"],
            "--base-rate typo: no guardrail of this name has one (those that do: errors, restarts)",
        ),
        (
            ["--base-rate", "latency=0.1"],
            "it is compared where 50 %, 10 % and 1 % of stable's answers are slower; leave it out",
        ),
        (["--base-rate", "errors=0.1"], "stable's rate of restarts is not known"),
        (
            ["--base-rate", "errors=0.1", "--base-rate", "restarts=0.1"],
            "restarts counts events over time: give --pods, for example --pods 10 1",
        ),
        (["--picture", "plan.pdf"], "--picture must end with .png or .svg, not plan.pdf"),
    ],
)
def test_a_bad_option_is_named_with_the_remedy(manifest, options, message):
    done = plan(manifest(ERRORS, LATENCY, RESTARTS), *options)
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())


@pytest.mark.parametrize("traffic", ["0", "-1", "nan", "inf"])
def test_traffic_must_be_a_number_above_0(manifest, traffic):
    done = plan(manifest(LATENCY), traffic=traffic)
    assert done.exit_code == 2
    assert "--requests-per-second must be a number above 0" in done.output


def test_a_bad_manifest_is_told_which_field_is_wrong(manifest):
    done = plan(manifest(ERRORS | {"margin": {"ratio": "1.2"}}), "--base-rate", "errors=0.01")
    assert done.exit_code == 2
    assert "margin must not be below tolerance" in " ".join(done.output.split())


# --- the picture ----------------------------------------------------------------------------------


def lines_of(panel):
    return [line for line in panel.get_lines() if str(line.get_label()).startswith("step")]


def test_a_panel_has_a_line_for_each_step_that_rises_beyond_the_tolerance():
    (panel,) = picture.figure_of([A_COMPARISON], steps_of(Strategy()), 20.0).axes
    lines = lines_of(panel)
    assert [line.get_label() for line in lines] == [
        "step 1, 1 %: 720 requests",
        "step 2, 5 %: 3,600 requests",
        "step 3, 20 %: 14,400 requests",
        "step 4, 50 %: 36,000 requests",
    ]
    for line in lines:
        rates, chances = line.get_data()
        assert rates[0] == pytest.approx(0.016, rel=1e-3)
        assert chances[0] < 0.01
        assert chances[-1] > 0.8
        assert all(low <= high + 1e-3 for low, high in pairwise(chances))
    assert "%" in panel.get_xlabel()
    assert "%" in panel.get_ylabel()
    labels = [each.get_text() for each in panel.get_legend().get_texts()]
    assert labels[-1] == "tolerated: up to 1.5 x stable + 0.1 %"


def test_worse_is_to_the_right_when_lower_is_worse():
    accuracy = replace(
        A_COMPARISON, tolerance=Bound(1, 0.01), stable_rate=0.95, lower_is_worse=True
    )
    (panel,) = picture.figure_of([accuracy], steps_of(Strategy()), 20.0).axes
    left, right = panel.get_xlim()
    assert left == 0.95
    assert right < 0.94
    assert all(line.get_xdata()[0] > line.get_xdata()[-1] for line in lines_of(panel))


def test_each_comparison_has_its_panel_and_no_other_is_seen():
    names = ("one", "two", "three")
    figure = picture.figure_of(
        [replace(A_COMPARISON, name=each) for each in names], steps_of(Strategy()), 20.0
    )
    shown = [panel for panel in figure.axes if panel.axison]
    assert [panel.get_title() for panel in shown] == [f"{each}: stable 1 %" for each in names]


@pytest.mark.parametrize(
    "comparison",
    [
        replace(A_COMPARISON, stable_rate=0.0),
        replace(A_COMPARISON, stable_rate=1e-6, pods=Pods(stable=1, candidate=1)),
        replace(A_COMPARISON, tail=0.5, stable_rate=0.5),
        replace(A_COMPARISON, stable_rate=0.5, tolerance=Bound(1.9), lower_is_worse=True),
    ],
)
@pytest.mark.parametrize("traffic", [0.01, 1e5])
def test_any_comparison_can_be_drawn_at_any_traffic(comparison, traffic, tmp_path):
    picture.draw([comparison], steps_of(Strategy()), traffic, tmp_path / "plan.png")
    assert imread(tmp_path / "plan.png").shape[2] == 4


def test_where_no_rate_is_worse_than_the_tolerance_the_panel_says_so():
    all_bad = replace(A_COMPARISON, stable_rate=0.9)
    (panel,) = picture.figure_of([all_bad], steps_of(Strategy()), 20.0).axes
    assert [each.get_text() for each in panel.texts] == ["no rate is worse than the tolerance"]


def test_a_png_is_not_blank(manifest, tmp_path):
    path = tmp_path / "plan.png"
    done = plan(manifest(ERRORS), "--base-rate", "errors=0.01", "--picture", str(path))
    assert done.exit_code == 0, done.output
    pixels = imread(path)
    assert pixels.shape[0] > 500
    assert pixels.shape[1] > 700
    colours = {tuple(each) for row in pixels[::3, ::3, :3] for each in row.round(1)}
    assert len(colours) > 20


def test_an_svg_has_its_words_as_text_and_is_the_same_each_time(manifest, tmp_path):
    written = []
    for name in ("one.svg", "two.svg"):
        options = ["--base-rate", "errors=0.01", "--picture", str(tmp_path / name)]
        assert plan(manifest(ERRORS), *options, traffic="20").exit_code == 0
        written.append((tmp_path / name).read_text())
    assert written[0] == written[1]
    for words in ("step 2, 5 %: 3,600 requests", "chance to detect by the deadline (%)"):
        assert words in written[0]


def test_a_picture_that_cannot_be_written_is_told(manifest, tmp_path):
    path = tmp_path / "absent" / "plan.png"
    done = plan(manifest(ERRORS), "--base-rate", "errors=0.01", "--picture", str(path))
    assert done.exit_code == 2
    assert "--picture cannot be written" in done.output


def test_without_anything_to_plan_there_is_no_picture(manifest):
    done = plan(manifest(SCORE), "--picture", "plan.png")
    assert done.exit_code == 2
    assert "no guardrail can be planned" in done.output


def in_new_python(program, *arguments):
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False
    )


START = "import sys; from modelrollout.cli import main; "
RUN = "main(sys.argv[1:], standalone_mode=False); "


def test_matplotlib_is_imported_for_a_picture_only(manifest):
    program = START + RUN + "print('matplotlib' in sys.modules)"
    done = in_new_python(program, "plan", manifest(LATENCY), "--requests-per-second", "100")
    assert done.stdout.splitlines()[-1] == "False", done.stderr


def test_without_matplotlib_the_remedy_is_named(manifest):
    program = START + "sys.modules['matplotlib'] = None; main()"
    done = in_new_python(
        program,
        *("plan", manifest(LATENCY), "--requests-per-second", "100", "--picture", "plan.png"),
    )
    assert done.returncode == 2
    assert "--picture needs matplotlib: install modelrollout-operator[pictures]" in done.stderr
