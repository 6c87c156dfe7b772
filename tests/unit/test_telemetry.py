"""What the operator tells of itself: well-formed, of what is there, and no more than that."""

from __future__ import annotations

import asyncio
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from prometheus_client import REGISTRY, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from builders import ERRORS
from modelrollout import telemetry
from modelrollout.adapters.cluster import ROLLOUTS, Cluster
from modelrollout.api.conditions import Type
from modelrollout.api.v1alpha1 import Phase
from modelrollout.errors import ClusterUnavailable
from prometheus_binary import prometheus_binary
from walk import BAD, Walk

KEY = ("shop", "ranker")
OTHERS = [ERRORS | {"name": f"errors-{number}"} for number in range(4)]


@pytest.fixture(autouse=True)
def _forgotten():
    yield
    telemetry.forget(*KEY)


def exposed():
    text = generate_latest(REGISTRY).decode()
    return {each.name: each for each in text_string_to_metric_families(text)}


def samples(name, **labels):
    return [
        each
        for each in exposed()[f"modelrollout_{name}"].samples
        if (each.labels.get("namespace"), each.labels.get("name")) == KEY
        and labels.items() <= each.labels.items()
    ]


def the_value(name, **labels):
    (found,) = samples(name, **labels)
    return found.value


def shown(walk):
    telemetry.shown(*KEY, walk.status)
    return walk


def at_the_first_step():
    walk = Walk()
    walk.until(Phase.PROGRESSING)
    for _ in range(3):
        walk.step()
    return shown(walk)


def test_prometheus_own_linter_has_nothing_to_say():
    at_the_first_step()
    promtool = Path(prometheus_binary()).with_name("promtool")

    done = subprocess.run(
        [promtool, "check", "metrics"],
        input=generate_latest(REGISTRY),
        capture_output=True,
        check=False,
    )

    ours = [each for each in done.stderr.decode().splitlines() if each.startswith("modelrollout")]
    assert ours == []
    assert done.returncode in {0, 3}  # 3: something to say of Python's own


def test_a_trial_tells_where_it_is_and_what_is_known():
    walk = at_the_first_step()

    assert the_value("phase") == 1
    assert samples("phase")[0].labels["phase"] == "Progressing"
    assert the_value("weight_wanted_ratio") == 0.1
    assert (the_value("step"), the_value("steps")) == (1, walk.status.steps)
    assert the_value("guardrail_requests", version="candidate") > 0
    assert the_value("guardrail_safety_ratio", guardrail="errors") == float(
        walk.status.guardrails[0].safety
    )
    assert the_value("step_start_timestamp_seconds") <= walk.now


def test_each_condition_is_told_once_with_its_reason():
    walk = at_the_first_step()
    walk.until(Phase.ROLLED_BACK, traffic=BAD)
    shown(walk)

    counted = Counter(each.labels["condition"] for each in samples("condition"))
    (promoted,) = samples("condition", condition="Promoted")
    assert counted == dict.fromkeys(map(str, Type), 1)
    assert (promoted.labels["status"], promoted.labels["reason"]) == ("False", "RolledBack")


def test_a_rollback_tells_when_and_why_and_nothing_of_a_trial():
    walk = at_the_first_step()
    walk.until(Phase.ROLLED_BACK, traffic=BAD)
    shown(walk)

    (rejected,) = samples("rejected_timestamp_seconds")
    assert rejected.labels["cause"] == "GuardrailBreached"
    assert walk.now - 60 < rejected.value <= walk.now
    assert samples("step") == samples("guardrail_requests") == []
    assert the_value("weight_wanted_ratio") == 0


def test_a_whole_rollout_leaves_one_series_of_each():
    walk = at_the_first_step()
    while walk.status.phase is not Phase.PROMOTED:
        walk.step()
        shown(walk)

    assert the_value("phase", phase="Promoted") == 1
    assert len(samples("condition")) == len(Type)


def test_series_are_bounded_by_conditions_and_guardrails():
    walk = Walk(spec={"analysis": {"guardrails": [ERRORS, *OTHERS], "intervalSeconds": 5}})
    walk.until(Phase.PROGRESSING)
    counts = []
    while walk.status.phase is not Phase.PROMOTED:
        walk.step()
        shown(walk)
        counts.append(sum(len(samples(name)) for name in telemetry.OF_A_ROLLOUT))

    of_the_rollout, of_a_guardrail = 8 + len(Type), 8
    assert of_a_guardrail * 5 < max(counts) <= of_the_rollout + of_a_guardrail * 5


def test_what_is_gone_is_not_told_of():
    at_the_first_step()
    telemetry.forget(*KEY)

    assert [name for name in telemetry.OF_A_ROLLOUT if samples(name)] == []


def test_counters_that_alerts_look_at_are_there_before_the_first_event():
    names = ("calls", "events", "pass_failures")
    families = exposed()

    assert {each.labels["outcome"] for each in families["modelrollout_calls"].samples} == {
        "answered",
        "failed",
    }
    assert all(families[f"modelrollout_{each}"].samples for each in names)


class Unreachable:
    """A client whose server is away."""

    async def param_serialize(self, **_):
        return ()

    async def call_api(self, *_, **__):
        raise OSError("no route to host")


def test_a_call_that_nobody_answers_is_counted_as_failed():
    def failed():
        found = exposed()["modelrollout_calls"].samples
        wanted = {"server": "kubernetes", "outcome": "failed"}
        return next(each.value for each in found if each.labels == wanted)

    before = failed()
    with pytest.raises(ClusterUnavailable):
        asyncio.run(Cluster(Unreachable()).get(ROLLOUTS, *KEY))

    assert failed() == before + 1
