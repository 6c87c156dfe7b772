"""Several operators at one real API server: each ModelRollout is one's, by its labels."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.shop import (
    DEPLOYMENTS,
    NAMESPACE,
    ROLLOUT,
    ROUTE,
    Plane,
    api_of,
    deployment,
    looping,
    operating,
    rollout,
    route,
    until,
)
from modelrollout.selector import parsed

LABEL = "modelrollout.dev/shard"
ROLLOUTS = ROLLOUT.removesuffix("/ranker")
EVENTS = f"/apis/events.k8s.io/v1/namespaces/{NAMESPACE}/events"
CONFIG_MAPS = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
KEYS = ("tier", "team", "modelrollout.dev/shard")
VALUES = ("gold", "silver", "")


@pytest.fixture(scope="module")
def api(kube):
    found = api_of(kube)
    kube.kubectl("create", "namespace", NAMESPACE)
    return found


@pytest.fixture(scope="module")
def shards(kube, api, server, tmp_path_factory):  # noqa: ARG001  # the CRDs come first
    """Operators for the shards a and b, each with a Lease of its own, and both at work."""
    with ExitStack() as running:
        found = {
            name: running.enter_context(
                operating(
                    tmp_path_factory.mktemp(name),
                    kube.kubeconfig(),
                    server.url,
                    SHARD_SELECTOR=f"{LABEL}={name}",
                    NAMESPACES=NAMESPACE,
                    LEASE_NAMESPACE=NAMESPACE,
                    IDENTITY=name,
                    SWEEP_SECONDS="1",
                )
            )
            for name in ("a", "b")
        }
        for each in found.values():
            until(each.leads, "the operator leads")
        yield found


@pytest.fixture
def tidy(api):
    """Takes away what a test has made."""
    yield
    for each in api.get(ROLLOUTS)["items"]:
        api.call("DELETE", f"{ROLLOUTS}/{each['metadata']['name']}")
    until(lambda: not api.get(ROLLOUTS)["items"], "the rollouts are gone")
    for path in (DEPLOYMENTS, EVENTS):
        api.call("DELETE", path)
    if api.find(ROUTE) is not None:
        api.call("DELETE", ROUTE)


def labelled(name, shard):
    body = rollout()
    labels = {} if shard is None else {LABEL: shard}
    return body | {"metadata": {"name": name, "labels": labels}}


def make(api, name, shard):
    api.call("POST", ROLLOUTS, labelled(name, shard))


def move(api, name, shard):
    api.merge(f"{ROLLOUTS}/{name}", {"metadata": {"labels": {LABEL: shard}}})


def carers(shards, name):
    """The operators that take care of a rollout, as they tell themselves."""
    return {
        shard
        for shard, each in shards.items()
        if each.metric("modelrollout_phase", name=name, namespace=NAMESPACE)
    }


def strangers_to(shards, name):
    """Those that have seen it, and take it for another's."""
    return {
        shard
        for shard, each in shards.items()
        if each.metric("modelrollout_other_shard", name=name, namespace=NAMESPACE)
    }


def events(api, name):
    return [
        (each["reason"], each["reportingInstance"])
        for each in api.get(EVENTS)["items"]
        if each["regarding"]["name"] == name
    ]


@pytest.mark.usefixtures("tidy")
def test_each_object_is_taken_care_of_by_one_operator_also_after_its_labels_change(api, shards):
    make(api, "first", "a")
    make(api, "second", "b")
    make(api, "nobodys", None)
    until(lambda: carers(shards, "first") == {"a"}, lambda: carers(shards, "first"))
    until(lambda: carers(shards, "second") == {"b"}, lambda: carers(shards, "second"))
    until(lambda: strangers_to(shards, "nobodys") == {"a", "b"}, "both see that it is not theirs")

    assert strangers_to(shards, "first") == {"b"}
    assert "status" not in api.get(f"{ROLLOUTS}/nobodys")

    move(api, "first", "b")
    until(lambda: carers(shards, "first") == {"b"}, lambda: carers(shards, "first"))
    until(lambda: strangers_to(shards, "first") == {"a"}, lambda: strangers_to(shards, "first"))
    told = ("HandedOver", f"modelrollout-operator, {LABEL}=a")
    until(lambda: told in events(api, "first"), lambda: events(api, "first"))
    move(api, "first", "a")
    until(lambda: carers(shards, "first") == {"a"}, lambda: carers(shards, "first"))
    move(api, "nobodys", "b")
    until(lambda: carers(shards, "nobodys") == {"b"}, lambda: carers(shards, "nobodys"))


