"""When the operator looks: as soon as there is something to see, and not before."""

from __future__ import annotations

import pytest

from modelrollout.core.evidence import Grid
from modelrollout.core.samples import Scene, completed_at, rhythm_of
from simulation.worlds import ENVOY_ERRORS, a_manifest, a_world, after

LONG = {"minSeconds": 300, "maxSeconds": 300}
OTHER_LOOKS = 65
"""While the gateway takes up the weights of one step and of 100 %, four times a second."""
TARGET = (("pod", "a"),)


@pytest.mark.parametrize("seed", [1, 2, 5, 10])
def test_there_is_one_look_for_each_window_whenever_targets_are_scraped(seed):
    """At whatever time between two edges of the grid a scrape comes; and none more in the bake."""
    manifest = a_manifest(ENVOY_ERRORS, steps=(20,), step=LONG, bake=200)
    _, result = after(manifest, a_world(scrapeSeconds=5), seed)

    assert result.rollout_seconds > 500
    assert result.passes < result.rollout_seconds / 5 + OTHER_LOOKS


@pytest.mark.parametrize(
    ("last", "completed"),
    [
        pytest.param(96.0, 100.0, id="no scrape can come before the edge any more"),
        pytest.param(95.3, 100.3, id="the next scrape may be early, and in the window"),
        pytest.param(90.3, 100.3, id="one scrape was missed already"),
        pytest.param(101.0, 100.0, id="everything is there"),
    ],
)
def test_a_window_is_complete_when_no_scrape_can_be_in_it_any_more(last, completed):
    times = tuple(last - 5.0 * index for index in reversed(range(8)))
    scene = Scene((), {TARGET: times}, "", 0.0)
    rhythm = rhythm_of(Grid(start=0.0, width=5.0, watermark=95.0), scene)

    assert completed_at(100.0, scene, rhythm) == pytest.approx(completed)
