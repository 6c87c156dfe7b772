"""
Bad manifests are refused with a sentence that says what to do, good ones are accepted: by the
real API server, and in the same way by the operator's own types.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from modelrollout.api import crd as generator
from modelrollout.api import v1alpha1
from modelrollout.api.v1alpha1 import API_VERSION, KIND, ModelRolloutSpec, ModelRolloutStatus

ROOT = Path(__file__).parents[2]
Manifest = dict[str, Any]

SMALLEST: Manifest = {
    "candidate": {"deployment": "ranker-v2"},
    "stable": {"deployment": "ranker-v1"},
    "port": 8080,
    "traffic": {"gatewayAPI": {"route": "ranker"}},
    "analysis": {"guardrails": [{"name": "errors", "preset": "envoy/errors"}]},
}
TOTAL = {"metric": "requests_total"}
WRONG = {"events": {"metric": "wrong_total"}, "total": TOTAL}


def merged(base: Any, patch: Any) -> Any:
    """A JSON merge patch: None removes, lists are replaced."""
    if not isinstance(patch, dict):
        return patch
    result = dict(base) if isinstance(base, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


@dataclass(frozen=True)
class Bad:
    """One change to the smallest manifest that the API server refuses."""

    name: str
    says: str
    spec: Manifest
    accepted_by_types: str = ""
    """Why the operator's types let it pass, if they do."""


def steps(*given: Manifest) -> Manifest:
    return {"strategy": {"steps": list(given)}}


def gateway_api(**given: Any) -> Manifest:
    return {"traffic": {"gatewayAPI": given}}


def guardrails(*given: Manifest) -> Manifest:
    return {"analysis": {"guardrails": list(given)}}


def guardrail(**given: Any) -> Manifest:
    return guardrails({"name": "errors", "preset": "envoy/errors"} | given)


def limit(**given: Any) -> Manifest:
    return guardrails({"name": "memory", "limit": {"query": "x", "max": "1"}, **given})


def events(**given: Any) -> Manifest:
    selector = {"metric": "wrong_total"} | given
    return guardrails({"name": "wrong", "proportion": {"events": selector, "total": TOTAL}})


def analysis(**given: Any) -> Manifest:
    return {"analysis": given}


def quantile(**given: Any) -> Manifest:
    return {
        "name": "latency",
        "distribution": {"histogram": {"metric": "seconds"}, "quantile": "0.99"} | given,
    }


MANAGED = {"route": None, "gateway": {"name": "public"}}
UNKNOWN = "the types ignore fields that a newer version may have"
DECIMAL = "a decimal number is written in digits and at most one point"
RATE = "a rate is a decimal number above 0 and below 1"
NAME = "a name is made of lower-case letters, digits, '-' and '.'"
METRIC = "a metric's name stands alone: matchers, functions and braces do not belong here"

