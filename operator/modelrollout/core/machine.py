"""
The states of a rollout and the moves between them: one table, from which the diagram is drawn.

The state is derived from facts at every pass (`state_of`); no state is stored. `TRANSITIONS`
promises which moves can be seen; the property tests hold every pass against it.
"""

from __future__ import annotations

from modelrollout.api.v1alpha1 import ModelRolloutStatus, Phase
from modelrollout.core.steps import Step, StepKind

State = Phase

TRANSITIONS: dict[State, dict[State, str]] = {
    State.PENDING: {
        State.PREPARING: "a candidate is wanted",
        State.PROMOTED: "the wanted version is stable already",
        State.ROLLED_BACK: "the wanted version was rejected before",
        State.STALLED: "the spec cannot be carried out",
    },
    State.PREPARING: {
        State.PROGRESSING: "the candidate is ready",
        State.PAUSED: "a human pauses, or is asked for approval",
        State.ROLLING_BACK: "a check fails, or a human aborts",
        State.ROLLED_BACK: "a human aborts before any traffic moved",
        State.PROMOTED: "a human promotes, or the stable version is wanted again",
        State.STALLED: "the candidate cannot become ready",
    },
    State.PROGRESSING: {
        State.PREPARING: "another revision is wanted",
        State.PAUSED: "a human pauses or is asked for approval, the deadline passes, or metrics stay away",
        State.BAKING: "the last weight is in force",
        State.ROLLING_BACK: "a guardrail fails, no pod is ready, or a human aborts",
        State.PROMOTED: "a human promotes, or the stable version is wanted again",
        State.STALLED: "the spec cannot be carried out any more",
    },
    State.PAUSED: {
        State.PREPARING: "another revision is wanted, or a human resumes before the first step",
        State.PROGRESSING: "a human resumes or approves",
        State.BAKING: "a human resumes",
        State.ROLLING_BACK: "a guardrail fails, no pod is ready, or a human aborts",
        State.ROLLED_BACK: "a human aborts before any traffic moved",
        State.PROMOTED: "a human promotes, or the stable version is wanted again",
        State.STALLED: "the spec cannot be carried out any more",
    },
    State.BAKING: {
        State.PREPARING: "another revision is wanted",
        State.PAUSED: "a human pauses",
        State.ROLLING_BACK: "a guardrail fails, no pod is ready, or a human aborts",
        State.PROMOTED: "the bake is over",
        State.STALLED: "the spec cannot be carried out any more",
    },
    State.ROLLING_BACK: {
        State.ROLLED_BACK: "the gateway has accepted all traffic on stable",
        State.PREPARING: "another revision is wanted, or a retry is asked for",
        State.PROMOTED: "the stable version is wanted again",
        State.STALLED: "the spec cannot be carried out any more",
    },
    State.ROLLED_BACK: {
        State.ROLLING_BACK: "the route was edited and is put back",
        State.PREPARING: "another revision is wanted, or a retry is asked for",
        State.PROMOTED: "the stable version is wanted again",
        State.STALLED: "the spec cannot be carried out any more",
    },
    State.PROMOTED: {
        State.PREPARING: "another candidate is wanted",
        State.ROLLED_BACK: "a version that was rejected before is wanted",
        State.ROLLING_BACK: "a version that was rejected before is wanted",
        State.STALLED: "the spec cannot be carried out",
    },
    State.STALLED: {
        State.PENDING: "the cause is gone",
        State.PREPARING: "the cause is gone",
        State.PROGRESSING: "the cause is gone",
        State.PAUSED: "the cause is gone",
        State.BAKING: "the cause is gone",
        State.ROLLING_BACK: "the cause is gone, or the candidate is",
        State.ROLLED_BACK: "the cause is gone",
        State.PROMOTED: "the cause is gone",
    },
}


KINDS = {StepKind.BAKE: State.BAKING, StepKind.APPROVAL: State.PAUSED}
"""Steps that are a state of their own."""


def state_of(
    facts: ModelRolloutStatus, steps: tuple[Step, ...], *, is_settled: bool, is_rejected: bool
) -> State:
    """The state that the facts amount to, for a spec that can be carried out."""
    if facts.candidate is None and is_rejected:
        return State.ROLLED_BACK if is_settled else State.ROLLING_BACK
    if facts.candidate is None:
        return State.PROMOTED if facts.stable is not None else State.PENDING
    if facts.pause is not None:
        return State.PAUSED
    if facts.step is None:
        return State.PREPARING
    kind = steps[min(facts.step, len(steps) - 1)].kind
    return KINDS.get(kind, State.PROGRESSING)


def diagram() -> str:
    """The table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {State.PENDING}"]
    for state, moves in TRANSITIONS.items():
        lines += [f"    {state} --> {target}: {why}" for target, why in moves.items()]
    return "\n".join(lines) + "\n"
