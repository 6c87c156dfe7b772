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
from modelrollout.api import shadow as shadow_types
from modelrollout.api import v1alpha1
from modelrollout.api.v1alpha1 import API_VERSION, KIND, ModelRolloutSpec, ModelRolloutStatus
from modelrollout.kubectl.lint import findings

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


FLIPS = {"name": "flips", "preset": "comparator/flips"}
COUNTED_BY_PODS = {"name": "wrong", "proportion": WRONG}
SHADOW: Manifest = {
    "intent": "Equivalence",
    "idempotent": True,
    "paths": ["/v2/models"],
    "outputs": [{"name": "label", "path": "$.label", "exact": {}}],
}


def shadow(**given: Any) -> Manifest:
    """A shadow strategy with everything that it needs, but for one change to spec.shadow."""
    return merged(
        {"strategy": {"type": "Shadow"}, "shadow": SHADOW} | guardrails(FLIPS), {"shadow": given}
    )


def shadowed(*given: Manifest) -> Manifest:
    """A list of steps with everything that they need."""
    return {"shadow": SHADOW} | steps(*given) | guardrails(FLIPS, COUNTED_BY_PODS)


def output(**given: Any) -> Manifest:
    """One output of the comparison; None removes a field."""
    return shadow(outputs=[merged({"name": "label", "path": "$.label", "exact": {}}, given)])


def strategy(**given: Any) -> Manifest:
    return {"strategy": given}


def check(**http: Any) -> Manifest:
    """A blue/green strategy whose only check is this request."""
    return strategy(type="BlueGreen", checks=[{"name": "answers", "http": {"path": "/"} | http}])


def expectation(**given: Any) -> Manifest:
    return check(json=[{"pointer": "/ready", "equals": "true"} | given])


def sticky(**given: Any) -> Manifest:
    return {"traffic": {"sticky": given}}


def cohort(**given: Any) -> Manifest:
    return {"traffic": {"cohort": [given]}}


def ab_test(*given: Manifest) -> Manifest:
    return sticky(header="x-user-id") | strategy(type="ABTest", steps=list(given))


MANAGED = {"route": None, "gateway": {"name": "public"}}
UNKNOWN = "the types ignore fields that a newer version may have"
DECIMAL = "a decimal number is written in digits and at most one point"
RATE = "a rate is a decimal number above 0 and below 1"
NAME = "a name is made of lower-case letters, digits, '-' and '.'"
A_STEP = "a step is exactly one of weight, mirror, approval and pauseSeconds"
SOMETHING_COMPARED = "steps must hold at least one mirror, or one weight below 100"
HEADER_NAME = "a header's or cookie's name is made of"
HEADER_VALUE = "a header's or cookie's value is made of"
JSON_TEXT = "a value is written as JSON"
METRIC = "a metric's name stands alone: matchers, functions and braces do not belong here"

