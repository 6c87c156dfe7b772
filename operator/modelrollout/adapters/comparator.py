"""
The comparator of a rollout: a Deployment, its configuration and the Service that is mirrored to.

It is there while something is mirrored, or about to be. All three objects belong to the
ModelRollout and go with it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Protocol

from modelrollout.adapters.cluster import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    SERVICES,
    Object,
    Resource,
    owner_of,
)
from modelrollout.api import v1alpha1 as api
from modelrollout.core.observation import Comparator, Rollout
from modelrollout.core.plan import COMPARATOR_PORT, comparator_of
from modelrollout.errors import NotFound, Refused

METRICS_PORT = 9090
CONFIGURATION = f"{api.GROUP}/configuration"
"""An annotation: the digest of what the comparator was made from."""
REVISIONS = f"{api.GROUP}/revisions"
"""An annotation: stable's and the candidate's."""
FOLDER = "/etc/comparator"
NOBODY = 65532
GRACE_SECONDS = 15


class Objects(Protocol):
    """What is needed of the Kubernetes API: see adapters/cluster.py."""

    async def get(self, resource: Resource, namespace: str, name: str) -> Object:
        """One object, or NotFound."""

    async def apply(self, resource: Resource, namespace: str, name: str, body: Object) -> Object:
        """Server-side apply of a whole object."""

    async def delete(self, resource: Resource, namespace: str, name: str) -> None:
        """Remove an object; none is fine, too."""


class Comparators:
    """All comparators have the operator's own image."""

    def __init__(self, cluster: Objects, image: str, pull_policy: str) -> None:
        self._cluster = cluster
        self._image = image
        self._pull_policy = pull_policy

    async def observe(self, rollout: Rollout, known: api.ModelRolloutStatus) -> Comparator:
        """What there is of it, against what the facts ask for."""
        name = comparator_of(rollout.name)
        try:
            live = await self._cluster.get(DEPLOYMENTS, rollout.namespace, name)
        except NotFound:
            beside = [await self._is_free(each, rollout, name) for each in (SERVICES, CONFIG_MAPS)]
            return Comparator(is_taken=not all(beside))
        if not _is_ours(live, rollout):
            return Comparator(is_taken=True)
        wanted = self._wanted(rollout, known)
        digest = live["metadata"].get("annotations", {}).get(CONFIGURATION)
        is_current = bool(wanted) and digest == _digest(wanted) and await self._is_whole(rollout)
        status = live.get("status", {})
        is_observed = status.get("observedGeneration", 0) >= live["metadata"]["generation"]
        available = min(status.get("updatedReplicas", 0), status.get("availableReplicas", 0))
        return Comparator(
            exists=True,
            is_current=is_current,
            is_ready=is_current and is_observed and available > 0,
        )

    async def deploy(self, rollout: Rollout, known: api.ModelRolloutStatus) -> None:
        """Make it compare the versions that the facts name."""
        wanted = self._wanted(rollout, known)
        for resource, body in wanted:
            name = body["metadata"]["name"]
            if not await self._is_free(resource, rollout, name):
                raise Refused(f"{body['kind']} {name} exists and is not this operator's")
            await self._cluster.apply(resource, rollout.namespace, name, body)

    async def remove(self, rollout: Rollout) -> None:
        """Take away what is ours."""
        name = comparator_of(rollout.name)
        # The Deployment goes last: while it is there, something is left to take away.
        for resource in (SERVICES, CONFIG_MAPS, DEPLOYMENTS):
            try:
                live = await self._cluster.get(resource, rollout.namespace, name)
            except NotFound:
                continue
            if _is_ours(live, rollout):
                await self._cluster.delete(resource, rollout.namespace, name)

    async def _is_whole(self, rollout: Rollout) -> bool:
        """Whether what belongs to the Deployment is there: somebody may have taken it away."""
        name = comparator_of(rollout.name)
        try:
            for resource in (SERVICES, CONFIG_MAPS):
                await self._cluster.get(resource, rollout.namespace, name)
        except NotFound:
            return False
        return True

    async def _is_free(self, resource: Resource, rollout: Rollout, name: str) -> bool:
        try:
            return _is_ours(await self._cluster.get(resource, rollout.namespace, name), rollout)
        except NotFound:
            return True

    def _wanted(
        self, rollout: Rollout, known: api.ModelRolloutStatus
    ) -> Sequence[tuple[Resource, Object]]:
        if known.stable is None or known.candidate is None or rollout.spec is None:
            return ()
        if rollout.spec.shadow is None:
            return ()
        given = configuration(rollout, known.stable, known.candidate)
        revisions = f"{known.stable.revision} {known.candidate.revision}"
        return manifests(rollout, given, revisions, self._image, self._pull_policy)


