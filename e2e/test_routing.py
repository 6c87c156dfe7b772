"""
Cohorts, sticky users and mirrors on a real gateway: who gets which version, and that nobody notices.

The router is driven as passes drive it, without an operator: what is tested is the way of a route.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import re
import threading
import time
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import pytest
import requests

import kube
from modelrollout.adapters.cluster import Cluster
from modelrollout.adapters.routers.gateway_api import GatewayAPIRouter, View
from modelrollout.adapters.routers.gateway_api.route import PATIENCE_SECONDS
from modelrollout.api.traffic import CohortMember, Sticky, StickyBy
from modelrollout.core.observation import Rollout
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
PROXY_SECONDS = 2
COHORT_REQUESTS = 20
"""Until every proxy has what the gateway has accepted."""
RENAMED_SECONDS = 17
"""Envoy takes up no new cluster for 15 s after the user has renamed the rule of an old one."""
STRANGERS = 200
VISITORS_AT_ONCE = 4
VISIT_SECONDS = 0.01
RUN = uuid4().hex[:6]


class Gateway:
    """A shop whose route is moved by the router alone."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.loads: list[Load] = []
        self.spec: dict[str, Any] = {"gatewayAPI": {"route": ROLLOUT}}
        """Of the ModelRollout's traffic."""
        self._runner = asyncio.Runner()
        self._cluster = self._runner.run(Cluster.connect())
        self.router = GatewayAPIRouter(self._cluster, time.time)

    def rollout(self) -> Rollout:
        """The ModelRollout as the router gets it. In the cluster it names a route that is not."""
        body = kube.get("modelrollout", ROLLOUT, self.shop.namespace)
        spec = self.shop.rollout("digits-v2")["spec"]
        spec["traffic"] = self.spec
        return rollout_of({**body, "spec": spec, "status": {}})

    def view(self, traffic: Traffic) -> View:
        """What a pass sees."""
        return self._runner.run(self.router.observe(self.rollout(), traffic))

    def step(self, traffic: Traffic) -> bool:
        """One write, if one is needed."""
        return self._runner.run(self.router.set_traffic(self.rollout(), traffic))

    def move(self, traffic: Traffic, seconds: float = 60) -> float:
        """Passes until the traffic is in force; the moment after which all requests obey it."""
        deadline = time.monotonic() + seconds
        while not self.view(traffic).route.is_settled:
            self.step(traffic)
            assert time.monotonic() < deadline, self.view(traffic).route
            time.sleep(PASS_SECONDS)
        time.sleep(PROXY_SECONDS)
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


def test_a_rollback_takes_all_users_off_with_its_first_write(gateway: Gateway) -> None:
    users = gateway.load("users", 100, "--users", str(USERS))
    beta = gateway.load("beta", 10, "--header", "x-beta:1")
    gateway.move(shared(50, sticky=STICKY, cohort=BETA, salt="r/2"))
    assert gateway.step(rest())
    time.sleep(PROXY_SECONDS)
    moment = now()
    kube.wait_until(lambda: len(beta.requests_since(moment)) > 30, 20, "requests")
    for load in (users, beta):
        assert {each.version for each in load.requests_since(moment)} == {"digits-v1"}
    gateway.move(rest())
    assert gateway.rules() == [""]
    assert kube.listed("envoyextensionpolicies", gateway.shop.namespace) == []
    assert gateway.failures() == []


def test_a_promotion_out_of_a_sticky_step_sends_nobody_back(gateway: Gateway) -> None:
    users = gateway.load("users", 100, "--users", str(USERS))
    beta = gateway.load("beta", 10, "--header", "x-beta:1")
    moment = gateway.move(shared(50, sticky=STICKY, cohort=BETA, salt="r/3"))
    kube.wait_until(lambda: len(users.requests_since(moment)) > 2000, 60, "requests")
    candidates = {
        user for user, got in sides(users.requests_since(moment)).items() if "digits-v2" in got
    }
    assert candidates
    after = gateway.move(rest(V2))
    kube.wait_until(lambda: len(beta.requests_since(after)) > 30, 20, "requests")
    assert {each.version for each in users.requests_since(after)} == {"digits-v2"}
    found = sides(users.requests_since(moment))
    assert {version for each in candidates for version in found[each]} == {"digits-v2"}
    assert {each.version for each in beta.requests_since(moment)} == {"digits-v2"}
    assert gateway.rules() == [""]
    assert gateway.failures() == []


