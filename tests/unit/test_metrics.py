"""What a pass learns of stable's past from a Prometheus that goes away."""

from __future__ import annotations

import asyncio

import pytest

from builders import NOW, a_rollout, an_observation, the_measures, windows
from modelrollout.core import collect
from modelrollout.core.evidence import Grid, Reading
from modelrollout.errors import MetricsUnavailable
from modelrollout.metrics import past_of


class ShortAnswers:
    """One window for each question, until it answers no more."""

    def __init__(self, answers):
        self.left = answers

    async def read(self, _query, grid, now):
        if not self.left:
            raise MetricsUnavailable("Prometheus at prometheus cannot be reached.")
        self.left -= 1
        return Reading(windows=windows(grid.start, 1, (500, 5), (500, 5)), watermark=now)


def the_past(source):
    measure = the_measures(a_rollout(), an_observation())[0]
    grid = Grid(start=NOW, width=5.0, watermark=NOW)
    return asyncio.run(past_of(measure, collect.fresh(measure, NOW), grid, source, NOW))


def test_what_was_read_of_the_past_is_kept_when_prometheus_goes_away():
    assert len(the_past(ShortAnswers(3)).windows) == 3


def test_a_past_of_which_nothing_was_read_is_not_known():
    with pytest.raises(MetricsUnavailable):
        the_past(ShortAnswers(0))
