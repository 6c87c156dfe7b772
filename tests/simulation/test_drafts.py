"""How often a status is written, and that nothing is lost by writing it seldom."""

from __future__ import annotations

from itertools import pairwise

import pytest

from modelrollout.api.v1alpha1 import ModelRolloutStatus
from modelrollout.core.news import is_news
from modelrollout.core.times import as_seconds
from modelrollout.drafts import WRITE_SECONDS
from simulation.worlds import a_manifest, a_world, after

LONG = {"minSeconds": 300, "maxSeconds": 300}


@pytest.fixture(scope="module")
def rollout():
    """A simulation with one long step."""
    simulation, _ = after(a_manifest(steps=(20,), step=LONG), a_world(), 1)
    return simulation


def stored(simulation):
    """The statuses that were written, each with its time."""
    return [
        (time, ModelRolloutStatus.model_validate(status)) for time, status in simulation.statuses
    ]


def test_figures_alone_are_written_four_times_a_minute_at_most(rollout):
    compared = [each for each in stored(rollout) if each[1].step == 0 and each[1].step_start_time]
    figures = [
        (one, other) for (one, old), (other, new) in pairwise(compared) if not is_news(old, new)
    ]

    assert len(figures) > 10
    assert all(other - one >= WRITE_SECONDS for one, other in figures)


def test_figures_are_not_older_than_that_while_something_is_compared(rollout):
    times = [time for time, status in stored(rollout) if status.step == 0]
    interval = 5.15

    assert all(other - one <= WRITE_SECONDS + interval for one, other in pairwise(times))


def test_news_is_written_at_once(rollout):
    """All that a step is about carries the time of the pass that decided it."""
    for time, status in stored(rollout):
        for each in status.history[:1]:
            assert as_seconds(each.time) <= time + 1e-3
    first = {}
    for time, status in stored(rollout):
        first.setdefault(status.step_start_time, time)
    began = {as_seconds(start): time for start, time in first.items() if start}

    assert began
    assert all(time == pytest.approx(start, abs=1e-3) for start, time in began.items())


STATUS = ModelRolloutStatus.model_validate(
    {
        "phase": "Progressing",
        "reason": "100 requests",
        "step": 0,
        "requests": 100,
        "guardrails": [{"name": "errors", "verdict": "Inconclusive", "message": "1.00 % of 100"}],
        "split": {"stable": 900, "candidate": 100},
        "checkpoint": [{"name": "errors", "key": "k", "harm": [[0.1] * 12], "watermark": 1.0}],
        "conditions": [
            {
                "type": "Healthy",
                "status": "Unknown",
                "reason": "NotEnoughEvidence",
                "message": "100 requests",
                "observedGeneration": 1,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
        ],
    }
)


def changed(field, **update):
    """The status with a change in the one item of a list, or in a part."""
    part = getattr(STATUS, field)
    new = part[0].model_copy(update=update) if isinstance(part, tuple) else None
    return STATUS.model_copy(update={field: (new,) if new else part.model_copy(update=update)})


@pytest.mark.parametrize(
    "newer",
    [
        STATUS.model_copy(update={"reason": "150 requests", "requests": 150, "coverage": "0.9"}),
        changed("guardrails", message="1.00 % of 150", harm="0.10"),
        changed("checkpoint", harm=((0.2,) * 12,), watermark=6.0, windows=2),
        changed("conditions", message="150 requests"),
        changed("split", stable=1350, candidate=150),
    ],
)
def test_figures_are_no_news(newer):
    assert newer != STATUS
    assert not is_news(STATUS, newer)


@pytest.mark.parametrize(
    "newer",
    [
        STATUS.model_copy(update={"phase": "Paused"}),
        STATUS.model_copy(update={"step": 1}),
        STATUS.model_copy(update={"verdict": "Pass"}),
        STATUS.model_copy(update={"no_data_since_time": "2026-01-01T00:00:00Z"}),
        changed("guardrails", verdict="Pass"),
        changed("checkpoint", beyond_since=5.0),
        changed("checkpoint", dispersion=(1.0,)),
        changed("conditions", status="True"),
        changed("conditions", reason="SplitMismatch"),
        changed("split", mismatch_time="2026-01-01T00:00:00Z"),
    ],
)
def test_whatever_is_more_than_a_figure_is_news(newer):
    assert is_news(STATUS, newer)
