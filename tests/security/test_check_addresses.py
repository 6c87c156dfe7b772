"""A check goes to pods that the candidate's Service selects, or nowhere."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from contract.conftest import QuietHandler, Served
from modelrollout.adapters.checks import HttpChecker, judged
from modelrollout.adapters.cluster import ENDPOINT_SLICES, PODS, ROLLOUTS, SERVICES, _path
from modelrollout.adapters.services import ServiceResolver
from modelrollout.api.v1alpha1 import HttpCheck
from modelrollout.errors import ClusterUnavailable, NotFound

CLUSTER_ADDRESS, POD_ADDRESS = "10.96.0.7", "10.244.0.7"
LINK_LOCAL, API_SERVER, NODE = "169.254.169.254", "10.96.0.1", "192.168.1.10"


class Objects:
    """One Service, its slices, and the pods that it selects."""

    def __init__(self, *endpoints: str, pods: tuple[str, ...] = (POD_ADDRESS,), **spec: Any):
        given = {"type": "ClusterIP", "clusterIPs": [CLUSTER_ADDRESS], "selector": {"app": "v2"}}
        self.service = {"spec": given | spec}
        self.slices = [{"endpoints": [{"addresses": [each]} for each in endpoints]}]
        self.pods = [{"status": {"podIPs": [{"ip": each}]}} for each in pods]
        self.asked: list[tuple[str, str, str]] = []

    async def get(self, resource, namespace, name):
        self.asked.append((resource.plural, namespace, name))
        if name != "ranker-v2":
            raise NotFound(name)
        assert resource == SERVICES
        return self.service

    async def list(self, resource, namespace=None, selector=""):
        self.asked.append((resource.plural, namespace, selector))
        return {ENDPOINT_SLICES: self.slices, PODS: self.pods}[resource]


def addresses(objects, service="ranker-v2"):
    found = asyncio.run(ServiceResolver(objects).resolve(f"{service}.shop.svc", 8080))
    return [each["host"] for each in found]


def test_the_address_is_the_services_own_in_the_rollouts_namespace():
    objects = Objects(POD_ADDRESS)

    assert addresses(objects) == [CLUSTER_ADDRESS]
    assert objects.asked == [
        ("services", "shop", "ranker-v2"),
        ("endpointslices", "shop", "kubernetes.io/service-name=ranker-v2"),
        ("pods", "shop", "app=v2"),
    ]


def test_a_headless_service_leads_to_its_pods():
    pods = (POD_ADDRESS, "fd00::7")

    assert addresses(Objects(*pods, pods=pods, clusterIPs=["None"])) == sorted(pods)


@pytest.mark.parametrize("address", [LINK_LOCAL, API_SERVER, NODE, "127.0.0.1", "internal.example"])
@pytest.mark.parametrize("spec", [{}, {"clusterIPs": ["None"]}])
def test_an_endpoint_that_somebody_wrote_is_not_asked(address, spec):
    with pytest.raises(OSError, match=f"leads to {address}, which no pod that it selects has"):
        addresses(Objects(POD_ADDRESS, address, **spec))


@pytest.mark.parametrize(
    "spec",
    [
        {"type": "ExternalName", "externalName": LINK_LOCAL},
        {"type": "ExternalName", "externalName": "vault.bank.svc", "clusterIPs": []},
        {"selector": {}},
        {"selector": None},
    ],
)
def test_a_service_that_leads_elsewhere_is_not_asked(spec):
    with pytest.raises(OSError, match="does not lead to pods of its own namespace"):
        addresses(Objects(POD_ADDRESS, **spec))


def test_a_service_without_an_address_or_that_is_not_there_is_said():
    with pytest.raises(OSError, match="has no address"):
        addresses(Objects(pods=(), clusterIPs=["None"]))
    with pytest.raises(OSError, match=r"ranker-v3\.shop\.svc is not known"):
        addresses(Objects(), "ranker-v3")


def test_an_api_server_that_is_away_fails_the_check_and_not_the_pass():
    class Away(Objects):
        async def list(self, *_):
            raise ClusterUnavailable("503")

    result = asyncio.run(
        HttpChecker(ServiceResolver(Away())).run(HttpCheck(path="/"), "shop", "ranker-v2", 80)
    )

    assert not result.passed
    assert result.message == "no answer: Service ranker-v2 cannot be looked at"


@pytest.mark.parametrize("spec", [{"type": "ExternalName", "externalName": "localhost"}])
def test_nothing_reaches_a_server_that_an_external_name_points_to(spec):
    asked = []

    class Handler(QuietHandler):
        def do_GET(self):  # noqa: N802
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

    with Served(Handler) as served:
        checker = HttpChecker(ServiceResolver(Objects(**spec)))
        port = urlsplit(served.url).port
        result = asyncio.run(checker.run(HttpCheck(path="/"), "shop", "ranker-v2", port))

    assert not result.passed
    assert asked == []


def test_a_pod_is_asked_at_the_address_that_the_api_server_gives():
    """And the name in Host stays the Service's."""

    async def scene():
        async def answer(request):
            hosts.append(request.host)
            return web.Response(text="ok")

        hosts = []
        runner = web.ServerRunner(web.Server(answer))
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]  # noqa: SLF001  # aiohttp has no other way
        objects = Objects("127.0.0.1", pods=("127.0.0.1",), clusterIPs=["None"])
        checker = HttpChecker(ServiceResolver(objects))
        result = await checker.run(HttpCheck(path="/"), "shop", "ranker-v2", port)
        await runner.cleanup()
        return result, hosts == [f"ranker-v2.shop.svc:{port}"]

    result, is_named = asyncio.run(scene())

    assert result.passed
    assert is_named


@pytest.mark.parametrize(
    ("equals", "body"),
    [("[" * 250 + "]" * 250, b"[" * 250 + b"]" * 250), ('{"a":' * 80 + "1" + "}" * 80, b"{}")],
)
def test_an_expectation_may_be_nested_as_deeply_as_it_can_be_written(equals, body):
    check = HttpCheck.model_validate({"path": "/", "json": [{"pointer": "", "equals": equals}]})

    assert isinstance(judged(check, 200, body).message, str)


@given(namespace=st.text(min_size=1), name=st.text(min_size=1))
def test_no_name_leads_to_another_object(namespace, name):
    """The API server would refuse such names; the paths do not rely on it."""
    parts = _path(ROLLOUTS, namespace, name).split("/")

    assert len(parts) == 8
    assert parts[4] == "namespaces"
    assert "?" not in "".join(parts)
    assert "#" not in "".join(parts)
