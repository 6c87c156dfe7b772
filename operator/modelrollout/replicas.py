"""What a pass asks about replica counts: what keeps pods from starting, and with spec.scaling who scales."""

from __future__ import annotations

from dataclasses import replace

from modelrollout.adapters.cluster import AUTOSCALERS, DEPLOYMENTS, PODS, Object, selector_of
from modelrollout.api import fields
from modelrollout.api import v1alpha1 as api
from modelrollout.core.observation import Idle, Observation, Rollout, Workload
from modelrollout.errors import NotFound
from modelrollout.world import World

ON_ITS_WAY = frozenset({"", "ContainerCreating", "PodInitializing"})
"""What containers wait for that are soon started."""
MOST_BYTES_OF_A_QUOTE = 320


async def with_replicas(
    rollout: Rollout, known: api.ModelRolloutStatus, seen: Observation, world: World
) -> Observation:
    """The observation with what keeps pods from starting, and who scales the Deployments."""
    assert rollout.spec is not None
    candidate = seen.candidate
    if known.candidate is not None and candidate is not None and candidate.lacks_pods:
        seen = replace(seen, candidate=await _with_obstacle(rollout, candidate, world))
    if rollout.spec.scaling is None:
        return seen
    autoscalers = await _autoscalers(rollout.namespace, world)
    names = [each.deployment for each in known.idle]
    candidate = seen.candidate
    if candidate is not None:
        name = candidate.version.deployment
        candidate = replace(candidate, autoscaler=autoscalers.get(name, ""))
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


async def _with_obstacle(rollout: Rollout, candidate: Workload, world: World) -> Workload:
    """With what keeps pods from starting, in the words of who knows."""
    name = candidate.version.deployment
    try:
        deployment = await world.cluster.get(DEPLOYMENTS, rollout.namespace, name)
    except NotFound:
        return candidate
    found = await world.cluster.list(PODS, rollout.namespace, selector_of(deployment))
    pods = sorted(
        (each for each in found if _owner(each) in candidate.replica_sets),
        key=lambda each: str(each["metadata"]["name"]),
    )
    refused = _message(deployment, "ReplicaFailure", status="True")
    unplaced = (_message(each, "PodScheduled", status="False") for each in pods)
    no_room = refused or next((each for each in unplaced if each), "")
    waiting = next((each for pod in pods if (each := _waiting(pod))), "")
    assert rollout.spec is not None
    is_scaled = rollout.spec.scaling is not None
    obstacle = waiting or ("" if is_scaled else no_room)
    return replace(
        candidate,
        unplaced=no_room if is_scaled else "",
        obstacle=fields.shown(obstacle, MOST_BYTES_OF_A_QUOTE),
    )


def _waiting(pod: Object) -> str:
    """Why a container of it cannot be started, as the kubelet has it."""
    status = pod.get("status", {})
    for key in ("initContainerStatuses", "containerStatuses"):
        for each in status.get(key) or []:
            waiting = each.get("state", {}).get("waiting") or {}
            if waiting.get("reason", "") not in ON_ITS_WAY:
                said = [waiting["reason"], waiting.get("message", "")]
                return f"pod {pod['metadata']['name']}: {': '.join(each for each in said if each)}"
    return ""


def _message(body: Object, kind: str, *, status: str) -> str:
    """What a condition says, if it is there and has that status."""
    for each in body.get("status", {}).get("conditions") or []:
        if each["type"] == kind and each["status"] == status:
            return str(each.get("message") or each.get("reason", ""))
    return ""


def _owner(pod: Object) -> str:
    owners = pod["metadata"].get("ownerReferences") or [{"name": ""}]
    return str(owners[0]["name"])
