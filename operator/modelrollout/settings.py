"""The administrator's settings: environment, providers and web hooks, read once at start."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from modelrollout import selector
from modelrollout.selector import Selector

DECISIONS = frozenset(
    {
        "Aborted", "Approved", "AssignmentNotChecked", "CannotDecideInTime", "ChangedInPlace",
        "CommandIgnored", "Compared", "Drift", "LeftToAutoscaler", "Paused", "PlaceboFailed",
        "Promoted", "Restarted", "Resumed", "Retried", "RolledBack", "RouteNotRestored",
        "SplitMismatch", "Started", "StepSkipped", "StepStarted",
    }
)  # fmt: skip
"""What can be decided, by the words of its Events; a test holds them to the page of operations."""


ASKED = frozenset({"query", "time", "timeout", "match_target", "metric"})
"""Parameters of the questions themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """A Prometheus. Only the administrator says where: no namespaced object holds a URL."""

    url: str
    bearer_token_file: str | None = None
    ca_file: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    """Added to each question: what servers of this kind understand beyond Prometheus."""
    gateway_labels: Mapping[str, str] = field(default_factory=dict)
    """What the series of the gateway's own proxies have, and no tenant's can."""
    timeout_seconds: float = 5.0


class WebhookFormat(StrEnum):
    """What a web hook understands."""

    CLOUD_EVENTS = "cloudevents"
    SLACK = "slack"


class Audience(StrEnum):
    """Whose decisions a web hook is told."""

    ALL = "all"
    NAMED = "named"
    """Of the ModelRollouts that name it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """Where decisions are sent. Only the administrator says where, as with a provider."""

    url: str = ""
    url_file: str | None = None
    """A file with the address, where the address itself is a secret. Either this or `url`."""
    format: WebhookFormat = WebhookFormat.CLOUD_EVENTS
    rollouts: Audience = Audience.ALL
    namespaces: tuple[str, ...] = ()
    """Empty: all."""
    decisions: tuple[str, ...] = ()
    """Empty: all."""
    header_files: Mapping[str, str] = field(default_factory=dict)
    """Headers by name; the value is what the file says when it is sent."""
    ca_file: str | None = None
    timeout_seconds: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All of them. Nothing else reads the environment."""

    providers: Mapping[str, Provider]
    webhooks: Mapping[str, Webhook]
    namespaces: tuple[str, ...]
    """Empty: the whole cluster."""
    shard: Selector
    """The ModelRollouts in there that are this operator's."""
    lease_name: str
    lease_namespace: str
    identity: str
    image: str
    """Our own: comparators have it, too."""
    image_pull_policy: str
    port: int
    workers: int
    sweep_seconds: float
    runs_comparators: bool
    """Mirror steps need them; without them the operator makes and removes no Deployments."""
    keeps_traces: bool
    """The course of each rollout, in a ConfigMap beside it."""


def from_environment(
    environment: Mapping[str, str] = os.environ, *, shard_selector: str | None = None
) -> Settings:
    """
    Settings from MODELROLLOUT_* variables; ValueError names what is wrong and the remedy.

    A selector that is given wins over the variable.
    """

    def get(name: str, default: str) -> str:
        return environment.get(f"MODELROLLOUT_{name}", default)

    webhooks = get("WEBHOOKS", "")
    if shard_selector is None:
        shard_selector = get("SHARD_SELECTOR", "")
    shard = _shard(shard_selector)
    return Settings(
        providers=_providers(Path(get("PROVIDERS", "/etc/modelrollout/providers.yaml"))),
        webhooks=_webhooks(Path(webhooks)) if webhooks else {},
        namespaces=tuple(each.strip() for each in get("NAMESPACES", "").split(",") if each.strip()),
        shard=shard,
        lease_name=get("LEASE_NAME", _lease_of(shard)),
        lease_namespace=get("LEASE_NAMESPACE", "modelrollout-system"),
        identity=get("IDENTITY", socket.gethostname()),
        image=get("IMAGE", "modelrollout"),
        image_pull_policy=get("IMAGE_PULL_POLICY", "IfNotPresent"),
        port=_positive("PORT", get("PORT", "8080")),
        workers=_positive("WORKERS", get("WORKERS", "16")),
        sweep_seconds=_positive("SWEEP_SECONDS", get("SWEEP_SECONDS", "300")),
        runs_comparators=_true_or_false("SHADOW", get("SHADOW", "true")),
        keeps_traces=_true_or_false("TRACES", get("TRACES", "true")),
    )


def _shard(text: str) -> Selector:
    try:
        return selector.parsed(text)
    except ValueError as error:
        raise ValueError(f"MODELROLLOUT_SHARD_SELECTOR: {error}") from error


def _lease_of(shard: Selector) -> str:
    """Operators of different shards do not stand by for each other."""
    if not shard.text:
        return "modelrollout-operator"
    return f"modelrollout-operator-{sha256(shard.text.encode()).hexdigest()[:8]}"


def _positive(name: str, text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise ValueError(f"MODELROLLOUT_{name} must be a whole number above 0, not {text!r}")
    return int(text)


def _true_or_false(name: str, text: str) -> bool:
    if text not in {"true", "false"}:
        raise ValueError(f"MODELROLLOUT_{name} must be true or false, not {text!r}")
    return text == "true"


def _providers(path: Path) -> Mapping[str, Provider]:
    content = _content(path, "set MODELROLLOUT_PROVIDERS to the providers' file")
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path} must map provider names to settings: {{default: {{url: ...}}}}")
    return {str(name): _provider(path, str(name), given) for name, given in content.items()}


