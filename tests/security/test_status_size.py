"""
Status stays small enough to be written, at the largest spec that is legal.

A status that the API server cannot store any more would stop a rollout where it is.
"""

from __future__ import annotations

import json
import random

import pytest
from pydantic import ValidationError

from builders import NOW, a_rollout, an_observation, the_measures
from modelrollout.api import v1alpha1 as api
from modelrollout.api.guardrails import MOST_SLICES
from modelrollout.api.status import CohortStatus, SplitStatus, WarmupStatus
from modelrollout.core import collect
from modelrollout.core.decide import decide
from modelrollout.core.evidence import Counts, Histogram, Past, Reading, Window

MOST_BYTES = 256_000
GUARDRAILS = 16
SHIP = "\U0001f6a2"
"""Four bytes in UTF-8."""
LONG = SHIP * 1024
SMALL = {
    *("step", "step_text", "step_start_time", "step_deadline_time", "mirror", "coverage"),
    *("replicas", "is_revert", "sticky_by", "check_since_time", "no_data_since_time"),
}
"""What the largest status may lack: a number, a time, a word."""
TIME = "2026-11-21T19:00:00.000Z"


def largest_guardrails():
    """Distributions with all thresholds there can be; all slices that are legal, on two of them."""
    tops = {0: 20, 1: MOST_SLICES - 20}
    return [
        {
            "name": f"{index:02}".ljust(63, "x"),
            "distribution": {
                "histogram": {"metric": "m" * 200},
                "limits": ["0.1", "0.2", "0.3", "0.4"],
            },
            "tolerance": {"ratio": "1.5"},
            "margin": {"ratio": "2"},
            **({"slices": {"label": "x" * 100, "top": tops[index]}} if index in tops else {}),
        }
        for index in range(GUARDRAILS)
    ]


def some_counts(draw, width):
    n = draw.randint(10_000, 100_000)
    return Counts(n=float(n), k=tuple(float(draw.randint(0, n)) for _ in range(width)))


def some_windows(draw, width, watermark):
    # The longest names that are watched, and some that are too long.
    names = [SHIP * 31 + f"{index:04}" for index in range(20)] + [SHIP * 200]
    return tuple(
        Window(
            start=watermark + 5 * index,
            end=watermark + 5 * index + 5,
            stable=some_counts(draw, width),
            candidate=some_counts(draw, width),
            slices={each: (some_counts(draw, width), some_counts(draw, width)) for each in names},
            halves=(some_counts(draw, width), some_counts(draw, width)),
        )
        for index in range(3)
    )


def version(name):
    return api.VersionStatus(
        deployment=name * 253, service=name * 63, revision="r" * 64, model_version=SHIP * 512
    )


def crowded(status):
    """Everything that is said at its longest, and of everything as much as there may be."""
    entry = api.HistoryEntry(
        time=TIME,
        what="Promoted",
        deployment="d" * 253,
        revision="r" * 64,
        message=LONG,
        by=SHIP * 64,
    )
    rejection = api.Rejection(
        deployment="d" * 253,
        service="s" * 63,
        revision="r" * 64,
        cause="Aborted",
        message=LONG,
        time=TIME,
    )
    return status.model_copy(
        update={
            "reason": LONG,
            "stable": version("a"),
            "candidate": version("b"),
            "previous": version("c"),
            "rejected": rejection,
            "retired": ("s" * 63,) * 20,
            "idle": tuple(
                api.IdleStatus(deployment=f"{each:02}" + "d" * 251, replicas=10_000)
                for each in range(20)
            ),
            "checks": tuple(
                api.CheckStatus(name=f"{each}" + "c" * 62, passed=False, message=LONG)
                for each in range(8)
            ),
            "pause": api.PauseStatus(cause="Command", message=LONG, time=TIME),
            "obeyed": "x" * 64 + " by " + SHIP * 64,
            "split": SplitStatus(until_time=TIME, mismatch_time=TIME, message=LONG),
            "cohort": CohortStatus(until_time=TIME, message=LONG),
            "warmup": WarmupStatus(until_time=TIME, message=LONG),
            "warnings": (LONG,) * 16,
            "history": (entry,) * 20,
            "guardrails": tuple(
                each.model_copy(update={"message": LONG}) for each in status.guardrails
            ),
            "conditions": tuple(
                each.model_copy(update={"message": LONG * 4}) for each in status.conditions
            ),
        }
    )


@pytest.fixture(scope="module")
def largest():
    """The status of a pass that judges it all."""
    draw = random.Random(7)  # noqa: S311  # a test's numbers
    spec = {"analysis": {"guardrails": largest_guardrails()}}
    bounds = (*(each / 100 for each in range(1, 200)), float("inf"))
    answers = Histogram(
        bounds=bounds, cumulative=tuple(float(each) for each in range(100, 20_100, 100))
    )
    seen, rollout = an_observation(), a_rollout(**spec)
    checkpoints, readings = [], {}
    for measure in the_measures(rollout, seen):
        fresh = collect.fresh(measure, NOW)
        ready = collect.prepared(measure, fresh, Past(histogram=answers), NOW)
        windows = some_windows(draw, len(ready.thresholds), NOW)
        checkpoints.append(
            collect.collect(measure, ready, Reading(windows=windows, watermark=NOW + 15))
        )
        later = some_windows(draw, len(ready.thresholds), NOW + 15)
        readings[measure.name] = Reading(windows=later, watermark=NOW + 30)
    first = decide(rollout, seen).status
    known = first.model_copy(
        update={
            "step": 0,
            "steps": 4,
            "step_start_time": "2027-01-15T08:00:00.000Z",
            "weight": api.WeightStatus(wanted=10, accepted=10),
            "checkpoint": tuple(checkpoints),
        }
    )
    judged = an_observation(NOW + 30, measures=the_measures(rollout, seen), readings=readings)
    return crowded(
        decide(a_rollout(known, **spec), judged).status.model_copy(
            update={"checkpoint": tuple(checkpoints)}
        )
    )


def test_the_largest_status_is_as_full_as_it_can_be(largest):
    assert len(largest.checkpoint) == len(largest.guardrails) == GUARDRAILS
    assert [len(each.slices) for each in largest.checkpoint][:3] == [20, MOST_SLICES - 20, 0]
    assert all(len(each.harm) == 8 for each in largest.checkpoint)
    assert all(len(each.placebo) == 16 for each in largest.checkpoint)


def test_nothing_that_takes_room_is_missing_in_the_largest_status(largest):
    missing = {
        name
        for name in api.ModelRolloutStatus.model_fields
        if getattr(largest, name) in (None, (), "")
    }

    assert missing <= SMALL


def test_the_largest_status_is_small(largest):
    said = json.dumps(largest.to_dict(), ensure_ascii=False, separators=(",", ":"))

    assert len(said.encode()) < MOST_BYTES


def test_it_is_read_back_as_it_was_written(largest):
    written = largest.to_dict()

    assert api.ModelRolloutStatus.model_validate(written).to_dict() == written


def test_more_slices_than_status_has_room_for_are_refused():
    crowd = [each | {"slices": {"label": "country", "top": 20}} for each in largest_guardrails()]

    with pytest.raises(ValidationError, match="may have at most 30 slices"):
        a_rollout(analysis={"guardrails": crowd})