BAD = [
    Bad("weights that fall", "weights must rise", steps({"weight": 20}, {"weight": 5})),
    Bad("two equal weights", "two steps have the same weight", steps({"weight": 5}, {"weight": 5})),
    Bad("weight 0", "steps[0].weight in body should be greater", steps({"weight": 0})),
    Bad("weight 101", "steps[0].weight in body should be less", steps({"weight": 101})),
    Bad("a negative weight", "steps[0].weight in body should be", steps({"weight": -5})),
    Bad(
        "half a percent",
        'steps[0].weight in body must be of type integer: "number"',
        steps({"weight": 0.5}),
    ),
    Bad(
        "a weight that is true",
        'steps[0].weight in body must be of type integer: "boolean"',
        steps({"weight": True}),
        accepted_by_types="pydantic reads true as 1; the API server never lets it pass",
    ),
    Bad(
        "a weight in quotes",
        'steps[0].weight in body must be of type integer: "string"',
        steps({"weight": "5"}),
        accepted_by_types="pydantic reads numbers in quotes; the API server never lets them pass",
    ),
    Bad(
        "a weight that is a pause too",
        "a step is either a weight or a pauseSeconds",
        steps({"weight": 5, "pauseSeconds": 60}, {"weight": 50}),
    ),
    Bad(
        "a step of nothing", "a step is either a weight or a pauseSeconds", steps({}, {"weight": 5})
    ),
    Bad(
        "a pause with a gate",
        "minRequests, minSeconds, maxSeconds and gate belong to a weight step",
        steps({"pauseSeconds": 60, "gate": "Pass"}, {"weight": 5}),
    ),
    Bad(
        "a pause of no time",
        "pauseSeconds in body should be greater than or equal to 1",
        steps({"pauseSeconds": 0}, {"weight": 5}),
    ),
    Bad(
        "negative seconds",
        "minSeconds in body should be greater than or equal to 0",
        steps({"weight": 5, "minSeconds": -1}),
    ),
    Bad(
        "a step that must last longer than it may",
        "minSeconds must not exceed maxSeconds",
        steps({"weight": 5, "minSeconds": 61, "maxSeconds": 60}),
    ),
    Bad(
        "no harm as the last gate before 100",
        "the last step before 100 must have gate Pass",
        steps({"weight": 5}, {"weight": 50, "gate": "NoHarm"}, {"weight": 100}),
    ),
    Bad(
        "no harm as the last gate before the 100 that is added",
        "the last step before 100 must have gate Pass",
        steps({"weight": 5, "gate": "NoHarm"}),
    ),
    Bad(
        "a gate at 100",
        "do not apply at weight 100",
        steps({"weight": 5}, {"weight": 100, "gate": "Pass"}),
    ),
    Bad(
        "requests to wait for at 100",
        "do not apply at weight 100",
        steps({"weight": 5}, {"weight": 100, "minRequests": 100}),
    ),
    Bad("100 at once", "steps must hold at least one weight below 100", steps({"weight": 100})),
    Bad(
        "pauses alone",
        "steps must hold at least one weight below 100",
        steps({"pauseSeconds": 60}),
    ),
    Bad("no steps", "strategy.steps in body should have at least 1 items", steps()),
    Bad(
        "more steps than anybody can follow",
        "must have at most 30 items",
        steps(*({"weight": each} for each in range(1, 32))),
    ),
    Bad("an unknown gate", 'Unsupported value: "Maybe"', steps({"weight": 5, "gate": "Maybe"})),
    Bad("an unknown strategy", 'supported values: "Canary"', {"strategy": {"type": "BigBang"}}),
    Bad(
        "a negative bake", "bake.seconds in body should be", {"strategy": {"bake": {"seconds": -1}}}
    ),
    Bad(
        "two routes",
        "give exactly one of route (attach to your HTTPRoute) and gateway",
        gateway_api(gateway={"name": "public"}),
    ),
    Bad("no route", "give exactly one of route (attach to", gateway_api(route=None)),
    Bad("no traffic", "spec.traffic: Required value", {"traffic": None}),
    Bad("no router", "spec.traffic.gatewayAPI: Required value", {"traffic": {"gatewayAPI": None}}),
    Bad(
        "an unknown router",
        'unknown field "spec.traffic.istio"',
        {"traffic": {"istio": {"virtualService": "ranker"}}},
        accepted_by_types=UNKNOWN,
    ),
    Bad(
        "a rule without a route",
        "rule names a rule of your own HTTPRoute: give route as well",
        gateway_api(**MANAGED, rule="infer"),
    ),
    Bad(
        "hostnames on somebody else's route",
        "hostnames belong to a route that the operator owns",
        gateway_api(hostnames=["ranker.example"]),
    ),
    Bad(
        "no hostnames on somebody else's route",
        "hostnames belong to a route that the operator owns",
        gateway_api(hostnames=[]),
    ),
    Bad(
        "a URL as hostname",
        "a hostname is a DNS name in lower case",
        gateway_api(**MANAGED, hostnames=["http://ranker.example"]),
    ),
    Bad(
        "deletion of somebody else's route",
        "deletionPolicy belongs to a route that the operator owns",
        gateway_api(deletionPolicy="Delete"),
    ),
    Bad(
        "two versions behind one Service",
        "candidate and stable name the same Service",
        {"candidate": {"service": "ranker"}, "stable": {"service": "ranker"}},
    ),
    Bad(
        "the candidate behind the Service of stable's name",
        "candidate and stable name the same Service",
        {"candidate": {"service": "ranker-v1"}},
    ),
    Bad("no candidate", "spec.candidate: Required value", {"candidate": None}),
    Bad(
        "an empty candidate",
        "spec.candidate.deployment: Required value",
        {"candidate": {"deployment": None}},
    ),
    Bad("a candidate without a name", NAME, {"candidate": {"deployment": ""}}),
    Bad("a candidate in capitals", NAME, {"candidate": {"deployment": "Ranker"}}),
    Bad(
        "a Deployment whose name no Service can have",
        "a Service cannot have this Deployment's name",
        {"candidate": {"deployment": "ranker-2.0.1"}},
    ),
    Bad(
        "a Deployment whose name is too long for a Service",
        "a Service cannot have this Deployment's name",
        {"candidate": {"deployment": "r" * 64}},
    ),
    Bad(
        "a Service that begins with a digit",
        "a Service's name is made of",
        {"candidate": {"service": "2-ranker"}},
    ),
    Bad("no port", "spec.port: Required value", {"port": None}),
    Bad("port 0", "spec.port in body should be greater than or equal to 1", {"port": 0}),
    Bad("port 65536", "spec.port in body should be less than or equal to 65535", {"port": 65536}),
    Bad("no guardrails", "guardrails in body should have at least 1 items", guardrails()),
    Bad("no analysis", "spec.analysis: Required value", {"analysis": None}),
    Bad(
        "two guardrails of one name",
        "two guardrails have the same name",
        guardrails(
            {"name": "errors", "preset": "envoy/errors"},
            {"name": "errors", "preset": "envoy/latency"},
        ),
    ),
    Bad("a guardrail without a name", "guardrails[0].name: Required value", guardrail(name=None)),
    Bad("a guardrail in capitals", "a guardrail's name is made of", guardrail(name="Errors")),
    Bad(
        "a guardrail with a long name",
        "Too long: may not be more than 63",
        guardrail(name="e" * 64),
    ),
    Bad(
        "nothing that must be proved",
        "at least one guardrail must be required",
        guardrail(required=False),
    ),
    Bad("an unknown preset", 'Unsupported value: "envoy/luck"', guardrail(preset="envoy/luck")),
    Bad(
        "two kinds in one guardrail",
        "give exactly one of preset, proportion, rate, distribution, mean and limit",
        guardrail(proportion=WRONG),
    ),
    Bad(
        "a guardrail of no kind",
        "give exactly one of preset, proportion, rate, distribution, mean and limit",
        guardrails({"name": "errors"}),
    ),
    Bad(
        "a limit with a tolerance",
        "a limit is a plain threshold: tolerance, margin, direction, versionLabel, slices",
        limit(tolerance={"ratio": "2"}),
    ),
    Bad(
        "a limit on both sides",
        "give exactly one of max and min",
        limit(limit={"query": "x", "max": "1", "min": "0"}),
    ),
    Bad("a limit on no side", "give exactly one of max and min", limit(limit={"query": "x"})),
    Bad(
        "a limit on nothing",
        "limit.query in body should be at least 1 chars long",
        limit(limit={"query": "", "max": "1"}),
    ),
    Bad(
        "a limit of negative seconds",
        "forSeconds in body should be greater than or equal to 0",
        limit(limit={"query": "x", "max": "1", "forSeconds": -1}),
    ),
    Bad("a ratio below 1", "ratio must be at least 1", guardrail(tolerance={"ratio": "0.9"})),
    Bad("a difference of nothing", "give a ratio, an absolute, or both", guardrail(tolerance={})),
    Bad(
        "a margin with a smaller ratio than the tolerance",
        "margin must not be below tolerance",
        guardrail(tolerance={"ratio": "2"}, margin={"ratio": "1.5"}),
    ),
    Bad(
        "a margin without the tolerance's ratio",
        "margin must not be below tolerance, neither in ratio (1 if left out)",
        guardrail(tolerance={"ratio": "1.5"}, margin={"absolute": "0.01"}),
    ),
    Bad(
        "a margin with a smaller absolute than the tolerance",
        "margin must not be below tolerance",
        guardrail(tolerance={"absolute": "0.02"}, margin={"ratio": "2", "absolute": "0.01"}),
    ),
    Bad(
        "a margin that leaves no room",
        "margin must leave some room",
        guardrail(margin={"ratio": "1.00", "absolute": "0.0"}),
    ),
    Bad("a ratio in words", DECIMAL, guardrail(tolerance={"ratio": "double"})),
    Bad("a decimal comma", DECIMAL, guardrail(tolerance={"ratio": "1,5"}, margin={"ratio": "2"})),
    Bad("a negative decimal", DECIMAL, guardrail(tolerance={"absolute": "-0.1"})),
    Bad("a decimal with an exponent", DECIMAL, guardrail(tolerance={"absolute": "1e-3"})),
    Bad("a decimal without its zero", DECIMAL, guardrail(tolerance={"absolute": ".5"})),
    Bad(
        "a decimal without quotes",
        'tolerance.ratio in body must be of type string: "number"',
        guardrail(tolerance={"ratio": 1.5}),
    ),
    Bad(
        "a version label on what the gateway measures",
        "the envoy presets tell the versions apart by the route",
        guardrail(versionLabel="version"),
    ),
    Bad("an expression as metric", METRIC, events(metric="sum(rate(wrong_total[5m]))")),
    Bad("matchers in a metric's name", METRIC, events(metric='wrong_total{namespace="bank"}')),
    Bad(
        "an expression as label",
        "a label's name is made of letters, digits and _",
        events(matchers=[{"label": 'a="b",c', "value": "d"}]),
    ),
    Bad(
        "an operator of another language",
        'Unsupported value: "=="',
        events(matchers=[{"label": "code", "operator": "==", "value": "500"}]),
    ),
    Bad(
        "more limits than thresholds",
        "must have at most 4 items",
        guardrails(
            {
                "name": "latency",
                "distribution": {
                    "histogram": {"metric": "seconds"},
                    "limits": ["1", "2", "3", "4", "5"],
                },
            }
        ),
    ),
    Bad(
        "limits beside a quantile",
        "limits are thresholds of the whole tail",
        guardrails(quantile(limits=["0.5"])),
    ),
    Bad("a quantile in per cent", RATE, guardrails(quantile(quantile="99"))),
    Bad(
        "a quantile downwards",
        "a quantile is compared upwards",
        guardrails(quantile() | {"direction": "LowerIsWorse"}),
    ),
    Bad(
        "slices of a rate",
        "slices need requests to share out",
        guardrails(
            {
                "name": "restarts",
                "rate": {"events": {"metric": "restarts_total"}},
                "slices": {"label": "country"},
            }
        ),
    ),
    Bad(
        "more slices than anybody looks at",
        "slices.top in body should be less than or equal to 20",
        guardrail(slices={"label": "country", "top": 21}),
    ),
    Bad(
        "no share of the error budget",
        "weight must be above 0",
        guardrail(weight="0.0"),
    ),
    Bad("a share in words", DECIMAL, guardrail(weight="most")),
    Bad(
        "a delay of no time",
        "delaySeconds in body should be greater than or equal to 1",
        guardrail(delaySeconds=0),
    ),
    Bad(
        "a mean without its number of values",
        "mean.count: Required value",
        guardrails({"name": "score", "mean": {"sum": {"metric": "score_sum"}}}),
    ),
    Bad("an interval of no time", "intervalSeconds in body should be", analysis(intervalSeconds=0)),
    Bad("a certainty", RATE, analysis(falseRollbackRate="0")),
    Bad("a certainty in other words", RATE, analysis(falseRollbackRate="0.00")),
    Bad("a rate of 1", RATE, analysis(falseRollbackRate="1")),
    Bad("a rate of 5 %", RATE, analysis(falsePromoteRate="5%")),
    Bad("a URL as provider", NAME, analysis(provider="http://169.254.169.254")),
    Bad("a blind eye", 'Unsupported value: "Ignore"', analysis(onNoData="Ignore")),
    Bad(
        "patience of no time",
        "noDataTimeoutSeconds in body should be greater than or equal to 1",
        analysis(noDataTimeoutSeconds=0),
    ),
    Bad(
        "a misspelt field",
        'unknown field "spec.analysis.guardrail"',
        analysis(guardrail=[]),
        accepted_by_types=UNKNOWN,
    ),
]

