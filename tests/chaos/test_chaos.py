"""A sample of the faults of `make chaos-full`, and the points that once broke a rule."""

from __future__ import annotations

import contextlib
import json
import logging
import random

import pytest

from chaos.campaign import Case, all_points, crashes, disturbed, stalled, undisturbed
from chaos.disturbances import DISTURBANCES
from chaos.real import Client, RealRollouts
from chaos.run import Run
from chaos.sequences import failures
from chaos.stories import STORIES
from kube_apiserver import CRD_NAME
from modelrollout.errors import ClusterUnavailable, RolloutError


@pytest.fixture(autouse=True)
def _no_log_of_failed_passes():
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def drawn(cases: list[Case], size: int) -> list[Case]:
    return random.Random(7).sample(cases, size)


def broken(cases: list[Case]) -> dict[str, list[str]]:
    """What must not be, by case."""
    found = {case.name: case.failures(case.run()) for case in cases}
    return {name: failures for name, failures in found.items() if failures}


@pytest.mark.parametrize("name", STORIES)
def test_a_rollout_that_nobody_disturbs_ends_as_it_should(name):
    outcome = undisturbed(name)
    assert outcome.ending == STORIES[name].ending
    assert outcome.violations == ()
    assert outcome.left_behind == ()


@pytest.mark.parametrize("place", range(len(DISTURBANCES)), ids=list(DISTURBANCES))
def test_no_disturbance_breaks_a_rule(place):
    """Each with one rollout; `make chaos` has them all."""
    disturbance = list(DISTURBANCES.values())[place]
    stories = [each for each in STORIES.values() if disturbance.is_about(each)]
    assert broken([disturbed(disturbance, stories[place % len(stories)])]) == {}


@pytest.mark.parametrize("name", ["canary, bad", "deleted shadow"])
def test_whenever_the_operator_dies_the_next_one_comes_to_the_same_end(name):
    """The comparator's Deployment once said that all was there when its Service was not."""
    cases = list(crashes(STORIES[name]))
    told = undisturbed(name).history
    assert broken(cases) == {}
    assert {case.run().history for case in drawn(cases, 4)} == {told}


def test_what_was_decided_long_ago_is_not_written_any_more():
    """An operator that stood still once wrote its weights onto the route of a rollout that was gone."""
    cases = [each for each in stalled(STORIES["deleted canary"]) if "httproutes" in each.where]
    assert broken(drawn(cases, 16)) == {}


@pytest.mark.parametrize("kind", ["crashes", "bad answers", "stalls"])
def test_a_sample_of_all_points_breaks_no_rule(kind):
    assert broken(drawn(all_points()[kind], 6)) == {}


def test_no_sequence_of_edits_and_perturbations_breaks_a_rule():
    found = {number: failures(number) for number in range(16)}
    assert {number: each for number, each in found.items() if each} == {}


@pytest.mark.parametrize("number", [1, 3])
def test_a_sequence_breaks_no_rule_on_a_real_api_server(kube, number):
    """With its schema, its rules and its finalizers; what is simulated is the data plane."""
    kube.kubectl("create", "namespace", "sequences")
    with contextlib.closing(Client(kube, "sequences")) as real:
        assert failures(number, lambda clock: RealRollouts(clock, real)) == []


@pytest.fixture
def real(kube):
    """A namespace of its own."""
    kube.kubectl("create", "namespace", "disturbed")
    with contextlib.closing(Client(kube, "disturbed")) as client:
        yield client


def held(outcome):
    return (outcome.ending, outcome.violations, outcome.left_behind)


def test_a_rollout_goes_on_when_etcd_was_killed_under_its_operator(kube, real):
    """In the middle of a write, which the API server can then not answer well."""
    answers = []

    def killing(_run):
        async def fault(call, do):
            if answers or call.verb != "status" or call.write < 8:
                return do()
            kube.etcd.kill()
            try:
                return do()
            except RolloutError as error:
                answers.append(error)
                raise
            finally:
                kube.etcd.start()
                kube.await_start()

        return fault

    outcome = Run(STORIES["canary"], killing, lambda clock: RealRollouts(clock, real)).go()

    assert [type(each) for each in answers] == [ClusterUnavailable]
    assert held(outcome) == ("Promoted", (), ())


FUTURE = [
    f"/spec/versions/0/schema/openAPIV3Schema/properties/{part}/properties/tomorrow"
    for part in ("spec", "status")
]


def test_a_rollout_goes_on_when_its_crd_is_upgraded_meanwhile(kube, real):
    """With an optional field more in spec and status: nothing of the status is lost."""
    seen = []

    def patched(operation, **more):
        operations = json.dumps([{"op": operation, "path": each, **more} for each in FUTURE])
        done = kube.kubectl("patch", "crd", CRD_NAME, "--type=json", "-p", operations)
        assert done.returncode == 0, done.stderr

    def stored():
        address = ("modelrollout", "ranker", "-n", real.namespace, "-o", "json")
        return json.loads(kube.kubectl("get", *address).stdout)["status"]

    async def upgrade(run):
        await run.until(lambda status: "stepStartTime" in status and "checkpoint" in status)
        seen.append(stored())
        patched("add", value={"type": "string"})
        seen.append(stored())

    try:
        outcome = Run(STORIES["canary"], server_of=lambda clock: RealRollouts(clock, real)).go(
            upgrade
        )
        seen.append(stored())
    finally:
        patched("remove")

    before, after, end = seen
    assert before["checkpoint"]
    assert after == before
    assert end["history"][-len(before["history"]) :] == before["history"]
    assert held(outcome) == ("Promoted", (), ())
