"""What must hold for any counts: order, splitting, monotony, finiteness."""

import json
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from modelrollout.stats.bounds import Bound
from modelrollout.stats.combine import log_mixture
from modelrollout.stats.counts import (
    HARM_POINTS,
    Sample,
    complemented,
    log_evidence_of,
    log_harm,
    log_harm_of,
    log_mixture_of,
    log_safety,
    log_safety_of,
    table_of,
    usual_share,
)

ratios = st.one_of(st.floats(0.1, 10), st.floats(1e-6, 1e9))
absolutes = st.sampled_from((0.0, 0.001, 0.05, 2.0))
bounds = st.builds(Bound, ratios, absolutes)
directions = st.booleans()
exposures = st.one_of(st.just(0.0), st.floats(0.01, 1e7))


@st.composite
def samples(draw):
    counts = []
    for _ in range(2):
        n = draw(exposures)
        counts += [n, draw(st.floats(0, 1)) * n]
    return Sample(*counts)


@given(st.lists(samples(), max_size=5), bounds, directions, st.floats(1, 100))
def test_evidence_is_finite_for_any_counts(windows, bound, lower, dispersion):
    options = {"lower_is_worse": lower, "dispersion": dispersion}
    for logs in (log_harm(windows, bound, **options), log_safety(windows, bound, **options)):
        assert all(math.isfinite(x) for x in logs)


@given(st.lists(samples(), max_size=6), bounds, directions, st.randoms(use_true_random=False))
def test_the_order_of_windows_does_not_matter(windows, bound, lower, random):
    shuffled = list(windows)
    random.shuffle(shuffled)
    for function in (log_harm, log_safety):
        expected = function(windows, bound, lower_is_worse=lower)
        assert function(shuffled, bound, lower_is_worse=lower) == pytest.approx(expected)


def split(window, fractions):
    part, stable_part, candidate_part = fractions
    first = Sample(
        window.stable_n * part,
        window.stable_k * stable_part,
        window.candidate_n * part,
        window.candidate_k * candidate_part,
    )
    second = Sample(
        window.stable_n - first.stable_n,
        window.stable_k - first.stable_k,
        window.candidate_n - first.candidate_n,
        window.candidate_k - first.candidate_k,
    )
    return first, second


def allowed(window, bound):
    """Rounding grows with the events that were seen, and with those that the bound allows."""
    return max(1, bound.ratio) * bound.absolute * max(window.stable_n, window.candidate_n)


parts_of_a_window = st.tuples(st.floats(0.05, 0.95), st.floats(0, 1), st.floats(0, 1))


@given(samples(), bounds, directions, parts_of_a_window)
def test_splitting_a_window_at_a_constant_ratio_changes_nothing(window, bound, lower, fractions):
    """However the events fall into the parts."""
    first, second = split(window, fractions)
    seen = 1 + window.stable_k + window.candidate_k
    for function in (log_harm, log_safety):
        whole = function([window], bound, lower_is_worse=lower)
        parts = function([first, second], bound, lower_is_worse=lower)
        scale = 1e-7 * (seen + max(abs(x) for x in whole)) + 1e-13 * allowed(window, bound)
        assert np.abs(np.subtract(whole, parts)).max() <= scale


@given(samples(), bounds, st.floats(1, 50))
def test_a_further_event_of_the_candidate_is_evidence_of_harm_and_against_safety(
    window, bound, extra
):
    more = Sample(
        window.stable_n, window.stable_k, max(window.candidate_n, 1), window.candidate_k + extra
    )
    less = Sample(more.stable_n, more.stable_k, more.candidate_n, window.candidate_k)
    for lower in (False, True):
        worse, better = (log_safety, log_harm) if lower else (log_harm, log_safety)
        up = worse([more], bound, lower_is_worse=lower), worse([less], bound, lower_is_worse=lower)
        assert all(x >= y for x, y in zip(*up, strict=True))
        assert log_mixture(up[0]) >= log_mixture(up[1]) - 1e-12
        down = (
            better([more], bound, lower_is_worse=lower),
            better([less], bound, lower_is_worse=lower),
        )
        assert all(x <= y for x, y in zip(*down, strict=True))


