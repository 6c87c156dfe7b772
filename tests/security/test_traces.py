"""The operator reads back what it wrote into a ConfigMap, which its users may write to as well."""

from __future__ import annotations

import base64
import gzip
import json

import pytest

from modelrollout.adapters.recorder import KEPT, _continued
from modelrollout.api.v1alpha1 import Verdict
from modelrollout.core.trace import (
    MAX_BYTES,
    MAX_PLAIN_BYTES,
    Level,
    Point,
    Trace,
    Version,
    decoded,
    encoded,
)

PART = Trace(
    namespace="shop",
    rollout="ranker",
    uid="u-1",
    candidate=Version(deployment="ranker-v2", revision="c1"),
    stable=None,
    began=None,
)


class Files(dict[str, str]):
    """They count how many of them are looked at."""

    looked_at = 0

    def __getitem__(self, name: str) -> str:
        self.looked_at += 1
        return super().__getitem__(name)


def test_a_config_map_full_of_packed_files_costs_little():
    packed = base64.b64encode(gzip.compress(b" " * MAX_PLAIN_BYTES)).decode()
    files = Files({f"{index:04}.json.gz": packed for index in range(400)})

    found = _continued(files, PART)

    assert files.looked_at == KEPT
    assert found.points == ()


def test_a_file_of_more_than_there_can_be_is_not_unpacked():
    whole = json.loads(gzip.decompress(encoded(PART)))
    bomb = gzip.compress(json.dumps({**whole, "message": " " * MAX_PLAIN_BYTES}).encode())
    assert len(bomb) < MAX_BYTES

    with pytest.raises(ValueError, match="too large"):
        decoded(bomb)


def test_whatever_is_packed_can_be_unpacked():
    """Many points that are alike take no room until they are unpacked."""
    levels = tuple(
        Level(name="x" * 63, verdict=Verdict.PASS, stable=(1e15,) * 9, candidate=(1e15,) * 9)
        for _ in range(16)
    )
    points = tuple(
        Point(
            time=float(second),
            step=0,
            weight=10,
            accepted=10,
            mirror=0,
            coverage=None,
            requests=10,
            guardrails=levels,
        )
        for second in range(1000)
    )
    trace = Trace(
        **{name: getattr(PART, name) for name in PART.__dataclass_fields__ if name != "points"},
        points=points,
    )

    assert decoded(encoded(trace)).points
