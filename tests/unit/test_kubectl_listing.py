"""What the list of rollouts says of those that say nothing themselves."""

from __future__ import annotations

from typing import Any

import pytest

from modelrollout.kubectl.listing import NOBODYS, listed

CREATED = 1_790_000_000


def line(now: float, **more: Any) -> str:
    metadata = {"name": "ranker", "creationTimestamp": "2026-09-21T14:13:20Z"}
    spec = {"candidate": {"deployment": "ranker-v2"}}
    body = {"metadata": metadata, "spec": spec, **more}
    _, found = listed([body], now, 200, namespaces=False, wide=False)
    return found.plain


@pytest.mark.parametrize("status", [{}, {"status": {}}])
def test_what_nobody_has_looked_at_for_a_minute_is_said_to_be_nobodys(status):
    assert line(CREATED + 61, **status).endswith(NOBODYS)
    assert NOBODYS not in line(CREATED + 59, **status)


def test_what_somebody_has_looked_at_says_why_itself():
    said = line(CREATED + 86_400, status={"reason": "all users are on ranker-v1"})

    assert said.endswith("all users are on ranker-v1")