EVERY_STEP_FIELD = [
    {"pauseSeconds": 60},
    {"weight": 1, "minRequests": 0, "minSeconds": 0, "maxSeconds": 1, "gate": "NoHarm"},
    {"weight": 99, "minRequests": 1000, "minSeconds": 60, "maxSeconds": 60, "gate": "Pass"},
    {"weight": 100, "minSeconds": 60},
    {"pauseSeconds": 60},
]
SELECTOR = {
    "metric": "job:requests:total",
    "matchers": [
        {"label": "code", "operator": "=~", "value": '5.."} or vector(1) #'},
        {"label": "path", "value": ""},
    ],
}
DIFFERENCES = {
    "tolerance": {"ratio": "1.5", "absolute": "0"},
    "margin": {"ratio": "10.25", "absolute": "0.010"},
    "direction": "LowerIsWorse",
    "versionLabel": "version",
    "required": False,
    "slices": {"label": "country", "top": 5},
    "weight": "0.5",
    "delaySeconds": 3600,
}
EVERY_GUARDRAIL = [
    {"name": "errors", "preset": "envoy/errors", "required": True},
    {"name": "wrong", "proportion": {"events": SELECTOR, "total": SELECTOR}, **DIFFERENCES},
    {"name": "restarts", "rate": {"events": SELECTOR}},
    {"name": "latency", "distribution": {"histogram": SELECTOR, "limits": ["0.25", "1"]}},
    {"name": "p99", "distribution": {"histogram": SELECTOR, "quantile": "0.99"}},
    {"name": "score", "mean": {"sum": SELECTOR, "count": SELECTOR, "max": "1"}},
    {"name": "memory", "limit": {"query": "max(x)", "max": "1.5", "forSeconds": 0}},
    {"name": "hits", "limit": {"query": "min(x)", "min": "0"}},
    {"name": "equal", "preset": "envoy/latency", "tolerance": {"ratio": "1"}},
]
MODEL = {"version": "2.0.1", "uri": "models:/ranker/12", "digest": "sha256:12ab"}
EVERYTHING: Manifest = {
    "candidate": {
        "deployment": "ranker-2.0.1",
        "service": "ranker-v2",
        "model": MODEL,
    },
    "stable": {"deployment": "ranker-v1", "service": "ranker", "model": MODEL},
    "port": 65535,
    "traffic": {"gatewayAPI": {"route": "ranker", "rule": "infer"}},
    "strategy": {"type": "Canary", "steps": EVERY_STEP_FIELD, "bake": {"seconds": 0}},
    "analysis": {
        "guardrails": EVERY_GUARDRAIL,
        "falseRollbackRate": "0.001",
        "falsePromoteRate": "0.1",
        "intervalSeconds": 1,
        "onInconclusive": "Rollback",
        "onNoData": "Hold",
        "noDataTimeoutSeconds": 1,
        "provider": "long-term",
    },
    "paused": True,
}
OWNED = {
    "gateway": {"name": "public", "namespace": "gateways", "sectionName": "https"},
    "hostnames": ["ranker.example", "*.ranker.example"],
    "deletionPolicy": "Delete",
}