class NoComparators:
    """Where the administrator wants none, and has given no right to make one."""

    async def observe(self, _rollout: Rollout, _known: api.ModelRolloutStatus) -> Comparator:
        """Whoever needs one is refused."""
        return Comparator(is_forbidden=True)

    async def deploy(self, _rollout: Rollout, _known: api.ModelRolloutStatus) -> None:
        """Never."""
        raise Refused("this operator runs no comparators")

    async def remove(self, _rollout: Rollout) -> None:
        """There is none of ours."""


def configuration(
    rollout: Rollout, stable: api.VersionStatus, candidate: api.VersionStatus
) -> Object:
    """What the comparator is told: whom to ask, and how to compare."""
    assert rollout.spec is not None
    assert rollout.spec.shadow is not None
    port, namespace = rollout.spec.port, rollout.namespace
    return {
        "namespace": namespace,
        "rollout": rollout.name,
        "stable": f"http://{stable.service}.{namespace}.svc:{port}",
        "candidate": f"http://{candidate.service}.{namespace}.svc:{port}",
        "stableVersion": stable.model_version or stable.deployment,
        "candidateVersion": candidate.model_version or candidate.deployment,
        "shadow": rollout.spec.shadow.to_dict(),
    }


def manifests(
    rollout: Rollout, given: Object, revisions: str, image: str, pull_policy: str
) -> tuple[tuple[Resource, Object], ...]:
    """The objects, in the order in which they are needed."""
    name = comparator_of(rollout.name)
    selector = {
        "app.kubernetes.io/name": "modelrollout-comparator",
        f"{api.GROUP}/rollout": rollout.name,
    }
    meta = {
        "name": name,
        "namespace": rollout.namespace,
        "labels": {**selector, "app.kubernetes.io/managed-by": "modelrollout"},
        "ownerReferences": [{**owner_of(rollout), "controller": True}],
    }
    text = json.dumps(given, sort_keys=True)
    config: Object = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": meta,
        "data": {"config.json": text},
    }
    # A change of the configuration is a change of the pod: it is read once, at the start.
    annotations = {
        CONFIGURATION: hashlib.sha256(text.encode()).hexdigest()[:16],
        # What other revisions answered is forgotten: their labels may still be to come.
        REVISIONS: revisions,
    }
    pod = _pod(name, selector, image, pull_policy, annotations)
    deployment: Object = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": meta,
        "spec": {
            "replicas": 1,
            "revisionHistoryLimit": 1,
            # Two that count at once would count what the versions of before answered.
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": selector},
            "template": pod,
        },
    }
    service: Object = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta,
        "spec": {
            "selector": selector,
            "ports": [
                {"name": "http", "port": COMPARATOR_PORT, "targetPort": "http"},
                # Labels of requests are sent there; users' requests never are.
                {"name": "metrics", "port": METRICS_PORT, "targetPort": "metrics"},
            ],
        },
    }
    # The Deployment comes last: it tells that all of them are there.
    found = ((CONFIG_MAPS, config), (SERVICES, service), (DEPLOYMENTS, deployment))
    deployment["metadata"] = {**meta, "annotations": {CONFIGURATION: _digest(found)}}
    return found


def _pod(
    name: str, selector: dict[str, str], image: str, pull_policy: str, annotations: dict[str, str]
) -> Object:
    probe = {"httpGet": {"path": "/healthz", "port": "metrics"}}
    container = {
        "name": "comparator",
        "image": image,
        "imagePullPolicy": pull_policy,
        "args": ["comparator", "--config", f"{FOLDER}/config.json"],
        "ports": [
            {"name": "http", "containerPort": COMPARATOR_PORT},
            {"name": "metrics", "containerPort": METRICS_PORT},
        ],
        "startupProbe": {**probe, "periodSeconds": 1, "failureThreshold": 60},
        "readinessProbe": {**probe, "periodSeconds": 2},
        "livenessProbe": {**probe, "periodSeconds": 10, "timeoutSeconds": 5},
        "resources": {
            "requests": {"cpu": "100m", "memory": "128Mi"},
            "limits": {"memory": "256Mi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "configuration", "mountPath": FOLDER, "readOnly": True}],
    }
    scraped = {"prometheus.io/scrape": "true", "prometheus.io/port": str(METRICS_PORT)}
    return {
        "metadata": {"labels": selector, "annotations": {**annotations, **scraped}},
        "spec": {
            # It talks to no API server, and answers nobody who waits.
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": GRACE_SECONDS,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": NOBODY,
                "runAsGroup": NOBODY,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [{"name": "configuration", "configMap": {"name": name}}],
        },
    }


def _digest(found: Sequence[tuple[Resource, Object]]) -> str:
    bodies = [
        {**body, "metadata": {k: v for k, v in body["metadata"].items() if k != "annotations"}}
        for _, body in found
    ]
    return hashlib.sha256(json.dumps(bodies, sort_keys=True).encode()).hexdigest()[:16]


def _is_ours(live: Object, rollout: Rollout) -> bool:
    owners = live["metadata"].get("ownerReferences", [])
    return any(each.get("uid") == rollout.uid for each in owners)
