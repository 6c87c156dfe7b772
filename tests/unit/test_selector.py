"""Which ModelRollouts an operator takes care of, by their labels."""

from __future__ import annotations

import pytest

from modelrollout.selector import EVERYTHING, parsed

GOLD = {"tier": "gold", "modelrollout.dev/shard": "a"}
SILVER = {"tier": "silver"}
BARE: dict[str, str] = {}


def those(selector):
    given = {"gold": GOLD, "silver": SILVER, "bare": BARE}
    chosen = parsed(selector)
    return {name for name, each in given.items() if chosen.selects({"metadata": {"labels": each}})}


@pytest.mark.parametrize(
    ("selector", "selected"),
    [
        ("", {"gold", "silver", "bare"}),
        ("tier=gold", {"gold"}),
        (" tier == gold ", {"gold"}),
        ("tier!=gold", {"silver", "bare"}),
        ("tier in (gold, silver)", {"gold", "silver"}),
        ("tier in (bronze,gold)", {"gold"}),
        ("tier notin (gold)", {"silver", "bare"}),
        ("tier", {"gold", "silver"}),
        ("!tier", {"bare"}),
        ("!modelrollout.dev/shard", {"silver", "bare"}),
        ("tier,!modelrollout.dev/shard", {"silver"}),
        ("tier in (gold, silver),tier!=silver,modelrollout.dev/shard=a", {"gold"}),
        ("tier=", set()),
        ("in in (in)", set()),
    ],
)
def test_a_selector_means_what_it_means_to_kubectl(selector, selected):
    assert those(selector) == selected


def test_an_object_without_labels_is_everybodys_unless_labels_are_asked_for():
    bare = {"metadata": {"name": "ranker"}}

    assert EVERYTHING.selects(bare)
    assert parsed("!tier").selects(bare)
    assert not parsed("tier").selects(bare)


@pytest.mark.parametrize(
    ("selector", "wrong"),
    [
        ("tier gold", "tier gold"),
        ("tier=gold silver", "tier=gold silver"),
        ("tier=gold,", ""),
        ("tier=gold,,x", ",x"),
        ("tier=gold,tier in ()", "tier in ()"),
        ("tier in gold", "tier in gold"),
        ("tier>3", "tier>3"),
        ("tier=-gold", "tier=-gold"),
        ("tier=" + "g" * 64, "tier=" + "g" * 64),
        ("a..b/tier=gold", "a..b/tier=gold"),
        ("Team/tier", "Team/tier"),
        ("a/" * 2 + "tier", "a/a/tier"),
    ],
)
def test_what_is_no_selector_is_refused_with_the_place_and_the_remedy(selector, wrong):
    with pytest.raises(ValueError, match="is not a label selector") as caught:
        parsed(selector)

    assert f"it goes wrong at {wrong!r}; write it as tier=gold, " in str(caught.value)
