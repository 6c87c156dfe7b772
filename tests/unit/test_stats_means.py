"""Evidence from means: the boundary, error rates of the asymptotic test, edges."""

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import beta, norm

from modelrollout.stats.means import (
    LEAST_WINDOWS,
    MEANS_STATE,
    Batch,
    difference_bounds,
    log_harm,
    log_normal_mixture,
    log_safety,
    moments,
    normal_mixture_bound,
    tuned_rho,
)


@pytest.mark.parametrize(
    ("s", "v", "rho"), [(3.0, 20.0, 8.0), (-4.0, 20.0, 8.0), (30.0, 90.0, 2.0)]
)
def test_the_mixture_is_the_integral_over_half_normal_bets(s, v, rho):
    def bet(x):
        return math.exp(x * s - x * x * v / 2) * 2 * norm.pdf(x, scale=rho**-0.5)

    expected, _ = quad(bet, 0, 20 * rho**-0.5, limit=200)
    assert log_normal_mixture(s, v, rho) == pytest.approx(math.log(expected), rel=1e-6)


@pytest.mark.parametrize(("v", "alpha", "v_opt"), [(100.0, 0.05, 100.0), (30.0, 0.01, 60.0)])
def test_at_the_two_sided_boundary_the_integral_over_normal_bets_is_one_over_alpha(v, alpha, v_opt):
    rho, s = tuned_rho(v_opt, alpha), normal_mixture_bound(v, alpha, v_opt)

    def bet(x):
        return math.exp(x * s - x * x * v / 2) * norm.pdf(x, scale=rho**-0.5)

    value, _ = quad(bet, -20 * rho**-0.5, 20 * rho**-0.5, limit=200)
    assert value == pytest.approx(1 / alpha, rel=1e-6)


@pytest.mark.parametrize("v", [0.5, 10.0, 400.0])
def test_the_mixture_of_a_normal_sum_expects_one_when_there_is_no_difference(v):
    """Exactly, by integration over the sum: 1 on the bound, less inside."""
    for mean, least, most in ((0.0, 1 - 1e-6, 1 + 1e-6), (-0.2, 0.0, 1.0)):
        expected, _ = quad(
            lambda s, m=mean: math.exp(
                log_normal_mixture(s, v, 8.0) + norm.logpdf(s, m * v, v**0.5)
            ),
            mean * v - 40 * v**0.5,
            mean * v + 40 * v**0.5,
            limit=400,
        )
        assert least <= expected <= most


def test_rho_is_tuned_about_as_well_as_by_search():
    def boundary(rho):
        return math.sqrt((60 + rho) * (math.log((60 + rho) / rho) - 2 * math.log(0.05)))

    best = min(boundary(rho) for rho in np.geomspace(0.1, 100, 2000))
    assert boundary(tuned_rho(60.0, 0.05)) <= 1.001 * best


def test_the_tuned_boundary_is_about_the_smallest_there():
    best = normal_mixture_bound(100.0, 0.05, 100.0)
    others = [normal_mixture_bound(100.0, 0.05, x) for x in (10.0, 50.0, 200.0, 1000.0)]
    assert best < min(others)
    assert tuned_rho(200.0, 0.05) == pytest.approx(2 * tuned_rho(100.0, 0.05))


def paths(generator, runs, draw, shift=0.0, windows=720):
    """Running states of `runs` rollouts, shape (runs, windows, 4): 95 and 5 values a window."""
    n_b, n_c = generator.poisson(95, (runs, windows)) + 1, generator.poisson(5, (runs, windows)) + 1
    d = draw(generator, n_c) / n_c + shift - draw(generator, n_b) / n_b
    w = n_b * n_c / (n_b + n_c)
    return np.stack([np.ones_like(w), w, w * d, w * d * d], axis=-1).cumsum(axis=1)


def normal_sums(generator, n):
    return generator.normal(n * 5.0, np.sqrt(n))


def gamma_sums(generator, n):
    return generator.gamma(n * 0.5, 1.0)


