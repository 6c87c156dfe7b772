"""Manifests from files, checked by the rules of the API server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import yaml
from pydantic import ValidationError

from modelrollout.api import v1alpha1 as api


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A ModelRollout as a file has it."""

    name: str
    namespace: str
    spec: api.ModelRolloutSpec
    body: dict[str, Any]
    """As written."""


def documents(path: Path) -> list[Any]:
    """The YAML (or JSON) documents of a file; UsageError where it is none."""
    try:
        return [each for each in yaml.safe_load_all(path.read_text()) if each is not None]
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise click.UsageError(f"{path} cannot be read: {error}") from error


def manifest(path: Path) -> Manifest:
    """The one ModelRollout in a file; UsageError names the field that is wrong, and the remedy."""
    found = [
        each for each in documents(path) if isinstance(each, dict) and each.get("kind") == api.KIND
    ]
    if len(found) != 1:
        raise click.UsageError(f"{path} holds {len(found)} ModelRollouts: give a file with one")
    body = found[0]
    if body.get("apiVersion") != api.API_VERSION:
        raise click.UsageError(f"{path}: apiVersion must be {api.API_VERSION}")
    try:
        spec = api.ModelRolloutSpec.model_validate(body.get("spec") or {})
    except ValidationError as invalid:
        raise click.UsageError(f"{path}: {api.sentence_of(invalid)}") from invalid
    meta = body.get("metadata") or {}
    return Manifest(
        name=meta.get("name", "rollout"),
        namespace=meta.get("namespace", "default"),
        spec=spec,
        body=body,
    )
