"""What must hold for the bounds of any windows."""

import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from modelrollout.stats.bounds import Bound
from modelrollout.stats.combine import log_mixture
from modelrollout.stats.counts import Sample, log_harm, log_safety
from modelrollout.stats.intervals import difference_bounds, ratio_bounds


@st.composite
def samples(draw):
    n_b, n_c = draw(st.integers(200, 5000)), draw(st.integers(50, 5000))
    return Sample(n_b, draw(st.integers(0, n_b // 5)), n_c, draw(st.integers(0, n_c // 5)))


windows = st.lists(samples(), min_size=1, max_size=6)
alphas = st.sampled_from((0.001, 0.01, 0.05, 0.2))
BOUNDS = (ratio_bounds, difference_bounds)


@given(windows, alphas, alphas)
def test_bounds_are_wider_the_surer_they_must_be(seen, one, other):
    sure, less = sorted((one, other))
    for bounds in BOUNDS:
        wide, narrow = bounds(seen, sure), bounds(seen, less)
        assert wide[0] <= narrow[0] + 1e-9
        assert wide[1] >= narrow[1] - 1e-9


@given(windows, alphas, st.randoms(use_true_random=False))
def test_neither_the_order_of_windows_nor_their_width_matters(seen, alpha, random):
    halves = [
        Sample(w.stable_n / 2, w.stable_k / 2, w.candidate_n / 2, w.candidate_k / 2)
        for w in seen
        for _ in range(2)
    ]
    random.shuffle(halves)
    for bounds in BOUNDS:
        assert bounds(halves, alpha) == pytest.approx(bounds(seen, alpha), rel=1e-6, abs=1e-9)


@given(windows, alphas)
def test_a_further_event_of_the_candidate_raises_both_bounds(seen, alpha):
    first = seen[0]
    more = Sample(first.stable_n, first.stable_k, first.candidate_n, first.candidate_k + 1)
    for bounds in BOUNDS:
        less, raised = bounds(seen, alpha), bounds([more, *seen[1:]], alpha)
        assert raised[0] >= less[0] - 1e-9
        assert raised[1] >= less[1] - 1e-9


@settings(max_examples=40)
@given(windows)
def test_bounds_are_where_a_search_by_steps_finds_them(seen):
    """The last step at which the plain evidence still rejects, and the first."""
    needed = math.log(20)
    low, high = ratio_bounds(seen, 0.05, margin=1.5)
    steps = [math.exp(0.05 * i) for i in range(-185, 185)]
    rejected = [r for r in steps if log_mixture(log_harm(seen, Bound(r))) >= needed]
    assert low == pytest.approx(max(rejected, default=low), rel=0.052) or not rejected
    safe = [r for r in steps if log_mixture(log_safety(seen, Bound(r), tuned_for=1.5)) >= needed]
    assert high == pytest.approx(min(safe, default=high), rel=0.052) or not safe
    _, high = difference_bounds(seen, 0.05)
    steps = [0.001 * i for i in range(1, 300)]
    safe = [d for d in steps if log_mixture(log_safety(seen, Bound(1.0, d))) >= needed]
    assume(safe)
    assert high == pytest.approx(min(safe), abs=0.00101) or high <= steps[0]


@given(windows, st.floats(0.1, 50))
def test_differences_are_per_unit_of_exposure_and_ratios_have_none(seen, unit):
    scaled = [
        Sample(w.stable_n * unit, w.stable_k, w.candidate_n * unit, w.candidate_k) for w in seen
    ]
    assert ratio_bounds(scaled, 0.05) == pytest.approx(ratio_bounds(seen, 0.05), rel=1e-6)
    expected = [x / unit for x in difference_bounds(seen, 0.05)]
    assert difference_bounds(scaled, 0.05) == pytest.approx(expected, rel=1e-6, abs=1e-9)
