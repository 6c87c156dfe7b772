"""The route cannot be exchanged under a rollout: what was moved there would stay moved."""

from __future__ import annotations

import json

import pytest

from builders import a_spec

WHERE = ["modelrollouts", "ranker", "-n", "default"]


@pytest.fixture
def rollout(kube):
    body = {
        "apiVersion": "modelrollout.dev/v1alpha1",
        "kind": "ModelRollout",
        "metadata": {"name": "ranker", "namespace": "default"},
        "spec": a_spec(traffic={"gatewayAPI": {"route": "ranker", "rule": "main"}}),
    }
    done = kube.kubectl("create", "-f", "-", stdin=json.dumps(body))
    assert done.returncode == 0, done.stderr
    yield kube
    kube.kubectl("delete", *WHERE)


def set_status(kube, **status):
    patch = json.dumps({"status": status})
    done = kube.kubectl("patch", *WHERE, "--subresource=status", "--type=merge", "-p", patch)
    assert done.returncode == 0, done.stderr


def edit(kube, **gateway):
    patch = json.dumps({"spec": {"traffic": {"gatewayAPI": gateway}}})
    return kube.kubectl("patch", *WHERE, "--type=merge", "-p", patch)


@pytest.mark.parametrize("status", [{"weight": {"wanted": 20}}, {"mirror": 50}])
@pytest.mark.parametrize("gateway", [{"route": "other"}, {"rule": "other"}, {"rule": None}])
def test_while_requests_are_at_the_candidate_the_route_stays(rollout, status, gateway):
    set_status(rollout, **status)
    done = edit(rollout, **gateway)
    assert done.returncode != 0
    assert "abort the rollout first" in done.stderr
    set_status(rollout, weight={"wanted": 0}, mirror=None)
    assert edit(rollout, **gateway).returncode == 0


def test_status_can_be_written_whatever_it_says(rollout):
    set_status(rollout, weight={"wanted": 20})
    set_status(rollout, weight={"wanted": 0}, mirror=50)
