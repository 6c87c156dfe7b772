"""What can go wrong: a process dies, the API server answers badly, the world changes under it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from chaos.operators import Call, Fault
from chaos.run import Run
from modelrollout.adapters.cluster import Object
from modelrollout.errors import ClusterUnavailable, Conflict

TIMEOUT_SECONDS = 10.0

FaultOf = Callable[[Run], Fault]


def dies(write: int, *, after: bool) -> FaultOf:
    """The process is killed right before, or right after, one of its writes."""

    def of(run: Run) -> Fault:
        async def fault(call: Call, do: Callable[[], Object]) -> Object:
            if call.write != write:
                return do()
            if after:
                do()
            run.kill(run.operators[0])
            return await _never()

        return fault

    return of


async def _never() -> Object:
    """A dead process comes to no next line, and to no finally."""
    return await asyncio.get_running_loop().create_future()


def answers(number: int, error: Exception, *, seconds: float = 0.0, done: bool = False) -> FaultOf:
    """One call fails, after a while and perhaps after it was carried out."""

    def of(_run: Run) -> Fault:
        async def fault(call: Call, do: Callable[[], Object]) -> Object:
            if call.number != number:
                return do()
            if done:
                do()
            await asyncio.sleep(seconds)
            raise error

        return fault

    return of


CONFLICT = Conflict("409 somebody else wrote first")
TOO_MANY = ClusterUnavailable("429 too many requests")
INTERNAL = ClusterUnavailable("500 etcdserver: leader changed")
TIMED_OUT = ClusterUnavailable("no answer in time")


def stalls(number: int, seconds: float) -> FaultOf:
    """A process stands still before one of its calls, another takes over, and it goes on."""

    def of(run: Run) -> Fault:
        async def fault(call: Call, do: Callable[[], Object]) -> Object:
            if call.number == number:
                run.start_operator()
                await asyncio.sleep(seconds)
            return do()

        return fault

    return of
