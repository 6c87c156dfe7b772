"""Bounds for one rate: they hold, at every look, and are where the evidence crosses."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from modelrollout.stats.rates import share_bounds

MULTIPLES = (1.02, 1.05, 1.1, 1.2, 1.35, 1.6, 2.0, 3.0, 5.0, 10.0, 20.0)


@pytest.mark.parametrize("p", [0.001, 0.03, 0.5, 0.97])
@pytest.mark.parametrize("multiple", [20.0, 2.0, 0.5, 0.05])
def test_each_bet_is_fair_by_summation(p, multiple):
    k = np.arange(41)
    e = multiple**k / (1 + (multiple - 1) * p) ** 40

    assert float((binom.pmf(k, 40, p) * e).sum()) == pytest.approx(1, rel=1e-9)


def test_the_lower_bound_is_where_the_mixture_reaches_what_is_needed():
    (low,), _ = share_bounds([1000], [30], 0.025)

    logs = [30 * math.log(s) - 1000 * math.log1p((s - 1) * low) for s in MULTIPLES]
    assert math.log(sum(map(math.exp, logs)) / len(logs)) == pytest.approx(math.log(40), abs=1e-6)


def test_bands_are_left_at_any_of_a_hundred_looks_in_few_runs():
    chance = np.random.default_rng(20260501)
    events = chance.binomial(100, 0.03, size=(400, 100)).cumsum(axis=1)
    requests = np.tile(100.0 * np.arange(1, 101), (400, 1))

    low, high = share_bounds(requests.ravel().tolist(), events.ravel().tolist(), 0.025)

    is_left = (np.array(low) > 0.03) | (np.array(high) < 0.03)
    left = int(is_left.reshape(400, 100).any(axis=1).sum())
    assert left <= 20


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.floats(1, 20))
def test_bounds_enclose_what_was_seen_and_are_wider_where_events_come_in_bursts(k, others, phi):
    n = k + others
    (low,), (high,) = share_bounds([n], [k], 0.025)
    (lower,), (higher,) = share_bounds([n], [k], 0.025, dispersion=phi)

    share = k / n if n else 0.5
    assert 0 <= lower <= low + 1e-12
    assert low <= share + 1e-12
    assert share <= high + 1e-12
    assert high <= higher + 1e-12
    assert higher <= 1


def test_of_nothing_nothing_is_known():
    assert share_bounds([0.0], [0.0], 0.025) == ((0.0,), (1.0,))
    assert share_bounds([], [], 0.025) == ((), ())


@pytest.mark.parametrize(
    ("n", "k", "alpha", "phi", "says"),
    [
        ([1], [0], 0.0, 1.0, "alpha"),
        ([1], [0], 0.5, 0.5, "dispersion"),
        ([1], [2], 0.5, 1.0, "events"),
        ([1], [-1], 0.5, 1.0, "events"),
        ([1, 2], [1], 0.5, 1.0, "events"),
        ([math.inf], [1], 0.5, 1.0, "events"),
    ],
)
def test_what_is_no_count_is_refused(n, k, alpha, phi, says):
    with pytest.raises(ValueError, match=says):
        share_bounds(n, k, alpha, dispersion=phi)
