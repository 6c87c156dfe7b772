"""
The Kubernetes API, in a few verbs over plain dicts; the only file that calls the client.

`RBAC` lists what is called, verb by verb: the chart grants exactly this, and a test compares
both ways. Nothing is cached and nothing is retried: every pass asks anew, and the next pass is
the retry.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

import aiohttp
from kubernetes.aio import client, config

from modelrollout import telemetry
from modelrollout.api import v1alpha1 as api
from modelrollout.core.observation import Rollout
from modelrollout.errors import ClusterUnavailable, Conflict, NotFound, Refused, RolloutError

Object = dict[str, Any]
FIELD_MANAGER = "modelrollout-operator"
TIMEOUT_SECONDS = 10
WHOLE = "application/json"


@dataclass(frozen=True, slots=True)
class Resource:
    """Where a kind lives in the API."""

    group: str
    version: str
    plural: str
    subresource: str = ""
    is_metadata_only: bool = False
    """Of each object its metadata: a fleet's specs and statuses are many times as much."""

    @property
    def root(self) -> str:
        """The path before the namespace."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"


ROLLOUTS = Resource(api.GROUP, api.VERSION, api.PLURAL)
ROLLOUTS_METADATA = replace(ROLLOUTS, is_metadata_only=True)
DEPLOYMENTS = Resource("apps", "v1", "deployments")
DEPLOYMENT_SCALES = Resource("apps", "v1", "deployments", "scale")
AUTOSCALERS = Resource("autoscaling", "v2", "horizontalpodautoscalers")
CRON_JOBS = Resource("batch", "v1", "cronjobs")
JOBS = Resource("batch", "v1", "jobs")
PODS = Resource("", "v1", "pods")
REPLICA_SETS = Resource("apps", "v1", "replicasets")
SERVICES = Resource("", "v1", "services")
ENDPOINT_SLICES = Resource("discovery.k8s.io", "v1", "endpointslices")
HTTP_ROUTES = Resource("gateway.networking.k8s.io", "v1", "httproutes")
GATEWAYS = Resource("gateway.networking.k8s.io", "v1", "gateways")
GATEWAY_CLASSES = Resource("gateway.networking.k8s.io", "v1", "gatewayclasses")
EXTENSION_POLICIES = Resource("gateway.envoyproxy.io", "v1alpha1", "envoyextensionpolicies")
SECURITY_POLICIES = Resource("gateway.envoyproxy.io", "v1alpha1", "securitypolicies")
TRAFFIC_POLICIES = Resource("gateway.envoyproxy.io", "v1alpha1", "backendtrafficpolicies")
CONFIG_MAPS = Resource("", "v1", "configmaps")
EVENTS = Resource("events.k8s.io", "v1", "events")
LEASES = Resource("coordination.k8s.io", "v1", "leases")

RBAC: Mapping[tuple[str, str], frozenset[str]] = {
    # watched by kopf; patch carries our finalizer and removes a command that was carried out
    (api.GROUP, api.PLURAL): frozenset({"get", "list", "watch", "patch"}),
    (api.GROUP, f"{api.PLURAL}/status"): frozenset({"update"}),
    # create, patch and delete are for the comparator's own three objects, and for traces
    ("apps", "deployments"): frozenset({"get", "list", "watch", "create", "patch", "delete"}),
    ("", "configmaps"): frozenset({"get", "create", "patch", "delete"}),
    ("apps", "replicasets"): frozenset({"list"}),
    # for spec.scaling: who scales a Deployment, whether there is room, and its size, nothing else;
    # pods also for what keeps them from starting, and for checks, which go to no other address
    ("apps", "deployments/scale"): frozenset({"patch"}),
    ("autoscaling", "horizontalpodautoscalers"): frozenset({"list"}),
    ("", "pods"): frozenset({"list"}),
    ("", "services"): frozenset({"get", "create", "patch", "delete"}),
    ("discovery.k8s.io", "endpointslices"): frozenset({"list"}),
    # create and patch are what server-side apply of a managed route needs
    ("gateway.networking.k8s.io", "httproutes"): frozenset(
        {"get", "list", "watch", "create", "patch"}
    ),
    # what a gateway can do; not to be known, it is taken to be able to
    ("gateway.networking.k8s.io", "gateways"): frozenset({"get"}),
    ("gateway.networking.k8s.io", "gatewayclasses"): frozenset({"list"}),
    # ours is for sticky users; the others' are looked at, so as not to get in their way
    ("gateway.envoyproxy.io", "envoyextensionpolicies"): frozenset(
        {"list", "create", "patch", "delete"}
    ),
    ("gateway.envoyproxy.io", "securitypolicies"): frozenset({"list"}),
    ("gateway.envoyproxy.io", "backendtrafficpolicies"): frozenset({"list"}),
    ("events.k8s.io", "events"): frozenset({"create"}),
}
COMPARATOR_RBAC: Mapping[tuple[str, str], frozenset[str]] = {
    ("apps", "deployments"): frozenset({"create", "patch", "delete"}),
    ("", "services"): frozenset({"patch", "delete"}),
    ("", "configmaps"): frozenset({"delete"}),
}
"""Of these, what nothing but a comparator needs; without traces, all that is of ConfigMaps."""
JOB_CHECK_RBAC: Mapping[tuple[str, str], frozenset[str]] = {
    ("batch", "cronjobs"): frozenset({"get"}),
    ("batch", "jobs"): frozenset({"get", "create"}),
}
"""Beside `RBAC`, for checks by Job: granted only if the administrator wants it."""
LEASE_RBAC: Mapping[tuple[str, str], frozenset[str]] = {
    ("coordination.k8s.io", "leases"): frozenset({"get", "create", "update"}),
}
"""In the operator's own namespace only."""


