"""Whole rollouts by the operator's own passes, in simulated worlds: what is decided, and how soon."""

from __future__ import annotations

from collections import Counter
from statistics import median

import pytest

from modelrollout.api.presets import TOLERANCE
from modelrollout.core.facts import as_seconds
from modelrollout.simulation.cluster import CANDIDATE, STABLE
from modelrollout.simulation.world import (
    BEGINNING,
    Decision,
    Scenario,
    Simulation,
    Version,
    simulate,
    simulated,
)
from modelrollout.stats import counts

EQUAL = Scenario()
MORE_ERRORS = Scenario(candidate=Version(error_rate=0.03))
SLOWER_TAIL = Scenario(candidate=Version(slow_share=0.05, slow_ms=400))
LESS_ACCURATE = Scenario(candidate=Version(accuracy=0.85))
GAP = (40.0, 100.0)
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
    results = simulated(EQUAL, runs=50)
    decided = told(capsys, "equal versions", results)
    # At a true rate of 1 %, more than 3 of 50 happen once in 600 times.
    assert decided["rolledBack"] <= 3
    assert decided["undecided"] == 0


@pytest.mark.parametrize(
    "scenario",
    [
        pytest.param(Scenario(drift=0.8, drift_seconds=120), id="a base rate that swings"),
        pytest.param(Scenario(scrape_seconds=5), id="scraped as seldom as looked at"),
        pytest.param(Scenario(scrape_seconds=15), id="scraped more seldom than looked at"),
    ],
)
def test_equal_versions_are_promoted_however_the_world_is_seen(scenario):
    decided = Counter(each.decision.value for each in simulated(scenario, runs=4))
    # At 1 % each: not one of the three worlds in 200.
    assert decided["rolledBack"] <= 1
    assert decided["undecided"] == 0


@pytest.mark.parametrize(
    ("scenario", "culprit"),
    [
        pytest.param(MORE_ERRORS, "errors", id="1 % to 3 % errors"),
        pytest.param(SLOWER_TAIL, "latency", id="5 % of the answers 400 ms later"),
        pytest.param(LESS_ACCURATE, "accuracy", id="97 % to 85 % accuracy"),
    ],
)
def test_a_worse_candidate_is_always_rolled_back_and_the_culprit_named(scenario, culprit, capsys):
    results = simulated(scenario, runs=10)
    decided = told(capsys, f"worse {culprit}", results)
    assert decided == {"rolledBack": 10}
    assert all(f"{culprit}: candidate" in each.reason for each in results)


# --- disturbances -------------------------------------------------------------------------


def after(scenario, seed):
    """The simulation when it is over, and its result."""
    simulation = Simulation(scenario, seed)
    return simulation, simulation.run()


def steps_of(simulation):
    """Of each step that was judged: its start, and the last stored evidence about errors."""
    found, start = {}, None
    for _, status in simulation.store.statuses:
        # The pass that leaves a step counts its last window, and the next one has no start yet.
        if "stepStartTime" in status:
            start = as_seconds(status["stepStartTime"])
        for each in status.get("checkpoint", []):
            if each["name"] == "errors" and each.get("windows"):
                found[start] = each
    return found


def deltas_of(simulation):
    """(begin, end, version, requests, errors) between the scrapes of the gateway's pods."""
    source, metric = simulation.prometheus, "envoy_cluster_upstream_rq_xx"
    for pod in range(simulation.traffic.pods):
        times = source.scrapes(pod)
        for version in (0, 1):
            cluster = {"envoy_cluster_name": f"httproute/shop/ranker/rule/0/backend/{version}"}
            n = source.sums(pod, metric, **cluster)
            k = source.sums(pod, metric, **cluster, envoy_response_code_class="5")
            for index in range(1, len(times)):
                begin, end = times[index - 1 : index + 1]
                more = n[index] - n[index - 1], k[index] - k[index - 1]
                yield begin, end, version, *more


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
        more = counts.log_harm(
            [counts.Sample(*each) for each in windows], counts.Bound(*TOLERANCE.numbers())
        )
        harm = [old + new for old, new in zip(harm, more, strict=True)]
        assert stored["harm"][0] == pytest.approx(harm, abs=1e-4)


