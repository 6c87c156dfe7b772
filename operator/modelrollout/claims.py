"""Two ModelRollouts that would move the same users, or scale the same pods: one of them is refused."""

from __future__ import annotations

from modelrollout.adapters.cluster import ROLLOUTS, Object
from modelrollout.api import v1alpha1 as api
from modelrollout.api.conditions import Reason
from modelrollout.core.observation import Problem, Rollout, Route
from modelrollout.world import World

Rank = tuple[bool, str, str]
"""Traffic that is moved already comes first, then the older, then the name."""


async def claimed(
    rollout: Rollout, known: api.ModelRolloutStatus, route: Route, world: World
) -> Problem | None:
    """
    What another one has claimed before, asked where traffic is about to be moved.

    Whoever has begun goes on: the others have found out before they began.
    """
    if known.step is not None or (route.in_sync and _is_idle(rollout, known)):
        return None
    found = await world.cluster.list(ROLLOUTS, rollout.namespace)
    ranks = {each["metadata"]["name"]: _rank(each) for each in found}
    mine = ranks.get(rollout.name)
    for each in found:
        is_before = mine is not None and ranks[each["metadata"]["name"]] < mine
        if is_before and (what := _shared(each, rollout)):
            message = (
                f"{what} is claimed by ModelRollout {each['metadata']['name']}, which was there "
                "before: change or delete one of the two"
            )
            return Problem(reason=Reason.ALREADY_CLAIMED, message=message)
    return None


def _is_idle(rollout: Rollout, known: api.ModelRolloutStatus) -> bool:
    """Nothing is on trial, and nothing is about to be."""
    assert rollout.spec is not None
    is_stable = known.stable is not None and (
        known.stable.deployment == rollout.spec.candidate.deployment
    )
    return known.candidate is None and (is_stable or known.rejected is not None)


def _rank(body: Object) -> Rank:
    meta = body["metadata"]
    has_moved = api.FINALIZER in (meta.get("finalizers") or [])
    return not has_moved, str(meta.get("creationTimestamp", "")), str(meta["name"])


def _shared(other: Object, rollout: Rollout) -> str:
    """What both claim, in words; empty for nothing."""
    spec = rollout.spec
    assert spec is not None
    route, rule = _place(other["metadata"]["name"], other["spec"]["traffic"]["gatewayAPI"])
    ours, our_rule = _place(rollout.name, spec.traffic.gateway_api.to_dict())
    if route == ours and (rule is None or our_rule is None or rule == our_rule):
        where = f"rule {rule or our_rule} of " if rule or our_rule else ""
        return f"{where}HTTPRoute {route}"
    if spec.scaling is None and other["spec"].get("scaling") is None:
        return ""
    theirs = {other["spec"][each]["deployment"] for each in ("stable", "candidate")}
    shared = sorted(theirs & {spec.stable.deployment, spec.candidate.deployment})
    return f"Deployment {shared[0]}, which is scaled for a rollout," if shared else ""


def _place(name: str, given: Object) -> tuple[str, str | None]:
    """The route, and the rule in it; None for the only one, or for all of a managed one."""
    return given.get("route") or name, given.get("rule")
