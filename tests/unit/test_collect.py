"""What a guardrail can be made of, and when it is not to be trusted: from windows to a judgement."""

from __future__ import annotations

import math

import numpy as np
import pytest

from builders import NOW, a_rollout, a_spec, an_observation, the_measures
from modelrollout.api.v1alpha1 import Counted, Verdict
from modelrollout.core import analysis, collect, facts
from modelrollout.core.evidence import Counts, Histogram, Past, Reading, Window
from modelrollout.stats.combine import log_mixture

WRONG = {"events": {"metric": "wrong_total"}, "total": {"metric": "judged_total"}}
ERRORS = {"name": "errors", "proportion": WRONG}


def given(*guardrails, **settings):
    rollout = a_rollout(analysis=a_spec()["analysis"] | {"guardrails": list(guardrails)} | settings)
    return rollout.spec.analysis, the_measures(rollout, an_observation())


def counted(n, *k):
    return Counts(n=n, k=k)


def window(index, stable, candidate, **more):
    start = NOW + 5 * index
    return Window(start=start, end=start + 5, stable=stable, candidate=candidate, **more)


def reading(*windows):
    return Reading(windows=windows, watermark=windows[-1].end)


def judged(settings, measures, windows, past=None, proves_from=-math.inf):
    checkpoints = {}
    for measure in measures:
        fresh = collect.fresh(measure, NOW)
        if past is not None:
            fresh = collect.prepared(measure, fresh, past, NOW)
        checkpoints[measure.name] = collect.collect(
            measure, fresh, reading(*windows), proves_from=proves_from
        )
    return analysis.judge(settings, measures, checkpoints, {}, {}, NOW), checkpoints


# --- means --------------------------------------------------------------------------------------

SCORE = {"sum": {"metric": "score_sum"}, "count": {"metric": "score_count"}}


def scores(generator, windows, stable, candidate):
    """Windows of 45 and 5 values that are about `stable` and `candidate`."""
    return [
        window(
            index,
            counted(45.0, float(generator.gamma(45 * 4, stable / 4))),
            counted(5.0, float(generator.gamma(5 * 4, candidate / 4))),
        )
        for index in range(windows)
    ]


@pytest.mark.parametrize(
    ("direction", "candidate", "verdict"),
    [
        ("HigherIsWorse", 10.0, Verdict.PASS),
        ("HigherIsWorse", 20.0, Verdict.FAIL),
        ("HigherIsWorse", 5.0, Verdict.PASS),
        ("LowerIsWorse", 10.0, Verdict.PASS),
        ("LowerIsWorse", 5.0, Verdict.FAIL),
        ("LowerIsWorse", 20.0, Verdict.PASS),
    ],
)
def test_means_are_compared_in_both_directions(direction, candidate, verdict):
    mean = {"name": "score", "mean": SCORE, "direction": direction}
    windows = scores(np.random.default_rng(4), 400, 10.0, candidate)
    found, _ = judged(*given(mean), windows)
    assert found.verdict is verdict, found.says()
    assert "on average of" in found.guardrails[0].message


def test_a_mean_says_nothing_before_it_can_be_right():
    windows = scores(np.random.default_rng(4), 29, 10.0, 40.0)
    found, _ = judged(*given({"name": "score", "mean": SCORE}), windows)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "30 windows" in found.guardrails[0].message


def test_values_with_a_largest_one_are_proved_from_the_first_window_on():
    bounded = {"name": "score", "mean": SCORE | {"max": "100"}}
    windows = [window(0, counted(900.0, 9_000.0), counted(900.0, 45_000.0))]
    found, _ = judged(*given(bounded), windows)
    assert found.verdict is Verdict.FAIL


def test_the_absolute_part_of_a_bounded_mean_is_in_its_own_unit():
    equal = [window(i, counted(900.0, 45_000.0), counted(900.0, 45_000.0)) for i in range(40)]
    for margin, verdict in (("20", Verdict.PASS), ("0.01", Verdict.INCONCLUSIVE)):
        difference = {"tolerance": {"ratio": "1"}, "margin": {"absolute": margin}}
        found, _ = judged(
            *given({"name": "score", "mean": SCORE | {"max": "100"}} | difference), equal
        )
        assert found.verdict is verdict


