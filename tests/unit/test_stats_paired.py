"""Evidence from pairs: proofs by exact summation, known sample sizes, errors."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import binom

from modelrollout.stats.combine import log_mixture
from modelrollout.stats.counts import log_mixture_of
from modelrollout.stats.paired import PAIRED_POINTS, Pairs, log_harm, log_safety

STAKES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7)


def expectation(evidence, pairs, chances):
    """Exact mean of e per grid point over all outcomes of so many independent pairs."""
    total = [0.0] * PAIRED_POINTS
    for worse, better in itertools.product(range(pairs + 1), repeat=2):
        others = pairs - worse - better
        if others < 0:
            continue
        ways = math.comb(pairs, worse) * math.comb(pairs - worse, better)
        chance = ways * chances[0] ** worse * chances[1] ** better
        chance *= (1 - sum(chances)) ** others
        for j, x in enumerate(evidence(Pairs(worse, better, others))):
            total[j] += chance * math.exp(x)
    return max(total)


@pytest.mark.parametrize("margin", [0.0, 0.01, 0.1, 0.4])
@pytest.mark.parametrize("stable_only", [0.0, 0.02, 0.2, 0.3])
@pytest.mark.parametrize("inside", [0.0, 0.01, 0.2])
def test_evidence_expects_at_most_one_under_the_null(margin, stable_only, inside):
    for evidence, candidate_only in (
        (log_harm, stable_only + margin - inside),
        (log_safety, stable_only + margin + inside),
    ):
        chances = (candidate_only, stable_only)
        if min(chances) >= 0 and sum(chances) <= 1:
            assert expectation(lambda p, f=evidence: f(p, margin), 12, chances) <= 1 + 1e-9


def test_on_the_bound_evidence_expects_exactly_one():
    for evidence in (log_harm, log_safety):
        assert expectation(lambda p, f=evidence: f(p, 0.1), 10, (0.3, 0.2)) == pytest.approx(1.0)


def test_without_a_margin_evidence_is_the_likelihood_ratio_of_the_pairs_that_tell():
    """As in McNemar's test: given their number, the candidate's losses are binomial with 1/2."""
    worse, better = 34, 15
    for found, stake in zip(log_harm(Pairs(worse, better, 951)), STAKES, strict=True):
        alternative = binom.logpmf(worse, worse + better, (1 + stake) / 2)
        assert found == pytest.approx(alternative - binom.logpmf(worse, worse + better, 0.5))


def test_chances_may_change_from_pair_to_pair():
    """Exactly: every pair is fair on its own, so the product is, in any order."""
    chances = [(0.3, 0.3), (0.6, 0.4), (0.0, 0.0), (0.05, 0.5)]
    per_pair = np.exp([log_harm(Pairs(*row)) for row in np.eye(3)])
    product = math.prod(np.array([w, b, 1 - w - b]) @ per_pair for w, b in chances)
    assert product.max() <= 1 + 1e-12


def median_pairs_until(evidence, chances, margin, block=50, runs=800):
    """Median number of pairs until the evidence reached 20, a look per block of pairs."""
    generator = np.random.default_rng(20260404)
    outcomes = (*chances, 1 - sum(chances))
    counts = generator.multinomial(block, outcomes, size=(runs, 600)).cumsum(axis=1)
    per_pair = np.array([evidence(Pairs(*row), margin) for row in np.eye(3)])
    reached = log_mixture_of(counts @ per_pair) >= math.log(20)
    assert reached.any(axis=1).mean() > 0.9
    first = np.where(reached.any(axis=1), reached.argmax(axis=1) + 1, 10**9)
    return float(np.median(first)) * block


@pytest.mark.parametrize(
    ("evidence", "chances", "margin", "pairs"),
    [
        (log_harm, (0.03, 0.02), 0.0, 3200),
        (log_harm, (0.04, 0.02), 0.0, 1050),
        (log_safety, (0.02, 0.02), 0.01, 2650),
    ],
)
def test_the_number_of_pairs_that_decide_is_the_measured_one(evidence, chances, margin, pairs):
    assert median_pairs_until(evidence, chances, margin) == pytest.approx(pairs, rel=0.12)


def test_the_same_answers_on_both_sides_cancel():
    assert log_mixture(log_harm(Pairs(30, 30, 940))) < 0


def test_states_add_up_over_windows():
    whole = log_harm(Pairs(5, 3, 92), 0.01)
    parts = log_harm(Pairs(2, 3, 50), 0.01), log_harm(Pairs(3, 0, 42), 0.01)
    assert [x + y for x, y in zip(*parts, strict=True)] == pytest.approx(whole)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Pairs(-1, 0, 0), "not candidate_only=-1"),
        (lambda: Pairs(0, 0, math.inf), "not others=inf"),
        (lambda: log_harm(Pairs(1, 0, 0), 1.0), r"must lie in \[0, 1\), not 1.0"),
        (lambda: log_safety(Pairs(1, 0, 0), -0.1), r"must lie in \[0, 1\), not -0.1"),
    ],
)
def test_what_cannot_be_paired_is_refused_with_its_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()
