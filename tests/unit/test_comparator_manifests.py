"""The comparator's objects: what a restricted namespace accepts, and the comparator understands."""

from __future__ import annotations

import asyncio
import copy

import click
import pytest

from builders import a_rollout
from modelrollout.adapters.cluster import CONFIG_MAPS, DEPLOYMENTS, SERVICES
from modelrollout.adapters.comparator import Comparators
from modelrollout.api.v1alpha1 import ModelRolloutStatus, VersionStatus
from modelrollout.cli import main
from modelrollout.core.observation import Comparator
from modelrollout.core.plan import COMPARATOR_PORT
from modelrollout.errors import NotFound, Refused
from modelrollout.shadow import settings
from modelrollout.shadow.answers import judge_of
from modelrollout.shadow.requests import selection_of

NAME = "ranker-comparator"
SHADOW = {
    "intent": "Equivalence",
    "idempotent": True,
    "paths": ["/v2/models"],
    "outputs": [{"name": "label", "path": "$.label", "exact": {"ignore": ["id"]}}],
    "force": [{"field": "temperature", "value": "0"}],
    "noiseFloor": {"share": "0.25"},
    "maxRequestsPerSecond": 200,
}
V1 = VersionStatus(deployment="ranker-v1", service="ranker", revision="s1")
V2 = VersionStatus(deployment="ranker-v2", service="ranker-v2", revision="c1", model_version="2")
ON_TRIAL = ModelRolloutStatus(stable=V1, candidate=V2)
FLIPS = {"guardrails": [{"name": "flips", "preset": "comparator/flips"}]}


def shadowed(**changes):
    shadow = changes.pop("shadow", SHADOW)
    spec = {"strategy": {"type": "Shadow"}, "shadow": shadow, "analysis": FLIPS}
    return a_rollout(**(spec | changes))


class Store:
    """The Kubernetes objects of one namespace, in memory."""

    def __init__(self):
        self.objects = {}

    async def get(self, resource, _namespace, name):
        try:
            return copy.deepcopy(self.objects[resource, name])
        except KeyError:
            raise NotFound(f"{resource.plural} {name}") from None

    async def apply(self, resource, _namespace, name, body):
        old = self.objects.get((resource, name))
        generation = 1 if old is None else old["metadata"]["generation"] + 1
        body = copy.deepcopy(body)
        body["metadata"]["generation"] = generation
        self.objects[resource, name] = body
        return body

    async def delete(self, resource, _namespace, name):
        self.objects.pop((resource, name), None)

    def is_available(self):
        """As its controller says when the Deployment's pod is ready."""
        live = self.objects[DEPLOYMENTS, NAME]
        live["status"] = {
            "observedGeneration": live["metadata"]["generation"],
            "updatedReplicas": 1,
            "availableReplicas": 1,
        }


def comparators(store, image="registry/operator:1", pull_policy="IfNotPresent"):
    return Comparators(store, image, pull_policy)


def deployed(rollout=None, known=ON_TRIAL, **given):
    """What is in the cluster after a deployment."""
    store = Store()
    asyncio.run(comparators(store, **given).deploy(rollout or shadowed(), known))
    return store


def seen(store, rollout=None, known=ON_TRIAL, **given):
    return asyncio.run(comparators(store, **given).observe(rollout or shadowed(), known))


def the_pod(store):
    return store.objects[DEPLOYMENTS, NAME]["spec"]["template"]


def the_container(store):
    (container,) = the_pod(store)["spec"]["containers"]
    return container


# --- a restricted namespace -----------------------------------------------------------------