# --- quantiles ----------------------------------------------------------------------------------

P90 = {
    "name": "p90",
    "distribution": {"histogram": {"metric": "seconds"}, "quantile": "0.9"},
    "tolerance": {"ratio": "1.5"},
    "margin": {"ratio": "2"},
}
BOUNDS = (0.05, 0.1, 0.2, 0.4, math.inf)


def latencies(generator, windows, factor):
    """Exponential with a p90 of about 0.1 s, the candidate's times a factor; at 3 thresholds."""
    scale = 0.1 / math.log(10)
    for index in range(windows):
        both = [generator.exponential(scale, 450), generator.exponential(scale * factor, 50)]
        yield window(
            index,
            *(counted(len(v), *(float((v > x).sum()) for x in (0.1, 0.2, 0.2))) for v in both),
        )


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, Verdict.PASS), (4.0, Verdict.FAIL)])
def test_a_quantile_is_compared_by_its_value(factor, verdict):
    settings, (measure,) = given(P90)
    stable = Histogram(bounds=BOUNDS, cumulative=(684.0, 900.0, 990.0, 999.9, 1000.0))
    known = collect.choose(measure, collect.fresh(measure, NOW), stable, NOW)
    # 1.5 x and 2 x 0.1 s, as finely as the buckets allow.
    assert known.thresholds == (0.1, 0.2, 0.2)
    windows = list(latencies(np.random.default_rng(7), 60, factor))
    known = collect.collect(measure, known, reading(*windows))
    found = analysis.judge(settings, [measure], {"p90": known}, {}, {}, NOW)
    assert found.verdict is verdict, found.says()
    assert "above 0.2" in found.says()
    assert "above 0.1" in found.says()
    assert "which the buckets make 2 x and 2 x" in found.says()


def test_buckets_that_are_too_coarse_for_a_quantile_are_refused_with_a_remedy():
    _, (measure,) = given(P90)
    coarse = Histogram(bounds=(0.05, 0.1, math.inf), cumulative=(684.0, 900.0, 1000.0))
    with pytest.raises(ValueError, match="larger buckets"):
        collect.choose(measure, collect.fresh(measure, NOW), coarse, NOW)


# --- common events --------------------------------------------------------------------------------


def test_of_a_common_event_the_others_are_counted_and_less_traffic_decides():
    """92 % and 97 % right: as right answers that takes long, as wrong ones it does not."""
    right = {
        "name": "right",
        "proportion": {"events": {"metric": "right_total"}, "total": {"metric": "judged_total"}},
        "direction": "LowerIsWorse",
        "tolerance": {"ratio": "1.01"},
        "margin": {"ratio": "1.05"},
    }
    past = Past(windows=tuple(counted(500.0, 485.0) for _ in range(20)))
    windows = [window(i, counted(450.0, 436.0), counted(50.0, 44.0)) for i in range(8)]
    found, checkpoints = judged(*given(right), windows, past)
    assert checkpoints["right"].counted is Counted.OTHERS
    assert found.verdict is Verdict.FAIL
    plain, checkpoints = judged(*given(right), windows)
    assert checkpoints["right"].counted is Counted.EVENTS
    assert plain.verdict is Verdict.INCONCLUSIVE


# --- bursts ---------------------------------------------------------------------------------------


def test_what_comes_in_bursts_needs_more_of_it():
    calm = Past(windows=tuple(counted(500.0, k) for k in (5.0, 4.0, 6.0) * 40))
    bursts = Past(windows=tuple(counted(500.0, k) for k in (0.0, 15.0, 0.0) * 40))
    windows = [window(i, counted(450.0, 4.0), counted(50.0, 3.0)) for i in range(8)]
    settings, measures = given(ERRORS)
    sooner, _ = judged(settings, measures, windows, calm)
    later, checkpoints = judged(settings, measures, windows, bursts)
    assert checkpoints["errors"].dispersion[0] > 5
    assert float(later.guardrails[0].harm) < float(sooner.guardrails[0].harm) / 4
    assert "tempered" in later.guardrails[0].message
    assert "tempered" not in sooner.guardrails[0].message


