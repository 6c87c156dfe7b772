"""Where a rollout is in a pass: what the guards look at."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from modelrollout.api import v1alpha1 as api
from modelrollout.api.v1alpha1 import ModelRolloutStatus
from modelrollout.core import facts
from modelrollout.core.observation import Observation, Rollout
from modelrollout.core.plan import Note, Traffic, shares_of, traffic_of
from modelrollout.core.steps import Step, StepKind, step_of

SHARES = {StepKind.MIRROR, StepKind.WEIGHT}
"""Steps that change who gets what; the others keep it."""


@dataclass(frozen=True, kw_only=True)
class Present:
    """The facts and the observation, and what follows from both."""

    rollout: Rollout
    spec: api.ModelRolloutSpec
    seen: Observation
    steps: tuple[Step, ...]
    intended: Traffic | None
    """What the last pass wanted, and the route was held against."""
    facts: ModelRolloutStatus
    notes: tuple[Note, ...] = ()
    early: int | None = None
    """The share that the command asks for and that there are no pods for yet."""
    ahead: int | None = None
    """The share that the candidate is to be scaled up for, if it is more than it has."""

    @property
    def now(self) -> float:
        """Unix seconds."""
        return self.seen.now

    @cached_property
    def step(self) -> Step | None:
        """
        The present step: the one that status names, as long as it has the weight in force.

        When the list was edited and it has not, the weight in force is a step of its own, with
        the gate that every judged step has: the edit applies from the next step on.
        """
        if self.facts.candidate is None or self.facts.step is None:
            return None
        if self._is_listed:
            return self.steps[self.facts.step]
        weight, mirror = self.facts.weight.wanted, self.facts.mirror
        if mirror:
            return step_of(api.Step(mirror=mirror))
        if weight == 0:
            return Step(kind=StepKind.PAUSE, weight=0)
        return step_of(api.Step(weight=weight))

    @property
    def next_index(self) -> int:
        """The step after the present one; the number of steps after the last."""
        assert self.facts.step is not None
        if self._is_listed:
            return self.facts.step + 1
        share = (self.facts.weight.wanted, self.facts.mirror or 0)
        shares = [(each.weight, each.mirror) for each in self.steps]
        # What stands between two shares, an approval for one, is not left out by an edit of them.
        is_behind = [
            each.kind in SHARES and here <= share
            for each, here in zip(self.steps, shares, strict=True)
        ]
        return max((index + 1 for index, behind in enumerate(is_behind) if behind), default=0)

    @property
    def _is_listed(self) -> bool:
        index = self.facts.step
        return (
            index is not None
            and index < len(self.steps)
            and self.steps[index].weight == self.facts.weight.wanted
            and self.steps[index].mirror == (self.facts.mirror or 0)
        )

    @cached_property
    def is_settled(self) -> bool:
        """The traffic that the facts intend is in force."""
        return self.seen.route.is_settled and self.traffic == self.intended

    @cached_property
    def traffic(self) -> Traffic | None:
        """What the facts intend."""
        if shares_of(self.facts) == shares_of(self.rollout.status):
            return self.intended
        return traffic_of(self.facts, self.spec, self.rollout.name)

    @property
    def lacks_comparator(self) -> bool:
        """Requests are copied, and nobody is there to compare the answers."""
        return bool(self.facts.mirror) and not self.seen.comparator.is_ready

    @property
    def is_rejected(self) -> bool:
        """The wanted revision is the one that lost."""
        lost, wanted = self.facts.rejected, self.seen.candidate
        if lost is None or wanted is None:
            return False
        version = wanted.version
        return (lost.deployment, lost.revision) == (version.deployment, version.revision)

    def without_trial(self) -> Present:
        """Nothing on trial any more; the facts as they are if nothing was."""
        return (
            self if self.facts.candidate is None else self.with_facts(facts.withdrawn(self.facts))
        )

    def with_facts(self, new: ModelRolloutStatus, *notes: Note) -> Present:
        """The same with other facts, and with what is to be told of them."""
        if new is self.facts and not notes:
            return self
        return replace(self, facts=new, notes=(*self.notes, *notes))