def evidence_by_watermark(simulation):
    """All evidence about errors in the first step."""
    return {
        each["watermark"]: each
        for _, status in simulation.store.statuses
        if status.get("step") == 0
        for each in status.get("checkpoint", [])
        if each["name"] == "errors"
    }


@pytest.mark.parametrize("scenario", [EQUAL, MORE_ERRORS])
def test_undisturbed_evidence_is_what_the_scrapes_say(scenario):
    simulation, _ = after(scenario, 1)
    assert_counted_once(simulation)


def with_changes(scenario, **changes):
    return Scenario(candidate=scenario.candidate, **changes)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("scenario", [EQUAL, MORE_ERRORS])
def test_a_gap_hides_what_happened_in_it_and_changes_nothing_else(scenario, seed):
    undisturbed, expected = after(scenario, seed)
    simulation, result = after(with_changes(scenario, gaps=(GAP,)), seed)
    assert result.decision is expected.decision
    assert_counted_once(simulation)
    whole, seen = evidence_by_watermark(undisturbed), evidence_by_watermark(simulation)
    before = [mark for mark in seen if mark < BEGINNING + GAP[0]]
    assert before
    assert all(seen[mark] == whole[mark] for mark in before)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("scenario", [EQUAL, MORE_ERRORS])
def test_what_nobody_could_ask_for_a_while_is_counted_afterwards(scenario, seed):
    undisturbed, expected = after(scenario, seed)
    simulation, result = after(with_changes(scenario, silences=(GAP,)), seed)
    assert result.decision is expected.decision
    assert_counted_once(simulation)
    whole, seen = evidence_by_watermark(undisturbed), evidence_by_watermark(simulation)
    common = [mark for mark in seen.keys() & whole.keys() if mark > BEGINNING + GAP[1]]
    assert all(seen[mark]["candidate"] == whole[mark]["candidate"] for mark in common)


@pytest.mark.parametrize("restart_seconds", [0.5, 13])
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("scenario", [EQUAL, MORE_ERRORS])
def test_crashes_between_writes_neither_lose_evidence_nor_count_it_twice(
    scenario, seed, restart_seconds
):
    undisturbed, expected = after(scenario, seed)
    changes = {"crash_share": 0.2, "crash_from": 6.0, "restart_seconds": restart_seconds}
    simulation, result = after(with_changes(scenario, **changes), seed)
    assert simulation.crashes > 5
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
@pytest.mark.parametrize("scenario", [EQUAL, SLOWER_TAIL])
def test_crashes_from_the_very_first_write_on_leave_the_safe_side_true(scenario, seed):
    simulation, result = after(with_changes(scenario, crash_share=0.25, restart_seconds=3), seed)
    is_good = scenario is EQUAL
    assert result.decision is (Decision.PROMOTED if is_good else Decision.ROLLED_BACK)
    assert simulation.traffic.services == [CANDIDATE if is_good else STABLE]
    assert not simulation.rollout["metadata"]["finalizers"]
    assert all(has_finalizer for share, has_finalizer in simulation.shifts if share > 1e-3)
    assert "Drift" not in {each["reason"] for each in simulation.store.events}


# --- nothing to decide from ---------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"requests_per_second": 0.0}, id="no users ever"),
        pytest.param({"users_until": 6.0}, id="users leave when the first step begins"),
        pytest.param({"users_until": 60.0}, id="users leave in the middle"),
    ],
)
def test_nothing_is_promoted_without_traffic(changes):
    step = {"maxSeconds": 300, "minRequests": 0}
    result = simulate(Scenario(step=step, limit_seconds=900, **changes), 1)
    assert result.decision is Decision.UNDECIDED


def test_the_same_seed_is_the_same_world():
    assert simulate(LESS_ACCURATE, 7) == simulate(LESS_ACCURATE, 7)
    assert simulate(LESS_ACCURATE, 7) != simulate(LESS_ACCURATE, 8)
