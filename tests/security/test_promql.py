"""
No expression of a tenant's tells anything of another namespace, whatever PromQL it is made of.

Two real Prometheus servers know the same of the tenant's namespace, and other things of all else.
An expression that the operator asks for must give the same on both.
"""

from __future__ import annotations

import asyncio
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import a_workload
from contract.conftest import Server
from modelrollout.adapters.prometheus import Prometheus
from modelrollout.api import v1alpha1 as api
from modelrollout.core.evidence import Matcher
from modelrollout.core.measures import measures_of, users_query
from modelrollout.errors import MetricsUnavailable
from prometheus_binary import prometheus_binary

NOW = 1_790_000_000
EXPERIMENTAL = "--enable-feature=promql-experimental-functions,promql-duration-expr"
OURS = """\
answers_total{{namespace="shop",pod="a",job="m",instance="i"}} {value} {time}
up{{namespace="shop",pod="a",job="m",instance="i"}} 1 {time}
"""
THEIRS = """\
answers_total{{namespace="bank",pod="b",job="m",instance="j"}} {value} {time}
up{{namespace="bank",pod="b",job="m",instance="j"}} {up} {time}
vault{{namespace="{bank}",job="m",instance="j"}} {value} {time}
target_info{{job="m",instance="j",owner="{bank}"}} 1 {time}
target_info{{job="m",instance="i",owner="{bank}"}} 1 {time}
nobodys{{owner="{bank}"}} {value} {time}
"""


def store(directory: Path, bank: str, value: int) -> Server:
    times = range(NOW - 300, NOW + 1, 15)
    lines = "".join(
        OURS.format(value=time - NOW + 300, time=time)
        + THEIRS.format(value=value + time % 7, up=value % 2, bank=bank, time=time)
        for time in times
    )
    text = directory / "history.txt"
    text.write_text(lines + "# EOF\n")
    promtool = Path(prometheus_binary()).with_name("promtool")
    create = [promtool, "tsdb", "create-blocks-from", "openmetrics", text, directory / "data"]
    subprocess.run(create, check=True, capture_output=True)
    found = Server(directory, [], EXPERIMENTAL)
    found.start()
    return found


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """The same tenant beside two different neighbours."""
    found = [
        store(tmp_path_factory.mktemp("one"), "bank", 1),
        store(tmp_path_factory.mktemp("other"), "exchange", 70_000),
    ]
    yield found
    for each in found:
        each.stop()


@pytest.fixture(scope="module")
def asked(stores):
    """What the operator learns from an expression, on both."""
    readers = [Prometheus(each.url) for each in stores]

    async def learned(reader, expression):
        try:
            return await reader.value(expression, "shop", NOW)
        except MetricsUnavailable as unavailable:
            return str(unavailable)

    async def both(expression):
        return await asyncio.gather(*(learned(each, expression) for each in readers))

    yield lambda expression: asyncio.run(both(expression))
    for each in readers:
        each.close()


def raw(server: Server, expression: str) -> bytes:
    query = urllib.parse.urlencode({"query": expression, "time": NOW})
    with urllib.request.urlopen(f"{server.url}/api/v1/query?{query}", timeout=5) as response:  # noqa: S310
        return bytes(response.read())


@pytest.mark.parametrize(
    "expression",
    ["sum(vault)", "sum(answers_total)", "count by (owner) (target_info)", "sum(nobodys)"],
)
def test_the_two_servers_would_tell_the_neighbours_apart(stores, expression):
    one, other = (raw(each, expression) for each in stores)

    assert one != other


@pytest.mark.parametrize(
    "expression",
    [
        "sum(vault)",
        'sum({namespace=~".+"})',
        'sum({__name__=~".+"})',
        'sum({"vault"})',
        'sum(vault{namespace=""}) or vector(0)',
        'sum(nobodys{namespace=""})',
        'sum(vault{namespace!="shop"})',
        'sum(vault{namespace=~"shop|bank"})',
        'sum(vault{namespace="shop" or namespace="bank"})',
        'sum(up{namespace="shop"}) + sum(vault)',
        'sum(up{namespace="shop"} or vault)',
        'sum(up{namespace="shop"} * on (job) group_left vault)',
        'sum(up{namespace="shop"} unless on (job) vault)',
        "max_over_time(sum(vault)[1m:15s])",
        'max_over_time(up{namespace="shop"}[1m:15s]) + scalar(sum(vault))',
        "sum(vault offset 1m)",
        "sum(vault @ end())",
        'sum(vault # {namespace="shop"}\n)',
        'sum(vault {#"\n})',
        'sum(label_replace(vault, "namespace", "shop", "", ""))',
        'absent(vault{namespace="bank"})',
        "absent(vault)",
        "absent_over_time(vault[1m])",
        'count(info(up{namespace="shop"}))',
        'count(info(up{namespace="shop"}) == 1) + 1',
        'count(count by (owner) (info(label_replace(up{namespace="shop"}, "instance", "j", "", ""))))',
        'sum(info(up{namespace="shop"}, {owner=~".+"}))',
        'count(INFO(up{namespace="shop"}))',
        'count_values("x", vault)',
        'quantile(scalar(vault), up{namespace="shop"})',
        'sum(sum_over_time(up{namespace="shop"}[1m])) + sum(sum_over_time(vault[1m]))',
        'sum(vault{namespace="shop\\"} or vault{x=\\""})',
    ],
)
def test_an_expression_that_reaches_further_is_refused(asked, expression):
    for said in asked(expression):
        assert isinstance(said, str)
        assert "is not limited to this namespace" in said or "info()" in said or "parse" in said


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ('sum(answers_total{namespace="shop"})', 300),
        ('sum(answers_total{namespace="shop",namespace="bank"})', None),
        ('sum(vault{namespace="shop"})', None),
        ('absent(vault{namespace="shop"})', 1),
        ('sum({__name__=~".+",namespace="shop"})', 301),
        ('max(max_over_time(answers_total{namespace="shop"}[2m:5s] offset 1m))', 240),
        ("time()", NOW),
        ('scalar(sum(answers_total{namespace="shop"})) / 2', 150),
    ],
)
def test_an_expression_within_the_namespace_gives_its_number(asked, expression, value):
    assert asked(expression) == [value, value]


