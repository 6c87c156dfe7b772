"""Times as the API has them."""

from __future__ import annotations

from datetime import UTC, datetime


def as_time(seconds: float) -> str:
    """Unix seconds as RFC 3339 with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def as_seconds(time: str) -> float:
    """RFC 3339 as Unix seconds."""
    return datetime.fromisoformat(time).timestamp()
