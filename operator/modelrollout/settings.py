"""The administrator's settings: environment and a file of providers, read once at start."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """A Prometheus. Only the administrator says where: no namespaced object holds a URL."""

    url: str
    bearer_token_file: str | None = None
    ca_file: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_seconds: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All of them. Nothing else reads the environment."""

    providers: Mapping[str, Provider]
    namespaces: tuple[str, ...]
    """Empty: the whole cluster."""
    lease_name: str
    lease_namespace: str
    identity: str
    port: int
    workers: int
    sweep_seconds: float


def from_environment(environment: Mapping[str, str] = os.environ) -> Settings:
    """Settings from MODELROLLOUT_* variables; ValueError names what is wrong and the remedy."""

    def get(name: str, default: str) -> str:
        return environment.get(f"MODELROLLOUT_{name}", default)

    return Settings(
        providers=_providers(Path(get("PROVIDERS", "/etc/modelrollout/providers.yaml"))),
        namespaces=tuple(each.strip() for each in get("NAMESPACES", "").split(",") if each.strip()),
        lease_name=get("LEASE_NAME", "modelrollout-operator"),
        lease_namespace=get("LEASE_NAMESPACE", "modelrollout-system"),
        identity=get("IDENTITY", socket.gethostname()),
        port=_positive("PORT", get("PORT", "8080")),
        workers=_positive("WORKERS", get("WORKERS", "16")),
        sweep_seconds=_positive("SWEEP_SECONDS", get("SWEEP_SECONDS", "300")),
    )


def _positive(name: str, text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise ValueError(f"MODELROLLOUT_{name} must be a whole number above 0, not {text!r}")
    return int(text)


def _providers(path: Path) -> Mapping[str, Provider]:
    if not path.exists():
        raise ValueError(f"{path} is missing: set MODELROLLOUT_PROVIDERS to the providers' file")
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path} must map provider names to settings: {{default: {{url: ...}}}}")
    return {str(name): _provider(path, str(name), given) for name, given in content.items()}


def _provider(path: Path, name: str, given: object) -> Provider:
    known = {
        "url": "url",
        "bearerTokenFile": "bearer_token_file",
        "caFile": "ca_file",
        "headers": "headers",
        "timeoutSeconds": "timeout_seconds",
    }
    if not isinstance(given, dict) or "url" not in given:
        raise ValueError(f"{path}: provider {name} needs a url")
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ValueError(f"{path}: provider {name} has unknown settings: {', '.join(unknown)}")
    return _checked(path, name, Provider(**{known[key]: given[key] for key in given}))


def _checked(path: Path, name: str, given: Provider) -> Provider:
    where = f"{path}: provider {name}"
    if not isinstance(given.url, str) or not given.url.startswith(("http://", "https://")):
        raise ValueError(f"{where}: url must begin with http:// or https://")
    if any(not isinstance(each, str | None) for each in (given.bearer_token_file, given.ca_file)):
        raise ValueError(f"{where}: bearerTokenFile and caFile must be paths")
    if not isinstance(given.headers, dict) or not all(map(_is_text, given.headers.items())):
        raise ValueError(f"{where}: headers must map names to strings")
    if not isinstance(given.timeout_seconds, int | float) or given.timeout_seconds <= 0:
        raise ValueError(f"{where}: timeoutSeconds must be a number above 0")
    return given


def _is_text(header: tuple[object, object]) -> bool:
    return all(isinstance(each, str) for each in header)
