"""A command before it is given: what it will do, by the operator's own code."""

from __future__ import annotations

from modelrollout.api import v1alpha1 as api
from modelrollout.core import commands
from modelrollout.core.observation import Command, Verb, Workload
from modelrollout.core.steps import Step
from modelrollout.kubectl.failures import Failure
from modelrollout.kubectl.seen import Seen
from modelrollout.kubectl.server import Object

ON_STEPS = frozenset({Verb.APPROVE, Verb.SKIP_STEP})
EDITED = "The steps were edited since this one began: what follows is for the operator to say."


def foreseen(seen: Seen, verb: Verb, by: str) -> str:
    """What will happen, in a sentence; a Failure where nothing would."""
    step = seen.step
    if verb in ON_STEPS and seen.status.step is not None and not _is_listed(seen):
        return EDITED
    index = seen.status.step
    following = None if index is None else index + 1
    later = dict(enumerate(seen.steps)).get(following) if following is not None else None
    asked = commands.Asked(
        command=Command(text=verb, by=by, verb=verb),
        known=seen.status,
        candidate=_workload(seen),
        step=step,
        next_index=following or 0,
        next_step=later,
        most_share=api.FULL_WEIGHT if seen.spec is not None and seen.spec.scaling else None,
        now=seen.now,
    )
    answer = commands.obeyed(asked)
    if isinstance(answer, commands.Early):
        return "It waits until there are pods for it."
    after, note = answer
    if note.reason == "CommandIgnored":
        why = note.message.rpartition("was ignored: ")[2]
        raise Failure(f"{verb} {seen.name} would do nothing: {why}")
    return _told(seen, verb, after, later)


def _is_listed(seen: Seen) -> bool:
    """The list of steps still has the share that is in force."""
    step, status = seen.step, seen.status
    share = (status.weight.wanted, status.mirror or 0)
    return step is not None and (step.weight, step.mirror) == share


def _workload(seen: Seen) -> Workload | None:
    """The candidate as far as it can be seen: whether it is ready is for the operator to say."""
    version = seen.status.candidate
    if version is None:
        return None
    found = seen.deployments.get(version.deployment)
    desired, available = (1, 1) if found is None else _pods(found)
    return Workload(
        version=version,
        desired=desired,
        available=available,
        endpoints=available,
        replica_sets=(),
    )


def _pods(deployment: Object) -> tuple[int, int]:
    available = (deployment.get("status") or {}).get("availableReplicas", 0)
    return deployment["spec"].get("replicas", 1), available


def _told(seen: Seen, verb: Verb, after: api.ModelRolloutStatus, later: Step | None) -> str:
    candidate, stable, status = seen.candidate, seen.stable, seen.status
    weight = status.weight.wanted
    if after.stable is not None and after.previous is not None and after.candidate is None:
        is_won = verb in {Verb.PROMOTE, Verb.SKIP_STEP}
        if is_won:
            return f"All requests go to {candidate} now, whatever the evidence says{_lacks(seen)}. It becomes stable in place of {stable}."
    match verb:
        case Verb.ABORT:
            back = (
                f"the {weight} % of requests that {candidate} gets go"
                if weight
                else "nothing changes for users, who stay"
            )
            where = f"back to {stable}" if weight else f"on {stable}"
            revision = status.candidate.revision if status.candidate else ""
            return f"{back[0].upper()}{back[1:]} {where}. Revision {revision} is rejected: it is not tried again until it changes or somebody says retry."
        case Verb.PAUSE:
            return f"{candidate} stays at {weight} % of requests until somebody says resume. Guardrails stay armed: a failure still rolls back."
        case Verb.RESUME:
            return f"The rollout goes on at step {status.step_text or 'before the first'}, and the step's deadline begins anew."
        case Verb.RETRY:
            return _tried_again(seen)
        case _:
            return _goes_on(seen, verb, after, later)


def _lacks(seen: Seen) -> str:
    """What the evidence says against it."""
    found = [e for e in seen.status.guardrails if e.verdict is not api.Verdict.PASS]
    if not found or seen.status.weight.wanted == api.FULL_WEIGHT:
        return ""
    return " (" + ", ".join(f"{each.name}: {each.verdict}" for each in found) + ")"


def _tried_again(seen: Seen) -> str:
    lost = seen.status.rejected
    assert lost is not None
    if seen.spec is None or seen.spec.candidate.deployment != lost.deployment:
        return f"The rejection of {lost.deployment} ({lost.revision}) is forgotten; the spec wants another version, so nothing starts."
    return f"{lost.deployment} ({lost.revision}), which was rejected for {lost.cause}, is tried again from the first step."


def _goes_on(seen: Seen, verb: Verb, after: api.ModelRolloutStatus, later: Step | None) -> str:
    step, steps = after.step or 0, after.steps or len(seen.steps)
    share = "" if later is None else f": {later.kind} at {later.share_text}"
    said = f"The rollout goes on to step {step + 1}/{steps}{share}."
    if verb is Verb.SKIP_STEP:
        said += f" The gate of the present step is not asked{_lacks(seen)}."
    return said
