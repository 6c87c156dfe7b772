"""Evidence of several guardrails together, against brute force."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import binom

from modelrollout.stats.bounds import Bound
from modelrollout.stats.combine import (
    culprits,
    discoveries,
    log_weighted_mean,
    log_with_slices,
)
from modelrollout.stats.counts import log_harm_of, log_mixture_of


def test_the_weighted_mean_is_that_of_the_e_values():
    log_e = {"errors": math.log(40), "latency": math.log(2)}
    weights = {"errors": 3, "latency": 1}
    assert log_weighted_mean(log_e, weights) == pytest.approx(math.log(0.75 * 40 + 0.25 * 2))


def test_a_guardrail_without_evidence_yet_keeps_its_share():
    weights = {"errors": 1, "latency": 1}
    assert log_weighted_mean({"errors": math.log(39)}, weights) == pytest.approx(math.log(20))
    assert culprits({"errors": math.log(38)}, weights, 0.05) == ()
    assert culprits({"errors": math.log(39.01)}, weights, 0.05) == ("errors",)


def test_a_guardrail_of_weight_zero_has_no_say():
    weights = {"errors": 1, "latency": 0}
    assert log_weighted_mean({"errors": 0.0, "latency": 50.0}, weights) == pytest.approx(0.0)
    assert culprits({"errors": 0.0, "latency": 50.0}, weights, 0.05) == ()


def test_extreme_evidence_neither_overflows_nor_drowns_the_rest():
    weights = {"a": 1, "b": 1}
    assert log_weighted_mean({"a": 9000.0, "b": 0.0}, weights) == pytest.approx(9000 - math.log(2))
    assert log_weighted_mean({"a": -math.inf, "b": -math.inf}, weights) == -math.inf


def test_culprits_come_by_evidence():
    log_e = {"a": math.log(900), "b": math.log(2000), "c": 0.0}
    assert culprits(log_e, dict.fromkeys("abc", 1.0), 0.05) == ("b", "a")


def test_two_equal_suspects_can_breach_the_budget_together_and_none_alone():
    log_e = {"a": math.log(30), "b": math.log(30), "c": -math.inf}
    weights = dict.fromkeys("abc", 1.0)
    assert log_weighted_mean(log_e, weights) >= -math.log(0.05) - 1e-12
    assert culprits(log_e, weights, 0.05) == ()


def test_half_of_the_bet_is_on_all_requests_and_half_on_the_slots():
    slices = {"de": math.log(40), "fr": math.log(4)}
    expected = 0.5 * 3 + 0.5 * (40 + 4 + 8 * 1) / 10
    assert log_with_slices(math.log(3), slices, 10) == pytest.approx(math.log(expected))
    assert log_with_slices(math.log(3), slices, 2) == pytest.approx(math.log(1.5 + 0.5 * 22))
    assert log_with_slices(math.log(3), {}, 5) == pytest.approx(math.log(2))


def test_one_bad_slice_of_ten_needs_twenty_times_as_much_as_a_guardrail_without_slices():
    needed = math.log(20 * 20)
    assert log_with_slices(-50.0, {"de": needed}, 10) >= math.log(20)
    assert log_with_slices(-50.0, {"de": needed - 0.5}, 10) < math.log(20)


def test_a_slice_that_alone_breaks_the_guardrail_is_named():
    for slots in (1, 3, 10):
        enough = {"de": math.log(2 * slots / 0.05), "fr": 0.0}
        names = discoveries(dict(list(enough.items())[:slots]), 0.05, slots=slots)
        assert names == ("de",)


def test_slots_that_nobody_has_taken_count_among_the_watched():
    log_e = {"de": math.log(41)}
    assert discoveries(log_e, 0.05) == ("de",)
    assert discoveries(log_e, 0.05, slots=2) == ("de",)
    assert discoveries(log_e, 0.05, slots=3) == ()
    assert discoveries({}, 0.05) == discoveries({}, 0.05, slots=4) == ()


def evidence(*windows):
    return log_mixture_of(log_harm_of(windows, Bound(1.0)))


def expected_with_one_slot(takes_first):
    """
    Exact mean of the evidence after one window of equal versions, with rates of 0.4 and 0.1.

    Requests fall into two slices by chance. `takes_first` says whether the first gets the only slot, of
    (stable's requests, events, candidate's requests, events) in both.
    """
    n_b, n_c, rates = 5, 4, (0.4, 0.1)
    total = 0.0
    for b, c in itertools.product(range(n_b + 1), range(n_c + 1)):
        cells = [(b, rates[0]), (c, rates[0]), (n_b - b, rates[1]), (n_c - c, rates[1])]
        exposures = binom.pmf(b, n_b, 0.5) * binom.pmf(c, n_c, 0.5)
        for events in itertools.product(*(range(n + 1) for n, _ in cells)):
            chances = [binom.pmf(k, n, p) for k, (n, p) in zip(events, cells, strict=True)]
            first = (b, events[0], c, events[1])
            second = (n_b - b, events[2], n_c - c, events[3])
            watched = first if takes_first(first, second) else second
            of_slice, of_all = map(float, evidence(watched, np.add(first, second)))
            e = math.exp(log_with_slices(of_all, {"it": of_slice}, 1))
            total += exposures * math.prod(chances) * e
    return total


def test_slices_that_are_chosen_by_their_exposure_are_fair_and_by_their_events_are_not():
    by_requests = expected_with_one_slot(lambda one, other: one[0] + one[2] >= other[0] + other[2])
    by_balance = expected_with_one_slot(lambda one, other: one[0] * other[2] <= one[2] * other[0])
    by_evidence = expected_with_one_slot(lambda one, other: np.diff(evidence(one, other)) <= 0)
    assert max(by_requests, by_balance) <= 1 + 1e-9
    assert by_evidence > 1.02


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: log_weighted_mean({"a": 1.0}, {"b": 1.0}), "no weight is given for a"),
        (lambda: log_weighted_mean({}, {"b": -1.0}), "weights must be finite and >= 0: b"),
        (lambda: log_weighted_mean({}, {"b": 0.0}), "at least one guardrail needs a weight"),
        (lambda: log_weighted_mean({}, {}), "at least one guardrail needs a weight"),
        (lambda: log_weighted_mean({"b": math.nan}, {"b": 1.0}), "below infinity: b"),
        (lambda: culprits({}, {"b": 1.0}, 0.0), "alpha must lie between 0 and 1"),
        (lambda: discoveries({}, 1.0), "alpha must lie between 0 and 1"),
        (lambda: discoveries({"a": math.inf}, 0.1), "below infinity: a"),
        (lambda: discoveries({"a": 0.0, "b": 0.0}, 0.1, slots=1), "2 slices do not fit into 1"),
        (lambda: log_with_slices(0.0, {"a": 0.0, "b": 0.0}, 1), "2 slices do not fit into 1 slots"),
        (lambda: log_with_slices(0.0, {}, 0), "0 slices do not fit into 0 slots"),
        (lambda: log_with_slices(0.0, {"a": math.nan}, 1), "below infinity: a"),
        (lambda: log_with_slices(math.inf, {}, 1), "below infinity: all requests"),
    ],
)
def test_what_cannot_be_combined_is_refused_with_its_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()
