"""What an A/B test tells: its groups, its users, and who should have got whom."""

from __future__ import annotations

import numpy as np
import pytest

from builders import a_rollout, a_workload
from modelrollout.api.conditions import Reason
from modelrollout.api.v1alpha1 import Phase, SplitUnit
from modelrollout.core.evidence import Counts, Kind, Reading, Window
from modelrollout.core.measures import users_query
from modelrollout.core.traffic_split import UNCHECKED, users_from
from modelrollout.stats.binomial import chance_above
from walk import BAD, Walk

USERS = {"metric": "exposures_total", "matchers": [{"label": "test", "value": "ranker"}]}
EVEN = ((250.0, 4.0), (250.0, 4.0))


def ab_test(users=USERS, steps=None, **strategy):
    sticky = {"header": "x-user"} | ({"users": users} if users else {})
    steps = steps or [{"weight": 50, "minRequests": 10}]
    return Walk(
        spec={
            "traffic": {"gatewayAPI": {"route": "ranker"}, "sticky": sticky},
            "strategy": {"type": "ABTest", "steps": steps, "bake": {"seconds": 10}, **strategy},
        }
    )


def begun(walk):
    for _ in range(20):
        if walk.step(traffic=None, blind="not yet").status.step_start_time:
            return walk
    raise AssertionError(walk.status.reason)


def counted(walk, stable, candidate, count=1, traffic=EVEN, first=5.0):
    """Passes that see so many new users of each version, from `first` seconds into the step."""
    for _ in range(count):
        start = max(walk.now, walk.now + first)
        row = Window(
            start=start,
            end=start + 5,
            stable=Counts(n=stable, k=(0.0,)),
            candidate=Counts(n=candidate, k=(0.0,)),
        )
        walk.step(users=Reading(windows=(row,), watermark=start + 5), traffic=traffic)
    return walk


def history(walk):
    return {each.what: each.message for each in walk.status.history}


# --- users ----------------------------------------------------------------------------------


def test_users_that_are_shared_out_as_asked_are_counted_and_no_mismatch():
    walk = counted(begun(ab_test()), 40.0, 41.0, 3)
    split = walk.status.split
    assert (split.unit, split.stable, split.candidate) == (SplitUnit.USERS, 120, 123)
    assert split.until_time is not None
    assert split.mismatch_time is None


def test_users_that_are_shared_out_otherwise_hold_the_test_and_it_says_so():
    walk = begun(ab_test(steps=[{"weight": 50, "minSeconds": 3600, "maxSeconds": 7200}]))
    counted(walk, 200.0, 100.0, 5)
    assert walk.status.split.mismatch_time is not None
    assert "the candidate got 33.33 % of 1,500 users instead of 50 %" in walk.status.reason
    health = {each.type: each for each in walk.status.conditions}["Healthy"]
    assert health.reason == Reason.SPLIT_MISMATCH


def test_users_who_came_while_proxies_took_up_the_weight_are_left_out():
    walk = counted(begun(ab_test()), 200.0, 10.0, first=0.0)
    assert (walk.status.split.stable, walk.status.split.candidate) == (0, 0)


def test_that_users_cannot_be_counted_is_said_and_decides_nothing():
    walk = begun(ab_test())
    walk.step(users=Reading(watermark=walk.now, blind="no series of exposures_total"))
    assert walk.status.split.message == "no series of exposures_total"
    assert walk.status.phase is Phase.PROGRESSING
    assert counted(walk, 10.0, 10.0).status.split.message is None


def test_without_a_counter_of_users_the_assignment_is_not_checked_and_it_says_what_to_add():
    walk = begun(ab_test(users=None))
    assert walk.status.split is None
    assert UNCHECKED in walk.status.warnings
    told = [note.reason for plan in walk.plans for note in plan.notes]
    assert told.count("AssignmentNotChecked") == 1
    assert "traffic.sticky.users" in UNCHECKED


def test_with_a_counter_of_users_nothing_is_missing():
    assert begun(ab_test()).status.warnings == ()


def spec_of(users, *weights):
    traffic = {"gatewayAPI": {"route": "ranker"}, "sticky": {"header": "x-user", "users": users}}
    steps = [{"weight": each} for each in weights]
    return a_rollout(traffic=traffic, strategy={"steps": steps}).spec


