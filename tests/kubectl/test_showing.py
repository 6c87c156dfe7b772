"""`list`, `get` and `why` of rollouts that a real API server has, in the widths that people have."""

from __future__ import annotations

import json
import re
import time
from datetime import datetime

import pytest
import yaml

from builders import a_spec
from modelrollout.api import v1alpha1 as api
from terminal import Shop
from walk import BAD, Walk

APPROVAL = {
    "strategy": {
        "steps": [{"weight": 10, "minRequests": 10}, {"approval": {"message": "ask the shop"}}],
        "bake": {"seconds": 10},
    }
}


def a_walk(**spec: object) -> Walk:
    return Walk(now=time.time() - 60, spec=dict(spec))


def on_trial() -> Walk:
    walk = a_walk()
    walk.until(api.Phase.PROGRESSING)
    walk.step()
    walk.step()
    return walk


def rolled_back() -> Walk:
    walk = a_walk()
    walk.until(api.Phase.ROLLED_BACK, traffic=BAD)
    return walk


def text_of(output: str) -> str:
    """As it reads, wherever its lines are broken."""
    return " ".join(output.split())


def test_a_list_fits_80_columns_and_says_why_from_120_on(shop: Shop):
    shop.put(on_trial())
    shop.put(rolled_back(), "second")

    narrow, wide = shop.run("list").output, shop.run("list", width=200).output

    assert max(map(len, narrow.splitlines())) <= 80
    assert "REASON" not in narrow
    assert narrow.splitlines()[0].split() == [
        "NAME", "STATE", "STEP", "WEIGHT", "VERDICT", "REQUESTS", "CANDIDATE", "AGE",
    ]  # fmt: skip
    assert narrow.splitlines()[1].split()[:6] == [
        "ranker", "Progressing", "1/4", "10", "Inconclusive", "50",
    ]  # fmt: skip
    assert max(map(len, wide.splitlines())) <= 200
    assert "ranker-v2 was rolled back at 10 %: errors" in wide


def test_a_list_is_of_one_namespace_unless_all_are_asked_for(shop: Shop):
    shop.put(on_trial())

    elsewhere = shop.run("list", "-n", "default")
    everywhere = shop.run("list", "-A", width=200)

    assert elsewhere.exit_code == 0
    assert "no ModelRollouts in namespace default" in elsewhere.output
    assert re.search(rf"{shop.namespace} +ranker", everywhere.output)


def test_objects_for_programs_are_whole(shop: Shop):
    shop.put(on_trial())
    shop.put(rolled_back(), "second")

    listed = json.loads(shop.run("list", "-o", "json").output)
    one = yaml.safe_load(shop.run("get", "second", "-o", "yaml").output)
    story = json.loads(shop.run("why", "second", "-o", "json").output)

    assert [each["metadata"]["name"] for each in listed["items"]] == ["ranker", "second"]
    assert one["status"]["phase"] == "RolledBack"
    assert story["reason"] == "GuardrailBreached"
    assert story["safety"]["level"] == "good"
    assert story["next"]["commands"][-1] == f"kubectl modelrollout retry second -n {shop.namespace}"


@pytest.mark.parametrize("width", [80, 200])
def test_what_is_on_trial_is_seen_at_a_glance(shop: Shop, width):
    shop.put(on_trial())

    found = shop.run("get", "ranker", width=width)
    text = text_of(found.output)

    assert found.exit_code == 0
    assert max(map(len, found.output.splitlines())) <= width
    assert "10 % of users' requests go to ranker-v2; nothing is shown against it" in text
    assert "stable ranker-v1 ━━━━━━━━━─ 90 % 0/2 ready" in text
    assert "candidate ranker-v2 ━───────── 10 % 0/2 ready" in text
    assert "● 10 % ─ ○ 50 % ─ ○ 100 % ─ ○ bake 10 s" in text
    assert "0.00 % of 50" in text
    assert "0.89 % of 450" in text
    assert "you can abort, pause, skip-step, promote" in text


def test_the_bar_of_evidence_is_full_only_when_it_has_decided(shop: Shop):
    shop.put(on_trial())
    shop.put(rolled_back(), "second")

    assert "············│███·········" in shop.run("get", "ranker").output
    assert "Fail          ████████████│············" in shop.run("get", "second").output


def test_the_only_rollout_of_a_namespace_needs_no_name_and_two_do(shop: Shop):
    shop.put(on_trial())
    alone = shop.run("get")
    shop.put(rolled_back(), "second")
    several = shop.run("get")

    assert alone.exit_code == 0
    assert several.exit_code == 3
    assert "several ModelRollouts (ranker, second): name one" in several.output


def test_what_goes_to_a_pipe_has_no_colours(shop: Shop):
    shop.put(rolled_back())

    for command in ("list", "get", "why"):
        assert "\x1b" not in shop.run(command).output


def test_a_terminal_has_colours_unless_they_are_not_wanted(shop: Shop):
    shop.put(rolled_back())
    shop.environment = {"FORCE_COLOR": "1", "TERM": "xterm-256color"}
    coloured = shop.run("get").output
    shop.environment["NO_COLOR"] = "1"
    plain = shop.run("get").output

    assert "\x1b[1;31m" in coloured
    assert "31m" not in plain


