"""Closed testing against all subsets; the mean against plain arithmetic."""

import math
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelrollout.stats.combine import culprits, log_weighted_mean

names = "abcdef"
evidence = st.dictionaries(st.sampled_from(names), st.floats(-8, 9), min_size=1)


@st.composite
def problems(draw):
    log_e = draw(evidence)
    weights = {k: draw(st.floats(0.05, 10)) for k in log_e}
    return log_e, weights, draw(st.sampled_from((0.01, 0.05, 0.2, 0.5)))


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
    assert set(culprits(log_e, weights, alpha)) <= set(culprits(raised, weights, alpha))
