"""Thresholds of histograms and the evidence of their tails together."""

import math

import numpy as np
import pytest
from scipy.stats import binom, expon, lognorm, weibull_min

from modelrollout.stats.bounds import Bound
from modelrollout.stats.counts import log_harm_of, log_safety_of
from modelrollout.stats.histograms import (
    QuantileThresholds,
    choose_quantile,
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


def splits(total, parts):
    """All ways to put so many observations into so many buckets."""
    if parts == 1:
        return [(total,)]
    return [(i, *rest) for i in range(total + 1) for rest in splits(total - i, parts - 1)]


def chance(buckets, shares):
    ways = math.factorial(sum(buckets))
    for count, share in zip(buckets, shares, strict=True):
        ways = ways * share**count / math.factorial(count)
    return ways


@pytest.mark.parametrize("stable_n", [3, 8])
def test_harm_of_the_tails_together_expects_at_most_one_without_harm(stable_n):
    """Exactly, over all histograms of four buckets: tails of one histogram depend on each other."""
    candidate_n, bound = 5, Bound(1.25)
    stable_shares = (0.5, 0.3, 0.15, 0.05)
    tails = np.array(stable_shares)[::-1].cumsum()[::-1][1:]
    for worse in (1.0, 1.25):
        candidate_tails = np.minimum(1.0, worse * tails)
        candidate_shares = -np.diff([1.0, *candidate_tails, 0.0])
        expected = 0.0
        for stable in splits(stable_n, 4):
            for candidate in splits(candidate_n, 4):
                k_b, k_c = np.cumsum(stable[::-1])[2::-1], np.cumsum(candidate[::-1])[2::-1]
                table = [[(stable_n, b, candidate_n, c) for b, c in zip(k_b, k_c, strict=True)]]
                e = math.exp(log_harm(log_harm_of(table, bound).sum(axis=0)))
                expected += chance(stable, stable_shares) * chance(candidate, candidate_shares) * e
        assert expected <= 1 + 1e-9


def test_safety_of_the_tails_together_expects_at_most_one_when_one_tail_is_not_safe():
    """Exactly: only the last tail is at the margin, the others are far within it."""
    stable_n, candidate_n, bound = 8, 6, Bound(1.5)
    stable_shares, candidate_shares = (0.4, 0.4, 0.2), (0.7, 0.0, 0.3)
    expected = 0.0
    for stable in splits(stable_n, 3):
        for candidate in splits(candidate_n, 3):
            k_b, k_c = (
                (stable[1] + stable[2], stable[2]),
                (candidate[1] + candidate[2], candidate[2]),
            )
            table = [[(stable_n, b, candidate_n, c) for b, c in zip(k_b, k_c, strict=True)]]
            e = math.exp(log_safety(log_safety_of(table, bound).sum(axis=0)))
            expected += chance(stable, stable_shares) * chance(candidate, candidate_shares) * e
    assert expected <= 1 + 1e-9


# --- quantiles --------------------------------------------------------------------------------

FINE = tuple(0.01 * 1.1**i for i in range(70))


def cumulative_of(distribution, bounds=FINE, total=100_000):
    return [round(total * float(distribution.cdf(x))) for x in bounds] + [total]


def chosen(distribution, quantile, tolerance, margin, bounds=FINE):
    counts = cumulative_of(distribution, bounds)
    return choose_quantile(
        (*bounds, math.inf), counts, quantile, tolerance=Bound(tolerance), margin=Bound(margin)
    )


def test_a_quantile_is_compared_at_bounds_of_the_histogram():
    found = choose_quantile(BOUNDS, STABLE, 0.95, tolerance=Bound(1.1), margin=Bound(1.0, 0.2))
    assert found == QuantileThresholds(
        lower=0.25, tolerance_upper=0.5, margin_upper=0.5, level=0.96, thinning=400 / 90
    )
    assert found.tolerance_factor == found.margin_factor == 2.0


def test_a_factor_of_one_tolerates_the_quantile_itself():
    found = choose_quantile(BOUNDS, STABLE, 0.95, tolerance=Bound(1.0), margin=Bound(1.2))
    assert (found.lower, found.tolerance_upper, found.margin_upper) == (0.25, 0.25, 0.5)


def test_a_bound_that_is_meant_is_not_missed_by_rounding():
    """1.1 x 0.1 is 0.11000000000000001."""
    found = choose_quantile(
        (0.1, 0.11, 0.2), (90, 95, 100), 0.9, tolerance=Bound(1.1), margin=Bound(2.0)
    )
    assert found.tolerance_upper == 0.11


SHAPES = [lognorm(0.6, scale=0.08), expon(scale=0.05), weibull_min(0.7, scale=0.05)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("drift", [0.7, 1.0, 1.6])
def test_both_versions_of_a_quantile_test_are_fair_when_latency_drifts(shape, drift):
    """Exactly, with thresholds that were fixed before everything became `drift` times slower."""
    found = chosen(shape, 0.9, 1.1, 1.5)
    n_b, n_c = 40, 12
    k_b, k_c = np.arange(n_b + 1), np.arange(n_c + 1)
    table = np.stack(np.broadcast_arrays(n_b, k_b[:, None], n_c, k_c[None, :]), -1)
    harm = np.exp(log_harm_of(table, Bound(1.0)))
    safety = np.exp(log_safety_of(table, Bound(1.0), tuned_for=found.thinning))
    stable_pmf = binom.pmf(k_b, n_b, shape.sf(found.lower / drift))
    for slower in (0.8, 1.0, 1.1, found.tolerance_factor):
        pmf = binom.pmf(k_c, n_c, shape.sf(found.tolerance_upper / drift / slower))
        assert np.einsum("b,c,bcj->j", stable_pmf, pmf, harm).max() <= 1 + 1e-9
    for slower in (found.margin_factor, 2.0, 5.0):
        pmf = binom.pmf(k_c, n_c, shape.sf(found.margin_upper / drift / slower))
        assert np.einsum("b,c,bcj->j", stable_pmf, pmf, safety).max() <= 1 + 1e-9


@pytest.mark.parametrize("shape", SHAPES)
def test_equal_versions_are_expected_where_evidence_for_safety_looks_for_them(shape):
    """`thinning` is the ratio of the two tails, so equal versions are the alternative t = 1."""
    found = chosen(shape, 0.99, 1.1, 1.5)
    tails = shape.sf(found.lower), shape.sf(found.margin_upper)
    assert found.thinning == pytest.approx(tails[0] / tails[1], rel=0.05)
    assert found.level == pytest.approx(shape.cdf(found.lower), abs=1e-4)


def test_coarse_buckets_widen_the_factors_and_say_so():
    shape = lognorm(0.6, scale=0.08)
    fine = chosen(shape, 0.99, 1.1, 1.5)
    coarse = chosen(shape, 0.99, 1.1, 1.5, bounds=tuple(0.01 * 2.0**i for i in range(9)))
    assert 1.1 <= fine.tolerance_factor < 1.3
    assert coarse.tolerance_factor == coarse.margin_factor == 2.0


def quantile_of(bounds, counts, quantile, margin=2.0):
    tolerance, margin = Bound(1.1), Bound(margin)
    return choose_quantile(bounds, counts, quantile, tolerance=tolerance, margin=margin)


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
        (lambda: quantile_of((1, 2, 4), (90, 99, 100), 1.0), "quantile must lie between 0 and 1"),
        (
            lambda: quantile_of((1, 2, math.inf), (50, 60, 100), 0.99),
            "2 x 2 .* = 4 needs a bound at or above",
        ),
        (
            lambda: quantile_of((1, 2, 3, math.inf), (90, 99, 99, 100), 0.99),
            "last finite bucket bound is 3",
        ),
        (lambda: quantile_of((0, 1, 2), (90, 95, 100), 0.9), "is about 0: it must be above 0"),
        (lambda: quantile_of((1, 2), (90, 100), 0.9, margin=1.0), "must be above quantile"),
        (lambda: quantile_of((1, 2), (0, 0), 0.9), "the histogram is empty"),
        (lambda: log_harm([(0.0, math.nan)]), "not a number"),
        (lambda: log_safety([(0.0, math.nan)]), "not a number"),
        (lambda: log_harm(()), "at least one threshold"),
        (lambda: log_safety(()), "at least one threshold"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()
