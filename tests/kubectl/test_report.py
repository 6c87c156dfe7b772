"""`report` on rollouts that the operator's recorder kept in a real API server."""

from __future__ import annotations

import time

from modelrollout.api import v1alpha1 as api
from terminal import Shop
from walk import BAD, Walk


def a_walk(phase: api.Phase, **each: object) -> Walk:
    walk = Walk(now=time.time() - 60)
    walk.until(phase, **each)
    return walk


def test_the_newest_rollout_becomes_a_file_and_the_others_are_named(shop: Shop, tmp_path):
    walk = a_walk(api.Phase.ROLLING_BACK, traffic=BAD)
    for _ in range(10):
        walk.step()
    walk.step(command="retry")
    walk.until(api.Phase.PROMOTED)
    shop.record(walk)
    file = tmp_path / "report.html"

    done = shop.run("report", "ranker", "-o", str(file))

    assert done.exit_code == 0, done.output
    assert "ranker-v2 (c1), Promoted" in done.output
    assert "also kept (--at REVISION): ranker-v2 (c1), GuardrailBreached" in done.output
    assert "ranker-v2 was promoted after" in file.read_text(encoding="utf-8")


def test_a_page_can_go_to_the_terminal(shop: Shop):
    shop.record(a_walk(api.Phase.ROLLING_BACK, traffic=BAD))

    done = shop.run("report", "ranker", "-o", "-", "--at", "c1")

    assert done.exit_code == 0
    assert done.stdout.startswith("<!doctype html>")
    assert "ranker-v2 was rolled back at 10" in done.stdout


def test_the_config_map_goes_with_its_rollout(shop: Shop):
    shop.record(a_walk(api.Phase.PROMOTED))

    body = shop.api("GET", f"/api/v1/namespaces/{shop.namespace}/configmaps/ranker-trace")

    (owner,) = body["metadata"]["ownerReferences"]
    assert owner["uid"] == shop.get()["metadata"]["uid"]
    assert len(body["binaryData"]) == 1


def test_what_is_not_kept_is_a_sentence(shop: Shop):
    shop.put(Walk())

    none = shop.run("report", "ranker")
    shop.record(a_walk(api.Phase.PROMOTED))
    other = shop.run("report", "ranker", "--at", "v9")
    unread = shop.run("report", "ranker", "-o", "-", "--prometheus", "prometheus:9090")

    assert (none.exit_code, other.exit_code, unread.exit_code) == (3, 3, 1)
    assert "no rollout of ranker is kept: there is no ConfigMap ranker-trace" in none.output
    assert "no rollout of v9 is kept: there is ranker-v2 (c1), Promoted" in other.output
    assert "begins with http:// or https://" in unread.output


def test_who_may_not_read_config_maps_is_told_so(shop: Shop):
    shop.put(Walk())

    denied = shop.run("report", "ranker", token="eve")  # noqa: S106  # a name

    assert denied.exit_code == 4
    assert "Traceback" not in denied.output
