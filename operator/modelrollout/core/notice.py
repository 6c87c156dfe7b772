"""What a pass takes note of before it decides: commands, the route, stable, the clock, a warm-up."""

from __future__ import annotations

from dataclasses import replace

from modelrollout.api import v1alpha1 as api
from modelrollout.core import commands, facts, scaling, times
from modelrollout.core.plan import Note, Severity
from modelrollout.core.present import Present

CLOCK_SECONDS = 10.0
"""The clocks of two nodes differ by less."""


def obeyed(here: Present) -> Present:
    """A command counts once, also where its annotation could not be removed at once."""
    given, command = here.rollout.command, here.rollout.order
    obeyed = None if given is None else given.identity
    if here.facts.obeyed != obeyed:
        here = here.with_facts(here.facts.model_copy(update={"obeyed": obeyed}))
    if command is None:
        return here
    following = None if here.step is None else here.next_index
    asked = commands.Asked(
        command=command,
        known=here.facts,
        candidate=here.seen.candidate,
        step=here.step,
        next_index=following or 0,
        next_step=dict(enumerate(here.steps)).get(following) if following else None,
        most_share=scaling.most_share(here.spec, here.facts, here.seen),
        now=here.now,
    )
    answer = commands.obeyed(asked)
    if isinstance(answer, commands.Early):
        # It is yet to be carried out.
        waiting = here.with_facts(here.facts.model_copy(update={"obeyed": None}))
        return replace(waiting, early=answer.share, ahead=answer.share)
    return here.with_facts(*answer)


def route_seen(here: Present) -> Present:
    """Note what the gateway has accepted, and tell when somebody else edited the route."""
    weight = here.facts.weight
    if here.is_settled:
        accepted: int | None = weight.wanted
    else:
        accepted = None if not here.seen.route.in_sync else weight.accepted
    new = here.facts
    if accepted != weight.accepted:
        new = new.model_copy(update={"weight": weight.model_copy(update={"accepted": accepted})})
    was_in_force = here.rollout.status.weight.accepted == here.rollout.status.weight.wanted
    if here.seen.route.problem or here.seen.route.in_sync or not was_in_force:
        return here.with_facts(new)
    message = "the route was edited by somebody else; its weights are put back"
    return here.with_facts(new, Note(severity=Severity.WARNING, reason="Drift", message=message))


def stable_seen(here: Present) -> Present:
    """Keep stable's revision current: a change of stable in place is adopted, and said."""
    stable, known = here.seen.stable, here.facts.stable
    if stable is None or known is None or stable.version == known:
        return here
    if stable.version.deployment != known.deployment:
        # A command of this very pass made another version stable.
        return here
    new = here.facts.model_copy(update={"stable": stable.version})
    if stable.version.service != known.service:
        new = new.model_copy(update={"retired": facts.with_retired(new, known)})
    if not known.revision or stable.version.revision == known.revision:
        return here.with_facts(new)
    message = (
        f"Deployment {known.deployment} is stable and was changed in place: its users have the "
        "change already, nothing could be compared. Give a change a Deployment of its own."
    )
    new = facts.recorded(new, "ChangedInPlace", stable.version, message, here.now)
    note = Note(severity=Severity.WARNING, reason="ChangedInPlace", message=message)
    return here.with_facts(new, note)


def on_time(here: Present) -> Present:
    """
    A step that begins later than now, by a clock that was moved back, begins now.

    Until its time came again nothing would be judged, and nothing rolled back.
    """
    start, step = here.facts.step_start_time, here.step
    latest = here.now + here.spec.strategy.warmup_seconds + CLOCK_SECONDS
    if start is None or step is None or times.as_seconds(start) <= latest:
        return here
    begun = facts.started(here.facts, step, here.now)
    return here.with_facts(begun.model_copy(update={"no_data_since_time": None}))


def warmed_up(here: Present) -> Present:
    """With what the candidate has answered; when that is enough, its step begins now."""
    known, read, step = here.facts.warmup, here.seen.warmup, here.step
    if known is None or read is None or step is None:
        return here
    requests = known.requests + round(sum(each.candidate.n for each in read.windows))
    if requests >= (here.spec.strategy.warmup_requests or 0):
        begun = facts.started(here.facts, step, here.now)
        return here.with_facts(begun.model_copy(update={"warmup": None}))
    counted = api.WarmupStatus(
        requests=requests,
        until_time=times.as_time(read.watermark),
        message=read.blind[:1024] or None,
    )
    return here.with_facts(here.facts.model_copy(update={"warmup": counted}))
