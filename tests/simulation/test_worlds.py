"""Each field of a world changes what it says, and nothing is simulated that was not understood."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from scipy.stats import lognorm

from modelrollout.adapters.cluster import ENDPOINT_SLICES, HTTP_ROUTES
from modelrollout.simulation.exports import (
    ANSWERED,
    BAD,
    ERRORS,
    REQUESTS,
    WRONG,
    Site,
)
from modelrollout.simulation.rollout import CREATED, Decision, Simulation, checked, simulate
from modelrollout.simulation.scenario import scenario_of
from modelrollout.simulation.traffic import CANDIDATE, STABLE, WARMUP_FACTOR, Traffic
from simulation.worlds import (
    ACCURACY,
    ENVOY_ERRORS,
    LATENCY,
    POD_ERRORS,
    POD_LATENCY,
    a_manifest,
    a_world,
    after,
)

HOUR = 3600.0


def users(manifest, world, weights=((STABLE, 1), (CANDIDATE, 1)), seconds=HOUR, step=1.0, seed=1):
    """Traffic at fixed weights, drawn second by second."""
    _, exports = checked(manifest, world)
    traffic = Traffic(exports, world, np.random.default_rng(seed), began=0.0, created=0.0)
    traffic.shift(list(weights))
    traffic.draw(np.arange(step, seconds + step / 2, step))
    return traffic, exports


def grown(traffic, site, row, *columns):
    """What the columns of a row grew by at each instant."""
    values = traffic.counters(site)[: traffic.drawn, row]
    return [np.diff(values[:, each]) for each in columns]


def total(traffic, version, *columns):
    """What a version had counted in the end."""
    row = traffic.counters(Site.EXPORTER)[traffic.drawn - 1, version]
    return [row[each] for each in columns]


def assert_about(found, expected, sd):
    """Within five standard deviations."""
    assert abs(found - expected) <= 5 * sd


def assert_share(count, n, share):
    assert_about(count, n * share, math.sqrt(n * share * (1 - share)))


# --- users --------------------------------------------------------------------------------


def test_requests_come_at_the_rate_that_is_given_and_are_shared_by_the_weights():
    traffic, _ = users(a_manifest(), a_world(requestsPerSecond=50), ((STABLE, 9), (CANDIDATE, 1)))
    (stable,), (candidate,) = total(traffic, STABLE, REQUESTS), total(traffic, CANDIDATE, REQUESTS)
    assert_about(stable + candidate, 50 * HOUR, math.sqrt(50 * HOUR))
    assert_share(candidate, stable + candidate, 0.1)


def test_a_daily_wave_swings_around_its_mean():
    wave = {"dailyWave": {"mean": 50, "amplitude": 0.8, "periodSeconds": HOUR}}
    traffic, _ = users(a_manifest(), a_world(requestsPerSecond=wave), ((STABLE, 1),))
    (sent,) = grown(traffic, Site.EXPORTER, STABLE, REQUESTS)
    first, second = sent[:1800].sum(), sent[1800:].sum()
    swing = 50 * 0.8 * HOUR / math.pi
    assert_about(first, 50 * 1800 + swing, math.sqrt(first))
    assert_about(second, 50 * 1800 - swing, math.sqrt(second))


def test_crowds_come_at_the_end_of_each_period_and_are_in_the_mean():
    crowds = {"bursts": {"mean": 50, "burstEverySeconds": 600, "burstSeconds": 60, "factor": 5}}
    traffic, _ = users(a_manifest(), a_world(requestsPerSecond=crowds), ((STABLE, 1),))
    (sent,) = grown(traffic, Site.EXPORTER, STABLE, REQUESTS)
    quiet, crowded = sent.reshape(6, 600)[:, :540], sent.reshape(6, 600)[:, 540:]
    assert_about(sent.sum(), 50 * HOUR, math.sqrt(50 * HOUR))
    assert crowded.mean() / quiet.mean() == pytest.approx(5, rel=0.05)


def test_nobody_is_there_after_the_last_user():
    traffic, _ = users(a_manifest(), a_world(usersUntilSeconds=100))
    (sent,) = grown(traffic, Site.EXPORTER, STABLE, REQUESTS)
    assert sent[:100].sum() > 0
    assert sent[100:].sum() == 0


# --- versions -----------------------------------------------------------------------------


def test_answers_are_errors_and_wrong_as_often_as_is_said():
    candidate = {"errorRate": 0.04, "accuracy": 0.9}
    traffic, _ = users(a_manifest(), a_world(candidate=candidate))
    for version, error_rate, accuracy in ((STABLE, 0.01, 0.97), (CANDIDATE, 0.04, 0.9)):
        sent, answered, errors, wrong, bad = total(
            traffic, version, REQUESTS, ANSWERED, ERRORS, WRONG, BAD
        )
        assert_share(errors, sent, error_rate)
        assert_share(wrong, answered, 1 - accuracy)
        assert answered == sent - errors
        assert bad == errors + wrong


def tails(traffic, exports, version):
    """The share of a version's answers above each bound of its latency histogram."""
    quantity = exports.by_guardrail["latency"].quantity
    columns = range(quantity.column, quantity.column + len(quantity.bounds))
    (sent,) = total(traffic, version, REQUESTS)
    below = total(traffic, version, *columns)
    return sent, {
        bound: (sent - each) / sent for bound, each in zip(quantity.edges, below, strict=True)
    }


