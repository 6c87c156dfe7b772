"""HTML in which text is text: whatever is not markup already is escaped."""

from __future__ import annotations

import unicodedata
from html import escape

VOID = frozenset({"meta", "br", "col"})


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def tag(name: str, /, *children: str, **attributes: str | None) -> Markup:
    """
    An element. Children that are no Markup are text; attributes without a value are left out.

    `class_` is class, and other underscores are hyphens.
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_text(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in VOID:
        return Markup(f"<{name}{given}>")
    return Markup(f"<{name}{given}>{joined(*children)}</{name}>")


def joined(*children: str) -> Markup:
    """One after the other."""
    return Markup("".join(each if isinstance(each, Markup) else _text(each) for each in children))


def _text(given: str) -> str:
    return escape("".join(map(_shown, given)), quote=True)


def _shown(letter: str) -> str:
    """HTML has no place for control characters, not even for escaped ones; others turn text around."""
    is_space = letter in "\n\t" or unicodedata.category(letter) == "Zs"
    return letter if letter.isprintable() or is_space else "\N{REPLACEMENT CHARACTER}"
