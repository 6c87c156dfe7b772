"""Text of other people, before it reaches a terminal: without what would command the terminal."""

from __future__ import annotations

from typing import Any

KEPT = {ord("\n"), ord("\t")}
CONTROLS = {*range(32), *range(127, 160)} - KEPT
TABLE = dict.fromkeys(CONTROLS, "\N{REPLACEMENT CHARACTER}")


def printable(value: Any) -> Any:
    """The same, with its strings, at any depth, free of control characters."""
    if isinstance(value, str):
        return value.translate(TABLE)
    if isinstance(value, dict):
        return {printable(key): printable(each) for key, each in value.items()}
    return [printable(each) for each in value] if isinstance(value, list) else value