class Cluster:
    """A few verbs over plain dicts."""

    def __init__(self, api_client: client.ApiClient) -> None:
        self._client = api_client

    @classmethod
    async def connect(cls) -> Cluster:
        """With the pod's service account, or with the kubeconfig outside of a cluster."""
        settings = client.Configuration()
        settings.retries = None
        # Neither a proxy nor a .netrc of the environment has a say, as with kopf; to look for them
        # takes two threads and half of the processor time of each call.
        settings.client_session_kwargs = {"trust_env": False}
        try:
            config.load_incluster_config(client_configuration=settings)
        except config.ConfigException:
            await config.load_kube_config(client_configuration=settings)
        return cls(client.ApiClient(configuration=settings))

    @property
    def api_client(self) -> client.ApiClient:
        """For the client's own leader election."""
        return self._client

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def get(self, resource: Resource, namespace: str, name: str) -> Object:
        """One object."""
        return await self._call("GET", _path(resource, namespace, name))

    async def list(
        self, resource: Resource, namespace: str | None = None, selector: str = ""
    ) -> list[Object]:
        """All objects, or those with the given labels, of one namespace or of all."""
        query = [("labelSelector", selector)] if selector else []
        found: list[Object] = []
        token = ""
        while True:
            page = [*query, ("limit", "500"), *([("continue", token)] if token else [])]
            accept = metadata_of("List") if resource.is_metadata_only else WHOLE
            answer = await self._call("GET", _path(resource, namespace), query=page, accept=accept)
            # A list of no metadata says null.
            found += answer.get("items") or []
            token = answer.get("metadata", {}).get("continue", "")
            if not token:
                return found

    async def create(self, resource: Resource, namespace: str, body: Object) -> Object:
        """A new object; Conflict when it is there already."""
        return await self._call("POST", _path(resource, namespace), body=body)

    async def patch(
        self, resource: Resource, namespace: str, name: str, operations: Sequence[Object]
    ) -> Object:
        """A JSON Patch. Its `test` operations failing is a Conflict."""
        return await self._call(
            "PATCH",
            _path(resource, namespace, name),
            query=[("fieldManager", FIELD_MANAGER)],
            body=list(operations),
            content_type="application/json-patch+json",
        )

    async def apply(self, resource: Resource, namespace: str, name: str, body: Object) -> Object:
        """Server-side apply of an object that is ours."""
        return await self._call(
            "PATCH",
            _path(resource, namespace, name),
            query=[("fieldManager", FIELD_MANAGER), ("force", "true")],
            body=body,
            content_type="application/apply-patch+yaml",
        )

    async def delete(self, resource: Resource, namespace: str, name: str) -> None:
        """Remove an object and what it owns; one that is gone already is fine, too."""
        with contextlib.suppress(NotFound):
            await self._call("DELETE", _path(resource, namespace, name))

    async def replace_status(self, resource: Resource, body: Object) -> Object:
        """The status of an object as read; Conflict when somebody wrote since."""
        meta = body["metadata"]
        path = _path(resource, meta["namespace"], meta["name"]) + "/status"
        return await self._call("PUT", path, body=body)

    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        body: Any = None,
        content_type: str = "application/json",
        accept: str = WHOLE,
    ) -> Object:
        headers = {"Accept": accept, "Content-Type": content_type}
        try:
            request = await self._client.param_serialize(
                method=method,
                resource_path=path,
                query_params=list(query),
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
            )
            response = await self._client.call_api(*request, _request_timeout=TIMEOUT_SECONDS)
            data = await response.read()
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            telemetry.called(telemetry.KUBERNETES, failed=True)
            raise ClusterUnavailable(f"{method} {path}: {error or type(error).__name__}") from error
        if response.status >= 400:  # noqa: PLR2004  # the first of HTTP's errors
            refusal = _error(response.status, f"{method} {path}", data)
            # That something is not there, or was changed meanwhile, is an answer.
            is_answer = isinstance(refusal, NotFound | Conflict)
            telemetry.called(telemetry.KUBERNETES, failed=not is_answer)
            raise refusal
        telemetry.called(telemetry.KUBERNETES)
        answer: Object = json.loads(data)
        return answer


