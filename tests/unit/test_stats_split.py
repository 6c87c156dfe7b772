"""Sample-ratio mismatch: proofs by exact summation, detection, errors."""

import math

import numpy as np
import pytest
from scipy.stats import betabinom, binom, dirichlet_multinomial, multinomial

from modelrollout.stats.combine import log_mixture
from modelrollout.stats.split import SPLIT_POINTS, log_mismatch, log_mismatch_beyond


@pytest.mark.parametrize("share", [0.01, 0.05, 0.5, 0.8])
def test_evidence_of_a_mismatch_expects_exactly_one_when_the_split_is_right(share):
    n = 60
    k = np.arange(n + 1)
    logs = np.array([log_mismatch((n - x, x), (1 - share, share)) for x in k])
    expected = binom.pmf(k, n, share) @ np.exp(logs)
    assert expected == pytest.approx(np.ones(SPLIT_POINTS))


def test_evidence_is_the_ratio_of_two_published_distributions():
    requests, shares = np.array([20, 17, 9]), np.array([0.4, 0.4, 0.2])
    found = log_mismatch(requests, shares, concentrations=(100.0,))[0]
    mixture = dirichlet_multinomial.logpmf(requests, 100 * shares, 46)
    assert found == pytest.approx(mixture - multinomial.logpmf(requests, 46, shares))
    found = log_mismatch((90, 10), (0.95, 0.05), concentrations=(100.0,))[0]
    expected = betabinom.logpmf(10, 100, 5, 95) - binom.logpmf(10, 100, 0.05)
    assert found == pytest.approx(expected)


def test_a_gateway_that_ignores_the_weight_is_found():
    assert log_mixture(log_mismatch((9500, 500), (0.95, 0.05))) < 0
    assert log_mixture(log_mismatch((9000, 1000), (0.95, 0.05))) > math.log(1000)
    assert log_mixture(log_mismatch((10000, 0), (0.95, 0.05))) > math.log(1000)


def test_steps_with_other_weights_add_up():
    first = log_mismatch((940, 60), (0.95, 0.05))
    second = log_mismatch((700, 300), (0.75, 0.25))
    total = [x + y for x, y in zip(first, second, strict=True)]
    assert log_mixture(total) > log_mixture(first)


def test_a_version_of_share_zero_is_left_out():
    with_it = log_mismatch((950, 60, 3), (0.95, 0.05, 0.0))
    assert with_it == log_mismatch((950, 60), (0.95, 0.05))


@pytest.mark.parametrize("share", [0.05, 0.5])
@pytest.mark.parametrize("tolerance", [0.0, 0.02, 0.045])
def test_evidence_beyond_a_tolerance_expects_at_most_one_within_it(share, tolerance):
    n = 50
    k = np.arange(n + 1)
    e = np.exp([log_mismatch_beyond((n - x, x), share, tolerance) for x in k])
    for true in np.linspace(share - tolerance, share + tolerance, 7):
        assert binom.pmf(k, n, true) @ e <= 1 + 1e-9


def pmf_of_requests(shares):
    """Chance of each number of requests to the candidate when every request has its own share."""
    pmf = np.array([1.0])
    for share in shares:
        pmf = np.convolve(pmf, (1 - share, share))
    return pmf


def test_evidence_beyond_a_tolerance_is_fair_however_the_share_wanders_inside_it():
    n, share, tolerance = 40, 0.2, 0.05
    e = np.exp([log_mismatch_beyond((n - x, x), share, tolerance) for x in range(n + 1)])
    wave = share + tolerance * np.sin(np.arange(n) / 3)
    jumps = share + tolerance * np.where(np.arange(n) < n / 2, 1, -1)
    for shares in (wave, jumps, jumps[::-1]):
        assert pmf_of_requests(shares) @ e <= 1 + 1e-9


def test_evidence_beyond_a_tolerance_is_a_mean_of_likelihood_ratios():
    stable, candidate, share, tolerance = 700, 120, 0.1, 0.02
    steps = np.array((0.02, 0.05, 0.1, 0.2, 0.4, 0.7))
    logs = []
    for k, edge in ((candidate, share + tolerance), (stable, 1 - share + tolerance)):
        further = edge + steps * (1 - edge)
        logs += list(binom.logpmf(k, 820, further) - binom.logpmf(k, 820, edge))
    expected = math.log(np.mean(np.exp(logs)))
    assert log_mismatch_beyond((stable, candidate), share, tolerance) == pytest.approx(expected)


def test_a_share_within_the_tolerance_is_no_mismatch_however_much_is_read():
    assert log_mismatch_beyond((94e6, 6e6), 0.05, 0.02) < 0
    assert log_mixture(log_mismatch((94e6, 6e6), (0.95, 0.05))) > 1000
    assert log_mismatch_beyond((900, 100), 0.05, 0.02) > math.log(20)
    assert log_mismatch_beyond((1000, 0), 0.05, 0.02) > math.log(20)


def test_a_tolerance_that_covers_everything_never_alarms():
    assert log_mismatch_beyond((0, 1000), 0.5, 0.5) == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: log_mismatch((1, 2), (1.0,)), "2 counts do not go with 1 shares"),
        (lambda: log_mismatch((1, -2), (0.5, 0.5)), "requests must be finite and >= 0"),
        (lambda: log_mismatch((1, 2), (0.5, 0.6)), "shares must be >= 0 and sum to 1"),
        (lambda: log_mismatch((1, 2), (0.0, 1.0)), "a split needs two shares above 0"),
        (lambda: log_mismatch_beyond((1, 2), 1.5, 0.1), r"must lie in \[0, 1\], not 1.5"),
        (lambda: log_mismatch_beyond((1, math.nan), 0.5, 0.1), "requests must be finite"),
    ],
)
def test_what_is_no_split_is_refused_with_its_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()
