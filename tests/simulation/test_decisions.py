"""Whole rollouts by the operator's own passes, in simulated worlds: what is decided, and how soon."""

from __future__ import annotations

import json
from collections import Counter
from statistics import median

import pytest

from modelrollout.adapters.cluster import HTTP_ROUTES
from modelrollout.api.presets import TOLERANCE
from modelrollout.core.times import as_seconds
from modelrollout.simulation.exports import ERRORS, REQUESTS, Site
from modelrollout.simulation.rollout import CREATED, Decision, Simulation, simulate
from modelrollout.simulation.summary import results_of
from modelrollout.stats import counts
from modelrollout.stats.bounds import Bound
from simulation.worlds import (
    CANDIDATE,
    POD_ERRORS,
    POD_LATENCY,
    STABLE,
    a_manifest,
    a_world,
    after,
    simulated,
)

MANIFEST = a_manifest()
MORE_ERRORS = {"errorRate": 0.03}
SLOWER_TAIL = {"tailShift": {"share": 0.05, "seconds": 0.4}}
LESS_ACCURATE = {"accuracy": 0.85}
GAP = {"fromSeconds": 40.0, "toSeconds": 100.0}
REACH_SECONDS = 25.0
"""A delta that begins so long before its window is not counted."""


def told(capsys, name, results):
    """Print the figures, past pytest's capture."""
    decided = Counter(each.decision.value for each in results)
    seconds, requests, bad = (
        median(getattr(each, field) for each in results)
        for field in ("seconds", "candidate_requests", "bad_requests")
    )
    with capsys.disabled():
        print(  # noqa: T201  # figures are what a simulation is for
            f"\n{name}: {dict(decided)}; medians: {seconds:.0f} s,"
            f" {requests:,.0f} candidate requests, {bad:,.0f} bad answers"
        )
    return decided


# --- false and true alarms ----------------------------------------------------------------


@pytest.mark.slow
def test_equal_versions_are_promoted_and_hardly_ever_rolled_back(capsys):
    results = simulated(MANIFEST, a_world(), runs=50)
    decided = told(capsys, "equal versions", results)
    # At a true rate of 1 %, more than 3 of 50 happen once in 600 times.
    assert decided["rolledBack"] <= 3
    assert decided["inconclusive"] == 0


SWING = {"baseRateDrift": {"share": 0.8, "periodSeconds": 120}}


@pytest.mark.parametrize(
    ("manifest", "changes"),
    [
        pytest.param(MANIFEST, SWING, id="a base rate that swings"),
        pytest.param(MANIFEST, {"scrapeSeconds": 5}, id="scraped as seldom as looked at"),
        pytest.param(MANIFEST, {"scrapeSeconds": 15}, id="scraped more seldom than looked at"),
        pytest.param(a_manifest(POD_ERRORS, POD_LATENCY), {}, id="measured at the pods"),
    ],
)
def test_equal_versions_are_promoted_however_the_world_is_seen(manifest, changes):
    decided = Counter(each.decision.value for each in simulated(manifest, a_world(**changes), 4))
    # At 1 % each: not one of the worlds in 200.
    assert decided["rolledBack"] <= 1
    assert decided["inconclusive"] == 0


@pytest.mark.parametrize(
    ("candidate", "culprit"),
    [
        pytest.param(MORE_ERRORS, "errors", id="1 % to 3 % errors"),
        pytest.param(SLOWER_TAIL, "latency", id="5 % of the answers 400 ms later"),
        pytest.param(LESS_ACCURATE, "accuracy", id="97 % to 85 % accuracy"),
    ],
)
def test_a_worse_candidate_is_always_rolled_back_and_the_culprit_named(candidate, culprit, capsys):
    results = simulated(MANIFEST, a_world(candidate=candidate), runs=10)
    decided = told(capsys, f"worse {culprit}", results)
    assert decided == {"rolledBack": 10}
    assert all(each.reason == f"GuardrailBreached: {culprit}" for each in results)
    assert all(f"{culprit}: candidate" in each.message for each in results)


# --- disturbances -------------------------------------------------------------------------


