"""The reader of raw samples, against a naive one and against what truly happened."""

from __future__ import annotations

import functools
import itertools
import math
import random
from bisect import bisect_right
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelrollout.core.evidence import Grid, Kind, Matcher, Query, Selector, Series
from modelrollout.core.windows import Found, Samples, has_newcomers, lookback_seconds, read

START = 1_790_000_000.25
BEFORE = 150.0
LATENCIES = (0.05, 0.2, 1.0)
PROPORTION = Query(
    name="errors",
    kind=Kind.PROPORTION,
    total=Selector(metric="requests_total"),
    events=Selector(metric="errors_total"),
    stable=(Matcher(label="version", value="1"),),
    candidate=(Matcher(label="version", value="2"),),
)
RATE = replace(PROPORTION, kind=Kind.RATE, total=None)
DISTRIBUTION = replace(
    PROPORTION,
    kind=Kind.DISTRIBUTION,
    total=None,
    events=Selector(metric="latency"),
    thresholds=LATENCIES[1:],
)


@dataclass(frozen=True, slots=True, eq=False)
class Life:
    """One process, from its start to its end: its requests as (time, is an error, latency)."""

    born: float
    dead: float
    requests: tuple[tuple[float, bool, float], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    version: str
    name: str
    scrapes: tuple[float, ...]
    lives: tuple[Life, ...]
    is_lazy: bool
    """Its error series is born with the first error of each life."""
    is_by_code: bool
    """Its requests are counted by code, each series born with the first request."""

    def life_at(self, time):
        return next((each for each in self.lives if each.born <= time < each.dead), None)

    def series(self, query, until):
        return {
            labels: some[: bisect_right(some, (until, math.inf))]
            for labels, some in exposed(self, query.kind).items()
            if some[0][0] <= until
        }


@functools.lru_cache(maxsize=200)
def exposed(target, kind):
    """Each series of a target: (time, value) of each scrape that has it."""
    samples = {}
    for time in target.scrapes:
        life = target.life_at(time)
        for labels, times, is_always_there in counters(target, life, kind) if life else ():
            value = bisect_right(times, time)
            if value or is_always_there:
                samples.setdefault(labels, []).append((time, value))
    return samples


@functools.lru_cache(maxsize=200)
def counters(target, life, kind):
    bad = [at for at, is_bad, _ in life.requests if is_bad]
    good = [at for at, is_bad, _ in life.requests if not is_bad]
    if kind is Kind.DISTRIBUTION:
        return [
            (
                ("events", ("le", "+Inf" if math.isinf(bound) else str(bound))),
                [at for at, _, latency in life.requests if latency <= bound],
                True,
            )
            for bound in (*LATENCIES, math.inf)
        ]
    events = (("events", ("code", "500")), bad, not target.is_lazy)
    if kind is Kind.RATE:
        return [events]
    if target.is_by_code:
        codes = (("200", good), ("500", bad))
        return [events, *((("total", ("code", code)), times, False) for code, times in codes)]
    return [events, (("total", ("code", "")), [at for at, *_ in life.requests], True)]


@dataclass(frozen=True, slots=True)
class World:
    targets: tuple[Target, ...]
    width: float
    length: float

    @property
    def end(self):
        return START + self.length

    def found(self, query, version, since, until):
        series = {"total": [], "events": []}
        before = {"total": [], "events": []}
        for target in self.targets:
            if target.version != version:
                continue
            for (role, label), samples in target.series(query, until).items():
                labels = tuple(sorted((("instance", target.name), label)))
                recent = [each for each in samples if each[0] > since]
                older = [each for each in samples if each[0] <= since]
                series[role] += _series(labels, recent)
                before[role] += _series(labels, older[-1:])
        return Found(
            total=tuple(series["total"]),
            events=tuple(series["events"]),
            total_before=tuple(before["total"]),
            events_before=tuple(before["events"]),
        )

    def samples(self, query, grid, until):
        since = grid.watermark - lookback_seconds(grid)
        return Samples(
            stable=self.found(query, "stable", since, until),
            candidate=self.found(query, "candidate", since, until),
            until=until,
            is_events_metric_known=True,
        )

    def grid(self, watermark=START):
        return Grid(start=START, width=self.width, watermark=watermark)

    def read(self, query, now, watermark=START):
        grid = self.grid(watermark)
        return read(query, grid, self.samples(query, grid, now), now)

    def look(self, query, nows):
        """Look at these times, each time going on from where the last look ended."""
        watermark, windows = START, []
        for now in nows:
            reading = self.read(query, now, watermark)
            assert reading.watermark >= watermark
            windows += reading.windows
            watermark = reading.watermark
        return windows


def _series(labels, samples):
    if not samples:
        return []
    times, values = zip(*samples, strict=True)
    return [Series(labels=labels, times=times, values=tuple(float(each) for each in values))]


def requests_of(seed, born, dead, per_second):
    chance = random.Random(seed)  # noqa: S311
    count = int((dead - born) * per_second)
    return tuple(
        sorted(
            (chance.uniform(born, dead), chance.random() < 0.2, chance.expovariate(4))
            for _ in range(count)
        )
    )


@st.composite
def lives(draw, length, *, is_steady):
    born = START - BEFORE + (0 if is_steady else draw(st.sampled_from([0, 60, 120, 155, 170])))
    found = []
    while born < START + length:
        dead = START + length + 100
        if not is_steady:
            dead = min(dead, born + draw(st.sampled_from([4, 20, 70, 200, 400])))
        rate = draw(st.sampled_from([0, 0.1, 1, 5]))
        requests = requests_of(draw(st.integers(0, 99)), born, dead, rate)
        found.append(Life(born, dead, requests))
        born = dead + draw(st.sampled_from([0.01, 2, 11, 75]))
    return tuple(found)


@st.composite
def scrapes(draw, interval, length, *, is_steady):
    offset = draw(st.integers(0, 999)) / 1000 * interval
    count = int((BEFORE + length) / interval)
    times = [round(START - BEFORE + offset + index * interval, 3) for index in range(count)]
    if is_steady:
        return tuple(times)
    missed = draw(st.sets(st.integers(0, count), max_size=8))
    away = draw(st.sampled_from([0, 0, 0, 4, 9, 80]))
    since = START + draw(st.integers(-40, 40))
    kept = [each for index, each in enumerate(times) if index not in missed]
    return tuple(each for each in kept if not since < each <= since + away)


@st.composite
def worlds(draw, *, is_steady=False, narrow=False):
    length = draw(st.sampled_from([20.0, 45.0, 130.0]))
    interval = draw(st.sampled_from([1.0, 2.0, 5.0, 15.0]))
    width = interval * draw(st.sampled_from([1.0, 1.0, 2.5])) if not narrow else 1.0
    outage = draw(st.sampled_from([0, 0, 6, 40])) if not is_steady else 0
    down = START + draw(st.integers(0, 40))
    targets = []
    for index in range(draw(st.integers(2, 5))):
        seen = draw(scrapes(interval, length, is_steady=is_steady))
        target = Target(
            version="stable" if index % 2 else "candidate",
            name=f"10.0.0.{index}:80",
            scrapes=tuple(each for each in seen if not down < each <= down + outage),
            lives=draw(lives(length, is_steady=is_steady)),
            is_lazy=draw(st.booleans()),
            is_by_code=draw(st.booleans()) and not is_steady,
        )
        targets.append(target)
    return World(tuple(targets), width, length)


QUERIES = st.sampled_from([PROPORTION, RATE, DISTRIBUTION])


# --- the naive reader: each window is found anew from all samples, by scanning -----------------


def naive_windows(world, query, until):
    reach = min(lookback_seconds(world.grid()), 5 * world.width)
    opened, found = START, []
    for index in range(1, 10_000):
        edge = START + index * world.width
        if edge > until:
            return found
        allowed = max(START, opened - reach)
        sums = [
            naive_counts(world, query, version, (opened, edge, allowed))
            for version in ("stable", "candidate")
        ]
        if None not in sums:
            found.append((opened, edge, *sums))
            opened = edge
    return found


def naive_counts(world, query, version, span):
    opened, edge, allowed = span
    grown = []
    for target in [each for each in world.targets if each.version == version]:
        samples = target.series(query, world.end)
        scraped = sorted({time for some in samples.values() for time, _ in some})
        for sooner, time in itertools.pairwise(scraped):
            if opened < time <= edge:
                grown += naive_scrape(query, samples, (sooner, time, allowed))
    bases = [value for role, _, value in grown if role == "total"]
    if not bases:
        return None
    k = [sum(value for role, j, value in grown if (role, j) == ("events", j_)) for j_ in (0, 1)]
    width = 2 if query.kind is Kind.DISTRIBUTION else 1
    return sum(bases), tuple(max(0.0, each) for each in k[:width])


def naive_scrape(query, samples, span):
    """What one scrape of a target adds, as (role, threshold, amount)."""
    sooner, time, allowed = span
    if query.kind is Kind.DISTRIBUTION:
        grown = naive_histogram(samples, time, sooner, allowed)
        everything = grown.pop(("events", ("le", "+Inf")))
        if everything is None:
            return []
        below = [grown["events", ("le", str(bound))] for bound in query.thresholds]
        tails = [("events", j, everything - each) for j, each in enumerate(below)]
        return [("total", 0, everything), *tails]
    grown = {key: naive_growth(some, time, sooner, allowed) for key, some in samples.items()}
    found = [(role, 0, value) for (role, _), value in grown.items() if value is not None]
    if query.kind is Kind.RATE and sooner >= allowed:
        found.append(("total", 0, time - sooner))
    return found


def naive_growth(samples, time, scraped, allowed):
    """How much one series grew in the scrape at `time`; None when that does not count."""
    now = [value for at, value in samples if at == time]
    old = [(at, value) for at, value in samples if at < time]
    if not now:
        return None
    if not old or now[0] < old[-1][1]:
        return now[0] if scraped >= allowed else None
    return now[0] - old[-1][1] if old[-1][0] >= allowed else None


def naive_histogram(samples, time, scraped, allowed):
    """A restart that shows in one of the buckets that are used is one of all of them."""
    used = {key: some for key, some in samples.items() if key[1][1] != str(LATENCIES[0])}
    fell = any(
        value < older
        for some in used.values()
        for (_, older), (at, value) in itertools.pairwise(some)
        if at == time
    )
    if not fell:
        return {key: naive_growth(some, time, scraped, allowed) for key, some in used.items()}
    return {
        key: next((value for at, value in some if at == time and scraped >= allowed), None)
        for key, some in used.items()
    }


def as_tuples(windows):
    return [
        (
            pytest.approx(each.start),
            pytest.approx(each.end),
            (pytest.approx(each.stable.n), pytest.approx(each.stable.k)),
            (pytest.approx(each.candidate.n), pytest.approx(each.candidate.k)),
        )
        for each in windows
    ]


@settings(deadline=None, max_examples=150)
@given(worlds(), QUERIES)
def test_the_windows_are_those_that_a_naive_reader_finds(world, query):
    windows = world.look(query, [world.end])
    assert naive_windows(world, query, world.end)[: len(windows)] == as_tuples(windows)


@settings(deadline=None, max_examples=150)
@given(worlds(), QUERIES, st.lists(st.floats(0.0, 1.0), max_size=12))
def test_it_does_not_matter_when_or_how_often_one_looks(world, query, looks):
    nows = sorted(START + share * world.length for share in looks)
    at_once = world.look(query, [world.end])
    in_turn = world.look(query, [*nows, world.end])
    # One of them may go further: the scrape interval is known better from more samples.
    length = min(len(at_once), len(in_turn))
    assert in_turn[:length] == at_once[:length]
    assert len(in_turn) + 3 >= len(at_once) or not nows


@settings(deadline=None, max_examples=60)
@given(worlds(), QUERIES, st.floats(0.0, 1.0))
def test_two_readers_with_the_same_watermark_agree_as_far_as_both_have_gone(world, query, share):
    sooner = world.read(query, START + share * world.length).windows
    later = world.read(query, world.end).windows
    assert later[: len(sooner)] == sooner


@settings(deadline=None, max_examples=150)
@given(worlds(), QUERIES, st.booleans())
def test_no_request_is_counted_twice_and_none_that_did_not_happen(world, query, is_frequent):
    ends = [START + index for index in range(int(world.length))] if is_frequent else []
    windows = world.look(query, [*ends, world.end])
    edges = [(each.start, each.end) for each in windows]
    assert all(one[1] == other[0] for one, other in itertools.pairwise(edges))
    for version in ("stable", "candidate"):
        counts = [getattr(each, version) for each in windows]
        for index in range(len(windows) + 1):
            end = windows[index - 1].end if index else START
            n, k = truth(world, query, version, end)
            assert sum(each.n for each in counts[:index]) <= n + 1e-6
            for j, most in enumerate(k):
                assert sum(each.k[j] for each in counts[:index]) <= most


def truth(world, query, version, end):
    lives_of = [life for each in world.targets if each.version == version for life in each.lives]
    happened = [one for life in lives_of for one in life.requests if START < one[0] <= end]
    if query.kind is Kind.DISTRIBUTION:
        return len(happened), [sum(one[2] > each for one in happened) for each in query.thresholds]
    bad = sum(one[1] for one in happened)
    targets = sum(each.version == version for each in world.targets)
    return ((end - START) * targets if query.kind is Kind.RATE else len(happened)), [bad]


@settings(deadline=None, max_examples=100)
@given(worlds(is_steady=True), QUERIES)
def test_nothing_is_lost_between_the_first_scrape_and_the_last(world, query):
    if query.kind is Kind.RATE:  # exposure is known where there is a series
        always = tuple(replace(each, is_lazy=False) for each in world.targets)
        world = replace(world, targets=always)
    windows = world.look(query, [START + index for index in range(int(world.length))])
    if not windows:
        return
    for version in ("stable", "candidate"):
        n, k = 0.0, 0.0
        for target in world.targets:
            if target.version == version:
                inside = [each for each in target.scrapes if START <= each <= windows[-1].end]
                first, last = (inside[0], inside[-1]) if inside else (0, 0)
                happened = [r for r in target.lives[0].requests if first < r[0] <= last]
                n += last - first if query.kind is Kind.RATE else len(happened)
                late = [each for each in happened if each[2] > LATENCIES[1]]
                bad = [each for each in happened if each[1]]
                k += len(late if query.kind is Kind.DISTRIBUTION else bad)
        assert sum(getattr(each, version).n for each in windows) == pytest.approx(n)
        assert sum(getattr(each, version).k[0] for each in windows) == k


@settings(deadline=None, max_examples=60)
@given(worlds(is_steady=True, narrow=True), QUERIES)
def test_windows_narrower_than_the_scrapes_lose_nothing_either(world, query):
    windows = world.look(query, [START + index * 0.7 for index in range(int(world.length))])
    for version in ("stable", "candidate"):
        end = windows[-1].end if windows else START
        targets = [each for each in world.targets if each.version == version]
        spans = [[at for at in each.scrapes if START <= at <= end] for each in targets]
        happened = [
            each
            for target, span in zip(targets, spans, strict=True)
            for each in target.lives[0].requests
            if span and span[0] < each[0] <= span[-1]
        ]
        if query.kind is not Kind.RATE:
            assert sum(getattr(each, version).n for each in windows) == len(happened)


@settings(deadline=None, max_examples=25)
@given(worlds(is_steady=True), QUERIES, st.floats(0.0, 0.99))
def test_scrapes_that_take_almost_an_interval_are_waited_for(world, query, slowness):
    """A scrape carries the time it began at and is seen when it ended."""
    interval = world.targets[0].scrapes[1] - world.targets[0].scrapes[0]
    at_once = world.look(query, [world.end])
    watermark, windows = START, []
    for index in range(int(world.length * 3)):
        now = START + index / 3
        grid = world.grid(watermark)
        delays = {"10.0.0.0:80": slowness * interval}
        slow = replace(
            world,
            targets=tuple(
                replace(
                    each,
                    scrapes=tuple(t for t in each.scrapes if t + delays.get(each.name, 0) <= now),
                )
                for each in world.targets
            ),
        )
        reading = read(query, grid, slow.samples(query, grid, now), now)
        windows += reading.windows
        watermark = reading.watermark
    assert windows == at_once[: len(windows)]


@settings(deadline=None, max_examples=60)
@given(worlds(is_steady=True))
def test_a_window_is_handed_out_no_later_than_the_data_allow(world):
    """With all targets alive: a tenth of a scrape interval after its end, at the latest."""
    interval = world.targets[0].scrapes[1] - world.targets[0].scrapes[0]
    for now in [START + 10 + index * 0.37 for index in range(20)]:
        if now > world.end - interval:
            return
        ends = [each.end for each in world.read(PROPORTION, now).windows]
        both_seen = START + 2 * interval + world.width
        due = START + math.floor((now - 0.1 * interval - 0.002 - START) / world.width) * world.width
        if due >= both_seen and world.width == interval * 2.5:
            assert ends
            assert ends[-1] >= due


def test_the_naive_reader_is_not_vacuous():
    requests = requests_of(1, START - BEFORE, START + 100, 5)
    life = Life(START - BEFORE, START + 100, requests)
    times = tuple(START - BEFORE + 0.3 + index for index in range(200))
    targets = tuple(
        Target(version, version, times, (life,), is_lazy=True, is_by_code=True)
        for version in ("stable", "candidate")
    )
    world = World(targets, 1.0, 40.0)
    assert len(world.look(PROPORTION, [world.end])) == 39
    seen = [at for at, *_ in requests]
    expected = bisect_right(seen, START + 39.3) - bisect_right(seen, START + 0.3)
    assert sum(each.stable.n for each in world.look(PROPORTION, [world.end])) == expected
    assert has_newcomers(world.grid(START - 200), world.found(PROPORTION, "stable", 0, START).total)
