"""Several guardrails and slices together: against plain arithmetic and all subsets."""

import json
import math
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelrollout.stats.combine import culprits, discoveries, log_weighted_mean, log_with_slices

names = "abcdef"
evidence = st.dictionaries(st.sampled_from(names), st.floats(-8, 9), min_size=1)
slices = st.dictionaries(st.text(min_size=1, max_size=3), st.floats(-20, 20), max_size=8)
alphas = st.sampled_from((0.01, 0.05, 0.2))


@st.composite
def problems(draw):
    log_e = draw(evidence)
    weights = {k: draw(st.floats(0.05, 10)) for k in log_e}
    return log_e, weights, draw(st.sampled_from((0.01, 0.05, 0.2, 0.5)))


def shuffled(random, mapping):
    items = list(mapping.items())
    random.shuffle(items)
    return dict(items)


# --- guardrails -------------------------------------------------------------------------------


def mean(subset, log_e, weights):
    total = sum(weights[k] for k in subset)
    return sum(weights[k] * math.exp(log_e[k]) for k in subset) / total


def brute_force(log_e, weights, alpha):
    subsets = [s for n in range(1, len(log_e) + 1) for s in combinations(sorted(log_e), n)]
    means = {s: mean(s, log_e, weights) for s in subsets}
    return {k: min(m for s, m in means.items() if k in s) * alpha for k in log_e}


@given(problems())
def test_culprits_are_those_of_closed_testing_over_all_subsets(problem):
    log_e, weights, alpha = problem
    named = culprits(log_e, weights, alpha)
    for name, least in brute_force(log_e, weights, alpha).items():
        if abs(least - 1) > 1e-9:
            assert (name in named) == (least > 1)


@given(problems())
def test_a_culprit_is_named_only_when_all_together_are_breached(problem):
    log_e, weights, alpha = problem
    if culprits(log_e, weights, alpha):
        assert log_weighted_mean(log_e, weights) >= -math.log(alpha) - 1e-9


@given(problems())
def test_the_log_of_the_mean_is_that_of_plain_arithmetic(problem):
    log_e, weights, _ = problem
    expected = mean(tuple(log_e), log_e, weights)
    assert log_weighted_mean(log_e, weights) == pytest.approx(math.log(expected))


@given(problems(), st.floats(0, 5))
def test_more_evidence_against_one_never_clears_another(problem, more):
    log_e, weights, alpha = problem
    first = min(log_e)
    raised = {**log_e, first: log_e[first] + more}
    assert log_weighted_mean(raised, weights) >= log_weighted_mean(log_e, weights) - 1e-12
    assert set(culprits(log_e, weights, alpha)) <= set(culprits(raised, weights, alpha))


@given(problems(), st.floats(0.01, 100), st.randoms(use_true_random=False))
def test_neither_the_order_of_guardrails_nor_the_unit_of_their_weights_matters(
    problem, unit, random
):
    log_e, weights, alpha = problem
    other, scaled = shuffled(random, log_e), {k: unit * w for k, w in weights.items()}
    assert log_weighted_mean(other, scaled) == pytest.approx(log_weighted_mean(log_e, weights))
    for name, least in brute_force(log_e, weights, alpha).items():
        if abs(least - 1) > 1e-6:
            same = culprits(log_e, weights, alpha), culprits(other, scaled, alpha)
            assert (name in same[0]) == (name in same[1])


# --- slices -----------------------------------------------------------------------------------


def literal_ebh(log_e, alpha, slots):
    """The definition: reject the k largest for the largest k whose k-th is at least m / (alpha k)."""
    values = sorted(log_e.values(), reverse=True)
    return max(
        (k for k, x in enumerate(values, 1) if k * math.exp(x) / slots >= 1 / alpha), default=0
    )


@given(slices, alphas, st.integers(0, 5))
def test_as_many_slices_are_named_as_the_definition_says(log_e, alpha, absent):
    slots = len(log_e) + absent
    named = discoveries(log_e, alpha, slots=slots)
    assert len(named) == (literal_ebh(log_e, alpha, slots) if slots else 0)
    assert sorted(named, key=lambda k: (-log_e[k], k)) == list(named)
    weakest = min((log_e[k] for k in named), default=math.inf)
    assert all(log_e[k] <= weakest for k in set(log_e) - set(named))


@given(slices, alphas, st.randoms(use_true_random=False))
def test_the_order_of_slices_does_not_matter(log_e, alpha, random):
    other = shuffled(random, log_e)
    assert discoveries(other, alpha) == discoveries(log_e, alpha)
    slots = len(log_e) + 1
    assert log_with_slices(0.3, other, slots) == pytest.approx(log_with_slices(0.3, log_e, slots))


@given(slices, alphas, st.floats(0, 9))
def test_more_evidence_against_a_slice_never_clears_another(log_e, alpha, more):
    if log_e:
        raised = {**log_e, min(log_e): log_e[min(log_e)] + more}
        assert set(discoveries(log_e, alpha)) <= set(discoveries(raised, alpha))
        slots = len(log_e)
        assert log_with_slices(0.0, raised, slots) >= log_with_slices(0.0, log_e, slots) - 1e-12


@given(st.floats(-20, 20), slices, st.integers(1, 5))
def test_evidence_with_slices_is_that_of_plain_arithmetic(log_all, log_slices, absent):
    slots = len(log_slices) + absent
    of_slices = sum(math.exp(x) for x in log_slices.values()) + absent
    expected = 0.5 * math.exp(log_all) + 0.5 * of_slices / slots
    assert log_with_slices(log_all, log_slices, slots) == pytest.approx(math.log(expected))


@given(st.floats(-20, 20), slices, st.integers(1, 5))
def test_a_slot_that_nobody_has_taken_is_a_slice_without_evidence(log_all, log_slices, absent):
    slots = len(log_slices) + absent
    seen = {**log_slices, "new one": 0.0}
    found = log_with_slices(log_all, seen, slots)
    assert found == pytest.approx(log_with_slices(log_all, log_slices, slots))
    assert discoveries(seen, 0.05, slots=slots) == discoveries(log_slices, 0.05, slots=slots)


@given(slices)
def test_slices_that_were_written_down_are_named_as_before(log_e):
    assert discoveries(json.loads(json.dumps(log_e)), 0.05) == discoveries(log_e, 0.05)
