"""Text of other people, before it reaches a terminal: without what would command the terminal."""

from __future__ import annotations

from typing import Any

KEPT = "\n\t"
INSTEAD = "\N{REPLACEMENT CHARACTER}"


def printable(value: Any) -> Any:
    """The same, with its strings, at any depth, free of control characters and turned letters."""
    if isinstance(value, str):
        return value if value.isprintable() else "".join(map(_shown, value))
    if isinstance(value, dict):
        return {printable(key): printable(each) for key, each in value.items()}
    return [printable(each) for each in value] if isinstance(value, list) else value


def _shown(letter: str) -> str:
    return letter if letter.isprintable() or letter in KEPT else INSTEAD
