"""What a pass asks about replica counts, where spec.scaling leaves them to the operator."""

from __future__ import annotations

from dataclasses import replace

from modelrollout.adapters.cluster import AUTOSCALERS, DEPLOYMENTS, PODS, Object, selector_of
from modelrollout.api import v1alpha1 as api
from modelrollout.core.observation import Idle, Observation, Rollout, Workload
from modelrollout.errors import NotFound
from modelrollout.world import World


async def with_replicas(
    rollout: Rollout, known: api.ModelRolloutStatus, seen: Observation, world: World
) -> Observation:
    """The observation with who scales the Deployments, and what keeps pods from starting."""
    assert rollout.spec is not None
    if rollout.spec.scaling is None:
        return seen
    autoscalers = await _autoscalers(rollout.namespace, world)
    names = [each.deployment for each in known.idle]
    candidate = seen.candidate
    if candidate is not None:
        name = candidate.version.deployment
        unplaced = "" if known.candidate is None else await _unplaced(rollout, candidate, world)
        candidate = replace(candidate, autoscaler=autoscalers.get(name, ""), unplaced=unplaced)
    found = await world.together(*(_desired(rollout.namespace, each, world) for each in names))
    idle = {
        name: Idle(desired=desired, autoscaler=autoscalers.get(name, ""))
        for name, desired in zip(names, found, strict=True)
        if desired is not None
    }
    return replace(seen, candidate=candidate, idle=idle)


async def _autoscalers(namespace: str, world: World) -> dict[str, str]:
    """The HorizontalPodAutoscaler of each Deployment that has one."""
    found = await world.cluster.list(AUTOSCALERS, namespace)
    targets = [(each["spec"]["scaleTargetRef"], each["metadata"]["name"]) for each in found]
    return {
        target["name"]: name
        for target, name in targets
        if target["kind"] == "Deployment" and target.get("apiVersion", "apps/").startswith("apps/")
    }


async def _desired(namespace: str, name: str, world: World) -> int | None:
    """The pods that a Deployment is to have; None when there is no such Deployment."""
    try:
        deployment = await world.cluster.get(DEPLOYMENTS, namespace, name)
    except NotFound:
        return None
    return int(deployment["spec"].get("replicas", 1))


async def _unplaced(rollout: Rollout, candidate: Workload, world: World) -> str:
    """Why there is no room for some pods; asked only while some are missing."""
    if candidate.available >= candidate.desired:
        return ""
    name = candidate.version.deployment
    try:
        deployment = await world.cluster.get(DEPLOYMENTS, rollout.namespace, name)
    except NotFound:
        return ""
    said = _message(deployment, "ReplicaFailure", status="True")
    if said:
        return said
    pods = await world.cluster.list(PODS, rollout.namespace, selector_of(deployment))
    waiting = [each for each in pods if _owner(each) in candidate.replica_sets]
    words = [_message(each, "PodScheduled", status="False") for each in waiting]
    return next((each for each in words if each), "")


def _message(body: Object, kind: str, *, status: str) -> str:
    """What a condition says, if it is there and has that status."""
    for each in body.get("status", {}).get("conditions") or []:
        if each["type"] == kind and each["status"] == status:
            return str(each.get("message") or each.get("reason", ""))
    return ""


def _owner(pod: Object) -> str:
    owners = pod["metadata"].get("ownerReferences") or [{"name": ""}]
    return str(owners[0]["name"])
