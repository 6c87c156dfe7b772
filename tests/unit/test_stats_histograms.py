"""Thresholds of histograms and the evidence of their tails together."""

import math

import numpy as np
import pytest

from modelrollout.stats.histograms import (
    choose_thresholds,
    gate_thresholds,
    log_harm,
    log_safety,
)

BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, math.inf)
STABLE = (100, 3000, 7000, 9000, 9600, 9910, 9992, 10000, 10000)


def test_thresholds_are_the_bounds_whose_tails_are_nearest_to_the_quantiles():
    assert choose_thresholds(BOUNDS, STABLE) == (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


def test_a_threshold_beyond_all_that_stable_showed_is_there_for_a_new_kind_of_slow():
    few = (2, 60, 140, 180, 192, 198, 200, 200, 200)
    assert max(choose_thresholds(BOUNDS, few)) == 1.0
    assert choose_thresholds((1.0, 2.0, 3.0, math.inf), (90, 100, 100, 100)) == (1.0, 2.0)


def test_thresholds_are_bounds_ascending_unique_and_never_infinite():
    chosen = choose_thresholds(BOUNDS, STABLE, quantiles=tuple(np.linspace(0.01, 0.9999, 200)))
    assert list(chosen) == sorted(set(chosen))
    assert set(chosen) <= set(BOUNDS) - {math.inf}
    assert len(chosen) <= 8


def test_a_limit_counts_everything_over_it():
    assert 0.025 in choose_thresholds(BOUNDS, STABLE, limits=(0.03,))
    assert 0.05 in choose_thresholds(BOUNDS, STABLE, limits=(0.05,))
    assert 0.01 in choose_thresholds(BOUNDS, STABLE, limits=(0.001,))


def test_limits_are_kept_first_and_then_the_highest_quantiles():
    chosen = choose_thresholds(BOUNDS, STABLE, limits=(0.01,), most=3)
    assert chosen == (0.01, 1.0, 2.5)


def test_a_histogram_in_one_bucket_has_one_threshold_at_most_per_bound():
    assert choose_thresholds((1.0, math.inf), (50, 50)) == (1.0,)
    assert choose_thresholds((1.0, math.inf), (0, 50)) == (1.0,)


def test_a_histogram_without_the_infinite_bucket_is_read_too():
    assert choose_thresholds(BOUNDS[:-1], STABLE[:-1]) == choose_thresholds(BOUNDS, STABLE)


def test_the_gate_holds_only_tails_that_can_be_proved_and_the_limits():
    thresholds = choose_thresholds(BOUNDS, STABLE)
    assert gate_thresholds(thresholds, BOUNDS, STABLE) == (0.025, 0.05, 0.1, 0.25)
    assert gate_thresholds(thresholds, BOUNDS, STABLE, limits=(1.2,)) == (
        0.025,
        0.05,
        0.1,
        0.25,
        1.0,
    )
    assert gate_thresholds(thresholds, BOUNDS, STABLE, least=0.1) == (0.025, 0.05, 0.1)


def test_the_gate_is_never_empty():
    assert gate_thresholds((1.0, 2.5), BOUNDS, STABLE) == (1.0,)


def test_harm_anywhere_is_the_mean_over_thresholds_and_grid():
    states = [(0.0, math.log(3)), (math.log(5), math.log(7))]
    assert log_harm(states) == pytest.approx(math.log((1 + 3 + 5 + 7) / 4))


def test_safety_everywhere_is_the_least_of_the_thresholds():
    states = [(0.0, math.log(3)), (math.log(5), math.log(7))]
    assert log_safety(states) == pytest.approx(math.log(2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: choose_thresholds((1, 2), (1,)), "2 bucket bounds do not go with 1 counts"),
        (lambda: choose_thresholds((), ()), "no finite bucket bound"),
        (lambda: choose_thresholds((math.inf,), (4,)), "no finite bucket bound"),
        (lambda: choose_thresholds((1, math.inf), (0, 0)), "the histogram is empty"),
        (lambda: choose_thresholds((2, 1), (1, 2)), "bucket bounds must ascend"),
        (lambda: choose_thresholds((1, 2), (2, 1)), "cumulative counts must not fall"),
        (lambda: choose_thresholds((1, 2), (-1, 1)), "cumulative counts must not fall"),
        (lambda: choose_thresholds((1, 2), (1, math.nan)), "not a number"),
        (lambda: choose_thresholds((1, 2), (1, 2), quantiles=(1.0,)), "between 0 and 1"),
        (lambda: choose_thresholds((1, 2), (1, 2), limits=(1, 2), most=1), "2 limits do not fit"),
        (lambda: gate_thresholds((3.0,), (1, 2), (1, 2)), r"thresholds \[3.0\] are not bucket"),
        (lambda: gate_thresholds((), (1, 2), (1, 2)), "are not bucket bounds"),
        (lambda: log_harm(()), "at least one threshold"),
        (lambda: log_safety(()), "at least one threshold"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()
