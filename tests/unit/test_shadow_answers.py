"""What is the same and what is not, in each format and for each kind of comparison."""

import json

import pytest

from modelrollout.api.shadow import Shadow
from modelrollout.shadow.answers import judge_of
from modelrollout.shadow.comparisons import Malformed, Misshapen


def a_judge(*outputs, **changes):
    given = {"intent": "Equivalence", "idempotent": True, "paths": ["/"]}
    if outputs:
        given["outputs"] = [{"name": f"o{i}"} | each for i, each in enumerate(outputs)]
    return judge_of(Shadow.model_validate(given | changes))


def a_value(**comparison):
    return a_judge({"path": "$.value"} | comparison)


def body(value):
    return json.dumps(value).encode()


def read(judge, document, content_type="application/json"):
    raw = document if isinstance(document, bytes) else body(document)
    return judge.read(raw, content_type)


def outcome(judge, stable, candidate):
    (found,) = judge.compare(read(judge, stable), read(judge, candidate))
    return found


def of_values(stable, candidate, **comparison):
    return outcome(a_value(**comparison), {"value": stable}, {"value": candidate})


def differ(stable, candidate, **comparison):
    return of_values(stable, candidate, **comparison).differs


# --- exact and numeric ---


@pytest.mark.parametrize(
    ("stable", "candidate", "is_same"),
    [
        ({"a": [1, "x"]}, {"a": [1, "x"]}, True),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        (1, 1.0, True),
        (1, True, False),
        ([0], [False], False),
        ({"a": None}, {}, False),
        ([1, 2], [2, 1], False),
        ("x", "X", False),
    ],
)
def test_exact_means_the_same_json(stable, candidate, is_same):
    assert differ(stable, candidate, exact={}) is not is_same


def test_ignored_fields_are_ignored_at_any_depth():
    stable = {"id": 1, "rows": [{"id": 2, "score": 0.5}]}
    candidate = {"rows": [{"id": 3, "score": 0.5}]}

    assert not differ(stable, candidate, exact={"ignore": ["id"]})
    assert differ(stable, candidate, exact={"ignore": ["score"]})


@pytest.mark.parametrize(
    ("candidate", "is_same"), [(10.2, True), (9.8, True), (10.21, False), (9.79, False)]
)
def test_tolerances_are_added_and_the_relative_one_is_of_stables_number(candidate, is_same):
    found = of_values(10, candidate, numeric={"absolute": "0.1", "relative": "0.0101"})

    assert found.differs is not is_same
    assert found.shift == pytest.approx(candidate - 10)


def test_of_many_numbers_the_largest_difference_counts():
    found = of_values([1, 2, [3]], [1, 1.5, [3]], numeric={"absolute": "0.1"})

    assert found.differs
    assert found.shift == 0.5


def test_beside_the_numbers_everything_must_be_equal():
    assert differ({"a": 1, "b": "x"}, {"a": 1, "b": "y"}, numeric={"absolute": "1"})


@pytest.mark.parametrize("candidate", [[1, 2, 3], [[1, 2]], {"0": 1}, [1, "2"], [1, None]])
def test_numbers_arranged_otherwise_are_a_failure_and_no_difference(candidate):
    with pytest.raises(Misshapen):
        of_values([1, 2], candidate, numeric={"absolute": "1"})


@pytest.mark.parametrize("raw", [b'{"value": NaN}', b'{"value": -Infinity}', b'{"value": 1e999}'])
def test_a_number_that_is_none_is_malformed(raw):
    with pytest.raises(Malformed):
        read(a_value(numeric={"absolute": "1"}), raw)


def test_a_whole_number_too_large_for_a_float_is_malformed():
    with pytest.raises(Malformed):
        read(a_value(numeric={"absolute": "1"}), {"value": 10**400})


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"1" * 10_000])
def test_what_is_not_json_is_malformed(raw):
    with pytest.raises(Malformed):
        read(a_judge({"path": "$", "numeric": {"absolute": "1"}}), raw)


DEEP = b'{"value": ' + b"[" * 700 + b"]" * 700 + b"}"


