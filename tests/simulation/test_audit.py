"""The audit trail of whole rollouts: as many lines as Events, and a lost one leaves a gap that shows."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from simulation.worlds import a_manifest, a_world, after

BAD = {"errorRate": 0.05}
CRASHES = {"operatorCrashes": 0.25, "operatorRestartSeconds": 3}


@pytest.fixture
def lines(caplog):
    """The lines that were written so far."""
    caplog.set_level(logging.INFO, logger="modelrollout.audit")

    def written():
        return [
            json.loads(each.getMessage())
            for each in caplog.records
            if each.name == "modelrollout.audit"
        ]

    return written


def keys(value, path=""):
    """All paths in a JSON value; elements of lists count as one."""
    if isinstance(value, dict):
        return {path} | {each for key in value for each in keys(value[key], f"{path}.{key}")}
    if isinstance(value, list):
        return {path} | {each for item in value for each in keys(item, f"{path}[]")}
    return {path}


def test_the_example_in_the_documentation_is_a_line_as_it_is_written(lines):
    page = (Path(__file__).parents[2] / "docs" / "audit.md").read_text()
    example = json.loads(page.split("```json\n")[1].split("```")[0])
    errors = {"name": "errors", "preset": "envoy/errors"}
    after(a_manifest(errors), a_world(candidate=BAD), 1)
    (written,) = [each for each in lines() if each["decision"] == example["decision"]]

    assert keys(written) == keys(example)
    assert [each for each in written if f"`{each}`" not in page] == []


def entries(simulation):
    """The history of a rollout, the oldest first, as (time, what)."""
    history = simulation.status.get("history", [])
    return [(each["time"], each["what"]) for each in reversed(history)]


@pytest.mark.parametrize("candidate", [{}, BAD], ids=["good", "bad"])
def test_without_crashes_each_decision_has_its_line_and_its_event(candidate, lines):
    simulation, _ = after(a_manifest(), a_world(candidate=candidate), 1)
    told = lines()

    assert [(each["decision"], each["message"]) for each in told] == [
        (each["reason"], each["note"]) for each in simulation.store.events
    ]
    assert {time for time, _ in entries(simulation)} <= {each["time"] for each in told}


@pytest.mark.parametrize("candidate", [{}, BAD], ids=["good", "bad"])
@pytest.mark.parametrize("seed", range(6))
def test_a_crash_repeats_no_line(candidate, seed, lines):
    after(a_manifest(), a_world(candidate=candidate, **CRASHES), seed)
    told = [(each["decision"], each["message"]) for each in lines() if each["decision"] != "Drift"]

    assert len(set(told)) == len(told)


def test_a_line_that_a_crash_cost_is_missed_by_the_next_one(lines):
    """Whoever reads the trail finds out; the history of the object has what was decided."""
    lost = 0
    for seed in range(12):
        before = len(lines())
        simulation, result = after(a_manifest(), a_world(candidate=BAD, **CRASHES), seed)
        told = lines()[before:]
        times = {each["time"] for each in told}
        named = {tuple(each["previous"].values()) for each in told if each["previous"]}
        *earlier, _ = entries(simulation)

        assert result.crashes > 0
        assert set(earlier) <= named
        lost += len([time for time, _ in entries(simulation) if time not in times])
    assert lost > 0
