"""What changed between two versions: their Deployments' pod templates and models, without secrets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Object = Mapping[str, Any]
ABSENT = ""
HIDDEN, OTHER = "(a value)", "(another value)"
CONTAINERS = (("initContainers", "init container "), ("containers", ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One thing that differs. What is absent is empty."""

    what: str
    stable: str
    candidate: str


def changes(
    stable: Object, candidate: Object, models: tuple[Object, Object] = ({}, {})
) -> list[Change]:
    """
    From the stable version to the candidate.

    Of an environment variable whether its value differs is told, never the value: nobody knows
    which of them is a secret.
    """
    one, other = _facts(stable, models[0]), _facts(candidate, models[1])
    found = []
    for what in dict.fromkeys([*one, *other]):
        before, after = one.get(what, ABSENT), other.get(what, ABSENT)
        if before != after:
            hidden = OTHER if isinstance(before, _Secret) else HIDDEN
            found.append(
                Change(what=what, stable=_shown(before, HIDDEN), candidate=_shown(after, hidden))
            )
    return found


class _Secret(str):
    """Compared as it is, shown as none."""

    __slots__ = ()


def _shown(value: str, hidden: str) -> str:
    return hidden if isinstance(value, _Secret) else value


def _facts(deployment: Object, model: Object) -> dict[str, str]:
    template = deployment["spec"]["template"]
    spec = template["spec"]
    found: dict[str, str] = {f"model {name}": str(value) for name, value in model.items()}
    for kind, prefix in CONTAINERS:
        for each in spec.get(kind) or ():
            found |= {f"{prefix}{each['name']}: {k}": v for k, v in _container(each)}
    for volume in spec.get("volumes") or ():
        found[f"volume {volume['name']}"] = _source(volume)
    for name, value in sorted(spec.items()):
        if name not in {"containers", "initContainers", "volumes"} and not _is_default(value):
            found[name] = _text(value)
    meta = template.get("metadata") or {}
    found |= {f"annotation {k}": v for k, v in sorted((meta.get("annotations") or {}).items())}
    return found


def _container(container: Object) -> Iterator[tuple[str, str]]:
    yield "image", container.get("image", ABSENT)
    for name in ("command", "args"):
        if container.get(name):
            yield name, " ".join(container[name])
    for each in container.get("env") or ():
        yield f"env {each['name']}", _environment(each)
    for each in container.get("envFrom") or ():
        yield "env from " + _text(each), "yes"
    resources = container.get("resources") or {}
    for kind in ("requests", "limits"):
        for name, value in sorted((resources.get(kind) or {}).items()):
            yield f"{kind}.{name}", str(value)
    told = {"name", "image", "command", "args", "env", "envFrom", "resources"}
    for name, value in sorted(container.items()):
        if name not in told and not _is_default(value):
            yield name, _text(value)


def _environment(variable: Object) -> str:
    if "valueFrom" in variable:
        return "from " + _text(variable["valueFrom"])
    return _Secret(variable.get("value", ABSENT))


def _source(volume: Object) -> str:
    return ", ".join(f"{key} {_text(value)}" for key, value in volume.items() if key != "name")


def _is_default(value: Any) -> bool:
    return value in ({}, [], None)


def _text(value: Any) -> str:
    """A nested value in one line, without braces at its outside."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_nested(each)}" for key, each in value.items())
    if isinstance(value, list):
        return "; ".join(_text(each) for each in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _nested(value: Any) -> str:
    return f"({_text(value)})" if isinstance(value, Mapping | list) else _text(value)