def test_an_answer_that_nests_deeper_than_python_is_malformed():
    with pytest.raises(Malformed):
        read(a_value(exact={"ignore": ["x"]}), DEEP)


def test_answers_that_nest_too_deeply_to_be_compared_are_a_failure():
    judge = a_value(exact={})
    value = read(judge, DEEP)

    with pytest.raises(Misshapen):
        judge.compare(value, read(judge, DEEP))


# --- label ---


def test_a_label_is_the_same_as_a_text_or_a_number():
    assert not differ("cat", "cat", label={})
    assert not differ(3, "3", label={})
    assert not differ(3.0, 3, label={})
    assert differ("cat", "dog", label={})


def test_the_highest_score_is_the_label():
    found = of_values([0.2, 0.7, 0.1], [0.5, 0.4, 0.1], label={"by": "Argmax"})

    assert found.differs
    assert found.shift == pytest.approx(0.4 - 0.7), "of the score of stable's label"


def test_scores_may_move_while_the_label_stays():
    assert not differ([0.2, 0.7, 0.1], [0.4, 0.5, 0.1], label={"by": "Argmax"})


def test_of_a_batch_one_row_is_enough():
    assert differ([[0.9, 0.1], [0.2, 0.8]], [[0.9, 0.1], [0.8, 0.2]], label={"by": "Argmax"})


@pytest.mark.parametrize(
    ("stable", "candidate", "is_same"), [(0.5, 0.9, True), (0.49, 0.5, False), (0.1, 0.3, True)]
)
def test_a_threshold_makes_labels_of_scores(stable, candidate, is_same):
    found = of_values(stable, candidate, label={"threshold": "0.5"})

    assert found.differs is not is_same
    assert found.shift == pytest.approx(candidate - stable)


def test_another_number_of_classes_is_a_failure():
    with pytest.raises(Misshapen):
        of_values([0.2, 0.8], [0.2, 0.7, 0.1], label={"by": "Argmax"})


def test_the_first_label_output_is_what_the_truth_is_held_against():
    judge = a_judge(
        {"path": "$.note", "exact": {}}, {"path": "$.scores", "label": {"by": "Argmax"}}
    )

    answer = read(judge, {"note": "x", "scores": [[0.1, 0.9], [0.8, 0.2]]})

    assert judge.label_of(answer) == ("1", "0")


def test_without_a_label_output_there_is_nothing_to_hold_the_truth_against():
    judge = a_value(exact={})

    assert judge.label_of(read(judge, {"value": 1})) is None


# --- probabilities, rank, embedding ---


def test_probabilities_may_differ_by_so_much_at_most():
    found = of_values([0.6, 0.4], [0.5, 0.5], probabilities={"maxDifference": "0.05"})

    assert found.differs
    assert found.shift == pytest.approx(0.1)
    assert not differ([0.6, 0.4], [0.56, 0.44], probabilities={"maxDifference": "0.05"})


def test_divergence_of_probabilities():
    assert not differ([0.6, 0.4], [0.5, 0.5], probabilities={"jensenShannon": "0.01"})
    assert differ([0.6, 0.4], [0.1, 0.9], probabilities={"jensenShannon": "0.01"})


@pytest.mark.parametrize("value", [[0.5, 0.6], [1.2, -0.2], [0.0, 0.0]])
def test_what_is_no_distribution_is_malformed(value):
    with pytest.raises(Malformed):
        read(a_value(probabilities={"maxDifference": "0.1"}), {"value": value})


def test_probabilities_rounded_by_the_server_are_still_probabilities():
    read(a_value(probabilities={"maxDifference": "0.1"}), {"value": [0.33, 0.33, 0.33]})


def test_the_top_of_a_ranking_is_compared():
    stable, candidate = ["a", "b", "c", "d"], ["b", "a", "x", "y"]

    assert not differ(stable, candidate, rank={"depth": 2, "overlap": "1"})
    assert of_values(stable, candidate, rank={"depth": 4, "overlap": "0.6"}).shift == 0.5
    assert differ(stable, candidate, rank={"depth": 4, "overlap": "0.6"})


