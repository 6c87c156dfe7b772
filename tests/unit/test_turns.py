"""What the benches of the users' latency conclude from turns and records."""

from __future__ import annotations

import json
import random

import pytest

import turns
from turns import SETTLE_SECONDS, Turn, latencies, ratios
from workloads.traffic import Record

TURN_SECONDS = 5.0
BLOCKS = 12


def record(start: float, seconds: float, status: int = 200) -> Record:
    return Record("id", start, seconds, status, "", "v1", None)


def blocks(count: int = BLOCKS) -> list[Turn]:
    """One turn with it and one without it, again and again."""
    moments = [
        (block, arm, 2 * block + place)
        for block in range(count)
        for place, arm in enumerate(("off", "on"))
    ]
    return [
        Turn(block=block, arm=arm, start=TURN_SECONDS * number, end=TURN_SECONDS * (number + 1))
        for block, arm, number in moments
    ]


def requests(found: list[Turn], slower: float, rate: int = 60) -> list[Record]:
    """Random latencies that are longer by a factor while it is on; slower in some blocks in both arms."""
    source = random.Random(5)  # noqa: S311
    records = []
    for turn in found:
        factor = (slower if turn.arm == "on" else 1.0) * (1 + 0.1 * (turn.block % 3))
        for number in range(int(TURN_SECONDS * rate)):
            seconds = 0.02 * factor * source.lognormvariate(0, 0.1)
            records.append(record(turn.start + number / rate, seconds))
    return records


def test_what_changes_nothing_is_found_to_change_nothing() -> None:
    found = ratios(latencies(blocks(), requests(blocks(), slower=1.0)), "on", "off")
    assert found["p50"].verdict == "held"
    assert found["p50"].value == pytest.approx(1, abs=0.02)
    assert found["p99"].value == pytest.approx(1, abs=0.05)


def test_what_takes_a_tenth_longer_misses_the_bar() -> None:
    found = ratios(latencies(blocks(), requests(blocks(), slower=1.1)), "on", "off")
    for quantile in found.values():
        assert quantile.lower < quantile.value < quantile.upper
    assert found["p50"].verdict == "missed"
    assert found["p50"].value == pytest.approx(1.1, abs=0.02)
    assert found["p99"].value == pytest.approx(1.1, abs=0.05)


def test_two_blocks_that_disagree_leave_it_open() -> None:
    faster, slower = requests(blocks(1), slower=0.9), requests(blocks(1), slower=1.1)
    later = [record(each.start + 2 * TURN_SECONDS, each.latency_seconds) for each in slower]
    assert ratios(latencies(blocks(2), faster + later), "on", "off")["p50"].verdict == "open"


def test_the_start_of_a_turn_and_answers_that_did_not_come_are_no_latencies() -> None:
    (off, _) = found = blocks(1)
    times = [off.start + SETTLE_SECONDS - 0.1, off.start + SETTLE_SECONDS, off.end - 0.1, off.end]
    records = [record(each, 0.02) for each in times] + [record(off.end - 0.2, 10.0, status=503)]
    assert latencies(found, records)["off"][0].tolist() == [20.0, 20.0]


def test_a_block_that_lacks_a_turn_is_left_out() -> None:
    found = latencies(blocks(3)[:-1], requests(blocks(3), slower=1.0))
    assert {arm: len(of_arm) for arm, of_arm in found.items()} == {"off": 2, "on": 2}


def test_failures_are_counted_where_they_were_those_between_turns_too(
    tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    found = blocks(2)
    bad = [record(found[1].start, 0.01, status=503), record(found[-1].end + 1, 0.0, status=0)]
    records = requests(found, slower=1.0) + bad
    assert turns.report("example", found, records, [("on", "off")], rate=100) == 2
    assert "2 failed" in capsys.readouterr().out
    stored = json.loads((tmp_path / turns.RESULTS / "example.json").read_text())
    assert {arm: each["failed"] for arm, each in stored["arms"].items()} == {"off": 0, "on": 1}
    assert stored["rate"] == 100
