"""Nobody but the gateway speaks for the gateway: a tenant's pod cannot vote in another's rollout."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest

from contract.conftest import Server
from modelrollout.adapters.prometheus import Prometheus
from modelrollout.core.evidence import Grid, Kind, Matcher, Query, Selector
from prometheus_binary import prometheus_binary

NOW = 1_790_000_000.0
CLUSTER = "httproute/shop/ranker/rule/0/backend"
GATEWAY = {"namespace": "envoy-gateway-system"}


def by(place):
    return (Matcher(label="envoy_cluster_name", value=f"{CLUSTER}/{place}"),)


QUERY = Query(
    name="errors",
    kind=Kind.PROPORTION,
    total=Selector(metric="envoy_cluster_upstream_rq_total"),
    events=Selector(metric="envoy_cluster_upstream_rq_xx"),
    stable=by(0),
    candidate=by(1),
)
METRICS = ("envoy_cluster_upstream_rq_total", "envoy_cluster_upstream_rq_xx")


def history():
    """A gateway with ten requests a second each, and a pod of another tenant's that says more."""
    for metric in METRICS:
        for namespace, pod, rate in (
            ("envoy-gateway-system", "envoy", 10 if metric.endswith("total") else 1),
            ("eve", "forger", 1000),
        ):
            for place in (0, 1):
                labels = f'namespace="{namespace}",pod="{pod}",instance="{pod}",job="pods"'
                cluster = f'envoy_cluster_name="{CLUSTER}/{place}"'
                for seconds in range(-300, 1, 5):
                    value = rate * (seconds + 300)
                    yield f"{metric}{{{labels},{cluster}}} {value} {NOW + seconds:.0f}"
    yield "# EOF"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    directory = tmp_path_factory.mktemp("gateway")
    text = directory / "history.txt"
    text.write_text("\n".join(history()) + "\n")
    promtool = Path(prometheus_binary()).with_name("promtool")
    create = [promtool, "tsdb", "create-blocks-from", "openmetrics", text, directory / "data"]
    subprocess.run(create, check=True, capture_output=True)
    found = Server(directory, [])
    found.start()
    yield found
    found.stop()


def requests(server, **options):
    """The candidate's, in the windows of half a minute."""
    prometheus = Prometheus(server.url, **options)
    grid = Grid(start=NOW - 60, width=5.0, watermark=NOW - 60)
    reading = asyncio.run(prometheus.read(QUERY, grid, NOW - 20))
    prometheus.close()
    assert not reading.blind
    return sum(each.candidate.n for each in reading.windows)


def test_a_forgers_requests_would_be_counted_where_nothing_tells_him_from_the_gateway(server):
    assert requests(server) > 30 * 1000


def test_only_the_gateways_own_requests_are_counted(server):
    assert 30 * 10 <= requests(server, gateway_labels=GATEWAY) <= 40 * 10
