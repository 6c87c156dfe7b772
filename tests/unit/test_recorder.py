"""The recorder keeps traces beside their ModelRollout, across restarts and failures, and never fails a pass."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from modelrollout.adapters.recorder import KEPT, LEAST_SECONDS, Recorder
from modelrollout.api.v1alpha1 import Phase
from modelrollout.core.trace import MAX_POINTS, Trace, decoded, trace_of
from modelrollout.errors import ClusterUnavailable, Conflict, NotFound
from walk import BAD, GOOD, Walk


@dataclass
class ConfigMaps:
    """They and nothing else, with what the recorder depends on: versions, and servers that are away."""

    bodies: dict[str, dict[str, Any]] = field(default_factory=dict)
    is_away: bool = False
    is_hanging: bool = False
    writes: int = 0

    async def get(self, _resource, _namespace, name):
        await self._answer()
        if name not in self.bodies:
            raise NotFound(name)
        return self.bodies[name]

    async def create(self, _resource, _namespace, body):
        await self._answer()
        name = body["metadata"]["name"]
        if name in self.bodies:
            raise Conflict(name)
        self._put(name, body)
        return body

    async def patch(self, _resource, _namespace, name, operations):
        await self._answer()
        body = self.bodies[name]
        files = dict(body.get("binaryData") or {})
        for each in operations:
            *_, key = each["path"].split("/")
            match each["op"], key:
                case "test", _:
                    if body["metadata"]["resourceVersion"] != each["value"]:
                        raise Conflict(name)
                case "add", "binaryData":
                    files = each["value"]
                case "add", _:
                    files[key] = each["value"]
                case "remove", _:
                    del files[key]
        self._put(name, {**body, "binaryData": files})
        return body

    async def _answer(self):
        await asyncio.sleep(3600 if self.is_hanging else 0)
        if self.is_away:
            raise ClusterUnavailable("it does not answer")

    def _put(self, name, body):
        self.writes += 1
        meta = {**body["metadata"], "resourceVersion": str(self.writes)}
        self.bodies[name] = {**body, "metadata": meta}

    def traces(self) -> list[Trace]:
        body = self.bodies.get(trace_of("ranker"), {})
        files = sorted((body.get("binaryData") or {}).items())
        return [decoded(base64.b64decode(text)) for _, text in files]


@pytest.fixture
def kept() -> ConfigMaps:
    return ConfigMaps()


def record(kept: ConfigMaps, passes, recorder: Recorder | None = None) -> Recorder:
    """Every pass as the operator would hand it over; its writes end before the next one."""

    async def run() -> Recorder:
        found = recorder or Recorder(kept)
        for each in passes:
            found.record(*each)
            await found.settle()
        return found

    return asyncio.run(run())


async def until(seen) -> None:
    """Wait for what no pass brings about."""
    for _ in range(6000):
        if seen():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("not within a minute")


def long_walk(passes: int) -> Walk:
    """A first step that no evidence ends."""
    walk = Walk(spec={"strategy": {"steps": [{"weight": 10, "minSeconds": 90_000}]}})
    for _ in range(passes):
        walk.step(traffic=GOOD)
    return walk


def test_a_rollout_is_one_file_with_its_beginning_and_its_end(kept):
    walk = Walk()
    walk.until(Phase.PROMOTED)

    record(kept, walk.passes)

    (trace,) = kept.traces()
    assert trace.outcome == "Promoted"
    assert trace.decisions[0].what == "Started"
    assert trace.decisions[-1].what == "Promoted"
    (body,) = kept.bodies.values()
    (owner,) = body["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"]) == ("ModelRollout", "u-1")


def test_it_writes_at_decisions_and_seldom_between_them(kept):
    walk = long_walk(200)
    decisions = sum(bool(plan.notes) for _, _, plan in walk.passes)

    record(kept, walk.passes)

    assert kept.writes <= decisions + 200 * 5 / LEAST_SECONDS + 2


def test_a_long_rollout_stays_small_and_covers_all_of_its_time(kept):
    walk = long_walk(1000)

    record(kept, walk.passes)

    (trace,) = kept.traces()
    assert len(trace.points) <= MAX_POINTS
    assert trace.points[-1].time > walk.now - 0.15 * 1000 * 5
    assert trace.points[0].time == walk.passes[1][1].now


def test_who_leads_next_goes_on_with_it(kept):
    walk = long_walk(100)
    record(kept, walk.passes[:60])
    lost = kept.traces()[0].points[-1].time
    for _ in range(60):
        walk.step(traffic=BAD)
        if walk.status.rejected:
            break

    record(kept, walk.passes[60:])

    (trace,) = kept.traces()
    times = [each.time for each in trace.points]
    assert times == sorted(times)
    assert trace.decisions[0].what == "Started"
    assert trace.outcome == "GuardrailBreached"
    assert any(each <= lost for each in times)


def test_an_operator_that_ends_loses_nothing(kept):
    walk = long_walk(100)

    async def run() -> None:
        recorder = Recorder(kept)
        for each in walk.passes:
            recorder.record(*each)
            await recorder.settle()
        await recorder.close()

    asyncio.run(run())

    (trace,) = kept.traces()
    assert trace.points[-1].time == walk.now


def test_an_operator_that_ends_waits_for_nobody(kept):
    walk = long_walk(20)
    kept.is_hanging = True

    async def run() -> None:
        recorder = Recorder(kept)
        for each in walk.passes:
            recorder.record(*each)
        await recorder.close(patience_seconds=0.05)

    asyncio.run(run())

    assert kept.traces() == []


def test_points_of_two_leaders_are_in_the_order_of_time(kept):
    walk = long_walk(60)
    before = record(kept, walk.passes[:35])
    record(kept, walk.passes[35:])

    asyncio.run(before.close())

    (trace,) = kept.traces()
    times = [each.time for each in trace.points]
    assert times == sorted(times)


def test_a_server_that_is_away_costs_nothing_but_time(kept):
    walk = Walk()
    for _ in range(4):
        walk.step()
    half = len(walk.passes)
    walk.until(Phase.PROMOTED)
    for _ in range(60):
        walk.step()
    kept.is_away = True
    recorder = record(kept, walk.passes[:half])
    assert kept.traces() == []

    kept.is_away = False
    record(kept, walk.passes[half:], recorder)

    (trace,) = kept.traces()
    assert trace.outcome == "Promoted"
    assert trace.decisions[0].what == "Started"


def test_the_end_is_written_later_if_it_could_not_be_written_then(kept):
    walk = Walk()
    walk.until(Phase.PROMOTED)
    end = len(walk.passes)
    for _ in range(60):
        walk.step()
    recorder = record(kept, walk.passes[: end - 1])
    kept.is_away = True
    record(kept, walk.passes[end - 1 : end + 3], recorder)
    assert kept.traces()[0].ended is None

    kept.is_away = False
    record(kept, walk.passes[end + 3 :], recorder)

    assert kept.traces()[0].outcome == "Promoted"


def test_the_end_is_written_without_another_pass_if_it_came_during_a_write(kept):
    walk = Walk()
    walk.until(Phase.PROMOTED)

    async def run() -> None:
        recorder = Recorder(kept)
        for each in walk.passes:
            recorder.record(*each)
        await until(lambda: any(each.ended is not None for each in kept.traces()))

    asyncio.run(run())

    assert kept.traces()[0].outcome == "Promoted"


def test_the_end_is_written_without_another_pass_once_the_server_is_back(kept):
    walk = Walk()
    walk.until(Phase.PROMOTED)

    async def run() -> None:
        recorder = Recorder(kept, retry_seconds=0.01)
        kept.is_away = True
        for each in walk.passes:
            recorder.record(*each)
            await recorder.settle()
        kept.is_away = False
        await until(kept.traces)

    asyncio.run(run())

    (trace,) = kept.traces()
    assert (trace.decisions[0].what, trace.outcome) == ("Started", "Promoted")


def test_the_last_rollouts_are_kept_and_no_more(kept):
    walk, recorder = Walk(), Recorder(kept)
    for index in range(KEPT + 2):
        walk.until(Phase.ROLLING_BACK, traffic=BAD)
        for _ in range(20):
            walk.step()
        walk.step(command="retry")
        record(kept, walk.passes, recorder)
        walk.passes.clear()
        assert len({each.began for each in kept.traces()}) == min(index + 1 + 1, KEPT)

    assert [each.outcome for each in kept.traces()][:-1] == ["GuardrailBreached"] * (KEPT - 1)


def test_a_config_map_of_somebody_else_is_left_alone(kept, caplog):
    theirs = {"metadata": {"name": trace_of("ranker"), "resourceVersion": "1"}, "data": {"a": "b"}}
    kept.bodies[trace_of("ranker")] = theirs
    walk = Walk()
    walk.until(Phase.PROMOTED)

    record(kept, walk.passes)

    assert kept.bodies == {trace_of("ranker"): theirs}
    assert "is not this operator's: rename it" in caplog.text


def test_a_file_that_somebody_spoiled_is_not_gone_on_with(kept):
    walk = long_walk(60)
    recorder = record(kept, walk.passes[:30])
    (body,) = kept.bodies.values()
    (name,) = body["binaryData"]
    body["binaryData"][name] = base64.b64encode(b"spoiled").decode()

    record(kept, walk.passes[30:], recorder)

    (trace,) = kept.traces()
    assert trace.points


def test_what_cannot_be_recorded_fails_nothing(kept, caplog):
    walk = long_walk(3)
    rollout, seen, plan = walk.passes[-1]
    spoiled = replace(plan, status=plan.status.model_copy(update={"guardrails": None}))

    record(kept, [(rollout, seen, spoiled)])

    assert "trace of shop/ranker not kept" in caplog.text


def test_an_object_that_is_deleted_is_forgotten(kept):
    walk = long_walk(20)
    recorder = record(kept, walk.passes)
    written = kept.writes
    walk.step(deleting=True)

    record(kept, walk.passes[-1:] * 50, recorder)

    assert kept.writes == written