@pytest.mark.usefixtures("tidy")
def test_a_rollout_goes_on_in_another_shard_and_a_rival_there_is_refused(api, shards, programs):
    plane = Plane(api, programs)
    with looping(plane.follow, 0.1), looping(plane.ask, 0.02):
        for version in (1, 2):
            api.call("POST", DEPLOYMENTS, deployment(version))
        api.call("POST", ROUTE.removesuffix("/ranker"), route())
        make(api, "ranker", "a")
        waits = {"phase": "Paused", "stepText": "2/5"}
        until(lambda: waits.items() <= status(api).items(), lambda: status(api).get("reason"))
        make(api, "rival", "b")
        until(lambda: "AlreadyClaimed" in reasons(api, "rival"), lambda: reasons(api, "rival"))

        move(api, "ranker", "b")
        until(lambda: carers(shards, "ranker") == {"b"}, lambda: carers(shards, "ranker"))
        before = writes(shards["a"])
        command = {"modelrollout.dev/command": "approve", "modelrollout.dev/by": "ada"}
        api.merge(ROLLOUT, {"metadata": {"annotations": command}})
        until(lambda: status(api)["phase"] == "Promoted", lambda: status(api).get("reason"))
        until(lambda: "finalizers" not in api.get(ROLLOUT)["metadata"], "traffic is at rest")
        decided = [each["what"] for each in reversed(status(api)["history"])]

    assert plane.shares == sorted(plane.shares)
    assert writes(shards["a"]) == before
    assert api.get(ROUTE)["metadata"]["generation"] == 1 + before + writes(shards["b"])
    assert [each for each in decided if each in {"Approved", "Promoted"}] == [
        "Approved",
        "Promoted",
    ]


def status(api):
    return api.get(ROLLOUT).get("status", {})


def reasons(api, name):
    found = api.get(f"{ROLLOUTS}/{name}").get("status", {})
    return {each["reason"] for each in found.get("conditions", [])}


def writes(operator):
    return operator.metric("modelrollout_route_writes_total")


def test_a_wrong_selector_ends_the_operator_with_one_sentence():
    command = [sys.executable, "-m", "modelrollout", "operator", "--shard-selector", "tier gold"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)

    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "MODELROLLOUT_SHARD_SELECTOR: 'tier gold' is not a label selector" in done.stderr


# --- selectors, as the API server understands them ------------------------------------------------


@pytest.fixture(scope="module")
def objects(api):
    """ConfigMaps with each choice of the labels; those of the same text are what a test compares."""
    found = []
    for index in range(4 ** len(KEYS)):
        choice = [(*VALUES, None)[index // 4**place % 4] for place in range(len(KEYS))]
        labels = {k: v for k, v in zip(KEYS, choice, strict=True) if v is not None}
        metadata = {"name": f"labelled-{index}", "labels": {**labels, "of": "selectors"}}
        api.call("POST", CONFIG_MAPS, {"metadata": metadata})
        found.append({"metadata": metadata})
    yield found
    api.call("DELETE", f"{CONFIG_MAPS}?labelSelector=of%3Dselectors")


KEY = st.sampled_from(KEYS)
LIST = st.lists(st.sampled_from(["gold", "silver", "x"]), min_size=1, max_size=3)
SPACE = st.sampled_from(["", " ", "  "])
REQUIREMENT = st.one_of(
    KEY,
    KEY.map("!{}".format),
    st.builds(
        "{0}{1}{2}{1}{3}".format,
        KEY,
        SPACE,
        st.sampled_from(["=", "==", "!="]),
        st.sampled_from(VALUES),
    ),
    st.builds(
        lambda key, word, names, space: f"{key} {word}{space}({f'{space},'.join(names)})",
        KEY,
        st.sampled_from(["in", "notin"]),
        LIST,
        SPACE,
    ),
)


@settings(max_examples=60)
@given(requirements=st.lists(REQUIREMENT, min_size=1, max_size=3))
def test_a_selector_selects_what_the_api_server_selects(api, objects, requirements):
    text = ",".join(requirements)
    asked = quote(f"{text},of=selectors", safe="")
    found = api.get(f"{CONFIG_MAPS}?labelSelector={asked}")["items"]
    chosen = parsed(text)
    ours = {each["metadata"]["name"] for each in objects if chosen.selects(each)}

    assert {each["metadata"]["name"] for each in found} == ours