def documented() -> Iterator[tuple[str, Manifest]]:
    """The specs of the ModelRollouts that the documentation shows."""
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        blocks = re.findall(r"^```yaml\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)
        documents = [each for block in blocks for each in yaml.safe_load_all(block)]
        for index, each in enumerate(documents):
            if isinstance(each, dict) and each.get("kind") == KIND:
                yield f"{path.name}, document {index}", each["spec"]


GOOD: dict[str, Manifest] = {
    "the smallest": SMALLEST,
    "everything": EVERYTHING,
    "a route that the operator owns": merged(SMALLEST, gateway_api(route=None, **OWNED)),
    "a route for all hostnames": merged(SMALLEST, gateway_api(**MANAGED)),
    **dict(documented()),
}


def manifest(name: str, spec: Manifest) -> Manifest:
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec}


@dataclass(frozen=True)
class Answers:
    """What the API server said of the good manifests and of the bad ones."""

    refusals: dict[str, str]
    accepted: set[str]


@pytest.fixture(scope="module")
def answers(kubectl, crd, tmp_path_factory) -> Answers:  # noqa: ARG001  # the CRD must be there
    """All manifests in one call, each in a file of its own, without anything being stored."""
    folder = tmp_path_factory.mktemp("manifests")
    numbered = [(each.name, merged(SMALLEST, each.spec)) for each in BAD] + list(GOOD.items())
    for index, (_, spec) in enumerate(numbered):
        (folder / f"{index}.json").write_text(json.dumps(manifest(f"number-{index}", spec)))
    done = kubectl("create", "--dry-run=server", "-f", str(folder))
    said = re.findall(
        r'^Error from server \(\w+\): error when creating "[^"]*/(\d+)\.json": (.*?)(?=^Error from|\Z)',
        done.stderr,
        re.DOTALL | re.MULTILINE,
    )
    created = re.findall(r"/number-(\d+) created", done.stdout)
    return Answers(
        refusals={numbered[int(index)][0]: text for index, text in said},
        accepted={numbered[int(index)][0] for index in created},
    )


