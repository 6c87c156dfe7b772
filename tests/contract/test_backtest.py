"""`modelrollout backtest` against a real Prometheus that remembers releases."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import yaml
from click.testing import CliRunner

from builders import ERRORS, a_spec
from modelrollout.cli import main
from modelrollout.core.times import as_seconds, as_time
from past import Pod, scraped

HISTORY = 2400
"""Before a release, to learn from how stable bursts."""
LASTED = 3600
BAD_AFTER = 1200
LATENCY = {
    "name": "latency",
    "distribution": {"histogram": {"metric": "model_latency_seconds"}},
}
TRAFFIC = {
    "name": "traffic",
    "limit": {
        "query": 'sum(rate(model_requests_total{namespace="shop", pod=~"bad-.*"}[1m]))',
        "min": "1",
        "forSeconds": 60,
    },
}


@pytest.fixture(scope="module")
def start():
    """Of the releases, Unix seconds: some time ago, as a server's own blocks begin now."""
    return time.time() // 60 * 60 - 5 * 3600


@pytest.fixture(scope="module")
def server(remember, start):
    def turned(after):
        return lambda now: 0.01 if now < start + BAD_AFTER else after

    pods = [
        *(Pod(name=f"stable-{index}") for index in range(4)),
        Pod(name="bad-0", error_rate=turned(0.08), since=start - 100),
        Pod(name="good-0", error_rate=turned(0.01), since=start - 100),
        *(
            Pod(name=f"uneven-{index}", error_rate=lambda _, index=index: 0.005 * 3**index)
            for index in range(4)
        ),
    ]
    return remember(scraped(pods, start - HISTORY, start + 2 * LASTED).openmetrics())


@pytest.fixture
def run(server, start, tmp_path):
    def command(*arguments, guardrails=(ERRORS, LATENCY), seconds=LASTED, **analysis):
        manifest = {
            "apiVersion": "modelrollout.dev/v1alpha1",
            "kind": "ModelRollout",
            "metadata": {"name": "ranker", "namespace": "shop"},
            "spec": a_spec(analysis={"guardrails": list(guardrails), **analysis}),
        }
        file = tmp_path / "rollout.yaml"
        file.write_text(yaml.safe_dump(manifest))
        span = ["--from", as_time(start), "--to", str(start + seconds)]
        given = ["backtest", str(file), "--prometheus", server.url, *span, *arguments]
        return CliRunner().invoke(main, given)

    return command


def told(result):
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_release_that_went_bad_fails_soon_after_it_did(run, start):
    found = told(run("--stable", "stable-.*", "--candidate", "bad-.*", "--json"))
    assert found["verdict"] == "Fail"
    failed = as_seconds(found["failed"]["time"])
    assert start + BAD_AFTER < failed < start + BAD_AFTER + 300
    errors, latency = found["guardrails"]
    assert errors["failed"]["time"] == found["failed"]["time"]
    assert latency["failed"] is None
    assert found["sentence"].startswith(f"It would have been rolled back at {as_time(failed)}")
    # Ten requests per second.
    assert found["failed"]["candidateRequests"] == pytest.approx(10 * (failed - start), rel=0.05)


def test_the_curve_tells_the_evidence_at_each_look(run, start):
    found = told(run("--stable", "stable-.*", "--candidate", "bad-.*", "--json"))
    curve = found["guardrails"][0]["curve"]
    assert len(curve) == LASTED / 5
    harm = {as_seconds(each["time"]): float(each["harm"]) for each in curve}
    failed = as_seconds(found["failed"]["time"])
    assert max(value for at, value in harm.items() if at < failed) < 1 <= harm[failed]
    assert max(value for at, value in harm.items() if at < start + BAD_AFTER) < 0.9


def test_a_good_release_passes(run):
    found = told(run("--stable", "stable-.*", "--candidate", "good-.*", "--json"))
    assert found["verdict"] == "Pass"
    assert found["failed"] is None
    assert [each["failed"] for each in found["guardrails"]] == [None, None]
    assert all(each["passed"] for each in found["guardrails"])
    assert all(each["blindShare"] == each["incompleteShare"] == 0 for each in found["guardrails"])


def test_for_people_it_is_said_in_sentences(run):
    result = run("--stable", "stable-.*", "--candidate", "bad-.*")
    assert result.exit_code == 0
    assert result.output.startswith("It would have been rolled back at ")
    assert "errors (proportion): would have failed at " in result.output
    assert "latency (distribution): would have passed at " in result.output


