"""Whatever two versions answer is compared, or lost with a reason, in bounded time."""

from __future__ import annotations

import contextlib
import json
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelrollout.api.shadow import Format, Shadow
from modelrollout.shadow.answers import judge_of
from modelrollout.shadow.comparisons import Malformed, Misshapen
from modelrollout.shadow.deadline import TooSlow, within

SPEC = {"intent": "Change", "idempotent": True, "paths": ["/"]}
CHAT, STREAM = "application/json", "text/event-stream"


def a_judge(form=Format.JSON, **output):
    given = [{"name": "o", **output}] if output else None
    return judge_of(Shadow.model_validate(SPEC | {"format": form, "outputs": given}))


DEFAULTS = [each for each in Format if each is not Format.JSON]
OUTPUTS = [
    {"exact": {"ignore": ["id"]}},
    {"numeric": {"absolute": "0.1"}},
    {"label": {"by": "Argmax"}},
    {"label": {"threshold": "0.5"}},
    {"probabilities": {"jensenShannon": "0.1"}},
    {"rank": {"rbo": "0.5"}},
    {"embedding": {"cosine": "0.9"}},
    {"text": {"compare": "Normalised", "jsonSchema": '{"$ref": "http://127.0.0.1:1/x"}'}},
]
JUDGES = [
    *(a_judge(form) for form in DEFAULTS),
    *(a_judge(path="$.*", **each) for each in OUTPUTS),
    a_judge(Format.OPEN_INFERENCE, tensor="a", exact={}),
]
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6), st.just(10**400)
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)
TENSOR = st.fixed_dictionaries(
    {
        "name": st.one_of(st.just("a"), JSON),
        "shape": st.one_of(st.lists(st.integers(-1, 10**9), max_size=40), JSON),
        "data": st.one_of(st.lists(SCALARS, max_size=6), JSON),
    }
)
MESSAGE = st.one_of(st.fixed_dictionaries({"content": st.one_of(st.text(), JSON)}), JSON)
CHOICE = st.fixed_dictionaries(
    {"index": st.one_of(st.integers(0, 2), JSON), "message": MESSAGE, "delta": MESSAGE},
    optional={"finish_reason": JSON},
)
ANSWER = st.one_of(
    st.fixed_dictionaries({"outputs": st.one_of(st.lists(TENSOR, max_size=3), JSON)}),
    st.fixed_dictionaries({"predictions": JSON}),
    st.fixed_dictionaries({"choices": st.one_of(st.lists(CHOICE, max_size=3), JSON)}),
    JSON,
).map(lambda value: json.dumps(value).encode())
EVENTS = st.lists(ANSWER, max_size=4).map(
    lambda events: b"".join(b"data: " + each + b"\n\n" for each in [*events, b"[DONE]"])
)
NESTED = st.integers(1, 100_000).map(lambda depth: b'{"a": ' + b"[" * depth + b"]" * depth + b"}")
BODIES = st.one_of(ANSWER, EVENTS, NESTED, st.binary(max_size=30))


@settings(max_examples=400)
@given(
    judge=st.sampled_from(JUDGES),
    bodies=st.tuples(BODIES, BODIES),
    kind=st.sampled_from([CHAT, STREAM, ""]),
)
def test_any_two_answers_are_compared_or_lost_with_a_reason(judge, bodies, kind):
    with contextlib.suppress(Malformed, Misshapen), within(5):
        one, other = (judge.read(each, kind) for each in bodies)
        judge.compare(one, other)
        judge.label_of(one)


@pytest.mark.parametrize("text", ["plain", "[1, 2]", '{"a": 1}'])
def test_an_answer_that_is_a_text_is_not_read_as_json_once_more(text):
    body = json.dumps(text).encode()

    assert a_judge(path="$", exact={}).read(body, CHAT) == (text,)
    assert a_judge(path="$.*", exact={}).read(body, CHAT) == ([],)
    with pytest.raises(Misshapen):
        a_judge(path="$.a", exact={}).read(body, CHAT)


BACKTRACKS = "(a|aa)+[bc]"
TEXT = json.dumps({"text": json.dumps("a" * 60)}).encode()


@pytest.mark.parametrize(
    "output",
    [
        {"path": "$.text", "text": {"jsonSchema": json.dumps({"pattern": BACKTRACKS})}},
        {
            "path": "$.text",
            "text": {"jsonSchema": json.dumps({"not": {"pattern": f"^{BACKTRACKS}$"}})},
        },
        {"path": f"$[?match(@, '.*{BACKTRACKS}')]", "exact": {}},
        {"path": f"$[?search(@, '{BACKTRACKS}')]", "exact": {}},
    ],
)
def test_a_pattern_that_backtracks_for_ever_is_ended(output):
    judge, began = a_judge(**output), time.monotonic()

    with pytest.raises(TooSlow), within(0.2):
        judge.read(TEXT, CHAT)

    assert time.monotonic() - began < 5


def test_a_tensor_of_more_dimensions_than_there_are_is_refused_at_once():
    shape = [10**4000] * 200
    body = json.dumps({"outputs": [{"name": "a", "shape": shape, "data": [1]}]}).encode()

    with pytest.raises(Misshapen), within(1):
        a_judge(Format.OPEN_INFERENCE).read(body, CHAT)


def test_a_chunk_of_a_stream_whose_place_is_no_number_is_the_versions_fault():
    chunks = [{"choices": [{"index": index, "delta": {}}]} for index in (0, "1")]
    body = b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in chunks)

    with pytest.raises(Misshapen):
        a_judge(Format.OPENAI_CHAT).read(body + b"data: [DONE]\n\n", STREAM)


def test_what_ends_in_time_rings_nothing_afterwards():
    with within(0.05):
        pass

    time.sleep(0.1)


def test_a_deadline_is_refused_where_it_could_not_be_kept():
    refused = []

    def attempt():
        try:
            with within(1):
                pass
        except RuntimeError as error:
            refused.append(str(error))

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()

    assert refused == ["a deadline is for the main thread"]
