"""Objects for programs: as JSON and as YAML."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import yaml

DOCUMENTS: dict[str, Callable[[Any], str]] = {
    "json": lambda it: json.dumps(it, indent=2, ensure_ascii=False),
    "yaml": lambda it: yaml.safe_dump(it, sort_keys=False, allow_unicode=True).rstrip(),
}


def without_managers(body: dict[str, Any]) -> dict[str, Any]:
    """Without who wrote which field, as kubectl shows objects."""
    meta = {key: value for key, value in body["metadata"].items() if key != "managedFields"}
    return {**body, "metadata": meta}
