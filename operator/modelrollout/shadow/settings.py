"""The comparator's settings: one file, written by the operator, read once at the start."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from yarl import URL

from modelrollout.api.shadow import Shadow

Port = Annotated[int, Field(ge=1, le=65535)]


class Settings(BaseModel):
    """All of them."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel)

    namespace: str
    rollout: str
    stable: str
    """Address of stable's Service."""
    candidate: str
    stable_version: str
    candidate_version: str
    shadow: Shadow
    port: Port = 8080
    """Where mirrored requests arrive."""
    metrics_port: Port = 9090
    """Where users' requests never arrive: metrics, probes and labels."""


def read(path: Path) -> Settings:
    """Settings from a YAML or JSON file; ValueError names what is wrong and the remedy."""
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path} must map names to settings: {{rollout: ..., shadow: ...}}")
    try:
        settings = Settings.model_validate(content)
    except ValidationError as invalid:
        raise ValueError(f"{path}: {_sentence_of(invalid)}") from invalid
    for name in ("stable", "candidate"):
        _check_url(path, name, getattr(settings, name))
    return settings


def _sentence_of(invalid: ValidationError) -> str:
    first = invalid.errors()[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg']}" if where else first["msg"]


def _check_url(path: Path, name: str, text: str) -> None:
    try:
        url = URL(text)
    except ValueError:
        url = URL()
    if url.scheme not in {"http", "https"} or not url.host or url.path not in {"", "/"}:
        raise ValueError(
            f"{path}: {name} must be the address of a Service, as http://ranker-v1:8080, not {text}"
        )