MORE = [
    # --- strategies -------------------------------------------------------------------------
    Bad(
        "users mirrored after some are on the candidate",
        "mirror steps come before the first weight",
        shadowed({"weight": 5}, {"mirror": 20}, {"weight": 50}),
    ),
    Bad(
        "an A/B test that does not know its users",
        "an ABTest needs traffic.sticky",
        strategy(type="ABTest"),
    ),
    Bad(
        "an A/B test whose users change sides",
        "an ABTest has one weight below 100",
        ab_test({"weight": 10}, {"weight": 50}),
    ),
    Bad(
        "an A/B test that shows the candidate to nobody",
        "an ABTest has one weight below 100",
        ab_test({"mirror": 100}) | {"shadow": SHADOW} | guardrails(FLIPS),
    ),
    Bad(
        "a shadow that mirrors nothing",
        "a Shadow has at least one mirror step",
        strategy(type="Shadow", steps=[{"weight": 5}]),
    ),
    Bad(
        "a blue/green in small steps",
        "a BlueGreen moves all users at once",
        strategy(type="BlueGreen", onPass="Hold", steps=[{"weight": 5}]),
    ),
    Bad(
        "a blue/green that nothing can stop",
        "nothing here could stop a bad candidate",
        strategy(type="BlueGreen"),
    ),
    Bad(
        "a blue/green with an empty list of checks",
        "nothing here could stop a bad candidate",
        strategy(type="BlueGreen", checks=[]),
    ),
    Bad("an unknown end", 'Unsupported value: "Report"', strategy(onPass="Report")),
    Bad("an unknown way back", 'Unsupported value: "Never"', strategy(revert="Never")),
    Bad("a warm-up of nothing", "warmupRequests in body should", strategy(warmupRequests=0)),
    Bad("a negative warm-up", "warmupSeconds in body should be", strategy(warmupSeconds=-1)),
    Bad("checks of no time", "checkSeconds in body should be", strategy(checkSeconds=0)),
    Bad("mirror 0", "steps[0].mirror in body should be greater", shadowed({"mirror": 0})),
    Bad("mirror 101", "steps[0].mirror in body should be less", shadowed({"mirror": 101})),
    Bad(
        "no harm in the only mirror step",
        "the last step before 100 must have gate Pass",
        shadowed({"mirror": 100, "gate": "NoHarm"}),
    ),
    # --- checks -----------------------------------------------------------------------------
    Bad(
        "two checks of one name",
        "two checks have the same name",
        strategy(checks=[{"name": "a", "http": {"path": path}} for path in ("/", "/ready")]),
    ),
    Bad(
        "a check in capitals",
        "a check's name is made of",
        strategy(checks=[{"name": "A", "http": {"path": "/"}}]),
    ),
    Bad(
        "a check of nothing",
        "a check is exactly one of http and job",
        strategy(checks=[{"name": "a"}]),
    ),
    Bad(
        "a check by request and by Job",
        "a check is exactly one of http and job",
        strategy(checks=[{"name": "a", "http": {"path": "/"}, "job": {"cronJob": "it"}}]),
    ),
    Bad(
        "a Job of no time",
        "timeoutSeconds in body should be",
        strategy(checks=[{"name": "a", "job": {"cronJob": "it", "timeoutSeconds": 0}}]),
    ),
    Bad(
        "a check of another host",
        "the check goes to the candidate's own Service, never to another host",
        check(path="http://169.254.169.254/latest"),
    ),
    Bad("a check with a header in its path", "a path begins with /", check(path="/ HTTP/1.1")),
    Bad("a check with a fragment", "no spaces and no #", check(path="/ready#top")),
    Bad("a body that is not sent", "a body is sent by method POST", check(body="{}")),
    Bad(
        "a body of a GET",
        "a body is sent by method POST",
        check(method="GET", body="{}"),
    ),
    Bad("a check that deletes", 'Unsupported value: "DELETE"', check(method="DELETE")),
    Bad("no status", "http.status in body should be greater than or equal to 200", check(status=0)),
    Bad(
        "a check that waits for ever", "timeoutSeconds in body should be", check(timeoutSeconds=31)
    ),
    Bad("a pointer with dots", "a JSON Pointer is empty or", expectation(pointer="outputs.0")),
    Bad("text without quotes of its own", JSON_TEXT, expectation(equals="FP32")),
    Bad("nothing to expect", JSON_TEXT, expectation(equals="")),
    Bad("True, as Python has it", JSON_TEXT, expectation(equals="True")),
    # --- users ------------------------------------------------------------------------------
    Bad(
        "users known twice",
        "a user is known by exactly one of header and cookie",
        sticky(header="x-user-id", cookie="session"),
    ),
    Bad("users known by nothing", "a user is known by exactly one of", sticky()),
    Bad("a hash of nothing", "a user is known by exactly one of", sticky(by="Hash")),
    Bad(
        "a cookie of ours for an id",
        "with by: Cookie the gateway gives",
        sticky(by="Cookie", header="x-user"),
    ),
    Bad(
        "a cookie for a cookie",
        "with by: Cookie the gateway gives",
        sticky(by="Cookie", cookie="uid"),
    ),
    Bad("users known by their luck", 'supported values: "Hash", "Cookie"', sticky(by="Luck")),
    Bad("a header with a colon", HEADER_NAME, sticky(header="x-user:")),
    Bad(
        "a cohort known twice",
        "a cohort's users are known by exactly one of",
        cohort(header="x-beta", cookie="beta", value="1"),
    ),
    Bad(
        "a cohort known by nothing", "a cohort's users are known by exactly one", cohort(value="1")
    ),
    Bad(
        "users by an expression",
        METRIC,
        {"traffic": {"sticky": {"header": "x-user", "users": {"metric": "sum(users_total)"}}}},
    ),
    Bad("a cohort of all who have a cookie", "value: Required value", cohort(cookie="beta")),
    Bad("a cohort's cookie with a name of two", HEADER_NAME, cohort(cookie="a; b", value="1")),
    Bad("a cohort's cookie of two", HEADER_VALUE, cohort(cookie="beta", value="1; admin=1")),
    # --- scaling ----------------------------------------------------------------------------
    Bad(
        "a trial without pods",
        "scaling.minReplicas in body should be greater than or equal to 1",
        {"scaling": {"minReplicas": 0}},
    ),
    Bad("negative warmth", "scaling.warmSeconds in body", {"scaling": {"warmSeconds": -1}}),
    # --- mirroring --------------------------------------------------------------------------
    Bad(
        "a mirror without shadow",
        "a mirror step needs shadow",
        steps({"mirror": 20}) | guardrails(COUNTED_BY_PODS),
    ),
    Bad(
        "a mirror that only the gateway would judge",
        "no guardrail can be judged in a mirror step",
        steps({"mirror": 20}) | {"shadow": SHADOW},
    ),
    Bad(
        "a weight that only the comparator would judge",
        "no guardrail can be judged in a weight step",
        shadowed({"mirror": 20}, {"weight": 5}) | guardrails(FLIPS),
    ),
    Bad(
        "flips where nothing is mirrored",
        "the comparator presets are counted in mirror steps, and there is none",
        guardrails(FLIPS, COUNTED_BY_PODS) | {"shadow": SHADOW},
    ),
    Bad(
        "flips of a version that is meant to answer differently",
        "a version that is meant to answer differently cannot be judged by flips",
        shadow(intent="Change"),
    ),
    Bad(
        "flips by a ratio",
        "flips are counted beyond the noise floor, where a ratio has no meaning",
        shadow() | guardrails(FLIPS | {"margin": {"ratio": "2"}}),
    ),
    Bad(
        "flips by slices",
        "flips are counted beyond the noise floor",
        shadow() | guardrails(FLIPS | {"slices": {"label": "country"}}),
    ),
    Bad(
        "more flips than requests",
        "flips are a share of the requests",
        shadow() | guardrails(FLIPS | {"margin": {"absolute": "1"}}),
    ),
    Bad(
        "a tolerance of all requests",
        "flips are a share of the requests",
        shadow()
        | guardrails(FLIPS | {"tolerance": {"absolute": "2"}, "margin": {"absolute": "2"}}),
    ),
    Bad(
        "a label that tells what the comparator tells",
        "the envoy presets tell the versions apart by the route, the comparator's by the call",
        shadow() | guardrails(FLIPS | {"versionLabel": "version"}),
    ),
    Bad("side effects", "say idempotent: true if they have no", shadow(idempotent=False)),
    Bad("side effects that nobody thought of", "idempotent: Required", shadow(idempotent=None)),
    Bad("no intent", "shadow.intent: Required value", shadow(intent=None)),
    Bad("an unknown intent", 'Unsupported value: "Hope"', shadow(intent="Hope")),
    Bad("no path may be repeated", "shadow.paths in body should have at least 1", shadow(paths=[])),
    Bad("a path with a query", "a path begins with / and has no query", shadow(paths=["/a?b"])),
    Bad("a path that climbs", "no query and no .. in it", shadow(paths=["/v2/../admin"])),
    Bad("a method in lower case", "a method is written in capital", shadow(methods=["post"])),
    Bad("no method", "shadow.methods in body should have at least 1", shadow(methods=[])),
    Bad("an unknown format", 'Unsupported value: "XML"', shadow(format="XML")),
    Bad("JSON without outputs", "format JSON needs outputs, each with", shadow(outputs=None)),
    Bad("an output somewhere", "format JSON needs outputs, each with", output(path=None)),
    Bad(
        "a tensor of plain JSON",
        "a tensor belongs to format OpenInference",
        merged(output(path=None, tensor="scores"), {"shadow": {"format": "TFServing"}}),
    ),
    Bad(
        "an output in two places",
        "give a path or a tensor, not both",
        merged(output(tensor="scores"), {"shadow": {"format": "OpenInference"}}),
    ),
    Bad("a path from nowhere", "a path is a JSONPath from the root", output(path="label")),
    Bad("an output in capitals", "an output's name is made of", output(name="Label")),
    Bad(
        "two outputs of one name",
        "two outputs have the same name",
        shadow(outputs=SHADOW["outputs"] * 2),
    ),
    Bad(
        "an output compared in two ways",
        "give exactly one of exact, numeric, label, probabilities, rank, embedding and text",
        output(label={}),
    ),
    Bad("an output not compared", "give exactly one of exact, numeric,", output(exact=None)),
    Bad(
        "a field to ignore that is a path",
        "a field's name is made of",
        output(exact={"ignore": ["a.b"]}),
    ),
    Bad(
        "numbers within nothing",
        "give an absolute, a relative, or both",
        output(exact=None, numeric={}),
    ),
    Bad(
        "a threshold of an argmax",
        "a threshold makes a label of one score",
        output(exact=None, label={"by": "Argmax", "threshold": "0.5"}),
    ),
    Bad(
        "probabilities at two distances",
        "give exactly one of maxDifference and jensenShannon",
        output(exact=None, probabilities={"maxDifference": "0.1", "jensenShannon": "0.1"}),
    ),
    Bad(
        "a ranking by two measures",
        "give exactly one of overlap and rbo",
        output(exact=None, rank={"overlap": "0.8", "rbo": "0.9"}),
    ),
    Bad(
        "persistence of an overlap",
        "persistence belongs to rbo",
        output(exact=None, rank={"overlap": "0.8", "persistence": "0.9"}),
    ),
    Bad(
        "a share above 1",
        "a share is a decimal number above 0 and at most 1",
        shadow(noiseFloor={"share": "1.5"}),
    ),
    Bad("no coverage", "a share is a decimal number above 0", shadow(minCoverage="0")),
    Bad(
        "a header in capitals",
        "a header's name is written in lower-case letters",
        shadow(allowHeaders=["Authorization"]),
    ),
    Bad("a forced word", JSON_TEXT, shadow(force=[{"field": "model", "value": "small"}])),
    Bad("no requests at all", "maxRequestsPerSecond in body", shadow(maxRequestsPerSecond=0)),
    Bad("answers in no time", "shadow.timeoutSeconds in body", shadow(timeoutSeconds=0)),
    Bad("bodies of nothing", "shadow.maxBodyBytes in body", shadow(maxBodyBytes=0)),
]

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
        A_STEP,
        steps({"weight": 5, "pauseSeconds": 60}, {"weight": 50}),
    ),
    Bad("a step of nothing", A_STEP, steps({}, {"weight": 5})),
    Bad(
        "an approval that is a weight too",
        A_STEP,
        steps({"weight": 5, "approval": {}}, {"weight": 50}),
    ),
    Bad(
        "users who are on the candidate and mirrored",
        A_STEP,
        shadowed({"mirror": 20, "weight": 5}),
    ),
    Bad(
        "a pause with a gate",
        "minRequests, minSeconds, maxSeconds and gate belong to a weight or a mirror step",
        steps({"pauseSeconds": 60, "gate": "Pass"}, {"weight": 5}),
    ),
    Bad(
        "an approval that runs out",
        "minRequests, minSeconds, maxSeconds and gate belong to a weight or a mirror step",
        steps({"approval": {}, "maxSeconds": 60}, {"weight": 5}),
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
    Bad("100 at once", SOMETHING_COMPARED, steps({"weight": 100})),
    Bad("pauses alone", SOMETHING_COMPARED, steps({"pauseSeconds": 60})),
    Bad("approvals alone", SOMETHING_COMPARED, steps({"approval": {}})),
    Bad("no steps", "strategy.steps in body should have at least 1 items", steps()),
    Bad(
        "more steps than anybody can follow",
        "must have at most 30 items",
        steps(*({"weight": each} for each in range(1, 32))),
    ),
    Bad("an unknown gate", 'Unsupported value: "Maybe"', steps({"weight": 5, "gate": "Maybe"})),
    Bad(
        "an unknown strategy",
        'supported values: "Canary", "BlueGreen", "Shadow", "ABTest"',
        {"strategy": {"type": "BigBang"}},
    ),
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
    Bad(
        "more slices than status has room for",
        "all guardrails together may have at most 30 slices",
        guardrails(
            {
                "name": "errors",
                "preset": "mlserver/errors",
                "slices": {"label": "model", "top": 20},
            },
            {
                "name": "latency",
                "preset": "mlserver/latency",
                "slices": {"label": "model", "top": 11},
            },
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
        "a candidate without pods",
        "scaling.minReplicas in body should be greater than or equal to 1",
        {"scaling": {"minReplicas": 0}},
    ),
    *MORE,
    Bad(
        "a misspelt field",
        'unknown field "spec.analysis.guardrail"',
        analysis(guardrail=[]),
        accepted_by_types=UNKNOWN,
    ),
]

EVERY_CHECK = [
    {
        "name": "answers",
        "http": {
            "path": "/v2/models/ranker/infer?trace=1",
            "method": "POST",
            "body": '{"inputs": []}',
            "status": 200,
            "json": [
                {"pointer": "", "equals": '{"a": [1, "b"]}'},
                {"pointer": "/outputs/0/datatype", "equals": '"FP32"'},
                {"pointer": "/a~1b/m~0n", "equals": "-1.5e3"},
                {"pointer": "/ready", "equals": "true"},
                {"pointer": "/error", "equals": "null"},
                {"pointer": "/said", "equals": '"\\"quoted\\" ü"'},
                {"pointer": "/list", "equals": "[\n  1,\n  2\n]"},
            ],
            "timeoutSeconds": 30,
        },
    },
    {"name": "refuses", "http": {"path": "//nothing/../here", "status": 404}},
    {"name": "accepts", "job": {"cronJob": "acceptance", "timeoutSeconds": 86_400}},
]
EVERY_COMPARISON = [
    {"name": "all", "path": "$", "exact": {"ignore": ["id", "created_at"]}},
    {"name": "price", "path": "$.price", "numeric": {"absolute": "0.01", "relative": "0.001"}},
    {"name": "class", "path": "$.scores", "label": {"by": "Argmax"}},
    {"name": "is-fraud", "path": "$.score", "label": {"by": "Value", "threshold": "0.5"}},
    {"name": "chances", "path": "$.p", "probabilities": {"maxDifference": "0.05"}},
    {"name": "divergence", "path": "$.p", "probabilities": {"jensenShannon": "0.01"}},
    {
        "name": "items",
        "path": "$.items[*].id",
        "rank": {"depth": 20, "rbo": "0.9", "persistence": "0.95"},
    },
    {"name": "top", "path": "$.items[*].id", "rank": {"overlap": "0.8"}},
]
EVERY_SHADOW: Manifest = {
    "intent": "Equivalence",
    "idempotent": True,
    "paths": ["/", "/v2/models/"],
    "methods": ["POST", "GET"],
    "format": "JSON",
    "outputs": EVERY_COMPARISON,
    "noiseFloor": {"share": "1"},
    "allowHeaders": ["authorization"],
    "force": [{"field": "temperature", "value": "0"}, {"field": "model", "value": '"small"'}],
    "maxRequestsPerSecond": 400,
    "timeoutSeconds": 30,
    "maxBodyBytes": 2_097_152,
    "minCoverage": "0.9",
}
ANY_SHADOW: Manifest = {
    "intent": "Change",
    "idempotent": True,
    "paths": ["/v1"],
    "format": "OpenInference",
    "outputs": [
        {"name": "vector", "tensor": "embedding", "embedding": {"cosine": "0.99"}},
        {
            "name": "words",
            "tensor": "text",
            "text": {"compare": "Normalised", "jsonSchema": '{"type": "object"}'},
        },
    ],
}
EVERY_STEP_FIELD = [
    {"mirror": 20, "minRequests": 50, "minSeconds": 1, "maxSeconds": 60, "gate": "NoHarm"},
    {"approval": {"message": "look at the dashboard"}},
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
    {"name": "flips", "preset": "comparator/flips", "margin": {"absolute": "0.02"}},
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
    "traffic": {
        "gatewayAPI": {"route": "ranker", "rule": "infer"},
        "sticky": {
            "by": "Hash",
            "header": "x-user-id",
            "users": {
                "metric": "shop_exposures_total",
                "matchers": [{"label": "test", "operator": "=~", "value": "ranker-.*"}],
                "versionLabel": "model_version",
                "repeatSeconds": 86_400,
            },
        },
        "cohort": [{"header": "x-beta", "value": "1"}, {"cookie": "beta", "value": "a=b'c"}],
    },
    "strategy": {
        "type": "Canary",
        "steps": EVERY_STEP_FIELD,
        "checks": EVERY_CHECK,
        "checkSeconds": 1,
        "warmupSeconds": 0,
        "warmupRequests": 500,
        "onPass": "Hold",
        "revert": "Steps",
        "bake": {"seconds": 0},
    },
    "shadow": EVERY_SHADOW,
    "scaling": {"minReplicas": 2, "warmSeconds": 0, "drainSeconds": 60},
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
    """The specs of the ModelRollouts that the documentation and the examples show."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for path in [*pages, *sorted((ROOT / "examples").glob("*.yaml"))]:
        text = path.read_text()
        blocks = re.findall(r"^```yaml\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        blocks = [text] if path.suffix == ".yaml" else blocks
        documents = [each for block in blocks for each in yaml.safe_load_all(block)]
        for index, each in enumerate(documents):
            if isinstance(each, dict) and each.get("kind") == KIND:
                yield f"{path.name}, document {index}", each["spec"]


GOOD: dict[str, Manifest] = {
    "the smallest": SMALLEST,
    "everything": EVERYTHING,
    "a route that the operator owns": merged(SMALLEST, gateway_api(route=None, **OWNED)),
    "a route for all hostnames": merged(SMALLEST, gateway_api(**MANAGED)),
    "a blue/green with a check": merged(SMALLEST, check()),
    "a blue/green that asks": merged(SMALLEST, strategy(type="BlueGreen", onPass="Hold")),
    "a blue/green with steps": merged(
        SMALLEST, strategy(type="BlueGreen", steps=[{"approval": {}}, {"weight": 100}])
    ),
    "a blue/green with a threshold": merged(
        SMALLEST, limit() | strategy(type="BlueGreen", steps=[{"pauseSeconds": 60}])
    ),
    "a shadow": merged(SMALLEST, shadow()),
    "a shadow of a new model": merged(
        SMALLEST, shadow() | {"shadow": ANY_SHADOW} | guardrails(COUNTED_BY_PODS)
    ),
    "a shadow, then users": merged(
        SMALLEST,
        shadowed() | strategy(type="Shadow", steps=[{"mirror": 100}, {"weight": 5}]),
    ),
    "an A/B test": merged(SMALLEST, sticky(cookie="session") | strategy(type="ABTest")),
    "an A/B test of strangers": merged(SMALLEST, sticky(by="Cookie") | strategy(type="ABTest")),
    "an A/B test with approval": merged(
        SMALLEST, ab_test({"weight": 20, "maxSeconds": 2_592_000}, {"approval": {}})
    ),
    "two humans one after the other": merged(
        SMALLEST, steps({"approval": {}}, {"approval": {}}, {"weight": 5})
    ),
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


@pytest.mark.parametrize("bad", BAD, ids=lambda it: it.name)
def test_the_api_server_refuses_and_says_why(bad, answers):
    assert bad.name not in answers.accepted
    assert bad.says in answers.refusals[bad.name]


@pytest.mark.parametrize("bad", BAD, ids=lambda it: it.name)
def test_a_refusal_holds_no_message_of_the_machinery(bad, answers):
    for jargon in ("type conversion", "no such key", "evaluating rule", "failed rule", "cost"):
        assert jargon not in answers.refusals[bad.name]


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


@pytest.mark.parametrize("bad", BAD, ids=lambda it: it.name)
def test_lint_refuses_without_a_cluster_what_the_api_server_refuses(bad):
    assert findings(manifest("ranker", merged(SMALLEST, bad.spec)))


@pytest.mark.parametrize("name", GOOD)
def test_lint_accepts_without_a_cluster_what_the_api_server_accepts(name):
    assert findings(manifest("ranker", GOOD[name])) == ()


RULES = {
    rule.message
    for module in (v1alpha1, shadow_types)
    for each in vars(module).values()
    for rule in getattr(each, "rules", ())
}


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


def test_a_name_that_is_no_label_is_refused(kubectl, crd):  # noqa: ARG001
    body = json.dumps(manifest("r" * 64, SMALLEST))

    done = kubectl("create", "--dry-run=server", "-f", "-", stdin=body)

    assert "the name of a ModelRollout has at most 63 characters" in done.stderr


@pytest.mark.parametrize("name", ["r" * 53, "2-ranker", "shop.ranker"])
def test_a_name_that_the_comparators_service_cannot_have_is_refused(name, kubectl, crd):  # noqa: ARG001
    body = json.dumps(manifest(name, merged(SMALLEST, shadow())))

    done = kubectl("create", "--dry-run=server", "-f", "-", stdin=body)

    assert "the comparator's Service is called after it" in done.stderr


def test_the_longest_name_with_shadow_is_accepted(kubectl, crd):  # noqa: ARG001
    body = json.dumps(manifest("r" * 52, merged(SMALLEST, shadow())))

    done = kubectl("create", "--dry-run=server", "-f", "-", stdin=body)

    assert done.returncode == 0, done.stderr


def test_the_crd_is_structural_and_served(crd):
    conditions = {each["type"]: each["status"] for each in crd["status"]["conditions"]}

    assert conditions["Established"] == "True"
    assert conditions["NamesAccepted"] == "True"
    assert conditions.get("NonStructuralSchema", "False") == "False"
    assert conditions.get("KubernetesAPIApprovalPolicyConformant", "True") == "True"


def test_the_api_server_keeps_the_schema_as_it_was_generated(crd):
    (version,) = crd["spec"]["versions"]
    (want,) = generator.custom_resource_definition()["spec"]["versions"]

    assert version["schema"] == want["schema"]


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
    "mirror": 20,
    "coverage": "0.93",
    "stickyBy": "Hash",
    "obeyed": "approve by ada",
    "replicas": 6,
    "idle": [{"deployment": "ranker-v0", "replicas": 6, "sinceTime": TIME}],
    "isRevert": True,
    "checks": [
        {"name": "accepts", "passed": False, "message": "Job it is running", "job": "it-1a2b"}
    ],
    "checkSinceTime": TIME,
    "cohort": {"requests": 310, "errors": 2, "untilTime": TIME, "message": "no series"},
    "warmup": {"requests": 120, "untilTime": TIME, "message": "no series"},
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
            "interval": {"kind": "Ratio", "lower": "0.82", "upper": "1.31", "threshold": "0.25"},
            "needed": 3100,
            "neededUsers": 420,
            "chanceToBeat": "0.71",
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
    "split": {
        "unit": "Users",
        "stable": 9000,
        "candidate": 1000,
        "earlier": "-3.1000",
        "untilTime": TIME,
        "message": "no series of this metric",
        "mismatchTime": TIME,
    },
    "history": [
        {
            "time": TIME,
            "what": "Promoted",
            "deployment": "ranker-2.0.1",
            "revision": "r2",
            "message": "it was as good as stable",
            "by": "ada@shop.example",
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
            "usual": [0.25, 0.0],
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
    assert list(unset(written.history[0])) == []
