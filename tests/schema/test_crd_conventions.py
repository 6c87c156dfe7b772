"""The Kubernetes API conventions, by the names that the Kubernetes API linter gives its rules."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from modelrollout.api import crd, v1alpha1

Node = dict[str, Any]
DEFINITION = crd.custom_resource_definition()
(VERSION,) = DEFINITION["spec"]["versions"]
ROOT: Node = VERSION["schema"]["openAPIV3Schema"]

BOOLEANS = {
    ".spec.paused": "the conventions' own example of a switch (spec.suspend of a Job)",
    ".spec.analysis.guardrails[].required": "a third kind would be a field of its own",
    ".spec.shadow.idempotent": "a promise that the user gives in so many words; there is no third answer",
    ".status.isRevert": "it is absent or true",
    ".status.checks[].passed": "a check that has not passed is repeated: there is no third state",
}
PHASES = {".status.phase": "a column for people; programs are told to read conditions"}
NUMBERS = ".status.checkpoint[]"
"""Evidence: logarithms and times that only the operator reads back."""
ENUMS = {
    "preset": "a server and what is measured of it",
    "operator": "as PromQL writes it",
    "format": "as the protocols call themselves",
    "method": "as HTTP writes it",
    "type": "A/B is written as two capital letters",
}
SAID_WITHOUT_NAME = {".metadata": "described by Kubernetes itself"}


def nodes(node: Node = ROOT, path: str = "") -> Iterator[tuple[str, Node]]:
    yield path, node
    for name, inner in node.get("properties", {}).items():
        yield from nodes(inner, f"{path}.{name}")
    if "items" in node:
        yield from nodes(node["items"], f"{path}[]")


NODES = dict(nodes())
FIELDS = {path: node for path, node in NODES.items() if path and not path.endswith("[]")}


def name_of(path: str) -> str:
    return path.rsplit(".", maxsplit=1)[-1]


def of_type(kind: str) -> dict[str, Node]:
    return {path: node for path, node in NODES.items() if node["type"] == kind}


def test_every_node_has_a_type():
    assert {path for path, node in NODES.items() if "type" not in node} == set()


def test_field_names_are_camel_case():
    assert [path for path in FIELDS if not re.fullmatch(r"[a-z][A-Za-z0-9]*", name_of(path))] == []


def test_commentstart_a_description_begins_with_the_name_of_its_field():
    wrong = {
        path: node.get("description")
        for path, node in FIELDS.items()
        if path not in SAID_WITHOUT_NAME
        and not re.match(rf"{name_of(path)}\b[ :]", node.get("description", ""))
    }

    assert wrong == {}


def test_descriptions_are_sentences():
    wrong = [
        path for path, node in FIELDS.items() if not node.get("description", "x.").endswith(".")
    ]

    assert wrong == []


def test_nofloats_outside_of_the_checkpoint_there_are_no_floats():
    assert [path for path in of_type("number") if not path.startswith(NUMBERS)] == []


def test_integers_of_the_spec_are_bounded_on_both_sides():
    wrong = [
        path
        for path, node in of_type("integer").items()
        if path.startswith(".spec") and not {"minimum", "maximum"} <= node.keys()
    ]

    assert wrong == []


def test_nodurations_durations_are_integers_whose_names_end_in_seconds():
    timelike = re.compile(
        r"(duration|interval|timeout|period|delay|minutes|hours|days)$", re.IGNORECASE
    )
    seconds = [path for path in FIELDS if name_of(path).lower().endswith("seconds")]
    # A confidence interval, with a lower and an upper bound.
    timelike_fields = [
        path
        for path, node in FIELDS.items()
        if timelike.search(name_of(path)) and "lower" not in node.get("properties", {})
    ]

    assert timelike_fields == []
    assert [path for path in seconds if NODES[path]["type"] != "integer"] == []
    assert [path for path, node in NODES.items() if node.get("format") == "duration"] == []


def test_notimestamp_moments_are_called_time_and_have_the_format_of_one():
    named = {path for path in FIELDS if name_of(path).lower().endswith("time")}
    formatted = {path for path, node in NODES.items() if node.get("format") == "date-time"}

    assert named == formatted
    assert [path for path in FIELDS if "timestamp" in path.lower()] == []


def test_nobools_booleans_are_exceptions_with_a_reason():
    assert set(of_type("boolean")) == set(BOOLEANS)


def test_nophase_phases_are_exceptions_with_a_reason():
    assert {path for path in FIELDS if name_of(path) in {"phase", "state"}} == set(PHASES)


def test_nomaps_nothing_is_a_map_or_free_form():
    loose = {
        "additionalProperties",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-int-or-string",
    }

    assert [path for path, node in NODES.items() if loose & node.keys()] == []
    assert [path for path, node in of_type("object").items() if not node.get("properties")] == [
        ".metadata"
    ]


def test_maxlength_strings_are_bounded():
    wrong = [
        path
        for path, node in of_type("string").items()
        if path not in {".apiVersion", ".kind"} and not {"maxLength", "enum"} & node.keys()
    ]

    assert wrong == []


def test_maxlength_lists_are_bounded():
    assert [path for path, node in of_type("array").items() if "maxItems" not in node] == []


def test_ssatags_every_list_says_how_it_is_merged():
    kinds = {"atomic", "map", "set"}

    assert [
        path
        for path, node in of_type("array").items()
        if node.get("x-kubernetes-list-type") not in kinds
    ] == []


def test_ssatags_the_keys_of_a_map_are_required_strings():
    for path, node in of_type("array").items():
        if node["x-kubernetes-list-type"] == "map":
            keys = set(node["x-kubernetes-list-map-keys"])

            assert keys <= set(node["items"]["required"]), path
            assert {node["items"]["properties"][key]["type"] for key in keys} == {"string"}, path


def test_optionalorrequired_nothing_is_nullable_or_defaulted():
    assert [path for path, node in NODES.items() if {"nullable", "default"} & node.keys()] == []


def test_required_fields_exist():
    for path, node in NODES.items():
        assert set(node.get("required", ())) <= set(node.get("properties", {})), path


def test_statussubresource_status_is_written_apart_from_the_spec():
    assert VERSION["subresources"] == {"status": {}}


def test_statusoptional_an_empty_status_is_valid():
    assert "required" not in NODES[".status"]
    assert ROOT["required"] == ["spec"]


def test_conditions_are_those_of_kubernetes():
    conditions = NODES[".status.conditions"]

    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]
    assert set(conditions["items"]["properties"]) == {
        "type",
        "status",
        "observedGeneration",
        "lastTransitionTime",
        "reason",
        "message",
    }
    assert NODES[".status.conditions[].status"]["enum"] == ["True", "False", "Unknown"]


def test_values_of_enums_are_camel_case():
    wrong = {
        path: node["enum"]
        for path, node in NODES.items()
        if name_of(path) not in ENUMS
        and not all(re.fullmatch(r"([A-Z][a-z]+)+", each) for each in node.get("enum", ()))
    }

    assert wrong == {}


def test_patterns_are_anchored_and_said_in_words():
    for path, node in NODES.items():
        if "pattern" in node:
            rules = [each["rule"] for each in node["x-kubernetes-validations"]]

            assert node["pattern"].startswith("^"), path
            assert node["pattern"].endswith("$"), path
            assert rules == [f"self.matches(r'{node['pattern']}')"], path


def test_messages_of_rules_speak_to_people():
    messages = {
        rule["message"]
        for node in NODES.values()
        for rule in node.get("x-kubernetes-validations", ())
    }

    assert [each for each in messages if re.search(r"self|has\(|&&|\n", each)] == []
    assert [each for each in messages if len(each.split()) < 4 or each.endswith(".")] == []


def test_every_rule_of_the_types_is_in_the_schema():
    found = {
        (rule["rule"], rule["message"])
        for node in NODES.values()
        for rule in node.get("x-kubernetes-validations", ())
    }
    want = {
        (rule.cel, rule.message)
        for each in vars(v1alpha1).values()
        if isinstance(each, type) and issubclass(each, v1alpha1.ApiModel)
        for rule in each.rules
    }

    assert want <= found


COLUMNS = [
    each
    for each in VERSION["additionalPrinterColumns"]
    if not each["jsonPath"].startswith(".metadata")
]


@pytest.mark.parametrize("column", COLUMNS, ids=lambda it: it["name"])
def test_a_column_shows_a_field_of_its_type(column):
    assert column["type"] == NODES[column["jsonPath"]]["type"]
