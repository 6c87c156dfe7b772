"""The chart, rendered by the real helm: exactly the rights that are used, and nothing nonsensical."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from modelrollout import __version__
from modelrollout.adapters.cluster import COMPARATOR_RBAC, JOB_CHECK_RBAC, LEASE_RBAC, RBAC
from modelrollout.core.observation import Verb
from modelrollout.selector import parsed
from modelrollout.settings import (
    Audience,
    Provider,
    Settings,
    Webhook,
    WebhookFormat,
    from_environment,
)

CHART = Path(__file__).parents[2] / "charts" / "modelrollout"
Manifest = dict[str, Any]
Render = Callable[..., list[Manifest]]
NAMESPACE = "modelrollout-system"
VALUES: Manifest = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA: Manifest = json.loads((CHART / "values.schema.json").read_text())
TWO = {"watchNamespaces": ["shop", "bank"]}
PEOPLE = ("view", "edit", "approver")
POLICY = "ValidatingAdmissionPolicy"
MODES = {"the whole cluster": {}, "two namespaces": TWO}


@pytest.fixture(scope="module")
def render(helm) -> Render:
    def rendered(values: Manifest | None = None, namespace: str = NAMESPACE) -> list[Manifest]:
        command = ["template", "modelrollout", str(CHART), "--namespace", namespace]
        done = helm(*command, "--values", "-", stdin=json.dumps(values or {}))
        assert done.returncode == 0, done.stderr
        return [each for each in yaml.safe_load_all(done.stdout) if each]

    return rendered


def of_kind(objects: Iterable[Manifest], kind: str) -> list[Manifest]:
    return [each for each in objects if each["kind"] == kind]


def the(objects: Iterable[Manifest], kind: str) -> Manifest:
    (found,) = of_kind(objects, kind)
    return found


def pod_of(objects: Iterable[Manifest]) -> Manifest:
    pod: Manifest = the(objects, "Deployment")["spec"]["template"]
    return pod


def container_of(objects: Iterable[Manifest]) -> Manifest:
    (container,) = pod_of(objects)["spec"]["containers"]
    return container


def verbs_of(role: Manifest) -> Mapping[tuple[str, str], frozenset[str]]:
    verbs: dict[tuple[str, str], set[str]] = defaultdict(set)
    for rule in role["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                verbs[group, resource].update(rule["verbs"])
    return {key: frozenset(value) for key, value in verbs.items()}


def is_for_people(role: Manifest) -> bool:
    return role["metadata"]["name"].rpartition("-")[2] in PEOPLE


def cluster_roles(objects: Iterable[Manifest], *, for_people: bool) -> list[Manifest]:
    found = of_kind(objects, "ClusterRole")
    return [each for each in found if is_for_people(each) is for_people]


def is_leader_role(role: Manifest) -> bool:
    return ("coordination.k8s.io", "leases") in verbs_of(role)


@pytest.mark.parametrize("values", MODES.values(), ids=MODES)
def test_helm_finds_nothing_to_complain_about(values, helm):
    done = helm("lint", "--strict", str(CHART), "--values", "-", stdin=json.dumps(values))

    assert done.returncode == 0, done.stdout


def test_the_cluster_role_grants_exactly_what_is_called(render):
    objects = render()

    assert [verbs_of(each) for each in cluster_roles(objects, for_people=False)] == [RBAC]
    assert [is_leader_role(each) for each in of_kind(objects, "Role")] == [True]


def test_jobs_can_be_made_only_where_the_administrator_wants_checks_by_job(render):
    (role,) = cluster_roles(render({"jobChecks": {"enabled": True}}), for_people=False)

    assert verbs_of(role) == {**RBAC, **JOB_CHECK_RBAC}


def test_with_namespaces_a_role_in_each_grants_exactly_what_is_called(render):
    objects = render(TWO)
    roles = [each for each in of_kind(objects, "Role") if not is_leader_role(each)]

    assert {each["metadata"]["namespace"]: verbs_of(each) for each in roles} == {
        "shop": RBAC,
        "bank": RBAC,
    }
    assert cluster_roles(objects, for_people=False) + of_kind(objects, "ClusterRoleBinding") == []


def without(rbac: Mapping[tuple[str, str], frozenset[str]], *gone: Any) -> Any:
    """Rights without some of their verbs; what has none left is not named at all."""
    left = {
        key: verbs - frozenset().union(*(e.get(key, ()) for e in gone))
        for key, verbs in rbac.items()
    }
    return {key: verbs for key, verbs in left.items() if verbs}


def test_without_shadows_no_deployment_can_be_made_changed_or_removed(render):
    off = {"shadow": {"enabled": False}}
    (role,) = cluster_roles(render(off), for_people=False)
    (neither,) = cluster_roles(render(off | {"traces": False}), for_people=False)
    config_maps = {("", "configmaps"): {"get", "create", "patch"}}

    assert verbs_of(role) == without(RBAC, COMPARATOR_RBAC)
    assert verbs_of(role)["apps", "deployments"] == {"get", "list", "watch"}
    assert verbs_of(neither) == without(RBAC, COMPARATOR_RBAC, config_maps)


@pytest.mark.parametrize("values", MODES.values(), ids=MODES)
def test_the_lease_is_granted_in_the_releases_namespace_and_by_name(values, render):
    objects = render(values)
    (role,) = [each for each in of_kind(objects, "Role") if is_leader_role(each)]
    (name,) = [
        each["value"]
        for each in container_of(objects)["env"]
        if each["name"] == "MODELROLLOUT_LEASE_NAME"
    ]

    assert verbs_of(role) == LEASE_RBAC
    assert role["metadata"].get("namespace", NAMESPACE) == NAMESPACE
    assert {tuple(each.get("resourceNames", ())): each["verbs"] for each in role["rules"]} == {
        (): ["create"],
        (name,): ["get", "update"],
    }


@pytest.mark.parametrize("values", MODES.values(), ids=MODES)
def test_every_role_is_bound_to_the_account_of_the_pods(values, render):
    objects = render(values)
    account = pod_of(objects)["spec"]["serviceAccountName"]
    subject = {"kind": "ServiceAccount", "name": account, "namespace": NAMESPACE}

    def address(kind: str, each: Manifest) -> tuple[str, str, str]:
        return kind, each["metadata"].get("namespace", ""), each["metadata"]["name"]

    bound = set()
    for kind in ("Role", "ClusterRole"):
        for binding in of_kind(objects, f"{kind}Binding"):
            role = binding["roleRef"]
            assert binding["subjects"] == [subject]
            bound.add((role["kind"], binding["metadata"].get("namespace", ""), role["name"]))
    roles = {
        address(kind, each)
        for kind in ("Role", "ClusterRole")
        for each in of_kind(objects, kind)
        if not is_for_people(each)
    }

    assert bound == roles
    assert the(objects, "ServiceAccount")["metadata"]["name"] == account


def test_a_given_account_is_bound_and_not_made(render):
    objects = render({"serviceAccount": {"create": False, "name": "mine"}})

    assert of_kind(objects, "ServiceAccount") == []
    assert pod_of(objects)["spec"]["serviceAccountName"] == "mine"
    assert the(objects, "ClusterRoleBinding")["subjects"][0]["name"] == "mine"


def verbs_for(objects: Iterable[Manifest], name: str) -> Mapping[tuple[str, str], frozenset[str]]:
    (role,) = [e for e in of_kind(objects, "ClusterRole") if e["metadata"]["name"].endswith(name)]
    return verbs_of(role)


def commands_of(objects: Iterable[Manifest], name: str) -> set[str]:
    """The commands that a role for people allows."""
    return {
        resource.removeprefix("modelrollouts/")
        for (group, resource), verbs in verbs_for(objects, name).items()
        if group == "modelrollout.dev" and "/" in resource and "update" in verbs
    }


def test_whoever_edits_may_stop_and_go_on_and_an_approver_may_do_everything(render):
    objects = render()
    rollouts = ("modelrollout.dev", "modelrollouts")

    assert commands_of(objects, "-view") == set()
    assert commands_of(objects, "-edit") == {"abort", "pause", "resume", "retry"}
    assert commands_of(objects, "-approver") == set(Verb)
    assert verbs_for(objects, "-view") == {rollouts: {"get", "list", "watch"}}
    assert verbs_for(objects, "-approver")[rollouts] == {"get", "list", "watch", "patch"}
    assert "create" in verbs_for(objects, "-edit")[rollouts]


def test_nobody_is_an_approver_without_being_named(render):
    prefix = "rbac.authorization.k8s.io/aggregate-to-"

    def targets(**values: Any) -> list[list[str]]:
        roles = cluster_roles(render({"userRoles": values}), for_people=True)
        labels = [each["metadata"]["labels"] for each in roles]
        return [[key[len(prefix) :] for key in each if key.startswith(prefix)] for each in labels]

    assert targets() == [["view"], ["edit"], []]
    assert targets(aggregate=False) == [[], [], []]
    assert targets(create=False) == []


def test_the_policy_knows_every_command(render):
    objects = render()
    (policy,) = [e for e in of_kind(objects, POLICY) if "-commands." in e["metadata"]["name"]]
    variables = {each["name"]: each["expression"] for each in policy["spec"]["variables"]}
    word, *_ = policy["spec"]["validations"]

    assert set(json.loads(variables["verbs"].replace("'", '"'))) == set(Verb)
    assert [verb for verb in Verb if verb.value not in word["message"]] == []


def test_only_the_operator_may_say_that_a_command_was_carried_out(render):
    """The policy believes whoever may write the status."""
    roles = [verbs_of(each) for each in cluster_roles(render(), for_people=True)]

    assert [each for each in roles if ("modelrollout.dev", "modelrollouts/status") in each] == []
    assert "update" in RBAC["modelrollout.dev", "modelrollouts/status"]


@pytest.mark.parametrize("values", MODES.values(), ids=MODES)
def test_a_policy_denies_where_the_operator_works(values, render):
    objects = render(values)
    bindings = of_kind(objects, f"{POLICY}Binding")
    policies = of_kind(objects, POLICY)

    assert [each["spec"]["policyName"] for each in bindings] == [
        each["metadata"]["name"] for each in policies
    ]
    assert {each["spec"]["failurePolicy"] for each in policies} == {"Fail"}
    for each in bindings:
        assert each["spec"]["validationActions"] == ["Deny"]
        resources = each["spec"].get("matchResources")
        if values:
            (namespaces,) = resources["namespaceSelector"]["matchExpressions"]
            assert namespaces["values"] == values["watchNamespaces"]
        else:
            assert resources is None


@pytest.mark.parametrize(
    ("admission", "left"),
    [({}, 2), ({"commands": False}, 1), ({"references": False}, 1)],
    ids=["both", "no commands", "no references"],
)
def test_each_policy_can_be_left_out_with_its_binding(admission, left, render):
    objects = render({"admission": admission})

    assert len(of_kind(objects, POLICY)) == left
    assert len(of_kind(objects, f"{POLICY}Binding")) == left


def test_nothing_outside_of_namespaces_is_needed(render):
    """Who may only install into namespaces leaves out what is the cluster's."""
    off = {"admission": {"commands": False, "references": False}, "userRoles": {"create": False}}
    kinds = {each["kind"] for each in render(TWO | off)}

    assert [each for each in kinds if each.startswith(("Cluster", POLICY))] == []


