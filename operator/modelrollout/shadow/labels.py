"""
The truth, when it comes: which of the two versions was right about a request.

Kept are a hash of the request's id and what the two versions said, for an hour, of so many
requests; nothing else of them.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final

KEPT_SECONDS: Final = 3600.0
MOST_KEPT: Final = 100_000

Answer = tuple[str, ...]
"""The labels of one answer: one for each row of a batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What both versions said of a request, and when."""

    time: float
    stable: Answer
    candidate: Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """Which version was right about a request."""

    stable: bool
    candidate: bool


@dataclass(slots=True)
class Predictions:
    """What was said and is not yet known to be right."""

    most: int = MOST_KEPT
    _said: OrderedDict[bytes, Said] = field(default_factory=OrderedDict)

    def said(self, request_id: str, said: Said) -> None:
        """Keep it; the oldest gives way."""
        self._said[_key(request_id)] = said
        self._said.move_to_end(_key(request_id))
        if len(self._said) > self.most:
            self._said.popitem(last=False)

    def truth(self, request_id: str, label: Answer, now: float) -> Truth | None:
        """Who was right; None for a request that is not known, or not any more. It is told once."""
        self._forget(now - KEPT_SECONDS)
        said = self._said.pop(_key(request_id), None)
        if said is None:
            return None
        return Truth(stable=said.stable == label, candidate=said.candidate == label)

    def __len__(self) -> int:
        return len(self._said)

    def _forget(self, before: float) -> None:
        while self._said and next(iter(self._said.values())).time < before:
            self._said.popitem(last=False)


def _key(request_id: str) -> bytes:
    return blake2b(request_id.encode(errors="surrogatepass"), digest_size=12).digest()
