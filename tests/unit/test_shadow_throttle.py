"""A budget is kept, and less is asked of versions that become slower."""

import math

import numpy as np
import pytest

from modelrollout.shadow.throttle import Hold, Memory, Throttle


def through(throttle, seconds, per_second, latency, start=1000.0, seed=1):
    """Requests of one second after the other; the admitted per second."""
    generator = np.random.default_rng(seed)
    admitted = []
    for second in range(seconds):
        count = 0
        for index in range(per_second):
            now = start + second + index / per_second
            if throttle.admits(now, generator.random()):
                count += 1
                throttle.answered("stable", latency(second, count, generator))
        admitted.append(count)
    return admitted


def steady(_second, _count, generator):
    return generator.lognormal(math.log(0.02), 0.5)


def uneven(_second, _count, generator):
    return generator.lognormal(math.log(0.5), 1.0)


def test_it_begins_slowly_so_that_the_versions_are_seen_at_their_best():
    admitted = through(Throttle(50), 20, 50, steady)

    assert admitted[0] <= 20
    assert admitted[-1] == 50


def test_below_the_budget_everything_is_admitted():
    throttle = Throttle(50)
    through(throttle, 20, 40, steady)

    assert sum(through(throttle, 60, 40, steady, start=1020.0)) == 60 * 40
    assert throttle.share == 1


def test_the_budget_is_not_exceeded():
    throttle = Throttle(50)

    admitted = through(throttle, 60, 200, steady)

    assert max(admitted) <= 50 + 50 / 4
    assert 45 < sum(admitted[30:]) / 30 <= 50
    assert not throttle.is_held_back


def test_which_requests_are_admitted_is_decided_by_their_place():
    """Once the share is known, the low places are in and the high ones are out."""
    throttle = Throttle(50)
    through(throttle, 30, 200, steady)

    assert throttle.share == pytest.approx(0.25, abs=0.02)
    assert throttle.admits(1029.999, 0.01)
    assert not throttle.admits(1029.999, 0.5)


def test_a_version_that_slows_down_with_the_load_gets_less():
    """It is fast up to 20 requests per second, and then ever slower."""

    def queue(_second, count, _generator):
        return 0.02 * max(1.0, 1.25 ** (count - 20))

    throttle = Throttle(100)
    admitted = through(throttle, 120, 90, queue)

    assert 10 <= sum(admitted[60:]) / 60 <= 50
    assert throttle.is_held_back


def test_it_recovers_when_the_version_does():
    def bad_seconds(second, _count, _generator):
        return 0.5 if 20 <= second < 30 else 0.02

    throttle = Throttle(50)
    admitted = through(throttle, 60, 50, bad_seconds)

    assert min(admitted[20:35]) < 15
    assert admitted[-1] >= 48
    assert not throttle.is_held_back


def test_a_version_that_says_it_has_too_much_to_do_gets_less_at_once():
    throttle = Throttle(50)
    through(throttle, 20, 50, steady)
    throttle.overloaded()

    admitted = through(throttle, 2, 50, steady, start=1020.0)

    assert admitted[1] < 45


def test_something_is_always_tried():
    throttle = Throttle(50)
    for second in range(60):
        for index in range(50):
            throttle.admits(1000.0 + second + index / 50, 0.01)
        throttle.overloaded()

    assert throttle.rate == 1
    assert throttle.admits(1061.5, 0.001)


def test_versions_whose_answers_take_uneven_times_are_left_alone():
    admitted = through(Throttle(50), 600, 50, uneven)

    assert sum(admitted[20:]) / (580 * 50) > 0.9


def test_memory_is_given_back_in_one_piece():
    memory = Memory(100)
    one, other = Hold(memory), Hold(memory)

    assert one.take(60)
    assert one.take(30)
    assert not other.take(20)
    assert other.take(10)
    one.give_back()
    one.give_back()

    assert memory.held == 10
    assert other.take(90)
