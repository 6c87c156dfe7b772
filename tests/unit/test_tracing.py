"""What passes leave in a trace: the counts that decided, every step, how it ended."""

from __future__ import annotations

import pytest

from builders import a_workload
from modelrollout.api.v1alpha1 import Phase, Verdict
from traces import traces_of
from walk import BAD, Walk


@pytest.fixture
def walk() -> Walk:
    return Walk()


def test_a_rolled_back_candidate_has_the_counts_that_decided(walk):
    walk.until(Phase.ROLLING_BACK, traffic=BAD)

    (trace,) = traces_of(walk)

    assert trace.outcome == "GuardrailBreached"
    assert trace.ended == walk.now
    (level,) = trace.points[-1].guardrails
    told = walk.status.guardrails[0]
    assert told.candidate is not None
    assert level.candidate[0] == told.candidate.requests
    assert level.harm is not None
    assert level.harm >= 1
    assert level.verdict is Verdict.FAIL
    assert trace.decisions[-1].what == "RolledBack"
    assert trace.decisions[-1].is_warning


def test_a_promoted_one_has_every_step_and_the_counts_at_the_end_of_each(walk):
    walk.until(Phase.PROMOTED)

    (trace,) = traces_of(walk)

    assert trace.outcome == "Promoted"
    weights = [each.weight for each in trace.points if each.guardrails]
    assert sorted(set(weights)) == [10, 50, 100]
    for step in (0, 1):
        requests = [
            e.guardrails[0].candidate[0] for e in trace.points if e.step == step and e.guardrails
        ]
        assert requests == sorted(requests)
        assert requests[-1] >= 10
    assert trace.decisions[-1].weight == 100
    (guardrail,) = trace.guardrails
    assert guardrail.metric == "model_requests_total"
    assert guardrail.tolerance is not None
    assert guardrail.tolerance.ratio == 1.5


def test_another_candidate_ends_one_trace_and_begins_the_next(walk):
    for _ in range(8):
        walk.step()
    walk.spec = {"candidate": {"deployment": "ranker-v3"}}
    for _ in range(3):
        walk.step(candidate=a_workload("ranker-v3", "c2"))

    first, second = traces_of(walk)

    assert (first.candidate.deployment, first.outcome) == ("ranker-v2", "Replaced")
    assert (second.candidate.deployment, second.ended) == ("ranker-v3", None)
    assert second.began == first.ended
    assert [each.what for each in second.decisions][:1] == ["Restarted"]


def test_an_abort_says_who_asked(walk):
    for _ in range(6):
        walk.step()
    walk.step(command="abort")

    (trace,) = traces_of(walk)

    assert trace.outcome == "Aborted"
    assert [(each.what, each.by) for each in trace.decisions][-1] == ("Aborted", "ada")


def test_while_the_route_is_not_there_yet_nothing_counts(walk):
    walk.until(Phase.PROMOTED)

    (trace,) = traces_of(walk)

    for point in trace.points:
        if point.step is None:
            assert point.guardrails == ()


def test_nothing_on_trial_leaves_no_trace(walk):
    walk.until(Phase.PROMOTED)
    before = len(traces_of(walk)[0].points)
    for _ in range(5):
        walk.step()

    (trace,) = traces_of(walk)

    assert len(trace.points) == before
