"""What must hold for any slices, splits, pairs, means and histograms."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelrollout.stats.combine import discoveries
from modelrollout.stats.dispersion import dispersion
from modelrollout.stats.drift import jensen_shannon, kolmogorov_smirnov, population_stability
from modelrollout.stats.histograms import choose_thresholds, gate_thresholds
from modelrollout.stats.means import LEAST_WINDOWS, Batch, log_harm, log_safety, moments
from modelrollout.stats.paired import Pairs
from modelrollout.stats.paired import log_harm as log_paired_harm
from modelrollout.stats.split import log_mismatch, log_mismatch_beyond

evidence = st.dictionaries(st.text(min_size=1, max_size=3), st.floats(-20, 20), max_size=8)
counts = st.floats(0, 1e6)
exposures = st.one_of(st.just(0.0), st.floats(1e-3, 1e4))
alphas = st.sampled_from((0.01, 0.05, 0.2))
bins = st.integers(2, 8).flatmap(
    lambda n: st.tuples(*[st.lists(st.floats(1, 1e5), min_size=n, max_size=n)] * 2)
)


def literal_ebh(log_e, alpha):
    """The definition: reject the k largest for the largest k whose k-th is at least m / (alpha k)."""
    values = sorted(log_e.values(), reverse=True)
    m = len(values)
    return max(
        (k for k in range(1, m + 1) if k * math.exp(values[k - 1]) / m >= 1 / alpha), default=0
    )


@given(evidence, alphas)
def test_as_many_slices_are_named_as_the_definition_says(log_e, alpha):
    named = discoveries(log_e, alpha)
    assert len(named) == literal_ebh(log_e, alpha)
    assert sorted(named, key=lambda k: (-log_e[k], k)) == list(named)
    weakest = min((log_e[k] for k in named), default=math.inf)
    assert all(log_e[k] <= weakest for k in set(log_e) - set(named))


@given(evidence, alphas, st.randoms(use_true_random=False))
def test_the_order_of_slices_does_not_matter(log_e, alpha, random):
    shuffled = list(log_e.items())
    random.shuffle(shuffled)
    assert discoveries(dict(shuffled), alpha) == discoveries(log_e, alpha)


@given(counts, counts, st.floats(0.01, 0.99))
def test_a_split_is_the_same_read_from_either_side(stable, candidate, share):
    one = log_mismatch((stable, candidate), (1 - share, share))
    other = log_mismatch((candidate, stable), (share, 1 - share))
    assert one == pytest.approx(other, rel=1e-6, abs=1e-6)
    assert math.isfinite(log_mismatch_beyond((stable, candidate), share, 0.05))


@given(counts, counts, counts, st.floats(0, 0.9), st.floats(0, 100))
def test_a_further_pair_lost_is_evidence_of_harm(worse, better, others, margin, extra):
    less = log_paired_harm(Pairs(worse, better, others), margin)
    more = log_paired_harm(Pairs(worse + extra, better, others), margin)
    assert all(math.isfinite(x) and x <= y for x, y in zip(less, more, strict=True))


@given(st.lists(st.floats(-100, 100), min_size=LEAST_WINDOWS, max_size=60), st.floats(0.1, 1e3))
def test_evidence_from_means_does_not_depend_on_the_unit(values, unit):
    def state(scale):
        return moments(
            [Batch(90, 9 * scale * (i % 5), 10, scale * x) for i, x in enumerate(values)]
        )

    for function in (log_harm, log_safety):
        assert function(state(unit)) == pytest.approx(function(state(1.0)), rel=1e-4, abs=1e-4)


@given(st.lists(st.tuples(exposures, st.floats(0, 1e4)), max_size=40))
def test_dispersion_is_finite_and_at_least_one(windows):
    assert 1 <= dispersion(windows) < math.inf


@given(bins)
def test_distances_are_symmetric_not_negative_and_zero_to_oneself(pair):
    one, other = pair
    for distance in (population_stability, jensen_shannon, kolmogorov_smirnov):
        assert distance(one, other) == pytest.approx(distance(other, one), abs=1e-12)
        assert distance(one, other) >= -1e-12
        assert distance(one, one) == pytest.approx(0.0, abs=1e-12)


@given(st.lists(st.integers(0, 1000), min_size=2, max_size=30), st.floats(0, 40))
def test_thresholds_are_bounds_of_the_histogram_and_the_gate_some_of_them(buckets, limit):
    bounds = (*range(1, len(buckets)), math.inf)
    cumulative = [1 + sum(buckets[: i + 1]) for i in range(len(buckets))]
    chosen = choose_thresholds(bounds, cumulative, limits=(limit,))
    assert list(chosen) == sorted(set(chosen))
    assert set(chosen) <= set(bounds[:-1])
    assert 1 <= len(chosen) <= 8
    gate = gate_thresholds(chosen, bounds, cumulative, limits=(limit,))
    assert gate
    assert set(gate) <= set(chosen)
