"""What must hold for any answers."""

import contextlib
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelrollout.api.shadow import Shadow
from modelrollout.shadow.answers import judge_of
from modelrollout.shadow.comparisons import Malformed, Misshapen
from modelrollout.shadow.distances import cosine, jensen_shannon, overlap, rank_biased_overlap
from modelrollout.shadow.requests import places_of, selection_of

COMPARISONS = [
    {"exact": {}},
    {"exact": {"ignore": ["a"]}},
    {"numeric": {"absolute": "0.1", "relative": "0.01"}},
    {"label": {}},
    {"label": {"by": "Argmax"}},
    {"label": {"threshold": "0.5"}},
    {"probabilities": {"maxDifference": "0.1"}},
    {"probabilities": {"jensenShannon": "0.1"}},
    {"rank": {"depth": 3, "overlap": "0.5"}},
    {"rank": {"depth": 3, "rbo": "0.5"}},
    {"embedding": {"cosine": "0.9"}},
    {"text": {}},
    {"text": {"compare": "Normalised"}},
    {"text": {"jsonSchema": "{}"}},
]
SPEC = {"intent": "Equivalence", "idempotent": True, "paths": ["/"]}


def a_judge(comparison, path="$", **spec):
    outputs = [{"name": "o", "path": path} | comparison]
    return judge_of(Shadow.model_validate(SPEC | {"outputs": outputs} | spec))


JUDGES = [a_judge(each) for each in COMPARISONS]
judges = st.sampled_from(JUDGES)
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
documents = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
    ),
    max_leaves=12,
)
unit = st.floats(0, 1)
vectors = st.lists(unit, min_size=1, max_size=6).filter(lambda it: sum(it) > 1e-6)
items = st.lists(st.integers(0, 9), unique=True, max_size=8)


def read(judge, document):
    return judge.read(json.dumps(document).encode(), "application/json")


@given(judges, documents, documents)
def test_any_two_answers_are_compared_or_blamed_on_one_of_them(judge, stable, candidate):
    """Nothing else is raised: a strange answer must not end the process."""
    try:
        (found,) = judge.compare(read(judge, stable), read(judge, candidate))
    except (Malformed, Misshapen):
        return
    assert isinstance(found.differs, bool)
    assert not math.isnan(found.shift)


@given(judges, documents)
def test_an_answer_never_differs_from_itself(judge, document):
    try:
        value = read(judge, document)
    except (Malformed, Misshapen):
        return
    (found,) = judge.compare(value, read(judge, document))

    assert not found.differs
    assert found.shift == pytest.approx(0, abs=1e-9)


@given(st.sampled_from(list(Shadow.model_fields["format"].annotation)), st.binary(max_size=60))
def test_any_bytes_are_read_or_blamed_on_the_version(form, body):
    judge = judge_of(
        Shadow.model_validate(
            SPEC | {"format": form, "outputs": [{"name": "o", "path": "$", "exact": {}}]}
        )
    )
    for content_type in ("application/json", "text/event-stream"):
        with contextlib.suppress(Malformed, Misshapen):
            judge.read(body, content_type)


@given(
    st.sampled_from(["OpenInference", "TFServing", "OpenAIChat"]),
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(("outputs", "predictions", "choices", "error"), documents),
    ),
)
def test_any_document_of_a_format_is_read_or_blamed(form, document):
    judge = judge_of(Shadow.model_validate(SPEC | {"format": form}))
    with contextlib.suppress(Malformed, Misshapen):
        read(judge, document)


@given(documents, documents)
def test_exact_means_that_the_json_is_the_same(one, other):
    """Numbers apart: 1 and 1.0 are two texts of the same number."""
    judge = JUDGES[0]
    texts = [json.dumps(each, sort_keys=True) for each in (one, other)]
    (found,) = judge.compare(read(judge, one), read(judge, other))

    if texts[0] == texts[1]:
        assert not found.differs
    if one != other:
        assert found.differs


@given(st.lists(numbers, min_size=1, max_size=5), st.data())
def test_numbers_moved_by_less_than_the_tolerance_are_the_same(stable, data):
    stable = [float(each) for each in stable if abs(each) < 1e9] or [1.0]
    moved = [x + data.draw(st.floats(-0.09, 0.09)) for x in stable]
    judge = a_judge({"numeric": {"absolute": "0.1"}})
    (found,) = judge.compare(read(judge, stable), read(judge, moved))

    assert not found.differs


@given(vectors, vectors)
def test_divergence_is_symmetric_and_between_0_and_1(one, other):
    other = (other * 6)[: len(one)]
    if sum(other) <= 1e-6:
        return
    found = jensen_shannon(one, other)

    assert 0 <= found <= 1
    assert found == pytest.approx(jensen_shannon(other, one), abs=1e-12)
    assert jensen_shannon(one, one) == pytest.approx(0, abs=1e-12)


@given(vectors, vectors, st.floats(0.01, 100))
def test_cosine_is_symmetric_and_minds_no_length(one, other, factor):
    other = (other * 6)[: len(one)]
    found = cosine(one, other)

    assert -1 <= found <= 1
    assert found == pytest.approx(cosine(other, one), abs=1e-9)
    assert found == pytest.approx(cosine([factor * x for x in one], other), abs=1e-6)


@given(items, items, st.integers(1, 10), st.floats(0.05, 0.95))
def test_similarities_of_rankings_are_symmetric_and_between_0_and_1(one, other, depth, persistence):
    for similarity in (
        lambda x, y: overlap(x, y, depth),
        lambda x, y: rank_biased_overlap(x, y, depth, persistence),
    ):
        assert 0 <= similarity(one, other) <= 1
        assert similarity(one, other) == pytest.approx(similarity(other, one))
        assert similarity(one, one) == pytest.approx(1)


@given(st.text(max_size=20))
def test_a_place_is_between_0_and_1_and_always_the_same(identity):
    places = places_of(identity)

    assert 0 <= places.admission < 1
    assert 0 <= places.repetition < 1
    assert places == places_of(identity)


names = st.sampled_from(
    ["Authorization", "COOKIE", "x-api-key", "content-type", "host", "x-shadow", "ce-id", "te", "q"]
)


@given(
    st.lists(st.tuples(names, st.text(max_size=5)), max_size=8),
    st.binary(max_size=40),
    st.booleans(),
)
def test_no_credential_passes_and_every_request_is_marked_once(headers, body, is_forced):
    force = [{"field": "seed", "value": "1"}] if is_forced else []
    selection = selection_of(Shadow.model_validate(SPEC | {"format": "TFServing", "force": force}))

    request = selection.request("POST", "/", headers, body)

    passed = [name for name, _ in request.headers]
    assert set(passed) <= {"content-type", "ce-id", "x-shadow"}
    assert passed.count("x-shadow") == 1
    assert request.headers[-1] == ("x-shadow", "true")
    assert is_forced or request.body == body