def test_the_operator_understands_what_the_chart_tells_it(render, tmp_path):
    providers = {
        "default": None,
        "plain": {"url": "http://prometheus:9090"},
        "full": {
            "url": "https://thanos.example",
            "bearerTokenFile": "/etc/modelrollout/prometheus/token",
            "caFile": "/etc/modelrollout/prometheus/ca.crt",
            "headers": {"X-Scope-OrgID": "models"},
            "parameters": {"partial_response": "false"},
            "gatewayLabels": {"namespace": "gateways"},
            "timeoutSeconds": 2.5,
        },
    }
    webhooks = {
        "plain": {"url": "http://events"},
        "team": {
            "urlFile": "/etc/modelrollout/webhooks/team",
            "format": "slack",
            "rollouts": "named",
            "namespaces": ["shop"],
            "decisions": ["RolledBack"],
        },
        "full": {
            "url": "https://events.example/in",
            "headerFiles": {"Authorization": "/etc/modelrollout/webhooks/authorization"},
            "caFile": "/etc/modelrollout/webhooks/ca.crt",
            "timeoutSeconds": 2.5,
        },
    }
    values = TWO | {"port": 9090, "workers": 4, "sweepSeconds": 60, "traces": False}
    values |= {"shadow": {"enabled": False}, "shardSelector": "tier=gold"}

    found = read(render(values | {"providers": providers, "webhooks": webhooks}), tmp_path)

    assert found == Settings(
        providers={
            "plain": Provider(url="http://prometheus:9090"),
            "full": Provider(
                url="https://thanos.example",
                bearer_token_file="/etc/modelrollout/prometheus/token",  # noqa: S106  # a path
                ca_file="/etc/modelrollout/prometheus/ca.crt",
                headers={"X-Scope-OrgID": "models"},
                parameters={"partial_response": "false"},
                gateway_labels={"namespace": "gateways"},
                timeout_seconds=2.5,
            ),
        },
        webhooks={
            "plain": Webhook(url="http://events"),
            "team": Webhook(
                url_file="/etc/modelrollout/webhooks/team",
                format=WebhookFormat.SLACK,
                rollouts=Audience.NAMED,
                namespaces=("shop",),
                decisions=("RolledBack",),
            ),
            "full": Webhook(
                url="https://events.example/in",
                header_files={"Authorization": "/etc/modelrollout/webhooks/authorization"},
                ca_file="/etc/modelrollout/webhooks/ca.crt",
                timeout_seconds=2.5,
            ),
        },
        image=f"modelrollout-operator:{__version__}",
        image_pull_policy="IfNotPresent",
        namespaces=("shop", "bank"),
        shard=parsed("tier=gold"),
        lease_name="modelrollout-operator",
        lease_namespace="metadata.namespace",
        identity="metadata.name",
        port=9090,
        workers=4,
        sweep_seconds=60,
        runs_comparators=False,
        keeps_traces=False,
    )