def test_users_without_a_name_are_shared_out_and_weights_become_sticky(gateway: Gateway) -> None:
    nobody = gateway.load("nobody", 100)
    liar = gateway.load("liar", 20, "--header", "x-modelrollout-bucket:00")
    gateway.move(shared(20))
    moment = gateway.move(shared(20, sticky=STICKY, salt="r/4"))
    kube.wait_until(lambda: len(nobody.requests_since(moment)) > 3000, 60, "requests")
    for load in (nobody, liar):
        got = [each.version for each in load.requests_since(moment)]
        assert 0.15 < got.count("digits-v2") / len(got) < 0.25
    moment = gateway.move(shared(20))
    kube.wait_until(lambda: len(nobody.requests_since(moment)) > 1000, 60, "requests")
    got = [each.version for each in nobody.requests_since(moment)]
    assert 0.15 < got.count("digits-v2") / len(got) < 0.25
    assert gateway.rules() == [""]
    gateway.move(rest())
    assert gateway.failures() == []


def test_cookies_name_users_and_cohorts_in_one_rule_of_many(gateway: Gateway) -> None:
    namespace = gateway.shop.namespace
    name = {"set": [{"name": "x-model-version", "value": "digits-v1"}]}
    named = {"type": "ResponseHeaderModifier", "responseHeaderModifier": name}
    ref = {"name": "digits-v1", "port": manifests.HTTP_PORT, "filters": [named]}
    rules = [
        {"name": "health", "matches": [{"path": {"value": "/v2/health"}}], "backendRefs": [ref]},
        {"name": "models", "matches": [{"path": {"value": "/v2"}}], "backendRefs": [ref]},
    ]
    kube.patch("httproute", ROLLOUT, namespace, {"spec": {"rules": rules}})
    time.sleep(RENAMED_SECONDS)
    before = kube.get("httproute", ROLLOUT, namespace)["spec"]
    sticky = Sticky(cookie="uid")
    cohort = (CohortMember(cookie="group", value="beta.(x)+"),)
    gateway.spec = {"gatewayAPI": {"route": ROLLOUT, "rule": "models"}}
    users = gateway.load("users", 20)
    gateway.move(shared(20, sticky=sticky, cohort=cohort, salt="r/5"))

    def got(cookie: str, path: str = "/v2/models/digits/ready") -> str:
        headers = {"Host": gateway.shop.host, "Cookie": cookie}
        answer = requests.get(f"{GATEWAY}{path}", headers=headers, timeout=5)
        assert answer.status_code == 200
        return answer.headers["x-model-version"]

    for each in range(40):
        user = f"user-{each}"
        wanted = "digits-v2" if bucket_of("r/5", user) < 20 else "digits-v1"
        assert got(f"uid={user}") == wanted
        assert got(f"theme=dark; uid={user}; x=y=z") == wanted
        assert got(f"uid={user}; group=beta.(x)+") == "digits-v2"
        assert got(f"group=beta.(x)+; uid={user}", "/v2/health/ready") == "digits-v1"
    outsider = next(f"user-{n}" for n in range(100) if bucket_of("r/5", f"user-{n}") >= 20)
    for value in ("betaxxx", "beta.(x)+2", "beta.(x)"):
        assert got(f"group={value}; uid={outsider}") == "digits-v1"
        assert got(f"uid={outsider}; xgroup=beta.(x)+") == "digits-v1"
    gateway.move(rest())
    assert kube.get("httproute", ROLLOUT, namespace)["spec"] == before
    assert [each for each in users.records() if not each.ok] == []


