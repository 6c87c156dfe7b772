"""What `lint` says without a cluster. tests/schema holds the same manifests against the API server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from builders import a_spec
from modelrollout.cli import main
from modelrollout.kubectl.lint import findings

EXAMPLES = Path(__file__).parents[2] / "examples"


def manifest(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "modelrollout.dev/v1alpha1",
        "kind": "ModelRollout",
        "metadata": {"name": "ranker"},
        "spec": a_spec(**spec),
    }


def said(body: Any) -> list[str]:
    return [f"{each.where}: {each.message}" for each in findings(body)]


def lint(tmp_path: Path, body: Any, *options: str) -> Result:
    path = tmp_path / "rollout.yaml"
    path.write_text(body if isinstance(body, str) else yaml.safe_dump(body))
    return CliRunner().invoke(main, ["lint", str(path), *options], catch_exceptions=False)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda it: it.name)
def test_the_examples_are_right(path):
    found = [e for e in yaml.safe_load_all(path.read_text()) if e.get("kind") == "ModelRollout"]

    assert [said(each) for each in found] == [[]] * len(found)


def test_everything_that_is_wrong_is_said_at_once_with_its_place():
    body = manifest(
        port="8080",
        candidate={"deploiment": "ranker-v2"},
        strategy={"steps": [{"weight": 20}, {"weight": 101}]},
    )

    assert said(body) == [
        "spec.candidate.deploiment: there is no field of this name: did you mean deployment?",
        "spec.candidate.deployment: it is missing",
        "spec.port: it must be a whole number without quotes, not '8080'",
        "spec.strategy.steps[1].weight: it must be at most 100, not 101",
    ]


def test_a_number_without_quotes_names_the_remedy():
    guardrail = {"name": "errors", "preset": "envoy/errors", "margin": {"ratio": 2}}

    assert said(manifest(analysis={"guardrails": [guardrail]})) == [
        "spec.analysis.guardrails[0].margin.ratio: it must be text: write '2' in quotes"
    ]


def test_a_field_without_a_value_is_no_field_as_for_the_api_server():
    assert (
        said(manifest(strategy={"warmupSeconds": None, "steps": [{"weight": 5, "gate": None}]}))
        == []
    )
    assert said(manifest(port=None)) == ["spec.port: it is missing"]


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ([], ""),
        ({"kind": "ModelRollout"}, "apiVersion"),
        (manifest() | {"spec": None}, "spec"),
        (manifest() | {"spec": "x"}, "spec"),
        (manifest() | {"metadata": None}, "metadata.name"),
        (manifest() | {"metadata": {"name": "Ranker"}}, "metadata.name"),
        (manifest() | {"metadata": {"name": "r" * 64}}, "metadata.name"),
        (manifest() | {"metadata": {"name": 7}}, "metadata.name"),
        (manifest() | {"extra": 1}, "extra"),
    ],
)
def test_what_is_no_manifest_at_all_is_said_in_a_sentence(body, where):
    assert [each.where for each in findings(body)] == [where]


def test_an_error_ends_with_code_1_and_what_is_right_with_0(tmp_path):
    wrong, right = lint(tmp_path, manifest(port=0)), lint(tmp_path, manifest())

    assert wrong.exit_code == 1
    assert "error: spec.port: it must be at least 1, not 0" in wrong.output
    assert right.exit_code == 0
    assert "1 checked offline" in right.output


def test_a_file_that_is_none_is_one_sentence(tmp_path):
    for text, says in (("a: [", "cannot be read"), ("kind: Service", "no ModelRollout")):
        found = lint(tmp_path, text)
        assert found.exit_code == 1
        assert says in found.output
        assert found.output.count("\n") == 1


def test_the_standard_input_and_lists_are_read():
    listed = {"apiVersion": "v1", "kind": "List", "items": [manifest(), manifest(port=0)]}
    found = CliRunner().invoke(main, ["lint", "-"], input=json.dumps(listed))

    assert (
        "2 checked offline, by the types and rules that the CRD is made of: 1 wrong" in found.output
    )


def test_too_little_traffic_for_the_margin_is_a_hint_with_the_remedy(tmp_path):
    guardrail = {"name": "errors", "preset": "envoy/errors", "margin": {"ratio": "2"}}
    body = manifest(analysis={"guardrails": [guardrail]}, strategy={"steps": [{"weight": 1}]})

    little = lint(tmp_path, body, "--requests-per-second", "1")
    plenty = lint(tmp_path, body, "--requests-per-second", "10000")

    assert little.exit_code == 0
    assert "hint: not in time: errors" in little.output
    assert "--base-rate errors=RATE" in little.output
    assert "not in time" not in plenty.output


def test_a_latency_preset_says_that_it_gives_no_p99(tmp_path):
    latency = {"name": "latency", "preset": "envoy/latency"}
    p99 = {"name": "p99", "distribution": {"histogram": {"metric": "seconds"}, "quantile": "0.99"}}

    alone = lint(tmp_path, manifest(analysis={"guardrails": [latency]}))
    both = lint(tmp_path, manifest(analysis={"guardrails": [latency, p99]}))

    assert "gives no p99" in alone.output
    assert "gives no p99" not in both.output
    assert "of a p99 that is 0.1 answers" in both.output
