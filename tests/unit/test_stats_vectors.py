"""Published values of the methods used, each with its source in tests/data/stat_vectors.json."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from modelrollout.stats.bounds import Bound
from modelrollout.stats.combine import discoveries, log_mixture
from modelrollout.stats.counts import Sample, log_harm
from modelrollout.stats.drift import population_stability_by_chance
from modelrollout.stats.means import log_normal_mixture, normal_mixture_bound, tuned_rho
from modelrollout.stats.paired import Pairs
from modelrollout.stats.paired import log_harm as log_paired_harm
from modelrollout.stats.split import log_mismatch

PATH = Path(__file__).parents[1] / "data" / "stat_vectors.json"
VECTORS = {v["id"]: v for v in json.loads(PATH.read_text())["vectors"]}


def vector(name):
    v = VECTORS[name]
    return v["input"], v["expected"], v["tol"]


@pytest.mark.parametrize(
    ("name", "mid"),
    [("gu2008.exact-cond", 0.0), ("exactci.r1.2.exact", 0.0), ("exactci.r1.2.midp", 0.5)],
)
def test_events_are_shared_at_the_bound_as_in_the_exact_conditional_test(name, mid):
    """The evidence bets against the share under which that test computes its published p-value."""
    given, expected, tolerance = vector(name)
    n_c, n_b, bound = given["t1"], given["t2"], Bound(given["ratio"])
    e_c = math.exp(log_harm([Sample(n_b, 0, n_c, 1)], bound)[5])
    e_b = math.exp(log_harm([Sample(n_b, 1, n_c, 0)], bound)[5])
    # Fair exactly on the bound: share * e_c + (1 - share) * e_b = 1.
    share = (1 - e_b) / (e_c - e_b)
    total = given["x1"] + given["x2"]
    p = binom.sf(given["x1"] - 1, total, share) - mid * binom.pmf(given["x1"], total, share)
    assert p == pytest.approx(expected, abs=tolerance)


def test_pairs_that_tell_are_shared_as_in_the_exact_test_of_mcnemar():
    given, expected, tolerance = vector("mcnemar.r")
    (_, one), (other, _) = given["table"]
    e_c, e_b = (math.exp(log_paired_harm(Pairs(*row))[2]) for row in ((1, 0, 0), (0, 1, 0)))
    p = 2 * binom.cdf(min(one, other), one + other, (1 - e_b) / (e_c - e_b))
    assert p == pytest.approx(expected["exact_p"], abs=tolerance)


def test_rho_of_the_normal_mixture():
    given, expected, tolerance = vector("confseq.best_rho_two_sided")
    found = tuned_rho(given["v_opt"], given["alpha_opt"])
    assert found == pytest.approx(expected, abs=tolerance)


def test_two_sided_normal_mixture_bound():
    given, expected, tolerance = vector("confseq.normal_mixture_bound_two_sided")
    found = normal_mixture_bound(given["v"], given["alpha"], given["v_opt"])
    assert found == pytest.approx(expected, abs=tolerance)


def test_one_sided_normal_mixture():
    given, expected, tolerance = vector("confseq.normal_log_mixture_one_sided")
    rho = tuned_rho(given["v_opt"], 2 * given["alpha_opt"])
    found = log_normal_mixture(given["s"], given["v"], rho)
    assert found == pytest.approx(expected, abs=tolerance)


def test_half_width_of_a_sequential_interval_for_a_mean():
    """The lift and its standard error are the vector's own; the boundary is ours."""
    given, expected, _ = vector("growthbook.seq_mean")
    n = given["a"]["n"] + given["b"]["n"]
    half = expected["se"] * normal_mixture_bound(n, given["alpha"], given["Nstar"]) / math.sqrt(n)
    # The standard error is given with 5 decimals and is multiplied by about 3.2.
    assert half == pytest.approx((expected["hi"] - expected["lo"]) / 2, abs=3.2 * 0.5e-5 + 1e-5)


def test_sequential_bayes_factors_of_a_split():
    given, expected, tolerance = vector("ssrm.posteriors")
    total = np.zeros(3)
    shares = given["null"]
    # A Dirichlet(1, 1, 1) is a mixture around equal shares: rescaled to the null by hand.
    for row, (marginal, null) in zip(given["rows"], expected, strict=True):
        total += row
        uniform = log_mismatch(total, (1 / 3, 1 / 3, 1 / 3), concentrations=(3.0,))[0]
        against_null = uniform + float((total * np.log(1 / 3 / np.array(shares))).sum())
        assert against_null == pytest.approx(marginal - null, abs=tolerance)


@pytest.mark.parametrize("name", ["500_500x1", "100_900x1", "50_450x2"])
def test_which_splits_are_a_mismatch(name):
    given, expected, _ = vector(f"growthbook.ssrm_{name}")
    total = np.sum(given["rows"], axis=0)
    found = log_mismatch(total, given["null"], concentrations=(given["concentration"],))
    assert (log_mixture(found) > math.log(1 / 0.05)) == (expected == "p<0.05")


def test_discoveries_among_e_values():
    given, expected, _ = vector("ebh.small")
    log_e = {str(i): math.log(e) for i, e in enumerate(given["e"])}
    named = discoveries(log_e, given["alpha"])
    assert [str(i) in named for i in range(len(expected))] == expected


def test_critical_value_of_the_population_stability_index():
    given, expected, tolerance = vector("psi.crit95_n100")
    found = population_stability_by_chance(
        given["n_ref"], given["n_cur"], given["bins"], given["level"]
    )
    assert found == pytest.approx(expected, abs=tolerance)


def test_every_vector_is_used():
    text = Path(__file__).read_text()
    assert [v for v in VECTORS if v not in text and "growthbook.ssrm_" not in v] == []
