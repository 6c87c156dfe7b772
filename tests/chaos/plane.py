"""What is around an API server: pods, a gateway, users, and the counters that they move."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from chaos.apiserver import ApiServer
from chaos.clock import VirtualLoop
from modelrollout.adapters.cluster import (
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    EXTENSION_POLICIES,
    HTTP_ROUTES,
    PODS,
    REPLICA_SETS,
    SERVICES,
    Object,
)
from modelrollout.adapters.routers.gateway_api import buckets, own_rules
from modelrollout.errors import NotFound

SCRAPE_SECONDS = 2.0
PAST_SECONDS = 600.0
RATE = 2000.0
"""Requests per second of all users."""
COHORT = 0.02
"""Of all users."""
START_SECONDS = 2.0
PROPAGATION_SECONDS = 0.2
COMPARATOR = "ranker-comparator"
LETTERS = "bcdfghjklmnpqrstvwxz"


@dataclass
class Pod:
    """One stands for all pods of a ReplicaSet."""

    name: str
    deployment: str
    requests: float = 0.0
    errors: float = 0.0
    times: list[float] = field(default_factory=list)
    """Of its scrapes, Unix seconds."""
    counts: list[tuple[float, float]] = field(default_factory=list)
    """Requests and errors then."""


class Plane:
    """The data plane of one namespace, and the controllers that are not ours."""

    def __init__(
        self, server: ApiServer, loop: VirtualLoop, clock: Callable[[], float], namespace: str
    ) -> None:
        self._server = server
        self._loop = loop
        self._clock = clock
        self.namespace = namespace
        self.error_rates: dict[str, float] = {}
        """By Deployment."""
        self.sick: set[str] = set()
        """Deployments whose pods are not ready."""
        self.excuses: dict[str, Object] = {}
        """What a pod of such a Deployment says in its status, by Deployment."""
        self.quota: int | None = None
        """Pods that any Deployment may have."""
        self.gateway_is_down = False
        self.refusal = ""
        """Why the gateway refuses each route."""
        self.is_scraping = True
        self.rules: dict[str, list[Object]] = {}
        """In force, by route."""
        self._broken: set[str] = set()
        """Routes that answer 500: they copy to a Service that was not there when they were taken up."""
        self.pods: dict[str, Pod] = {}
        """By Deployment."""
        self.all_pods: list[Pod] = []
        self.lost_requests = 0.0
        self.told: list[Callable[[], None]] = []
        """Called when shares or pods change."""
        self._shares: dict[str, float] = {}
        self._sent: dict[str, float] = {}
        self._lost = 0.0
        self._has_served = False
        self._last = clock()
        server.listeners.append(self._changed)

    # --- controllers ----------------------------------------------------------------------

    def _changed(self, plural: str, _: Object | None, after: Object | None) -> None:
        if plural == HTTP_ROUTES.plural and after is not None:
            self._route_changed(after)
        elif plural == HTTP_ROUTES.plural:
            self._loop.later(PROPAGATION_SECONDS, self._withdraw_routes)
        elif plural == EXTENSION_POLICIES.plural and after is not None:
            self._loop.later(PROPAGATION_SECONDS, self._answer_policies)
        elif plural in {DEPLOYMENTS.plural, SERVICES.plural}:
            self._loop.later(0.01, self.follow)
            self._loop.later(START_SECONDS, self.follow)

    def _route_changed(self, body: Object) -> None:
        said = body.get("status", {}).get("parents", [])
        known = [c["observedGeneration"] for p in said for c in p["conditions"]]
        if self.gateway_is_down or min(known, default=0) >= body["metadata"]["generation"]:
            return
        name = body["metadata"]["name"]
        self._loop.later(PROPAGATION_SECONDS, lambda: self._take_up(name))

    def resume_gateway(self) -> None:
        """It is back, and looks at all routes."""
        self.gateway_is_down, self.refusal = False, ""
        for each in self._server.list(HTTP_ROUTES, self.namespace):
            self._take_up(each["metadata"]["name"])
        self._answer_policies()

    def _take_up(self, name: str) -> None:
        try:
            body = self._server.get(HTTP_ROUTES, self.namespace, name)
        except NotFound:
            return
        if self.gateway_is_down:
            return
        generation = body["metadata"]["generation"]
        status = "False" if self.refusal else "True"
        reason, message = ("Invalid", self.refusal) if self.refusal else ("Fine", "")
        conditions = [
            {
                "type": kind,
                "status": status,
                "reason": reason,
                "message": message,
                "observedGeneration": generation,
            }
            for kind in ("Accepted", "ResolvedRefs")
        ]
        if not self.refusal:
            self.advance()
            self.rules[name] = body["spec"]["rules"]
            self._broken.discard(name)
            if self.mirrored(name) and not self._is_there(COMPARATOR):
                self._broken.add(name)
            self._share_out()
        answered = {"parents": [{"conditions": conditions}]}
        if body.get("status") != answered:
            self._server.put(HTTP_ROUTES, {**body, "status": answered})

    def _withdraw_routes(self) -> None:
        live = {each["metadata"]["name"] for each in self._server.list(HTTP_ROUTES, self.namespace)}
        self.advance()
        self.rules = {name: each for name, each in self.rules.items() if name in live}
        self._share_out()

    def _answer_policies(self) -> None:
        if self.gateway_is_down:
            return
        for each in self._server.list(EXTENSION_POLICIES, self.namespace):
            generation = each["metadata"]["generation"]
            said = {"type": "Accepted", "status": "True", "observedGeneration": generation}
            status = {"ancestors": [{"conditions": [said]}]}
            if each.get("status") != status:
                self._server.put(EXTENSION_POLICIES, {**each, "status": status})

    def follow(self) -> None:
        """Pods, ReplicaSets and endpoints as Deployments and Services have them by now."""
        self.advance()
        ready: dict[str, int] = {}
        labels: dict[str, dict[str, str]] = {}
        for each in self._server.list(DEPLOYMENTS, self.namespace):
            name = each["metadata"]["name"]
            ready[name] = self._ready(each)
            labels[name] = each["spec"]["template"]["metadata"]["labels"]
            self._replica_set(each)
            self._pending_pod(each)
            self._pod_status(each, ready[name])
        self.pods = {name: each for name, each in self.pods.items() if name in ready}
        services = {
            each["metadata"]["name"]: each["spec"]["selector"]
            for each in self._server.list(SERVICES, self.namespace)
        }
        for service, selector in services.items():
            count = sum(
                ready[name] for name, each in labels.items() if selector.items() <= each.items()
            )
            self._endpoints(service, count)
        for each in self._server.list(ENDPOINT_SLICES, self.namespace):
            if each["metadata"]["name"] not in services:
                self._server.delete(ENDPOINT_SLICES, self.namespace, each["metadata"]["name"])
        self._share_out()

    def _ready(self, deployment: Object) -> int:
        name, spec = deployment["metadata"]["name"], deployment["spec"]
        most = math.inf if self.quota is None else self.quota
        return 0 if name in self.sick else int(min(spec.get("replicas", 1), most))

    def _replica_set(self, deployment: Object) -> None:
        name = replica_set_of(deployment)
        pod = self.pods.get(deployment["metadata"]["name"])
        if pod is None or not pod.name.startswith(name):
            self.start_pod(deployment)
        try:
            self._server.get(REPLICA_SETS, self.namespace, name)
        except NotFound:
            meta = deployment["metadata"]
            labels = deployment["spec"]["selector"]["matchLabels"]
            owner = {"ownerReferences": [{"uid": meta["uid"]}]}
            body = {"metadata": {"name": name, "labels": labels, **owner}}
            self._server.create(REPLICA_SETS, self.namespace, body)

    def _pending_pod(self, deployment: Object) -> None:
        """One of those that do not become ready, as long as they do not."""
        owner = replica_set_of(deployment)
        name, said = f"{owner}-{LETTERS[:5]}", self.excuses.get(deployment["metadata"]["name"])
        if said is not None and deployment["metadata"]["name"] in self.sick:
            uid = self._server.get(REPLICA_SETS, self.namespace, owner)["metadata"]["uid"]
            metadata = {
                "name": name,
                "namespace": self.namespace,
                "uid": name,
                "labels": deployment["spec"]["selector"]["matchLabels"],
                "ownerReferences": [{"name": owner, "uid": uid}],
            }
            self._server.put(PODS, {"metadata": metadata, "status": said})
        elif self._server.list(PODS, self.namespace):
            with contextlib.suppress(NotFound):
                self._server.delete(PODS, self.namespace, name)

    def start_pod(self, deployment: Object) -> None:
        """A new one, whose counters begin at 0."""
        count = len(self.all_pods)
        end = "".join(LETTERS[count // 20**place % 20] for place in range(5))
        name = deployment["metadata"]["name"]
        pod = Pod(f"{replica_set_of(deployment)}-{end}", name)
        self.pods[name] = pod
        self.all_pods.append(pod)

    def _pod_status(self, deployment: Object, ready: int) -> None:
        status = {
            "observedGeneration": deployment["metadata"]["generation"],
            "updatedReplicas": ready,
            "availableReplicas": ready,
        }
        if deployment.get("status") != status:
            self._server.put(DEPLOYMENTS, {**deployment, "status": status})

    def _endpoints(self, service: str, count: int) -> None:
        labels = {"kubernetes.io/service-name": service}
        body = {
            "metadata": {"name": service, "namespace": self.namespace, "labels": labels},
            "endpoints": [{}] * count,
        }
        if self.endpoints(service) != count:
            meta = {**body["metadata"], "uid": f"slice-{service}", "generation": 1}
            self._server.put(ENDPOINT_SLICES, {**body, "metadata": meta})

    def endpoints(self, service: str) -> int:
        """The ready ones of a Service; -1 where it has none yet."""
        try:
            found = self._server.get(ENDPOINT_SLICES, self.namespace, service)
        except NotFound:
            return -1
        return len(found["endpoints"])

    # --- users ----------------------------------------------------------------------------

    def share(self, deployment: str) -> float:
        """The part of all users that it answers now."""
        return self._shares.get(deployment, 0.0)

    def sent(self, service: str) -> float:
        """The part of all users that is sent to a Service, whoever is behind it."""
        return self._sent.get(service, 0.0)

    @property
    def lost_share(self) -> float:
        """The part of all users that nobody answers now."""
        return self._lost

    def mirrored(self, route: str) -> int:
        """The percentage of requests that the gateway copies."""
        percents = [
            each["requestMirror"].get("percent", 100)
            for rule in self.rules.get(route, [])
            for each in rule.get("filters", [])
            if each["type"] == "RequestMirror"
        ]
        return max(percents, default=0)

    def _share_out(self) -> None:
        services: dict[str, float] = {}
        routes = [each for each in self.rules.items() if each[1]]
        for name, rules in routes:
            for service, share in _shares_of(rules):
                services[service] = services.get(service, 0) + share / len(routes)
            if name in self._broken:
                services = {"": 1.0}
        self._sent = services
        answered = {each: share for each, share in services.items() if self.endpoints(each) > 0}
        by_deployment: dict[str, float] = {}
        for service, share in answered.items():
            for name in self._behind(service):
                by_deployment[name] = by_deployment.get(name, 0) + share
        self._shares = by_deployment
        is_served = bool(routes) or self._has_served
        self._has_served = is_served
        self._lost = max(0.0, 1 - sum(answered.values())) if is_served else 0.0
        for each in list(self.told):
            each()

    def _is_there(self, service: str) -> bool:
        found = self._server.list(SERVICES, self.namespace)
        return service in [each["metadata"]["name"] for each in found]

    def _behind(self, service: str) -> list[str]:
        found = self._server.get(SERVICES, self.namespace, service)
        wanted = found["spec"]["selector"].items()
        return [
            each["metadata"]["name"]
            for each in self._server.list(DEPLOYMENTS, self.namespace)
            if wanted <= each["spec"]["template"]["metadata"]["labels"].items()
        ]

    # --- counters -------------------------------------------------------------------------

    def remember(self) -> None:
        """It has all been there for a while."""
        self.resume_gateway()
        self._last = self._clock() - PAST_SECONDS
        self.advance()

    def advance(self) -> None:
        """Count what users did until now."""
        now = self._clock()
        while self._last < now:
            due = (math.floor(self._last / SCRAPE_SECONDS) + 1) * SCRAPE_SECONDS
            until = min(due, now)
            self._count(until - self._last)
            self._last = until
            if until == due and self.is_scraping:
                for each in self.pods.values():
                    each.times.append(due)
                    each.counts.append((math.floor(each.requests), math.floor(each.errors)))

    def _count(self, seconds: float) -> None:
        self.lost_requests += RATE * seconds * self._lost
        copies = max((self.mirrored(each) for each in self.rules), default=0) / 100
        for name, each in self.pods.items():
            count = RATE * seconds * (self._shares.get(name, 0.0) + copies)
            each.requests += count
            each.errors += count * self.error_rates.get(name, 0.0)

    def answered(self, deployment: str, since: float) -> float:
        """Requests of a Deployment that Prometheus has seen since."""
        self.advance()
        found = 0.0
        for each in self.all_pods:
            if each.deployment == deployment and each.times:
                first = bisect_right(each.times, since)
                if first < len(each.times):
                    found += each.counts[-1][0] - (each.counts[first - 1][0] if first else 0)
        return found


def replica_set_of(deployment: Object) -> str:
    """The name of the ReplicaSet of its present template."""
    text = json.dumps(deployment["spec"]["template"], sort_keys=True)
    return f"{deployment['metadata']['name']}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _shares_of(rules: list[Object]) -> Iterator[tuple[str, float]]:
    """Service and part of the users, as the rules have it."""
    cohort = sticky = None
    for each in rules:
        name = each.get("name", "")
        if name.startswith("modelrollout-") and own_rules.is_awake(each):
            cohort = each if name.endswith("-cohort") else cohort
            sticky = each if name.endswith("-sticky") else sticky
    main = next(each for each in rules if not each.get("name", "").startswith("modelrollout-"))
    bucketed = 0.0 if sticky is None else _buckets(sticky) / 100
    chosen = 0.0 if cohort is None else COHORT
    if cohort is not None:
        yield from _weighted(cohort, chosen)
    if sticky is not None:
        yield from _weighted(sticky, (1 - chosen) * bucketed)
    yield from _weighted(main, (1 - chosen) * (1 - bucketed))


def _weighted(rule: Object, share: float) -> Iterator[tuple[str, float]]:
    refs = rule.get("backendRefs", [])
    total = sum(each.get("weight", 1) for each in refs)
    for each in refs:
        if total:
            yield each["name"], share * each.get("weight", 1) / total


def _buckets(rule: Object) -> int:
    expressions = [
        head["value"]
        for match in rule["matches"]
        for head in match.get("headers", [])
        if head["name"] == buckets.HEADER
    ]
    every = [f"{each:02d}" for each in range(100)]
    return sum(any(re.fullmatch(each, text) for each in expressions) for text in every)
