"""A candidate that is as good as stable, but for the first requests of each of its pods."""

from __future__ import annotations

import pytest

from modelrollout.simulation.rollout import Decision
from simulation.worlds import POD_ERRORS, a_manifest, a_world, simulated

RUNS = 3


def decisions(**warmup):
    manifest = a_manifest(POD_ERRORS, steps=(20,))
    manifest["spec"]["strategy"] |= warmup
    cold = {"warmupRequests": 400, "errorRate": 0.02, "pods": 2}
    world = a_world(stable={"errorRate": 0.02}, candidate=cold, requestsPerSecond=100)
    return {each.decision for each in simulated(manifest, world, RUNS)}


def test_without_a_warm_up_its_cold_pods_are_held_against_it():
    assert decisions() == {Decision.ROLLED_BACK}


@pytest.mark.parametrize("warmup", [{"warmupRequests": 1000}, {"warmupSeconds": 60}])
def test_with_a_warm_up_they_are_not(warmup):
    assert decisions(**warmup) == {Decision.PROMOTED}