def matchers(label: str) -> list[dict[str, str]]:
    return [{"label": label, "operator": "=~", "value": ".*"}]


@pytest.mark.parametrize("version_label", [None, "namespace", "version"])
@pytest.mark.parametrize("label", ["namespace", "pod", "code"])
@pytest.mark.parametrize(
    "kind",
    ["proportion", "rate", "distribution", "mean", "mlserver/errors", "comparator/errors"],
)
def test_each_query_is_limited_to_the_namespace(kind, label, version_label):
    """What a comparison asks for, whatever its author asks for."""
    one = {"metric": "vault", "matchers": matchers(label)}
    sources = {
        "proportion": {"events": one, "total": one},
        "rate": {"events": one},
        "distribution": {"histogram": one},
        "mean": {"sum": one, "count": one},
    }
    given = {kind: sources[kind]} if kind in sources else {"preset": kind}
    if version_label and not kind.startswith("comparator"):
        given["versionLabel"] = version_label
    guardrail = api.Guardrail.model_validate({"name": "one", **given})
    analysis = api.Analysis.model_construct(guardrails=(guardrail,))
    stable, candidate = a_workload("ranker-v1"), a_workload("ranker-v2")

    (measure,) = measures_of(analysis, "shop", "ranker", stable, candidate, None)

    for version in (measure.query.stable, measure.query.candidate):
        assert Matcher(label="namespace", value="shop") in version


@pytest.mark.parametrize("version_label", [None, "namespace", "version"])
def test_a_count_of_users_is_limited_to_the_namespace(version_label):
    given = {"metric": "users_total", "matchers": matchers("namespace")}
    label = {"versionLabel": version_label} if version_label else {}
    counter = api.UserCounter.model_validate(given | label)

    query = users_query(counter, "shop", a_workload("ranker-v1"), a_workload("ranker-v2"))

    for version in (query.stable, query.candidate):
        assert Matcher(label="namespace", value="shop") in version


OWN = st.sampled_from(
    ['answers_total{namespace="shop"}', 'up{namespace="shop",job="m"}', '{namespace="shop"}']
)
FOREIGN = st.sampled_from(
    [
        "vault",
        'vault{namespace=~".*"}',
        'answers_total{namespace="bank"}',
        'target_info{job="m"}',
        '{__name__=~"n.*"}',
        'up{namespace=~"shop"}',
        'nobodys{namespace=""}',
    ]
)
SELECTOR = st.one_of(OWN, OWN, OWN, OWN, OWN, FOREIGN)
MODIFIER = st.sampled_from(["", "", " offset 1m", " @ end()", f" @ {NOW - 30}", " # comment\n"])
INSTANT = st.builds("{}{}".format, SELECTOR, MODIFIER)
RANGE = st.builds(
    "{}[{}]{}".format, SELECTOR, st.sampled_from(["1m", "2m:15s", "step()+1m"]), MODIFIER
)
OVER_TIME = ["rate", "sum_over_time", "absent_over_time", "last_over_time", "present_over_time"]


def grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Expressions around expressions."""
    return st.one_of(
        st.builds("{}({})".format, st.sampled_from(["sum", "max", "count", "group"]), inner),
        st.builds(
            "{} by ({}) ({})".format, st.just("sum"), st.sampled_from(["job", "owner"]), inner
        ),
        st.builds("{}({})".format, st.sampled_from(["abs", "absent", "info", "timestamp"]), inner),
        st.builds("{} {} {}".format, inner, st.sampled_from(["+", "or", "and", "unless"]), inner),
        st.builds("{} * on (job) group_left (owner) {}".format, inner, inner),
        st.builds("info({}, {})".format, inner, SELECTOR),
        st.builds("max_over_time(({})[1m:15s])".format, inner),
        st.builds('label_replace({}, "instance", "j", "", "")'.format, inner),
        st.builds('count_values("v", {})'.format, inner),
        st.builds("scalar({})".format, inner),
        st.builds("-({})".format, inner),
    )


EXPRESSIONS = st.recursive(
    st.one_of(INSTANT, st.builds("{}({})".format, st.sampled_from(OVER_TIME), RANGE)),
    grown,
    max_leaves=5,
)


@settings(max_examples=250)
@given(expression=EXPRESSIONS.map("sum({})".format))
def test_no_expression_tells_the_neighbours_apart(asked, expression):
    one, other = asked(expression)

    assert one == other
