"""What must hold for any pairs."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelrollout.stats.paired import Pairs, log_harm, log_safety

numbers = st.floats(0, 1e6)
pairs = st.builds(Pairs, numbers, numbers, numbers)
margins = st.floats(0, 0.9)
few = st.lists(st.sampled_from((1, -1, 0)), max_size=40)
STAKES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7)


def counted(outcomes):
    return Pairs(*(float(outcomes.count(x)) for x in (1, -1, 0)))


@given(few, margins)
def test_evidence_is_the_product_of_the_bets_on_each_pair(outcomes, margin):
    for function, sign, room in ((log_harm, 1, 1 + margin), (log_safety, -1, 1 - margin)):
        expected = [
            sum(math.log(1 + sign * stake / room * (x - margin)) for x in outcomes)
            for stake in STAKES
        ]
        assert function(counted(outcomes), margin) == pytest.approx(expected, abs=1e-9)


@given(pairs, pairs, margins)
def test_it_does_not_matter_how_pairs_are_split_into_windows(one, other, margin):
    both = Pairs(
        one.candidate_only + other.candidate_only,
        one.stable_only + other.stable_only,
        one.others + other.others,
    )
    for function in (log_harm, log_safety):
        state = json.loads(json.dumps(function(one, margin)))
        total = [x + y for x, y in zip(state, function(other, margin), strict=True)]
        assert total == pytest.approx(function(both, margin), rel=1e-9, abs=1e-6)


@given(pairs, margins, st.floats(0, 100))
def test_a_further_pair_lost_is_evidence_of_harm_and_against_safety(seen, margin, extra):
    lost = Pairs(seen.candidate_only + extra, seen.stable_only, seen.others)
    won = Pairs(seen.candidate_only, seen.stable_only + extra, seen.others)
    for function, worse, better in ((log_harm, lost, won), (log_safety, won, lost)):
        low, middle, high = (function(x, margin) for x in (better, seen, worse))
        assert all(x <= y <= z for x, y, z in zip(low, middle, high, strict=True))
        assert all(map(math.isfinite, (*low, *high)))


@given(pairs, margins)
def test_pairs_that_differ_by_no_more_than_the_margin_are_no_evidence_of_harm(seen, margin):
    """Nor of safety when they differ by more: the log of a fair bet is below its mean."""
    total = seen.candidate_only + seen.stable_only + seen.others
    beyond = seen.candidate_only - seen.stable_only - margin * total
    function = log_harm if beyond <= 0 else log_safety
    assert max(function(seen, margin)) <= 1e-9 * (1 + total)
