"""
What can go wrong, in the words of a rollout.

Adapters translate their library's errors into these, chained with `from`; nothing above the
adapters knows a library's exception.

    RolloutError
    ├── NotFound              the object does not exist
    ├── Conflict              somebody else wrote first; look again soon
    ├── Refused               the API server will not have this write; a human must act
    ├── ClusterUnavailable    the API server or the way to it is down; back off
    ├── MetricsUnavailable    Prometheus gave no usable number: hold, never guess
    └── RouterRefused         the route is not in a shape that can be edited safely
"""


class RolloutError(Exception):
    """Any of ours. Its text is a sentence that can be shown to a user."""


class NotFound(RolloutError):
    """The object does not exist."""


class Conflict(RolloutError):
    """Somebody else wrote first; the next pass sees what they wrote."""


class Refused(RolloutError):
    """The API server understood the write and refuses it (invalid, or forbidden by RBAC)."""


class ClusterUnavailable(RolloutError):
    """The API server did not answer, or answered 429 or 5xx."""


class MetricsUnavailable(RolloutError):
    """Prometheus gave no number that can be used."""


class RouterRefused(RolloutError):
    """The route is not in a shape that can be edited without touching what is not ours."""
