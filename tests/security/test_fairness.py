"""One tenant's rollouts, however many and however slow, do not keep another's from being looked at."""

from __future__ import annotations

import asyncio
from operator import itemgetter

import pytest

from modelrollout.queue import Queue

WORKERS = 4


async def until_idle(queue):
    for _ in range(1000):
        await asyncio.sleep(0)
    assert len(queue) == 0


async def worked(hanging: list[str], wanted: tuple[str, str]) -> tuple[int, bool]:
    """How many passes of the hanging tenants run at once, and whether the wanted one is reached."""
    enough, reached = asyncio.Event(), asyncio.Event()
    running = 0

    async def work(key: tuple[str, str]) -> float | None:
        nonlocal running
        if key == wanted:
            reached.set()
            return None
        running += 1
        await enough.wait()
        return None

    queue: Queue[tuple[str, str]] = Queue(work, WORKERS, itemgetter(0))
    for index in range(10 * WORKERS):
        for namespace in hanging:
            queue.add((namespace, f"r{index}"))
    for _ in range(10):
        await asyncio.sleep(0)
    most = running
    queue.add(wanted)
    for _ in range(10):
        await asyncio.sleep(0)
    found = reached.is_set()
    enough.set()
    await queue.close()
    return most, found


def test_a_tenant_whose_passes_hang_keeps_nobody_else_waiting():
    most, is_reached = asyncio.run(worked(["eve"], ("shop", "ranker")))

    assert most == WORKERS // 2
    assert is_reached


def test_all_workers_are_used_when_there_is_work_of_several_tenants():
    most, _ = asyncio.run(worked(["shop", "bank", "mill"], ("eve", "ranker")))

    assert most == WORKERS


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_tenant_alone_always_has_a_worker(workers):
    done = []

    async def scene():
        async def work(key):
            done.append(key)

        queue = Queue(work, workers, itemgetter(0))
        for index in range(5):
            queue.add(("shop", index))
        await until_idle(queue)

    asyncio.run(scene())

    assert len(done) == 5


def test_nothing_is_kept_of_tenants_that_are_gone():
    async def scene():
        async def work(_key):
            await asyncio.sleep(0)

        queue = Queue(work, WORKERS, itemgetter(0))
        for index in range(50):
            queue.add((f"namespace-{index}", "ranker"))
        await until_idle(queue)
        return queue

    queue = asyncio.run(scene())

    places = queue._places  # noqa: SLF001  # what would be kept
    kept = (places._taken, places._hasty, places._patient)  # noqa: SLF001
    assert not any(kept)
