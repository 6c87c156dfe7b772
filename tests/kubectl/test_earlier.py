"""`why --at`: an earlier rollout, from the history and from the trace that was kept of it."""

from __future__ import annotations

import json
import time

import yaml

from modelrollout.api import v1alpha1 as api
from terminal import Shop
from walk import BAD, Walk

RBAC = "/apis/rbac.authorization.k8s.io/v1/namespaces"


def tried_twice() -> Walk:
    """Rolled back, then tried again and promoted."""
    walk = Walk(now=time.time() - 600)
    walk.until(api.Phase.ROLLING_BACK, traffic=BAD)
    for _ in range(10):
        walk.step()
    walk.step(command="retry")
    walk.until(api.Phase.PROMOTED)
    return walk


def text_of(output: str) -> str:
    return " ".join(output.split())


def test_the_evidence_is_shown_as_it_was_at_the_decision(shop: Shop):
    walk = Walk(now=time.time() - 600)
    walk.until(api.Phase.ROLLING_BACK, traffic=BAD)
    shop.record(walk)

    for width in (80, 200):
        done = shop.run("why", "ranker", "--at", "c1", width=width)
        text = text_of(done.output)
        assert done.exit_code == 0
        assert "Evidence as it was in step 1/4 at 10 %, on " in text
        assert "errors Fail ████████████│············" in text
        assert "ranker-v2 50.0 % of 50 requests ranker-v1 0.89 % of 450 requests" in text
        assert "tolerated 1.5 \N{MULTIPLICATION SIGN} stable, proved safe within 2" in text
        assert "What differed from ranker-v1 to ranker-v2" in text
        assert all(len(line) <= width for line in done.output.splitlines())


def test_the_evidence_is_that_of_the_trial_which_the_sentence_speaks_of(shop: Shop):
    shop.record(tried_twice())

    told = json.loads(shop.run("why", "ranker", "--at", "ranker-v2", "-o", "json").output)
    same = yaml.safe_load(shop.run("why", "ranker", "--at", "c1", "-o", "yaml").output)

    assert same == told
    assert told["paragraph"].startswith("ranker-v2 (c1) has all traffic.")
    assert {each["verdict"] for each in told["evidence"]["guardrails"]} == {"Pass"}
    assert [each["what"] for each in told["history"]][-1] == "Promoted"


def test_what_the_history_forgot_is_told_from_what_was_kept(shop: Shop):
    walk = Walk(now=time.time() - 600)
    walk.until(api.Phase.ROLLING_BACK, traffic=BAD)
    shop.record(walk)
    walk.status = walk.status.model_copy(update={"history": ()})
    shop.put(walk)

    text = text_of(shop.run("why", "ranker", "--at", "c1").output)

    assert text.startswith("ranker-v2 was rolled back at 10 %: errors: candidate 50.00 % of 50")
    assert "It has not ended" not in text
    assert "errors Fail" in text


def test_evidence_that_is_not_kept_is_said_to_be_missing_and_why(shop: Shop):
    walk = Walk(now=time.time() - 600)
    walk.until(api.Phase.ROLLING_BACK, traffic=BAD)
    shop.put(walk)
    never = shop.run("why", "ranker", "--at", "c1")
    later = Walk(now=time.time() - 60)
    later.until(api.Phase.PROMOTED)
    shop.record(later)
    shop.put(walk)
    other = shop.run("why", "ranker", "--at", "c1")

    assert never.exit_code == other.exit_code == 0
    assert "Its evidence cannot be shown: no rollout of ranker is kept: there is no ConfigMap" in (
        text_of(never.output)
    )
    assert "it is not among those that are kept: ranker-v2 (c1), Promoted" in text_of(other.output)
    assert "Decisions" in other.output


def test_who_may_not_read_what_was_kept_still_gets_the_decisions(shop: Shop):
    walk = Walk(now=time.time() - 600)
    walk.until(api.Phase.ROLLING_BACK, traffic=BAD)
    shop.record(walk)
    rules = [{"apiGroups": ["modelrollout.dev"], "resources": ["modelrollouts"], "verbs": ["get"]}]
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "ada"}
    shop.create("roles", {"metadata": {"name": "reader"}, "rules": rules}, RBAC)
    binding = {"metadata": {"name": "ada"}, "roleRef": reference, "subjects": [subject]}
    shop.create("rolebindings", binding, RBAC)

    done = shop.run("why", "ranker", "--at", "c1", token="ada")  # noqa: S106  # a name

    assert done.exit_code == 0
    assert "Its evidence cannot be shown: " in text_of(done.output)
    assert "configmaps" in text_of(done.output)
    assert "was rolled back at 10 %" in text_of(done.output)