@pytest.mark.parametrize("guardrail", [LATENCY, POD_LATENCY])
def test_latencies_are_lognormal_with_the_median_and_p99_that_are_given(guardrail):
    latency = {"medianSeconds": 0.2, "p99Seconds": 1.0}
    world = a_world(candidate={"latency": latency})
    traffic, exports = users(a_manifest(guardrail), world)
    expected = lognorm(s=math.log(5) / 2.3263479, scale=0.2)
    sent, found = tails(traffic, exports, CANDIDATE)
    for seconds, tail in found.items():
        assert_share(tail * sent, sent, expected.sf(seconds))


def test_a_shifted_tail_is_so_many_answers_that_take_so_much_longer():
    world = a_world(candidate={"tailShift": {"share": 0.02, "seconds": 2.0}})
    traffic, exports = users(a_manifest(LATENCY), world)
    sent, found = tails(traffic, exports, CANDIDATE)
    assert_share(found[1.0] * sent, sent, 0.02)
    assert found[2.5] == 0
    errors, wrong, bad = total(traffic, CANDIDATE, ERRORS, WRONG, BAD)
    assert_share(bad - errors - wrong, sent, 0.02)


def test_there_are_so_many_pods():
    world = a_world(stable={"pods": 5}, candidate={"pods": 3})
    simulation = Simulation(a_manifest(POD_ERRORS), world, 1)
    names = [each.labels["pod"] for each in simulation.scraper.targets]
    assert [sum(name.startswith(f"ranker-v{each}-") for name in names) for each in (1, 2)] == [5, 3]
    endpoints = simulation.store.live(ENDPOINT_SLICES, "ranker-v2")["endpoints"]
    assert len(endpoints) == 3


def test_pods_that_differ_have_error_rates_of_their_own_around_the_versions():
    world = a_world(stable={"pods": 100, "podSd": 0.5, "errorRate": 0.05}, requestsPerSecond=5000)
    traffic, _ = users(a_manifest(POD_ERRORS), world, ((STABLE, 1),), step=60.0)
    counters = traffic.counters(Site.PODS)[traffic.drawn - 1, :100]
    rates = counters[:, ERRORS] / counters[:, REQUESTS]
    assert np.log(rates).std() == pytest.approx(0.5, rel=0.25)
    assert_about(rates.mean(), 0.05, 0.05 * 0.53 / 10)


def test_the_first_requests_of_a_new_pod_fail_more_often_and_take_longer():
    world = a_world(candidate={"warmupRequests": 5000, "errorRate": 0.02})
    traffic, exports = users(a_manifest(POD_ERRORS, POD_LATENCY), world, seconds=600)
    row = len(traffic.version_of) - 1
    sent, errors = (np.cumsum(each) for each in grown(traffic, Site.PODS, row, REQUESTS, ERRORS))
    warm = int(np.searchsorted(sent, 5000))
    assert_share(errors[warm], 5000, 0.02 * WARMUP_FACTOR)
    assert_share(errors[-1] - errors[warm], sent[-1] - sent[warm], 0.02)
    quantity = exports.by_guardrail["latency"].quantity
    half = quantity.column + quantity.bounds.index(0.1)
    (fast,) = (np.cumsum(each) for each in grown(traffic, Site.PODS, row, half))
    # The median of the cold ones is at 0.1 s, and nearly none of the warm ones is above it.
    assert_share(fast[warm], 5000, 0.5)
    assert (fast[-1] - fast[warm]) / (sent[-1] - sent[warm]) > 0.99


