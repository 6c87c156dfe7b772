"""What must hold for the distance of any two histograms, and for the evidence per bin."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelrollout.stats.bounds import Bound
from modelrollout.stats.counts import Sample
from modelrollout.stats.counts import log_harm as log_harm_of_counts
from modelrollout.stats.drift import (
    jensen_shannon,
    jensen_shannon_by_chance,
    kolmogorov_smirnov,
    kolmogorov_smirnov_by_chance,
    log_bins,
    population_stability,
    population_stability_by_chance,
)

DISTANCES = (population_stability, jensen_shannon, kolmogorov_smirnov)
pairs = st.integers(2, 8).flatmap(
    lambda n: st.tuples(*[st.lists(st.floats(1, 1e5), min_size=n, max_size=n)] * 2)
)
sizes = st.floats(1, 1e6)
levels = st.floats(0.01, 0.99)


@given(pairs)
def test_distances_are_symmetric_not_negative_and_zero_to_oneself(pair):
    one, other = pair
    for distance in DISTANCES:
        assert distance(one, other) == pytest.approx(distance(other, one), abs=1e-12)
        assert distance(one, other) >= -1e-12
        assert distance(one, one) == pytest.approx(0.0, abs=1e-12)
    assert max(jensen_shannon(one, other), kolmogorov_smirnov(one, other)) <= 1 + 1e-12


@given(pairs, st.randoms(use_true_random=False))
def test_the_order_of_bins_matters_only_to_the_distance_of_ordered_ones(pair, random):
    both = list(zip(*pair, strict=True))
    random.shuffle(both)
    shuffled = tuple(zip(*both, strict=True))
    for distance in (population_stability, jensen_shannon):
        assert distance(*shuffled) == pytest.approx(distance(*pair), abs=1e-9)
    evidence = dict(zip(both, log_bins(*shuffled), strict=True))
    for row, logs in zip(zip(*pair, strict=True), log_bins(*pair), strict=True):
        assert evidence[row] == pytest.approx(logs, rel=1e-9, abs=1e-9)


@given(sizes, sizes, st.integers(2, 30), levels, levels)
def test_what_chance_makes_falls_with_the_number_and_rises_with_the_level(n, m, bins, one, other):
    low, high = sorted((one, other))
    for reference in (
        lambda n, m, level: population_stability_by_chance(n, m, bins, level),
        lambda n, m, level: jensen_shannon_by_chance(n, m, bins, level),
        kolmogorov_smirnov_by_chance,
    ):
        assert 0 < reference(n, m, low) <= reference(n, m, high) * (1 + 1e-12)
        assert reference(2 * n, m, low) <= reference(n, m, low) * (1 + 1e-12)
        assert reference(n, m, low) == pytest.approx(reference(m, n, low))


@given(pairs, st.floats(1, 2))
def test_evidence_per_bin_is_that_of_its_count_among_all(pair, ratio):
    stable, candidate = pair
    totals = sum(stable), sum(candidate)
    for logs, k_b, k_c in zip(log_bins(*pair, ratio=ratio), *pair, strict=True):
        expected = log_harm_of_counts([Sample(totals[0], k_b, totals[1], k_c)], Bound(ratio))
        assert logs == pytest.approx(expected, rel=1e-9, abs=1e-6)


@given(pairs, st.floats(0.1, 0.9), st.floats(0, 1))
def test_evidence_per_bin_adds_up_over_windows_and_rises_with_its_bin(pair, part, share_moved):
    stable, candidate = pair
    whole = log_bins(stable, candidate)
    halves = [log_bins(*([share * x for x in k] for k in pair)) for share in (part, 1 - part)]
    for logs, one, other in zip(whole, *halves, strict=True):
        assert [x + y for x, y in zip(one, other, strict=True)] == pytest.approx(
            logs, rel=1e-6, abs=1e-6 * sum(map(sum, pair))
        )
    moved = share_moved * candidate[1]
    fuller = log_bins(stable, [candidate[0] + moved, candidate[1] - moved, *candidate[2:]])
    scale = 1e-9 * sum(candidate)
    assert all(x >= y - scale for x, y in zip(fuller[0], whole[0], strict=True))
    assert all(x <= y + scale for x, y in zip(fuller[1], whole[1], strict=True))
