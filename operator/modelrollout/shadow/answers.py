"""The formats of answers: from bytes to a document, and from a document to what is compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from jsonpath import JSONPath, JSONPathEnvironment
from jsonpath.exceptions import JSONPathError

from modelrollout.api import shadow as api
from modelrollout.shadow.comparisons import (
    Comparison,
    LabelComparison,
    Labels,
    Malformed,
    Misshapen,
    Outcome,
    comparison_of,
    json_of,
    label_text,
)

PATHS: Final = JSONPathEnvironment(strict=True)
"""RFC 9535, without extensions."""
EVENT_STREAM: Final = "text/event-stream"
MOST_DIMENSIONS: Final = 32
"""Of a tensor, as numpy has them."""

NUMBERS: Final = api.Numeric(absolute="0.00001", relative="0.001")
DEFAULTS: Final[Mapping[api.Format, tuple[api.Output, ...]]] = {
    api.Format.OPEN_INFERENCE: (api.Output(name="outputs", numeric=NUMBERS),),
    api.Format.TF_SERVING: (api.Output(name="predictions", numeric=NUMBERS),),
    api.Format.OPENAI_CHAT: (
        api.Output(name="text", text=api.TextAnswer(compare=api.TextComparison.NORMALISED)),
        api.Output(name="finish", path="$.choices[*].finish_reason", exact=api.Exact()),
    ),
}
"""What is compared when the spec names no outputs."""

Reader = Callable[[Any], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One part of the answers: where it is, and what makes it the same."""

    name: str
    kind: str
    value_of: Reader
    comparison: Comparison


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """All that is compared of two answers."""

    format: api.Format
    outputs: tuple[Output, ...]

    def read(self, body: bytes, content_type: str) -> tuple[Any, ...]:
        """What is compared of one answer; raises Malformed or Misshapen."""
        try:
            document = _document(self.format, body, content_type)
            return tuple(each.comparison.read(each.value_of(document)) for each in self.outputs)
        except RecursionError as error:
            raise Malformed("it is nested too deeply") from error

    def compare(self, stable: tuple[Any, ...], other: tuple[Any, ...]) -> tuple[Outcome, ...]:
        """Two answers that were read, output by output; raises Misshapen."""
        try:
            return tuple(
                output.comparison.compare(one, two)
                for output, one, two in zip(self.outputs, stable, other, strict=True)
            )
        except RecursionError as error:
            raise Misshapen("it is nested too deeply") from error

    def label_of(self, answer: tuple[Any, ...]) -> tuple[str, ...] | None:
        """What the first label output says, to be held against the truth when it is known."""
        for output, value in zip(self.outputs, answer, strict=True):
            if isinstance(output.comparison, LabelComparison):
                assert isinstance(value, Labels)
                return tuple(map(label_text, value.labels))
        return None


def judge_of(shadow: api.Shadow) -> Judge:
    """The judge that a spec asks for; ValueError names the output that is wrong."""
    outputs = shadow.outputs or DEFAULTS[shadow.format]
    return Judge(
        format=shadow.format, outputs=tuple(_output(each, shadow.format) for each in outputs)
    )


def _output(asked: api.Output, form: api.Format) -> Output:
    try:
        kind, comparison = comparison_of(asked)
        return Output(
            name=asked.name, kind=kind, value_of=_reader(asked, form), comparison=comparison
        )
    except ValueError as error:
        raise ValueError(f"outputs.{asked.name}: {error}") from error


def _reader(asked: api.Output, form: api.Format) -> Reader:
    if asked.path is not None:
        return _at_path(asked.path)
    if asked.tensor is not None:
        return _tensor(asked.tensor)
    return {
        api.Format.OPEN_INFERENCE: _tensors,
        api.Format.TF_SERVING: _predictions,
        api.Format.OPENAI_CHAT: _contents,
    }[form]


