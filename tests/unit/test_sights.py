"""A pass takes over what the one before has seen, and sees the same as one that looks at all anew."""

from __future__ import annotations

import asyncio
import copy
from dataclasses import replace

import pytest

from builders import NOW, a_spec
from modelrollout.adapters.cluster import (
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    HTTP_ROUTES,
    REPLICA_SETS,
    ROLLOUTS,
    SERVICES,
)
from modelrollout.adapters.routers.gateway_api import GatewayAPIRouter
from modelrollout.api import v1alpha1 as api
from modelrollout.core.plan import Backend, Mirror, Traffic, traffic_of
from modelrollout.drafts import NOTHING_SEEN, Drafts
from modelrollout.observe import observe, rollout_of
from modelrollout.reconcile import reconcile
from modelrollout.simulation.cluster import Store, accepted, furnish
from modelrollout.world import World

KEY = ("shop", "ranker")
PODS = (3, 2)


class Site:
    """A namespace in which a candidate has 20 % of requests, and an operator that looks at it."""

    def __init__(self):
        self.now = NOW
        self.store = Store(clock=lambda: self.now, disturb=lambda: None)
        meta = {"name": "ranker", "namespace": "shop"}
        furnish(self.store, {"metadata": meta, "spec": a_spec()}, PODS)
        self.world = World(
            cluster=self.store,
            metrics={"default": None},
            router=GatewayAPIRouter(self.store, lambda: self.now),
            comparators=None,
            checker=None,
            clock=lambda: self.now,
        )
        seen = self.look()
        weight = api.WeightStatus(wanted=20)
        on_trial = {"stable": seen.stable.version, "candidate": seen.candidate.version}
        status = api.ModelRolloutStatus(**on_trial, weight=weight, step=0)
        self.change(ROLLOUTS, "ranker", status=status.to_dict())
        self.settle()

    @property
    def rollout(self):
        """The ModelRollout as read."""
        return rollout_of(self.store.live(ROLLOUTS, "ranker"))

    def settle(self):
        """The route says what status intends, and the gateway has taken it up."""
        rollout = self.rollout
        traffic = traffic_of(rollout.status, rollout.spec, rollout.name)
        for _ in range(5):
            asyncio.run(self.world.router.set_traffic(rollout, traffic, None))
            generation = self.store.live(HTTP_ROUTES, "ranker")["metadata"]["generation"]
            self.change(HTTP_ROUTES, "ranker", status=accepted(generation))
            self.now += 10

    def look(self):
        """What a pass sees."""
        return asyncio.run(observe(self.rollout, self.world))

    def look_anew(self):
        """What the first pass of a process sees."""
        return asyncio.run(observe(self.rollout, replace(self.world, drafts=Drafts())))

    def change(self, resource, name, **parts):
        """Write parts of an object; another spec is another generation."""
        known = self.store.live(resource, name)
        is_new = "spec" in parts and parts["spec"] != known.get("spec")
        generation = known["metadata"].get("generation", 0) + is_new
        meta = {**known["metadata"], **parts.pop("metadata", {}), "generation": generation}
        self.store.put(resource, {**known, **parts, "metadata": meta})

    def edit(self, resource, name, path, value):
        """Write one field of a spec."""
        known = self.store.live(resource, name)["spec"]
        spec = known.to_dict() if resource == ROLLOUTS else copy.deepcopy(known)
        *parents, last = path
        place = spec
        for each in parents:
            place = place[each]
        place[last] = value
        self.change(resource, name, spec=spec)

    def remove(self, resource, name):
        """Delete an object."""
        asyncio.run(self.store.delete(resource, "shop", name))


@pytest.fixture
def site():
    """Fresh for each test."""
    return Site()


def test_what_nobody_has_written_is_not_looked_at_twice(site):
    first, second = site.look(), site.look()

    assert first.route.is_settled
    assert second == first
    assert second.candidate is first.candidate
    assert second.stable is first.stable


