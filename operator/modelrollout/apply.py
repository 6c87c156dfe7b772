"""
One Plan out: status first, then what it intends, then the Events that tell of it.

A crash between any two writes leaves the safe side true: the finalizer is on before traffic
leaves rest and off after it is back, and the next pass makes the route follow status.
"""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any

from modelrollout import telemetry
from modelrollout.adapters.cluster import DEPLOYMENT_SCALES, EVENTS, ROLLOUTS, SERVICES, Object
from modelrollout.api import fields
from modelrollout.api import v1alpha1 as api
from modelrollout.core.audit import Record, records
from modelrollout.core.news import is_news
from modelrollout.core.observation import MissingService, Observation, Rollout
from modelrollout.core.plan import Note, Plan, Scale, Severity
from modelrollout.core.times import as_time
from modelrollout.errors import Conflict, NotFound, RolloutError
from modelrollout.world import World

LOG = logging.getLogger(__name__)


async def apply(
    plan: Plan, body: Object, rollout: Rollout, seen: Observation, world: World
) -> None:
    """Make the plan true. `body` is the object as this pass read it, `seen` what it decided upon."""
    if plan.finalizer and not rollout.has_finalizer and not rollout.is_deleting:
        body = await _set_finalizers(body, [*_finalizers(body), api.FINALIZER], world)
    body = await _write_status(plan, body, rollout, seen.now, world)
    # Without a wait in between: what is decided from here on is on record, or the process is gone.
    for record in records(rollout, seen, plan):
        _put_on_record(record, world)
    if world.recorder is not None:
        world.recorder.record(rollout, seen, plan)
    try:
        await _move_traffic(plan, rollout, seen, world)
        for scale in plan.scales:
            await _scale(scale, rollout, world)
    finally:
        # Status has said it already: a route that cannot be written now makes it no less true.
        if plan.command_done:
            await _remove_command(rollout, world)
        for note in (*plan.notes, *_about_recipients(plan, rollout, world)):
            await _tell(note, rollout, world)
    if rollout.has_finalizer and not plan.finalizer:
        rest = [each for each in _finalizers(body) if each != api.FINALIZER]
        await _set_finalizers(body, rest, world)


async def let_go(body: Object, world: World) -> None:
    """Tell that an object is another operator's now. What it needs to go on is in status."""
    message = (
        f"its labels no longer match {world.shard.text}, the shard of this operator: the operator"
        " whose shard selector they match goes on from status"
    )
    note = Note(severity=Severity.NORMAL, reason="HandedOver", message=message)
    meta = body["metadata"]
    await _write_event(note, (meta["namespace"], meta["name"]), meta["uid"], world)


def _put_on_record(record: Record, world: World) -> None:
    telemetry.AUDIT.info("%s", record.line)
    for listener in world.listeners:
        listener.tell(record)


def _about_recipients(plan: Plan, rollout: Rollout, world: World) -> tuple[Note, ...]:
    """Who asks for a web hook that there is not would wait for word in vain."""
    if not plan.notes or not rollout.recipients:
        return ()
    known = sorted(each.name for each in world.listeners if each.is_open_to(rollout.namespace))
    unknown = sorted(set(rollout.recipients) - set(known))
    if not unknown:
        return ()
    choice = f"there are {', '.join(known)}" if known else "there is none for this namespace"
    message = f"{api.NOTIFY} names {', '.join(unknown)}, but of the administrator's web hooks {choice}; nobody was told there"
    return (Note(severity=Severity.WARNING, reason="WebhookUnknown", message=message),)


async def _move_traffic(plan: Plan, rollout: Rollout, seen: Observation, world: World) -> None:
    for service in plan.services:
        await _create_service(service, rollout, world)
    if plan.comparator:
        await world.comparators.deploy(rollout, plan.status)
    elif plan.comparator is not None:
        await world.comparators.remove(rollout)
    if plan.traffic is None or plan.is_written:
        return
    if not await world.router.set_traffic(rollout, plan.traffic, seen.route.version):
        return
    telemetry.ROUTE_WRITES.inc()
    LOG.info("route written", extra={**_names(rollout), "weight": plan.traffic.weight})


async def _scale(scale: Scale, rollout: Rollout, world: World) -> None:
    """Only from the number that was decided upon: whoever wrote another one is looked at first."""
    path = "/spec/replicas"
    operations: list[Object] = [
        # The API server leaves out a 0, and takes what is missing for null.
        {"op": "test", "path": path, "value": scale.before or None},
        {"op": "add", "path": path, "value": scale.replicas},
    ]
    await world.cluster.patch(DEPLOYMENT_SCALES, rollout.namespace, scale.deployment, operations)
    LOG.info("scaled", extra={**_names(rollout), **asdict(scale)})