def test_stables_pods_are_warm():
    world = a_world(stable={"warmupRequests": 100_000, "errorRate": 0.02})
    traffic, _ = users(a_manifest(POD_ERRORS), world, ((STABLE, 1),), seconds=600)
    sent, errors = total(traffic, STABLE, REQUESTS, ERRORS)
    assert_share(errors, sent, 0.02)


# --- what happens to both -----------------------------------------------------------------


def test_the_base_rate_drifts_for_both_versions_alike():
    drift = {"share": 0.5, "periodSeconds": HOUR}
    traffic, _ = users(a_manifest(), a_world(baseRateDrift=drift, requestsPerSecond=1000))
    for version in (STABLE, CANDIDATE):
        sent, errors = grown(traffic, Site.EXPORTER, version, REQUESTS, ERRORS)
        assert errors[800:1000].sum() / sent[800:1000].sum() == pytest.approx(0.015, rel=0.1)
        assert errors[2600:2800].sum() / sent[2600:2800].sum() == pytest.approx(0.005, rel=0.1)


@pytest.mark.parametrize("mean", [1, 3])
def test_bursts_bring_several_events_per_cause_and_as_many_in_all(mean):
    traffic, _ = users(a_manifest(), a_world(burstMean=mean), step=5.0, seconds=20 * HOUR)
    sent, errors = grown(traffic, Site.EXPORTER, STABLE, REQUESTS, ERRORS)
    assert errors.sum() / sent.sum() == pytest.approx(0.01, rel=0.05)
    # Geometric bursts of mean b have the index of dispersion 2 b - 1.
    assert errors.var() / errors.mean() == pytest.approx(2 * mean - 1, rel=0.1)


def samples(simulation, name):
    """Times and values of each target's first series of a guardrail's total."""
    export = simulation.exports.by_guardrail[name]
    column = export.total[0].plus
    for target in simulation.scraper.targets:
        if target.site is export.site:
            yield target.times, target.values.rows[:, 0, column].tolist()


# --- Prometheus ---------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [1, 5, 15])
def test_each_target_is_scraped_once_per_interval(seconds):
    simulation = Simulation(a_manifest(POD_ERRORS, ACCURACY), a_world(scrapeSeconds=seconds), 1)
    simulation.scraper.freeze(CREATED + 100)
    for target in simulation.scraper.targets:
        assert np.diff(target.times) == pytest.approx(seconds, abs=0.006)
        assert len([each for each in target.times if each > CREATED]) in {
            math.floor(100 / seconds),
            math.ceil(100 / seconds),
        }


def test_targets_are_scraped_at_different_times():
    simulation = Simulation(a_manifest(POD_ERRORS, ACCURACY), a_world(), 1)
    simulation.scraper.freeze(CREATED)
    assert len({round(each.times[0] % 1, 2) for each in simulation.scraper.targets}) == 5


GAP = {"fromSeconds": 20, "toSeconds": 50}


def status_at(simulation, seconds):
    """The newest that was stored by then."""
    return [status for time, status in simulation.statuses if time <= CREATED + seconds][-1]


def scrapes_within(simulation):
    (target,) = simulation.scraper.targets
    return [each for each in target.times if 20 <= each - CREATED < 50]


@pytest.mark.parametrize(("field", "is_scraped"), [("gaps", False), ("silences", True)])
def test_in_a_gap_nothing_is_scraped_and_in_a_silence_nobody_can_ask(field, is_scraped):
    manifest = a_manifest(ENVOY_ERRORS, step={"minSeconds": 60})
    simulation, _ = after(manifest, a_world(**{field: [GAP]}), 1)
    assert bool(scrapes_within(simulation)) is is_scraped
    assert "cannot be reached" in status_at(simulation, 49)["reason"]
    assert "cannot be reached" not in status_at(simulation, 59)["reason"]


@pytest.mark.parametrize("delay", [0, 60])
@pytest.mark.parametrize("label", ["version", None])
def test_the_operator_counts_late_what_is_known_late(label, delay):
    accuracy = ACCURACY | {"versionLabel": label}
    manifest = a_manifest(accuracy, step={"minSeconds": 100, "minRequests": 0})
    simulation, _ = after(manifest, a_world(labelDelaySeconds=delay), 1)
    for seconds in (50, 100):
        (known,) = status_at(simulation, seconds)["checkpoint"]
        # Ten requests per second, from the first second on.
        judged = 10 * max(0, known["watermark"] - CREATED - delay)
        assert (judged > 0) == (seconds > delay)
        assert known["candidate"][0] == pytest.approx(judged, rel=0.2)


