"""What is said of a rollout: whoever reads only that can say what went wrong, and what to do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from builders import NOW, a_spec, a_workload
from modelrollout.api import v1alpha1 as api
from modelrollout.api.conditions import Reason
from modelrollout.core import times
from modelrollout.core.facts import recorded
from modelrollout.kubectl import advice, story, words
from modelrollout.kubectl.differences import Change, changes
from modelrollout.kubectl.printable import printable
from modelrollout.kubectl.seen import Seen, seen
from modelrollout.simulation.rollout import Simulation
from modelrollout.simulation.scenario import scenario_of
from walk import BAD, Walk

DOCS = Path(__file__).parents[2] / "docs"
WORLD: dict[str, Any] = {
    "requestsPerSecond": 200,
    "scrapeSeconds": 1,
    "stable": {
        "errorRate": 0.01,
        "latency": {"medianSeconds": 0.020, "p99Seconds": 0.065},
        "accuracy": 0.97,
        "pods": 2,
    },
}
DEMO: dict[str, Any] = {
    "candidate": {"deployment": "ranker-v2"},
    "stable": {"deployment": "ranker-v1"},
    "port": 8080,
    "traffic": {"gatewayAPI": {"route": "ranker"}},
    "strategy": {
        "steps": [
            {"weight": 10, "gate": "NoHarm", "minRequests": 100},
            {"weight": 50, "minRequests": 200},
        ],
        "bake": {"seconds": 5},
    },
    "analysis": {
        "intervalSeconds": 1,
        "guardrails": [
            {"name": "errors", "preset": "envoy/errors"},
            {"name": "latency", "preset": "envoy/latency"},
            {
                "name": "accuracy",
                "proportion": {
                    "events": {"metric": "predictions_wrong_total"},
                    "total": {"metric": "predictions_judged_total"},
                },
            },
        ],
    },
}


def demo(**candidate: Any) -> Seen:
    """The demo's rollout of such a candidate, as it ended."""
    world = {**WORLD, "candidate": {**WORLD["stable"], **candidate}}
    meta = {"name": "ranker", "namespace": "shop", "generation": 1}
    simulation = Simulation({"metadata": meta, "spec": DEMO}, scenario_of(world), 1)
    simulation.run()
    return seen({"metadata": meta, "spec": DEMO, "status": simulation.status}, simulation.now)


def walked(walk: Walk) -> Seen:
    meta = {"name": "ranker", "namespace": "shop", "generation": 1}
    body = {"metadata": meta, "spec": a_spec(**walk.spec), "status": walk.status.to_dict()}
    return seen(body, walk.now)


SHARE = r"\d+\.\d\d %"


@pytest.mark.parametrize(
    ("candidate", "guardrail", "unit"),
    [
        ({"errorRate": 0.08}, "errors", ""),
        ({"latency": {"medianSeconds": 0.020, "p99Seconds": 0.5}}, "latency", r" above \d+ ms"),
        ({"accuracy": 0.85}, "accuracy", ""),
    ],
)
def test_a_bad_candidate_of_the_demo_is_explained_by_its_paragraph_alone(
    candidate, guardrail, unit
):
    found = demo(**candidate)
    text, told = story.paragraph(found), story.next_steps(found)

    assert f"because guardrail {guardrail} failed: it measured" in text
    figures = rf"it measured {SHARE} of [\d,]+ requests{unit} on ranker-v2 and, at the same time, {SHARE} of [\d,]+ requests{unit} on ranker-v1"
    assert re.search(figures, text)
    assert "tolerated is 1.5 x stable + 0.1 %" in text
    assert "At most 1 % of equally good candidates would be rolled back like this." in text
    assert "All users are on ranker-v1." in text
    assert "Find the cause in what changed" in told.sentence
    assert "kubectl modelrollout retry ranker -n shop" in told.commands


def test_the_good_candidate_of_the_demo_is_explained_by_what_proved_it():
    found = demo()
    text = story.paragraph(found)

    assert "ranker-v2 was promoted at 2027-01-15" in text
    assert "it has all traffic in place of ranker-v1" in text
    for name in ("errors", "latency", "accuracy"):
        assert re.search(rf"{name} {SHARE} against {SHARE} of stable", text)
    assert story.next_steps(found).commands == ()


def test_every_reason_has_advice_and_a_paragraph_in_the_runbook():
    headings = set(re.findall(r"^### (\w+)$", (DOCS / "operations.md").read_text(), re.MULTILINE))

    assert set(advice.ADVICE) == set(Reason)
    assert {each.value for each in advice.ADVICE} <= headings
    assert advice.advice_for("FromTheFuture").sentence == (
        "See FromTheFuture in the operator's documents."
    )


@pytest.mark.parametrize("reason", list(Reason))
def test_advice_is_complete_with_the_names_of_a_rollout(reason):
    names = {"name": "n", "namespace": "ns", "stable": "s", "candidate": "c", "route": "r"}
    told = advice.ADVICE[reason]

    assert "{" not in told.sentence.format(**names)
    assert not any("{" in each.format(**names) for each in told.commands)


def test_what_is_on_its_way_back_is_not_called_safe_yet():
    walk = Walk()
    walk.until(api.Phase.ROLLING_BACK, traffic=BAD)
    found = story.next_steps(walked(walk))

    assert found.reason == Reason.ROLLING_BACK
    assert "until the gateway has confirmed" in found.sentence
    assert "users are safe" not in found.sentence