def test_rank_biased_overlap_minds_the_order():
    stable, candidate = ["a", "b", "c"], ["c", "b", "a"]

    assert not differ(stable, candidate, rank={"depth": 3, "overlap": "1"})
    assert differ(stable, candidate, rank={"depth": 3, "rbo": "0.9"})


def test_a_ranking_that_became_empty_is_a_difference():
    judge = a_judge({"path": "$.hits[*].id", "rank": {"overlap": "0.5"}})

    assert outcome(judge, {"hits": [{"id": 1}]}, {"hits": []}).differs


def test_a_ranking_is_of_ids():
    with pytest.raises(Misshapen):
        read(a_judge({"path": "$.hits[*]", "rank": {"overlap": "0.5"}}), {"hits": [{"id": 1}]})


def test_embeddings_are_compared_by_their_direction():
    assert not differ([1, 2], [2, 4.1], embedding={"cosine": "0.99"})
    assert differ([1, 2], [2, 1], embedding={"cosine": "0.99"})
    with pytest.raises(Misshapen):
        of_values([1, 2], [1, 2, 3], embedding={"cosine": "0.99"})


@pytest.mark.parametrize("value", ["x", 1, [], ["a"], [True], {"a": 1}, [[1], 2]])
def test_what_is_no_vector_is_a_failure(value):
    with pytest.raises(Misshapen):
        read(a_value(embedding={"cosine": "0.99"}), {"value": value})


# --- text ---


def test_texts_are_exact_unless_said_otherwise():
    assert differ("Yes.", "yes.", text={})
    assert not differ("Yes, of  course\n", "yes, of course", text={"compare": "Normalised"})
    assert not differ("ﬁne", "fine", text={"compare": "Normalised"})
    assert differ("yes", "no", text={"compare": "Normalised"})


SCHEMA = json.dumps({"type": "object", "required": ["answer"]})


def test_texts_with_a_schema_are_compared_as_json():
    assert not differ('{"answer": 1, "b": 2}', '{"b":2,"answer":1}', text={"jsonSchema": SCHEMA})
    assert differ('{"answer": 1}', '{"answer": 2}', text={"jsonSchema": SCHEMA})


@pytest.mark.parametrize("text", ["The answer is 1", "{}", "[1]"])
def test_a_text_that_is_not_of_the_schema_is_malformed(text):
    with pytest.raises(Malformed):
        read(a_value(text={"jsonSchema": SCHEMA}), {"value": text})


def test_a_schema_fetches_nothing():
    """A reference to elsewhere cannot be followed; it is the answer that is not shown to fit."""
    schema = json.dumps({"$ref": "http://127.0.0.1:1/schema.json"})

    with pytest.raises(Malformed):
        read(a_value(text={"jsonSchema": schema}), {"value": "{}"})


# --- where it is ---


def test_an_output_that_is_missing_is_a_failure():
    with pytest.raises(Misshapen, match=r"\$\.value"):
        read(a_value(exact={}), {"other": 1})


def test_a_path_to_many_places_is_the_list_of_them():
    judge = a_judge({"path": "$.rows[*].label", "label": {}})

    assert outcome(
        judge, {"rows": [{"label": 1}, {"label": 2}]}, {"rows": [{"label": 1}, {"label": 3}]}
    ).differs


@pytest.mark.parametrize(
    ("output", "says"),
    [
        ({"path": "$.a[", "exact": {}}, "outputs.o0: path $.a[ is not a JSONPath"),
        ({"path": "$.a | $.b", "exact": {}}, "outputs.o0: path $.a | $.b is not a JSONPath"),
        (
            {"path": "$", "text": {"jsonSchema": "{x"}},
            "outputs.o0: jsonSchema is not a JSON Schema",
        ),
        (
            {"path": "$", "text": {"jsonSchema": '{"type": "objekt"}'}},
            "outputs.o0: jsonSchema is not a JSON Schema",
        ),
    ],
)
def test_what_cannot_be_understood_names_the_output(output, says):
    with pytest.raises(ValueError, match="outputs") as caught:
        a_judge(output)

    assert str(caught.value).startswith(says)


def tensor(name, data, shape):
    return {"name": name, "datatype": "FP32", "shape": shape, "data": data}