# --- the cluster --------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.2, 20])
def test_weights_are_in_force_when_the_gateway_has_taken_them_up(seconds):
    simulation = Simulation(a_manifest(), a_world(propagationSeconds=seconds), 1)
    written, shifted = [], []
    simulation.store.written.append(
        lambda resource, body: (
            (written if body["metadata"]["generation"] > len(written) + 1 else shifted).append(
                simulation.now
            )
            if resource == HTTP_ROUTES
            else None
        )
    )
    simulation.run()
    assert len(written) == len(shifted) > 5
    assert np.subtract(shifted, written) == pytest.approx(seconds)


def test_the_operator_crashes_from_a_time_on_and_is_back_after_a_while():
    crashes = {"operatorCrashes": 0.3, "operatorCrashesFromSeconds": 30}
    results = {
        seconds: simulate(a_manifest(), a_world(operatorRestartSeconds=seconds, **crashes), 1)
        for seconds in (1, 60)
    }
    assert simulate(a_manifest(), a_world(), 1).crashes == 0
    assert all(each.crashes > 3 for each in results.values())
    assert results[60].rollout_seconds > results[1].rollout_seconds + 60


def test_a_pod_that_is_replaced_has_another_name_and_counts_from_zero():
    world = a_world(podRestarts=60, scrapeSeconds=1)
    manifest = a_manifest(POD_ERRORS, steps=(50,), step={"minSeconds": 300})
    simulation, result = after(manifest, world, 2)
    targets = simulation.scraper.targets
    assert len(targets) > 4 + 10
    assert len({each.labels["pod"] for each in targets}) == len(targets)
    scraped = [(times, values) for times, values in samples(simulation, "errors") if times]
    for _, values in scraped:
        assert values[0] <= 100  # of one second and one pod
        assert values == sorted(values)
    # At each time there are four.
    at = CREATED + 150
    assert sum(times[0] <= at <= times[-1] for times, _ in scraped) in {3, 4}
    assert result.decision is not Decision.ROLLED_BACK


# --- guardrails of the user's own ---------------------------------------------------------

REFUSALS = {
    "name": "refusals",
    "proportion": {"events": {"metric": "refused_total"}, "total": {"metric": "answers_total"}},
}
TOKENS = {"name": "tokens", "distribution": {"histogram": {"metric": "tokens"}, "limits": ["512"]}}
SCORE = {"name": "score", "mean": {"sum": {"metric": "sum"}, "count": {"metric": "n"}, "max": "1"}}
KILLS = {"name": "kills", "rate": {"events": {"metric": "killed_total"}}}
LOAD = {
    "name": "load",
    "limit": {"query": 'load{namespace="shop"}', "max": "0.9", "forSeconds": 10},
}
STEP = {"minSeconds": 60, "maxSeconds": 900}


def decided(guardrail, stable, candidate, **own):
    name = guardrail["name"]
    world = a_world(guardrails={name: {"stable": stable, "candidate": candidate, **own}})
    return simulate(a_manifest(guardrail, steps=(50,), step=STEP), world, 1)


@pytest.mark.parametrize(
    ("guardrail", "same", "worse"),
    [
        pytest.param(REFUSALS, 0.05, 0.15, id="a proportion"),
        pytest.param(REFUSALS | {"direction": "LowerIsWorse"}, 0.95, 0.5, id="of good answers"),
        pytest.param(TOKENS, {"median": 90, "p99": 400}, {"median": 200, "p99": 900}, id="tokens"),
        pytest.param(SCORE, {"mean": 0.2, "sd": 0.1}, {"mean": 0.4, "sd": 0.1}, id="a mean"),
        pytest.param(KILLS, 0.2, 1.0, id="a rate"),
    ],
)
def test_a_guardrail_of_ones_own_is_driven_by_its_figures(guardrail, same, worse):
    result = decided(guardrail, same, same)
    assert result.decision is Decision.PROMOTED
    result = decided(guardrail, same, worse)
    assert result.decision is Decision.ROLLED_BACK
    assert result.reason == f"GuardrailBreached: {guardrail['name']}"


