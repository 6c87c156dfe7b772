"""Every query of the dashboards, asked of a real Prometheus that scrapes what the operator exports."""

from __future__ import annotations

import json
import re
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from prometheus_client import REGISTRY, generate_latest

from contract.conftest import QuietHandler, Served, Server
from modelrollout import telemetry
from walks import WALKS

FILES = sorted(
    (Path(__file__).parents[2] / "charts" / "modelrollout" / "files" / "dashboards").glob("*.json")
)
BOARDS = {each.stem: json.loads(each.read_text()) for each in FILES}
SCRAPE = """
global: {{scrape_interval: 1s, scrape_timeout: 900ms}}
scrape_configs:
- job_name: operator
  honor_labels: true
  static_configs: [{{targets: ['127.0.0.1:{port}'], labels: {{namespace: system}}}}]
"""
CHOSEN = {"name": "progressing", "guardrail": "errors", "__rate_interval": "5s"}
"""What is chosen above the panels; the namespace is in each label."""
SCRAPES = 4


class Handler(QuietHandler):
    """The operator's /metrics."""

    def do_GET(self):  # noqa: N802  # the library calls it
        with telemetry.running("shop", "progressing"):
            body = generate_latest(REGISTRY)
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory):
    """It has scraped an operator whose rollouts are at all places where one can be, and no others."""
    directory = tmp_path_factory.mktemp("dashboards")
    with pytest.MonkeyPatch.context() as process, Served(Handler) as served:
        process.setattr(telemetry, "_statuses", {})
        for place, walk in WALKS.items():
            telemetry.shown("shop", place, walk().status)
        telemetry.LEADER.labels("").set(1)
        running = Server(directory, [])
        running.targets = 1
        (directory / "prometheus.yml").write_text(SCRAPE.format(port=served.port))
        running.start()
        deadline = time.monotonic() + 30
        while not asked(running, f"count_over_time(modelrollout_leader[1m]) >= {SCRAPES}"):
            assert time.monotonic() < deadline, "the operator is not scraped"
            time.sleep(0.2)
        yield running
        running.stop()
    telemetry.LEADER.labels("").set(0)


def asked(prometheus, query):
    address = f"{prometheus.url}/api/v1/query?query={urllib.parse.quote(query)}"
    with urllib.request.urlopen(address, timeout=5) as answer:  # noqa: S310  # on loopback
        return json.load(answer)["data"]["result"]


def filled(text):
    """A query with the choices above the panels."""
    for name, value in {**CHOSEN, "namespace": "shop"}.items():
        text = re.sub(rf"\${name}\b", value, text)
    return text


def queries(board):
    return [
        (panel["title"], each["legendFormat"], each["expr"])
        for panel in board["panels"]
        for each in panel.get("targets", [])
    ]


@pytest.mark.parametrize("name", BOARDS)
def test_every_query_finds_series(name, prometheus):
    found = {
        (title, legend): asked(prometheus, filled(query))
        for title, legend, query in queries(BOARDS[name])
    }

    assert [key for key, series in found.items() if not series and key[0] != EMPTY] == []


EMPTY = "That stable differs from itself"
"""Only where stable has pods enough for two halves; asked of a rollout that has, below."""


def test_a_placebo_is_shown_where_there_is_one(prometheus):
    (query,) = [text for title, _, text in queries(BOARDS["rollout"]) if title == EMPTY]

    (series,) = asked(prometheus, filled(query.replace('"$name"', '"ill"')))

    assert series["metric"] == {"guardrail": "errors"}
    assert float(series["value"][1]) >= 1


@pytest.mark.parametrize("name", BOARDS)
def test_what_is_chosen_from_is_there(name, prometheus):
    for each in BOARDS[name]["templating"]["list"]:
        if each["type"] == "query":
            text = re.fullmatch(r"label_values\((.+), (\w+)\)", each["query"]["query"])
            series = asked(prometheus, filled(text[1]))
            values = {one["metric"].get(text[2]) for one in series}
            assert values - {None}, each["name"]


def numbers(prometheus):
    """The fleet's counts by title."""
    return {
        panel["title"]: float(asked(prometheus, filled(panel["targets"][0]["expr"]))[0]["value"][1])
        for panel in BOARDS["fleet"]["panels"]
        if panel["type"] == "stat"
    }


def test_the_fleet_counts_each_rollout_once(prometheus):
    found = numbers(prometheus)

    assert found == {
        "Rolling out": 6,
        "Waiting for somebody": 2,
        "Rolling back": 1,
        "Rolled back": 2,
        "Stalled": 1,
        "Promoted": 1,
    }
    assert sum(found.values()) == len(WALKS)


def rows(prometheus, title, label):
    """What a table shows, by rollout."""
    (query,) = [text for panel, _, text in queries(BOARDS["fleet"]) if panel == title]
    return {
        (each["metric"]["name"], each["metric"][label]) for each in asked(prometheus, filled(query))
    }


def test_the_fleet_says_why(prometheus):
    assert rows(prometheus, "Rolled back, and why", "cause") == {
        ("rolled_back", "GuardrailBreached"),
        ("rolling_back", "GuardrailBreached"),
        ("aborted", "Aborted"),
    }
    assert rows(prometheus, "Stuck, blind or waiting", "reason") == {
        ("paused", "Paused"),
        ("awaiting_approval", "AwaitingApproval"),
        ("stalled", "RouteNotFound"),
        ("blind", "MetricsUnavailable"),
        ("ill", "PlaceboFailed"),
        ("misrouted", "SplitMismatch"),
        ("preparing", "CandidateNotReady"),
    }


@pytest.mark.parametrize("name", BOARDS)
def test_a_dashboard_has_no_panel_on_another_and_no_number_twice(name):
    panels = BOARDS[name]["panels"]
    cells = [
        (x, y)
        for each in panels
        for x in range(each["gridPos"]["x"], each["gridPos"]["x"] + each["gridPos"]["w"])
        for y in range(each["gridPos"]["y"], each["gridPos"]["y"] + each["gridPos"]["h"])
    ]

    assert len(cells) == len(set(cells))
    assert {x for x, _ in cells} <= set(range(24))
    assert len({each["id"] for each in panels}) == len(panels)


def test_a_table_leads_to_the_rollouts_own_dashboard():
    links = [
        prop["value"][0]["url"]
        for panel in BOARDS["fleet"]["panels"]
        for override in panel.get("fieldConfig", {}).get("overrides", [])
        for prop in override["properties"]
        if prop["id"] == "links"
    ]

    assert len(links) == 3
    assert all(each.startswith(f"/d/{BOARDS['rollout']['uid']}?") for each in links)
