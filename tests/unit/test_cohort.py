"""A cohort's requests are told apart, told, and compared with nothing."""

from __future__ import annotations

import asyncio

import pytest

from builders import ERRORS, a_rollout, a_workload, an_observation
from modelrollout.adapters.routers.gateway_api.route import Aim, in_the_end, split_of
from modelrollout.api.traffic import CohortMember, Sticky
from modelrollout.api.v1alpha1 import Analysis, Phase
from modelrollout.core.evidence import Counts, Matcher, Reading, Split, Window
from modelrollout.core.measures import cohort_query
from modelrollout.core.plan import Backend, Traffic
from modelrollout.metrics import with_metrics
from modelrollout.world import World
from walk import Walk

BETA = CohortMember(header="x-beta", value="1")
AT_GATEWAY = {"name": "errors", "preset": "envoy/errors"}
COHORT = {"traffic": {"gatewayAPI": {"route": "ranker"}, "cohort": [BETA.to_dict()]}}
SPLIT = Split(
    stable=(Matcher(label="envoy_cluster_name", value="a"),),
    candidate=(Matcher(label="envoy_cluster_name", value="b"),),
    cohort=(Matcher(label="envoy_cluster_name", value="c"),),
)


@pytest.mark.parametrize("sticky", [None, Sticky(header="x-user")])
def test_the_cohorts_rule_has_a_cluster_that_neither_version_has(sticky):
    refs = [{"group": "", "kind": "Service", "name": "v1", "port": 80, "weight": 1}]
    route = {
        "metadata": {"name": "r", "namespace": "shop"},
        "spec": {"rules": [{"backendRefs": refs}]},
    }
    traffic = Traffic(
        stable=Backend(service="v1", label="v1"),
        candidate=Backend(service="v2", label="v2"),
        weight=20,
        port=80,
        cohort=(BETA,),
        sticky=sticky,
    )
    aim = Aim(rollout="ranker", rule=None, traffic=traffic)
    split = split_of(in_the_end(route, aim), aim)
    clusters = [matchers[0].value for matchers in (split.stable, split.candidate, split.cohort)]
    assert clusters[2] == "httproute/shop/r/rule/1/backend/0"
    assert len(set(clusters)) == 3
    # Before its rule is on the route nobody is counted.
    assert split_of(route, aim).cohort == ()


def test_requests_and_errors_of_the_cohorts_cluster_are_asked_for():
    query = cohort_query(Analysis.model_validate({"guardrails": [AT_GATEWAY]}), SPLIT)
    assert query.candidate == SPLIT.cohort
    assert query.total.metric == "envoy_cluster_upstream_rq_xx"
    assert [each.value for each in query.events.matchers] == ["5"]


@pytest.mark.parametrize(
    ("guardrail", "split"),
    [(ERRORS, SPLIT), (AT_GATEWAY, None), (AT_GATEWAY, Split(stable=(), candidate=()))],
    ids=["counted in the pods", "no metrics of the gateway", "no cohort"],
)
def test_where_the_gateway_does_not_tell_them_apart_nothing_is_asked(guardrail, split):
    assert cohort_query(Analysis.model_validate({"guardrails": [guardrail]}), split) is None


class Source:
    """A Prometheus that keeps what it was asked."""

    def __init__(self):
        self.asked = {}

    async def read(self, query, grid, now):
        self.asked[query.name] = query, grid
        return Reading(watermark=now)


def test_it_is_asked_for_while_users_are_on_both_versions():
    analysis = {"guardrails": [AT_GATEWAY]}
    walk, source = Walk(spec=COHORT | {"analysis": analysis}), Source()
    for _ in range(8):
        walk.step(measures=())
    assert walk.status.step_start_time
    rollout = a_rollout(walk.status, **walk.spec)
    world = World(
        cluster=None,
        metrics={"default": source},
        router=None,
        comparators=None,
        checker=None,
        clock=lambda: walk.now,
    )
    seen = asyncio.run(
        with_metrics(rollout, walk.status, an_observation(walk.now + 5), SPLIT, world)
    )
    assert "cohort" in source.asked
    assert seen.cohort.watermark == walk.now + 5


def counted(walk, requests, errors):
    row = Window(
        start=walk.now,
        end=walk.now + 5,
        stable=Counts(n=0.0, k=(0.0,)),
        candidate=Counts(n=requests, k=(errors,)),
    )
    return walk.step(cohort=Reading(windows=(row,), watermark=walk.now + 5))


def test_what_members_got_is_added_up_over_the_steps_and_decides_nothing():
    walk = Walk(spec=COHORT)
    while walk.status.phase is not Phase.PROMOTED:
        counted(walk, 100.0, 100.0)
        assert walk.status.rejected is None
    found = walk.status.cohort
    assert found.requests == found.errors > 500
    weights = {plan.status.weight.wanted for plan in walk.plans if plan.status.cohort}
    assert weights >= {10, 50}


def test_another_candidate_begins_with_nothing():
    walk = Walk(spec=COHORT)
    while not walk.status.cohort:
        counted(walk, 100.0, 1.0)
    for _ in range(3):
        walk.step(candidate=a_workload("ranker-v2", "c2"))
    assert walk.status.cohort is None


def test_that_members_cannot_be_counted_is_said():
    walk = Walk(spec=COHORT)
    blind = Reading(watermark=walk.now, blind="no series")
    for _ in range(10):
        walk.step(cohort=blind)
    assert walk.status.cohort.message == "no series"