def test_the_charts_defaults_are_the_operators(render, tmp_path):
    paths = {}
    for name, text in the(render(), "ConfigMap")["data"].items():
        paths[name] = tmp_path / name
        paths[name].write_text(text)
    identity = {"MODELROLLOUT_LEASE_NAMESPACE": "", "MODELROLLOUT_IDENTITY": ""}
    image = {"MODELROLLOUT_IMAGE": f"modelrollout-operator:{__version__}"}
    bare = {"MODELROLLOUT_PROVIDERS": str(paths["providers.yaml"])} | identity | image
    webhooks = {"MODELROLLOUT_WEBHOOKS": str(paths["webhooks.yaml"])}
    given = environment_of(render()) | bare | webhooks

    assert from_environment(given) == from_environment(bare)


def environment_of(objects: Iterable[Manifest]) -> dict[str, str]:
    """The environment of the pod; a field of the pod stands for itself."""
    return {
        each["name"]: each["value"]
        if "value" in each
        else each["valueFrom"]["fieldRef"]["fieldPath"]
        for each in container_of(objects)["env"]
    }


def read(objects: list[Manifest], folder: Any) -> Settings:
    """The settings that the operator reads in the pod."""
    environment = environment_of(objects)
    container = container_of(objects)
    mounts = {
        each["mountPath"]: each["subPath"]
        for each in container["volumeMounts"]
        if each["name"] == "providers"
    }
    (volume,) = [each for each in pod_of(objects)["spec"]["volumes"] if each["name"] == "providers"]
    config = the(objects, "ConfigMap")
    assert volume["configMap"]["name"] == config["metadata"]["name"]
    files = {}
    for name in ("MODELROLLOUT_PROVIDERS", "MODELROLLOUT_WEBHOOKS"):
        file = mounts.pop(environment[name])
        files[name] = str(folder / file)
        (folder / file).write_text(config["data"][file])
    assert mounts == {}
    return from_environment(environment | files)