def metadata_of(kind: str) -> str:
    """What is to be accepted for metadata alone: of one object each, or of a List; whole where there is no such."""
    return f"application/json;as=PartialObjectMetadata{kind};g=meta.k8s.io;v=v1,{WHOLE}"


def owner_of(rollout: Rollout) -> Object:
    """The ownerReference of what goes with the ModelRollout."""
    return {
        "apiVersion": api.API_VERSION,
        "kind": api.KIND,
        "name": rollout.name,
        "uid": rollout.uid,
    }


def _path(resource: Resource, namespace: str | None, name: str | None = None) -> str:
    """Names are quoted: whatever they are, they lead to no other object."""
    parts = [resource.root]
    if namespace is not None:
        parts += ["namespaces", quote(namespace, safe="")]
    parts.append(resource.plural)
    if name is not None:
        parts.append(quote(name, safe=""))
    if resource.subresource:
        parts.append(resource.subresource)
    return "/".join(parts)


def selector_of(deployment: Object) -> str:
    """The labels of a Deployment's pods, as lists are asked for them."""
    labels = deployment["spec"]["selector"].get("matchLabels") or {}
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def _error(status: int, call: str, data: bytes) -> RolloutError:
    try:
        said = json.loads(data).get("message", "")
    except (ValueError, AttributeError):
        said = data[:200].decode(errors="replace")
    text = f"{call}: {status} {said}"
    if status == 404:  # noqa: PLR2004
        return NotFound(text)
    if status == 409 or (status == 422 and _is_failed_test(said)):  # noqa: PLR2004
        return Conflict(text)
    if status in {401, 408, 429} or status >= 500:  # noqa: PLR2004
        return ClusterUnavailable(text)
    return Refused(text)


def _is_failed_test(said: str) -> bool:
    """
    The API server answers 422 both to an invalid object and to a JSON Patch `test` that fails.

    Of an invalid object it says what is invalid; of the other nothing but that there is an error.
    """
    known = r"error in our request|test operation|testing (value|path) .* failed|test failed"
    return re.search(known, said) is not None
