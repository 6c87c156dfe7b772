"""A real API server on the comparator's objects, in a namespace of restricted Pod Security."""

from __future__ import annotations

import json

import pytest

from builders import a_rollout
from modelrollout.adapters.comparator import configuration, manifests
from modelrollout.api.v1alpha1 import VersionStatus

SHADOW = {"intent": "Change", "idempotent": True, "paths": ["/v2"], "format": "OpenInference"}
ERRORS = {"guardrails": [{"name": "errors", "preset": "comparator/errors"}]}


@pytest.fixture(scope="module")
def objects(namespace):
    """By kind; their owner need not exist for a dry run."""
    rollout = a_rollout(shadow=SHADOW, strategy={"type": "Shadow"}, analysis=ERRORS)
    stable, candidate = (
        VersionStatus(deployment=each, service=each, revision="r1")
        for each in ("ranker-v1", "ranker-v2")
    )
    given = configuration(rollout, stable, candidate)
    found = [body for _, body in manifests(rollout, given, "r1 r1", "modelrollout", "Never")]
    return {
        each["kind"]: {**each, "metadata": {**each["metadata"], "namespace": namespace}}
        for each in found
    }


@pytest.mark.parametrize("kind", ["ConfigMap", "Deployment", "Service"])
def test_the_api_server_accepts_the_comparators_objects_without_a_warning(kind, objects, kubectl):
    body = json.dumps(objects[kind])

    done = kubectl("apply", "--server-side", "--dry-run=server", "-f", "-", stdin=body)

    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_a_restricted_namespace_accepts_the_comparators_pod(objects, namespace, kubectl):
    template = objects["Deployment"]["spec"]["template"]
    metadata = {**template["metadata"], "name": "comparator", "namespace": namespace}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}

    done = kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(body))

    assert done.returncode == 0, done.stderr


def test_that_namespace_refuses_a_pod_that_may_become_root(objects, namespace, kubectl):
    template = objects["Deployment"]["spec"]["template"]
    metadata = {"name": "comparator", "namespace": namespace}
    spec = {**template["spec"], "securityContext": {}}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}

    done = kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(body))

    assert 'violates PodSecurity "restricted' in done.stderr
