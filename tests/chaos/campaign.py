"""All cases of faults and rollouts: what is run, and what has to come of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from chaos.disturbances import DISTURBANCES, Disturbance
from chaos.faults import (
    CONFLICT,
    INTERNAL,
    TIMED_OUT,
    TIMEOUT_SECONDS,
    TOO_MANY,
    FaultOf,
    answers,
    dies,
    stalls,
)
from chaos.operators import no_fault
from chaos.run import Outcome, Run
from chaos.stories import STORIES, Story

HELD_UP = {"Stalled", "Progressing", "Paused"}
"""Nothing moves, and status says why: there may still be something to put away."""
BAD_ANSWERS = {
    "409": lambda number: answers(number, CONFLICT),
    "429": lambda number: answers(number, TOO_MANY),
    "500": lambda number: answers(number, INTERNAL),
    "no answer": lambda number: answers(number, TIMED_OUT, seconds=TIMEOUT_SECONDS),
    "no answer, carried out": lambda number: answers(
        number, TIMED_OUT, seconds=TIMEOUT_SECONDS, done=True
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One run, by name."""

    fault: str
    group: str
    story: Story
    where: str
    run: Callable[[], Outcome]
    endings: frozenset[str]

    @property
    def name(self) -> str:
        return f"{self.story.name}: {self.fault} {self.where}".strip()

    def failures(self, outcome: Outcome) -> list[str]:
        """What must not be."""
        found = list(outcome.violations)
        if outcome.ending not in self.endings:
            found.append(f"ended as {outcome.ending}, not as {' or '.join(sorted(self.endings))}")
        if outcome.ending not in HELD_UP:
            found += [f"left behind: {each}" for each in outcome.left_behind]
        return found


@lru_cache
def undisturbed(name: str) -> Outcome:
    """How a rollout goes when nothing happens."""
    return Run(STORIES[name]).go()


def disturbed(disturbance: Disturbance, story: Story) -> Case:
    """A rollout in which something happens."""
    fault_of = disturbance.fault_of or (lambda _: no_fault)
    return Case(
        fault=disturbance.name,
        group=disturbance.group,
        story=story,
        where="",
        run=lambda: Run(story, fault_of).go(disturbance.act),
        endings=disturbance.endings_of(story),
    )


def _at_a_point(fault: str, story: Story, where: str, fault_of: FaultOf) -> Case:
    return Case(
        fault=fault,
        group="operator" if "call" not in fault else "API server",
        story=story,
        where=where,
        run=lambda: Run(story, fault_of).go(),
        endings=frozenset({story.ending}),
    )


def crashes(story: Story) -> Iterator[Case]:
    """Killed right before and right after each write of a whole rollout."""
    for write in (each.write for each in undisturbed(story.name).calls if each.write):
        for after in (False, True):
            where = f"{'after' if after else 'before'} {write}"
            fault_of = dies(write, after=after)
            yield _at_a_point("killed at a write", story, where, fault_of)


def bad_answers(story: Story) -> Iterator[Case]:
    """Each call of a whole rollout answered badly once, in each way."""
    for number in range(len(undisturbed(story.name).calls)):
        for how, fault_of in BAD_ANSWERS.items():
            yield _at_a_point("a call answered badly", story, f"{number}: {how}", fault_of(number))


def stalled(story: Story) -> Iterator[Case]:
    """The process stands still before each call while another one takes over, and goes on."""
    for call in undisturbed(story.name).calls:
        number, what = call.number, f"{call.verb} of {call.resource.plural}"
        for seconds in (3.0, 9.0):
            where = f"{number}, {what}, for {seconds:g} s"
            yield _at_a_point("stands still, then goes on", story, where, stalls(number, seconds))


def disturbances(stories: Sequence[Story] = tuple(STORIES.values())) -> Iterator[Case]:
    """Everything by everything."""
    for disturbance in DISTURBANCES.values():
        for story in stories:
            if disturbance.is_about(story):
                yield disturbed(disturbance, story)


def all_points() -> dict[str, list[Case]]:
    """By kind, each kind over all rollouts."""
    return {
        kind: [case for story in STORIES.values() for case in cases(story)]
        for kind, cases in (
            ("crashes", crashes),
            ("bad answers", bad_answers),
            ("stalls", stalled),
        )
    }
