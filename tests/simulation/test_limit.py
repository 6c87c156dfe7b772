"""The yardstick: which guardrail decides, and what the best method would need for it."""

from __future__ import annotations

import numpy as np
import pytest

from modelrollout.simulation.limit import limit_of
from modelrollout.simulation.rollout import checked
from modelrollout.stats.bounds import Bound
from modelrollout.stats.planning import Outlook, information_limit
from simulation.worlds import ACCURACY, ENVOY_ERRORS, LATENCY, a_manifest, a_world, simulated

PLAIN = ENVOY_ERRORS | {"tolerance": {"ratio": "1"}, "margin": {"ratio": "2"}}
LEVELS = {"falseRollbackRate": "0.05", "falsePromoteRate": "0.05"}


def limit(*guardrails, steps=(5,), **world):
    manifest = a_manifest(*guardrails, steps=steps, analysis=LEVELS)
    scenario = a_world(**world)
    return limit_of(*(checked(manifest, scenario)[0], scenario, checked(manifest, scenario)[1]))


@pytest.mark.parametrize(("rate", "expected"), [(0.02, 817), (0.05, 79.9)])
def test_a_worse_candidate_needs_what_the_tables_say(rate, expected):
    found = limit(PLAIN, candidate={"errorRate": rate})
    assert (found.is_rollback, found.guardrail) == (True, "errors")
    assert found.requests == pytest.approx(expected, rel=1e-3)


def test_equal_versions_need_the_margin_to_be_proved_in_each_step_with_a_gate():
    one, two = limit(PLAIN, steps=(5,)), limit(PLAIN, steps=(5, 50))
    assert not one.is_rollback
    assert one.requests == pytest.approx(1044, rel=1e-3)
    equal = Outlook(stable_rate=0.01, candidate_rate=0.01, weight=0.5)
    more = information_limit(equal, Bound(2), 0.05)
    assert two.requests == pytest.approx(one.requests + more)


def test_the_fastest_guardrail_rolls_back_and_the_slowest_lets_go_on():
    worse = {"errorRate": 0.03, "accuracy": 0.8}
    assert limit(PLAIN, ACCURACY, candidate=worse).guardrail == "accuracy"
    strict = PLAIN | {"margin": {"ratio": "1.2"}}
    assert limit(strict, ACCURACY).guardrail == "errors"
    assert limit(PLAIN, ACCURACY | {"required": False}).guardrail == "errors"


def test_a_slower_tail_is_looked_at_where_it_shows():
    shifted = {"tailShift": {"share": 0.05, "seconds": 0.4}}
    found = limit(LATENCY, candidate=shifted)
    assert found.is_rollback
    assert 10 < found.requests < 100


def test_where_lower_is_worse_the_good_answers_are_held_against_each_other():
    good = ACCURACY | {"direction": "LowerIsWorse", "tolerance": {"absolute": "0.01"}}
    found = limit(good | {"margin": {"absolute": "0.02"}}, candidate={"accuracy": 0.9})
    outlook = Outlook(stable_rate=0.97, candidate_rate=0.9, weight=0.05)
    expected = information_limit(outlook, Bound(1, 0.01), 0.05, lower_is_worse=True)
    assert found.requests == pytest.approx(expected)


def test_there_is_no_limit_where_shares_of_requests_do_not_decide():
    kills = {"name": "kills", "rate": {"events": {"metric": "killed_total"}}}
    own = {"kills": {"stable": 0.1, "candidate": 0.1}}
    assert limit(PLAIN, kills, guardrails=own) is None
    exactly = PLAIN | {"tolerance": {"ratio": "2"}}
    assert limit(exactly, candidate={"errorRate": 0.02}) is None


def test_the_engine_is_near_the_limit_in_the_simulated_world():
    """Twice the errors at 1 % and a weight of 5 %: at most 1.5 times, whole passes and all."""
    manifest = a_manifest(PLAIN, steps=(5,), step={"minRequests": 0}, analysis=LEVELS)
    world = a_world(candidate={"errorRate": 0.02}, requestsPerSecond=100, scrapeSeconds=5)
    requests = [each.candidate_requests for each in simulated(manifest, world, runs=30)]
    assert np.median(requests) <= 1.5 * 817
