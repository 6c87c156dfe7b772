"""Checks by Job: made once, from what is there already, waited for, and never taken for another's."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from builders import a_rollout, a_workload
from modelrollout.adapters import check_jobs
from modelrollout.adapters.cluster import CRON_JOBS, JOBS
from modelrollout.api.conditions import Reason
from modelrollout.api.v1alpha1 import JobCheck, Phase
from modelrollout.core.observation import CheckResult
from modelrollout.errors import ClusterUnavailable, Conflict, NotFound, Refused
from walk import Walk

CHECK = JobCheck(cron_job="acceptance", timeout_seconds=600)
CRON_JOB: dict[str, Any] = {
    "metadata": {"name": "acceptance"},
    "spec": {
        "suspend": True,
        "jobTemplate": {
            "metadata": {"labels": {"team": "ranking"}},
            "spec": {
                "suspend": True,
                "backoffLimit": 0,
                "template": {
                    "spec": {
                        "restartPolicy": "Never",
                        "initContainers": [{"name": "data", "image": "registry/data:1"}],
                        "containers": [
                            {
                                "name": "test",
                                "image": "registry/test:1",
                                "env": [
                                    {"name": "MODELROLLOUT_SERVICE", "value": "elsewhere"},
                                    {"name": "LEVEL", "value": "info"},
                                ],
                            }
                        ],
                    }
                },
            },
        },
    },
}
CANDIDATE = a_workload("ranker-v2", "c1")


class Objects:
    """CronJobs and Jobs as an API server has them."""

    def __init__(self, *cron_jobs: Any, jobs: Any = (), refusal: Exception | None = None) -> None:
        self.found = {
            CRON_JOBS: {each["metadata"]["name"]: each for each in cron_jobs},
            JOBS: {each["metadata"]["name"]: each for each in jobs},
        }
        self.refusal = refusal
        self.made = 0

    async def get(self, resource, namespace, name):
        if self.refusal is not None:
            raise self.refusal
        if name not in self.found[resource]:
            raise NotFound(f"{namespace}/{name}")
        return self.found[resource][name]

    async def create(self, resource, namespace, body):
        if body["metadata"]["name"] in self.found[resource]:
            raise Conflict(namespace)
        self.made += 1
        self.found[resource][body["metadata"]["name"]] = body
        return body


def ran(cluster, name="ranker-acceptance-1", check=CHECK):
    return asyncio.run(check_jobs.run(check, name, a_rollout(), CANDIDATE, cluster))


def with_condition(kind, reason=""):
    """A cluster whose Job has ended."""
    cluster = Objects(CRON_JOB)
    ran(cluster)
    [job] = cluster.found[JOBS].values()
    job["status"] = {"conditions": [{"type": kind, "status": "True", "reason": reason}]}
    return cluster


# --- the Job ------------------------------------------------------------------------------------


def test_a_job_is_made_once_from_what_the_cron_job_says():
    cluster = Objects(CRON_JOB)
    results = [ran(cluster) for _ in range(3)]

    assert cluster.made == 1
    assert all(each.is_running and not each.passed for each in results)
    [job] = cluster.found[JOBS].values()
    assert job["spec"]["backoffLimit"] == 0
    assert job["metadata"]["labels"]["team"] == "ranking"
    assert job["metadata"]["ownerReferences"][0]["uid"] == a_rollout().uid
    [container] = job["spec"]["template"]["spec"]["containers"]
    assert (container["name"], container["image"]) == ("test", "registry/test:1")


def test_a_suspended_cron_job_makes_a_job_that_runs_and_ends():
    job = check_jobs.job_of(CHECK, "it", a_rollout(), CANDIDATE, CRON_JOB)
    assert job["spec"]["suspend"] is False
    assert job["spec"]["activeDeadlineSeconds"] == 600
    assert job["spec"]["ttlSecondsAfterFinished"] > 0


@pytest.mark.parametrize(("own", "expected"), [(60, 60), (9000, 600)])
def test_the_shorter_deadline_holds(own, expected):
    spec = CRON_JOB["spec"]["jobTemplate"]["spec"] | {"activeDeadlineSeconds": own}
    cron_job = {"spec": {"jobTemplate": {"spec": spec}}}
    job = check_jobs.job_of(CHECK, "it", a_rollout(), CANDIDATE, cron_job)
    assert job["spec"]["activeDeadlineSeconds"] == expected


def test_every_container_knows_the_candidate_and_keeps_its_own_settings():
    job = check_jobs.job_of(CHECK, "it", a_rollout(), CANDIDATE, CRON_JOB)
    pod = job["spec"]["template"]["spec"]
    for container in (*pod["initContainers"], *pod["containers"]):
        env = {each["name"]: each["value"] for each in container["env"]}
        assert env["MODELROLLOUT_CANDIDATE"] == "ranker-v2"
        assert env["MODELROLLOUT_SERVICE"] == "ranker-v2"
        assert env["MODELROLLOUT_PORT"] == "8080"
        assert env["MODELROLLOUT_REVISION"] == "c1"
    assert {"name": "LEVEL", "value": "info"} in pod["containers"][0]["env"]


# --- how it went --------------------------------------------------------------------------------


def test_a_complete_job_has_passed():
    assert ran(with_condition("Complete")) == CheckResult(passed=True)


def test_a_failed_job_is_final_and_says_how_to_see_why():
    result = ran(with_condition("Failed", "BackoffLimitExceeded"))
    assert result.is_final
    assert result.message == (
        "Job ranker-acceptance-1 failed (BackoffLimitExceeded): kubectl logs job/ranker-acceptance-1"
    )


def test_a_job_of_the_same_name_that_is_somebody_elses_is_not_believed():
    cluster = with_condition("Complete")
    [job] = cluster.found[JOBS].values()
    job["metadata"]["ownerReferences"][0]["uid"] = "another"
    result = ran(cluster)
    assert not result.passed
    assert "somebody else's" in result.message


@pytest.mark.parametrize(
    ("cluster", "says"),
    [
        (Objects(), "CronJob acceptance does not exist: create it"),
        (
            Objects(refusal=Refused('GET: 403 jobs is forbidden: cannot get resource "jobs"')),
            "jobChecks.enabled is false",
        ),
        (Objects(refusal=Refused("POST: 403 exceeded quota: jobs")), "exceeded quota"),
    ],
)
def test_a_job_that_cannot_be_made_says_what_to_do(cluster, says):
    result = ran(cluster)
    assert not result.passed
    assert not result.is_final
    assert says in result.message


def test_an_api_server_that_is_away_says_nothing_of_the_candidate():
    with pytest.raises(ClusterUnavailable):
        ran(Objects(refusal=ClusterUnavailable("503")))


# --- in a rollout -------------------------------------------------------------------------------

ACCEPTANCE = {"name": "acceptance", "job": {"cronJob": "acceptance"}}
RUNNING = CheckResult(passed=False, message="Job it is running", is_running=True)
FAILED = CheckResult(passed=False, message="Job it failed", is_final=True)
PASSED = CheckResult(passed=True)


def checked(*others):
    checks = [ACCEPTANCE, *others]
    strategy = {"type": "BlueGreen", "checks": checks, "checkSeconds": 30, "bake": {"seconds": 10}}
    return Walk(spec={"strategy": strategy})


def until_named(walk, **seen):
    for _ in range(20):
        walk.step(**seen)
        if walk.status.checks:
            return walk.status.checks[0].job
    raise AssertionError(walk.status.reason)


def test_the_name_of_the_job_is_in_status_before_it_is_made_and_stays():
    walk = checked()
    name = until_named(walk)
    assert len(name) <= 63
    for _ in range(5):
        walk.step(checks={"acceptance": RUNNING})
        assert walk.status.checks[0].job == name
    walk.until(Phase.BAKING, checks={"acceptance": PASSED})
    assert walk.status.checks[0].job == name
    assert walk.status.checks[0].passed


def test_a_job_may_take_longer_than_requests_are_repeated():
    walk = checked()
    for _ in range(60):
        plan = walk.step(checks={"acceptance": RUNNING})
        assert plan.traffic.candidate is None
    assert plan.status.reason == "check acceptance: Job it is running"
    assert walk.until(Phase.BAKING, checks={"acceptance": PASSED})


def test_a_request_that_fails_does_not_wait_for_the_job():
    walk = checked({"name": "ready", "http": {"path": "/"}})
    refused = CheckResult(passed=False, message="status 503, not 200")
    walk.until(Phase.ROLLED_BACK, limit=40, checks={"acceptance": RUNNING, "ready": refused})


def test_a_job_that_fails_rolls_back_at_once():
    walk = checked()
    until_named(walk)
    walk.step(seconds=1, checks={"acceptance": FAILED})
    assert walk.status.rejected.cause == Reason.CHECK_FAILED
    assert "check acceptance: Job it failed" in walk.status.rejected.message


def test_a_job_that_cannot_be_made_is_tried_for_as_long_as_requests():
    walk = checked()
    away = CheckResult(passed=False, message="CronJob acceptance does not exist")
    walk.until(Phase.ROLLED_BACK, limit=20, checks={"acceptance": away})


def test_a_retry_and_another_revision_have_jobs_of_their_own():
    walk = checked()
    first = until_named(walk)
    walk.until(Phase.ROLLED_BACK, checks={"acceptance": FAILED})
    walk.step(command="retry")
    second = until_named(walk)
    walk.step(candidate=a_workload("ranker-v2", "c2"))
    third = until_named(walk, candidate=a_workload("ranker-v2", "c2"))
    assert len({first, second, third}) == 3
