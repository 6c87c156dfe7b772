"""Text of other people, before it reaches a terminal: without what would command the terminal."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any

KEPT = "\n\t"
INSTEAD = "\N{REPLACEMENT CHARACTER}"


def printable(value: Any) -> Any:
    """The same, with its strings, at any depth, free of control characters and turned letters."""
    if isinstance(value, str):
        return value if value.isprintable() else "".join(map(_shown, value))
    if isinstance(value, dict):
        return {printable(key): printable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(printable, value))
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{e.name: printable(getattr(value, e.name)) for e in fields(value)})
    return value


def _shown(letter: str) -> str:
    return letter if letter.isprintable() or letter in KEPT else INSTEAD