def _at_path(path: str) -> Reader:
    """A path to one place gives its value, a path to many gives the list of them."""
    try:
        query = PATHS.compile(path)
    except JSONPathError as error:
        raise ValueError(f"path {path} is not a JSONPath: {error.args[0]}") from error
    assert isinstance(query, JSONPath)
    is_one_place = query.singular_query()

    def value_of(document: Any) -> Any:
        # The library would take a text for JSON that is yet to be read. There is nothing in it.
        is_text = isinstance(document, str)
        found = ([document] if path == "$" else []) if is_text else query.findall(document)
        if not is_one_place:
            return found
        if not found:
            raise Misshapen(f"there is nothing at {path}")
        return found[0]

    return value_of


# --- documents ------------------------------------------------------------------------------------


def _document(form: api.Format, body: bytes, content_type: str) -> Any:
    if form is api.Format.OPENAI_CHAT and content_type.startswith(EVENT_STREAM):
        return _joined(body)
    document = json_of(body)
    if form is not api.Format.JSON and not isinstance(document, dict):
        raise Malformed("it is not a JSON object")
    return document


def _tensor(name: str) -> Reader:
    def value_of(document: Any) -> Any:
        found = _tensors(document)
        if name not in found:
            raise Misshapen(f"there is no output tensor {name}")
        return found[name]

    return value_of


def _tensors(document: Any) -> dict[str, Any]:
    outputs = document.get("outputs")
    if not isinstance(outputs, list) or not all(map(_is_tensor, outputs)):
        raise Misshapen("there are no output tensors with name, shape and data")
    return {each["name"]: _rows(each["data"], each["shape"]) for each in outputs}


def _is_tensor(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("name"), str)
        and isinstance(value.get("data"), list)
        and isinstance(value.get("shape"), list)
    )


def _rows(data: list[Any], shape: Sequence[Any]) -> list[Any]:
    """A matrix may be sent flat (the protocol allows both); rows are what is compared."""
    if len(shape) > MOST_DIMENSIONS or not all(type(x) is int and x >= 0 for x in shape):
        raise Misshapen("the shape of a tensor is not a list of whole numbers")
    if len(shape) < 2 or (data and isinstance(data[0], list)):  # noqa: PLR2004  # a vector, or rows
        return data
    width = shape[-1]
    if not width or math.prod(shape) != len(data):
        raise Misshapen("a tensor has more or fewer numbers than its shape says")
    return [data[i : i + width] for i in range(0, len(data), width)]


def _predictions(document: Any) -> Any:
    """TF Serving answers `predictions` by rows, and `outputs` by columns."""
    for name in ("predictions", "outputs"):
        if name in document:
            return document[name]
    raise Misshapen("there are neither predictions nor outputs")


def _contents(document: Any) -> list[Any]:
    choices = document.get("choices")
    if not isinstance(choices, list) or not choices:
        raise Misshapen("there are no choices")
    try:
        return [each["message"].get("content") for each in choices]
    except (KeyError, TypeError, AttributeError) as error:
        raise Misshapen("a choice has no message") from error


def _joined(body: bytes) -> dict[str, Any]:
    """A streamed chat answer as if it had come in one piece."""
    choices: dict[int, dict[str, Any]] = {}
    for event in _events(body):
        try:
            for delta in event.get("choices") or ():
                _extend(choices, delta)
        except (KeyError, TypeError, AttributeError) as error:
            raise Misshapen("a chunk of the stream has no choices with a delta") from error
    return {"choices": [choices[index] for index in sorted(choices)]}


def _events(body: bytes) -> Iterable[Any]:
    lines = (line for line in body.splitlines() if line.startswith(b"data:"))
    for line in lines:
        data = line.removeprefix(b"data:").strip()
        if data == b"[DONE]":
            return
        yield json_of(data)
    raise Malformed("the stream ended before its [DONE]")


def _extend(choices: dict[int, dict[str, Any]], delta: dict[str, Any]) -> None:
    index = delta["index"]
    if type(index) is not int:
        raise TypeError(index)
    choice = choices.setdefault(index, {"message": {"content": None}, "finish_reason": None})
    content = delta["delta"].get("content")
    if content is not None:
        choice["message"]["content"] = (choice["message"]["content"] or "") + content
    choice["finish_reason"] = delta.get("finish_reason") or choice["finish_reason"]
