"""What must hold for the bounds of any share."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta

from modelrollout.stats.binomial import share_bounds

trials = st.integers(1, 10_000)
shares = st.floats(0, 1)
alphas = st.floats(1e-4, 0.5)


@given(trials, shares, alphas)
def test_bounds_of_a_share_enclose_it_and_are_the_quantiles_of_scipy(n, share, alpha):
    events = share * n
    low, high = share_bounds(events, n, alpha)
    assert 0 <= low <= share + 1e-9
    assert share - 1e-9 <= high <= 1
    if min(events, n - events) > 1e-3:
        expected = (
            beta.ppf(alpha / 2, events, n - events + 1),
            beta.ppf(1 - alpha / 2, events + 1, n - events),
        )
        assert (low, high) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@given(trials, shares, shares, alphas, alphas)
def test_bounds_of_a_share_rise_with_it_and_widen_with_certainty(n, one, other, first, second):
    (less, more), (sure, unsure) = sorted((one, other)), sorted((first, second))
    low, high = share_bounds(less * n, n, sure), share_bounds(more * n, n, sure)
    assert low[0] <= high[0] + 1e-9
    assert low[1] <= high[1] + 1e-9
    narrow = share_bounds(less * n, n, unsure)
    assert low[0] <= narrow[0] + 1e-9
    assert narrow[1] <= low[1] + 1e-9


@given(trials, shares, alphas)
def test_bounds_of_the_others_share_are_the_mirror_image(n, share, alpha):
    low, high = share_bounds(share * n, n, alpha)
    mirrored = share_bounds(n - share * n, n, alpha)
    assert mirrored == pytest.approx((1 - high, 1 - low), rel=1e-6, abs=1e-6)
