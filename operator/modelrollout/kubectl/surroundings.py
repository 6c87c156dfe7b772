"""What a namespace already has for a rollout: who gets the users, who is new, and what is measured."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from modelrollout.kubectl.failures import Failure, NotFound
from modelrollout.kubectl.server import Object

FULL = 100
PRESETS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "envoy_cluster_upstream_rq_xx": (("errors", "envoy/errors"),),
    "envoy_cluster_upstream_rq_time_bucket": (("latency", "envoy/latency"),),
    "rest_server_requests_total": (("server-errors", "mlserver/errors"),),
    "rest_server_request_duration_seconds_bucket": (("server-latency", "mlserver/latency"),),
}
"""Guardrails by the metric that has to exist for them."""
UNKNOWN = (("errors", "envoy/errors"), ("latency", "envoy/latency"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A Deployment that an HTTPRoute sends users to."""

    route: str
    rule: str
    """The name of the rule; empty where there is only one."""
    service: str
    port: int
    deployment: str


def served(
    routes: Sequence[Object], services: Sequence[Object], deployments: Sequence[Object]
) -> tuple[Served, ...]:
    """All of them, in the order of the routes."""
    by_name = {each["metadata"]["name"]: each for each in services}
    found = []
    for route in routes:
        rules = route["spec"].get("rules") or []
        for rule in rules:
            for backend in rule.get("backendRefs") or ():
                service = by_name.get(backend["name"])
                if service is None or backend.get("kind", "Service") != "Service":
                    continue
                found += [
                    Served(
                        route=route["metadata"]["name"],
                        rule=_rule_name(route, rules, rule),
                        service=backend["name"],
                        port=backend["port"],
                        deployment=each["metadata"]["name"],
                    )
                    for each in deployments
                    if _selects(service, each)
                ]
    return tuple(found)


def _rule_name(route: Object, rules: Sequence[Object], rule: Object) -> str:
    if len(rules) == 1:
        return ""
    if not rule.get("name"):
        name = route["metadata"]["name"]
        raise Failure(
            f"HTTPRoute {name} has several rules and this one has no name: give it one, so that a rollout can name it"
        )
    return str(rule["name"])


def _selects(service: Object, deployment: Object) -> bool:
    selector = service["spec"].get("selector") or {}
    labels = (deployment["spec"]["template"].get("metadata") or {}).get("labels") or {}
    return bool(selector) and selector.items() <= labels.items()


def stable_of(found: Sequence[Served], stable: str | None, route: str | None) -> Served:
    """The one that is meant; a Failure that lists them where several can be."""
    fitting = [e for e in found if stable in {None, e.deployment} and route in {None, e.route}]
    versions = dict.fromkeys((each.deployment, each.route) for each in fitting)
    if not fitting:
        raise NotFound(
            "no HTTPRoute of the namespace sends requests to a Service of such a Deployment: "
            "create one first, or name them with --stable and --route"
        )
    if len(versions) > 1:
        has = ", ".join(f"{deployment} (route {name})" for deployment, name in versions)
        raise Failure(f"users are sent to several Deployments: {has}. Give --stable and --route")
    return fitting[0]


def candidate_of(
    found: Sequence[Served], deployments: Sequence[Object], stable: str, named: str | None
) -> str:
    """The newest Deployment without users whose name is like stable's."""
    names = [each["metadata"]["name"] for each in deployments]
    if named is not None:
        if named not in names:
            raise NotFound(f"there is no Deployment {named}: there are {', '.join(names)}")
        return named
    busy = {each.deployment for each in found}
    idle = [each for each in deployments if each["metadata"]["name"] not in busy]
    alike = [each for each in idle if _is_alike(each["metadata"]["name"], stable)]
    if not alike:
        raise NotFound(
            f"there is no second version of {stable}: deploy it beside it, or name it, as in"
            " kubectl modelrollout init CANDIDATE"
        )
    newest = max(alike, key=lambda each: str(each["metadata"].get("creationTimestamp", "")))
    return str(newest["metadata"]["name"])


def _is_alike(name: str, stable: str) -> bool:
    return difflib.SequenceMatcher(None, name, stable).ratio() >= 0.7  # noqa: PLR2004  # ranker-v2, ranker-v10


def overlap(stable: Object, candidate: Object) -> str:
    """Why the two cannot be told apart by their labels; empty when they can."""
    for one, other in ((stable, candidate), (candidate, stable)):
        selector = one["spec"]["selector"].get("matchLabels") or {}
        labels = (other["spec"]["template"].get("metadata") or {}).get("labels") or {}
        if selector.items() <= labels.items():
            names = one["metadata"]["name"], other["metadata"]["name"]
            return f"the selector of Deployment {names[0]} also selects the pods of {names[1]}: give each a label of its own"
    return ""


def guardrails(metrics: frozenset[str] | None) -> tuple[tuple[str, str], ...]:
    """Presets whose metrics exist; Envoy's, where nobody could be asked."""
    if metrics is None:
        return UNKNOWN
    found = [each for name, presets in PRESETS.items() if name in metrics for each in presets]
    if not found:
        raise Failure(
            f"that Prometheus has none of {', '.join(PRESETS)}: is it the one that scrapes the gateway?"
        )
    return tuple(found)


def manifest(
    namespace: str,
    stable: Served,
    candidate: str,
    found: Sequence[tuple[str, str]],
    *,
    were_asked: bool,
) -> str:
    """A ModelRollout with comments, as text."""
    return "\n".join(_lines(namespace, stable, candidate, found, were_asked=were_asked)) + "\n"


def _lines(
    namespace: str,
    stable: Served,
    candidate: str,
    found: Sequence[tuple[str, str]],
    *,
    were_asked: bool,
) -> Iterator[str]:
    service = "" if stable.service == stable.deployment else f", service: {stable.service}"
    rule = f", rule: {stable.rule}" if stable.rule else ""
    measured = (
        "metrics that your Prometheus has"
        if were_asked
        else "counted by Envoy; has your Prometheus its metrics?"
    )
    yield f"# {candidate} takes over from {stable.deployment}, a few per cent of users at a time, or is taken back."
    yield "apiVersion: modelrollout.dev/v1alpha1"
    yield "kind: ModelRollout"
    yield f"metadata: {{name: {stable.route}, namespace: {namespace}}}"
    yield "spec:"
    yield f"  candidate: {{deployment: {candidate}}}    # the next release is a change of this line"
    yield f"  stable: {{deployment: {stable.deployment}{service}}}    # what users have, until something was promoted"
    yield f"  port: {stable.port}"
    yield "  traffic:"
    yield f"    gatewayAPI: {{route: {stable.route}{rule}}}    # its backendRefs are edited, nothing else of it"
    yield "  strategy:"
    yield "    type: Canary    # 1, 5, 20, 50, then 100 % of requests; each step waits for proof"
    yield "    bake: {seconds: 300}    # at 100 % stable stays ready for so long"
    yield "  analysis:"
    yield f"    guardrails:    # {measured}"
    for name, preset in found:
        yield f"    - {{name: {name}, preset: {preset}}}"
    yield "    # Whether answers are right only you can count. A counter of your own, once you have one:"
    yield "    # - name: accuracy"
    yield "    #   proportion:"
    yield "    #     events: {metric: predictions_wrong_total}"
    yield "    #     total: {metric: predictions_judged_total}"
    yield "    #   margin: {absolute: '0.01'}    # how much worse is excluded before the next step"
    yield "    onInconclusive: Pause    # a step that is not decided within the hour waits for a human"