def test_the_pod_keeps_to_the_restricted_pod_security_standard():
    pod = the_pod(deployed())["spec"]
    (container,) = pod["containers"]
    context = pod["securityContext"] | container["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] > 0
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert {"hostNetwork", "hostPID", "hostIPC"}.isdisjoint(pod)
    assert [set(each) for each in pod["volumes"]] == [{"name", "configMap"}]


def test_the_pod_can_write_nowhere_and_knows_no_token():
    pod = the_pod(deployed())["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert the_container(deployed())["securityContext"]["readOnlyRootFilesystem"] is True
    assert all(each["readOnly"] for each in the_container(deployed())["volumeMounts"])


def test_a_quota_can_count_the_pod():
    resources = the_container(deployed())["resources"]
    assert set(resources["requests"]) == {"cpu", "memory"}
    assert "memory" in resources["limits"]


def test_everything_belongs_to_the_rollout_and_goes_with_it():
    store = deployed()
    assert set(store.objects) == {(kind, NAME) for kind in (CONFIG_MAPS, DEPLOYMENTS, SERVICES)}
    for each in store.objects.values():
        (owner,) = each["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["uid"]) == ("ModelRollout", "ranker", "u-1")
        assert each["metadata"]["namespace"] == "shop"


def test_the_service_leads_to_the_pod_and_the_pod_to_the_configuration():
    store = deployed()
    service = store.objects[SERVICES, NAME]["spec"]
    labels = the_pod(store)["metadata"]["labels"]
    assert service["selector"].items() <= labels.items()
    assert store.objects[DEPLOYMENTS, NAME]["spec"]["selector"]["matchLabels"] == labels
    (volume,) = the_pod(store)["spec"]["volumes"]
    assert volume["configMap"]["name"] == NAME


# --- what the comparator is told ------------------------------------------------------------


def command_of(store):
    """The command that the container's arguments are, parsed by the program itself."""
    name, *arguments = the_container(store)["args"]
    command = main.get_command(click.Context(main), name)
    return command.make_context(name, arguments).params


def settings_of(store, folder):
    """What the comparator reads from the files that are mounted for it."""
    (mount,) = the_container(store)["volumeMounts"]
    for name, text in store.objects[CONFIG_MAPS, NAME]["data"].items():
        (folder / name).write_text(text)
    path = command_of(store)["config"]
    assert str(path.parent) == mount["mountPath"]
    return settings.read(folder / path.name)


def test_the_comparator_understands_its_configuration(tmp_path):
    rollout = shadowed()
    found = settings_of(deployed(rollout), tmp_path)
    assert found.shadow == rollout.spec.shadow
    assert (found.namespace, found.rollout) == ("shop", "ranker")
    assert found.stable == "http://ranker.shop.svc:8080"
    assert found.candidate == "http://ranker-v2.shop.svc:8080"
    assert (found.stable_version, found.candidate_version) == ("ranker-v1", "2")
    judge_of(found.shadow)
    selection_of(found.shadow)


def test_the_comparator_asks_at_the_port_of_the_versions(tmp_path):
    found = settings_of(deployed(shadowed(port=9000)), tmp_path)
    assert (found.stable, found.candidate) == (
        "http://ranker.shop.svc:9000",
        "http://ranker-v2.shop.svc:9000",
    )


def test_copies_metrics_and_probes_arrive_where_the_comparator_listens(tmp_path):
    store = deployed()
    found = settings_of(store, tmp_path)
    container = the_container(store)
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    assert ports == {"http": found.port, "metrics": found.metrics_port}
    served = store.objects[SERVICES, NAME]["spec"]["ports"]
    assert [(each["port"], each["targetPort"]) for each in served] == [
        (COMPARATOR_PORT, "http"),
        (found.metrics_port, "metrics"),
    ]
    probes = [container[f"{each}Probe"]["httpGet"] for each in ("startup", "readiness", "liveness")]
    assert probes == [{"path": "/healthz", "port": "metrics"}] * 3
    scraped = the_pod(store)["metadata"]["annotations"]
    assert scraped["prometheus.io/port"] == str(found.metrics_port)


def test_the_comparator_is_the_operators_own_image():
    container = the_container(deployed(image="registry/operator@sha256:12", pull_policy="Never"))
    assert container["image"] == "registry/operator@sha256:12"
    assert container["imagePullPolicy"] == "Never"


# --- what there is, against what is wanted --------------------------------------------------


def test_a_comparator_is_current_at_once_and_ready_when_its_pod_is():
    store = deployed()
    assert seen(store) == Comparator(exists=True, is_current=True)
    store.is_available()
    assert seen(store) == Comparator(exists=True, is_current=True, is_ready=True)


def test_a_comparator_whose_pod_is_gone_is_not_ready():
    store = deployed()
    store.is_available()
    store.objects[DEPLOYMENTS, NAME]["status"]["availableReplicas"] = 0
    assert seen(store) == Comparator(exists=True, is_current=True)


def test_a_deployment_that_its_controller_has_not_seen_is_not_ready():
    store = deployed()
    store.is_available()
    store.objects[DEPLOYMENTS, NAME]["metadata"]["generation"] += 1
    assert not seen(store).is_ready


@pytest.mark.parametrize(
    "changes",
    [
        {"shadow": SHADOW | {"noiseFloor": {"share": "0.5"}}},
        {"shadow": SHADOW | {"paths": ["/v2"]}},
        {"shadow": SHADOW | {"timeoutSeconds": 3}},
        {"port": 9000},
    ],
    ids=lambda it: str(*it),
)
def test_another_comparison_needs_another_comparator(changes):
    store = deployed()
    store.is_available()
    assert seen(store, shadowed(**changes)) == Comparator(exists=True)


@pytest.mark.parametrize(
    "known",
    [
        ON_TRIAL.model_copy(update={"candidate": V2.model_copy(update={"revision": "c2"})}),
        ON_TRIAL.model_copy(update={"candidate": V2.model_copy(update={"service": "other"})}),
        ON_TRIAL.model_copy(update={"candidate": V2.model_copy(update={"model_version": "3"})}),
        ON_TRIAL.model_copy(update={"stable": V1.model_copy(update={"revision": "s2"})}),
    ],
)
def test_other_versions_need_another_comparator_that_remembers_nothing(known):
    store = deployed()
    store.is_available()
    assert seen(store, known=known) == Comparator(exists=True)
    assert the_pod(deployed(known=known)) != the_pod(store)


@pytest.mark.parametrize("given", [{"image": "registry/operator:2"}, {"pull_policy": "Always"}])
def test_another_operator_brings_its_own_comparator(given):
    assert seen(deployed(), **given) == Comparator(exists=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"strategy": {"type": "Shadow", "steps": [{"mirror": 20}, {"mirror": 50}]}},
        {"analysis": FLIPS | {"intervalSeconds": 30}},
        {"paused": True},
        {"traffic": {"gatewayAPI": {"route": "other"}}},
        {"shadow": dict(reversed(SHADOW.items()))},
    ],
    ids=lambda it: str(*it),
)
def test_what_does_not_matter_to_the_comparison_leaves_the_comparator_alone(changes):
    store = deployed()
    store.is_available()
    assert seen(store, shadowed(**changes)).is_ready


def test_a_step_of_the_rollout_leaves_the_comparator_alone():
    store = deployed()
    store.is_available()
    later = ON_TRIAL.model_copy(update={"step": 1, "mirror": 50, "reason": "later"})
    assert seen(store, known=later).is_ready


def test_what_others_write_on_it_leaves_it_current():
    store = deployed()
    store.is_available()
    meta = store.objects[DEPLOYMENTS, NAME]["metadata"]
    meta["annotations"]["deployment.kubernetes.io/revision"] = "1"
    meta["labels"]["team"] = "ranking"
    assert seen(store).is_ready


# --- what is somebody else's ----------------------------------------------------------------


def test_there_is_none_at_first():
    assert seen(Store()) == Comparator()


@pytest.mark.parametrize("resource", [CONFIG_MAPS, DEPLOYMENTS, SERVICES])
def test_an_object_of_somebody_else_is_left_alone(resource):
    theirs = {"metadata": {"name": NAME, "generation": 1}, "data": "theirs"}
    store = Store()
    store.objects[resource, NAME] = theirs
    with pytest.raises(Refused, match=f"{NAME} exists and is not this operator's"):
        asyncio.run(comparators(store).deploy(shadowed(), ON_TRIAL))
    asyncio.run(comparators(store).remove(shadowed()))
    assert store.objects[resource, NAME] == theirs


@pytest.mark.parametrize("resource", [CONFIG_MAPS, DEPLOYMENTS, SERVICES])
def test_an_object_of_somebody_else_is_seen_before_anything_is_made(resource):
    store = Store()
    store.objects[resource, NAME] = {
        "metadata": {"name": NAME, "ownerReferences": [{"uid": "u-2"}]}
    }
    assert seen(store) == Comparator(is_taken=True)


def test_everything_is_removed_and_nothing_is_fine_too():
    store = deployed()
    for _ in range(2):
        asyncio.run(comparators(store).remove(shadowed()))
        assert store.objects == {}
