"""A warm-up by requests: so many of the candidate's answers are evidence for nobody."""

from __future__ import annotations

import asyncio

import pytest

from builders import ERRORS, a_rollout, a_spec, an_observation
from modelrollout.api.v1alpha1 import Analysis, Phase, Verdict
from modelrollout.core.evidence import Counts, Reading, Window
from modelrollout.core.measures import can_count
from modelrollout.core.observation import Level
from modelrollout.core.times import as_seconds
from modelrollout.errors import MetricsUnavailable
from modelrollout.metrics import with_metrics
from modelrollout.world import World
from walk import BAD, Walk

LATENCY = {"name": "latency", "distribution": {"histogram": {"metric": "seconds"}}}
LATE = ERRORS | {"name": "late", "delaySeconds": 60}
MEMORY = {"name": "memory", "limit": {"query": "max(x)", "max": "1", "forSeconds": 0}}


def warming(*guardrails, requests=200, **strategy):
    steps = [{"weight": 10, "minRequests": 10, "maxSeconds": 600}, {"weight": 50}]
    analysis = a_spec()["analysis"] | {"guardrails": list(guardrails or (ERRORS,))}
    given = {"steps": steps, "warmupRequests": requests, "bake": {"seconds": 10}} | strategy
    return Walk(spec={"strategy": given, "analysis": analysis})


def begun(walk, **seen):
    for _ in range(20):
        if walk.step(**seen).status.step_start_time:
            return walk
    raise AssertionError(walk.status.reason)


def answered(walk, requests, seconds=5, **seen):
    """A pass that sees so many requests of the candidate, and that they all failed."""
    row = Window(
        start=walk.now,
        end=walk.now + seconds,
        stable=Counts(n=9 * requests, k=(0.0,)),
        candidate=Counts(n=requests, k=(requests,)),
    )
    read = Reading(windows=(row,), watermark=walk.now + seconds)
    return walk.step(seconds=seconds, warmup=read, measures=(), **seen)


def test_the_first_requests_are_counted_and_no_evidence():
    walk = begun(warming())
    for count in (50, 100, 150):
        plan = answered(walk, 50.0)
        assert plan.status.warmup.requests == count
        assert f"warms up: {count} of 200 requests" in plan.status.reason
        assert plan.status.phase is Phase.PROGRESSING
    assert all(sum(map(sum, each.harm)) == 0 for each in walk.status.checkpoint)


def test_the_step_begins_with_the_request_after_them():
    walk = begun(warming())
    for _ in range(4):
        answered(walk, 50.0)
    assert walk.status.warmup is None
    assert as_seconds(walk.status.step_start_time) == walk.now
    assert as_seconds(walk.status.step_deadline_time) == walk.now + 600
    walk.until(Phase.PROMOTED)


def test_what_is_bad_after_them_is_found_out():
    walk = begun(warming())
    for _ in range(4):
        answered(walk, 50.0)
    walk.until(Phase.ROLLED_BACK, traffic=BAD)


def test_only_the_first_share_is_warmed_up():
    walk = begun(warming(requests=10))
    answered(walk, 50.0)
    walk.until(Phase.PROMOTED)
    assert [plan.status.warmup for plan in walk.plans if plan.status.weight.wanted >= 50] == [
        None for plan in walk.plans if plan.status.weight.wanted >= 50
    ]


def test_requests_that_do_not_come_by_the_deadline_are_undecided_and_limits_prove_nothing():
    walk = begun(warming(ERRORS, MEMORY), levels={"memory": Level(value=0.5)})
    for _ in range(20):
        plan = answered(walk, 1.0, seconds=60, levels={"memory": Level(value=0.5)})
        if plan.status.pause:
            break
    assert plan.status.weight.wanted == 10
    assert "not decided in 600 s at 10 %; warms up:" in plan.status.reason


def test_a_limit_that_fails_in_the_warm_up_rolls_back():
    walk = begun(warming(ERRORS, MEMORY), levels={"memory": Level(value=0.5)})
    plan = answered(walk, 50.0, levels={"memory": Level(value=2.0)})
    assert plan.status.verdict is Verdict.FAIL
    assert plan.status.candidate is None


def test_that_requests_cannot_be_counted_is_said():
    walk = begun(warming())
    plan = walk.step(warmup=Reading(watermark=walk.now, blind="no series"), measures=())
    assert plan.status.reason == "warms up: 0 of 200 requests of the candidate; no series"


def test_a_step_that_is_skipped_takes_its_warm_up_with_it():
    walk = begun(warming())
    assert walk.step(command="skip-step", measures=()).status.warmup is None


def test_seconds_come_first():
    walk = begun(warming(warmupSeconds=60))
    assert as_seconds(walk.status.warmup.until_time) == walk.now + 60


def test_where_nothing_is_compared_nothing_is_counted():
    walk = warming(MEMORY, type="BlueGreen", steps=[{"weight": 100}])
    begun(walk, levels={"memory": Level(value=0.5)})
    assert walk.status.warmup is None


@pytest.mark.parametrize(
    ("guardrails", "is_mirror", "expected"),
    [
        ([ERRORS], False, True),
        ([LATENCY], False, False),
        ([LATE], False, False),
        ([LATENCY, ERRORS], False, True),
        ([{"name": "e", "preset": "envoy/errors"}], False, True),
        ([{"name": "e", "preset": "envoy/errors"}], True, False),
        ([{"name": "e", "preset": "comparator/errors"}], True, True),
        ([{"name": "e", "preset": "comparator/errors"}], False, False),
    ],
)
def test_requests_are_counted_by_whoever_counts_them_in_this_step(guardrails, is_mirror, expected):
    analysis = Analysis.model_validate({"guardrails": guardrails})
    assert can_count(analysis, is_mirror=is_mirror) is expected


class Source:
    """A Prometheus that keeps what it was asked."""

    def __init__(self, *, is_away=False):
        self.asked, self.is_away = [], is_away

    async def read(self, query, grid, now):
        if self.is_away:
            raise MetricsUnavailable("away")
        self.asked.append((query, grid))
        return Reading(watermark=now)


def observed(walk, source, seconds=5):
    walk.now += seconds
    world = World(
        cluster=None,
        metrics={"default": source},
        router=None,
        comparators=None,
        checker=None,
        clock=lambda: walk.now,
    )
    rollout = a_rollout(walk.status, **walk.spec)
    return asyncio.run(with_metrics(rollout, walk.status, an_observation(walk.now), None, world))


def test_nothing_but_the_requests_is_asked_of_the_metrics():
    walk, source = begun(warming()), Source()
    seen = observed(walk, source)
    [(query, grid)] = source.asked
    assert query.name == "errors"
    assert query.total.metric == "model_requests_total"
    assert grid.watermark == as_seconds(walk.status.step_start_time)
    assert (seen.measures, seen.readings) == ((), {})
    assert seen.warmup.watermark == walk.now


def test_metrics_that_are_away_are_told():
    assert observed(begun(warming()), Source(is_away=True)).warmup.blind == "away"
