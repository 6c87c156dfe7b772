"""
One mirrored request after the other: ask both versions, compare, count.

Every request that arrives ends in exactly one of three counters: skipped (left out on purpose, or
refused by both versions), unpaired (something was lost) or pairs.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
import traceback
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from modelrollout.api import shadow as api
from modelrollout.shadow.answers import Judge, judge_of
from modelrollout.shadow.calls import Answer, Caller, NoAnswer
from modelrollout.shadow.comparisons import Malformed, Misshapen, Outcome
from modelrollout.shadow.deadline import TooSlow, within
from modelrollout.shadow.labels import Answer as Label
from modelrollout.shadow.labels import Predictions, Said
from modelrollout.shadow.metrics import FAILURES, REQUEST, VERSIONS, Loss, Metrics, Side, Skip
from modelrollout.shadow.requests import Request, Selection, places_of, selection_of
from modelrollout.shadow.settings import Settings
from modelrollout.shadow.throttle import Hold, Memory, Throttle

LOG = logging.getLogger(__name__)

MOST_IN_FLIGHT: Final = 256
"""Requests that are being repeated; there is no queue behind them."""
JUDGING_SECONDS: Final = 1.0
"""For one answer. Everything else waits meanwhile, the probes too."""
MOST_HELD_BYTES: Final = 24 * 1024 * 1024
"""Bodies of requests and answers. What is read out of them takes several times as much, one at a time."""

Values = tuple[Any, ...]
"""What is compared of one answer: a value for each output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """A mirrored request as it came."""

    method: str
    path: str
    headers: Sequence[tuple[str, str]]
    body: bytes


