"""The e-process for counts: proofs by exact summation, known values, edges, errors."""

import itertools
import math

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import binom, poisson

from modelrollout.stats.bounds import Bound
from modelrollout.stats.combine import log_mixture
from modelrollout.stats.counts import (
    HARM_POINTS,
    SAFETY_POINTS,
    Sample,
    added,
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

BOUNDS = [Bound(r, d) for r in (0.0, 0.5, 1.0, 1.25, 2.0) for d in (0.0, 0.01, 0.2) if r + d > 0]
BASE_RATES = (0.0, 0.001, 0.01, 0.1, 0.3, 0.5, 0.9, 1.0)
USUAL = (0.0, 1e-6, 0.01, 0.1, 0.3, 0.6, 1.0)
DISTANCES = (0.0, 0.02, 0.2, 0.6)
ROUNDING = 1e-9


def limit(bound, base, *, lower_is_worse):
    """The candidate's rate at which the null hypotheses of harm and of safety meet."""
    return (
        base / bound.ratio - bound.absolute
        if lower_is_worse
        else bound.ratio * base + bound.absolute
    )


def tables(stable_n, stable_k, candidate_n, candidate_k):
    return np.stack(np.broadcast_arrays(stable_n, stable_k, candidate_n, candidate_k), -1)


def null_rates(bound, base, *, lower_is_worse, harm):
    """Candidate rates inside the null: not worse (for harm), not better (for safety)."""
    sign = -1 if harm != lower_is_worse else 1
    edge = limit(bound, base, lower_is_worse=lower_is_worse)
    return [rate for rate in (edge + sign * x for x in DISTANCES) if rate >= 0]


def largest_expectation(evidence, stable_pmf, candidate_pmf):
    weights = stable_pmf[:, None] * candidate_pmf[None, :]
    return float(np.einsum("bc,bcj->j", weights, np.exp(evidence)).max())


@pytest.mark.parametrize("lower_is_worse", [False, True])
@pytest.mark.parametrize("function", [log_harm_of, log_safety_of])
@pytest.mark.parametrize("exposures", list(itertools.product((0, 1, 7, 25), (0, 1, 5, 30))))
def test_binomial_evidence_expects_at_most_one_at_every_grid_point(
    exposures, function, lower_is_worse
):
    n_b, n_c = exposures
    k_b, k_c = np.arange(n_b + 1), np.arange(n_c + 1)
    counts = tables(n_b, k_b[:, None], n_c, k_c[None, :])
    harm = function is log_harm_of
    for bound in BOUNDS:
        if lower_is_worse and bound.ratio == 0:
            continue
        evidence = function(counts, bound, lower_is_worse=lower_is_worse)
        for base in BASE_RATES:
            for rate in null_rates(bound, base, lower_is_worse=lower_is_worse, harm=harm):
                if rate > 1:
                    continue
                pmfs = binom.pmf(k_b, n_b, base), binom.pmf(k_c, n_c, rate)
                assert largest_expectation(evidence, *pmfs) <= 1 + ROUNDING, (bound, base, rate)


@pytest.mark.parametrize("lower_is_worse", [False, True])
@pytest.mark.parametrize("function", [log_harm_of, log_safety_of])
@pytest.mark.parametrize("exposures", list(itertools.product((0, 1, 7, 25), (0, 1, 5, 30))))
def test_centred_evidence_expects_at_most_one_whatever_share_it_is_centred_on(
    exposures, function, lower_is_worse
):
    n_b, n_c = exposures
    k_b, k_c = np.arange(n_b + 1), np.arange(n_c + 1)
    counts = tables(n_b, k_b[:, None], n_c, k_c[None, :])[:, :, None]
    harm = function is log_harm_of
    for bound in BOUNDS:
        if lower_is_worse and bound.ratio == 0:
            continue
        evidence = function(counts, bound, lower_is_worse=lower_is_worse, usual=USUAL)
        e = np.exp(evidence.reshape(n_b + 1, n_c + 1, -1))
        for base in BASE_RATES:
            stable = binom.pmf(k_b, n_b, base)
            rates = null_rates(bound, base, lower_is_worse=lower_is_worse, harm=harm)
            for rate in (each for each in rates if each <= 1):
                expected = np.einsum("b,c,bcj->j", stable, binom.pmf(k_c, n_c, rate), e)
                assert expected.max() <= 1 + ROUNDING, (bound, base, rate)


@pytest.mark.parametrize("lower_is_worse", [False, True])
@pytest.mark.parametrize("function", [log_harm_of, log_safety_of])
@pytest.mark.parametrize("seconds", [(20.0, 1.0), (5.0, 5.0), (1.0, 9.0), (0.5, 12.0)])
def test_poisson_evidence_expects_one_on_the_bound_and_less_inside(
    seconds, function, lower_is_worse
):
    n_b, n_c = seconds
    k = np.arange(150)
    counts = tables(n_b, k[:, None], n_c, k[None, :])
    harm = function is log_harm_of
    for bound in (Bound(1.0), Bound(1.5), Bound(1.0, 0.05), Bound(1.2, 0.3)):
        evidence = function(counts, bound, lower_is_worse=lower_is_worse)
        for base in (0.1, 0.4, 1.0):
            edge = limit(bound, base, lower_is_worse=lower_is_worse)
            for rate in null_rates(bound, base, lower_is_worse=lower_is_worse, harm=harm):
                stable, candidate = poisson.logpmf(k, n_b * base), poisson.logpmf(k, n_c * rate)
                logs = evidence + (stable[:, None] + candidate[None, :])[..., None]
                expected = np.exp(logsumexp(logs, axis=(0, 1)))
                assert expected.max() <= 1 + ROUNDING
                if rate == edge:
                    assert expected == pytest.approx(np.ones(len(expected)), abs=1e-6)


@pytest.mark.parametrize("lower_is_worse", [False, True])
@pytest.mark.parametrize("tuned_for", [0.8, 1.1, 3.0, 40.0])
def test_evidence_that_is_tuned_for_another_ratio_expects_at_most_one_too(
    tuned_for, lower_is_worse
):
    n_b, n_c = 20, 12
    k_b, k_c = np.arange(n_b + 1), np.arange(n_c + 1)
    counts = tables(n_b, k_b[:, None], n_c, k_c[None, :])
    options = {"lower_is_worse": lower_is_worse, "tuned_for": tuned_for}
    for bound in (Bound(1.0), Bound(1.5)):
        evidence = log_safety_of(counts, bound, **options)
        for base in BASE_RATES:
            for rate in null_rates(bound, base, lower_is_worse=lower_is_worse, harm=False):
                if rate <= 1:
                    pmfs = binom.pmf(k_b, n_b, base), binom.pmf(k_c, n_c, rate)
                    assert largest_expectation(evidence, *pmfs) <= 1 + ROUNDING


def test_tuning_for_the_ratio_itself_is_the_default():
    windows = [Sample(900, 30, 100, 2)]
    for ratio in (0.7, 1.0, 1.5, 300.0):
        assert log_safety(windows, Bound(ratio)) == log_safety(
            windows, Bound(ratio), tuned_for=ratio
        )


def test_evidence_that_is_tuned_for_the_truth_grows_fastest():
    """An equal candidate lies five times below this bound, which is a ratio of 1."""
    windows = [Sample(9500, 500, 500, 5)]
    logs = {r: log_mixture(log_safety(windows, Bound(1.0), tuned_for=r)) for r in (1.1, 5.0, 90.0)}
    assert logs[5.0] == max(logs.values())


def test_evidence_from_sums_of_scores_expects_at_most_one():
    """Outcomes 0, 1/2 and 1: their sum stands in for the count of events."""

    def pmf_of_sum(n, probabilities):
        pmf = np.array([1.0])
        for _ in range(n):
            pmf = np.convolve(pmf, probabilities)
        return pmf

    n_b, n_c, bound = 12, 6, Bound(1.25, 0.05)
    stable, candidate = np.array([0.7, 0.2, 0.1]), None
    base = 0.5 * stable[1] + stable[2]
    edge = 1.25 * base + 0.05
    k_b, k_c = np.arange(2 * n_b + 1) / 2, np.arange(2 * n_c + 1) / 2
    counts = tables(n_b, k_b[:, None], n_c, k_c[None, :])
    for halves in (0.0, 0.1, 0.3):
        candidate = np.array([1 - halves - (edge - halves / 2), halves, edge - halves / 2])
        pmfs = pmf_of_sum(n_b, stable), pmf_of_sum(n_c, candidate)
        for function, usual in itertools.product((log_harm_of, log_safety_of), (0.0, 0.2, 0.7)):
            evidence = function(counts, bound, usual=usual)
            assert largest_expectation(evidence, *pmfs) <= 1 + ROUNDING


@pytest.mark.parametrize(("ratio", "multiple", "point"), [(1.0, 2.0, 5), (1.25, 1.5, 3)])
def test_ratio_evidence_is_the_conditional_likelihood_ratio(ratio, multiple, point):
    """Lindon and Malek: given k_b + k_c, the candidate's share of the events is binomial."""
    n_b, k_b, n_c, k_c = 950.0, 11, 50.0, 4
    null = ratio * n_c / (ratio * n_c + n_b)
    alternative = ratio * multiple * n_c / (ratio * multiple * n_c + n_b)
    total = k_b + k_c
    expected = binom.logpmf(k_c, total, alternative) - binom.logpmf(k_c, total, null)
    evidence = log_harm([Sample(n_b, k_b, n_c, k_c)], Bound(ratio))
    assert evidence[point] == pytest.approx(expected, rel=1e-12)


def test_safety_of_an_equal_candidate_is_the_likelihood_ratio_of_equality():
    n_b, k_b, n_c, k_c, ratio = 900.0, 30, 100.0, 2, 1.5
    null, equal = ratio * n_c / (ratio * n_c + n_b), n_c / (n_c + n_b)
    expected = binom.logpmf(k_c, 32, equal) - binom.logpmf(k_c, 32, null)
    evidence = log_safety([Sample(n_b, k_b, n_c, k_c)], Bound(ratio))
    assert evidence[3] == pytest.approx(expected, rel=1e-12)


def outcome_by_outcome(counts, bound, stakes, m):
    """The centred bet as its definition: a factor for each answer, a mean of 1 at p = m and c."""
    n_b, k_b, n_c, k_c = counts
    c = bound.ratio * m + bound.absolute
    logs = []
    for d in stakes:
        scaled = d / (1 + d * c)
        w = bound.ratio * n_c / n_b * scaled
        candidate = [1 - scaled * c] * int(n_c - k_c) + [1 + scaled * (1 - c)] * int(k_c)
        stable = [1 + w * m] * int(n_b - k_b) + [1 - w * (1 - m)] * int(k_b)
        logs.append(math.fsum(map(math.log, candidate + stable)))
    return logs


def stakes_of(function, n_b, n_c, bound):
    """What one event of the candidate among none of stable is worth: log(1 + d) where m is 0."""
    with_event, without = function([[n_b, 0, n_c, 1], [n_b, 0, n_c, 0]], bound)
    return np.expm1(with_event - without)


@pytest.mark.parametrize("function", [log_harm_of, log_safety_of])
@pytest.mark.parametrize("bound", [Bound(1.0), Bound(1.5), Bound(1.25, 0.02)])
@pytest.mark.parametrize("m", [0.001, 0.05, 0.3])
def test_a_centred_bet_is_that_of_its_definition(function, bound, m):
    counts = (190.0, 31.0, 10.0, 4.0)
    stakes = stakes_of(function, counts[0], counts[2], bound)
    expected = outcome_by_outcome(counts, bound, stakes, m)
    assert function(counts, bound, usual=m) == pytest.approx(expected, rel=1e-9)


def test_a_stake_too_bold_for_what_is_usual_is_not_centred_and_the_others_are():
    """The candidate has most of the traffic: without an event of stable more than all were lost."""
    counts, bound = (20.0, 3.0, 180.0, 30.0), Bound(3.0)
    found, plain = log_safety_of(counts, bound, usual=0.3), log_safety_of(counts, bound)
    stakes = stakes_of(log_safety_of, 20.0, 180.0, bound)
    is_centred = np.array([found[i] != plain[i] for i in range(SAFETY_POINTS)])
    assert 0 < is_centred.sum() < SAFETY_POINTS
    factors = 1 + 27.0 * stakes / (1 + stakes * 0.9) * 0.3
    assert (is_centred == (factors >= 0.01)).all()


def growth(p_b, p_c, usual):
    """Log e of harm per candidate request at the best grid point, at 5 % of the traffic."""
    return float(log_harm_of([19.0, 19.0 * p_b, 1.0, p_c], Bound(1.0), usual=usual).max())


@pytest.mark.parametrize(
    ("p", "times", "least"), [(0.01, 2.0, 1.0), (0.1, 1.5, 1.1), (0.3, 1.2, 1.5), (0.5, 1.1, 2.0)]
)
def test_a_common_event_is_found_out_sooner_by_a_bet_that_is_centred(p, times, least):
    plain = growth(p, p * times, 0.0)
    assert growth(p, p * times, p) > least * plain
    # A share that is wrong by half either way is still better than none.
    assert growth(p, p * times, 0.5 * p) > plain
    assert growth(p, p * times, 1.5 * p) > plain * 0.999


def test_what_is_usual_is_the_median_of_nine_parts_of_the_history():
    calm, incident = [(500.0, 10.0)] * 80, [(500.0, 450.0)] * 40
    assert usual_share(calm) == pytest.approx(0.02)
    assert usual_share(calm + incident) == pytest.approx(0.02)
    assert usual_share([(1.0, 0.0)] * 50 + [(1.0, 1.0)] * 150) == 1.0
    assert usual_share([(0.0, 0.0)] * 100 + [(300.0, 30.0)]) == pytest.approx(0.1)


def test_what_is_usual_is_not_known_from_a_few_requests():
    assert usual_share([]) == 0.0
    assert usual_share([(19.0, 5.0)] * 10) == 0.0
    assert usual_share([(20.0, 5.0)] * 10) == pytest.approx(0.25)


def best_growth(n_b, p_b, p_c, bound, *, harm):
    """Largest expected log e per candidate request over all stakes, by brute force."""
    w = bound.ratio / n_b
    d = (
        np.linspace(1e-9, (1 - 1e-9) / w, 400_001)
        if harm
        else np.linspace(-1 + 1e-9, -1e-9, 400_001)
    )
    d = np.minimum(d, 40.0)
    return (p_c * np.log1p(d) + n_b * p_b * np.log1p(-w * d) - bound.absolute * d).max()


@pytest.mark.parametrize("n_b", [99.0, 19.0, 1.0, 0.25])
def test_each_stake_is_the_best_for_its_alternative(n_b):
    """Bound 0.1: stable's rate makes up the share f of it, the candidate's is s times it."""
    cases = [
        (log_harm_of, 5, 2.0, 1.0),
        (log_harm_of, 6, 2.5, 0.2),
        (log_harm_of, 7, 3.0, 0.8),
        (log_harm_of, 8, 4.0, 0.2),
        (log_safety_of, 3, 1.5**-1, 1.0),
        (log_safety_of, 4, 0.45, 0.45 * 1.5),
    ]
    for evidence, point, s, f in cases:
        bound = Bound(1.5, 0.1 * (1 - f))
        p_b, p_c = 0.1 * f / 1.5, 0.1 * s
        found = evidence([n_b, n_b * p_b, 1.0, p_c], bound)[point]
        best = best_growth(n_b, p_b, p_c, bound, harm=evidence is log_harm_of)
        assert found == pytest.approx(best, rel=1e-5)


def test_without_events_an_absolute_margin_is_proved_by_exposure_alone():
    evidence = log_safety([Sample(9500, 0, 500, 0)], Bound(1.0, 0.01))
    assert max(evidence) == pytest.approx(500 * 0.01 * 0.99, rel=1e-3)
    assert log_mixture(evidence) > math.log(10)


def test_without_events_a_ratio_alone_is_never_proved():
    assert log_safety([Sample(95000, 0, 5000, 0)], Bound(2.0)) == (0.0,) * SAFETY_POINTS


@pytest.mark.parametrize("usual", [0.0, 0.3])
def test_a_window_without_candidate_requests_says_nothing(usual):
    for bound in (Bound(1.0), Bound(1.25, 0.01), Bound(0.0, 0.01)):
        window = [Sample(100, 40, 0, 0)]
        assert log_harm(window, bound, usual=usual) == (0.0,) * HARM_POINTS
        assert log_safety(window, bound, usual=usual) == (0.0,) * SAFETY_POINTS


@pytest.mark.parametrize("lower_is_worse", [False, True])
def test_without_one_version_nothing_is_centred(lower_is_worse):
    """What stable usually does is no reading of it."""
    windows = [Sample(100, 7, 0, 0)] if lower_is_worse else [Sample(0, 0, 100, 7)]
    for bound in (Bound(1.0), Bound(1.5), Bound(1.25, 0.01)):
        for function in (log_harm, log_safety):
            plain = function(windows, bound, lower_is_worse=lower_is_worse)
            usual = function(windows, bound, lower_is_worse=lower_is_worse, usual=0.2)
            assert usual == plain


def test_a_window_without_stable_requests_says_nothing_about_a_ratio():
    window = [Sample(0, 0, 100, 90)]
    assert log_harm(window, Bound(1.5)) == (0.0,) * HARM_POINTS
    assert log_harm(window, Bound(1.5, 0.01)) == pytest.approx((0.0,) * HARM_POINTS, abs=1e-12)
    assert log_safety(window, Bound(1.5)) == (0.0,) * SAFETY_POINTS


def test_a_fixed_limit_is_tested_without_stable():
    bad, good = [Sample(0, 0, 1000, 30)], [Sample(0, 0, 1000, 1)]
    assert log_mixture(log_harm(bad, Bound(0.0, 0.01))) > math.log(20)
    assert log_mixture(log_safety(good, Bound(0.0, 0.01))) > math.log(20)
    assert log_mixture(log_harm(good, Bound(0.0, 0.01))) < 0


def test_without_stable_requests_the_absolute_part_alone_can_prove_safety():
    assert log_mixture(log_safety([Sample(0, 0, 1000, 1)], Bound(1.0, 0.01))) > math.log(20)


def test_lower_is_worse_is_the_same_test_with_the_versions_exchanged():
    windows, mirrored = [Sample(900, 50, 100, 3)], [Sample(100, 3, 900, 50)]
    bound, exchanged = Bound(1.25, 0.01), Bound(1.25, 1.25 * 0.01)
    assert log_harm(windows, bound, lower_is_worse=True) == log_harm(mirrored, exchanged)
    assert log_safety(windows, bound, lower_is_worse=True) == log_safety(mirrored, exchanged)


def test_lower_is_worse_is_centred_on_the_candidate_that_the_bound_makes_of_a_usual_stable():
    windows, mirrored = [Sample(900, 300, 100, 20)], [Sample(100, 20, 900, 300)]
    bound, exchanged = Bound(1.25, 0.01), Bound(1.25, 1.25 * 0.01)
    for function in (log_harm, log_safety):
        found = function(windows, bound, lower_is_worse=True, usual=0.3)
        of_candidate = limit(bound, 0.3, lower_is_worse=True)
        assert found == pytest.approx(function(mirrored, exchanged, usual=of_candidate))
        assert found != pytest.approx(function(windows, bound, lower_is_worse=True))


def test_a_candidate_that_stopped_answering_right_is_caught_when_lower_is_worse():
    assert log_mixture(log_harm([Sample(950, 855, 50, 0)], Bound(1.1), lower_is_worse=True)) > 5


@pytest.mark.parametrize("lower_is_worse", [False, True])
@pytest.mark.parametrize("bound", [Bound(1.0, 0.02), Bound(1.25), Bound(1.1, 0.01)])
def test_the_complement_has_the_same_null_and_returns_when_repeated(bound, lower_is_worse):
    windows = (Sample(900, 850, 100, 90), Sample(10, 10, 5, 0))
    flipped = complemented(windows, bound, lower_is_worse=lower_is_worse)
    edge = limit(bound, 0.9, lower_is_worse=lower_is_worse)
    assert limit(flipped[1], 0.1, lower_is_worse=flipped[2]) == pytest.approx(1 - edge)
    samples, back, direction = complemented(flipped[0], flipped[1], lower_is_worse=flipped[2])
    assert (samples, direction) == (windows, lower_is_worse)
    assert (back.ratio, back.absolute) == pytest.approx((bound.ratio, bound.absolute))


def test_counting_the_rarer_outcome_is_the_stronger_test():
    windows = [Sample(950 * 4, 900 * 4, 200, 170)]
    bound = Bound(1.0, 0.02)
    direct = log_mixture(log_harm(windows, bound, lower_is_worse=True))
    samples, flipped, direction = complemented(windows, bound, lower_is_worse=True)
    assert not direction
    assert log_mixture(log_harm(samples, flipped)) > direct + 1


def test_dispersion_divides_the_evidence():
    windows = [Sample(950, 10, 50, 4), Sample(950, 12, 50, 0)]
    plain = log_harm(windows, Bound(1.1))
    assert log_harm(windows, Bound(1.1), dispersion=4.0) == pytest.approx([x / 4 for x in plain])
    plain = log_safety(windows, Bound(1.1, 0.1))
    tempered = log_safety(windows, Bound(1.1, 0.1), dispersion=2.5)
    assert tempered == pytest.approx([x / 2.5 for x in plain])


def test_bursts_up_to_the_dispersion_expect_at_most_one():
    """Compound Poisson: each cause brings up to 3 events; tempering by 3 is exact for those."""
    n_b, n_c, size = 8.0, 2.0, 3
    causes = np.arange(60)
    counts = tables(n_b, size * causes[:, None], n_c, size * causes[None, :])
    for function in (log_harm_of, log_safety_of):
        evidence = function(counts, Bound(1.0)) / size
        pmfs = poisson.pmf(causes, n_b * 0.5), poisson.pmf(causes, n_c * 0.5)
        assert largest_expectation(evidence, *pmfs) <= 1 + ROUNDING
        assert largest_expectation(evidence * size, *pmfs) > 1.01


def test_nothing_read_is_no_evidence():
    assert log_harm([], Bound()) == (0.0,) * HARM_POINTS
    assert log_safety([], Bound()) == (0.0,) * SAFETY_POINTS
    assert log_mixture((0.0,) * HARM_POINTS) == pytest.approx(0.0)


def test_the_mixture_is_the_log_of_a_mean_and_survives_extremes():
    assert log_mixture((math.log(2), math.log(4))) == pytest.approx(math.log(3))
    assert log_mixture((5000.0, -5000.0)) == pytest.approx(5000 - math.log(2))
    states = np.array([[[0.0, 1.0], [2.0, 3.0]]])
    expected = [[log_mixture((0.0, 1.0)), log_mixture((2.0, 3.0))]]
    assert log_mixture_of(states) == pytest.approx(np.array(expected))


def test_many_windows_at_once_are_the_windows_one_by_one():
    rows = np.array([[950, 10, 50, 4], [900, 3, 100, 0], [0, 0, 9, 1], [5, 1, 0, 0]], dtype=float)
    for bound in (Bound(1.2), Bound(1.0, 0.02)):
        stacked = log_harm_of(rows.reshape(2, 2, 4), bound).reshape(4, HARM_POINTS)
        for row, logs in zip(rows, stacked, strict=True):
            assert log_harm([Sample(*row)], bound) == pytest.approx(tuple(logs))
    assert log_safety_of(rows, Bound(1.2)).shape == (4, SAFETY_POINTS)


@pytest.mark.parametrize("lower_is_worse", [False, True])
def test_both_kinds_of_evidence_in_one_piece_are_those_of_each(lower_is_worse):
    rows = np.array([[950, 10, 50, 4], [900, 3, 100, 0], [0, 0, 9, 1], [5, 1, 0, 0]], dtype=float)
    bounds = (Bound(1.2), Bound(1.5, 0.02), Bound(2.0))
    for tolerance, margin in itertools.product(bounds, bounds):
        for usual, tuned_for in itertools.product((0.0, 0.02), (None, 3.0)):
            if margin.absolute and tuned_for:
                continue
            options = {"lower_is_worse": lower_is_worse, "usual": usual}
            both = log_evidence_of(rows, tolerance, margin, tuned_for=tuned_for, **options)
            harm = log_harm_of(rows, tolerance, **options)
            safety = log_safety_of(rows, margin, tuned_for=tuned_for, **options)
            assert both[:, :HARM_POINTS] == pytest.approx(harm, rel=1e-9, abs=1e-12)
            assert both[:, HARM_POINTS:] == pytest.approx(safety, rel=1e-9, abs=1e-12)


def test_what_is_added_to_states_is_rounded():
    states, more = ((0.5, 1.0), (0.0, -2.0)), np.array([[0.25, 1e-7], [0.0, 1.5]])
    assert added(states, more, digits=6) == ((0.75, 1.0), (0.0, -0.5))
    assert added(states, 0.0, more, digits=6) == added(states, more, digits=6)


def test_a_table_of_samples_holds_their_numbers():
    assert table_of([Sample(5, 1, 3, 2)]).tolist() == [[5.0, 1.0, 3.0, 2.0]]
    assert table_of([]).shape == (0, 4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Bound(-1.0), "ratio must be a finite number >= 0, not -1"),
        (lambda: Bound(1.0, math.inf), "absolute must be a finite number"),
        (lambda: Bound(0.0, 0.0), "a bound of zero cannot be tested"),
        (lambda: Sample(1, 0, -1, 0), "candidate's counts must be finite and >= 0, not n=-1"),
        (lambda: Sample(math.nan, 0, 1, 0), "stable's counts must be finite"),
        (lambda: Sample(0, 2, 1, 0), "stable has 2 events but no exposure"),
        (lambda: log_harm([], Bound(), dispersion=0.5), "dispersion must be a finite number >= 1"),
        (lambda: log_harm([], Bound(0, 1), lower_is_worse=True), "when lower is worse the ratio"),
        (lambda: log_harm([], Bound(), usual=1.1), r"usual share must lie in \[0, 1\], not 1.1"),
        (lambda: log_safety([Sample(1, 2, 1, 0)], Bound(), usual=0.1), "only a proportion has a"),
        (lambda: log_safety([], Bound(), tuned_for=0.0), "tuned for a finite ratio above 0"),
        (lambda: log_safety([], Bound(1, 0.1), tuned_for=2.0), "only a bound without an absolute"),
        (lambda: log_mixture(()), "the state is empty"),
        (lambda: log_mixture((0.0, math.nan)), "something that is not a number"),
        (lambda: complemented([], Bound(0.0, 0.1)), "a bound without a ratio has no complement"),
        (lambda: complemented([Sample(1, 2, 1, 0)], Bound()), "events outnumber it"),
        (lambda: complemented([], Bound(0.5, 0.1)), "absolute must be a finite number >= 0"),
    ],
)
def test_what_cannot_be_tested_is_refused_with_its_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()