class Visitors:
    """People with browsers that keep cookies, each of whom comes again and again until the end."""

    def __init__(self, host: str, count: int) -> None:
        self.visits: list[tuple[float, int, str]] = []
        """When it began, whose it was, and the version that answered; empty where none did."""
        self.browsers = [requests.Session() for _ in range(count)]
        self._host = host
        self._is_over = threading.Event()
        self._threads = [
            threading.Thread(target=self._come, args=(range(first, count, VISITORS_AT_ONCE),))
            for first in range(VISITORS_AT_ONCE)
        ]

    def __enter__(self) -> Self:
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for each in self._threads:
            each.join()
        for browser in self.browsers:
            browser.close()

    def _come(self, people: range) -> None:
        for person in itertools.cycle(people):
            if self._is_over.wait(VISIT_SECONDS):
                return
            start = now()
            try:
                answer = self.browsers[person].get(
                    f"{GATEWAY}/v2/models/digits/ready", headers={"Host": self._host}, timeout=10
                )
                version = answer.headers.get("x-model-version", "") if answer.ok else ""
            except requests.RequestException:
                version = ""
            self.visits.append((start, person, version))

    def since(self, moment: float, times: int = 1) -> dict[int, set[str]]:
        """The versions that each has got since, when everybody has been there so many times."""

        def lists() -> dict[int, list[str]]:
            found: defaultdict[int, list[str]] = defaultdict(list)
            for start, person, version in list(self.visits):
                if start >= moment:
                    found[person].append(version)
            return found

        def is_whole() -> bool:
            got = lists()
            return len(got) == len(self.browsers) and min(map(len, got.values())) >= times

        kube.wait_until(is_whole, 60, "everybody")
        return {person: set(versions) for person, versions in lists().items()}

    def bucket(self, person: int) -> tuple[int, int]:
        """The first and the last hundredth of the bucket in somebody's cookie."""
        (value,) = [
            each.value or ""
            for each in self.browsers[person].cookies
            if each.name.startswith("modelrollout-")
        ]
        first, last = value.partition(".")[2].split("-")
        return int(first), int(last)


def test_strangers_are_kept_by_cookies_and_only_the_bucket_that_joins_moves(
    gateway: Gateway,
) -> None:
    route = kube.get("httproute", ROLLOUT, gateway.shop.namespace)["spec"]
    weights, before = (10, 30, 50), 0
    more = {"sticky": Sticky(by=StickyBy.COOKIE), "salt": "r/7", "weights": weights}
    moved: set[int] = set()
    with Visitors(gateway.shop.host, STRANGERS) as people:
        for weight in weights:
            moment = gateway.move(shared(weight, **more))
            assert gateway.view(shared(weight, **more)).route.sticky_by is StickyBy.COOKIE
            found = people.since(moment, times=2)
            assert all(len(each) == 1 for each in found.values())
            candidates = {person for person, versions in found.items() if versions == {"digits-v2"}}
            assert abs(len(candidates) / STRANGERS - weight / 100) < 0.15
            assert moved <= candidates
            joined = {people.bucket(each) for each in candidates - moved}
            assert joined == {(before, weight - 1)}
            assert {people.bucket(each)[0] >= weight for each in set(found) - candidates} == {True}
            print(f"{weight} %: {len(candidates)} of {STRANGERS} users on the candidate")
            moved, before = candidates, weight
        assert gateway.step(rest())
        time.sleep(PROXY_SECONDS)
        assert set.union(*people.since(now()).values()) == {"digits-v1"}
        moment = gateway.move(rest())
        assert set.union(*people.since(moment).values()) == {"digits-v1"}
    assert kube.get("httproute", ROLLOUT, gateway.shop.namespace)["spec"] == route
    assert [each for each in people.visits if not each[2]] == []


def test_rules_and_policy_that_somebody_takes_away_are_put_back(gateway: Gateway) -> None:
    namespace = gateway.shop.namespace
    gateway.load("users", 50, "--users", str(USERS))
    traffic = shared(20, sticky=STICKY, cohort=BETA, salt="r/6")
    gateway.move(traffic)
    rules = kube.get("httproute", ROLLOUT, namespace)["spec"]["rules"]
    kube.kubectl("delete", "envoyextensionpolicy", "digits-sticky", "-n", namespace)
    assert not gateway.view(traffic).route.is_settled
    gateway.move(traffic)
    kube.patch("httproute", ROLLOUT, namespace, {"spec": {"rules": rules[:1]}})
    assert not gateway.view(traffic).route.is_settled
    gateway.move(traffic)
    assert kube.get("httproute", ROLLOUT, namespace)["spec"]["rules"] == rules
    gateway.move(rest())