@pytest.mark.cluster
@pytest.mark.parametrize("bad", BAD, ids=lambda it: it.name)
def test_the_api_server_refuses_and_says_why(bad, answers):
    assert bad.name not in answers.accepted
    assert bad.says in answers.refusals[bad.name]


@pytest.mark.cluster
@pytest.mark.parametrize("bad", BAD, ids=lambda it: it.name)
def test_a_refusal_holds_no_message_of_the_machinery(bad, answers):
    for jargon in ("type conversion", "no such key", "evaluating rule", "failed rule", "cost"):
        assert jargon not in answers.refusals[bad.name]


@pytest.mark.cluster
@pytest.mark.parametrize("name", GOOD)
def test_the_api_server_accepts(name, answers):
    assert answers.refusals.get(name) is None
    assert name in answers.accepted


@pytest.mark.parametrize(
    "bad", [each for each in BAD if not each.accepted_by_types], ids=lambda it: it.name
)
def test_the_types_refuse_what_the_api_server_refuses(bad):
    with pytest.raises(ValidationError):
        ModelRolloutSpec.model_validate(merged(SMALLEST, bad.spec))


@pytest.mark.parametrize(
    "bad", [each for each in BAD if each.accepted_by_types], ids=lambda it: it.name
)
def test_the_types_accept_what_never_reaches_them(bad):
    ModelRolloutSpec.model_validate(merged(SMALLEST, bad.spec))