def test_a_changed_provider_or_web_hook_starts_the_pods_anew_and_nothing_else_does(render):
    changed = {"providers": {"default": {"url": "http://other:9090"}}}

    told = {"webhooks": {"audit": {"url": "http://events"}}}

    assert pod_of(render())["metadata"] != pod_of(render(changed))["metadata"]
    assert pod_of(render())["metadata"] != pod_of(render(told))["metadata"]
    assert pod_of(render())["metadata"] == pod_of(render({"replicas": 3}))["metadata"]


SHARDS = (
    "",
    "modelrollout.dev/shard=a",
    "!modelrollout.dev/shard",
    " tier in (gold, silver) , team!=shop,zone notin (a),x ",
    "tier==",
    "tier gold",
    "tier=gold,",
    "tier in ()",
    "tier>3",
    "a..b/tier",
    "Team/tier",
    "tier=" + "g" * 64,
)


@pytest.mark.parametrize("selector", SHARDS)
def test_a_shard_selector_is_refused_by_the_chart_as_by_the_operator(selector, helm, tmp_path):
    command = ["template", "modelrollout", str(CHART), "--namespace", NAMESPACE]
    done = helm(*command, "--values", "-", stdin=json.dumps({"shardSelector": selector}))
    try:
        wanted = parsed(selector)
    except ValueError:
        assert done.returncode != 0
        said = f"shardSelector {json.dumps(selector.strip())} is not a label selector: write it as"
        assert said in done.stderr
    else:
        assert done.returncode == 0, done.stderr
        objects = [each for each in yaml.safe_load_all(done.stdout) if each]
        assert read(objects, tmp_path).shard == wanted


def test_a_shard_changes_nothing_but_the_operators_pods(render):
    bare, one = render(), render({"shardSelector": "tier=gold"})
    others = [[each for each in objects if each["kind"] != "Deployment"] for objects in (bare, one)]

    assert others[0] == others[1]
    assert environment_of(one) == environment_of(bare) | {
        "MODELROLLOUT_SHARD_SELECTOR": "tier=gold"
    }


