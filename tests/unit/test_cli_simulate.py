"""The command line of the simulation: figures for programs and people, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from builders import a_spec
from modelrollout.cli import main

EXAMPLES = Path(__file__).parents[2] / "examples"
VERSION = {"errorRate": 0.01}
WORLD = {"requestsPerSecond": 200, "stable": VERSION, "candidate": VERSION}
ERRORS = {"name": "errors", "preset": "envoy/errors"}


@pytest.fixture
def files(tmp_path):
    def write(world=None, guardrails=(ERRORS,), **spec):
        body = {
            "apiVersion": "modelrollout.dev/v1alpha1",
            "kind": "ModelRollout",
            "metadata": {"name": "ranker", "namespace": "shop"},
            "spec": a_spec(analysis={"guardrails": list(guardrails)}, **spec),
        }
        paths = tmp_path / "rollout.yaml", tmp_path / "world.yaml"
        for path, content in zip(paths, (body, WORLD | (world or {})), strict=True):
            path.write_text(yaml.safe_dump(content))
        return [str(paths[0]), "--world", str(paths[1])]

    return write


def simulate(*arguments):
    return CliRunner().invoke(main, ["simulate", *arguments])


def figures(*arguments):
    done = simulate(*arguments, "--json", "--jobs", "1")
    assert done.exit_code == 0, done.output
    return json.loads(done.output)


def test_equal_versions_are_promoted(files):
    found = figures(*files(), "--runs", "6")
    assert (found["runs"], found["promoted"], found["rolledBack"], found["inconclusive"]) == (
        6,
        6,
        0,
        0,
    )
    assert found["reasons"] == {"Promoted": 6}
    assert found["limitDecision"] == "promoted"


def test_a_bad_candidate_is_rolled_back(files):
    found = figures(*files({"candidate": {"errorRate": 0.2}}), "--runs", "6")
    assert found["rolledBack"] == 6
    assert found["reasons"] == {"GuardrailBreached: errors": 6}
    assert (found["limitDecision"], found["limitGuardrail"]) == ("rolledBack", "errors")
    requests = found["candidateRequests"]
    assert 0 < requests["p5"] <= requests["p50"] <= requests["p95"]
    assert 0.1 < found["badRequests"]["p50"] / requests["p50"] < 0.4
    assert found["ratioToLimit"] == pytest.approx(
        requests["p50"] / found["limitRequests"], rel=0.01
    )


def test_without_traffic_nothing_is_decided(files):
    steps = {"steps": [{"weight": 10, "maxSeconds": 60}], "bake": {"seconds": 10}}
    found = figures(*files({"requestsPerSecond": 0}, strategy=steps), "--runs", "2")
    assert found["inconclusive"] == 2
    assert found["reasons"] == {"NoData: errors": 2}
    assert found["candidateRequests"] == {"p5": 0, "p50": 0, "p95": 0}


def test_all_documented_keys_are_there(files):
    assert list(figures(*files(), "--runs", "1")) == [
        *("name", "namespace", "seed", "runs", "promoted", "rolledBack", "inconclusive"),
        *("decisionSeconds", "rolloutSeconds", "candidateRequests", "badRequests"),
        *("limitRequests", "limitGuardrail", "limitDecision", "ratioToLimit", "reasons"),
    ]


def test_the_seed_decides_and_the_number_of_processes_does_not(files):
    given = [*files(), "--runs", "3"]
    one, two = (simulate(*given, "--json", "--jobs", str(jobs)).output for jobs in (1, 2))
    assert one == two
    assert figures(*given) == json.loads(one)
    assert figures(*given, "--seed", "1")["rolloutSeconds"] != json.loads(one)["rolloutSeconds"]


def test_the_table_ends_with_what_it_means(files):
    done = simulate(*files({"candidate": {"errorRate": 0.2}}), "--runs", "4", "--jobs", "1")
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert lines[0] == "shop/ranker: 4 simulated rollouts, seed 0"
    assert [line.split("  ")[0] for line in lines[2:5]] == [
        "promoted",
        "rolled back",
        "inconclusive",
    ]
    assert "     4 x GuardrailBreached: errors" in lines
    assert lines[-1].startswith(
        "In this world 100.0 % of the rollouts are rolled back, in the median"
    )


def test_the_managed_route_and_a_named_rule_are_simulated(files):
    for route in ({"gateway": {"name": "edge"}}, {"route": "ranker", "rule": "infer"}):
        assert figures(*files(traffic={"gatewayAPI": route}), "--runs", "1")["promoted"] == 1


def test_the_example_is_rolled_back():
    paths = [str(EXAMPLES / "ROLLOUT.yaml"), "--world", str(EXAMPLES / "WORLD.yaml")]
    assert figures(*paths, "--runs", "2")["rolledBack"] == 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"world": {"stable": {"errorRate": 2}}}, "world.yaml: stable.errorRate: must be less than or equal to 1, not 2"),
        ({"world": {"rps": 2}}, "world.yaml: rps is no field of a world: there are requestsPerSecond,"),
        ({"guardrails": [{"name": "latency", "preset": "envoy/latency"}]}, "guardrail latency: the world has no latency of the stable: give stable.latency"),
        ({"paused": True}, "spec.paused is true: nothing would happen; set it to false"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_by_file_field_and_remedy(files, changes, said):
    done = simulate(*files(**changes))
    assert done.exit_code == 2
    assert said in done.output


def test_a_file_with_two_worlds_is_refused(files, tmp_path):
    given = files()
    (tmp_path / "world.yaml").write_text("a: 1\n---\nb: 2\n")
    assert "holds 2 documents: give a file with one world" in simulate(*given).output
