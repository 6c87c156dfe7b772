"""Checks by Job at a real API server: it takes the Job, and asks who may have one made."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from builders import a_rollout, a_spec, a_workload
from kube_apiserver import ApiServer
from modelrollout.adapters import check_jobs
from modelrollout.adapters.cluster import JOBS
from modelrollout.api.v1alpha1 import JobCheck
from modelrollout.errors import NotFound

CHART = Path(__file__).parents[2] / "charts" / "modelrollout"
EXAMPLE = Path(__file__).parents[2] / "examples" / "job-check.yaml"
Manifest = dict[str, Any]


class Objects:
    """Objects of the API server, by kubectl."""

    def __init__(self, kube: ApiServer, namespace: str) -> None:
        self.kube, self.namespace = kube, namespace

    def call(self, *arguments: str, body: Manifest | None = None, user: str = "admin") -> Any:
        options = ("--namespace", self.namespace, *arguments)
        stdin = None if body is None else json.dumps(body)
        return self.kube.kubectl(*options, stdin=stdin, token=user)

    async def get(self, resource: Any, _: str, name: str) -> Manifest:
        done = self.call("get", resource.plural, name, "-o", "json")
        if "NotFound" in done.stderr:
            raise NotFound(done.stderr)
        found: Manifest = json.loads(done.stdout)
        return found

    async def create(self, _: Any, __: str, body: Manifest) -> Manifest:
        done = self.call(
            "create", "-o", "json", "-f", "-", body=body | {"metadata": self.moved(body)}
        )
        assert done.returncode == 0, done.stderr
        made: Manifest = json.loads(done.stdout)
        return made

    def moved(self, body: Manifest) -> Manifest:
        meta: Manifest = body["metadata"] | {"namespace": self.namespace}
        return meta


@pytest.fixture
def objects(kube: ApiServer) -> Objects:
    found = Objects(kube, f"checks-{uuid4().hex[:6]}")
    assert kube.kubectl("create", "namespace", found.namespace).returncode == 0
    return found


def test_the_examples_cron_job_makes_a_job_that_the_api_server_takes(objects):
    text = EXAMPLE.read_text().replace("namespace: shop", f"namespace: {objects.namespace}")
    done = objects.kube.kubectl("apply", "-f", "-", stdin=text)
    assert done.returncode == 0, done.stderr
    check = JobCheck(cron_job="ranker-acceptance")

    result = asyncio.run(
        check_jobs.run(check, "it", a_rollout(), a_workload("ranker-v2", "c1"), objects)
    )

    assert result.message == "Job it is running"
    job = asyncio.run(objects.get(JOBS, objects.namespace, "it"))
    assert job["spec"].get("suspend", False) is False
    assert job["spec"]["activeDeadlineSeconds"] == 3600


@pytest.fixture
def policies(objects: Objects, helm: Any) -> Iterator[None]:
    """The chart's, for this namespace alone."""
    values = json.dumps({"watchNamespaces": [objects.namespace]})
    command = ["template", "checks", str(CHART), "--namespace", objects.namespace]
    done = helm(*command, "--show-only", "templates/admission.yaml", "-f", "-", stdin=values)
    assert done.returncode == 0, done.stderr
    assert objects.kube.kubectl("apply", "-f", "-", stdin=done.stdout).returncode == 0
    yield
    objects.kube.kubectl("delete", "-f", "-", stdin=done.stdout)


def grant(objects: Objects, user: str, *, with_jobs: bool) -> None:
    rights = [
        ("modelrollout.dev", "modelrollouts", "create"),
        ("gateway.networking.k8s.io", "httproutes", "patch"),
        ("apps", "deployments", "patch"),
        *([("batch", "jobs", "create")] if with_jobs else []),
    ]
    rules = [{"apiGroups": [g], "resources": [r], "verbs": [v]} for g, r, v in rights]
    head = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": user}}
    role = head | {"kind": "Role", "rules": rules}
    binding = head | {
        "kind": "RoleBinding",
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": user},
        "subjects": [{"kind": "User", "name": user}],
    }
    for body in (role, binding):
        done = objects.call("apply", "-f", "-", body=body)
        assert done.returncode == 0, done.stderr


def rollout(name: str, *checks: Manifest) -> Manifest:
    return {
        "apiVersion": "modelrollout.dev/v1alpha1",
        "kind": "ModelRollout",
        "metadata": {"name": name},
        "spec": a_spec(strategy={"checks": list(checks)}),
    }


def test_who_may_create_no_jobs_has_none_made(objects, policies):  # noqa: ARG001
    by_job = {"name": "accepts", "job": {"cronJob": "ranker-acceptance"}}
    by_request = {"name": "answers", "http": {"path": "/"}}
    grant(objects, "ada", with_jobs=True)
    grant(objects, "eve", with_jobs=False)
    dry = ("create", "--dry-run=server", "-f", "-")

    deadline = time.monotonic() + 60
    while True:
        refused = objects.call(*dry, body=rollout("job", by_job), user="eve")
        if "may not create Jobs" in refused.stderr or time.monotonic() > deadline:
            break
        time.sleep(0.5)

    assert "from CronJob ranker-acceptance, and eve may not create Jobs" in refused.stderr
    for user, check in (("ada", by_job), ("eve", by_request)):
        done = objects.call(*dry, body=rollout("job", check), user=user)
        assert done.returncode == 0, (user, done.stderr)
