"""What users write reaches the proxy as what it is: no header, expression or script is more."""

from __future__ import annotations

import re

import lupa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from builders import a_rollout
from modelrollout.adapters.routers.gateway_api import buckets, own_rules
from modelrollout.api import v1alpha1 as api
from modelrollout.api.fields import HeaderName, HeaderValue
from modelrollout.core.plan import traffic_of

NAMES, VALUES = TypeAdapter(HeaderName), TypeAdapter(HeaderValue)
ASCII = st.text(st.characters(max_codepoint=127), max_size=12)


def label(model_version):
    version = api.VersionStatus(
        deployment="ranker-v1", service="ranker-v1", revision="r", model_version=model_version
    )
    traffic = traffic_of(api.ModelRolloutStatus(stable=version), a_rollout().spec, "ranker")
    assert traffic is not None
    return traffic.stable.label


@given(model_version=st.text())
def test_a_models_version_is_a_header_that_every_proxy_takes(model_version):
    """Envoy refuses a whole table of routes for one value with % or a control character in it."""
    said = label(model_version)

    assert said == said.strip() != ""
    assert re.fullmatch(r"[ -$&-~]+", said)


@pytest.mark.parametrize(
    ("model_version", "said"),
    [
        ("2.0.1", "2.0.1"),
        ("2024-06 beta", "2024-06 beta"),
        ("95% int8", "95_ int8"),
        ("%REQ(authorization)%", "_REQ(authorization)_"),
        ("1\r\nset-cookie: a=b", "1__set-cookie: a=b"),
        (" ", "ranker-v1"),
        (None, "ranker-v1"),
    ],
)
def test_an_ordinary_version_is_told_as_it_is(model_version, said):
    assert label(model_version) == said


def accepts(adapter, text):
    try:
        adapter.validate_python(text)
    except ValidationError:
        return False
    return True


@given(name=ASCII, value=ASCII)
def test_what_would_end_a_header_or_a_cookie_is_refused(name, value):
    if accepts(NAMES, name):
        assert not re.search(r"[\s:;,=\"'(){}<>@\\/\[\]?`]", name)
    if accepts(VALUES, value):
        assert not re.search(r"[\s;,\"\\]", value)


@given(
    cookie=st.text(st.sampled_from("a.*+^$|!#%&~_-"), min_size=1, max_size=6),
    value=st.text(st.sampled_from("a.*+?^$|()[]{}!#=&/'<>"), min_size=1, max_size=6),
    other=st.text(st.sampled_from("a.*+?^$|()[]{}"), min_size=1, max_size=6),
)
def test_a_cohorts_cookie_matches_itself_and_nothing_else(cookie, value, other):
    member = api.CohortMember(cookie=cookie, value=value)
    expression = own_rules._member(member)["value"]  # noqa: SLF001  # as Envoy is given it

    assert re.fullmatch(expression, f"x=y; {cookie}={value}; z=1")
    assert bool(re.fullmatch(expression, f"{cookie}={other}")) is (other == value)
    # RE2, which Envoy matches with, takes an escape of punctuation and of no letter.
    assert not re.search(r"\\[a-zA-Z0-9]", expression)


class Request:
    """What Envoy hands to the script: `handle` and its headers in one."""

    def __init__(self, **values):
        self.values, self.asked, self.written = values, [], {}

    def headers(self):
        return self

    def get(self, name):
        self.asked.append(name)
        return self.values["any"]

    def replace(self, name, value):
        self.written[name] = value


@given(name=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=100))
def test_no_name_of_a_header_is_more_than_a_name_in_lua(name):
    if not accepts(NAMES, name):
        return
    for sticky, value, asked in (
        (api.Sticky(header=name), "ada", name),
        (api.Sticky(cookie=name), f"{name}=ada", "cookie"),
    ):
        runtime = lupa.LuaRuntime(register_eval=False)
        runtime.execute(buckets.script(sticky, "salt"))
        request = Request(any=value)
        runtime.globals().envoy_on_request(request)

        assert request.asked == [asked]
        assert list(request.written) == [buckets.HEADER]
        assert re.fullmatch("[0-9][0-9]", request.written[buckets.HEADER])