def steps_of(simulation):
    """Of each step that was judged: its start, and the last stored evidence about errors."""
    found, start = {}, None
    for _, status in simulation.statuses:
        # The pass that leaves a step counts its last window, and the next one has no start yet.
        if "stepStartTime" in status:
            start = as_seconds(status["stepStartTime"])
        for each in status.get("checkpoint", []):
            if each["name"] == "errors" and each.get("windows"):
                found[start] = each
    return found


def deltas_of(simulation):
    """(begin, end, version, requests, errors) between the scrapes of the gateway's pods."""
    for target in simulation.scraper.targets:
        if target.site is not Site.GATEWAY:
            continue
        for version in (0, 1):
            rows = target.values.rows[:, version, [REQUESTS, ERRORS]].tolist()
            for index in range(1, len(rows)):
                more = (new - old for new, old in zip(rows[index], rows[index - 1], strict=True))
                yield *target.times[index - 1 : index + 1], version, *more


def windows_by_hand(simulation, start, until):
    """What the scrapes say, window by window, without the operator's reader."""
    opened, edge = start, start + 5
    deltas = list(deltas_of(simulation))
    while edge <= until + 1e-6:
        held = [
            each
            for each in deltas
            if opened < each[1] <= edge and each[0] >= max(start, opened - REACH_SECONDS)
        ]
        if {each[2] for each in held} == {0, 1}:
            yield [
                sum(each[column] for each in held if each[2] == version)
                for version in (0, 1)
                for column in (3, 4)
            ]
            opened = edge
        edge += 5


def assert_counted_once(simulation):
    """The stored evidence is that of the scrapes: nothing twice, nothing lost."""
    harm = [0.0] * counts.HARM_POINTS
    steps = steps_of(simulation)
    assert steps
    for start, stored in sorted(steps.items()):
        windows = list(windows_by_hand(simulation, start, stored["watermark"]))
        stable_n, stable_k, candidate_n, candidate_k = map(sum, zip(*windows, strict=True))
        assert stored["windows"] == len(windows)
        assert stored["stable"] == [stable_n, stable_k]
        assert stored["candidate"] == [candidate_n, candidate_k]
        (usual,), (phi,) = stored["usual"], stored["dispersion"]
        more = counts.log_harm(
            [counts.Sample(*each) for each in windows],
            Bound(*TOLERANCE.numbers()),
            usual=usual,
        )
        harm = [old + new / phi for old, new in zip(harm, more, strict=True)]
        assert stored["harm"][0] == pytest.approx(harm, abs=1e-4)


def evidence_by_watermark(simulation):
    """All evidence about errors in the first step."""
    return {
        each["watermark"]: each
        for _, status in simulation.statuses
        if status.get("step") == 0
        for each in status.get("checkpoint", [])
        if each["name"] == "errors"
    }


@pytest.mark.parametrize("candidate", [{}, MORE_ERRORS])
def test_undisturbed_evidence_is_what_the_scrapes_say(candidate):
    simulation, _ = after(MANIFEST, a_world(candidate=candidate), 1)
    assert_counted_once(simulation)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("candidate", [{}, MORE_ERRORS])
def test_a_gap_hides_what_happened_in_it_and_changes_nothing_else(candidate, seed):
    undisturbed, expected = after(MANIFEST, a_world(candidate=candidate), seed)
    simulation, result = after(MANIFEST, a_world(candidate=candidate, gaps=[GAP]), seed)
    assert result.decision is expected.decision
    assert_counted_once(simulation)
    whole, seen = evidence_by_watermark(undisturbed), evidence_by_watermark(simulation)
    common = seen.keys() & whole.keys()
    before = [mark for mark in common if mark < CREATED + GAP["fromSeconds"]]
    assert before
    assert all(seen[mark] == whole[mark] for mark in before)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("candidate", [{}, MORE_ERRORS])
def test_what_nobody_could_ask_for_a_while_is_counted_afterwards(candidate, seed):
    undisturbed, expected = after(MANIFEST, a_world(candidate=candidate), seed)
    simulation, result = after(MANIFEST, a_world(candidate=candidate, silences=[GAP]), seed)
    assert result.decision is expected.decision
    assert_counted_once(simulation)
    whole, seen = evidence_by_watermark(undisturbed), evidence_by_watermark(simulation)
    common = [mark for mark in seen.keys() & whole.keys() if mark > CREATED + GAP["toSeconds"]]
    assert all(seen[mark]["candidate"] == whole[mark]["candidate"] for mark in common)


