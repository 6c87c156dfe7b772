"""An operator that may run no comparators says so, and touches nothing."""

from __future__ import annotations

from modelrollout.adapters.cluster import HTTP_ROUTES, ROLLOUTS
from modelrollout.adapters.comparator import NoComparators
from modelrollout.adapters.routers.gateway_api import GatewayAPIRouter
from modelrollout.reconcile import reconcile
from modelrollout.simulation.cluster import Store, furnish
from modelrollout.simulation.loop import InstantLoop
from modelrollout.world import World

NOW = 1_800_000_000.0
SHADOW = {
    "intent": "Equivalence",
    "idempotent": True,
    "paths": ["/v2/models"],
    "format": "OpenInference",
}


def manifest(**spec):
    guardrails = [{"name": "flips", "preset": "comparator/flips"}]
    if "shadow" not in spec:
        guardrails = [{"name": "errors", "preset": "envoy/errors"}]
    return {
        "metadata": {"name": "ranker", "namespace": "shop"},
        "spec": {
            "candidate": {"deployment": "ranker-v2"},
            "stable": {"deployment": "ranker-v1"},
            "port": 8080,
            "traffic": {"gatewayAPI": {"route": "ranker"}},
            "analysis": {"guardrails": guardrails},
            **spec,
        },
    }


def accepted(given):
    """The condition after two passes, and the route then."""
    store = Store(clock=lambda: NOW, disturb=lambda: None)
    furnish(store, given, (2, 2))
    world = World(
        cluster=store,
        metrics={"default": None},
        router=GatewayAPIRouter(store, lambda: NOW),
        comparators=NoComparators(),
        checker=None,
        clock=lambda: NOW,
    )
    for _ in range(2):
        InstantLoop().run(reconcile(("shop", "ranker"), world))
    conditions = store.live(ROLLOUTS, "ranker")["status"]["conditions"]
    (found,) = [each for each in conditions if each["type"] == "Accepted"]
    return found, str(store.live(HTTP_ROUTES, "ranker")["spec"])


def test_mirror_steps_are_refused_with_a_sentence():
    steps = {"type": "Shadow", "steps": [{"mirror": 20}], "onPass": "Hold"}
    found, route = accepted(manifest(strategy=steps, shadow=SHADOW))

    assert (found["status"], found["reason"]) == ("False", "ComparatorNotReady")
    assert "shadow.enabled" in found["message"]
    assert "RequestMirror" not in route
    assert "ranker-v2" not in route


def test_without_mirror_steps_nothing_is_refused():
    found, _ = accepted(manifest())

    assert found["status"] == "True"
