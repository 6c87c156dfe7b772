"""
Pure: what puts each user into a bucket by a cookie, on any implementation of Gateway API.

The user's rule draws a bucket for whoever comes without one: it has a backendRef for each, with
the bucket's size as weight and a response filter that sets the cookie. Rules of ours match the
cookie. The weights of the strategy are the edges of the buckets, so that a weight that grows takes
whole buckets along: nobody moves but their users.

A cookie names its bucket by the first and the last of the hundredths in it. So it says by itself
which side it is on, whatever has become of the strategy since; a bucket that reaches over the
present weight, which no strategy had when it was given, is drawn anew.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import pairwise

from modelrollout.adapters.cluster import Object
from modelrollout.adapters.routers.gateway_api import buckets
from modelrollout.api import v1alpha1 as api
from modelrollout.core.plan import BucketCookie, Traffic

PREFIX = "modelrollout-"
SET_COOKIE = "Set-Cookie"
MAX_AGE_SECONDS = 90 * api.DAY_SECONDS
"""Longer than a test lasts."""
MAX_BUCKETS = 16
"""Gateway API allows as many backendRefs in a rule."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """Hundredths of the users that move together."""

    first: int
    last: int

    @property
    def size(self) -> int:
        """How many hundredths."""
        return self.last - self.first + 1


def cookie_of(namespace: str, rollout: str, salt: str) -> BucketCookie:
    """The same name for all releases, so that the cookie of one replaces that of another."""
    name = f"{PREFIX}{_digest(f'{namespace}/{rollout}')}"
    return BucketCookie(name=name, release=_digest(salt))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def buckets_of(traffic: Traffic) -> tuple[Bucket, list[Bucket]]:
    """The candidate's bucket, and stable's from the one that joins last to the next."""
    later = [each for each in traffic.weights if each > traffic.weight]
    edges = [traffic.weight, *later, api.FULL_WEIGHT]
    stables = [Bucket(first=first, last=end - 1) for first, end in pairwise(edges)]
    return Bucket(first=0, last=traffic.weight - 1), stables[::-1]


def set_cookie(cookie: BucketCookie, bucket: Bucket) -> str:
    """The response header's value that gives a user a bucket."""
    value = f"{cookie.release}.{bucket.first:02}-{bucket.last:02}"
    return f"{cookie.name}={value}; Path=/; Max-Age={MAX_AGE_SECONDS}; HttpOnly; SameSite=Lax"


def is_ours(header: Object) -> bool:
    """Whether a response header that is added is a cookie of ours."""
    name, value = str(header.get("name", "")), str(header.get("value", ""))
    return name.lower() == SET_COOKIE.lower() and value.startswith(PREFIX)


def are_dropped_by(entry: Object) -> bool:
    """Whether a filter of the whole rule leaves no cookie that a backendRef sets."""
    modifier = entry.get("responseHeaderModifier") or {}
    names = [*modifier.get("remove", []), *[each.get("name") for each in modifier.get("set", [])]]
    return SET_COOKIE.lower() in [str(each).lower() for each in names]


# --- as they come back --------------------------------------------------------------------


def matching(pair: str) -> Object:
    """A match of requests with a cookie that is `name=value`, which is a regular expression."""
    # Implementations differ in whether an expression has to match the whole value.
    value = f"^(?:.*;)? *{pair} *(?:;.*)?$"
    return {"type": "RegularExpression", "name": "cookie", "value": value}


def of_candidate(cookie: BucketCookie, weight: int) -> Object:
    """Requests of buckets whose last hundredth is below the weight."""
    return matching(rf"{cookie.name}={cookie.release}\.{buckets.ANY}-(?:{buckets.below(weight)})")


def of_stable(cookie: BucketCookie, weight: int) -> Object:
    """Requests of buckets whose first hundredth is not below the weight."""
    return matching(rf"{cookie.name}={cookie.release}\.(?:{not_below(weight)})-{buckets.ANY}")


def not_below(weight: int) -> str:
    """A regular expression of the numbers of two digits from one on, which is below 100."""
    tens, units = divmod(weight, 10)
    parts = [f"{tens}[{units}-9]"]
    parts += [f"[{tens + 1}-9][0-9]"] if tens + 1 < 10 else []  # noqa: PLR2004  # digits
    return "|".join(parts)


def refusal(rollout: str, said: str) -> str:
    """The sentence for rules that a gateway does not know how to match."""
    return (
        f"{said}; traffic.sticky by cookies needs a gateway that matches headers by regular "
        f"expressions, as the rules modelrollout-{rollout}-* do: route through one, or leave out "
        "traffic.sticky"
    )