CHANGES = {
    "another image of stable": lambda it: it.edit(
        DEPLOYMENTS, "ranker-v1", ["template", "spec", "containers"], [{"image": "other"}]
    ),
    "fewer pods wanted": lambda it: it.edit(DEPLOYMENTS, "ranker-v2", ["replicas"], 1),
    "a pod that is not available": lambda it: it.change(
        DEPLOYMENTS,
        "ranker-v2",
        status={"observedGeneration": 1, "updatedReplicas": 2, "availableReplicas": 1},
    ),
    "a ReplicaSet of somebody else": lambda it: it.change(
        REPLICA_SETS, "ranker-v2-7c9d5b8f64", metadata={"ownerReferences": []}
    ),
    "a pod that is not ready": lambda it: it.change(ENDPOINT_SLICES, "ranker-v2", endpoints=[{}]),
    "no endpoints at all": lambda it: it.remove(ENDPOINT_SLICES, "ranker-v1"),
    "another port of a Service": lambda it: it.edit(
        SERVICES, "ranker-v2", ["ports"], [{"port": 9090}]
    ),
    "a Service that is gone": lambda it: it.remove(SERVICES, "ranker-v2"),
    "a Deployment that is gone": lambda it: it.remove(DEPLOYMENTS, "ranker-v2"),
    "weights by hand": lambda it: it.edit(
        HTTP_ROUTES, "ranker", ["rules", 0, "backendRefs", 0, "weight"], 50
    ),
    "a rule more": lambda it: it.edit(HTTP_ROUTES, "ranker", ["rules"], [{}, {}]),
    "a gateway that refuses": lambda it: it.change(HTTP_ROUTES, "ranker", status={}),
    "a route that is gone": lambda it: it.remove(HTTP_ROUTES, "ranker"),
    "another port of the versions": lambda it: it.edit(ROLLOUTS, "ranker", ["port"], 9090),
    "another rule of the route": lambda it: it.edit(
        ROLLOUTS, "ranker", ["traffic", "gatewayAPI", "rule"], "other"
    ),
    "another weight": lambda it: it.change(
        ROLLOUTS, "ranker", status={**it.rollout.status.to_dict(), "weight": {"wanted": 50}}
    ),
    "nothing on trial": lambda it: it.change(
        ROLLOUTS, "ranker", status={**it.rollout.status.to_dict(), "weight": {"wanted": 0}}
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_change_is_seen_by_the_next_pass(site, change):
    before = site.look()
    change(site)
    seen = site.look()

    assert seen != before
    assert seen == site.look_anew()


@pytest.mark.parametrize(
    "more",
    [
        {"sticky": api.Sticky(header="x-user-id"), "salt": "s"},
        {"cohort": (api.CohortMember(header="x-beta", value="1"),)},
        {"candidate": None, "weight": 0, "mirror": Mirror(service="copies", port=1, percent=10)},
        {"candidate": None, "weight": 0},
    ],
    ids=["sticky users", "a cohort", "a mirror", "rest"],
)
def test_where_more_than_the_route_counts_it_is_looked_at_each_time(site, more):
    versions = [Backend(service=each, label=each) for each in ("ranker-v1", "ranker-v2")]
    by_weight = Traffic(stable=versions[0], candidate=versions[1], weight=20, port=8080)
    router = site.world.router

    assert asyncio.run(router.observe(site.rollout, by_weight)).drawn_from
    assert not asyncio.run(router.observe(site.rollout, replace(by_weight, **more))).drawn_from


def test_nothing_is_kept_of_a_rollout_that_is_gone(site):
    site.look()
    drafts = site.world.drafts
    assert drafts.sight_of(KEY) != NOTHING_SEEN

    site.remove(ROLLOUTS, "ranker")
    asyncio.run(reconcile(KEY, site.world))

    assert drafts.sight_of(KEY) == NOTHING_SEEN


def test_nothing_is_kept_of_a_rollout_at_rest(site):
    site.look()
    meta = site.store.live(ROLLOUTS, "ranker")["metadata"]
    at_rest = site.rollout.status.model_copy(update={"candidate": None})
    site.world.drafts.stored(meta, at_rest, NOW)

    assert site.world.drafts.sight_of(KEY) == NOTHING_SEEN