def test_the_pod_can_do_nothing_that_it_need_not(render):
    pod, container = pod_of(render())["spec"], container_of(render())

    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "fsGroup": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"hostNetwork", "hostPID", "hostIPC"} & pod.keys() == set()
    assert [each for each in pod["volumes"] if "configMap" not in each] == []
    assert all(each["readOnly"] for each in container["volumeMounts"])


def test_the_pod_is_probed_bounded_and_spread(render):
    objects = render()
    pod, container = pod_of(objects)["spec"], container_of(objects)
    probes = {
        name: container[name]["httpGet"]["path"]
        for name in ("startupProbe", "livenessProbe", "readinessProbe")
    }

    assert the(objects, "Deployment")["spec"]["replicas"] == 2
    assert container["args"] == ["operator"]
    assert probes == {
        "startupProbe": "/healthz",
        "livenessProbe": "/healthz",
        "readinessProbe": "/readyz",
    }
    assert container["resources"]["limits"].keys() == {"memory"}
    assert pod["terminationGracePeriodSeconds"] == 30
    assert {each["tolerationSeconds"] for each in pod["tolerations"]} == {30}
    assert pod["topologySpreadConstraints"][0]["topologyKey"] == "kubernetes.io/hostname"


def test_the_spread_of_the_pods_can_be_chosen(render):
    zone = {"topologyKey": "zone", "maxSkew": 2, "whenUnsatisfiable": "DoNotSchedule"}

    assert pod_of(render({"topologySpreadConstraints": [zone]}))["spec"][
        "topologySpreadConstraints"
    ] == [zone]


OPT_IN = {
    "networkPolicy": "NetworkPolicy",
    "serviceMonitor": "ServiceMonitor",
    "prometheusRule": "PrometheusRule",
}
EVERYTHING: Manifest = {
    "networkPolicy": {"enabled": True, "egress": [{}]},
    "serviceMonitor": {"enabled": True, "labels": {"release": "monitoring"}},
    "prometheusRule": {"enabled": True, "labels": {"release": "monitoring"}},
    "dashboards": {"enabled": True, "annotations": {"grafana_folder": "Models"}},
}
"""All that is off by default."""


def test_what_needs_other_software_is_off_by_default(render):
    kinds = {each["kind"] for each in render()}
    all_kinds = {each["kind"] for each in render(EVERYTHING)}

    assert kinds & set(OPT_IN.values()) == set()
    assert all_kinds - kinds == set(OPT_IN.values())


@pytest.mark.parametrize(("value", "kind"), OPT_IN.items())
def test_each_can_be_had_alone(value, kind, render):
    objects = render({value: {"enabled": True}})

    assert {each["kind"] for each in objects} & set(OPT_IN.values()) == {kind}


def test_a_network_policy_leaves_the_metrics_open_and_the_rest_shut(render):
    policy = the(render({"networkPolicy": {"enabled": True}}), "NetworkPolicy")["spec"]
    (rule,) = policy["ingress"]
    (port,) = container_of(render())["ports"]

    assert policy["policyTypes"] == ["Ingress"]
    assert [each["port"] for each in rule["ports"]] == [port["name"]]
    assert "from" not in rule
    assert "egress" not in policy


def test_a_network_policy_says_who_and_where_to(render):
    monitoring = {"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}
    dns = {"ports": [{"port": 53, "protocol": "UDP"}]}
    given = {"enabled": True, "from": [monitoring], "egress": [dns]}
    objects = render({"networkPolicy": given})
    policy = the(objects, "NetworkPolicy")["spec"]
    who, test = policy["ingress"][0]["from"]
    labels = the(objects, "Pod")["metadata"]["labels"].items()

    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert who == monitoring
    assert test["podSelector"]["matchLabels"].items() <= labels
    assert policy["egress"] == [dns]


def test_a_service_monitor_finds_the_service_and_leaves_our_labels_alone(render):
    monitor = {"enabled": True, "interval": "7s", "labels": {"release": "monitoring"}}
    objects = render({"serviceMonitor": monitor})
    found, service = the(objects, "ServiceMonitor"), the(objects, "Service")
    (endpoint,) = found["spec"]["endpoints"]

    assert found["metadata"]["labels"]["release"] == "monitoring"
    assert found["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert endpoint == {
        "port": service["spec"]["ports"][0]["name"],
        "path": "/metrics",
        "interval": "7s",
        "honorLabels": True,
    }


ALERTS: Manifest = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())


