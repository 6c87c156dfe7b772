"""Evidence of several guardrails together, against brute force."""

import math

import pytest

from modelrollout.stats.combine import culprits, log_weighted_mean


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


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: log_weighted_mean({"a": 1.0}, {"b": 1.0}), "no weight is given for a"),
        (lambda: log_weighted_mean({}, {"b": -1.0}), "weights must be finite and >= 0: b"),
        (lambda: log_weighted_mean({}, {"b": 0.0}), "at least one guardrail needs a weight"),
        (lambda: log_weighted_mean({}, {}), "at least one guardrail needs a weight"),
        (lambda: log_weighted_mean({"b": math.nan}, {"b": 1.0}), "below infinity: b"),
        (lambda: culprits({}, {"b": 1.0}, 0.0), "alpha must lie between 0 and 1"),
    ],
)
def test_what_cannot_be_combined_is_refused_with_its_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()