def test_a_mean_and_its_spread_are_those_that_are_given():
    own = {"score": {"stable": {"mean": 5, "sd": 2}, "candidate": {"mean": 7, "sd": 3}}}
    score = {"name": "score", "mean": {"sum": {"metric": "sum"}, "count": {"metric": "n"}}}
    traffic, exports = users(a_manifest(score), a_world(guardrails=own))
    (value,) = exports.values
    for version, mean, sd in ((STABLE, 5, 2), (CANDIDATE, 7, 3)):
        sent, summed = grown(traffic, Site.EXPORTER, version, REQUESTS, value.column)
        assert_about(summed.sum() / sent.sum(), mean, sd / math.sqrt(sent.sum()))
        spread = (summed - mean * sent).std() / math.sqrt(sent.mean())
        assert spread == pytest.approx(sd, rel=0.1)


def test_events_over_time_need_no_requests():
    own = {"kills": {"stable": 0.5, "candidate": 1.5}}
    world = a_world(guardrails=own, requestsPerSecond=0, stable={"pods": 4})
    traffic, exports = users(a_manifest(KILLS), world)
    (rate,) = exports.rates
    stable, candidate = (total(traffic, each, rate.column)[0] for each in (STABLE, CANDIDATE))
    assert_about(stable, 4 * 0.5 * HOUR, math.sqrt(2 * HOUR))
    assert_about(candidate, 2 * 1.5 * HOUR, math.sqrt(3 * HOUR))


@pytest.mark.parametrize("preset", ["mlserver/errors", "envoy/errors"])
def test_an_error_guardrail_without_errors_in_the_world_can_be_given_figures(preset):
    world = a_world(stable={"errorRate": None}, guardrails={"e": {"stable": 0.1, "candidate": 0.1}})
    _, exports = checked(a_manifest({"name": "e", "preset": preset}), world)
    assert exports.by_guardrail["e"].shares == (0.1, 0.1)


def test_buckets_are_those_that_are_given_and_the_limits():
    world = a_world(guardrails={"latency": {"buckets": [0.01, 0.1, 1.0]}})
    latency = {
        "name": "latency",
        "distribution": {"histogram": {"metric": "answer_seconds"}, "limits": ["0.25"]},
    }
    _, exports = checked(a_manifest(latency), world)
    assert exports.quantities[0].bounds == (0.01, 0.1, 0.25, 1.0)


@pytest.mark.parametrize(("value", "decision"), [(0.5, "promoted"), (0.95, "rolledBack")])
def test_a_limit_has_the_value_that_is_given(value, decision):
    world = a_world(guardrails={"load": {"value": value}})
    assert simulate(a_manifest(ENVOY_ERRORS, LOAD), world, 1).decision == decision