def _webhooks(path: Path) -> Mapping[str, Webhook]:
    content = _content(path, "set MODELROLLOUT_WEBHOOKS to the web hooks' file")
    if content is None:
        return {}
    if not isinstance(content, dict):
        wanted = "must map web hook names to settings: {audit: {url: ...}}"
        raise ValueError(f"{path} {wanted}")  # noqa: TRY004  # of a setting, not of a call
    return {str(name): _webhook(path, str(name), given) for name, given in content.items()}


def _content(path: Path, remedy: str) -> object:
    if not path.exists():
        raise ValueError(f"{path} is missing: {remedy}")
    try:
        content: object = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    return content


def _provider(path: Path, name: str, given: object) -> Provider:
    where = f"{path}: provider {name}"
    known = {
        "url": "url",
        "bearerTokenFile": "bearer_token_file",
        "caFile": "ca_file",
        "headers": "headers",
        "parameters": "parameters",
        "gatewayLabels": "gateway_labels",
        "timeoutSeconds": "timeout_seconds",
    }
    provider = Provider(**_arguments(where, known, given))
    _check_address(where, provider.url)
    _check_server(where, provider)
    if not _is_path(provider.bearer_token_file):
        raise ValueError(f"{where}: bearerTokenFile must be a path")
    if not _is_text_by_name(provider.headers):
        raise ValueError(f"{where}: headers must map names to strings")
    if not _is_text_by_name(provider.parameters):
        raise ValueError(f"{where}: parameters must map names to strings")
    if taken := sorted(ASKED & set(provider.parameters)):
        raise ValueError(f"{where}: parameters has {', '.join(taken)}, which the operator sets")
    if not _is_text_by_name(provider.gateway_labels):
        raise ValueError(f"{where}: gatewayLabels must map names of labels to strings")
    return provider


def _webhook(path: Path, name: str, given: object) -> Webhook:
    where = f"{path}: web hook {name}"
    known = {
        "url": "url",
        "urlFile": "url_file",
        "format": "format",
        "rollouts": "rollouts",
        "namespaces": "namespaces",
        "decisions": "decisions",
        "headerFiles": "header_files",
        "caFile": "ca_file",
        "timeoutSeconds": "timeout_seconds",
    }
    arguments = _arguments(where, known, given, needed=("url", "urlFile"))
    _choose(where, arguments, "format", WebhookFormat)
    _choose(where, arguments, "rollouts", Audience)
    _list(where, arguments, "namespaces")
    _list(where, arguments, "decisions")
    webhook = Webhook(**arguments)
    _check_webhook(where, webhook)
    return webhook


def _check_webhook(where: str, webhook: Webhook) -> None:
    if bool(webhook.url) == bool(webhook.url_file):
        raise ValueError(f"{where} needs a url or a urlFile, and not both")
    if not _is_path(webhook.url_file):
        raise ValueError(f"{where}: urlFile must be a path")
    if webhook.url_file is None:
        _check_address(where, webhook.url)
    _check_server(where, webhook)
    if not _is_text_by_name(webhook.header_files):
        raise ValueError(f"{where}: headerFiles must map names of headers to paths")
    unknown = sorted(set(webhook.decisions) - DECISIONS)
    if unknown:
        raise ValueError(
            f"{where}: decisions has unknown {', '.join(unknown)}; there are {', '.join(sorted(DECISIONS))}"
        )


def _choose(where: str, arguments: dict[str, Any], key: str, choices: type[StrEnum]) -> None:
    if key not in arguments:
        return
    if arguments[key] not in list(choices):
        raise ValueError(
            f"{where}: {key} must be one of {', '.join(choices)}, not {arguments[key]!r}"
        )
    arguments[key] = choices(arguments[key])


def _list(where: str, arguments: dict[str, Any], key: str) -> None:
    given = arguments.get(key, [])
    if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
        raise ValueError(f"{where}: {key} must be a list of names")
    arguments[key] = tuple(given)


def _arguments(
    where: str, known: Mapping[str, str], given: object, *, needed: tuple[str, ...] = ("url",)
) -> dict[str, Any]:
    if not isinstance(given, dict) or not set(needed) & set(given):
        raise ValueError(f"{where} needs a {' or a '.join(needed)}")
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ValueError(f"{where} has unknown settings: {', '.join(unknown)}")
    return {known[key]: value for key, value in given.items()}


def _check_address(where: str, given: object) -> None:
    if not isinstance(given, str) or not given.startswith(("http://", "https://")):
        raise ValueError(f"{where}: url must begin with http:// or https://")


def _check_server(where: str, given: Provider | Webhook) -> None:
    if not _is_path(given.ca_file):
        raise ValueError(f"{where}: caFile must be a path")
    if not isinstance(given.timeout_seconds, int | float) or given.timeout_seconds <= 0:
        raise ValueError(f"{where}: timeoutSeconds must be a number above 0")


def _is_path(given: object) -> bool:
    return isinstance(given, str | None)


def _is_text_by_name(given: object) -> bool:
    return isinstance(given, dict) and all(
        isinstance(each, str) for pair in given.items() for each in pair
    )