def rules_of(objects: Iterable[Manifest]) -> list[Manifest]:
    (group,) = the(objects, "PrometheusRule")["spec"]["groups"]
    rules: list[Manifest] = group["rules"]
    return rules


def test_the_alerts_are_those_of_the_file(render):
    assert the(render(EVERYTHING), "PrometheusRule")["spec"] == ALERTS


def test_an_alert_can_be_left_out_and_leads_to_ones_own_runbook(render):
    given = {"enabled": True, "exclude": ["ModelRolloutStuck"], "runbookUrl": "https://wiki/ops"}
    rules = rules_of(render({"prometheusRule": given}))
    runbooks = {each["annotations"]["runbook_url"].partition("#")[0] for each in rules}

    assert len(rules) == len(ALERTS["groups"][0]["rules"]) - 1
    assert "ModelRolloutStuck" not in [each["alert"] for each in rules]
    assert runbooks == {"https://wiki/ops"}


def test_each_dashboard_is_a_config_map_that_the_sidecar_finds(render):
    given = {"enabled": True, "namespace": "grafana", "annotations": {"grafana_folder": "Models"}}
    files = sorted((CHART / "files" / "dashboards").glob("*.json"))
    found = [
        each
        for each in of_kind(render({"dashboards": given}), "ConfigMap")
        if "grafana_dashboard" in each["metadata"]["labels"]
    ]

    assert len(found) == len(files) == 2
    assert {each["metadata"]["namespace"] for each in found} == {"grafana"}
    assert all(each["metadata"]["annotations"] == given["annotations"] for each in found)
    texts = [json.loads(text) for each in found for text in each["data"].values()]
    assert texts == [json.loads(each.read_text()) for each in files]


def test_helm_test_asks_the_metrics_of_the_service_and_has_no_rights(render):
    objects = render({"port": 9999, "fullnameOverride": "mine"})
    pod = the(objects, "Pod")
    (container,) = pod["spec"]["containers"]
    script, address = container["command"][2:]
    service = the(objects, "Service")
    labels = pod["metadata"]["labels"].items()

    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert address == f"http://{service['metadata']['name']}.{NAMESPACE}.svc:9999"
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert container["image"] == container_of(objects)["image"]
    assert not service["spec"]["selector"].items() <= labels
    compile(script, "test", "exec")


