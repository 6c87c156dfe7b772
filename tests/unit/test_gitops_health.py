"""What Argo CD and Flux think of rollouts in all states: its Lua, and kstatus' rules."""

from __future__ import annotations

from pathlib import Path

import lupa
import pytest
import yaml

from walks import WALKS

EXAMPLES = Path(__file__).parents[2] / "examples"
HEALTH = yaml.safe_load((EXAMPLES / "argocd" / "health.yaml").read_text())["data"]
KEY = "resource.customizations.health.modelrollout.dev_ModelRollout"
EXPECTED = {
    "preparing": ("Progressing", "InProgress"),
    "progressing": ("Progressing", "InProgress"),
    "blind": ("Progressing", "InProgress"),
    "misrouted": ("Progressing", "InProgress"),
    "ill": ("Progressing", "InProgress"),
    "baking": ("Progressing", "InProgress"),
    "rolling_back": ("Progressing", "InProgress"),
    "paused": ("Suspended", "InProgress"),
    "awaiting_approval": ("Suspended", "InProgress"),
    "promoted": ("Healthy", "Current"),
    "rolled_back": ("Degraded", "Failed"),
    "aborted": ("Degraded", "Failed"),
    "stalled": ("Degraded", "Failed"),
}
"""Argo CD's word, and kstatus'."""


def recorded(place, generation=1):
    """The object as the API server has it."""
    status = WALKS[place]().status.to_dict()
    return {
        "apiVersion": "modelrollout.dev/v1alpha1",
        "kind": "ModelRollout",
        "metadata": {"name": "ranker", "namespace": "shop", "generation": generation},
        "status": status,
    }


def argo(body):
    """Argo CD's health, with no more of Lua than Argo CD gives."""
    lua = lupa.LuaRuntime(unpack_returned_tuples=True)
    for library in ("os", "io", "package", "debug", "require", "dofile", "loadfile"):
        lua.globals()[library] = None
    lua.globals().obj = table(lua, body)
    return dict(lua.execute(HEALTH[KEY]))


def table(lua, given):
    if isinstance(given, dict):
        return lua.table_from({key: table(lua, value) for key, value in given.items()})
    if isinstance(given, list | tuple):
        return lua.table_from([table(lua, value) for value in given])
    return given


def kstatus(body):
    """
    kstatus' rules for kinds that it does not know, in their order.

    As in sigs.k8s.io/cli-utils and its fork in Flux, pkg/kstatus/status.
    """
    meta, status = body["metadata"], body.get("status", {})
    if "deletionTimestamp" in meta:
        return "Terminating"
    if status.get("observedGeneration", meta["generation"]) != meta["generation"]:
        return "InProgress"
    told = {each["type"]: each["status"] for each in status.get("conditions", [])}
    if told.get("Reconciling") == "True":
        return "InProgress"
    if told.get("Stalled") == "True":
        return "Failed"
    if told.get("Ready") in {"False", "Unknown"}:
        return "InProgress"
    return "Current"


@pytest.mark.parametrize("place", WALKS)
def test_each_tool_calls_a_rollout_what_it_is(place):
    body = recorded(place)

    assert (argo(body)["status"], kstatus(body)) == EXPECTED[place]


@pytest.mark.parametrize("place", WALKS)
def test_argo_says_it_in_the_operators_words(place):
    body = recorded(place)

    assert body["status"]["reason"] in argo(body)["message"]


def test_a_spec_that_the_operator_has_not_seen_is_progressing():
    body = recorded("promoted", generation=2)

    assert (argo(body)["status"], kstatus(body)) == ("Progressing", "InProgress")


@pytest.mark.parametrize("status", [None, {}, {"observedGeneration": 1, "conditions": []}])
def test_an_object_without_a_status_is_progressing(status):
    body = recorded("promoted")
    del body["status"]
    if status is not None:
        body["status"] = status

    assert argo(body)["status"] == "Progressing"
