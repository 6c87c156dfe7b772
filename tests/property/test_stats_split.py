"""What must hold for any split of requests."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelrollout.stats.combine import log_mixture
from modelrollout.stats.split import log_mismatch, log_mismatch_beyond

counts = st.floats(0, 1e6)
shares = st.floats(0.01, 0.99)


@given(counts, counts, shares)
def test_a_split_is_the_same_read_from_either_side(stable, candidate, share):
    one = log_mismatch((stable, candidate), (1 - share, share))
    other = log_mismatch((candidate, stable), (share, 1 - share))
    assert one == pytest.approx(other, rel=1e-6, abs=1e-6)
    one = log_mismatch_beyond((stable, candidate), share, 0.05)
    other = log_mismatch_beyond((candidate, stable), 1 - share, 0.05)
    assert one == pytest.approx(other, rel=1e-6, abs=1e-6)


@given(st.lists(counts, min_size=3, max_size=3), st.randoms(use_true_random=False))
def test_the_order_of_versions_does_not_matter(requests, random):
    both = list(zip(requests, (0.5, 0.3, 0.2), strict=True))
    expected = log_mismatch(*zip(*both, strict=True))
    random.shuffle(both)
    assert log_mismatch(*zip(*both, strict=True)) == pytest.approx(expected, rel=1e-6, abs=1e-6)


@given(st.integers(1, 10**6), shares, st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.3))
def test_a_share_further_off_is_more_evidence(total, share, one, other, tolerance):
    """On the side above, once there is any; the other side is the same by exchange."""
    near, far = sorted(share + (1 - share) * x for x in (one, other))
    seen = [((1 - x) * total, x * total) for x in (near, far)]
    scale = 1e-9 * total
    less, more = (log_mixture(log_mismatch(x, (1 - share, share))) for x in seen)
    assert more >= less - scale or less <= 0
    if share + tolerance < near:
        less, more = (log_mismatch_beyond(x, share, tolerance) for x in seen)
        assert more >= less - scale


@given(counts, counts, shares, st.floats(0, 0.5), st.floats(0, 0.5))
def test_a_wider_tolerance_is_never_easier_to_leave(stable, candidate, share, one, other):
    narrow, wide = sorted((one, other))
    if wide < min(share, 1 - share):
        least = log_mismatch_beyond((stable, candidate), share, narrow)
        most = log_mismatch_beyond((stable, candidate), share, wide)
        assert most <= max(least, 0.0) + 1e-6 + 1e-9 * (stable + candidate)
    assert math.isfinite(log_mismatch_beyond((stable, candidate), share, one))
