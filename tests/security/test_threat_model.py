"""The threat model names the tests that show it, and they are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()
TESTS = {
    name
    for folder in ("tests", "e2e")
    for path in (ROOT / folder).rglob("test_*.py")
    for name in re.findall(r"^\s*(?:async )?def (test_\w+)\(", path.read_text(), re.MULTILINE)
}
NAMED = sorted(set(re.findall(r"`(test_\w+)`", PAGE)))
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.partition("## Queries")[2].splitlines()
    if line.startswith("|") and not set(line) <= set("|- ")
]
THREATS = [row for row in ROWS if row != ["threat", "what protects", "shown by"]]


@pytest.mark.parametrize("name", NAMED)
def test_each_test_that_the_threat_model_names_exists(name):
    assert name in TESTS


def test_each_threat_has_a_protection_and_but_for_others_work_a_test():
    without = [row[0] for row in THREATS if "`test_" not in row[2]]

    assert len(THREATS) > 30
    assert all(len(row) == 3 and row[1] for row in THREATS)
    assert without == ["label expressions that backtrack"]


def test_the_policy_for_reports_leads_to_the_threat_model():
    assert "(docs/security.md)" in (ROOT / "SECURITY.md").read_text()
