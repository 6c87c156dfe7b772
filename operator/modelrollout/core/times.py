"""Times and lengths of time: as the API has them, and as people say them."""

from __future__ import annotations

from datetime import UTC, datetime

MINUTE, HOUR, DAY = 60, 3600, 86_400
IN_SECONDS = 120
"""Up to it a length is told in seconds."""
WITH_SECONDS = 600
"""Up to it seconds are told beside the minutes."""


def as_time(seconds: float) -> str:
    """Unix seconds as RFC 3339 with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def as_seconds(time: str) -> float:
    """RFC 3339 as Unix seconds."""
    return datetime.fromisoformat(time).timestamp()


def moment(seconds: float) -> str:
    """A time of day with its date, in UTC."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def day(seconds: float) -> str:
    """A date, in UTC."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"


def clock(seconds: float) -> str:
    """A time of day alone, in UTC."""
    return f"{datetime.fromtimestamp(seconds, UTC):%H:%M:%S}"


def duration(seconds: float) -> str:
    """12 s, 5 min 20 s, 25 min, 2 h 5 min, 3 d 4 h."""
    whole = max(0, round(seconds))
    if whole < IN_SECONDS:
        return f"{whole} s"
    if whole < WITH_SECONDS:
        return _both(whole, MINUTE, "min", 1, "s")
    if whole < HOUR:
        return f"{whole // MINUTE} min"
    if whole < DAY:
        return _both(whole, HOUR, "h", MINUTE, "min")
    return _both(whole, DAY, "d", HOUR, "h")


def _both(whole: int, large: int, name: str, small: int, small_name: str) -> str:
    rest = whole % large // small
    return f"{whole // large} {name}" + (f" {rest} {small_name}" if rest else "")
