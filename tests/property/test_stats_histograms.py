"""What must hold for the thresholds of any histogram, and for the evidence at them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelrollout.stats.bounds import Bound
from modelrollout.stats.combine import log_mixture
from modelrollout.stats.histograms import (
    choose_quantile,
    choose_thresholds,
    gate_thresholds,
    log_harm,
    log_safety,
)

QUANTILES = (0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 0.9999)


@st.composite
def histograms(draw):
    """(bounds, cumulative): bounds 1, 2, 3 ... in some unit, and infinity; at least one count."""
    counts = draw(st.lists(st.integers(0, 1000), min_size=2, max_size=30))
    unit = draw(st.sampled_from((0.005, 1.0, 250.0)))
    bounds = (*(unit * i for i in range(1, len(counts))), math.inf)
    return bounds, [1 + sum(counts[: i + 1]) for i in range(len(counts))]


def nearest(bounds, cumulative, quantile):
    """The bound whose tail is nearest to that of the quantile, the long way round."""
    total, found = cumulative[-1], None
    for bound, count in zip(bounds, cumulative, strict=True):
        tail = max((total - count) / total, 0.5 / total)
        distance = abs(math.log(tail / (1 - quantile)))
        if bound < math.inf and (found is None or distance < found[0]):
            found = distance, bound
    return found[1]


@given(histograms(), st.floats(0, 40))
def test_thresholds_are_bounds_of_the_histogram_and_the_gate_some_of_them(histogram, limit):
    chosen = choose_thresholds(*histogram, limits=(limit,))
    assert list(chosen) == sorted(set(chosen))
    assert set(chosen) <= set(histogram[0][:-1])
    assert 1 <= len(chosen) <= 8
    gate = gate_thresholds(chosen, *histogram, limits=(limit,))
    assert gate
    assert set(gate) <= set(chosen)


@given(histograms(), st.floats(0, 40))
def test_thresholds_are_the_nearest_to_each_quantile_and_the_limit(histogram, limit):
    bounds, _ = histogram
    below = [x for x in bounds if x <= limit]
    expected = {nearest(*histogram, q) for q in QUANTILES} | {max(below, default=bounds[0])}
    assert set(choose_thresholds(*histogram, limits=(limit,))) == expected


@given(histograms())
def test_the_gate_holds_the_thresholds_with_one_per_cent_of_the_observations(histogram):
    bounds, cumulative = histogram
    chosen = choose_thresholds(bounds, cumulative)
    share = {b: (cumulative[-1] - c) / cumulative[-1] for b, c in zip(*histogram, strict=True)}
    expected = [x for x in chosen if share[x] >= 0.01] or [chosen[0]]
    assert gate_thresholds(chosen, bounds, cumulative) == tuple(expected)


@given(
    histograms(),
    st.sampled_from((0.5, 0.9, 0.99)),
    st.floats(1, 4),
    st.floats(1, 4),
    st.floats(0, 3),
)
def test_a_quantile_is_compared_at_the_nearest_bounds_above_what_was_asked(
    histogram, quantile, tolerance, margin, absolute
):
    bounds, cumulative = histogram
    lower = nearest(bounds, cumulative, quantile)
    allowed = Bound(tolerance), Bound(margin, absolute)
    wanted = [x.ratio * lower + x.absolute for x in allowed]
    above = [[x for x in bounds if x < math.inf and x >= wish * (1 - 1e-9)] for wish in wanted]
    if not all(above) or above[1][0] <= lower:
        with pytest.raises(ValueError, match="quantile"):
            choose_quantile(bounds, cumulative, quantile, tolerance=allowed[0], margin=allowed[1])
        return
    found = choose_quantile(bounds, cumulative, quantile, tolerance=allowed[0], margin=allowed[1])
    uppers = found.tolerance_upper, found.margin_upper
    assert (found.lower, *uppers) == (lower, above[0][0], above[1][0])
    assert found.tolerance_factor >= tolerance * (1 - 1e-9)
    assert found.margin_factor * lower >= wanted[1] * (1 - 1e-9)
    assert 0 < found.level <= 1
    assert 1 <= found.thinning < math.inf


states = st.integers(1, 6).flatmap(
    lambda points: st.lists(
        st.lists(st.floats(-50, 50), min_size=points, max_size=points), min_size=1, max_size=8
    )
)


@given(states, st.randoms(use_true_random=False))
def test_evidence_at_thresholds_is_the_mean_and_the_least_of_theirs(rows, random):
    mixtures = [log_mixture(row) for row in rows]
    assert log_harm(rows) == pytest.approx(log_mixture(mixtures))
    assert log_safety(rows) == pytest.approx(min(mixtures))
    random.shuffle(rows)
    assert log_harm(rows) == pytest.approx(log_mixture(mixtures))
    assert log_safety(rows) == pytest.approx(min(mixtures))


@given(states, st.floats(0, 50), st.randoms(use_true_random=False))
def test_more_evidence_at_a_threshold_is_never_less_at_all(rows, more, random):
    raised = [list(row) for row in rows]
    row = random.choice(raised)
    row[random.randrange(len(row))] += more
    assert log_harm(raised) >= log_harm(rows) - 1e-9
    assert log_safety(raised) >= log_safety(rows) - 1e-9
