"""Whatever stands in an object: a record is valid JSON, bounded, and gives nothing away."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from builders import ERRORS, a_rollout, a_spec, a_workload, an_observation, the_measures
from modelrollout.api import v1alpha1 as api
from modelrollout.core.audit import MAX_BYTES, records
from modelrollout.core.evidence import Reading
from modelrollout.core.observation import Command
from modelrollout.core.plan import Note, Plan, Severity

SECRET = "hunter2-hunter2"  # noqa: S105  # what must not be found
DECISIONS = ["Started", "StepStarted", "RolledBack", "Promoted", "Aborted", "CommandIgnored"]

characters = st.characters(exclude_categories=["Cs"]) | st.sampled_from('\0\n"\\\u2028')


def texts(length, alphabet=characters):
    """Short ones, and as long as the API allows."""
    return st.text(alphabet, max_size=min(length, 20)) | alphabet.map(lambda each: each * length)


def raw_texts(length):
    """What was not checked when it was read may hold halves of surrogate pairs."""
    return texts(length, characters | st.characters(categories=["Cs"]))


versions = st.builds(
    api.VersionStatus,
    deployment=st.sampled_from(["ranker-v2", "d" * 253]),
    service=st.sampled_from(["ranker-v2", "s" * 63]),
    revision=texts(512),
    model_version=st.none() | texts(512),
)
estimates = st.builds(api.Estimate, requests=st.integers(0, 10**15), value=st.none() | texts(32))
evidence = st.none() | texts(16)


@st.composite
def statuses(draw, names):
    """A status as the API server would keep it."""
    guardrail = api.GuardrailStatus(
        name="errors",
        verdict=draw(st.sampled_from(api.Verdict)),
        message=draw(texts(1024)),
        stable=draw(estimates),
        candidate=draw(estimates),
        harm=draw(evidence),
        safety=draw(evidence),
        placebo=draw(evidence),
    )
    return api.ModelRolloutStatus(
        stable=draw(st.none() | versions),
        candidate=draw(st.none() | versions),
        step=draw(st.none() | st.integers(0, 40)),
        steps=draw(st.none() | st.integers(0, 40)),
        step_start_time="2027-01-15T08:00:00.000Z",
        guardrails=tuple(guardrail.model_copy(update={"name": each}) for each in names),
        history=tuple(
            api.HistoryEntry(
                time="2027-01-15T08:00:00.000Z",
                what=draw(texts(512)),
                deployment="ranker-v2",
                revision="c1",
                message="",
            )
            for _ in range(draw(st.integers(0, 1)))
        ),
    )


@st.composite
def passes(draw):
    """A rollout, what was seen and what was planned: not consistent, but of the right types."""
    names = [f"errors-{each}" for each in range(draw(st.sampled_from([0, 1, 16])))]
    guardrails = [{**ERRORS, "name": each} for each in names or ["errors"]]
    sets = tuple(f"{'r' * 200}-{each}" for each in range(draw(st.sampled_from([1, 11]))))
    rollout = a_rollout(
        draw(statuses(names)), analysis={"guardrails": guardrails, "intervalSeconds": 5}
    )
    command = Command(text=draw(raw_texts(64)), by=draw(raw_texts(256)), verb=None)
    stable, candidate = (a_workload(each, replica_sets=sets) for each in ("a", "b"))
    seen = an_observation(stable=stable, candidate=candidate)
    measures = the_measures(rollout, seen)
    readings = {each.name: Reading(watermark=1_800_000_000.0) for each in measures}
    notes = draw(
        st.lists(
            st.builds(
                Note,
                severity=st.sampled_from(Severity),
                reason=st.sampled_from(DECISIONS),
                message=raw_texts(2000),
            ),
            max_size=3,
        )
    )
    plan = Plan(
        status=draw(statuses(names)),
        traffic=None,
        finalizer=False,
        look_again_seconds=None,
        command_done=draw(st.booleans()),
        notes=tuple(notes),
    )
    seen = replace(seen, measures=measures, readings=readings)
    return replace(rollout, command=command), seen, plan


@settings(max_examples=200)
@given(passes())
def test_a_record_is_bounded_and_is_one_line_of_valid_json(given_pass):
    told = records(*given_pass)

    assert len(told) == len(given_pass[2].notes)
    for each in told:
        assert len(each.line.encode()) <= MAX_BYTES
        assert "\n" not in each.line
        body = json.loads(each.line, parse_constant=lambda name: [][name])
        assert body["id"] == each.id
        assert set(body.get("omitted", ())) <= {"query", "evidence"}


@settings(max_examples=100)
@given(passes())
def test_evidence_that_fits_is_whole(given_pass):
    for each in records(*given_pass):
        found = each.body["evidence"]
        if found is not None and "omitted" not in each.body:
            assert all(guardrail["query"] for guardrail in found["guardrails"])


@given(st.sampled_from(DECISIONS), st.booleans())
def test_what_a_spec_may_hold_in_confidence_is_in_no_record(decision, command_done):
    traffic = {
        "gatewayAPI": {"route": "ranker"},
        "cohort": [{"header": "x-user", "value": SECRET}],
        "sticky": {"header": SECRET},
    }
    check = {"name": "alive", "http": {"path": f"/{SECRET}", "method": "POST", "body": SECRET}}
    strategy = a_spec()["strategy"] | {"checks": [check]}
    rollout = a_rollout(command="abort", traffic=traffic, strategy=strategy)
    assert SECRET in json.dumps(rollout.spec.to_dict())
    note = Note(severity=Severity.NORMAL, reason=decision, message="")
    plan = Plan(
        status=rollout.status,
        traffic=None,
        finalizer=False,
        look_again_seconds=None,
        command_done=command_done,
        notes=(note,),
    )

    (record,) = records(rollout, an_observation(), plan)

    assert SECRET not in record.line
