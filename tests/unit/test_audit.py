"""The audit trail: for each decision one record, with what it rested on and who asked for it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from builders import ERRORS, NOW, a_rollout, a_workload, an_observation
from modelrollout.api.v1alpha1 import Phase
from modelrollout.core.audit import records
from modelrollout.core.observation import Route
from modelrollout.core.plan import Note, Plan, Severity
from modelrollout.core.times import as_time
from walk import BAD, Walk


def decisions(walk):
    return [each.decision for each in walk.told]


def the(walk, decision):
    (found,) = [each.body for each in walk.told if each.decision == decision]
    return found


def at_weight(weight, **spec):
    walk = Walk(spec=spec)
    for _ in range(200):
        status = walk.step().status
        if status.weight.wanted == weight and status.step_start_time:
            return walk
    raise AssertionError(f"never at {weight}")


@pytest.fixture
def promoted():
    walk = Walk()
    walk.until(Phase.PROMOTED)
    return walk


@pytest.fixture
def rolled_back():
    walk = at_weight(50)
    walk.until(Phase.ROLLED_BACK, traffic=BAD)
    return walk


def test_a_rollout_without_incident_is_told_step_by_step(promoted):
    steps = [each.body["step"] for each in promoted.told if each.decision == "StepStarted"]

    assert decisions(promoted) == ["Started", *["StepStarted"] * 4, "Promoted"]
    assert steps == [{"number": number, "of": 4} for number in (1, 2, 3, 4)]


def test_each_pass_tells_as_many_records_as_events(rolled_back):
    notes = [note for plan in rolled_back.plans for note in plan.notes]

    assert [(each.reason, each.message) for each in notes] == [
        (each.body["decision"], each.body["message"]) for each in rolled_back.told
    ]


def test_a_rollback_has_the_version_the_step_and_the_weight_that_it_ended(rolled_back):
    record = the(rolled_back, "RolledBack")

    assert record["candidate"]["deployment"] == "ranker-v2"
    assert record["candidate"]["revision"] == "c1"
    assert record["stable"]["deployment"] == "ranker-v1"
    assert record["step"] == {"number": 2, "of": 4}
    assert record["weight"] == {"before": 50, "after": 0}


def test_a_rollback_has_the_evidence_that_it_rested_on(rolled_back):
    (guardrail,) = the(rolled_back, "RolledBack")["evidence"]["guardrails"]

    assert guardrail["verdict"] == "Fail"
    assert float(guardrail["harm"]) >= 1
    assert guardrail["candidate"]["requests"] > 0
    assert guardrail["message"] in the(rolled_back, "RolledBack")["message"]


def test_the_evidence_can_be_read_again(rolled_back):
    evidence = the(rolled_back, "RolledBack")["evidence"]
    (guardrail,) = evidence["guardrails"]
    query = guardrail["query"]
    (judged,) = rolled_back.plans[-2].status.guardrails

    assert evidence["stepStartTime"] < guardrail["watermark"] <= as_time(rolled_back.now)
    assert guardrail["harm"] == judged.harm
    assert query["events"] == {
        "metric": "model_requests_total",
        "matchers": [{"label": "code", "operator": "=", "value": "500"}],
    }
    assert query["total"] == {"metric": "model_requests_total", "matchers": []}
    assert [each["label"] for each in query["candidate"]] == ["namespace", "pod"]
    assert query["candidate"] != query["stable"]


def test_the_watermark_is_that_of_the_windows_that_were_judged():
    walk = at_weight(10)
    walk.step()
    (checkpoint,) = walk.status.checkpoint
    walk.step(traffic=BAD)
    (guardrail,) = the(walk, "RolledBack")["evidence"]["guardrails"]

    assert guardrail["watermark"] == as_time(checkpoint.watermark + 5)


def test_a_limit_is_told_with_its_expression():
    limit = {
        "name": "load",
        "limit": {"query": 'x{namespace="shop"}', "max": "1"},
        "required": False,
    }
    analysis = {"guardrails": [ERRORS, limit], "intervalSeconds": 5}
    walk = at_weight(50, analysis=analysis)
    walk.until(Phase.ROLLED_BACK, traffic=BAD)

    queries = [each["query"] for each in the(walk, "RolledBack")["evidence"]["guardrails"]]

    assert queries[1] == {"kind": "limit", "expression": 'x{namespace="shop"}'}


def test_a_command_is_told_with_its_user_and_what_it_ended():
    walk = at_weight(10)
    walk.step(command="abort")
    record = the(walk, "Aborted")

    assert (record["command"], record["user"]) == ("abort", "ada")
    assert record["candidate"]["deployment"] == "ranker-v2"
    assert record["weight"] == {"before": 10, "after": 0}


def test_a_command_that_is_ignored_is_told_too():
    walk = at_weight(10)
    walk.step(command="explode")

    assert (the(walk, "CommandIgnored")["command"]) == "explode"


def test_what_follows_from_a_command_is_not_told_as_the_users():
    walk = at_weight(10)
    walk.until(Phase.ROLLED_BACK, traffic=BAD)
    walk.step(command="retry")
    answer, begun = walk.told[-2:]

    assert [answer.decision, begun.decision] == ["Retried", "Started"]
    assert answer.body["user"] == "ada"
    assert "user" not in begun.body


def test_an_aborted_version_and_the_one_that_follows_it_are_not_taken_for_each_other():
    walk = at_weight(10)
    walk.step(command="abort", candidate=a_workload("ranker-v3", "x1"))
    aborted, begun = walk.told[-2:]

    assert aborted.body["candidate"]["deployment"] == "ranker-v2"
    assert begun.body["candidate"]["deployment"] == "ranker-v3"
    assert begun.body["evidence"] is None


def test_what_the_operator_decided_has_no_user(rolled_back):
    assert "user" not in the(rolled_back, "RolledBack")


def test_a_gap_in_the_trail_shows(promoted):
    """Each record names the history entry before it; the last one of another pass is told, too."""
    history = {(each.time, each.what) for each in promoted.status.history}
    told = {(each.time, each.decision) for each in promoted.told}
    named = {tuple(each.body["previous"].values()) for each in promoted.told[1:]}

    assert promoted.told[0].body["previous"] is None
    assert named <= history <= told


def test_ids_tell_all_records_apart(rolled_back):
    rolled_back.step(command="retry")
    ids = [each.id for each in rolled_back.told]

    assert len(set(ids)) == len(ids)


def test_the_same_spec_has_the_same_hash_and_another_one_another():
    note = Note(severity=Severity.NORMAL, reason="Started", message="")

    def hash_of(**spec):
        rollout = a_rollout(**spec)
        plan = Plan(
            status=rollout.status,
            traffic=None,
            finalizer=False,
            look_again_seconds=None,
            notes=(note,),
        )
        (record,) = records(rollout, an_observation(), plan)
        return record.body["specHash"]

    assert hash_of() == hash_of()
    assert hash_of() != hash_of(port=9090)
    assert hash_of() == hash_of(paused=False)


def test_drift_after_a_promotion_rests_on_no_evidence(promoted):
    walk = promoted
    walk.until(Phase.PROMOTED)
    walk.step(route=Route(in_sync=False, accepted=True))
    record = the(walk, "Drift")

    assert record["evidence"] is None
    assert record["stable"]["deployment"] == "ranker-v2"


def test_a_record_is_one_line_of_json(rolled_back):
    for each in rolled_back.told:
        assert "\n" not in each.line
        assert json.loads(each.line) == each.body


def test_the_trail_is_alone_on_stdout_and_bare():
    program = (
        "import kopf, logging; from modelrollout import telemetry;"
        "kopf.configure(log_format=kopf.LogFormat.JSON); telemetry.write_audit_trail();"
        "telemetry.AUDIT.info('%s', '{}'); logging.getLogger('modelrollout').warning('a log')"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert done.stdout == "{}\n"
    assert "a log" in done.stderr
    assert "audit" not in done.stderr


def test_times_are_those_of_the_pass(rolled_back):
    assert all(as_time(NOW) <= each.time <= as_time(rolled_back.now) for each in rolled_back.told)