def test_users_who_count_once_are_counted_at_the_first_weight_only():
    spec = spec_of(USERS, 5, 20)
    assert users_from(spec, 5, 100.0) == 105.0
    assert users_from(spec, 20, 100.0) is None
    assert users_from(spec, 100, 100.0) is None


def test_users_who_count_again_are_counted_from_then_on_at_each_weight():
    spec = spec_of(USERS | {"repeatSeconds": 86_400}, 5, 20)
    assert users_from(spec, 5, 100.0) == users_from(spec, 20, 100.0) == 86_500.0


@pytest.mark.parametrize(
    ("label", "matcher"),
    [
        (None, ("pod", "(?:ranker\\-v2\\-abc)-[a-z0-9]{5}")),
        ("model_version", ("model_version", "ranker-v2")),
    ],
)
def test_users_are_told_apart_as_requests_are(label, matcher):
    spec = spec_of(USERS | ({"versionLabel": label} if label else {}), 50)
    given = spec.traffic.sticky.users
    query = users_query(given, "shop", a_workload("ranker-v1"), a_workload("ranker-v2"))
    assert query.kind is Kind.PROPORTION
    assert query.total.metric == "exposures_total"
    assert [(each.label, each.value) for each in query.total.matchers] == [("test", "ranker")]
    assert (query.candidate[1].label, query.candidate[1].value) == matcher


# --- what is told ---------------------------------------------------------------------------


def test_the_outcome_of_each_group_is_in_status():
    walk = counted(begun(ab_test()), 40.0, 40.0, 2)
    (errors,) = walk.status.guardrails
    assert (errors.stable.requests, errors.candidate.requests) == (500, 500)
    assert errors.interval.kind == "Difference"
    assert float(errors.interval.lower) < 0 < float(errors.interval.upper)
    assert errors.chance_to_beat == "0.500"
    assert errors.needed_users == pytest.approx(errors.needed * 80 / 500, abs=1)


def test_other_strategies_tell_no_chance():
    walk = Walk()
    for _ in range(10):
        walk.step()
    assert walk.status.guardrails[0].chance_to_beat is None
    assert "Compared" not in history(walk)


def test_an_ab_test_that_passes_leaves_its_outcome_in_the_history_once():
    walk = begun(ab_test())
    counted(walk, 40.0, 40.0, 12)
    walk.until(Phase.PROMOTED)
    found = [each.message for each in walk.status.history if each.what == "Compared"]
    assert len(found) == 1
    for part in (
        "errors: Pass",
        "candidate 0.016 of",
        "difference -0.0",
        "chance to beat stable 0.500",
        "users: candidate",
    ):
        assert part in found[0]
    assert found[0] in history(walk)["Promoted"]


def test_a_human_who_is_asked_is_told_the_outcome():
    walk = begun(ab_test(onPass="Hold"))
    counted(walk, 40.0, 40.0, 12)
    plan = walk.until(Phase.PAUSED, traffic=EVEN)
    assert "waits for approval at 50 %" in plan.status.reason
    assert "chance to beat stable 0.500" in plan.status.reason


def test_an_ab_test_that_is_lost_says_how():
    walk = begun(ab_test())
    counted(walk, 40.0, 40.0, 1)
    walk.until(Phase.ROLLED_BACK, traffic=BAD)
    assert "chance to beat stable 0.0" in history(walk)["GuardrailBreached"]


# --- the chance -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"), [((120, 1000), (100, 1000)), ((0, 10), (3, 40)), ((9000, 10000), (89, 100))]
)
def test_the_chance_is_that_of_draws_from_both_posteriors(one, other):
    generator = np.random.default_rng(20261121)
    draws = [generator.beta(k + 1, n - k + 1, 200_000) for k, n in (one, other)]
    assert chance_above(one, other) == pytest.approx((draws[0] > draws[1]).mean(), abs=0.005)


def test_of_two_that_are_alike_neither_is_ahead():
    assert chance_above((7, 90), (7, 90)) == pytest.approx(0.5, abs=1e-6)


def test_more_events_than_requests_have_no_chance():
    with pytest.raises(ValueError, match="cannot come of"):
        chance_above((3, 2), (1, 2))