@pytest.mark.parametrize("name", GOOD)
def test_the_types_accept_what_the_api_server_accepts(name):
    spec = ModelRolloutSpec.model_validate(GOOD[name])

    assert ModelRolloutSpec.model_validate(spec.to_dict()) == spec


RULES = {rule.message for each in vars(v1alpha1).values() for rule in getattr(each, "rules", ())}


@pytest.mark.parametrize(
    "bad",
    [each for each in BAD if any(each.says in message for message in RULES)],
    ids=lambda it: it.name,
)
def test_the_types_refuse_with_the_words_of_the_api_server(bad):
    with pytest.raises(ValidationError, match=re.escape(bad.says)):
        ModelRolloutSpec.model_validate(merged(SMALLEST, bad.spec))


def test_every_rule_is_broken_by_a_bad_manifest():
    rules = {
        rule["message"]
        for node in _nodes(generator.schema_of(ModelRolloutSpec))
        for rule in node.get("x-kubernetes-validations", ())
    }

    assert {each for each in rules if not any(bad.says in each for bad in BAD)} == set()


def _nodes(node: Manifest) -> Iterator[Manifest]:
    yield node
    for inner in [*node.get("properties", {}).values(), node.get("items")]:
        if inner:
            yield from _nodes(inner)


def test_every_field_of_the_spec_is_in_a_good_manifest():
    def paths_of(value: Any, path: str = "") -> Iterator[str]:
        if isinstance(value, dict):
            for key, inner in value.items():
                yield f"{path}.{key}"
                yield from paths_of(inner, f"{path}.{key}")
        if isinstance(value, list):
            for inner in value:
                yield from paths_of(inner, path)

    def fields_of(node: Manifest, path: str = "") -> Iterator[str]:
        for key, inner in node.get("properties", {}).items():
            yield f"{path}.{key}"
            yield from fields_of(inner, f"{path}.{key}")
        if "items" in node:
            yield from fields_of(node["items"], path)

    given = {path for each in GOOD.values() for path in paths_of(each)}

    assert set(fields_of(generator.schema_of(ModelRolloutSpec))) == given


