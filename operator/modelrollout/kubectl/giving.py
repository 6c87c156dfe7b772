"""A command as it is given: written with one's own name, and waited for until it has happened."""

from __future__ import annotations

import time
from collections.abc import Callable

from modelrollout.api import v1alpha1 as api
from modelrollout.api.conditions import Type
from modelrollout.kubectl.failures import Failure, TooLate
from modelrollout.kubectl.printable import printable
from modelrollout.kubectl.seen import Object, Seen, seen
from modelrollout.kubectl.server import EVENTS, ROLLOUTS, Server

LOOK_SECONDS = 0.3
RECORDED = {
    "abort": {"Aborted"},
    "pause": {"Paused"},
    "resume": {"Resumed"},
    "retry": {"Retried"},
    "promote": {"Promoted"},
    "approve": {"Approved"},
    "skip-step": {"StepSkipped", "Promoted"},
}
"""What the history calls a command that was carried out."""
MOVES = {"abort", "promote", "approve", "skip-step"}
"""These have happened when the gateway has taken them up."""


def pending(body: Object) -> str | None:
    """The command that waits to be carried out, with its user."""
    annotations = body["metadata"].get("annotations") or {}
    command = annotations.get(api.COMMAND)
    said = f"{command} by {annotations.get(api.COMMAND_BY, 'somebody')}"
    return str(printable(said)) if command else None


def give(server: Server, before: Seen, verb: str, by: str) -> None:
    """Write the command; the API server may refuse it."""
    annotations = {api.COMMAND: verb, api.COMMAND_BY: by}
    server.annotate(ROLLOUTS, before.namespace, api.PLURAL, before.name, annotations)


def wait(server: Server, before: Seen, verb: str, seconds: float) -> str:
    """What the operator recorded; a Failure when it ignored it, TooLate when nothing came of it."""
    deadline = time.monotonic() + seconds
    after = _until(server, before, deadline, lambda it: pending(it.body) is None)
    if pending(after.body) is not None:
        raise TooLate(_unanswered(after, verb, seconds))
    recorded = _recorded(before, after, verb)
    if recorded is None:
        raise Failure(f"{verb} did nothing: {_why(server, after)}")
    if verb in MOVES:
        after = _until(server, before, deadline, _is_in_force)
        if not _is_in_force(after):
            said = f"{recorded.message}, but the gateway has not confirmed it in {seconds:g} s"
            raise TooLate(f"{said}: {after.status.reason}")
    return recorded.message


def _until(server: Server, before: Seen, deadline: float, is_so: Callable[[Seen], bool]) -> Seen:
    while True:
        body = server.get(ROLLOUTS, before.namespace, api.PLURAL, before.name)
        found = seen(body, time.time())
        if is_so(found) or time.monotonic() >= deadline:
            return found
        time.sleep(LOOK_SECONDS)


def _is_in_force(now: Seen) -> bool:
    """The route has what the status says, and the gateway has confirmed it."""
    route = now.condition(Type.ROUTE_SYNCED)
    weight = now.status.weight
    is_synced = route is not None and route.status is api.ConditionStatus.TRUE
    if now.status.candidate is None:
        return is_synced and now.status.phase is not api.Phase.ROLLING_BACK
    return is_synced and weight.accepted == weight.wanted


def _recorded(before: Seen, after: Seen, verb: str) -> api.HistoryEntry | None:
    known = set(before.status.history)
    new = [each for each in after.status.history if each not in known]
    return next((each for each in new if each.what in RECORDED[verb] and each.by), None)


def _unanswered(now: Seen, verb: str, seconds: float) -> str:
    back = f"kubectl annotate modelrollout {now.name} -n {now.namespace} {api.COMMAND}- {api.COMMAND_BY}-"
    by_hand = ""
    if verb == "abort" and now.status.weight.wanted:
        edit = f"kubectl edit httproute {now.route} -n {now.namespace}"
        by_hand = (
            f" If users suffer meanwhile, take {now.candidate} out of the route by hand: {edit}."
        )
    return (
        f"the operator has not carried it out in {seconds:g} s, and will when it can"
        f" (it says: {now.status.reason or 'nothing'}); is it running?{by_hand} To take the command back: {back}"
    )


def _why(server: Server, now: Seen) -> str:
    """The operator's answer is an Event, which not everybody may read."""
    query = {"fieldSelector": f"regarding.name={now.name},reason=CommandIgnored"}
    try:
        events = server.list(EVENTS, now.namespace, "events", query)
    except Failure:
        events = []
    latest = max(events, key=lambda each: str(each.get("eventTime") or ""), default={})
    note = printable(str(latest.get("note", "")))
    return note.rpartition("was ignored: ")[2] or f"the operator ignored it; {now.status.reason}"