def test_what_selects_the_pods_selects_them(render):
    objects = render({"podLabels": {"team": "models"}} | EVERYTHING)
    labels = pod_of(objects)["metadata"]["labels"].items()
    deployment, budget = the(objects, "Deployment"), the(objects, "PodDisruptionBudget")
    service = the(objects, "Service")
    selectors = [
        deployment["spec"]["selector"]["matchLabels"],
        budget["spec"]["selector"]["matchLabels"],
        service["spec"]["selector"],
        the(objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        *(
            each["labelSelector"]["matchLabels"]
            for each in pod_of(objects)["spec"]["topologySpreadConstraints"]
        ),
    ]

    assert all(each.items() <= labels for each in selectors)
    assert ("team", "models") in labels


def test_metrics_are_served_at_the_port(render):
    objects = render({"port": 9999})
    (service_port,) = the(objects, "Service")["spec"]["ports"]
    (container_port,) = container_of(objects)["ports"]

    assert container_port == {"name": "http", "containerPort": 9999, "protocol": "TCP"}
    assert (service_port["port"], service_port["targetPort"]) == (9999, "http")


def test_a_single_replica_blocks_no_drain(render):
    assert of_kind(render({"replicas": 1}), "PodDisruptionBudget") == []


def test_the_image_is_the_charts_version_and_of_no_registry(render):
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == __version__
    assert container_of(render())["image"] == f"modelrollout-operator:{__version__}"


def test_a_digest_wins_over_a_tag(render):
    digest = "sha256:" + "0" * 64
    image = {"repository": "mine/operator", "tag": "1", "digest": digest}

    assert container_of(render({"image": image}))["image"] == f"mine/operator@{digest}"


def test_files_for_the_providers_can_be_mounted(render):
    volume = {"name": "token", "secret": {"secretName": "prometheus"}}
    mount = {"name": "token", "mountPath": "/etc/modelrollout/prometheus", "readOnly": True}
    objects = render({"extraVolumes": [volume], "extraVolumeMounts": [mount]})

    assert volume in pod_of(objects)["spec"]["volumes"]
    assert mount in container_of(objects)["volumeMounts"]


def test_names_stay_short_enough_for_a_service(helm):
    done = helm("template", "r" * 53, str(CHART))
    objects = [each for each in yaml.safe_load_all(done.stdout) if each]
    names = {each["metadata"]["name"] for each in objects if not each["kind"].startswith(POLICY)}

    assert names
    assert max(len(each) for each in names if ":" not in each) <= 63


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"replicaCount": 3}, "'replicaCount' not allowed"),
        ({"replicas": 0}, "/replicas"),
        ({"replicas": "two"}, "/replicas"),
        ({"image": {"registry": "x"}}, "'registry' not allowed"),
        ({"image": {"repository": ""}}, "/image/repository"),
        ({"image": {"tag": "a b"}}, "/image/tag"),
        ({"image": {"digest": "latest"}}, "/image/digest"),
        ({"image": {"pullPolicy": "Sometimes"}}, "/image/pullPolicy"),
        ({"imagePullSecrets": ["registry"]}, "/imagePullSecrets/0"),
        ({"providers": {"default": None}}, "/providers"),
        ({"providers": {"default": {"url": "prometheus:9090"}}}, "/providers/default/url"),
        ({"providers": {"other": {}}}, "/providers/other"),
        ({"providers": {"default": {"token": "s3cret"}}}, "'token' not allowed"),
        ({"providers": {"default": {"caFile": "ca.crt"}}}, "/providers/default/caFile"),
        ({"providers": {"default": {"timeoutSeconds": 0}}}, "/providers/default/timeoutSeconds"),
        ({"providers": {"Default": {"url": "http://x"}}}, "Default"),
        ({"watchNamespaces": "shop"}, "/watchNamespaces"),
        ({"watchNamespaces": ["shop", "shop"]}, "/watchNamespaces"),
        ({"watchNamespaces": ["*"]}, "/watchNamespaces/0"),
        ({"admission": {"commands": "no"}}, "/admission/commands"),
        ({"admission": {"verbs": True}}, "'verbs' not allowed"),
        ({"userRoles": {"create": 1}}, "/userRoles/create"),
        ({"webhooks": {"audit": {"url": "events"}}}, "/webhooks/audit/url"),
        ({"webhooks": {"audit": {"url": "http://x", "headers": {}}}}, "'headers' not allowed"),
        ({"webhooks": {"audit": {"url": "http://x", "headerFiles": {"a b": "/x"}}}}, "a b"),
        ({"webhooks": {"audit": {"url": "http://x", "headerFiles": {"A": "x"}}}}, "headerFiles/A"),
        ({"workers": 0}, "/workers"),
        ({"sweepSeconds": 1}, "/sweepSeconds"),
        ({"port": 80}, "/port"),
        ({"resources": {"cpu": "1"}}, "'cpu' not allowed"),
        ({"serviceAccount": {"create": "no"}}, "/serviceAccount/create"),
        ({"podLabels": {"a": 1}}, "/podLabels/a"),
        ({"extraVolumes": [{}]}, "/extraVolumes/0"),
        ({"shadow": {"enabled": "no"}}, "/shadow/enabled"),
        ({"topologySpreadConstraints": [{}]}, "/topologySpreadConstraints/0"),
        ({"networkPolicy": {"ingress": []}}, "'ingress' not allowed"),
        ({"networkPolicy": {"from": ["monitoring"]}}, "/networkPolicy/from/0"),
        ({"serviceMonitor": {"interval": "often"}}, "/serviceMonitor/interval"),
        ({"prometheusRule": {"exclude": ["Watchdog"]}}, "/prometheusRule/exclude/0"),
        ({"prometheusRule": {"runbookUrl": "a#b"}}, "/prometheusRule/runbookUrl"),
        ({"dashboards": {"namespace": "A"}}, "/dashboards/namespace"),
        ({"dashboards": {"labels": {"a": 1}}}, "/dashboards/labels/a"),
        ({"extraVolumeMounts": [{"name": "x"}]}, "/extraVolumeMounts/0"),
    ],
    ids=lambda it: it if isinstance(it, str) else json.dumps(it),
)
def test_nonsense_is_refused_by_the_name_of_its_field(values, says, helm):
    done = helm("template", "x", str(CHART), "--values", "-", stdin=json.dumps(values))

    assert done.returncode != 0
    assert says in done.stderr


def test_an_account_that_is_there_must_be_named(helm):
    done = helm("template", "x", str(CHART), "--set", "serviceAccount.create=false")

    assert "serviceAccount.name is needed when serviceAccount.create is false" in done.stderr


@pytest.mark.parametrize(("version", "fits"), [("1.30.9", False), ("1.31.0", True)])
def test_older_versions_of_kubernetes_are_refused(version, fits, helm):
    done = helm("template", "x", str(CHART), "--kube-version", version)

    assert (done.returncode == 0) is fits


