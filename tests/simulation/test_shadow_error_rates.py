"""
Error rates and speed of paired evidence, on what a comparator counts in two simulated hours.

Each request is answered three times: by stable, by the candidate, and by stable again. Every
answer is now and then another one by chance; only the candidate's may be so more often. Fixed
seeds, and error rates held against the upper 99 % Clopper-Pearson limit of what was counted.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from scipy.stats import beta, chi2

from modelrollout.stats.counts import log_mixture_of
from modelrollout.stats.paired import Pairs, log_harm, log_safety

ALPHA = 0.05
TWO_HOURS_OF_PAIRS = 180_000
"""50 requests per second, of which stable answers half twice: the defaults of spec.shadow."""
TOLERANCE, MARGIN = 0.002, 0.01
"""Of the preset comparator/flips."""
CLASSES = 10


@dataclass(frozen=True, kw_only=True)
class World:
    """How often answers are not what they usually are."""

    noise: float = 0.02
    """Of any answer, by chance."""
    excess: float = 0.0
    """Of the candidate's, beyond that."""
    unsteady: float = 1.0
    """The share of the requests that chance is concentrated on."""


def counts(world, pairs, runs, generator):
    """How many pairs only the candidate differed in, only the repeat, and all others."""
    noise = np.where(
        generator.random((runs, pairs)) < world.unsteady, world.noise / world.unsteady, 0.0
    )

    def answers(rate):
        is_other = generator.random((runs, pairs)) < rate
        return np.where(is_other, generator.integers(1, CLASSES, (runs, pairs), np.int8), 0)

    stable, repeat, candidate = answers(noise), answers(noise), answers(noise + world.excess)
    differs, noisy = candidate != stable, repeat != stable
    only_candidate = (differs & ~noisy).sum(axis=1)
    only_repeat = (noisy & ~differs).sum(axis=1)
    return np.stack([only_candidate, only_repeat, pairs - only_candidate - only_repeat], axis=-1)


def chances(world):
    """The chances of the three kinds of pairs, by going through all answers."""
    unsteady, steady = world.noise / world.unsteady, 0.0
    shares = {unsteady: world.unsteady, steady: 1 - world.unsteady}
    found = np.zeros(3)
    for noise, share in shares.items():
        others = CLASSES - 1
        usual = np.array([1 - noise, *[noise / others] * others])
        candidates = usual + world.excess * np.array([-1, *[1 / others] * others])
        for s, r, c in np.ndindex(CLASSES, CLASSES, CLASSES):
            kind = 0 if c != s == r else 1 if r != s == c else 2
            found[kind] += share * usual[s] * usual[r] * candidates[c]
    return found


def counts_by_chance(world, pairs, runs, generator):
    """As `counts`, drawn at once: for many pairs."""
    return generator.multinomial(pairs, chances(world), runs)


def excess_for(difference, noise=World().noise):
    """The excess that makes the candidate flip so much more often than the repeat."""
    per_point = np.subtract(*chances(World(noise=noise, excess=0.01))[:2]) / 0.01
    return difference / per_point


@dataclass(frozen=True)
class Question:
    """What is asked of the pairs, and how sure the answer must be."""

    evidence: Callable
    margin: float
    alpha: float = ALPHA

    def of_each(self):
        """Log evidence of one pair of each kind; it adds up, as the properties of `paired` say."""
        return np.array([self.evidence(Pairs(*each), self.margin) for each in np.eye(3)])


def pairs_until(question, world, runs, *, draw=counts, look=25, most=5000):
    """Pairs when the evidence first reached 1 / alpha; infinite where it never did."""
    generator, each = np.random.default_rng(20260501), question.of_each()
    state, decided = 0.0, np.full(runs, np.inf)
    for seen in range(look, most + 1, look):
        state = state + draw(world, look, runs, generator) @ each
        reached = log_mixture_of(state) >= math.log(1 / question.alpha)
        decided = np.where(reached, np.minimum(decided, seen), decided)
    return decided


def upper_limit(decided):
    """The 99 % upper Clopper-Pearson limit of the share of runs that were decided."""
    hits, runs = int(np.isfinite(decided).sum()), len(decided)
    return float(beta.ppf(0.99, hits + 1, runs - hits))


NO_TOLERANCE = Question(log_harm, 0.0)
DEFAULT_TOLERANCE = Question(log_harm, TOLERANCE)
DEFAULT_MARGIN = Question(log_safety, MARGIN)
EQUAL = [World(), World(noise=0.0005), World(noise=0.08), World(unsteady=0.04)]


@pytest.mark.parametrize("world", [*EQUAL, World(excess=0.02)])
def test_answers_drawn_one_by_one_have_the_chances_that_are_drawn_at_once(world):
    """Pearson's statistic over 400,000 pairs; 0.1 % of the seeds would fail."""
    seen = counts(world, 400_000, 1, np.random.default_rng(1))[0]
    expected = 400_000 * chances(world)

    assert ((seen - expected) ** 2 / expected).sum() < chi2.ppf(0.999, 2)


@pytest.mark.parametrize("world", EQUAL)
def test_equal_models_are_rarely_failed_in_two_hours(world):
    decided = pairs_until(
        NO_TOLERANCE, world, 2000, draw=counts_by_chance, look=500, most=TWO_HOURS_OF_PAIRS
    )

    assert upper_limit(decided) <= ALPHA


def test_equal_models_are_rarely_failed_however_often_one_looks():
    decided = pairs_until(NO_TOLERANCE, World(), 2000, look=1, most=1000, draw=counts_by_chance)

    assert upper_limit(decided) <= ALPHA


def test_two_points_of_flips_are_found_within_thirteen_hundred_pairs():
    decided = pairs_until(NO_TOLERANCE, World(excess=0.02), 1000)

    assert np.median(decided) <= 1300
    assert np.isfinite(decided).mean() > 0.99


def test_what_the_defaults_of_a_rollout_need_to_find_two_points():
    """The preset's tolerance and falseRollbackRate 0.01 are stricter than the bar above."""
    decided = pairs_until(
        Question(log_harm, TOLERANCE, alpha=0.01), World(excess=0.02), 1000, most=8000
    )

    assert np.median(decided) <= 2000


@pytest.mark.parametrize("excess", [0.0, excess_for(TOLERANCE)])
def test_an_excess_up_to_the_tolerance_is_rarely_failed(excess):
    decided = pairs_until(
        DEFAULT_TOLERANCE,
        World(excess=excess),
        2000,
        draw=counts_by_chance,
        look=500,
        most=TWO_HOURS_OF_PAIRS,
    )

    assert upper_limit(decided) <= ALPHA


def test_equal_models_are_proved_to_be_within_the_margin():
    decided = pairs_until(
        DEFAULT_MARGIN, World(), 2000, draw=counts_by_chance, look=25, most=30_000
    )

    assert np.median(decided) <= 3200
    assert np.isfinite(decided).mean() > 0.99


def test_an_excess_of_the_margin_is_rarely_let_pass():
    decided = pairs_until(
        DEFAULT_MARGIN,
        World(excess=excess_for(MARGIN)),
        2000,
        draw=counts_by_chance,
        look=500,
        most=TWO_HOURS_OF_PAIRS,
    )

    assert upper_limit(decided) <= ALPHA