def test_a_limit_is_evaluated_as_of_each_look(run):
    versions = ("--stable", "stable-.*", "--candidate", "bad-.*", "--json")
    found = told(run(*versions, guardrails=(ERRORS, TRAFFIC), seconds=600))
    limit = found["guardrails"][1]
    assert (limit["kind"], limit["blindShare"]) == ("limit", 0)
    values = [float(each["message"].split(",")[0]) for each in limit["curve"]]
    assert len(set(values)) > 50
    assert sum(values) / len(values) == pytest.approx(10, rel=0.1)
    strict = {**TRAFFIC, "limit": {**TRAFFIC["limit"], "min": "50"}}
    found = told(run(*versions, guardrails=(ERRORS, strict), seconds=600))
    assert found["verdict"] == "Fail"
    assert found["failed"]["seconds"] == 65
    assert "min 50 for 60 s" in found["failed"]["message"]


def test_a_guardrail_that_cannot_be_read_is_named_with_the_reason(run):
    misspelt = {
        **LATENCY,
        "name": "misspelt",
        "distribution": {"histogram": {"metric": "model_letancy_seconds"}},
    }
    versions = ("--stable", "stable-.*", "--candidate", "good-.*", "--json")
    found = told(run(*versions, guardrails=(ERRORS, misspelt)))
    assert found["verdict"] == "NoData"
    blind = found["guardrails"][1]
    assert blind["blindShare"] == 1
    assert "No series of model_letancy_seconds" in blind["sentence"]
    assert found["guardrails"][0]["passed"]


def test_equal_pods_raise_no_false_alarm(run):
    halves = ("--aa", "--rollout-seconds", "1200", "--splits", "4")
    found = told(run("--stable", "stable-.*", *halves, "--json"))
    assert (found["stretches"], found["rollouts"]) == (3, 12)
    assert found["rate"] <= found["falseRollbackRate"]
    assert found["canBeArmed"]
    assert found["interval"][1] == pytest.approx(1 - 0.025 ** (1 / 3))


def test_pods_that_differ_are_found_out_before_a_rollback_is_armed(run):
    halves = ("--aa", "--rollout-seconds", "1800", "--splits", "6")
    found = told(run("--stable", "uneven-.*", *halves, "--json"))
    assert found["rate"] > found["falseRollbackRate"]
    assert not found["canBeArmed"]
    errors, latency = found["guardrails"]
    assert errors["rolledBack"] > 0
    assert latency["rolledBack"] == 0
    assert "the tolerance is too tight for errors" in found["sentence"]


def test_one_pod_has_no_halves(run):
    result = run("--stable", "good-.*", "--aa")
    assert result.exit_code == 2
    assert (
        "--stable good-.* (label pod) matches only good-0: two halves need at least two pods"
        in (result.output)
    )


def test_a_pod_of_both_versions_is_refused(run):
    result = run("--stable", ".*-0", "--candidate", "bad-.*")
    assert result.exit_code == 2
    assert "--stable and --candidate both match pod bad-0" in result.output


def test_where_nothing_matches_the_metrics_are_unavailable(run):
    result = run("--stable", "nobody", "--candidate", "bad-.*")
    assert result.exit_code == 1
    assert "was found for the stable" in result.output


def test_an_expression_that_only_prometheus_refuses_is_refused(run):
    """Python knows look-ahead, RE2 does not."""
    result = run("--stable", "stable-(?=1).*", "--candidate", "bad-.*")
    assert result.exit_code == 1
    assert "refused the query" in result.output


@pytest.fixture
def gatekeeper():
    """A server that lets nobody in, and keeps the headers it was shown."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append(dict(self.headers))
            self.send_response(401)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            """Nobody reads it."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", seen
    server.shutdown()
    thread.join()
    server.server_close()


def test_credentials_reach_the_server_and_its_refusal_the_user(run, gatekeeper, tmp_path):
    url, seen = gatekeeper
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    result = run(
        *("--prometheus", url, "--stable", "a", "--candidate", "b", "--header", "X-Scope: shop"),
        *("--bearer-token-file", str(token)),
    )
    assert result.exit_code == 1
    assert "Prometheus at 127.0.0.1 answered with status 401." in result.output
    assert "s3cret" not in result.output
    assert (seen[0]["X-Scope"], seen[0]["Authorization"]) == ("shop", "Bearer s3cret")
