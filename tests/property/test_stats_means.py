"""What must hold for means of any values."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm, t

from modelrollout.stats.means import (
    LEAST_WINDOWS,
    Batch,
    difference_bounds,
    log_harm,
    log_normal_mixture,
    log_safety,
    moments,
    normal_mixture_bound,
    tuned_rho,
)

values = st.lists(st.floats(-100, 100), min_size=LEAST_WINDOWS, max_size=60)
numbers = st.floats(0.5, 500)
batches = st.lists(
    st.builds(Batch, numbers, st.floats(-1e3, 1e3), numbers, st.floats(-1e3, 1e3)), max_size=50
)


def windows(shifts, unit=1.0):
    return [Batch(90, 9 * unit * (i % 5), 10, unit * x) for i, x in enumerate(shifts)]


@given(values, st.floats(0.1, 1e3))
def test_evidence_does_not_depend_on_the_unit(shifts, unit):
    states = moments(windows(shifts, unit)), moments(windows(shifts))
    for function in (log_harm, log_safety):
        assert function(states[0]) == pytest.approx(function(states[1]), rel=1e-4, abs=1e-4)
    scaled, plain = (difference_bounds(state, 0.05) for state in states)
    assert scaled == pytest.approx([unit * x for x in plain], rel=1e-4, abs=1e-4 * unit)


@given(batches, st.floats(0.5, 2), st.floats(-5, 5))
def test_the_state_is_that_of_plain_arithmetic(seen, ratio, absolute):
    n_b, s_b, n_c, s_c = (
        np.array([(x.stable_n, x.stable_sum, x.candidate_n, x.candidate_sum) for x in seen])
        .reshape(-1, 4)
        .T
    )
    d = s_c / n_c - ratio * s_b / n_b - absolute
    w = 1 / (1 / n_c + ratio**2 / n_b)
    expected = [len(seen), w.sum(), (w * d).sum(), (w * d * d).sum()]
    assert moments(seen, ratio, absolute) == pytest.approx(expected, rel=1e-9, abs=1e-6)


@given(batches, batches, st.randoms(use_true_random=False))
def test_a_state_goes_on_where_it_was_written_down_in_any_order(first, then, random):
    written = json.loads(json.dumps(moments(first)))
    total = [x + y for x, y in zip(written, moments(then), strict=True)]
    everything = [*first, *then]
    random.shuffle(everything)
    assert total == pytest.approx(moments(everything), rel=1e-9, abs=1e-6)


@given(values, st.floats(0, 50))
def test_a_mean_further_up_is_evidence_of_harm_and_against_safety(shifts, more):
    state = moments(windows(shifts))
    raised = moments(windows(shifts), absolute=-more)
    assert log_harm(raised) >= log_harm(state) - 1e-6
    assert log_safety(raised) <= log_safety(state) + 1e-6


@given(values)
def test_evidence_is_that_of_the_formula_with_scipy(shifts):
    """Weights are equal here: a t statistic, its normal score, and the mixture of the sum."""
    seen = windows(shifts)
    d = np.array([x.candidate_sum / x.candidate_n - x.stable_sum / x.stable_n for x in seen])
    spread = d.std(ddof=1)
    if spread < 1e-3:
        return
    n = len(d)
    score = d.mean() / spread * math.sqrt(n)
    z = norm.isf(max(t.sf(abs(score), n - 1), 1e-300)) * np.sign(score)
    expected = log_normal_mixture(z * math.sqrt(n), n, tuned_rho(60.0, 0.1))
    assert log_harm(moments(seen)) == pytest.approx(expected, rel=1e-5, abs=1e-5)


@given(values, st.floats(0.001, 0.4), st.floats(0.001, 0.4))
def test_bounds_are_wider_the_surer_they_must_be_and_turn_with_the_sign(shifts, one, other):
    sure, less = sorted((one, other))
    state = moments(windows(shifts))
    wide, narrow = difference_bounds(state, sure), difference_bounds(state, less)
    assert wide[0] <= narrow[0] + 1e-9
    assert wide[1] >= narrow[1] - 1e-9
    turned = difference_bounds((state[0], state[1], -state[2], state[3]), sure)
    assert turned == pytest.approx((-wide[1], -wide[0]), rel=1e-9, abs=1e-9)


sums, variances = st.floats(-50, 50), st.floats(0, 1e4)
errors = st.floats(1e-6, 0.5)


@given(sums, st.floats(0, 50), variances, st.floats(0.1, 100))
def test_the_mixture_rises_with_the_sum_and_the_boundary_with_variance_and_certainty(
    s, more, v, rho
):
    assert log_normal_mixture(s + more, v, rho) >= log_normal_mixture(s, v, rho) - 1e-9
    assert normal_mixture_bound(v + more, 0.05, rho) >= normal_mixture_bound(v, 0.05, rho)


@given(variances, errors, errors, st.floats(0.1, 1e3), st.floats(0.01, 100))
def test_a_surer_boundary_is_higher_and_knows_no_unit(v, one, other, v_opt, unit):
    sure, less = sorted((one, other))
    assert tuned_rho(unit * v_opt, sure) == pytest.approx(unit * tuned_rho(v_opt, sure))
    scaled = normal_mixture_bound(unit**2 * v, sure, unit**2 * v_opt)
    assert scaled == pytest.approx(unit * normal_mixture_bound(v, sure, v_opt))
    # Tuned alike: each boundary is the smallest where it was tuned.
    assert normal_mixture_bound(v_opt, sure, v_opt) >= normal_mixture_bound(v_opt, less, v_opt)