def _names(rollout: Rollout) -> dict[str, str]:
    return {"namespace": rollout.namespace, "rollout": rollout.name}


def _finalizers(body: Object) -> list[str]:
    return list(body["metadata"].get("finalizers") or [])


async def _set_finalizers(body: Object, finalizers: list[str], world: World) -> Object:
    meta = body["metadata"]
    value: dict[str, Any] = {"path": "/metadata/finalizers", "value": finalizers}
    operations = [
        {"op": "test", "path": "/metadata/resourceVersion", "value": meta["resourceVersion"]},
        {"op": "add", **value},
    ]
    return await world.cluster.patch(ROLLOUTS, meta["namespace"], meta["name"], operations)


async def _write_status(
    plan: Plan, body: Object, rollout: Rollout, now: float, world: World
) -> Object:
    """
    At once what is news, figures only now and then; and whenever other objects are to be written.

    The API server refuses it when somebody wrote since: what an operator has decided on an object
    that is old by now moves nobody.
    """
    meta, is_needed = body["metadata"], _moves_something(plan)
    is_due = is_needed or plan.look_again_seconds is None or world.drafts.is_due(meta, now)
    if not (is_due or plan.notes or is_news(rollout.status, plan.status)):
        world.drafts.kept(meta, plan.status)
        return body
    status = plan.status.to_dict()
    if is_needed or status != body.get("status"):
        body = await world.cluster.replace_status(ROLLOUTS, {**body, "status": status})
    world.drafts.stored(body["metadata"], plan.status, now)
    return body


def _moves_something(plan: Plan) -> bool:
    moves_traffic = plan.traffic is not None and not plan.is_written
    return moves_traffic or bool(plan.scales) or plan.comparator is not None


async def _create_service(service: MissingService, rollout: Rollout, world: World) -> None:
    assert rollout.spec is not None
    port = rollout.spec.port
    owner = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": service.deployment,
        "uid": service.deployment_uid,
    }
    metadata = {
        "name": service.name,
        "namespace": rollout.namespace,
        "labels": {"app.kubernetes.io/managed-by": "modelrollout"},
        "ownerReferences": [owner],
    }
    ports = [{"name": "http", "port": port, "targetPort": port}]
    spec = {"selector": dict(service.selector), "ports": ports}
    body = {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}
    try:
        await world.cluster.create(SERVICES, rollout.namespace, body)
    except Conflict:
        return
    LOG.info("service created", extra={**_names(rollout), "service": service.name})


async def _remove_command(rollout: Rollout, world: World) -> None:
    """Only the command that was carried out: a newer one stays for the next pass."""
    assert rollout.command is not None
    live = await world.cluster.get(ROLLOUTS, rollout.namespace, rollout.name)
    annotations = live["metadata"].get("annotations") or {}
    text = annotations.get(api.COMMAND, "")
    if text[:64] != rollout.command.text:
        return
    present = [each for each in (api.COMMAND, api.COMMAND_BY) if each in annotations]
    operations = [
        {"op": "test", "path": _annotation(api.COMMAND), "value": text},
        *({"op": "remove", "path": _annotation(each)} for each in present),
    ]
    await world.cluster.patch(ROLLOUTS, rollout.namespace, rollout.name, operations)


def _annotation(name: str) -> str:
    return "/metadata/annotations/" + name.replace("/", "~1")


async def _tell(note: Note, rollout: Rollout, world: World) -> None:
    await _write_event(note, (rollout.namespace, rollout.name), rollout.uid, world)


async def _write_event(note: Note, key: tuple[str, str], uid: str, world: World) -> None:
    """Losing one is not worth failing a pass that has done everything it speaks of."""
    namespace, name = key
    names = {"namespace": namespace, "rollout": name}
    said = fields.shown(note.message)
    LOG.info(said, extra={**names, "reason": note.reason})
    telemetry.NOTES.labels(note.reason).inc()
    body = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"generateName": f"{name[:200]}-", "namespace": namespace},
        "regarding": {
            "apiVersion": api.API_VERSION,
            "kind": api.KIND,
            "namespace": namespace,
            "name": name,
            "uid": uid,
        },
        "type": note.severity,
        "reason": note.reason,
        "note": said,
        "action": note.reason,
        "eventTime": as_time(world.clock())[:-1] + "000Z",
        "reportingController": f"{api.GROUP}/operator",
        "reportingInstance": _instance(world),
    }
    try:
        await world.cluster.create(EVENTS, namespace, body)
    except (NotFound, RolloutError) as error:
        LOG.warning("event lost: %s", error, extra=names)


def _instance(world: World) -> str:
    """Which of several operators tells something; 128 characters are the most that an Event has."""
    shard = f", {world.shard.text}" if world.shard.text else ""
    return f"modelrollout-operator{shard}"[:128]