# --- what is refused ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"scrapesSeconds": 1}, "scrapesSeconds is no field of a world: did you mean scrapeSeconds?"),
        ({"stable": {"errorRates": 1}}, "stable.errorRates is no field of a world: did you mean errorRate?"),
        ({"stable": {"speed": 1}}, "stable.speed is no field of a world: there are errorRate, latency,"),
        ({"candidate": {"error_rate": 0.1}}, "candidate.error_rate is no field of a world: did you mean errorRate?"),
        ({"guardrails": {"e": {"stabel": 1}}}, "guardrails.e.stabel is no field of a world: did you mean stable?"),
        ({"guardrails": {"e": {"stable": {"medain": 1}}}}, "did you mean median?"),
        ({"gaps": [{"from": 1}]}, "gaps.0.fromSeconds is missing: give it a value"),
        ({"gaps": [{"fromSeconds": 2, "toSeconds": 1}]}, "gaps.0: toSeconds must exceed fromSeconds"),
        ({"requestsPerSecond": -1}, "requestsPerSecond: must be greater than or equal to 0, not -1"),
        ({"requestsPerSecond": "many"}, "requestsPerSecond: must be a valid number, not 'many'"),
        ({"requestsPerSecond": True}, "requestsPerSecond: must be a valid number, not True"),
        ({"requestsPerSecond": {}}, "requestsPerSecond: give a number, dailyWave or bursts, and one of them only"),
        ({"requestsPerSecond": {"dailyWave": {"mean": 1}}}, "requestsPerSecond.dailyWave.amplitude is missing"),
        ({"stable": {"errorRate": 1.5}}, "stable.errorRate: must be less than or equal to 1, not 1.5"),
        ({"stable": {"pods": 0}}, "stable.pods: must be greater than or equal to 1, not 0"),
        ({"stable": {"pods": 1.5}}, "stable.pods: must be a valid integer, not 1.5"),
        ({"stable": {"latency": {"medianSeconds": 2, "p99Seconds": 1}}}, "stable.latency: p99Seconds must exceed medianSeconds"),
        ({"operatorCrashes": 1}, "operatorCrashes: must be less than or equal to 0.9, not 1"),
        ({"scrapeSeconds": float("nan")}, "scrapeSeconds: must be"),
    ],
)  # fmt: skip
def test_a_world_that_is_not_understood_is_refused_by_field_and_remedy(changes, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        a_world(**changes)


@pytest.mark.parametrize("given", [None, [], "fast"])
def test_what_is_no_mapping_is_no_world(given):
    with pytest.raises(ValueError, match="a world is a mapping"):
        scenario_of(given)


def nothing_of(*fields):
    return {"stable": dict.fromkeys(fields), "candidate": dict.fromkeys(fields)}


SECONDS = {"name": "speed", "distribution": {"histogram": {"metric": "answer_seconds"}}}


@pytest.mark.parametrize(
    ("guardrail", "changes", "said"),
    [
        (ENVOY_ERRORS, nothing_of("errorRate"), "guardrail errors: the world has no errorRate of the stable: give stable.errorRate, or guardrails.errors.stable and .candidate"),
        (LATENCY, nothing_of("latency"), "guardrail latency: the world has no latency of the stable: give stable.latency"),
        (SECONDS, nothing_of("latency"), "guardrail speed: the world has no latency of the stable"),
        (ACCURACY, {"candidate": {"accuracy": None}}, "guardrail accuracy: the world has no accuracy of the candidate: give candidate.accuracy"),
        (KILLS, {}, "guardrail kills: the world has no figures for it: give guardrails.kills.stable a number"),
        (SCORE, {}, "guardrail score: the world has no figures for it: give guardrails.score.stable mean and sd"),
        (TOKENS, {}, "guardrail tokens: the world cannot tell what tokens measures: give median and p99 in guardrails.tokens.stable and .candidate"),
        (LOAD, {}, "guardrail load: PromQL cannot be simulated: give guardrails.load.value, a constant"),
        (TOKENS, {"guardrails": {"tokens": {"stable": {"median": 1, "p99": 2}}}}, "give guardrails.tokens.candidate median and p99"),
        (TOKENS, {"guardrails": {"tokens": {"stable": {"median": 2, "p99": 2}, "candidate": {"median": 1, "p99": 2}}}}, "guardrail tokens: in guardrails.tokens, p99 must exceed median"),
        (REFUSALS, {"guardrails": {"refusals": {"stable": 1.2, "candidate": 0.1}}}, "guardrail refusals: in guardrails.refusals, a share of the requests cannot exceed 1"),
        (SCORE, {"guardrails": {"score": {"stable": {"mean": 2, "sd": 1}, "candidate": {"mean": 2, "sd": 1}}}}, "guardrail score: in guardrails.score, a mean exceeds the manifest's max of 1"),
        (ENVOY_ERRORS, {"guardrails": {"error": {"value": 1}}}, "guardrails.error: the manifest has no such guardrail, only errors"),
        (REFUSALS | {"slices": {"label": "country"}}, {}, "guardrail refusals: the world's requests have no country: leave slices out of the manifest to simulate"),
    ],
)  # fmt: skip
def test_a_guardrail_that_the_world_has_nothing_for_is_named(guardrail, changes, said):
    other = [] if guardrail is not LOAD else [ENVOY_ERRORS]
    with pytest.raises(ValueError, match=re.escape(said)):
        checked(a_manifest(guardrail, *other), a_world(**changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"paused": True}, "spec.paused is true: nothing would happen; set it to false"),
        ({"candidate": {"deployment": "ranker-v1"}}, "spec.candidate is the stable version: name another Deployment to try"),
    ],
)  # fmt: skip
def test_a_manifest_of_which_nothing_would_come_is_refused(changes, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        checked(a_manifest(**changes), a_world())


def test_what_nobody_asks_for_need_not_be_in_the_world():
    _, exports = checked(a_manifest(ENVOY_ERRORS), a_world(**nothing_of("accuracy", "latency")))
    assert list(exports.by_guardrail) == ["errors"]
