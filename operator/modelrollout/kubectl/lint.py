"""
What is wrong with a manifest, without a cluster: the rules of the API server, all at once.

The CRD is made of the operator's types, so these find what its schema would: types strictly, as
JSON has them, and each CEL rule by its twin in Python, which a test holds against the API server.
Beside that, what a schema says and the types do not: fields that do not exist, and the name's form.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from modelrollout.api import crd
from modelrollout.api import v1alpha1 as api

OBJECT_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
SHADOW_NAME = re.compile(r"[a-z]([-a-z0-9]{0,50}[a-z0-9])?")
NAME_LENGTH = 63
PYTHON = "Value error, "
Schema = Mapping[str, Any]
Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that the API server would refuse."""

    where: str
    message: str


def findings(body: Any) -> tuple[Finding, ...]:
    """All that is wrong with one ModelRollout."""
    if not isinstance(body, dict):
        return (Finding(where="", message="a manifest is a mapping of fields"),)
    whole = crd.custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    if body.get("apiVersion") != api.API_VERSION:
        said = f"it must be {api.API_VERSION}, not {body.get('apiVersion')}"
        return (Finding(where="apiVersion", message=said),)
    found = [*_of_name(body), *_unknown(body, whole, ())]
    spec = body.get("spec")
    if spec is None:
        return (*found, Finding(where="spec", message="it is missing"))
    found += _nulls(spec, ("spec",))
    found += _of_types(spec, whole["properties"]["spec"])
    return tuple(dict.fromkeys(found))


def _of_name(body: Mapping[str, Any]) -> Iterator[Finding]:
    meta = body.get("metadata")
    name = meta.get("name") if isinstance(meta, dict) else None
    where = "metadata.name"
    if not isinstance(name, str) or not name:
        yield Finding(where=where, message="a ModelRollout needs a name")
        return
    if not OBJECT_NAME.fullmatch(name):
        yield Finding(where=where, message=api_name_message())
    if len(name) > NAME_LENGTH:
        yield Finding(where=where, message=crd.NAME_FITS_A_LABEL["message"])
    spec = body.get("spec")
    if isinstance(spec, dict) and "shadow" in spec and not SHADOW_NAME.fullmatch(name):
        yield Finding(where=where, message=crd.NAME_FITS_A_SERVICE["message"])


def api_name_message() -> str:
    """As of all Kubernetes names."""
    return "a name is made of lower-case letters, digits, '-' and '.', and begins and ends with a letter or digit"


def _unknown(value: Any, schema: Schema, path: Path) -> Iterator[Finding]:
    """Fields that the API server would drop, or refuse from kubectl."""
    if isinstance(value, dict) and "properties" in schema:
        for name, inner in value.items():
            if name in schema["properties"]:
                yield from _unknown(inner, schema["properties"][name], (*path, name))
            else:
                yield Finding(where=_dotted((*path, name)), message=_no_field(name, schema))
    if isinstance(value, list) and "items" in schema:
        for index, inner in enumerate(value):
            yield from _unknown(inner, schema["items"], (*path, index))


def _no_field(name: Any, schema: Schema) -> str:
    known = sorted(schema["properties"])
    near = difflib.get_close_matches(str(name), known, n=1)
    has = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
    return f"there is no field of this name: {has}"


def _nulls(value: Any, path: Path) -> Iterator[Finding]:
    pairs = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, inner in pairs:
        if inner is None:
            yield Finding(
                where=_dotted((*path, key)), message="it has no value: give one, or leave it out"
            )
        else:
            yield from _nulls(inner, (*path, key))


def _of_types(spec: Any, schema: Schema) -> Iterator[Finding]:
    try:
        api.ModelRolloutSpec.model_validate_json(json.dumps(spec, default=str), strict=True)
    except ValidationError as invalid:
        for each in invalid.errors():
            path = tuple(each["loc"])
            yield Finding(where=_dotted(("spec", *path)), message=_said(each, _at(schema, path)))


def _at(schema: Schema, path: Sequence[str | int]) -> Schema:
    for each in path:
        inner = (
            schema.get("items") if isinstance(each, int) else schema.get("properties", {}).get(each)
        )
        schema = inner or {}
    return schema


def _said(error: ErrorDetails, schema: Schema) -> str:
    """The rule's own sentence where there is one."""
    if error["type"] == "string_pattern_mismatch" and schema.get("x-kubernetes-validations"):
        return str(schema["x-kubernetes-validations"][0]["message"])
    if error["type"] == "missing":
        return "it is missing"
    if error["type"] == "string_type":
        return f"it must be text: write '{error['input']}' in quotes"
    return error["msg"].removeprefix(PYTHON)


def _dotted(path: Sequence[str | int]) -> str:
    text = ""
    for each in path:
        text += f"[{each}]" if isinstance(each, int) else f".{each}"
    return text.removeprefix(".")
