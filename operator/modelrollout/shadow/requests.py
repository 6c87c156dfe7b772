"""What of a user's request is repeated: whether at all, which headers, under which id."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

from modelrollout.api import shadow as api

PASSED_ON: Final = frozenset(
    {
        "accept",
        "accept-language",
        "content-encoding",
        "content-language",
        "content-type",
        "inference-header-content-length",
        "traceparent",
        "tracestate",
        "x-request-id",
    }
)
"""What describes the request, and no one's identity."""
PASSED_ON_PREFIX: Final = "ce-"
"""CloudEvents describe their content in headers."""
NEVER: Final = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Of one connection only, or made anew for each."""
MARK: Final = ("x-shadow", "true")
"""Tells a server that no user waits for its answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request as both versions get it."""

    method: str
    path: str
    """With the query, as it was written."""
    headers: tuple[tuple[str, str], ...]
    body: bytes
    id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where a request falls between 0 and 1: the same for the same id, everywhere and always."""

    admission: float
    repetition: float


@dataclass(frozen=True, slots=True)
class Selection:
    """What may be repeated, and what of it is passed on."""

    methods: frozenset[str]
    beginnings: tuple[str, ...]
    headers: frozenset[str]
    force: dict[str, Any]

    def takes_path(self, path: str) -> bool:
        """Whether a path lies below one of the beginnings; one that hides where it leads does not."""
        plain = path.partition("?")[0]
        if not path.isascii() or ".." in plain or "%" in plain or "\\" in plain:
            return False
        return any(_is_below(plain, each) for each in self.beginnings)

    def request(
        self, method: str, path: str, headers: Iterable[tuple[str, str]], body: bytes
    ) -> Request:
        """The request to repeat."""
        given = tuple((name.lower(), value) for name, value in headers)
        document = _object(body) if self.force or body[:1] == b"{" else None
        if self.force and document is not None:
            body = json.dumps(document | self.force).encode()
        return Request(
            method=method,
            path=path,
            headers=(*(each for each in given if self._passes(*each)), MARK),
            body=body,
            id=_id(document, dict(given)),
        )

    def _passes(self, name: str, value: str) -> bool:
        if name in NEVER or name == MARK[0] or not value.isascii():
            return False
        return name in PASSED_ON or name in self.headers or name.startswith(PASSED_ON_PREFIX)


def selection_of(shadow: api.Shadow) -> Selection:
    """What a spec lets be repeated; ValueError names the forced field that is no JSON."""
    return Selection(
        methods=frozenset(shadow.methods),
        beginnings=shadow.paths,
        headers=frozenset(shadow.allow_headers),
        force={each.field: _forced(each) for each in shadow.force},
    )


def places_of(request_id: str | None) -> Places:
    """Two places that have nothing to do with each other; without an id they are drawn."""
    if request_id is None:
        return Places(admission=random.random(), repetition=random.random())  # noqa: S311  # a sample, no secret
    digest = blake2b(request_id.encode(errors="surrogatepass"), digest_size=16).digest()
    first, second = digest[:8], digest[8:]
    return Places(admission=_fraction(first), repetition=_fraction(second))


def _fraction(digest: bytes) -> float:
    """53 bits, as many as a number below 1 can hold."""
    return (int.from_bytes(digest) >> 11) / 2**53


def _is_below(path: str, beginning: str) -> bool:
    return path.startswith(beginning) and (
        beginning.endswith("/") or path[len(beginning) :][:1] in {"", "/", ":"}
    )


def _forced(asked: api.Forced) -> Any:
    try:
        return json.loads(asked.value)
    except ValueError as error:
        raise ValueError(
            f"force.{asked.field}: {asked.value} is not JSON: write a text in quotes"
        ) from error


def _object(body: bytes) -> dict[str, Any] | None:
    """A request that is no JSON object is passed on as it is: the versions say what they think."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _id(document: dict[str, Any] | None, headers: Mapping[str, str]) -> str | None:
    """Open Inference's id, else the gateway's, else that of a CloudEvent."""
    if document is not None and isinstance(document.get("id"), str) and document["id"]:
        return str(document["id"])
    return headers.get("x-request-id") or headers.get("ce-id") or None
