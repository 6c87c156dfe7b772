"""
Checks of a candidate by a Job, made from the jobTemplate of a CronJob that is there already.

As `kubectl create job --from=cronjob/NAME` does. What runs is thus written by somebody who may
write CronJobs in the namespace, never by a ModelRollout: the operator is nobody's way to a pod. Of
its own the operator adds which version is checked, an end, and an owner.
"""

from __future__ import annotations

from typing import Protocol

from modelrollout.adapters.cluster import CRON_JOBS, JOBS, Object, Resource, owner_of
from modelrollout.api import v1alpha1 as api
from modelrollout.core.observation import CheckResult, Rollout, Workload
from modelrollout.errors import ClusterUnavailable, Conflict, NotFound, RolloutError


class Cluster(Protocol):
    """What is called of the Kubernetes API: see adapters/cluster.py."""

    async def get(self, resource: Resource, namespace: str, name: str) -> Object:
        """One object, or NotFound."""

    async def create(self, resource: Resource, namespace: str, body: Object) -> Object:
        """A new object, or Conflict."""


KEPT_SECONDS = 86_400
"""A Job that is over can be looked at for so long, if its template says nothing else."""
ENVIRONMENT = "MODELROLLOUT_"
NOT_ALLOWED = "the operator may make no Jobs: its chart's jobChecks.enabled is false"


async def run(
    check: api.JobCheck, name: str, rollout: Rollout, candidate: Workload, cluster: Cluster
) -> CheckResult:
    """Make the Job of this name, or look how it went. Every failure is a result with a sentence."""
    try:
        job = await _found_or_made(check, name, rollout, candidate, cluster)
    except NotFound:
        message = f"CronJob {check.cron_job} does not exist: create it, with suspend: true"
        return CheckResult(passed=False, message=message)
    except ClusterUnavailable:
        raise
    except RolloutError as error:
        said = NOT_ALLOWED if "cannot get resource" in str(error) else str(error)
        return CheckResult(passed=False, message=f"Job {name} could not be made: {said}")
    if not _is_ours(job, rollout):
        return CheckResult(
            passed=False, message=f"Job {name} is somebody else's: remove it", is_final=True
        )
    return result_of(job)


async def _found_or_made(
    check: api.JobCheck, name: str, rollout: Rollout, candidate: Workload, cluster: Cluster
) -> Object:
    try:
        return await cluster.get(JOBS, rollout.namespace, name)
    except NotFound:
        cron_job = await cluster.get(CRON_JOBS, rollout.namespace, check.cron_job)
    job = job_of(check, name, rollout, candidate, cron_job)
    try:
        return await cluster.create(JOBS, rollout.namespace, job)
    except Conflict:
        return await cluster.get(JOBS, rollout.namespace, name)


def job_of(
    check: api.JobCheck, name: str, rollout: Rollout, candidate: Workload, cron_job: Object
) -> Object:
    """The Job that a CronJob's template describes, for one candidate."""
    template = cron_job["spec"]["jobTemplate"]
    meta, spec = template.get("metadata") or {}, template["spec"]
    labels = {**(meta.get("labels") or {}), "modelrollout.dev/rollout": rollout.name}
    annotations = {
        **(meta.get("annotations") or {}),
        "cronjob.kubernetes.io/instantiate": "manual",
        "modelrollout.dev/candidate": f"{candidate.version.deployment} {candidate.version.revision}",
    }
    limit = spec.get("activeDeadlineSeconds") or check.timeout_seconds
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": rollout.namespace,
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [owner_of(rollout)],
        },
        "spec": {
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            **spec,
            "suspend": False,
            "activeDeadlineSeconds": min(limit, check.timeout_seconds),
            "template": _told(spec["template"], rollout, candidate),
        },
    }


def _told(template: Object, rollout: Rollout, candidate: Workload) -> Object:
    """The pod, with what it is to check in the environment of its containers."""
    assert rollout.spec is not None
    version = candidate.version
    given = {
        "CANDIDATE": version.deployment,
        "SERVICE": version.service,
        "PORT": str(rollout.spec.port),
        "REVISION": version.revision,
    }
    variables = [{"name": ENVIRONMENT + key, "value": value} for key, value in given.items()]
    names = {each["name"] for each in variables}
    pod = dict(template["spec"])
    for kind in ("initContainers", "containers"):
        pod[kind] = [
            {
                **each,
                "env": [e for e in each.get("env") or [] if e["name"] not in names] + variables,
            }
            for each in pod.get(kind) or []
        ]
    return {**template, "spec": pod}


def _is_ours(job: Object, rollout: Rollout) -> bool:
    owners = job["metadata"].get("ownerReferences") or []
    return any(each["uid"] == rollout.uid for each in owners)


def result_of(job: Object) -> CheckResult:
    """How it went."""
    name = job["metadata"]["name"]
    conditions = {
        each["type"]: each
        for each in job.get("status", {}).get("conditions") or []
        if each["status"] == "True"
    }
    if "Complete" in conditions:
        return CheckResult(passed=True)
    if "Failed" in conditions:
        reason = conditions["Failed"].get("reason", "")
        message = f"Job {name} failed ({reason}): kubectl logs job/{name}"
        return CheckResult(passed=False, message=message, is_final=True)
    return CheckResult(passed=False, message=f"Job {name} is running", is_running=True)