def copies(shop: Shop) -> float:
    """How many requests the mirrored Service has answered."""
    total = 0.0
    for pod in shop.pods("digits-comparator"):
        url = f"http://{pod['status']['podIP']}:{manifests.METRICS_PORT}/metrics"
        text = requests.get(url, timeout=5).text
        found = re.findall(r"^model_requests_total\{.*\} (\S+)$", text, re.MULTILINE)
        total += sum(map(float, found))
    return total


def test_a_mirror_comes_grows_dies_and_goes_and_users_notice_nothing(gateway: Gateway) -> None:
    shop, namespace = gateway.shop, gateway.shop.namespace
    route = kube.get("httproute", ROLLOUT, namespace)["spec"]
    users = gateway.load("users", 100)

    def mirrored(percent: int) -> Traffic:
        mirror = Mirror(service="digits-comparator", port=manifests.HTTP_PORT, percent=percent)
        return Traffic(stable=V1, candidate=None, weight=0, port=manifests.HTTP_PORT, mirror=mirror)

    assert not gateway.step(mirrored(20))
    assert "waits for Service digits-comparator" in gateway.view(mirrored(20)).route.message
    shop.deploy("comparator")
    for percent in (20, 100):
        moment, before = gateway.move(mirrored(percent)), copies(shop)
        kube.wait_until(lambda at=moment: len(users.requests_since(at)) > 1500, 60, "requests")
        share = (copies(shop) - before) / len(users.requests_since(moment))
        assert abs(share - percent / 100) < 0.08
    kube.kubectl("scale", "deployment/digits-comparator", "-n", namespace, "--replicas=0")
    kube.kubectl("delete", "pod", "-l", "app=digits-comparator", "-n", namespace, "--grace-period=0", "--force")  # fmt: skip
    moment = now()
    kube.wait_until(lambda: len(users.requests_since(moment)) > 1000, 60, "requests")
    assert gateway.view(mirrored(100)).route.is_settled
    gateway.move(rest())
    assert kube.get("httproute", ROLLOUT, namespace)["spec"] == route
    assert {each.version for each in users.records()} == {"digits-v1"}
    assert gateway.failures() == []


def test_a_rollout_with_sticky_users_and_a_cohort_is_promoted(shop: Shop) -> None:
    users = shop.users(rate=100, options=("--users", "5000"))
    candidate = shop.deploy("v2", replicas=2)
    traffic = {
        "gatewayAPI": {"route": ROLLOUT},
        "sticky": {"header": "x-user-id"},
        "cohort": [{"header": "x-beta", "value": "1"}],
    }
    steps = [{"weight": 20, "minSeconds": 30, "gate": "NoHarm"}, {"weight": 50, "minRequests": 100}]
    strategy = {"steps": steps, "bake": {"seconds": 2}}
    kube.apply(shop.rollout(candidate, traffic=traffic, strategy=strategy))
    shop.weight_is(20)
    moment = now() + PROXY_SECONDS
    headers = {"Host": shop.host, "x-beta": "1"}
    for _ in range(COHORT_REQUESTS):
        answer = requests.get(f"{GATEWAY}/v2/models/digits/ready", headers=headers, timeout=5)
        assert answer.headers["x-model-version"] == "digits-v2"
        time.sleep(0.5)
    status = shop.weight_is(50)
    # A counter that was not there at the first scrape may have begun above 0.
    assert COHORT_REQUESTS / 2 <= status["cohort"]["requests"] <= COHORT_REQUESTS
    assert status["cohort"]["errors"] == 0
    assert any("traffic.sticky.users" in each for each in status["warnings"])
    until = kube.get("modelrollout", ROLLOUT, shop.namespace)["status"]["stepStartTime"]
    end = datetime.fromisoformat(until).timestamp() - PATIENCE_SECONDS
    found = sides([each for each in users.requests_since(moment) if each.end < end])
    assert len(found) > 1000
    assert all(len(each) == 1 for each in found.values())
    shop.phase_is("Promoted", seconds=120)
    kube.wait_until(lambda: set(shop.backends()) == {"digits-v2"}, 30, "one backend")
    assert kube.listed("envoyextensionpolicies", shop.namespace) == []
    assert shop.failures() == []
