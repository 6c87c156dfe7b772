"""The comparison with the rules that people use: each rule against an independent computation."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom, chi2_contingency, mannwhitneyu, norm

from bench.decision_quality import kayenta, measure, methods, report, whole
from bench.decision_quality.methods import ENGINE, ORACLE
from bench.decision_quality.worlds import (
    ALPHA,
    BUCKETS,
    HISTORY_WINDOWS,
    WORLDS,
    Answers,
    Batch,
    Errors,
    Latencies,
    Side,
    burst_logs,
    cells_of,
)
from modelrollout.stats import combine, counts, dispersion, histograms, means
from modelrollout.stats.bounds import Bound
from modelrollout.stats.counts import Sample
from modelrollout.stats.planning import Outlook, information_limit

DATA = Path(__file__).parents[1] / "data" / "kayenta.json"
CASES = {case["id"]: case for case in json.loads(DATA.read_text())["cases"]}
SHORT = Errors(name="short", versions="short", ratio=3.0, seconds=1200)


def drawn(world, runs=3, seed=7):
    return world.draw(np.random.default_rng(seed), runs)


def column(side, run):
    return [(n, k) for n, k in zip(side.n[:, run], side.k[:, run], strict=True)]


# --- Kayenta's judge --------------------------------------------------------------------------


def of_kind(kind):
    return [pytest.param(case, id=name) for name, case in CASES.items() if case["kind"] == kind]


@pytest.mark.parametrize("case", of_kind("classifier"))
def test_the_judge_says_what_kayenta_says(case):
    given, expected = dict(case["input"]), case["expected"]
    experiment, control = given.pop("experiment"), given.pop("control")
    verdict = kayenta.classify(experiment, control, **given)
    # One case is about the words of a verdict on no data; its verdict is not written down.
    assert verdict == expected.get("classification", "Nodata")
    if "critical" in expected:
        assert kayenta.is_critical(experiment, control, given) == expected["critical"]


@pytest.mark.parametrize("case", of_kind("ci"))
def test_the_interval_is_kayentas(case):
    given = case["input"]
    points = CASES[given["points_of"]]["input"] if "points_of" in given else given
    sides = (np.asarray(points[name]) for name in ("experiment", "control"))
    found = dict(zip(("lo", "hi", "est"), kayenta.interval(*sides, given["conf"]), strict=True))
    for name, expected in case["expected"].items():
        assert found[name] == pytest.approx(expected, abs=kayenta.SOLVER)


@pytest.mark.parametrize("case", of_kind("stat"))
def test_the_score_at_a_shift_is_kayentas(case):
    given = case["input"]
    score_at = kayenta.scores_of(np.asarray(given["experiment"]), np.asarray(given["control"]))
    found = [score_at(shift) for shift in given["shift"]]
    # Points that rounding makes equal, when 5 is taken from them, are no ties here.
    assert found == pytest.approx(case["expected"], rel=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_the_score_is_the_mann_whitney_statistic(seed):
    generator = np.random.default_rng(seed)
    x, y = generator.poisson(3, 40).astype(float), generator.poisson(2, 25).astype(float)
    expected = mannwhitneyu(x, y, method="asymptotic").pvalue
    assert 2 * norm.sf(abs(kayenta.scores_of(x, y)(0.0))) == pytest.approx(expected)


def test_all_runs_at_once_are_judged_as_each_alone():
    generator = np.random.default_rng(3)
    x, y = generator.poisson(4, (40, 6)), generator.poisson((1, 2, 2, 3, 3, 4), (40, 6))
    scores = kayenta.running_scores(x, y)
    found = kayenta.first_high(x, y, least=10)
    for run in range(6):
        verdicts = [kayenta.classify(x[:n, run], y[:n, run]) for n in range(10, 41)]
        expected = 9 + verdicts.index("High") if "High" in verdicts else 40
        assert found[run] == expected
        alone = kayenta.scores_of(x[:30, run].astype(float), y[:30, run].astype(float))
        assert scores[29][run] == pytest.approx(alone(0.0))
    assert len(set(found)) > 2


# --- other rules ------------------------------------------------------------------------------


def batch_of(candidate, stable=((95, 0),), weight=0.05):
    """One run, from rows of requests and failures."""

    def side(rows):
        rows = np.asarray(rows, dtype=float)
        return Side(n=rows[:, :1], k=rows[:, 1:])

    stable = side(np.broadcast_to(stable, (len(candidate), 2)))
    return Batch(
        candidate=side(candidate),
        baseline=replace(stable, n=0 * stable.n, k=0 * stable.k),
        rest=stable,
        past=stable,
        weight=np.full((len(candidate), 1), weight),
    )


def test_failed_checks_are_counted_and_never_forgiven():
    world = Errors(name="", point=10)
    rule = methods.threshold(world, 2, 3)
    fine, bad = [(50, 1), (50, 0)], [(50, 0), (50, 3)]
    assert rule(batch_of([*bad, *fine, *bad, *fine, *fine, *bad, *fine])) == [11]
    # Exactly the constant, 2 %, is no failure.
    assert rule(batch_of([(50, 1), (50, 1)] * 7)) >= 14


def test_a_check_without_requests_has_failed():
    rule = methods.threshold(Errors(name="", point=5), 1, 2)
    assert rule(batch_of([(0, 0), (50, 0), (0, 0), (50, 0)])) == [2]


def test_what_is_left_of_a_check_at_the_end_decides_nothing():
    rule = methods.threshold(Errors(name="", point=10), 2, 1)
    assert rule(batch_of([(50, 0), (50, 0), (50, 50)])) >= 3


def test_the_z_score_is_that_of_the_chi_squared_test():
    n_b, k_b, n_c, k_c = 950.0, 11.0, 60.0, 4.0
    table = [[k_c, n_c - k_c], [k_b, n_b - k_b]]
    expected = chi2_contingency(table, correction=False).statistic
    found = methods.z_score(*(np.array([each]) for each in (n_b, k_b, n_c, k_c)))
    assert found[0] == pytest.approx(math.sqrt(expected))


def test_the_z_test_adds_all_requests_up():
    batch = drawn(SHORT)
    looks = methods.z_test(batch)
    for run, look in enumerate(looks):
        for at in range(look + 1):
            n_b, k_b = np.sum(column(batch.stable, run)[: at + 1], axis=0)
            n_c, k_c = np.sum(column(batch.candidate, run)[: at + 1], axis=0)
            pooled = (k_b + k_c) / (n_b + n_c)
            error = math.sqrt(pooled * (1 - pooled) * (1 / n_b + 1 / n_c)) or math.inf
            assert ((k_c / n_c - k_b / n_b) / error > norm.isf(0.05)) == (at == look)


@pytest.mark.parametrize("bound", [Bound(1.0), Bound(1.5, 0.001)])
def test_the_confidence_sequence_of_requests_is_the_mixture_of_its_weighted_sum(bound):
    """The mixture by numerical integration over its half-normal prior."""
    batch = drawn(SHORT, runs=1)
    (look,) = methods.confidence_sequence(batch, bound)
    ratio = bound.ratio
    rho = means.tuned_rho(methods.TUNED_FOR_REQUESTS, 0.1)
    slopes = np.linspace(0, 12 / math.sqrt(rho), 20_001)
    prior = 2 * norm.pdf(slopes * math.sqrt(rho)) * math.sqrt(rho)
    for at in (look - 1, look):
        n_b, k_b = np.sum(column(batch.stable, 0)[: at + 1], axis=0)
        n_c, k_c = np.sum(column(batch.candidate, 0)[: at + 1], axis=0)
        v = n_b + n_c
        total = k_c / 0.05 - ratio * k_b / 0.95 - bound.absolute * v
        s = total / math.sqrt((k_c / 0.05**2 + ratio**2 * k_b / 0.95**2) / v)
        evidence = np.trapezoid(prior * np.exp(slopes * s - slopes**2 * v / 2), slopes)
        assert (evidence >= 1 / ALPHA and k_b + k_c >= methods.LEAST_EVENTS) == (at == look)


@pytest.mark.parametrize("bound", [Bound(1.0), Bound(1.5, 0.001)])
def test_evidence_from_window_means_is_the_operators(bound):
    batch = drawn(SHORT)
    log_e = methods.log_harm_of_means(batch, bound)
    for run in range(3):
        pairs = zip(column(batch.stable, run), column(batch.candidate, run), strict=True)
        batches = [means.Batch(*stable, *candidate) for stable, candidate in pairs]
        for at in (10, means.LEAST_WINDOWS - 1, 60, 239):
            expected = means.log_harm(means.moments(batches[: at + 1], bound.ratio, bound.absolute))
            assert log_e[at, run] == pytest.approx(expected)


def test_the_quantile_is_interpolated_within_its_bucket():
    counts_per_bucket = np.zeros((1, 1, len(BUCKETS) + 1))
    counts_per_bucket[0, 0, [4, 5]] = 90, 10
    side = Side(n=np.full((1, 1), 100.0), k=np.zeros((1, 1)), buckets=counts_per_bucket)
    expected = BUCKETS[4] + 0.9 * (BUCKETS[5] - BUCKETS[4])
    assert methods.p99(side).item() == pytest.approx(expected)


# --- this engine is the operator's ------------------------------------------------------------


@pytest.mark.parametrize("bound", [Bound(1.0), Bound(1.5, 0.001)])
@pytest.mark.parametrize("burst", [1.0, 3.0])
def test_the_engine_is_the_operators_evidence_look_by_look(bound, burst):
    batch = drawn(replace(SHORT, burst=burst))
    harm, safety = methods.engine_on_errors(batch, bound), methods.engine_safety(batch, bound)
    for run in range(3):
        pairs = zip(column(batch.stable, run), column(batch.candidate, run), strict=True)
        samples = [Sample(*stable, *candidate) for stable, candidate in pairs]
        past = column(batch.past, run)
        phi = dispersion.dispersion(past, of_proportion=True)
        usual = counts.usual_share(past)
        assert usual > 0
        assert (phi > 2) == (burst > 1)
        for at in (0, 5, 77, 239):
            for found, evidence in ((harm, counts.log_harm), (safety, counts.log_safety)):
                state = evidence(samples[: at + 1], bound, dispersion=phi, usual=usual)
                assert found[at, run] == pytest.approx(combine.log_mixture(state), abs=1e-9)


def test_the_engine_on_histograms_is_the_operators():
    world = Latencies(name="", candidate=Answers(late_share=0.03, late_seconds=1.0), seconds=300)
    batch = drawn(world, runs=2)
    log_e = methods.engine_on_histograms(batch, Bound(1.0))
    bounds = (*BUCKETS, math.inf)
    for run in range(2):
        cumulative = batch.past.buckets[:, run].sum(axis=0).cumsum()
        states = []
        for threshold in histograms.choose_thresholds(bounds, cumulative.tolist()):
            above = BUCKETS.index(threshold) + 1
            tails = [
                side.buckets[:, run, above:].sum(axis=-1)
                for side in (batch.stable, batch.candidate, batch.past)
            ]
            past = list(zip(batch.past.n[:, run], tails[2], strict=True))
            phi = dispersion.dispersion(past, of_proportion=True)
            samples = [
                Sample(*each)
                for each in zip(
                    batch.stable.n[:, run],
                    tails[0],
                    batch.candidate.n[:, run],
                    tails[1],
                    strict=True,
                )
            ]
            usual = counts.usual_share(past)
            states.append(counts.log_harm(samples, Bound(1.0), dispersion=phi, usual=usual))
        assert log_e[-1, run] == pytest.approx(histograms.log_harm(states), abs=1e-9)


def test_the_engine_decides_at_its_error_rate():
    batch = drawn(SHORT, runs=20)
    log_e = methods.engine_on_errors(batch, Bound(1.0))
    for alpha in (0.05, 0.01):
        looks = methods.engine(SHORT, alpha)(batch)
        assert (looks < 240).all()
        for run, look in enumerate(looks):
            assert log_e[look, run] >= -math.log(alpha) > log_e[:look, run].max(initial=-math.inf)


# --- the worlds -------------------------------------------------------------------------------


def test_there_are_worlds_of_every_kind_and_names_tell_them_apart():
    assert len(WORLDS) >= 12
    assert len({world.name for world in WORLDS}) == len(WORLDS)
    alike = {}
    for world in WORLDS:
        equal = alike.setdefault(world.versions, world.equal())
        assert world.equal() == equal


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
def test_requests_and_failures_come_as_the_world_says(world):
    batch = drawn(replace(world, seconds=60 * world.width), runs=200)
    weight = 0.5 if "0.1 req" in world.name else 0.05
    total = world.requests_per_second * world.width * 60
    assert batch.candidate.n.sum(axis=0).mean() == pytest.approx(weight * total, rel=0.05)
    assert batch.stable.n.sum(axis=0).mean() == pytest.approx((1 - weight) * total, rel=0.05)
    assert batch.past.n.shape == (HISTORY_WINDOWS, 200)
    if isinstance(world, Errors):
        base = 0.01 if callable(world.stable) else world.stable
        ratio = 1.0 if world.good_seconds else world.ratio
        for side, rate in ((batch.stable, base), (batch.candidate, ratio * base)):
            assert side.k.sum() / side.n.sum() == pytest.approx(rate, rel=0.12)


def test_the_candidate_is_good_until_it_is_not():
    batch = drawn(Errors(name="", ratio=5.0, good_seconds=600, seconds=1200), runs=100)
    early, late = (batch.candidate.k[part].sum() for part in (slice(120), slice(120, None)))
    assert late / early == pytest.approx(5.0, rel=0.1)


def test_bursts_have_their_index_of_dispersion():
    """Geometric with mean 3: E[size^2] / E[size] = 5, by the table and by the draws."""
    chance = np.exp(burst_logs(0.01, 3.0, 500, 200))[500]
    failures = np.arange(201)
    mean = chance @ failures
    assert chance.sum() == pytest.approx(1.0, abs=1e-6)
    assert mean == pytest.approx(5.0, rel=1e-4)
    assert chance @ (failures - mean) ** 2 == pytest.approx(5 * mean, rel=1e-3)
    past = drawn(Errors(name="", burst=3.0), runs=300).past
    assert past.k.var() / past.k.mean() == pytest.approx(5.0, rel=0.1)


def test_the_oracle_compares_the_likelihoods():
    batch = drawn(SHORT)
    expected = (
        binom.logpmf(batch.candidate.k, batch.candidate.n, 0.03)
        - binom.logpmf(batch.candidate.k, batch.candidate.n, 0.01)
    ).cumsum(axis=0)
    assert SHORT.truth(batch) == pytest.approx(expected)


def test_limits_are_the_planners_and_a_threshold_knows_less_than_the_buckets():
    assert Errors(name="", ratio=2.0).limit() == pytest.approx(817, rel=1e-3)
    assert Errors(name="", ratio=2.0, burst=3.0).limit() == pytest.approx(3 * 817, rel=0.02)
    world = Latencies(name="", candidate=Answers(slower=1.1))
    tails = [1 - cells_of(each)[0].cumsum() for each in (world.stable, world.candidate)]
    by_threshold = [
        information_limit(Outlook(stable_rate=b, candidate_rate=c, weight=0.05), Bound(1.0), ALPHA)
        for b, c in zip(*tails, strict=True)
        if 1e-6 < b < 1 - 1e-6
    ]
    assert world.limit() < min(by_threshold) < 2 * world.limit()


def test_sums_of_seconds_are_those_of_their_answers():
    side = drawn(Latencies(name="", seconds=3600), runs=20).candidate
    sigma = math.log(4) / norm.ppf(0.99)
    mean = 0.08 * math.exp(sigma**2 / 2)
    spread = mean * math.sqrt(math.expm1(sigma**2))
    scores = (side.seconds - side.n * mean) / (spread * np.sqrt(np.maximum(side.n, 1)))
    assert side.seconds.sum() / side.n.sum() == pytest.approx(mean, rel=0.01)
    assert scores.std() == pytest.approx(1.0, rel=0.03)


# --- the table --------------------------------------------------------------------------------


def test_limits_of_a_share_are_clopper_and_pearsons():
    assert measure.limits(0, 300) == (0.0, pytest.approx(1 - 0.01 ** (1 / 300)))
    lower, upper = measure.limits(12, 400)
    assert binom.sf(11, 400, lower) == pytest.approx(0.01)
    assert binom.cdf(12, 400, upper) == pytest.approx(0.01)


def test_requests_are_counted_from_when_the_candidate_is_worse():
    world = Errors(name="", good_seconds=10, width=5, seconds=20)
    side = Side(n=np.full((4, 3), 7.0), k=np.array([[1.0], [2.0], [4.0], [8.0]]) * np.ones((1, 3)))
    found = measure.outcome_of(world, side, np.array([1, 2, 4]))
    assert found.decided.tolist() == [False, True, False]
    assert found.requests.tolist() == [math.inf, 7.0, math.inf]
    assert found.bad.tolist() == [0.0, 4.0, 12.0]


@pytest.fixture(scope="module")
def short_rows():
    ((lines, equal),) = measure.rows([SHORT], 60)
    return lines, equal


def test_a_row_is_what_its_method_decided(short_rows):
    lines, (plain, strict) = short_rows
    by_name = {line.method: line for line in lines}
    assert set(by_name) == {*methods.methods_of(SHORT), ORACLE}
    ours = by_name[ENGINE]
    batch = next(measure.batches(SHORT, 60))
    looks = methods.engine(SHORT, ALPHA)(batch)
    requests = batch.candidate.n.cumsum(axis=0)[looks, np.arange(60)]
    assert ours.median == sorted(requests)[29]
    assert ours.limit == SHORT.limit()
    assert ours.false == plain.share
    assert strict.share <= plain.share
    assert by_name[ORACLE].median <= ours.median < by_name["threshold, Argo's settings"].median
    assert not by_name["z-test at each look"].holds
    assert not any(line.is_faster for line in lines)


def test_whoever_holds_its_rate_and_is_faster_is_marked(short_rows):
    lines, _ = short_rows
    ours = next(line for line in lines if line.method == ENGINE)
    rivals = [
        replace(ours, method="level", median=0.95 * ours.median),
        replace(ours, method="faster", median=0.85 * ours.median),
        replace(ours, method="unsafe", median=0.5 * ours.median, holds=False),
    ]
    marked = measure.compared([ours, *rivals])
    assert [line.is_faster for line in marked] == [False, False, True, False]
    text = "\n".join(report.table(marked))
    assert f"**{0.85 * ours.median:,.0f}**" in text
    assert f"({0.5 * ours.median:,.0f})" in text
    (bar,) = report.rival_bars(marked)
    assert bar.is_met is False
    assert "short: faster" in bar.found


def test_a_bar_is_passed_or_failed_only_with_enough_runs():
    def outcome(hits, runs):
        return measure.Outcome(
            decided=np.arange(runs) < hits, requests=np.zeros(runs), bad=np.zeros(runs)
        )

    equal = {"calm": (outcome(20, 1000), outcome(0, 100)), "wild": (outcome(90, 1000),) * 2}
    verdicts = [bar.is_met for bar in report.false_decision_bars(equal)]
    assert verdicts == [True, None, False, False]


def test_promotions_are_the_operators_safety():
    (found,) = [each for each in measure.promotions(30) if each.margin == Bound(2.0)]
    assert found.limit == pytest.approx(1044, rel=1e-3)
    assert found.undecided == 0
    assert 0.5 * found.limit < found.median < 2 * found.limit


def test_the_whole_operator_decides_as_the_windows_do():
    found = whole.by_the_operator(12)
    limit = Errors(name="", ratio=2.0).limit()
    assert found.missed == 0
    # Of 12 runs a median is a rough number: 1.26 times the limit in thousands of them.
    assert 0.5 * limit < found.median < 3 * limit


def test_the_small_tables_have_a_column_for_each_method(short_rows):
    lines, _ = short_rows
    text = list(report.summaries(lines))
    assert all(line.count("|") == len(report.COLUMNS) + 2 for line in text if line)
    assert sum(line.startswith("| short |") for line in text) == 2
    assert set(report.COLUMNS) <= {line.method for line in lines}