def test_why_says_what_changed_and_never_a_value_of_the_environment(shop: Shop):
    shop.put(rolled_back())

    text = text_of(shop.run("why").output)

    assert "server: image registry/ranker:1 → registry/ranker:2" in text
    assert "server: env KEY (a value) → (another value)" in text
    assert "server: env NEW (none) → (a value)" in text
    assert "LEVEL" not in text


def test_why_of_a_version_that_is_gone_says_so(shop: Shop):
    shop.put(rolled_back())
    shop.api("DELETE", f"/apis/apps/v1/namespaces/{shop.namespace}/deployments/ranker-v2")

    assert "not known: Deployment ranker-v2 is gone" in shop.run("why").output


def test_an_earlier_revision_is_told_from_the_history(shop: Shop):
    shop.put(rolled_back())

    by_revision, by_name = shop.run("why", "--at", "c1"), shop.run("why", "--at", "ranker-v2")
    unknown = shop.run("why", "--at", "nothing")

    assert by_revision.output == by_name.output
    assert "was rolled back at 10 %: errors: candidate 50.00 % of 50" in text_of(by_revision.output)
    assert unknown.exit_code == 3
    assert "it has c1 (ranker-v2)" in unknown.output


def test_an_approval_that_is_waited_for_is_offered_with_its_words(shop: Shop):
    walk = a_walk(**APPROVAL)
    walk.until(api.Phase.PAUSED)
    shop.put(walk)

    get, why = text_of(shop.run("get").output), text_of(shop.run("why").output)

    assert "you can abort, approve, pause, skip-step, promote" in get
    assert "waits for approval at 10 %: ask the shop" in get
    assert "kubectl annotate" not in get
    assert f"kubectl modelrollout approve ranker -n {shop.namespace}" in why


def test_missing_metrics_are_said_to_be_unsafe(shop: Shop):
    walk = on_trial()
    walk.step(blind="Prometheus does not answer")
    shop.put(walk)

    get, why = text_of(shop.run("get").output), text_of(shop.run("why").output)

    assert (
        "! 10 % of users' requests go to ranker-v2, and nobody can tell whether it is good" in get
    )
    assert "Prometheus does not answer" in get
    assert "abort: that needs no metrics" in why


def test_a_rollout_that_the_operator_has_not_seen_yet_says_so(shop: Shop):
    shop.api(
        "POST",
        f"/apis/modelrollout.dev/v1alpha1/namespaces/{shop.namespace}/modelrollouts",
        {
            "apiVersion": api.API_VERSION,
            "kind": api.KIND,
            "metadata": {"name": "new"},
            "spec": a_spec(),
        },
    )

    assert "The operator has not looked at it yet; it may not be running." in text_of(
        shop.run("get", "new").output
    )


def test_watching_what_is_over_ends_with_how_it_ended(shop: Shop):
    won = a_walk()
    won.until(api.Phase.PROMOTED)
    shop.put(won)
    shop.put(rolled_back(), "second")

    good, bad = shop.run("get", "ranker", "--watch"), shop.run("get", "second", "--watch")

    assert (good.exit_code, bad.exit_code) == (0, 1)
    assert "Promoted" in good.output
    assert "RolledBack" in bad.output


def test_a_link_to_the_dashboard_has_the_time_of_the_rollout(shop: Shop):
    walk = rolled_back()
    shop.put(walk)

    found = shop.run("why", "--dashboard", "https://grafana/d/rollout?orgId=1", width=200).output

    begun = int(1000 * (datetime.fromisoformat(walk.status.history[-1].time).timestamp() - 1800))
    assert (
        f"https://grafana/d/rollout?orgId=1&var-namespace={shop.namespace}&var-name=ranker" in found
    )
    assert f"from={begun}" in found


def test_a_terminal_is_drawn_in_place_until_it_is_over(shop: Shop):
    shop.put(rolled_back())
    shop.environment = {"FORCE_COLOR": "1", "TERM": "xterm-256color", "NO_COLOR": "1"}

    found = shop.run("get", "ranker", "--watch")

    assert found.exit_code == 1
    assert "All users are on ranker-v1." in found.output


def test_an_ab_test_tells_users_and_a_chance_that_decides_nothing(shop: Shop):
    walk = on_trial()
    (one,) = walk.status.guardrails
    told = one.model_copy(update={"needed_users": 1200, "chance_to_beat": "0.873"})
    walk.status = walk.status.model_copy(update={"guardrails": (told,)})
    shop.put(walk)

    text = text_of(shop.run("get").output)

    assert "about 1,200 users more" in text
    assert "chance to be better 87 %" in text


def test_text_of_others_does_not_command_the_terminal(shop: Shop):
    walk = on_trial()
    hostile = "\x1b[2J\x9b2Jlook\x07"
    walk.status = walk.status.model_copy(update={"reason": hostile, "warnings": (hostile,)})
    shop.put(walk)

    for command in (["get"], ["why"], ["list", "-o", "wide"], ["pause", "ranker"]):
        output = shop.run(*command).output
        assert not {"\x1b", "\x9b", "\x07"} & set(output)
        assert "2Jlook" in output or command == ["pause", "ranker"]