def test_bursts_of_one_pod_are_found_in_the_halves_where_the_whole_hides_them():
    """Long bursts, now in one half of stable and then in the other: their sum hardly changes."""
    times = range(240)
    halves = tuple(
        (counted(250.0, 6.0 if (t // 8) % 2 else 0.0), counted(250.0, 0.0 if (t // 8) % 2 else 6.0))
        for t in times
    )
    whole = tuple(counted(500.0, 6.0) for _ in times)
    _, (measure,) = given(ERRORS)
    fresh = collect.fresh(measure, NOW)
    hidden = collect.prepared(measure, fresh, Past(windows=whole), NOW)
    found = collect.prepared(measure, fresh, Past(windows=whole, halves=halves), NOW)
    assert hidden.dispersion == (1.0,)
    assert found.dispersion[0] > 5


# --- what is usual ----------------------------------------------------------------------------------

SECONDS = {"metric": "seconds"}
TAILS = {"name": "latency", "distribution": {"histogram": SECONDS}}
COMMON_ERRORS = tuple(counted(500.0, k) for k in (150.0, 140.0, 160.0) * 12)


def prepared(guardrail, past, **settings):
    _, (measure,) = given(guardrail, **settings)
    return measure, collect.prepared(measure, collect.fresh(measure, NOW), past, NOW)


def test_what_is_usual_of_stable_is_fixed_before_the_first_bet_and_kept():
    measure, known = prepared(ERRORS, Past(windows=COMMON_ERRORS))
    assert known.usual == (0.3,)
    known = collect.collect(
        measure, known, reading(window(0, counted(450.0, 9.0), counted(50.0, 1.0)))
    )
    assert facts.evidence_at_step(known, NOW + 5).usual == (0.3,)


def test_an_incident_of_stable_is_not_what_is_usual():
    incident = tuple(counted(500.0, 400.0) for _ in range(12))
    _, known = prepared(ERRORS, Past(windows=(*COMMON_ERRORS[:12], *incident, *COMMON_ERRORS[:12])))
    assert known.usual == pytest.approx((0.3,), abs=0.01)


def test_without_a_past_of_stable_bets_are_not_centred():
    _, known = prepared(ERRORS, Past())
    assert known.usual == (0.0,)
    _, known = prepared(ERRORS, Past(windows=COMMON_ERRORS[:3]))
    assert known.usual == (0.3,)
    _, known = prepared(ERRORS, Past(windows=(counted(150.0, 45.0),)))
    assert known.usual == (0.0,)


def test_only_proportions_have_a_usual_share():
    restarts = {"name": "restarts", "rate": {"events": {"metric": "restarts_total"}}}
    for guardrail in (restarts, {"name": "score", "mean": SCORE | {"max": "1000"}}):
        _, known = prepared(guardrail, Past(windows=COMMON_ERRORS))
        assert known.usual == (0.0,)


def test_each_threshold_has_a_usual_share_and_a_quantile_that_of_its_own():
    histogram = Histogram(bounds=BOUNDS, cumulative=(684.0, 900.0, 990.0, 999.9, 1000.0))
    windows = tuple(counted(1000.0, 316.0, 100.0, 10.0, 0.1) for _ in range(20))
    _, known = prepared(TAILS, Past(histogram=histogram, windows=windows))
    assert known.thresholds == (0.05, 0.1, 0.2, 0.4)
    assert known.usual == (0.316, 0.1, 0.01, 0.0001)
    windows = tuple(counted(1000.0, 100.0, 10.0, 10.0) for _ in range(20))
    _, known = prepared(P90, Past(histogram=histogram, windows=windows))
    assert known.usual == (0.1,)


def test_where_the_others_are_counted_their_share_is_the_usual_one():
    past = Past(windows=tuple(counted(500.0, 485.0) for _ in range(20)))
    _, known = prepared(ERRORS | {"direction": "LowerIsWorse"}, past)
    assert known.counted is Counted.OTHERS
    assert known.usual == (0.03,)


def safe_after(past):
    """Windows of 100 requests until two versions with 0.4 % errors are known to be alike."""
    measure, known = prepared(ERRORS, past)
    for index in range(400):
        wrong = float(index % 5 == 0)
        known = collect.collect(
            measure, known, reading(window(index, counted(50.0, wrong), counted(50.0, wrong)))
        )
        if log_mixture(known.safety[0]) > math.log(20):
            return index
    return math.inf


def test_a_past_that_is_no_longer_true_costs_a_few_windows():
    """A start, or a busy hour: a fifth of the answers was wrong then."""
    without = safe_after(Past())
    assert safe_after(Past(windows=tuple(counted(500.0, 2.0) for _ in range(20)))) <= without
    wrong = safe_after(Past(windows=tuple(counted(500.0, 100.0) for _ in range(20))))
    assert without < wrong < 1.5 * without


def test_bets_that_give_up_a_past_are_fair():
    """Harm, of a candidate exactly at the tolerance: the mean e-value is at most 1."""
    generator = np.random.default_rng(20261122)
    measure, begun = prepared(ERRORS, Past(windows=tuple(counted(500.0, 50.0) for _ in range(20))))
    tolerated = measure.tolerance.ratio * 0.02 + measure.tolerance.absolute
    found = []
    for _ in range(400):
        known = begun
        for index in range(12):
            ks = (float(generator.binomial(50, each)) for each in (0.02, tolerated))
            stable, candidate = (counted(50.0, each) for each in ks)
            known = collect.collect(measure, known, reading(window(index, stable, candidate)))
        found.append(math.exp(log_mixture(known.harm[0])))
    assert np.mean(found) < 1 + 3 * np.std(found) / math.sqrt(len(found))


@pytest.mark.parametrize("direction", ["HigherIsWorse", "LowerIsWorse"])
def test_a_common_event_is_proved_and_found_out_sooner_where_stable_has_a_past(direction):
    """30 % of the requests; the verdict is the same."""
    worse = {"HigherIsWorse": 24.0, "LowerIsWorse": 8.0}[direction]
    guardrail = ERRORS | {"direction": direction, "tolerance": {"ratio": "1.1"}}
    for events, field in ((worse, "harm"), (15.0, "safety")):
        windows = [window(i, counted(450.0, 135.0), counted(50.0, events)) for i in range(6)]
        plain, _ = judged(*given(guardrail), windows, Past())
        centred, _ = judged(*given(guardrail), windows, Past(windows=COMMON_ERRORS))
        found, before = (float(getattr(e.guardrails[0], field)) for e in (centred, plain))
        assert found > 1.2 * before > 0, (field, found, before)


@pytest.mark.parametrize("past", [Past(), Past(windows=COMMON_ERRORS)])
@pytest.mark.parametrize("slices", [False, True])
def test_it_does_not_matter_in_how_many_windows_or_passes_the_same_was_read(past, slices):
    """At a constant ratio of the exposures, as section 2 says, centred or not."""
    pair = counted(900.0, 280.0), counted(100.0, 44.0)
    parts = [(1.0,), (0.5, 0.5), (0.1, 0.2, 0.3, 0.4)]
    guardrail = BY_COUNTRY if slices else ERRORS
    found = []
    for part in parts:
        measure, known = prepared(guardrail, past)
        windows = [
            window(
                i,
                *(counted(each.n * share, each.k[0] * share) for each in pair),
                halves=(
                    counted(450.0 * share, 130.0 * share),
                    counted(450.0 * share, 150.0 * share),
                ),
                slices={"DE": tuple(counted(e.n * share, e.k[0] * share) for e in pair)},
            )
            for i, share in enumerate(part)
        ]
        at_once = collect.collect(measure, known, reading(*windows))
        for each in windows:
            known = collect.collect(measure, known, reading(each))
        found += [at_once, known]
    for field in ("harm", "safety", "placebo"):
        first, *others = (np.array(getattr(each, field)) for each in found)
        assert all(np.abs(first - each).max() < 1e-5 for each in others)
    if slices:
        first, *others = (np.array(each.slices[0].harm) for each in found)
        assert all(np.abs(first - each).max() < 1e-5 for each in others)


def test_a_slice_is_not_centred_on_what_is_usual_of_all():
    windows = [sliced(0, DE=GOOD, FR=(counted(600.0, 300.0), counted(60.0, 30.0)))]
    slices = []
    for past in (Past(), Past(windows=COMMON_ERRORS)):
        measure, known = prepared(BY_COUNTRY, past)
        known = known.model_copy(update={"dispersion": (1.0,)})
        slices.append(collect.collect(measure, known, reading(*windows)).slices)
    assert slices[0] == slices[1]


# --- slices ---------------------------------------------------------------------------------------


def sliced(index, **slices):
    """Slices as (stable, candidate); all of them together are the requests."""
    both = list(slices.values())
    total = [
        Counts(n=sum(each[v].n for each in both), k=(sum(each[v].k[0] for each in both),))
        for v in (0, 1)
    ]
    return window(index, *total, slices=slices)


BY_COUNTRY = ERRORS | {"slices": {"label": "country", "top": 3}}
GOOD = (counted(300.0, 3.0), counted(30.0, 0.0))


def test_a_version_that_fails_one_slice_fails_and_the_slice_is_named():
    windows = [
        sliced(i, DE=GOOD, FR=GOOD, IT=(counted(30.0, 0.0), counted(4.0, 2.0))) for i in range(12)
    ]
    found, _ = judged(*given(BY_COUNTRY), windows)
    assert found.verdict is Verdict.FAIL
    assert "country IT" in found.says()
    (guardrail,) = found.guardrails
    assert next(each.name for each in guardrail.slices) == "IT"
    assert float(guardrail.slices[0].harm) >= 1 > float(guardrail.slices[1].harm)


def test_the_busiest_slices_are_watched_whatever_becomes_of_them():
    first = sliced(0, DE=GOOD, FR=GOOD, IT=GOOD, SM=(counted(2.0, 2.0), counted(1.0, 1.0)))
    later = sliced(1, DE=GOOD, SM=(counted(900.0, 9.0), counted(90.0, 0.0)))
    _, checkpoints = judged(*given(BY_COUNTRY), [first, later])
    # Chosen by the requests of the whole reading, of which SM has most, then DE.
    assert {each.name for each in checkpoints["errors"].slices} == {"SM", "DE", "FR"}


def test_a_slice_that_comes_later_finds_its_place_as_long_as_there_is_one():
    _settings, (measure,) = given(BY_COUNTRY)
    known = collect.collect(measure, collect.fresh(measure, NOW), reading(sliced(0, DE=GOOD)))
    known = collect.collect(measure, known, reading(sliced(1, FR=GOOD, DE=GOOD)))
    assert [each.name for each in known.slices] == ["DE", "FR"]
    assert known.slices[0].candidate[0] == 60


def test_slices_cost_the_whole_at_most_half_of_its_bet():
    windows = [sliced(i, DE=(counted(450.0, 4.0), counted(50.0, 9.0))) for i in range(3)]
    plain, _ = judged(*given(ERRORS), windows)
    with_slices, _ = judged(*given(BY_COUNTRY), windows)
    lost = (float(plain.guardrails[0].harm) - float(with_slices.guardrails[0].harm)) * math.log(100)
    assert 0 < lost < math.log(2) + 0.1


# --- placebo --------------------------------------------------------------------------------------


def test_a_guardrail_that_tells_stable_from_itself_is_not_trusted():
    ill = [
        window(
            i,
            counted(900.0, 45.0),
            counted(100.0, 20.0),
            halves=(counted(450.0, 0.0), counted(450.0, 45.0)),
        )
        for i in range(20)
    ]
    found, _ = judged(*given(ERRORS), ill)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.untrusted == ("errors",)
    assert "two halves of stable differ" in found.says()
    well = [
        window(i, each.stable, each.candidate, halves=(counted(450.0, 22.0), counted(450.0, 23.0)))
        for i, each in enumerate(ill)
    ]
    found, _ = judged(*given(ERRORS), well)
    assert found.verdict is Verdict.FAIL


@pytest.mark.parametrize(("errors", "verdict"), [(20.0, "Inconclusive"), (90.0, "Fail")])
def test_an_ill_stable_does_not_hide_a_candidate_that_fails_outright(errors, verdict):
    ill = [
        window(
            i,
            counted(900.0, 45.0),
            counted(100.0, errors),
            halves=(counted(450.0, 0.0), counted(450.0, 45.0)),
        )
        for i in range(20)
    ]
    found, _ = judged(*given(ERRORS), ill)
    assert found.verdict == verdict
    assert found.untrusted == ("errors",)
    assert "two halves of stable differ" in found.says()


def test_an_untrusted_guardrail_does_not_silence_the_others():
    settings, measures = given(ERRORS, ERRORS | {"name": "other"})
    halves = (counted(450.0, 0.0), counted(450.0, 45.0))
    ill = [window(i, counted(900.0, 45.0), counted(100.0, 5.0), halves=halves) for i in range(20)]
    bad = [window(i, counted(900.0, 9.0), counted(100.0, 20.0)) for i in range(20)]
    checkpoints = {
        measure.name: collect.collect(measure, collect.fresh(measure, NOW), reading(*windows))
        for measure, windows in zip(measures, (ill, bad), strict=True)
    }
    found = analysis.judge(settings, measures, checkpoints, {}, {}, NOW)
    assert found.verdict is Verdict.FAIL
    assert found.culprits == ("other",)
    assert found.untrusted == ("errors",)


# --- weights and delays -----------------------------------------------------------------------------


def test_a_larger_share_of_the_error_budget_is_found_out_sooner():
    light = [window(i, counted(450.0, 4.0), counted(50.0, 6.0)) for i in range(2)]
    quiet = ERRORS | {"name": "quiet", "weight": "0.1"}
    heavy, _ = judged(*given(ERRORS | {"weight": "10"}, quiet), light)
    equal, _ = judged(*given(ERRORS, quiet | {"weight": "1"}), light)
    assert float(heavy.guardrails[0].harm) > float(equal.guardrails[0].harm)
    assert float(heavy.guardrails[1].harm) < float(equal.guardrails[1].harm)


def test_what_is_known_late_proves_nothing_about_the_step_it_did_not_see():
    windows = [window(i, counted(450.0, 4.0), counted(450.0, 4.0)) for i in range(20)]
    settings, measures = given(ERRORS | {"delaySeconds": 60})
    late, _ = judged(settings, measures, windows, proves_from=NOW + 60)
    never, _ = judged(settings, measures, windows, proves_from=NOW + 600)
    assert late.verdict is Verdict.PASS
    assert never.verdict is Verdict.INCONCLUSIVE
    bad = [window(i, counted(450.0, 4.0), counted(450.0, 90.0)) for i in range(4)]
    harmed, _ = judged(settings, measures, bad, proves_from=NOW + 600)
    assert harmed.verdict is Verdict.FAIL


def test_a_new_step_keeps_what_speaks_against_the_candidate_and_forgets_the_rest():
    _settings, (measure,) = given(BY_COUNTRY)
    halves = (counted(150.0, 1.0), counted(150.0, 2.0))
    first = Window(**{**vars_of(sliced(0, DE=GOOD)), "halves": halves})
    known = collect.collect(measure, collect.fresh(measure, NOW), reading(first))
    after = facts.evidence_at_step(known, NOW + 5)
    assert after.harm == known.harm
    assert after.placebo == known.placebo
    assert after.slices[0].harm == known.slices[0].harm
    assert set(after.safety[0]) == set(after.candidate) == set(after.slices[0].candidate) == {0.0}


def vars_of(window):
    return {each: getattr(window, each) for each in window.__slots__}
