"""What the operator may do is what it does in whole rollouts of every strategy, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from chaos.run import Run
from chaos.stories import STORIES
from modelrollout.adapters.cluster import (
    DEPLOYMENTS,
    HTTP_ROUTES,
    RBAC,
    ROLLOUTS,
    Resource,
)
from modelrollout.adapters.services import ServiceResolver

Right = tuple[str, str, str]
"""Group, resource with its subresource, verb."""

WATCHED = {
    (each.group, each.plural, verb)
    for each in (ROLLOUTS, DEPLOYMENTS, HTTP_ROUTES)
    for verb in ("list", "watch")
}
"""By kopf, at the start and ever after."""


def rights_of(resource: Resource, verb: str) -> set[Right]:
    """What a call needs; server-side apply may create what it patches."""
    name = f"{resource.plural}/{resource.subresource}".rstrip("/")
    if verb == "status":
        return {(resource.group, f"{name}/status", "update")}
    verbs = ("create", "patch") if verb == "apply" else (verb,)
    return {(resource.group, name, each) for each in verbs}


def of_rollouts() -> Iterator[Right]:
    for story in STORIES.values():
        run = Run(story)
        outcome = run.go()
        assert outcome.ending == story.ending
        for operator in run.operators:
            for call in operator.connection.calls:
                yield from rights_of(call.resource, call.verb)


class Reader:
    """Remembers what is read for a check."""

    def __init__(self) -> None:
        self.used: set[Right] = set()

    async def get(self, resource: Resource, _namespace: str, _name: str) -> dict[str, Any]:
        self.used |= rights_of(resource, "get")
        return {"spec": {"selector": {"app": "v2"}, "clusterIPs": ["10.96.0.7"]}}

    async def list(self, resource: Resource, *_: str) -> list[dict[str, Any]]:
        self.used |= rights_of(resource, "list")
        return []


@pytest.fixture(scope="module")
def used() -> set[Right]:
    checks = Reader()
    asyncio.run(ServiceResolver(checks).resolve("ranker-v2.shop.svc"))
    return {*of_rollouts(), *checks.used, *WATCHED}


@pytest.fixture(scope="module")
def granted() -> set[Right]:
    return {(group, resource, verb) for (group, resource), verbs in RBAC.items() for verb in verbs}


def test_nothing_is_granted_that_no_rollout_uses(used, granted):
    assert sorted(granted - used) == []


def test_no_rollout_uses_what_is_not_granted(used, granted):
    assert sorted(used - granted) == []


def test_the_operator_can_read_no_secret_and_give_no_right(granted):
    resources = {resource for _, resource, _ in granted}
    groups = {group for group, _, _ in granted}

    assert resources.isdisjoint({"secrets", "serviceaccounts", "serviceaccounts/token", "nodes"})
    assert resources.isdisjoint({"pods/exec", "pods/portforward", "services/proxy", "pods/log"})
    assert groups.isdisjoint({"rbac.authorization.k8s.io", "admissionregistration.k8s.io", "*"})
    assert {verb for _, _, verb in granted}.isdisjoint({"*", "impersonate", "bind", "escalate"})
    assert "*" not in resources