@given(samples(), ratios, st.floats(1, 5), directions)
def test_a_more_generous_ratio_is_never_easier_to_break(window, ratio, factor, lower):
    strict = log_harm([window], Bound(ratio), lower_is_worse=lower)
    generous = log_harm([window], Bound(ratio * factor), lower_is_worse=lower)
    scale = 1e-9 * (1 + window.stable_k + window.candidate_k)
    assert all(x >= y - scale for x, y in zip(strict, generous, strict=True))


@given(st.lists(samples(), min_size=2, max_size=6), bounds, st.integers(1, 5))
def test_a_running_state_is_the_sum_over_its_windows(windows, bound, cut):
    for function in (log_harm, log_safety):
        whole = function(windows, bound)
        head, tail = function(windows[:cut], bound), function(windows[cut:], bound)
        assert [x + y for x, y in zip(head, tail, strict=True)] == pytest.approx(whole)


@given(st.lists(samples(), min_size=2, max_size=6), bounds, st.integers(1, 5))
def test_a_state_that_was_written_down_is_carried_on_as_if_it_had_not_been(windows, bound, cut):
    """As JSON, with six decimals, like a checkpoint."""
    for function in (log_harm, log_safety):
        whole = log_mixture(function(windows, bound))
        written = json.dumps([round(x, 6) for x in function(windows[:cut], bound)])
        tail = function(windows[cut:], bound)
        state = [x + y for x, y in zip(json.loads(written), tail, strict=True)]
        assert log_mixture(state) == pytest.approx(whole, rel=1e-9, abs=1e-6)


@given(st.lists(samples(), min_size=1, max_size=4), st.integers(1, 4), bounds, directions)
def test_columns_do_not_know_of_each_other(windows, columns, bound, lower):
    rows = [(w.stable_n, w.stable_k, w.candidate_n, w.candidate_k) for w in windows]
    table = [[row] * columns for row in rows]
    for together, alone in ((log_harm_of, log_harm), (log_safety_of, log_safety)):
        found = together(table, bound, lower_is_worse=lower).sum(axis=0).tolist()
        expected = alone(windows, bound, lower_is_worse=lower)
        assert len(found) == columns
        assert all(row == pytest.approx(expected, rel=1e-9, abs=1e-9) for row in found)


# --- centred on a usual share ---------------------------------------------------------------------

shares = st.one_of(st.just(0.0), st.floats(1e-9, 1.0), st.just(1.0))


@given(st.lists(samples(), max_size=5), bounds, directions, shares)
def test_centred_evidence_is_finite_for_any_proportions(windows, bound, lower, usual):
    for function in (log_harm, log_safety):
        logs = function(windows, bound, lower_is_worse=lower, usual=usual)
        assert all(math.isfinite(x) for x in logs)


@given(samples(), bounds, directions, parts_of_a_window, shares)
def test_splitting_a_window_changes_no_centred_evidence(window, bound, lower, fractions, usual):
    first, second = split(window, fractions)
    # Each answer is a factor of its own, so rounding grows with all of them, too.
    answers = 1 + window.stable_n + window.candidate_n
    for function in (log_harm_of, log_safety_of):
        logs = function(table_of([window, first, second]), bound, lower_is_worse=lower, usual=usual)
        scale = 1e-7 * (answers + np.abs(logs).max()) + 1e-13 * allowed(window, bound)
        assert np.abs(logs[0] - logs[1:].sum(axis=0)).max() <= scale


@given(samples(), bounds, directions, shares, st.floats(0, 1))
def test_of_proportions_a_further_event_of_the_candidate_is_evidence_of_harm(
    window, bound, lower, usual, part
):
    n = max(window.candidate_n, 1)
    k = min(window.candidate_k, n)
    less = Sample(window.stable_n, window.stable_k, n, k)
    more = Sample(window.stable_n, window.stable_k, n, k + part * (n - k))
    options = {"lower_is_worse": lower, "usual": usual}
    worse, better = (log_safety, log_harm) if lower else (log_harm, log_safety)
    slack = 1e-9 * (1 + n + window.stable_n)
    pairs = zip(worse([more], bound, **options), worse([less], bound, **options), strict=True)
    assert all(x >= y - slack for x, y in pairs)
    pairs = zip(better([more], bound, **options), better([less], bound, **options), strict=True)
    assert all(x <= y + slack for x, y in pairs)


