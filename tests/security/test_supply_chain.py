"""What the operator's image is made of is pinned, known, and under licences that fit its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "operator" / "requirements.lock").read_text()
DOCKERFILE = (ROOT / "operator" / "Dockerfile").read_text()
PINNED = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", LOCK, re.MULTILINE)
FITTING = {
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC0-1.0",
    "CNRI-Python",
    "ISC",
    "MIT",
    "MPL-2.0",
    "PSF-2.0",
    "Zlib",
}
"""Licences under which a work of Apache-2.0 may bring a library along, unchanged."""


@pytest.fixture(scope="module")
def bill():
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "sbom.py")], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def licences(component):
    (given,) = component["licenses"]
    return set(re.split(r" (?:AND|OR) ", given["expression"]))


def test_every_package_is_pinned_to_a_version_and_to_its_files():
    entries = re.split(r"^(?=[A-Za-z0-9])", LOCK, flags=re.MULTILINE)[1:]

    assert len(entries) == len(PINNED) > 40
    assert [each for each in entries if "--hash=sha256:" not in each] == []
    assert not re.search(r"^(-e|git\+|https?:|--index|--extra)", LOCK, re.MULTILINE)


def test_the_image_is_built_from_nothing_but_the_lock_file():
    installs = [line for line in DOCKERFILE.splitlines() if "pip" in line and "install" in line]

    assert installs
    assert all("--require-hashes" in each or "--no-index" in each for each in installs)
    assert all("--no-deps" in each for each in installs)
    assert re.search(r"^USER 65532:65532$", DOCKERFILE, re.MULTILINE)


def test_the_bill_of_materials_lists_the_lock_file_with_its_hashes(bill):
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["specVersion"] == "1.6"
    assert [(each["name"], each["version"]) for each in bill["components"]] == PINNED
    assert all(each["purl"].startswith("pkg:pypi/") for each in bill["components"])
    hashes = [each["value"] for component in bill["components"] for each in component["properties"]]
    assert sorted(hashes) == sorted(re.findall(r"sha256:([0-9a-f]{64})", LOCK))


def test_every_licence_fits_the_operators(bill):
    others = {
        each["name"]: sorted(licences(each) - FITTING)
        for each in bill["components"]
        if licences(each) - FITTING
    }

    assert others == {}


def test_an_audit_that_could_not_look_is_no_success():
    """Without its data pip-audit skips what it cannot find, and reports no vulnerability."""
    makefile = (ROOT / "Makefile").read_text()
    (command,) = [line for line in makefile.splitlines() if "bin/pip-audit " in line]

    assert "--strict" in command
    assert "--require-hashes" in command