def of_tensors(*tensors):
    return {"model_name": "m", "id": "1", "outputs": list(tensors)}


def test_open_inference_compares_all_tensors_as_numbers():
    judge = a_judge(format="OpenInference")
    stable = of_tensors(tensor("a", [1.0, 2.0], [2]), tensor("b", [3.0], [1]))

    near = of_tensors(tensor("b", [3.0001], [1]), tensor("a", [1.0, 2.0], [2]))
    far = of_tensors(tensor("a", [1.0, 2.1], [2]), tensor("b", [3.0], [1]))

    assert not outcome(judge, stable, near).differs
    assert outcome(judge, stable, far).differs


def test_a_matrix_sent_flat_is_a_matrix():
    judge = a_judge({"tensor": "p", "label": {"by": "Argmax"}}, format="OpenInference")
    flat = of_tensors(tensor("p", [0.9, 0.1, 0.2, 0.8], [2, 2]))
    rows = of_tensors(tensor("p", [[0.9, 0.1], [0.2, 0.8]], [2, 2]))

    assert not outcome(judge, flat, rows).differs
    assert judge.label_of(read(judge, flat)) == ("0", "1")


@pytest.mark.parametrize(
    "document",
    [
        {"outputs": [tensor("q", [1.0], [1])]},
        {"outputs": [tensor("p", [1.0], [1, 2])]},
        {"outputs": [tensor("p", [1.0], ["x", 2])]},
        {"outputs": [{"name": "p"}]},
        {"error": "no model"},
    ],
)
def test_tensors_that_are_not_there_or_not_whole_are_a_failure(document):
    judge = a_judge({"tensor": "p", "numeric": {"absolute": "1"}}, format="OpenInference")

    with pytest.raises(Misshapen):
        read(judge, document)


def test_tf_serving_has_rows_or_columns():
    judge = a_judge(format="TFServing")

    assert not outcome(judge, {"predictions": [[1.0]]}, {"predictions": [[1.0]]}).differs
    assert outcome(judge, {"outputs": [1.0]}, {"outputs": [2.0]}).differs
    with pytest.raises(Misshapen):
        read(judge, {"error": "x"})


def chat(content, finish="stop"):
    message = {"role": "assistant", "content": content}
    return {"choices": [{"index": 0, "message": message, "finish_reason": finish}]}


def stream(*contents, finish="stop", done=True):
    deltas = [{"role": "assistant"}, *({"content": each} for each in contents), {}]
    reasons = [None] * (len(deltas) - 1) + [finish]
    lines = [
        b"data: " + body({"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})
        for delta, reason in zip(deltas, reasons, strict=True)
    ]
    return b"\n\n".join([*lines, b"data: [DONE]\n\n" if done else b""])


def test_chats_are_compared_by_their_words_and_how_they_ended():
    judge = a_judge(format="OpenAIChat")

    text, finish = judge.compare(read(judge, chat("Yes ")), read(judge, chat("yes", "length")))

    assert (text.differs, finish.differs) == (False, True)


def test_a_streamed_chat_is_the_same_as_one_in_a_piece():
    judge = a_judge(format="OpenAIChat")

    streamed = read(judge, stream("It ", "is 3."), "text/event-stream; charset=utf-8")

    assert [each.differs for each in judge.compare(read(judge, chat("It is 3.")), streamed)] == [
        False,
        False,
    ]


def test_a_stream_that_breaks_off_is_malformed():
    with pytest.raises(Malformed):
        read(a_judge(format="OpenAIChat"), stream("It ", done=False), "text/event-stream")


def test_a_chat_that_calls_a_tool_has_no_words():
    judge = a_judge(format="OpenAIChat")

    text, _ = judge.compare(
        read(judge, chat(None, "tool_calls")), read(judge, chat("Let me see", "tool_calls"))
    )

    assert text.differs


@pytest.mark.parametrize("document", [[], {"choices": []}, {"choices": [{}]}, {"choices": [1]}])
def test_a_chat_without_choices_is_a_failure(document):
    with pytest.raises((Misshapen, Malformed)):
        read(a_judge(format="OpenAIChat"), document)
