"""
The CRD, generated from the types: `python -m modelrollout.api.crd DIR...`, or `--check DIR...`.

Pydantic's JSON Schema is not structural: references are inlined, `X or null` becomes an
optional X, and what a structural schema forbids beside `properties` is dropped. Lists that do
not say otherwise are atomic. Integers have no format, for the sake of the API server's messages
("must be of type integer", not "of type int64"). Defaults stay in the operator: a manifest in
the cluster then equals the one in Git.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel

from modelrollout.api import v1alpha1

FILE_NAME = f"{v1alpha1.GROUP}_{v1alpha1.PLURAL}.yaml"
HEADER = "# Generated from operator/modelrollout/api/v1alpha1.py by `make crds`. Do not edit.\n"
DROPPED = {"title", "default", "additionalProperties", "prefixItems"}
NAME_FITS_A_LABEL = {
    "rule": "self.metadata.name.size() <= 63",
    "message": "the name of a ModelRollout has at most 63 characters: it is a label's value on what the operator creates",
}

NAME_FITS_A_SERVICE = {
    "rule": "!has(self.spec.shadow) || self.metadata.name.matches('^[a-z]([-a-z0-9]{0,50}[a-z0-9])?$')",
    "message": "the name of a ModelRollout with shadow begins with a letter, has no dots and at most 52 characters: the comparator's Service is called after it",
}

AT_REST = "!has(oldSelf.status) || ((!has(oldSelf.status.weight) || oldSelf.status.weight.wanted == 0) && !has(oldSelf.status.mirror))"
SAME_PLACE = " && ".join(
    f"has(self.{path}) == has(oldSelf.{path}) && (!has(self.{path}) || self.{path} == oldSelf.{path})"
    for path in ("spec.traffic.gatewayAPI.route", "spec.traffic.gatewayAPI.rule")
)
ROUTE_STAYS = {
    "rule": f"{AT_REST} || ({SAME_PLACE})",
    "message": "traffic.gatewayAPI cannot name another route or rule while requests are sent to the candidate: they would be left there; abort the rollout first, or wait until it has ended",
}
"""The operator knows of no other place than the spec's; what it has moved elsewhere would stay."""

COLUMNS = (
    ("STATE", ".status.phase", "string", 0),
    ("STEP", ".status.stepText", "string", 0),
    ("WEIGHT", ".status.weight.wanted", "integer", 0),
    ("VERDICT", ".status.verdict", "string", 0),
    ("REQUESTS", ".status.requests", "integer", 0),
    ("CANDIDATE", ".spec.candidate.deployment", "string", 1),
    ("STABLE", ".status.stable.deployment", "string", 1),
    ("REASON", ".status.reason", "string", 1),
    ("AGE", ".metadata.creationTimestamp", "date", 0),
)