def ever_reached(states, evidence, alpha):
    looks = states[:, LEAST_WINDOWS - 1 :: 10]  # the first look is the riskiest
    return np.array(
        [any(evidence(s) >= math.log(1 / alpha) for s in run) for run in looks], dtype=bool
    )


@pytest.mark.parametrize("evidence", [log_harm, log_safety])
@pytest.mark.parametrize("draw", [normal_sums, gamma_sums])
def test_equal_means_are_rarely_told_apart(evidence, draw):
    """
    A look per ten windows for an hour; upper 99 % Clopper-Pearson limit at most 7.5 %.

    The test is asymptotic: means of five values of an exponential-like kind are its hard case.
    """
    states = paths(np.random.default_rng(20260406), 1000, draw)
    hits = int(ever_reached(states, evidence, 0.05).sum())
    assert beta.ppf(0.99, hits + 1, 1000 - hits) <= 0.075


def test_a_shifted_mean_is_found():
    states = paths(np.random.default_rng(20260407), 100, normal_sums, shift=0.3, windows=200)
    assert ever_reached(states, log_harm, 0.05).mean() > 0.95
    assert not ever_reached(states, log_safety, 0.05).any()


def test_bounds_hold_the_true_difference_at_all_times_and_shrink():
    """Missed in at most 5 %: the lower 99 % Clopper-Pearson limit does not say otherwise."""
    states = paths(np.random.default_rng(20260408), 200, normal_sums, shift=0.3)
    missed, widths = 0, []
    for run in states:
        bounds = np.array([difference_bounds(s, 0.05) for s in run[LEAST_WINDOWS - 1 :: 10]])
        missed += bool((bounds[:, 0] > 0.3).any() or (bounds[:, 1] < 0.3).any())
        widths.append(bounds[-1, 1] - bounds[-1, 0])
    assert beta.ppf(0.01, missed, 200 - missed + 1) <= 0.05
    assert np.mean(widths) < 0.2


def test_weights_are_the_inverse_variances_of_the_differences():
    state = moments([Batch(90.0, 180.0, 10.0, 30.0)], ratio=1.5, absolute=0.5)
    weight = 1 / (1 / 10 + 1.5**2 / 90)
    assert state == pytest.approx((1.0, weight, weight * -0.5, weight * 0.25))


def test_states_add_up_and_windows_without_values_are_left_out():
    batches = [Batch(9, 18, 1, 3), Batch(0, 0, 5, 5), Batch(5, 5, 0, 0), Batch(8, 18, 2, 3)]
    parts = [moments([b]) for b in batches]
    assert moments(batches) == pytest.approx(tuple(map(sum, zip(*parts, strict=True))))
    assert parts[1] == parts[2] == (0.0,) * MEANS_STATE == moments([])


def test_too_few_windows_say_nothing():
    state = moments([Batch(9, i % 3, 1, 50 + i % 2) for i in range(LEAST_WINDOWS - 1)])
    assert log_harm(state) == log_safety(state) == 0.0
    assert difference_bounds(state, 0.05) == (-math.inf, math.inf)
    state = moments([Batch(9, i % 3, 1, 50 + i % 2) for i in range(LEAST_WINDOWS)])
    assert log_harm(state) > math.log(20)
    assert log_safety(state) < 0


def test_values_without_any_spread_say_nothing():
    assert log_harm(moments([Batch(9, 9, 1, 1)] * 50)) == 0.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Batch(-1, 0, 1, 0), "a batch needs finite sums"),
        (lambda: Batch(1, math.nan, 1, 0), "a batch needs finite sums"),
        (lambda: moments([], ratio=math.inf), "a bound must be finite"),
        (lambda: log_harm((0.0, 1.0)), "a state of means has 4 numbers"),
        (lambda: difference_bounds((0.0,) * 4, 0.0), "alpha must lie between 0 and 1"),
    ],
)
def test_what_is_no_mean_is_refused_with_its_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()
