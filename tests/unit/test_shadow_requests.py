"""What of a user's request reaches the versions."""

import json

import pytest

from modelrollout.api.shadow import Shadow
from modelrollout.shadow.requests import places_of, selection_of

SPEC = {"intent": "Change", "idempotent": True, "format": "TFServing"}


def a_selection(**changes):
    return selection_of(Shadow.model_validate(SPEC | {"paths": ["/v2/models"]} | changes))


def repeated(headers=(), body=b"{}", **changes):
    return a_selection(**changes).request("POST", "/v2/models/m/infer", headers, body)


def names(request):
    return [name for name, _ in request.headers]


@pytest.mark.parametrize(
    "path",
    ["/v2/models", "/v2/models/", "/v2/models/m/infer", "/v2/models?x=1", "/v2/models:predict"],
)
def test_paths_below_a_beginning_are_repeated(path):
    assert a_selection().takes_path(path)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v2",
        "/v2/modelsecret",
        "/v1/models",
        "/v2/models/../admin",
        "/v2/models/%2e%2e/admin",
        "/v2/models/%2E%2E%2Fadmin",
        "/v2/models\\..\\admin",
        "/v2/modéls",
        "http://elsewhere/v2/models",
        "?/v2/models",
    ],
)
def test_all_other_paths_are_not(path):
    assert not a_selection().takes_path(path)


def test_a_query_may_say_what_it_likes():
    assert a_selection().takes_path("/v2/models?next=../%2F")


def test_everything_may_be_repeated_if_the_user_says_so():
    assert a_selection(paths=["/"]).takes_path("/anything")


def test_credentials_and_cookies_are_not_passed_on():
    headers = [
        ("Authorization", "Bearer secret"),
        ("Cookie", "session=1"),
        ("X-Api-Key", "secret"),
        ("X-Forwarded-For", "192.0.2.1"),
        ("Proxy-Authorization", "secret"),
        ("Content-Type", "application/json"),
        ("Accept", "application/json"),
        ("X-Request-Id", "r1"),
        ("Traceparent", "00-1-2-03"),
        ("Ce-Type", "prediction"),
    ]

    assert sorted(repeated(headers).headers) == [
        ("accept", "application/json"),
        ("ce-type", "prediction"),
        ("content-type", "application/json"),
        ("traceparent", "00-1-2-03"),
        ("x-request-id", "r1"),
        ("x-shadow", "true"),
    ]


def test_what_the_user_lists_is_passed_on():
    found = repeated([("X-Tenant", "a"), ("X-Other", "b")], allowHeaders=["x-tenant"])

    assert names(found) == ["x-tenant", "x-shadow"]


def test_headers_of_the_connection_and_the_host_never_are():
    headers = [
        ("Host", "digits.example-shadow"),
        ("Connection", "close"),
        ("Transfer-Encoding", "chunked"),
        ("Content-Length", "2"),
        ("Expect", "100-continue"),
        ("X-Shadow", "false"),
    ]

    listed = [name.lower() for name, _ in headers]

    assert repeated(headers, allowHeaders=listed).headers == (("x-shadow", "true"),)


def test_a_header_that_cannot_be_written_is_left_out():
    assert names(repeated([("accept", "caf\udce9")])) == ["x-shadow"]


def test_a_body_is_passed_on_byte_by_byte():
    body = b'{"a":  1.10}'

    assert repeated(body=body).body == body


def test_a_forced_field_is_set_and_the_rest_stays():
    force = [{"field": "temperature", "value": "0"}, {"field": "seed", "value": "7"}]

    found = repeated(body=b'{"temperature": 0.7, "messages": []}', force=force)

    assert json.loads(found.body) == {"temperature": 0, "messages": [], "seed": 7}


@pytest.mark.parametrize("body", [b"", b"[1]", b"\x00\xff", b"{"])
def test_what_is_no_json_object_cannot_be_forced_and_is_passed_on(body):
    assert repeated(body=body, force=[{"field": "seed", "value": "7"}]).body == body


def test_a_forced_value_must_be_json():
    with pytest.raises(
        ValueError, match=r"force\.mode: \[fast\] is not JSON: write a text in quotes"
    ):
        a_selection(force=[{"field": "mode", "value": "[fast]"}])


@pytest.mark.parametrize(
    ("body", "headers", "identity"),
    [
        (b'{"id": "body"}', [("x-request-id", "header"), ("ce-id", "event")], "body"),
        (b"{}", [("X-Request-ID", "header"), ("ce-id", "event")], "header"),
        (b'{"id": 7}', [("Ce-Id", "event")], "event"),
        (b'{"id": ""}', [], None),
        (b"no json", [], None),
    ],
)
def test_the_id_is_open_inferences_then_the_gateways_then_that_of_an_event(body, headers, identity):
    assert repeated(headers, body).id == identity


def test_the_same_id_falls_into_the_same_place():
    assert places_of("a") == places_of("a")
    assert places_of("a") != places_of("b")


def test_places_are_spread_evenly_and_independently():
    places = [places_of(str(i)) for i in range(4000)]
    halves = [(each.admission < 0.5, each.repetition < 0.5) for each in places]

    for quarter in ((True, True), (True, False), (False, True), (False, False)):
        assert 900 < halves.count(quarter) < 1100


def test_without_an_id_places_are_drawn():
    assert len({places_of(None).admission for _ in range(100)}) == 100
