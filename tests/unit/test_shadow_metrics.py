"""What the comparator tells is bounded, there from the start, and explained."""

import re
from pathlib import Path

from modelrollout.api.shadow import Shadow
from modelrollout.shadow.answers import judge_of
from modelrollout.shadow.metrics import PREFIX, Loss, Metrics, Side, Skip
from modelrollout.shadow.requests import NEVER, PASSED_ON

PAGE = (Path(__file__).parents[2] / "docs" / "shadow.md").read_text()
SPEC = {"intent": "Change", "idempotent": True, "paths": ["/"], "format": "OpenAIChat"}


def families():
    metrics = Metrics("ranker", judge_of(Shadow.model_validate(SPEC)).outputs)
    return [each for each in metrics.registry.collect() if each.name.startswith(PREFIX)]


def test_every_metric_is_explained():
    names = {
        each.name.removeprefix(f"{PREFIX}_") + ("_total" if each.type == "counter" else "")
        for each in families()
    }

    assert len(names) > 15
    assert [
        each for each in names if not re.search(rf"^\|.*`{each}[`{{]", PAGE, re.MULTILINE)
    ] == []


def test_every_reason_and_side_is_explained():
    words = {each.value for kind in (Skip, Loss, Side) for each in kind}

    assert [each for each in words if f"`{each}`" not in PAGE] == []


def test_every_header_that_is_passed_on_is_named():
    assert [each for each in PASSED_ON if f"`{each}`" not in PAGE] == []
    assert PASSED_ON.isdisjoint(NEVER)


def test_every_series_has_the_rollout_and_is_at_zero():
    samples = [
        sample
        for family in families()
        for sample in family.samples
        if not sample.name.endswith(("_created", "_admitted_share"))
    ]

    assert {sample.labels["rollout"] for sample in samples} == {"ranker"}
    assert {sample.value for sample in samples} == {0}


def test_series_are_few_enough_for_any_prometheus():
    eight = [{"name": f"o{i}", "path": f"$.o{i}", "exact": {}} for i in range(8)]
    shadow = Shadow.model_validate(SPEC | {"outputs": eight})
    metrics = Metrics("ranker", judge_of(shadow).outputs)

    assert sum(len(each.samples) for each in metrics.registry.collect()) < 700
