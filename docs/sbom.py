"""
Prints a software bill of materials of the operator's image: CycloneDX 1.6, as JSON.

What is in it comes from operator/requirements.lock, what its licences are from the metadata of the
same versions as they are installed. The same lock file gives the same text.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import uuid
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "operator" / "requirements.lock"
PIN = re.compile(
    r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;\\]+)(?P<rest>(?:.*\\\n)*.*)$", re.MULTILINE
)
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
SPDX = {
    "Apache 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "MIT License": "MIT",
}
"""What packages of before SPDX say instead."""
LONGEST_NAME = 30
"""Of a licence; longer ones are its text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """One package of the lock file."""

    name: str
    version: str
    hashes: tuple[str, ...]

    @property
    def purl(self) -> str:
        """The package's URL, as CycloneDX has it."""
        return f"pkg:pypi/{self.name}@{self.version}"


def pins(text: str) -> list[Pin]:
    """The packages of a lock file."""
    return [
        Pin(name=each["name"], version=each["version"], hashes=tuple(HASH.findall(each["rest"])))
        for each in PIN.finditer(text)
    ]


def licence_of(pin: Pin) -> str:
    """An SPDX expression; ValueError where the installed package is another one, or says nothing."""
    try:
        about = metadata(pin.name)
    except PackageNotFoundError as error:
        raise ValueError(f"{pin.name} is not installed: run `make setup`") from error
    if about["Version"] != pin.version:
        raise ValueError(f"{pin.name} is installed as {about['Version']}: run `make setup`")
    if about["License-Expression"]:
        return str(about["License-Expression"])
    classifiers = about.get_all("Classifier") or []
    named = [each.rpartition(" :: ")[2] for each in classifiers if each.startswith("License ::")]
    said = [
        each
        for each in [about["License"], *named]
        if each and "\n" not in each and len(each) < LONGEST_NAME
    ]
    if not said:
        raise ValueError(f"{pin.name} does not say under which licence it is")
    return SPDX.get(said[0], said[0])


def component(pin: Pin) -> dict[str, Any]:
    """A package as CycloneDX has it."""
    return {
        "type": "library",
        "bom-ref": pin.purl,
        "name": pin.name,
        "version": pin.version,
        "purl": pin.purl,
        "licenses": [{"expression": licence_of(pin)}],
        "properties": [
            {"name": "modelrollout:sha256-of-a-distribution", "value": each} for each in pin.hashes
        ],
    }


def bill(text: str) -> dict[str, Any]:
    """The whole document."""
    source = (ROOT / "operator" / "modelrollout" / "__init__.py").read_text()
    version = re.search(r'__version__ = "(.+)"', source)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, digest)}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "container",
                "bom-ref": "modelrollout-operator",
                "name": "modelrollout-operator",
                "version": version[1] if version else "",
                "licenses": [{"expression": "Apache-2.0"}],
            }
        },
        "components": [component(each) for each in pins(text)],
        "dependencies": [
            {"ref": "modelrollout-operator", "dependsOn": [each.purl for each in pins(text)]}
        ],
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(bill(LOCK.read_text()), indent=2) + "\n")