@pytest.mark.cluster
def test_a_name_that_is_no_label_is_refused(kubectl, crd):  # noqa: ARG001
    body = json.dumps(manifest("r" * 64, SMALLEST))

    done = kubectl("create", "--dry-run=server", "-f", "-", stdin=body)

    assert "the name of a ModelRollout has at most 63 characters" in done.stderr


@pytest.mark.cluster
def test_the_crd_is_structural_and_served(crd):
    conditions = {each["type"]: each["status"] for each in crd["status"]["conditions"]}

    assert conditions["Established"] == "True"
    assert conditions["NamesAccepted"] == "True"
    assert conditions.get("NonStructuralSchema", "False") == "False"
    assert conditions.get("KubernetesAPIApprovalPolicyConformant", "True") == "True"


@pytest.mark.cluster
def test_the_api_server_keeps_the_schema_as_it_was_generated(crd):
    (version,) = crd["spec"]["versions"]
    (want,) = generator.custom_resource_definition()["spec"]["versions"]

    assert version["schema"] == want["schema"]


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("strategy.steps.weight", "weight is the percentage of requests sent to the candidate."),
        ("analysis.guardrails.margin.ratio", "ratio multiplies stable's rate"),
        ("traffic.gatewayAPI.route", "route names an existing HTTPRoute"),
    ],
)
def test_kubectl_explains_a_field(path, says, kubectl, crd):  # noqa: ARG001
    done = kubectl("explain", f"modelrollout.spec.{path}")

    assert says in " ".join(done.stdout.split()), done.stderr


