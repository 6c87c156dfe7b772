"""Whatever was counted, what people are told can be computed, and is in order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from builders import NOW, a_rollout, a_spec, an_observation, the_measures
from modelrollout.core import analysis, collect, estimates
from modelrollout.core.evidence import Counts, Past, Reading, Window

RATIO = {"tolerance": {"ratio": "1.25"}, "margin": {"ratio": "1.5"}}
DIFFERENCE = {"tolerance": {"absolute": "0.01"}, "margin": {"absolute": "0.02"}}
BOTH = {
    "tolerance": {"ratio": "1.1", "absolute": "0.01"},
    "margin": {"ratio": "2", "absolute": "0.02"},
}
TOTAL, EVENTS = {"metric": "all_total"}, {"metric": "some_total"}
KINDS = {
    "proportion": {"proportion": {"events": EVENTS, "total": TOTAL}},
    "rate": {"rate": {"events": EVENTS}},
    "bounded mean": {"mean": {"sum": EVENTS, "count": TOTAL, "max": "10"}},
    "mean": {"mean": {"sum": EVENTS, "count": TOTAL}},
}


@st.composite
def counts(draw):
    n = draw(st.floats(0, 1e7))
    return Counts(n=n, k=(draw(st.floats(0, 1)) * n,))


@given(
    kind=st.sampled_from(sorted(KINDS)),
    bounds=st.sampled_from((RATIO, DIFFERENCE, BOTH)),
    direction=st.sampled_from(("HigherIsWorse", "LowerIsWorse")),
    usual=st.floats(0, 1),
    rows=st.lists(st.tuples(counts(), counts()), min_size=1, max_size=40),
)
def test_estimates_are_there_for_any_counts_and_in_order(kind, bounds, direction, usual, rows):
    guardrail = {"name": "it", "direction": direction} | KINDS[kind] | bounds
    rollout = a_rollout(analysis=a_spec()["analysis"] | {"guardrails": [guardrail]})
    [measure] = the_measures(rollout, an_observation())
    past = Past(windows=(Counts(n=500.0, k=(500.0 * usual,)),) * 20)
    read = tuple(
        Window(start=NOW + 5 * i, end=NOW + 5 * i + 5, stable=stable, candidate=candidate)
        for i, (stable, candidate) in enumerate(rows)
    )
    fresh = collect.prepared(measure, collect.fresh(measure, NOW), past, NOW)
    reading = Reading(windows=read, watermark=NOW + 5 * len(read))
    checkpoints = {"it": collect.collect(measure, fresh, reading)}
    judgement = analysis.judge(rollout.spec.analysis, [measure], checkpoints, {}, {}, NOW)

    [told] = estimates.with_estimates(
        judgement, rollout.spec, [measure], checkpoints, known={}
    ).guardrails

    if told.interval and told.interval.lower and told.interval.upper:
        assert float(told.interval.lower) <= float(told.interval.upper)
    assert told.needed is None or 0 <= told.needed <= estimates.MOST_NEEDED
