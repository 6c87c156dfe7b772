"""
Cohorts, sticky users and mirrors on a real gateway: who gets which version, and that nobody notices.

The router is driven as passes drive it, without an operator: what is tested is the way of a route.
"""

from __future__ import annotations

import asyncio
import re
import time
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import kube
from modelrollout.adapters.cluster import Cluster
from modelrollout.adapters.routers.gateway_api import GatewayAPIRouter, View
from modelrollout.api.traffic import CohortMember, Sticky
from modelrollout.core.plan import Backend, Mirror, Traffic
from modelrollout.observe import rollout_of
from shop import GATEWAY, ROLLOUT, Shop, now
from workloads import manifests
from workloads.traffic import Load, Record

ROOT = Path(__file__).parent.parent
V1, V2 = (Backend(service=f"digits-{each}", label=f"digits-{each}") for each in ("v1", "v2"))
STICKY = Sticky(header="x-user-id")
BETA = (CohortMember(header="x-beta", value="1"),)
USERS = 400
PASS_SECONDS = 0.3
RUN = uuid4().hex[:6]


class Gateway:
    """A shop whose route is moved by the router alone."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.loads: list[Load] = []
        self._runner = asyncio.Runner()
        self._cluster = self._runner.run(Cluster.connect())
        self.router = GatewayAPIRouter(self._cluster, time.time)

    def rollout(self, **traffic: Any) -> Any:
        """The ModelRollout as the router gets it. In the cluster it names a route that is not."""
        body = kube.get("modelrollout", ROLLOUT, self.shop.namespace)
        spec = self.shop.rollout("digits-v2")["spec"]
        spec["traffic"] = {"gatewayAPI": {"route": ROLLOUT}} | traffic
        return rollout_of({**body, "spec": spec, "status": {}})

    def view(self, traffic: Traffic, **spec: Any) -> View:
        """What a pass sees."""
        return self._runner.run(self.router.observe(self.rollout(**spec), traffic))

    def step(self, traffic: Traffic, **spec: Any) -> bool:
        """One pass."""
        return self._runner.run(self.router.set_traffic(self.rollout(**spec), traffic))

    def move(self, traffic: Traffic, seconds: float = 60) -> float:
        """Passes until the traffic is in force; the moment after which all requests obey it."""
        deadline = time.monotonic() + seconds
        while not self.view(traffic).route.is_settled:
            self.step(traffic)
            assert time.monotonic() < deadline, self.view(traffic).route
            time.sleep(PASS_SECONDS)
        time.sleep(2)
        return now()

    def load(self, name: str, rate: float, *options: str) -> Load:
        """Users until the test ends."""
        records = self.shop.records / name
        self.loads.append(
            Load.start(GATEWAY, host=self.shop.host, rate=rate, directory=records, options=options)
        )
        kube.wait_until(lambda: any(each.ok for each in self.loads[-1].records()), 30, "an answer")
        return self.loads[-1]

    def failures(self) -> list[Record]:
        """Requests of anybody that got no good answer."""
        return [each for load in self.loads for each in load.records() if not each.ok]

    def rules(self) -> list[str]:
        """The names of the route's rules."""
        rules = kube.get("httproute", ROLLOUT, self.shop.namespace)["spec"]["rules"]
        return [each.get("name", "") for each in rules]

    def close(self) -> None:
        for each in self.loads:
            if each.is_running:
                each.stop()
        self._runner.run(self._cluster.close())
        self._runner.close()


@pytest.fixture
def gateway(request: pytest.FixtureRequest) -> Iterator[Gateway]:
    """v1 and v2 ready, all traffic on v1."""
    kube.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_")).strip("-")[:36]
    unique = f"{zlib.crc32(request.node.nodeid.encode()):08x}"
    shop = Shop(f"r-{name}-{unique}-{RUN}", Path("build", "load", name))
    shop.open()
    shop.deploy("v1", replicas=2, wait=False)
    shop.deploy("v2", replicas=2, wait=False)
    kube.rollout_pods_are_ready(shop.namespace, "digits-v1", "digits-v2")
    shop.route("digits-v1")
    idle = shop.rollout("digits-v2")
    idle["spec"]["traffic"] = {"gatewayAPI": {"route": "elsewhere"}}
    kube.apply(idle)
    found = Gateway(shop)
    try:
        yield found
    finally:
        found.close()
        shop.close()


def shared(weight: int, **more: Any) -> Traffic:
    """Both versions."""
    return Traffic(stable=V1, candidate=V2, weight=weight, port=manifests.HTTP_PORT, **more)


def rest(stable: Backend = V1) -> Traffic:
    """One version alone."""
    retired = ({V1.service, V2.service} - {stable.service}).pop()
    port = manifests.HTTP_PORT
    return Traffic(stable=stable, candidate=None, weight=0, port=port, retired=(retired,))


def sides(records: Sequence[Record]) -> dict[str, set[str]]:
    """Which versions each user has got."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for each in records:
        found[each.user].add(each.version)
    return found


def bucket_of(salt: str, user: str) -> int:
    """What the script at the gateway computes."""
    import hashlib  # noqa: PLC0415

    prime = 2**31 - 1
    digest = hashlib.sha256(salt.encode()).digest()
    value = int.from_bytes(digest[:8]) % prime
    for each in user.encode():
        value = (value * 16807 + each + 1) % prime
    pepper = int.from_bytes(digest[8:16]) % prime
    return pow((pow(value, 5, prime) + pepper) % prime, 5, prime) % 100


def test_a_user_keeps_the_version_and_only_new_buckets_move(gateway: Gateway) -> None:
    route = kube.get("httproute", ROLLOUT, gateway.shop.namespace)["spec"]
    users = gateway.load("users", 100, "--users", str(USERS))
    beta = gateway.load("beta", 10, "--users", str(USERS), "--header", "x-beta:1")
    before: set[str] = set()
    for weight in (5, 20, 50):
        moment = gateway.move(shared(weight, sticky=STICKY, cohort=BETA, salt="r/1"))
        kube.wait_until(lambda at=moment: len(users.requests_since(at)) > 2000, 60, "requests")
        found = sides(users.requests_since(moment))
        assert all(len(each) == 1 for each in found.values())
        candidates = {user for user, versions in found.items() if versions == {"digits-v2"}}
        assert candidates == {each for each in found if bucket_of("r/1", each) < weight}
        assert before & set(found) <= candidates
        assert {each.version for each in beta.requests_since(moment)} == {"digits-v2"}
        before = candidates
        print(f"{weight} %: {len(candidates)} of {len(found)} users on the candidate")
    moment = gateway.move(shared(100, sticky=STICKY, cohort=BETA, salt="r/1"))
    kube.wait_until(lambda: len(users.requests_since(moment)) > 300, 30, "requests")
    assert {each.version for each in users.requests_since(moment)} == {"digits-v2"}
    moment = gateway.move(rest())
    kube.wait_until(lambda: len(beta.requests_since(moment)) > 30, 30, "requests")
    for load in (users, beta):
        assert {each.version for each in load.requests_since(moment)} == {"digits-v1"}
    assert kube.get("httproute", ROLLOUT, gateway.shop.namespace)["spec"] == route
    assert kube.listed("envoyextensionpolicies", gateway.shop.namespace) == []
    assert gateway.failures() == []