class Comparator:
    """What is compared, what it costs at most, and what was found."""

    def __init__(self, settings: Settings, caller: Caller) -> None:
        self._shadow: api.Shadow = settings.shadow
        self._addresses = {
            Side.STABLE: settings.stable.rstrip("/"),
            Side.CANDIDATE: settings.candidate.rstrip("/"),
            Side.REPEAT: settings.stable.rstrip("/"),
        }
        self._caller = caller
        self._judge: Judge = judge_of(self._shadow)
        self._selection: Selection = selection_of(self._shadow)
        self._throttle = Throttle(self._shadow.max_requests_per_second)
        self._memory = Memory(max(MOST_HELD_BYTES, 4 * self._shadow.max_body_bytes))
        self._predictions = Predictions()
        self._tasks: set[asyncio.Task[None]] = set()
        self._in_flight = 0
        self.metrics = Metrics(settings.rollout, self._judge.outputs)
        self.metrics.inflight.set_function(lambda: self._in_flight)
        self.metrics.held_bytes.set_function(lambda: self._memory.held)
        self.metrics.admitted_share.set_function(lambda: self._throttle.share)

    # --- before the gateway has its answer ---

    def arrives(self, method: str, path: str) -> bool:
        """Count an arrival, and say whether its body is wanted."""
        self.metrics.received.inc()
        if method not in self._selection.methods:
            self._skip(Skip.METHOD)
        elif not self._selection.takes_path(path):
            self._skip(Skip.PATH)
        else:
            return True
        return False

    def hold(self) -> Hold:
        """The memory that a request's body takes, while it is read and until it is compared."""
        return Hold(self._memory)

    def lose(self, loss: Loss, hold: Hold) -> None:
        """A body that could not be read."""
        hold.give_back()
        self.metrics.unpaired[REQUEST, loss].inc()

    def repeat(self, arrived: Arrived, hold: Hold) -> None:
        """Have a request repeated, once the gateway has its answer."""
        self._start(self._repeat(arrived, hold))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _skip(self, why: Skip) -> None:
        self.metrics.skipped[why,].inc()

    # --- after it ---

    async def finish(self, seconds: float) -> None:
        """Let what is under way come to its end; what takes longer is counted as cancelled."""
        tasks = set(self._tasks)
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=seconds)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def _repeat(self, arrived: Arrived, hold: Hold) -> None:
        try:
            request = self._selection.request(
                arrived.method, arrived.path, arrived.headers, arrived.body
            )
            places = places_of(request.id)
            why = self._skips(places.admission)
            if why is not None:
                self._skip(why)
                return
            is_repeated = places.repetition < float(self._shadow.noise_floor.share)
            await self._pair(request, [*VERSIONS, Side.REPEAT][: 2 + is_repeated], hold)
        except asyncio.CancelledError:
            self.metrics.unpaired[REQUEST, Loss.CANCELLED].inc()
            raise
        except Exception as error:  # noqa: BLE001  # one bad request must not be lost in silence
            self.metrics.unpaired[REQUEST, Loss.INTERNAL].inc()
            LOG.error("a request could not be compared: %s", _place_of(error))  # noqa: TRY400  # its message may quote a user
        finally:
            hold.give_back()

    def _skips(self, place: float) -> Skip | None:
        if not self._throttle.admits(time.monotonic(), place):
            return Skip.BACKPRESSURE if self._throttle.is_held_back else Skip.BUDGET
        if self._in_flight >= MOST_IN_FLIGHT:
            self._throttle.overloaded()
            return Skip.BACKPRESSURE
        return None

    async def _pair(self, request: Request, sides: list[Side], hold: Hold) -> None:
        self._in_flight += 1
        try:
            # All at the same time, and none always first: batches and caches would favour it.
            random.shuffle(sides)
            async with asyncio.TaskGroup() as group:
                calls = {side: group.create_task(self._ask(side, request, hold)) for side in sides}
        finally:
            self._in_flight -= 1
        self._count(request, {side: call.result() for side, call in calls.items()})

    async def _ask(self, side: Side, request: Request, hold: Hold) -> Answer | NoAnswer:
        answer = await self._caller.call(self._addresses[side], request, hold)
        self.metrics.answers[side,].inc()
        if isinstance(answer, Answer):
            self.metrics.seconds[side].observe(answer.seconds)
            self._throttle.answered(self._addresses[side], answer.seconds)
        elif answer.is_overload:
            self._throttle.overloaded()
        return answer

    # --- what was found ---

    def _count(self, request: Request, answers: Mapping[Side, Answer | NoAnswer]) -> None:
        if _is_refused(answers[Side.STABLE], answers[Side.CANDIDATE]):
            self._skip(Skip.REFUSED)
            return
        values = {side: self._values(answer) for side, answer in answers.items()}
        outcomes: dict[Side, tuple[Outcome, ...] | Loss | None] = {
            side: self._outcomes(values, side)
            for side in (Side.CANDIDATE, Side.REPEAT)
            if side in values
        }
        lost = {side: loss for side, loss in (values | outcomes).items() if isinstance(loss, Loss)}
        for side, loss in lost.items():
            if loss in FAILURES:
                self.metrics.failures[side, loss].inc()
        for side in VERSIONS:
            if side in lost:
                self.metrics.unpaired[side, lost[side]].inc()
                return
        self._count_pair(outcomes)
        self._remember(request, values)

    def _values(self, answer: Answer | NoAnswer) -> Values | Loss:
        if isinstance(answer, NoAnswer):
            return answer.loss
        try:
            with within(JUDGING_SECONDS):
                return self._judge.read(answer.body, answer.content_type)
        except TooSlow:
            return Loss.SLOW
        except Malformed:
            return Loss.MALFORMED
        except Misshapen:
            return Loss.SHAPE

    def _outcomes(
        self, values: Mapping[Side, Values | Loss], side: Side
    ) -> tuple[Outcome, ...] | Loss | None:
        """A side held against stable; None without stable, a loss if it is the side's own."""
        stable, other = values[Side.STABLE], values[side]
        if isinstance(other, Loss):
            return other
        if isinstance(stable, Loss):
            return None
        try:
            with within(JUDGING_SECONDS):
                return self._judge.compare(stable, other)
        except TooSlow:
            return Loss.SLOW
        except Misshapen:
            return Loss.SHAPE

    def _count_pair(self, outcomes: Mapping[Side, tuple[Outcome, ...] | Loss | None]) -> None:
        candidate, repeat = outcomes[Side.CANDIDATE], outcomes.get(Side.REPEAT)
        assert isinstance(candidate, tuple)
        self.metrics.pairs.inc()
        for outcome, counter, shift in zip(
            candidate,
            self.metrics.disagreements,
            self.metrics.shifts[Side.CANDIDATE],
            strict=True,
        ):
            shift.observe(outcome.shift)
            if outcome.differs:
                counter.inc()
        if isinstance(repeat, tuple):
            self._count_noise(candidate, repeat)

    def _count_noise(self, candidate: Sequence[Outcome], repeat: Sequence[Outcome]) -> None:
        for outcome, counter, shift in zip(
            repeat, self.metrics.noise_disagreements, self.metrics.shifts[Side.REPEAT], strict=True
        ):
            shift.observe(outcome.shift)
            if outcome.differs:
                counter.inc()
        for each in VERSIONS:
            self.metrics.paired[each,].inc()
        differs, noise = (any(each.differs for each in side) for side in (candidate, repeat))
        if differs != noise:
            self.metrics.flips[Side.CANDIDATE if differs else Side.STABLE,].inc()

    # --- labels ---

    def _remember(self, request: Request, values: Mapping[Side, Values | Loss]) -> None:
        stable, candidate = (self._judge.label_of(_values_of(values[each])) for each in VERSIONS)
        if request.id is None or stable is None or candidate is None:
            return
        said = Said(time=time.monotonic(), stable=stable, candidate=candidate)
        self._predictions.said(request.id, said)

    def learn(self, request_id: str, label: Label) -> bool:
        """The truth about a request has come; whether the request is known."""
        truth = self._predictions.truth(request_id, label, time.monotonic())
        self.metrics.labels["unknown" if truth is None else "matched",].inc()
        if truth is None:
            return False
        for side, is_right in ((Side.STABLE, truth.stable), (Side.CANDIDATE, truth.candidate)):
            self.metrics.labelled[side,].inc()
            if not is_right:
                self.metrics.wrong[side,].inc()
        if truth.stable and not truth.candidate:
            self.metrics.negative_flips.inc()
        if truth.candidate and not truth.stable:
            self.metrics.positive_flips.inc()
        return True


def _place_of(error: Exception) -> str:
    """Where a mistake happened, without what it says."""
    first = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
    frames = traceback.extract_tb(first.__traceback__)
    return f"{type(first).__name__} at {', '.join(f'{each.name}:{each.lineno}' for each in frames)}"


def _is_refused(stable: Answer | NoAnswer, candidate: Answer | NoAnswer) -> bool:
    """Both versions say in the same way that the request is wrong."""
    return (
        isinstance(stable, NoAnswer)
        and isinstance(candidate, NoAnswer)
        and stable.loss is Loss.STATUS_4XX
        and stable.status == candidate.status
    )


def _values_of(values: Values | Loss) -> Values:
    assert not isinstance(values, Loss)
    return values
