"""The pages say what the code has: every reason, metric and condition, and no dead links."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY, Counter

import operator_chart
from modelrollout import settings, telemetry
from modelrollout.adapters.slack import ADVICE, message
from modelrollout.api.conditions import Reason, Type
from modelrollout.core.audit import Record
from modelrollout.core.observation import Verb

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
OPERATIONS = (DOCS / "operations.md").read_text()
DECISIONS = sorted((DOCS / "adr").glob("*.md"))
PAGES = sorted(
    {
        *ROOT.glob("*.md"),
        *(page for folder in ("docs", "charts", "e2e") for page in (ROOT / folder).rglob("*.md")),
    }
)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def section(title: str) -> str:
    """The text below a heading of the second level."""
    return OPERATIONS.split(f"\n## {title}\n")[1].split("\n## ")[0]


def headings(text: str, level: int) -> list[str]:
    return re.findall(rf"^{'#' * level} (.+)$", text, flags=re.MULTILINE)


def metrics() -> Iterator[str]:
    counters = (each for each in vars(telemetry).values() if isinstance(each, Counter))
    suffixes = {metric.name: "_total" for each in counters for metric in each.describe()}
    for each in REGISTRY.collect():
        if each.name.startswith("modelrollout_"):
            yield f"{each.name}{suffixes.get(each.name, '')}"


def links(page: Path) -> list[str]:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    found = [target.partition("#")[0] for target in LINK.findall(text)]
    return [target for target in found if target and "://" not in target]


def test_the_runbook_has_one_heading_for_each_reason():
    told = headings(section("Runbook by reason"), 3)

    assert sorted(told) == sorted(Reason)


@pytest.mark.parametrize("kind", Type)
def test_the_table_of_conditions_has_each_type(kind):
    assert f"| `{kind}` |" in section("Conditions")


@pytest.mark.parametrize("verb", Verb)
def test_each_command_has_an_example(verb):
    assert f"modelrollout.dev/command={verb} " in section("Commands")


@pytest.mark.parametrize("metric", sorted(metrics()))
def test_each_metric_of_the_operator_is_explained(metric):
    assert re.search(rf"^\| `{metric}[`{{]", OPERATIONS, flags=re.MULTILINE)


def test_web_hooks_can_choose_among_the_decisions_that_the_table_of_events_has():
    rows = re.findall(r"^\| (`.+?) \| (?:Normal|Warning)", section("Events"), flags=re.MULTILINE)
    told = {word for row in rows for word in re.findall(r"`(\w+)`", row)}

    assert told == settings.DECISIONS | {"WebhookUnknown", "HandedOver"}
    assert set(ADVICE) == settings.DECISIONS


def test_each_setting_is_explained():
    source = (ROOT / "operator" / "modelrollout" / "settings.py").read_text()
    names = set(re.findall(r'\bget\("([A-Z_]+)"', source))

    assert names
    assert [name for name in sorted(names) if f"`MODELROLLOUT_{name}`" not in OPERATIONS] == []


def test_the_generated_pages_are_what_the_generator_writes():
    done = subprocess.run(
        [sys.executable, str(DOCS / "generate.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_a_decision_has_its_four_parts(page):
    assert headings(page.read_text(), 2) == ["Context", "Decision", "Consequences", "Rejected"]


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_a_decision_is_titled_with_its_number(page):
    assert page.read_text().startswith(f"# {page.stem[:4]}: ")


def test_no_two_decisions_have_the_same_number():
    numbers = [page.stem[:4] for page in DECISIONS]

    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_point_to_files_that_are_there(page):
    assert [each for each in links(page) if not (page.parent / each).exists()] == []


def test_the_tutorial_installs_what_the_scenarios_install(helm):
    page = (DOCS / "tutorial.md").read_text()
    block = re.search(r"<!-- install -->\n```console\n(.*?)```", page, flags=re.DOTALL).group(1)
    line = block.replace("\\\n", " ").split("$ helm upgrade --install ")[1].split("\n")[0]
    done = helm("template", *shlex.split(line))

    assert done.returncode == 0, done.stderr
    image = "{repository}:{tag}".format(**operator_chart.IMAGE)
    assert f"image: {image}" in done.stdout.replace('"', "")
    assert operator_chart.PROMETHEUS in done.stdout


def test_the_message_on_the_page_is_that_of_the_record_on_the_other_page():
    (line,) = re.findall(r"```json\n(\{\"id\".*?)\n```", (DOCS / "audit.md").read_text())
    body = json.loads(line)
    record = Record(
        **{key: body[key] for key in ("id", "time", "decision", "namespace", "rollout")}, body=body
    )
    (shown,) = re.findall(
        r"```text\n(.*?)\n```", (DOCS / "notifications.md").read_text(), flags=re.DOTALL
    )

    assert message(record)["text"] == shown