def test_an_aborted_rollout_names_who_did_it():
    walk = Walk()
    walk.until(api.Phase.PROGRESSING)
    walk.step(command="abort")
    walk.until(api.Phase.ROLLED_BACK)

    assert story.paragraph(walked(walk)).startswith("ranker-v2 was aborted by ada. That was at")


def test_a_candidate_whose_pods_are_gone_is_no_matter_of_evidence():
    walk = Walk()
    walk.until(api.Phase.PROGRESSING)
    walk.step()
    walk.step(candidate=a_workload("ranker-v2", "c1", available=0, endpoints=0))
    found = walked(walk)

    assert "because its pods were not there to answer" in story.paragraph(found)
    assert found.reason == Reason.CANDIDATE_NOT_READY


def test_what_is_paused_for_want_of_evidence_says_so_and_how_to_go_on():
    walk = Walk(spec={"strategy": {"steps": [{"weight": 10, "maxSeconds": 20}]}})
    walk.until(api.Phase.PAUSED, traffic=((9.0, 0.0), (1.0, 0.0)))
    found = walked(walk)

    assert found.reason == Reason.INCONCLUSIVE
    assert "not decided in 20 s at 10 %" in story.paragraph(found)
    assert "kubectl annotate" not in story.paragraph(found)
    assert story.next_steps(found).commands == ("kubectl modelrollout resume ranker -n shop",)


def test_a_guardrail_that_the_plugin_cannot_read_is_quoted():
    walk = Walk()
    walk.until(api.Phase.ROLLED_BACK, traffic=BAD)
    (one,) = walk.status.guardrails
    odd = one.model_copy(update={"message": "in words of another version"})
    walk.status = walk.status.model_copy(update={"guardrails": (odd,)})

    assert "guardrail errors failed: in words of another version." in story.paragraph(walked(walk))


def test_slices_that_suffer_are_named_before_the_whole():
    walk = Walk()
    walk.until(api.Phase.ROLLED_BACK, traffic=BAD)
    (one,) = walk.status.guardrails
    sliced = one.model_copy(update={"message": f"country FR; overall {one.message}"})
    walk.status = walk.status.model_copy(update={"guardrails": (sliced,)})

    assert "in country FR it suffers most; overall it measured 50.00 %" in story.paragraph(
        walked(walk)
    )


def test_a_status_from_another_world_is_a_sentence():
    with pytest.raises(Exception, match=r"does not understand the object: status\.weight"):
        seen({"metadata": {}, "spec": {}, "status": {"weight": "x"}}, NOW)


def container(**given: Any) -> dict[str, Any]:
    return {"spec": {"template": {"spec": {"containers": [{"name": "server", **given}]}}}}


def test_differences_name_what_changed_and_nothing_else():
    one = container(
        image="a:1",
        args=["--port", "80"],
        env=[{"name": "KEY", "value": "secret-1"}, {"name": "SAME", "value": "x"}],
        resources={"limits": {"memory": "1Gi", "cpu": "1"}},
    )
    other = container(
        image="a:2",
        args=["--port", "81"],
        env=[
            {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "it"}}},
            {"name": "SAME", "value": "x"},
        ],
        resources={"limits": {"memory": "2Gi", "cpu": "1"}},
    )

    found = changes(one, other, ({"version": "1"}, {"version": "2"}))

    assert found == [
        Change(what="model version", stable="1", candidate="2"),
        Change(what="server: image", stable="a:1", candidate="a:2"),
        Change(what="server: args", stable="--port 80", candidate="--port 81"),
        Change(
            what="server: env KEY",
            stable="(a value)",
            candidate="from secretKeyRef (name keys, key it)",
        ),
        Change(what="server: limits.memory", stable="1Gi", candidate="2Gi"),
    ]
    assert "secret-1" not in str(found)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (119, "119 s"),
        (120, "2 min"),
        (437.4, "7 min 17 s"),
        (1559, "25 min"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (273_600, "3 d 4 h"),
        (-5, "0 s"),
    ],
)
def test_durations_are_said_as_people_do(seconds, text):
    assert times.duration(seconds) == text


@pytest.mark.parametrize(
    ("kind", "lower", "upper", "text"),
    [
        ("Ratio", "0.512", "2.04", "0.51 to 2 x stable"),
        ("Ratio", None, "1.31", "at most 1.3 x stable"),
        ("Difference", "-0.004", "0.0123", "-0.4 to +1.2 points from stable"),
        ("Difference", "0.001", None, "at least +0.1 points from stable"),
        ("Ratio", None, None, ""),
    ],
)
def test_intervals_are_said_in_their_kind(kind, lower, upper, text):
    found = api.GuardrailStatus.model_validate(
        {
            "name": "errors",
            "verdict": "Pass",
            "interval": {"kind": kind, "lower": lower, "upper": upper},
        }
    )

    assert words.interval(found, None) == text


def test_what_an_ab_test_found_is_in_the_paragraph():
    walk = Walk()
    walk.until(api.Phase.PROGRESSING)
    walk.step()
    trial = walk.status.candidate
    assert trial is not None
    walk.status = recorded(walk.status, "Compared", trial, "errors: 1 % against 2 %", walk.now)

    assert "errors: 1 % against 2 %." in story.paragraph(walked(walk))


def test_letters_that_turn_or_erase_are_replaced():
    assert printable({"a\x1b": ["\u202egnp.exe", "two\nlines", 1]}) == {
        "a\ufffd": ["\ufffdgnp.exe", "two\nlines", 1]
    }