@pytest.mark.parametrize("restart_seconds", [0.5, 13])
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("candidate", [{}, MORE_ERRORS])
def test_crashes_between_writes_neither_lose_evidence_nor_count_it_twice(
    candidate, seed, restart_seconds
):
    undisturbed, expected = after(MANIFEST, a_world(candidate=candidate), seed)
    crashes = {"operatorCrashes": 0.2, "operatorCrashesFromSeconds": 6}
    world = a_world(candidate=candidate, operatorRestartSeconds=restart_seconds, **crashes)
    simulation, result = after(MANIFEST, world, seed)
    assert result.crashes > 5
    assert result.decision is expected.decision
    assert_counted_once(simulation)
    # Until the weights move at another time, both worlds are the same to the last request.
    whole, seen = evidence_by_watermark(undisturbed), evidence_by_watermark(simulation)
    common = seen.keys() & whole.keys()
    assert len(common) > 1
    for mark in common:
        assert seen[mark]["candidate"] == whole[mark]["candidate"]
        assert seen[mark]["harm"][0] == pytest.approx(whole[mark]["harm"][0], abs=1e-4)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("candidate", [{}, SLOWER_TAIL])
def test_crashes_from_the_very_first_write_on_leave_the_safe_side_true(candidate, seed):
    world = a_world(candidate=candidate, operatorCrashes=0.25, operatorRestartSeconds=3)
    simulation, result = after(MANIFEST, world, seed)
    is_good = not candidate
    assert result.decision is (Decision.PROMOTED if is_good else Decision.ROLLED_BACK)
    assert services_on_the_route(simulation) == [CANDIDATE if is_good else STABLE]
    assert not simulation.rollout["metadata"]["finalizers"]
    assert all(has_finalizer for share, has_finalizer in simulation.shifts if share > 1e-3)
    assert "Drift" not in {each["reason"] for each in simulation.store.events}


def services_on_the_route(simulation):
    (rule,) = simulation.store.live(HTTP_ROUTES, "ranker")["spec"]["rules"]
    return [each["name"] for each in rule["backendRefs"]]


# --- nothing to decide from ---------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"requestsPerSecond": 0}, id="no users ever"),
        pytest.param({"usersUntilSeconds": 6}, id="users leave when the first step begins"),
        pytest.param({"usersUntilSeconds": 60}, id="users leave in the middle"),
    ],
)
def test_nothing_is_promoted_without_traffic(changes):
    manifest = a_manifest(step={"maxSeconds": 300, "minRequests": 0})
    result = simulate(manifest, a_world(**changes), 1)
    assert result.decision is Decision.INCONCLUSIVE


# --- the simulation itself ----------------------------------------------------------------


def test_the_same_seed_is_the_same_world():
    world = a_world(candidate=LESS_ACCURATE)
    assert simulate(MANIFEST, world, 7) == simulate(MANIFEST, world, 7)
    assert simulate(MANIFEST, world, 7) != simulate(MANIFEST, world, 8)


def test_more_runs_begin_with_the_same_ones():
    given = {"seed": 5, "jobs": 1}
    few, many = (list(results_of(MANIFEST, a_world(), runs=runs, **given)) for runs in (2, 3))
    assert many[:2] == few
    assert len(set(many)) == 3


@pytest.mark.parametrize("candidate", [{}, MORE_ERRORS])
def test_a_pass_changes_nothing_that_it_has_read(candidate):
    """So the store may hand out what it keeps; and all of it is JSON."""
    simulation = Simulation(MANIFEST, a_world(candidate=candidate), 3)
    stored = []
    simulation.store.written.append(lambda _, body: stored.append((body, as_json(body))))
    simulation.run()
    assert len(stored) > 50
    assert all(as_json(body) == text for body, text in stored)


def as_json(body):
    return json.dumps(body, allow_nan=False, default=lambda spec: spec.to_dict())