@given(
    st.lists(samples(), min_size=1, max_size=4), bounds, directions, st.lists(shares, min_size=1)
)
def test_columns_are_centred_on_their_own_shares(windows, bound, lower, usual):
    rows = [(w.stable_n, w.stable_k, w.candidate_n, w.candidate_k) for w in windows]
    table = [[row] * len(usual) for row in rows]
    both = log_evidence_of(table, bound, bound, lower_is_worse=lower, usual=usual)
    for together, alone, in_one in (
        (log_harm_of, log_harm, both[..., :HARM_POINTS]),
        (log_safety_of, log_safety, both[..., HARM_POINTS:]),
    ):
        found = together(table, bound, lower_is_worse=lower, usual=usual).sum(axis=0)
        scale = 1e-9 * (1 + np.abs(found).max()) + 1e-13 * max(allowed(w, bound) for w in windows)
        assert np.abs(in_one.sum(axis=0) - found).max() <= scale
        for row, share in zip(found, usual, strict=True):
            expected = alone(windows, bound, lower_is_worse=lower, usual=share)
            assert row == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(samples(), bounds, directions, st.floats(1e-12, 1e-10))
def test_a_usual_share_next_to_none_is_next_to_none_of_a_ratio(window, bound, lower, usual):
    """With an absolute part an event is a little dearer: the others count, too."""
    bound = Bound(bound.ratio)
    for function in (log_harm, log_safety):
        plain = function([window], bound, lower_is_worse=lower)
        scale = 1e-6 * (1 + window.stable_n + window.candidate_n) * max(1, bound.ratio)
        found = function([window], bound, lower_is_worse=lower, usual=usual)
        assert np.abs(np.subtract(found, plain)).max() <= scale


histories = st.lists(
    st.tuples(exposures, st.floats(0, 1)).map(lambda each: (each[0], each[0] * each[1])),
    max_size=100,
)


@given(histories)
def test_the_usual_share_is_one_of_stables(windows):
    found = usual_share(windows)
    assert 0 <= found <= 1
    rates = [k / n for n, k in windows if n > 0]
    assert found == 0 or min(rates) - 1e-12 <= found <= max(rates) + 1e-12


@given(histories, st.sampled_from((2, 4, 8)))
def test_narrower_windows_of_the_same_parts_have_the_same_usual_share(windows, pieces):
    nine = [*windows, *[(50.0, 5.0)] * 9][: max(9, len(windows) // 9 * 9)]
    narrow = [(n / pieces, k / pieces) for n, k in nine for _ in range(pieces)]
    assert usual_share(narrow) == pytest.approx(usual_share(nine), rel=1e-9, abs=1e-12)


# --- mixtures -------------------------------------------------------------------------------------

states = st.lists(st.floats(-700, 700), min_size=1, max_size=15)


@given(states, st.floats(0, 50), st.randoms(use_true_random=False))
def test_the_mixture_lies_between_its_extremes_and_rises_with_each(state, more, random):
    mixed = log_mixture(state)
    assert min(state) - 1e-9 <= mixed <= max(state) + 1e-9
    raised = list(state)
    raised[random.randrange(len(state))] += more
    assert log_mixture(raised) >= mixed - 1e-9
    random.shuffle(raised)
    assert float(log_mixture_of(raised)) == pytest.approx(log_mixture(raised), abs=1e-9)


@given(st.lists(samples(), max_size=3), st.floats(0.1, 10), absolutes, directions)
def test_the_complement_of_the_complement_is_where_one_began(windows, ratio, absolute, lower):
    assume((1 - 1 / ratio if lower else ratio - 1) + absolute >= 0)
    flipped = complemented(windows, Bound(ratio, absolute), lower_is_worse=lower)
    back, again, direction = complemented(flipped[0], flipped[1], lower_is_worse=flipped[2])
    assert direction == lower
    assert (again.ratio, again.absolute) == pytest.approx((ratio, absolute), rel=1e-9, abs=1e-9)
    for one, other in zip(back, windows, strict=True):
        assert one.stable_k == pytest.approx(other.stable_k, abs=1e-9 * (1 + other.stable_n))
        assert one.candidate_k == pytest.approx(
            other.candidate_k, abs=1e-9 * (1 + other.candidate_n)
        )
