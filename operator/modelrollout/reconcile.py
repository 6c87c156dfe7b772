"""One pass: observe, decide, apply, look again. The same path for every reason to look."""

from __future__ import annotations

from dataclasses import dataclass

from modelrollout import telemetry
from modelrollout.adapters.cluster import DEPLOYMENTS, HTTP_ROUTES, ROLLOUTS
from modelrollout.apply import apply, let_go
from modelrollout.core.decide import decide
from modelrollout.core.observation import Rollout
from modelrollout.errors import NotFound
from modelrollout.observe import observe, rollout_of
from modelrollout.world import World

Key = tuple[str, str]
"""Namespace and name of a ModelRollout."""


@dataclass(frozen=True, slots=True)
class Pass:
    """What a pass leaves behind: when to look again, and what to listen to until then."""

    look_again_seconds: float | None
    references: frozenset[tuple[str, str, str]]
    """(plural, namespace, name) of the objects whose change is a reason to look."""


NOTHING_LEFT = Pass(None, frozenset())


async def reconcile(key: Key, world: World) -> Pass:
    """Move one ModelRollout one pass closer to its spec."""
    try:
        body = await world.cluster.get(ROLLOUTS, *key)
    except NotFound:
        telemetry.forget(*key)
        world.drafts.forget(key)
        return NOTHING_LEFT
    if not world.shard.selects(body):
        await let_go(body, world)
        telemetry.forget(*key)
        world.drafts.forget(key)
        return NOTHING_LEFT
    newest, before = world.drafts.status_of(body["metadata"]), world.drafts.sight_of(key)
    rollout = rollout_of(body, newest, before.rollout)
    seen = await observe(rollout, world)
    plan = decide(rollout, seen)
    await apply(plan, body, rollout, seen, world)
    telemetry.shown(*key, plan.status)
    return Pass(plan.look_again_seconds, _references(rollout))


def _references(rollout: Rollout) -> frozenset[tuple[str, str, str]]:
    if rollout.spec is None:
        return frozenset()
    namespace = rollout.namespace
    deployments = {rollout.spec.candidate.deployment, rollout.spec.stable.deployment}
    if rollout.status.stable is not None:
        deployments.add(rollout.status.stable.deployment)
    route = rollout.spec.traffic.gateway_api.route or rollout.name
    return frozenset(
        {(DEPLOYMENTS.plural, namespace, each) for each in deployments}
        | {(HTTP_ROUTES.plural, namespace, route)}
    )
