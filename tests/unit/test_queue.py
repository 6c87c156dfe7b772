"""The work queue: one worker per key, nothing lost, nothing spinning."""

from __future__ import annotations

import asyncio
from collections import Counter

from modelrollout import queue
from modelrollout.queue import Queue


async def until_empty(keys):
    while len(keys):  # noqa: ASYNC110  # as a user of it sees it
        await asyncio.sleep(0)


def test_a_key_is_never_worked_on_twice_at_once_and_no_ring_is_lost():
    async def scenario():
        running, most, done = Counter(), Counter(), Counter()

        async def work(key):
            running[key] += 1
            most[key] = max(most[key], running[key])
            await asyncio.sleep(0.01)
            running[key] -= 1
            done[key] += 1

        keys = Queue(work)
        for _ in range(5):
            keys.add("a")
            keys.add("b")
            await asyncio.sleep(0.004)
        await asyncio.sleep(0.1)
        assert most == {"a": 1, "b": 1}
        assert done["a"] >= 2
        assert len(keys) == 0

    asyncio.run(scenario())


def test_a_pass_says_when_the_next_one_is_due_and_a_ring_comes_before_it():
    async def scenario():
        seen = []

        async def work(key):
            seen.append(key)
            return 0.02 if len(seen) < 3 else 60

        keys = Queue(work)
        keys.add("a")
        await asyncio.sleep(0.1)
        assert len(seen) == 3
        keys.add("a")
        await asyncio.sleep(0.05)
        assert len(seen) == 4
        await keys.close()

    asyncio.run(scenario())


def test_a_failing_key_backs_off_and_does_not_delay_another(monkeypatch):
    monkeypatch.setattr(queue, "FIRST_BACKOFF_SECONDS", 0.02)

    async def scenario():
        seen = Counter()

        async def work(key):
            seen[key] += 1
            if key == "broken":
                raise RuntimeError("no")
            return 0.01

        keys = Queue(work)
        keys.add("broken")
        keys.add("good")
        await asyncio.sleep(0.3)
        assert 2 <= seen["broken"] <= 8
        assert seen["good"] > seen["broken"]
        await keys.close()

    asyncio.run(scenario())


def test_no_more_workers_than_allowed_run_at_once():
    async def scenario():
        running, most = 0, 0

        async def work(_):
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.01)
            running -= 1

        keys = Queue(work, workers=3)
        for key in range(20):
            keys.add(key)
        await asyncio.sleep(0.2)
        assert most == 3
        assert len(keys) == 0

    asyncio.run(scenario())


def test_who_has_no_cause_comes_after_all_who_have_one_and_is_not_forgotten():
    async def scenario():
        seen = []

        async def work(key):
            seen.append(key)
            for _ in range(5):
                await asyncio.sleep(0)

        keys = Queue(work, workers=1)
        keys.add("first")
        for key in ("idle-1", "idle-2", "idle-3"):
            keys.add(key, is_patient=True)
        keys.add("trial-1")
        keys.add("trial-2")
        await asyncio.sleep(0)
        keys.add("idle-3")  # it has one now
        await until_empty(keys)
        return seen

    assert asyncio.run(scenario()) == [
        "first", "trial-1", "trial-2", "idle-3", "idle-1", "idle-2",
    ]  # fmt: skip


def test_a_sweep_takes_nobody_out_of_its_turn_who_is_looked_at_soon_in_any_case():
    async def scenario():
        seen = []

        async def work(key):
            seen.append(key)
            return 60.0

        keys = Queue(work)
        keys.add("a")
        await asyncio.sleep(0)
        for _ in range(10):
            keys.add("a", is_patient=True)
            await asyncio.sleep(0)
        await keys.close()
        return seen

    assert asyncio.run(scenario()) == ["a"]


def test_how_late_a_pass_began_is_told_but_of_who_has_patience():
    async def scenario():
        late = []
        first_is_over = asyncio.Event()

        async def work(key):
            if key == "slow":
                await first_is_over.wait()

        keys = Queue(work, workers=1, late=late.append)
        keys.add("slow")
        await asyncio.sleep(0)
        keys.add("waits")
        keys.add("patient", is_patient=True)
        await asyncio.sleep(0.05)
        first_is_over.set()
        await until_empty(keys)
        return late

    at_once, waited = asyncio.run(scenario())
    assert at_once < waited
    assert waited >= 0.05


def test_who_is_cancelled_in_the_line_leaves_the_place_to_others():
    async def scenario():
        seen = []
        first_is_over = asyncio.Event()

        async def work(key):
            seen.append(key)
            if key == "first":
                await first_is_over.wait()

        keys = Queue(work, workers=1)
        for key in ("first", "cancelled", "last"):
            keys.add(key)
        await asyncio.sleep(0)
        keys._tasks["cancelled"].cancel()  # noqa: SLF001  # what the end of a process does to all
        first_is_over.set()
        await until_empty(keys)
        return seen

    assert asyncio.run(scenario()) == ["first", "last"]