VERSION = {"deployment": "ranker-2.0.1", "service": "ranker-v2", "revision": "r2"}
TIME = "2026-02-03T04:05:06.789Z"
STATUS: Manifest = {
    "observedGeneration": 3,
    "phase": "Progressing",
    "reason": "errors: candidate 3.1 % of 2,412",
    "stable": VERSION | {"modelVersion": "1"},
    "candidate": VERSION,
    "previous": VERSION,
    "rejected": VERSION | {"cause": "GuardrailBreached", "message": "errors", "time": TIME},
    "retired": ["ranker-v0"],
    "step": 1,
    "steps": 6,
    "stepText": "2/6",
    "stepStartTime": TIME,
    "stepDeadlineTime": TIME,
    "weight": {"wanted": 5, "accepted": 1},
    "verdict": "Inconclusive",
    "requests": 2412,
    "noDataSinceTime": TIME,
    "pause": {"cause": "Command", "message": "by ada", "time": TIME},
    "guardrails": [
        {
            "name": "errors",
            "verdict": "Pass",
            "message": "errors",
            "stable": {"requests": 45903, "value": "0.0101"},
            "candidate": {"requests": 2412},
            "harm": "0.12",
            "safety": "1.00",
            "placebo": "-0.50",
            "slices": [
                {
                    "name": "DE",
                    "harm": "0.40",
                    "stable": {"requests": 9000, "value": "0.01"},
                    "candidate": {"requests": 500, "value": "0.02"},
                }
            ],
        }
    ],
    "warnings": ["errors: step 1 cannot decide in time"],
    "split": {"stable": 9000, "candidate": 1000, "earlier": "-3.1000", "mismatchTime": TIME},
    "history": [
        {
            "time": TIME,
            "what": "Promoted",
            "deployment": "ranker-2.0.1",
            "revision": "r2",
            "message": "it was as good as stable",
        }
    ],
    "checkpoint": [
        {
            "name": "errors",
            "key": "0123456789abcdef",
            "watermark": 1800000000.25,
            "thresholds": [0.005, 0.25, 10.0],
            "gated": [0.25],
            "thinning": 12.5,
            "harm": [[-1.234567, 1e-06, 700.5]] * 8,
            "safety": [[0.0, -17.031]] * 8,
            "stable": [45903.0] * 9,
            "candidate": [2412.5] * 9,
            "windows": 12,
            "dispersion": [1.0, 2.125],
            "counted": "Others",
            "placebo": [[0.5, -0.25]] * 16,
            "slices": [
                {
                    "name": "DE",
                    "harm": [[0.125]] * 8,
                    "stable": [9000.0] * 9,
                    "candidate": [500.0] * 9,
                }
            ],
            "beyondSince": 1800000000.125,
        }
    ],
    "conditions": [
        {
            "type": "Ready",
            "status": "False",
            "observedGeneration": 3,
            "lastTransitionTime": TIME,
            "reason": "Analysing",
            "message": "not enough evidence",
        }
    ],
}


@pytest.mark.cluster
def test_a_status_comes_back_as_it_was_written(kubectl, crd, namespace):  # noqa: ARG001
    written = ModelRolloutStatus.model_validate(STATUS)
    body = manifest("status", SMALLEST)
    body["metadata"]["namespace"] = namespace
    assert kubectl("create", "-f", "-", stdin=json.dumps(body)).returncode == 0
    change = json.dumps({"status": written.to_dict()})
    options = ["-n", namespace, "--subresource=status", "--type=merge", "-p", change]

    done = kubectl("patch", "modelrollout", "status", *options, "--dry-run=server", "-o", "json")

    assert done.returncode == 0, done.stderr
    assert ModelRolloutStatus.model_validate(json.loads(done.stdout)["status"]) == written


def test_the_status_of_that_test_has_every_field():
    def unset(value: Any) -> Iterator[str]:
        for name in type(value).model_fields:
            if getattr(value, name) is None:
                yield f"{type(value).__name__}.{name}"

    written = ModelRolloutStatus.model_validate(STATUS)

    assert list(unset(written)) == []
    assert list(unset(written.checkpoint[0])) == []
    assert list(unset(written.guardrails[0])) == []
