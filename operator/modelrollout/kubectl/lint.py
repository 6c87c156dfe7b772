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
    spec = _without_nulls(body.get("spec"))
    if spec is None:
        return (*found, Finding(where="spec", message="it is missing"))
    found += _of_types(spec, whole["properties"]["spec"])
    return tuple(dict.fromkeys(found))


def spec_of(body: Mapping[str, Any]) -> api.ModelRolloutSpec:
    """Of one with which nothing is wrong."""
    return api.ModelRolloutSpec.model_validate(_without_nulls(body["spec"]))


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


def _without_nulls(value: Any) -> Any:
    """A field without a value is no field to the API server."""
    if isinstance(value, dict):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    return [_without_nulls(each) for each in value] if isinstance(value, list) else value


def _of_types(spec: Any, schema: Schema) -> Iterator[Finding]:
    try:
        api.ModelRolloutSpec.model_validate_json(json.dumps(spec, default=str), strict=True)
    except ValidationError as invalid:
        paths = [tuple(each["loc"]) for each in invalid.errors()]
        for path, each in zip(paths, invalid.errors(), strict=True):
            # A list without what is wrong in it is too short, says pydantic: that is no news.
            is_echo = any(other[: len(path)] == path and other != path for other in paths)
            if not is_echo:
                yield Finding(
                    where=_dotted(("spec", *path)), message=_said(each, _at(schema, path))
                )


def _at(schema: Schema, path: Sequence[str | int]) -> Schema:
    for each in path:
        is_index = isinstance(each, int)
        inner = schema.get("items") if is_index else schema.get("properties", {}).get(each)
        schema = inner or {}
    return schema


SAID = {
    "missing": "it is missing",
    "int_type": "it must be a whole number without quotes, not {input!r}",
    "int_from_float": "it must be a whole number, not {input!r}",
    "bool_type": "it must be true or false without quotes, not {input!r}",
    "string_type": "it must be text: write '{input}' in quotes",
    "greater_than_equal": "it must be at least {ge}, not {input}",
    "less_than_equal": "it must be at most {le}, not {input}",
    "too_short": "it must have at least {min_length}",
    "too_long": "it must have at most {max_length}, not {actual_length}",
    "string_too_short": "it must not be empty",
    "string_too_long": "it must have at most {max_length} characters",
    "enum": "it must be {expected}, not {input!r}",
    "model_type": "it must have fields of its own, not {input!r}",
    "tuple_type": "it must be a list, not {input!r}",
}
"""By pydantic's type of error, where its own words are for programmers."""


def _said(error: ErrorDetails, schema: Schema) -> str:
    """The rule's own sentence where there is one."""
    kind, rules = error["type"], schema.get("x-kubernetes-validations")
    if kind == "string_pattern_mismatch" and rules:
        return str(rules[0]["message"])
    if kind in SAID:
        return SAID[kind].format(input=error["input"], **error.get("ctx", {}))
    return error["msg"].removeprefix(PYTHON)


def _dotted(path: Sequence[str | int]) -> str:
    text = ""
    for each in path:
        text += f"[{each}]" if isinstance(each, int) else f".{each}"
    return text.removeprefix(".")