def test_values_and_schema_name_the_same_values():
    def paths(given: Any, schema: Any, path: str = "") -> Iterable[str]:
        for name, value in given.items():
            assert name in schema["properties"], f"{path}{name} is not in the schema"
            inner = schema["properties"][name]
            if isinstance(value, dict) and "properties" in inner:
                yield from paths(value, inner, f"{path}{name}.")
            yield f"{path}{name}"

    known = set(paths(VALUES, SCHEMA))

    assert set(SCHEMA["properties"]) - {"global"} == {each for each in known if "." not in each}


def test_each_value_is_explained_in_the_readme():
    """The table is generated; whoever adds a value writes a comment above it."""
    rows = re.findall(
        r"^\| `([\w.]+)` \| (.*) \| (.*) \|$", (CHART / "README.md").read_text(), re.MULTILINE
    )
    told = {path for path, _, text in rows if text.strip()}

    assert {path for path, _, _ in rows if "." not in path} <= told | {
        path.partition(".")[0] for path in told
    }
    assert [path for path, default, _ in rows if default.strip() and path not in told] == []


def test_every_object_of_the_schema_is_strict():
    def objects(node: Any, path: str = "") -> Iterable[tuple[str, Manifest]]:
        if isinstance(node, dict):
            if "properties" in node and "type" in node:
                yield path, node
            for key, inner in node.items():
                yield from objects(inner, f"{path}/{key}")

    assert [
        path for path, each in objects(SCHEMA) if each.get("additionalProperties") is not False
    ] == []


STRING: Manifest = {"type": "string"}
STRINGS: Manifest = {"type": "object", "additionalProperties": STRING}


def a_list_of(*required: str, **properties: Any) -> Manifest:
    return {
        "type": "array",
        "minItems": 1,
        "items": {"type": "object", "required": list(required), "properties": properties},
    }


ALERT = a_list_of(
    "alert",
    "expr",
    alert=STRING,
    expr=STRING,
    labels=STRINGS,
    annotations=STRINGS,
    **{"for": STRING},
)
MONITORING = {
    "ServiceMonitor": {
        "selector": {"type": "object", "properties": {"matchLabels": STRINGS}},
        "endpoints": a_list_of(
            port=STRING, path=STRING, interval=STRING, honorLabels={"type": "boolean"}
        ),
    },
    "PrometheusRule": {"groups": a_list_of("name", "rules", name=STRING, rules=ALERT)},
}
"""Of the Prometheus operator's kinds, the fields that are used; any other one is refused."""


@pytest.fixture(scope="module")
def _monitoring(kubectl):
    """The Prometheus operator's kinds, as far as the chart uses them."""
    for kind, spec in MONITORING.items():
        plural = f"{kind.lower()}s"
        schema = {
            "type": "object",
            "properties": {"spec": {"type": "object", "required": list(spec), "properties": spec}},
        }
        version = {
            "name": "v1",
            "served": True,
            "storage": True,
            "schema": {"openAPIV3Schema": schema},
        }
        body = {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": f"{plural}.monitoring.coreos.com"},
            "spec": {
                "group": "monitoring.coreos.com",
                "scope": "Namespaced",
                "names": {"kind": kind, "plural": plural},
                "versions": [version],
            },
        }
        done = kubectl("apply", "-f", "-", stdin=json.dumps(body))
        assert done.returncode == 0, done.stderr
        done = kubectl("wait", "--for=condition=Established", f"crd/{plural}.monitoring.coreos.com")
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "values",
    [{}, TWO, EVERYTHING, {"shadow": {"enabled": False}, "traces": False}],
    ids=["cluster-wide", "two namespaces", "everything", "no shadows"],
)
@pytest.mark.usefixtures("_monitoring")
def test_the_api_server_accepts_every_object(values, render, kubectl, namespace):
    if "watchNamespaces" in values:
        values = {"watchNamespaces": [namespace, "default"]}
    objects = [
        each | {"metadata": {"namespace": namespace} | each["metadata"]}
        for each in render(values, namespace)
    ]
    body = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})

    done = kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", stdin=body)

    assert done.returncode == 0, done.stderr
    assert done.stdout.count("created (server dry run)") == len(objects)
    assert "Warning" not in done.stderr


def test_the_pod_meets_the_restricted_standard(render, kubectl, namespace):
    pod = {"apiVersion": "v1", "kind": "Pod"} | pod_of(render())
    pod["metadata"] |= {"name": "operator", "namespace": namespace}
    pod["spec"]["serviceAccountName"] = "default"

    done = kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))

    assert done.returncode == 0, done.stderr