def custom_resource_definition() -> dict[str, Any]:
    """The whole CustomResourceDefinition as a plain dict."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{v1alpha1.PLURAL}.{v1alpha1.GROUP}"},
        "spec": {
            "group": v1alpha1.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": v1alpha1.KIND,
                "listKind": f"{v1alpha1.KIND}List",
                "plural": v1alpha1.PLURAL,
                "singular": "modelrollout",
                "shortNames": ["mro"],
                "categories": ["rollouts"],
            },
            "versions": [
                {
                    "name": v1alpha1.VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [_column(*column) for column in COLUMNS],
                    "schema": {"openAPIV3Schema": _object_schema()},
                }
            ],
        },
    }


def _column(name: str, path: str, kind: str, priority: int) -> dict[str, Any]:
    return {"name": name, "jsonPath": path, "type": kind, "priority": priority}


def _object_schema() -> dict[str, Any]:
    return {
        "type": "object",
        "description": "ModelRollout moves traffic from the stable version of a model to a candidate, step by step, and back when the evidence is against it.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {
                "type": "string",
                "description": "apiVersion is the version of the API.",
            },
            "kind": {"type": "string", "description": f"kind is {v1alpha1.KIND}."},
            "metadata": {"type": "object"},
            "spec": {
                **schema_of(v1alpha1.ModelRolloutSpec),
                "description": "spec is what you want.",
            },
            "status": {
                **schema_of(v1alpha1.ModelRolloutStatus),
                "description": "status is what the operator knows and intends.",
            },
        },
        "x-kubernetes-validations": [NAME_FITS_A_LABEL, NAME_FITS_A_SERVICE, ROUTE_STAYS],
    }


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """The structural schema of a type, with the CEL rules of every type inside it."""
    schema = model.model_json_schema(by_alias=True)
    models = {each.__name__: each for each in _models_in(model)}
    rules = {name: _cel(each) for name, each in models.items()}
    definitions = schema.pop("$defs", {})
    schema["title"] = model.__name__
    for name, node in (*definitions.items(), (model.__name__, schema)):
        for field, text in _texts(models[name]).items() if name in models else ():
            node["properties"][field] = {"description": text, **node["properties"][field]}
    structural: dict[str, Any] = _structural(schema, definitions, rules)
    return structural


def _texts(model: type[BaseModel]) -> dict[str, str]:
    """
    The docstring below each field, by the field's name in manifests.

    Pydantic could attach them to the types: every process would read its sources at its start.
    """
    found: dict[str, str] = {}
    for each in reversed(model.__mro__):
        if each.__module__.startswith(v1alpha1.__name__.rpartition(".")[0]):
            (body,) = ast.parse(inspect.getsource(each)).body
            assert isinstance(body, ast.ClassDef)
            found.update(_documented(body))
    fields = model.model_fields
    return {fields[name].alias or name: text for name, text in found.items() if name in fields}


def _documented(body: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for field, text in pairwise(body.body):
        match field, text:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(said))),
            ):
                yield name, inspect.cleandoc(said)


def _models_in(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield model
    for field in model.model_fields.values():
        for inner in _types_in(field.annotation):
            yield from _models_in(inner)


def _types_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _types_in(argument)


def _cel(model: type[BaseModel]) -> list[dict[str, str]]:
    rules = model.rules if issubclass(model, v1alpha1.ApiModel) else ()
    return [{"rule": rule.cel, "message": rule.message} for rule in rules]


def _structural(node: Any, definitions: dict[str, Any], rules: dict[str, Any]) -> Any:
    if isinstance(node, list):
        return [_structural(each, definitions, rules) for each in node]
    if not isinstance(node, dict):
        return node
    node = _flattened(node, definitions)
    result = {key: value for key, value in node.items() if key not in DROPPED}
    if "properties" in result:
        result["properties"] = {
            name: _structural(value, definitions, rules)
            for name, value in result["properties"].items()
        }
        own = rules.get(node.get("title", ""))
        if own:
            result["x-kubernetes-validations"] = own
    if "items" in result:
        result["items"] = _structural(result["items"], definitions, rules)
        result.setdefault("x-kubernetes-list-type", "atomic")
    return result


def _flattened(node: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Follow `$ref` and fold `X or null`; what stands beside them (a description) wins."""
    beside = {key: value for key, value in node.items() if key not in {"$ref", "anyOf", "title"}}
    if "anyOf" in node:
        (target,) = [each for each in node["anyOf"] if each.get("type") != "null"]
        return _flattened({**target, **beside}, definitions)
    if "$ref" in node:
        target = definitions[node["$ref"].removeprefix("#/$defs/")]
        return _flattened({**target, **beside}, definitions)
    return node


def to_yaml() -> str:
    """The file's text."""
    body = yaml.dump(custom_resource_definition(), Dumper=_Plain, sort_keys=False, width=100)
    return HEADER + body


class _Plain(yaml.SafeDumper):
    """Write repeated parts in full: anchors are hard to read in a CRD."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def main(arguments: list[str]) -> int:
    """Write the CRD into the given folders, or with --check say which of them are out of date."""
    folders = [Path(each) for each in arguments if not each.startswith("--")]
    text = to_yaml()
    files = {folder / FILE_NAME: text for folder in folders}
    return written(files, is_check="--check" in arguments)


def written(files: Mapping[Path, str], *, is_check: bool) -> int:
    """Write generated files, or only tell which of them are out of date; how many are."""
    stale = 0
    for path, text in files.items():
        if not is_check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            stale += 1
            sys.stderr.write(f"{path} is out of date: run `make crds`\n")
    return stale


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
