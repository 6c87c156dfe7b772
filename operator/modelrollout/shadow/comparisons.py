"""
What makes two values the same: one class for each kind of comparison.

A comparison works in two moves. `read` takes the value out of one answer and says what is wrong
with it, so that the version that gave it is known; `compare` holds two such values together.
Values may be nested (batches): a vector is an innermost list of numbers.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import starmap
from typing import Any, Final, Protocol

from jsonschema import SchemaError
from jsonschema.exceptions import ValidationError
from jsonschema.protocols import Validator
from jsonschema.validators import validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable

from modelrollout.api import shadow as api
from modelrollout.shadow import distances

SUM_MAY_BE_OFF: Final = 0.05
"""Ten probabilities that a server rounded to two digits are still probabilities."""
PERSISTENCE: Final = "0.9"


class Malformed(Exception):
    """An answer is not what its format promises: no JSON, not a number, not of the schema."""


class Misshapen(Exception):
    """An answer lacks an output, or the output has another shape than stable's."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether two values differ, and by how much."""

    differs: bool
    shift: float
    """The change of a single number or of a score; else a distance, 0 for equal values."""


class Comparison(Protocol):
    """One kind of comparison. A value that was read is understood by the same object alone."""

    def read(self, value: Any) -> Any:
        """Check and prepare one answer's value; raises Malformed or Misshapen."""

    def compare(self, stable: Any, other: Any) -> Outcome:
        """Hold two values that were read together; raises Misshapen when they cannot be."""


def comparison_of(output: api.Output) -> tuple[str, Comparison]:
    """The kind and the comparison that an output asks for; ValueError for a bad JSON Schema."""
    kinds: dict[str, Callable[[Any], Comparison]] = {
        "exact": _exact,
        "numeric": _numeric,
        "label": LabelComparison,
        "probabilities": _probabilities,
        "rank": _rank,
        "embedding": _embedding,
        "text": _text,
    }
    kind, make = next((k, make) for k, make in kinds.items() if getattr(output, k) is not None)
    return kind, make(getattr(output, kind))


# --- exact ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ExactComparison:
    """Equal in every value, but for the fields to ignore."""

    ignore: frozenset[str]

    def read(self, value: Any) -> Any:
        """Leave out what is ignored."""
        return self._without(value) if self.ignore else value

    def compare(self, stable: Any, other: Any) -> Outcome:
        """Python says 1 == True; JSON does not."""
        differs = not (stable == other and _same_types(stable, other))
        return Outcome(differs, float(differs))

    def _without(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {k: self._without(v) for k, v in value.items() if k not in self.ignore}
        return [self._without(each) for each in value] if isinstance(value, list) else value


def _exact(asked: api.Exact) -> ExactComparison:
    return ExactComparison(frozenset(asked.ignore))


def _same_types(one: Any, other: Any) -> bool:
    """Whether two equal values are equal as JSON, too."""
    if isinstance(one, dict):
        return all(_same_types(each, other[key]) for key, each in one.items())
    if isinstance(one, list):
        return all(starmap(_same_types, zip(one, other, strict=True)))
    return isinstance(one, bool) == isinstance(other, bool)


# --- numeric --------------------------------------------------------------------------------------


@dataclass(slots=True)
class Flat:
    """A value taken apart: its numbers, its other leaves, and how they are arranged."""

    numbers: list[float]
    others: list[Any]
    shape: list[Any]


@dataclass(frozen=True, slots=True)
class NumericComparison:
    """Numbers within absolute + relative * stable's; all else equal."""

    absolute: float
    relative: float

    def read(self, value: Any) -> Flat:
        """Take the numbers apart from the rest."""
        flat = Flat([], [], [])
        _flatten(value, flat)
        return flat

    def compare(self, stable: Flat, other: Flat) -> Outcome:
        """The shift of a single number has a sign; of many it is the largest difference."""
        if stable.shape != other.shape:
            raise Misshapen("the numbers are arranged in another way than stable's")
        shifts = [y - x for x, y in zip(stable.numbers, other.numbers, strict=True)]
        differs = stable.others != other.others or any(
            abs(shift) > self.absolute + self.relative * abs(x)
            for x, shift in zip(stable.numbers, shifts, strict=True)
        )
        return Outcome(differs, shifts[0] if len(shifts) == 1 else max(map(abs, shifts), default=0))


def _numeric(asked: api.Numeric) -> NumericComparison:
    return NumericComparison(float(asked.absolute or 0), float(asked.relative or 0))


def _flatten(value: Any, flat: Flat) -> None:
    if isinstance(value, list):
        flat.shape.append(len(value))
        for each in value:
            _flatten(each, flat)
    elif isinstance(value, dict):
        keys = sorted(value)
        flat.shape.append(keys)
        for key in keys:
            _flatten(value[key], flat)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        flat.shape.append("number")
        flat.numbers.append(_number(value))
    else:
        flat.shape.append(type(value).__name__)
        flat.others.append(value)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Misshapen("there is something else where a number belongs")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise Malformed("a number is not finite")
    return number


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for each in value:
            yield from _leaves(each)
    elif isinstance(value, dict):
        for key in sorted(value):
            yield from _leaves(value[key])
    else:
        yield value


def _innermost(value: Any) -> Iterator[list[Any]]:
    """The lists that hold no list; of named tensors those of each."""
    if isinstance(value, dict):
        for key in sorted(value):
            yield from _innermost(value[key])
    elif not isinstance(value, list):
        raise Misshapen("there is something else where a list belongs")
    elif value and isinstance(value[0], list | dict):
        for each in value:
            yield from _innermost(each)
    else:
        yield value


def _vectors(value: Any) -> list[list[float]]:
    found = [[_number(x) for x in each] for each in _innermost(value)]
    if not all(found):
        raise Misshapen("a vector is empty")
    return found


def _check_lengths(stable: Sequence[Sequence[Any]], other: Sequence[Sequence[Any]]) -> None:
    if [len(each) for each in stable] != [len(each) for each in other]:
        raise Misshapen("the vectors have other lengths than stable's")


# --- label ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of one answer, and the scores they were made from."""

    labels: tuple[Any, ...]
    scores: list[list[float]]
    """Of each label: none, one, or one for each class."""


@dataclass(frozen=True, slots=True)
class LabelComparison:
    """The same class."""

    asked: api.Label

    def read(self, value: Any) -> Labels:
        """The labels, from what the spec says they are made of."""
        if self.asked.by is api.LabelBy.ARGMAX:
            vectors = _vectors(value)
            return Labels(tuple(each.index(max(each)) for each in vectors), vectors)
        leaves = list(_leaves(value))
        if self.asked.threshold is not None:
            scores = [_number(each) for each in leaves]
            threshold = float(self.asked.threshold)
            return Labels(tuple(x >= threshold for x in scores), [[x] for x in scores])
        return Labels(tuple(map(label_text, leaves)), [[] for _ in leaves])

    def compare(self, stable: Labels, other: Labels) -> Outcome:
        """The shift is that of the score of stable's label, where it is largest."""
        _check_lengths(stable.scores, other.scores)
        differs = stable.labels != other.labels
        if not any(stable.scores):
            return Outcome(differs, float(differs))
        places = [label if self.asked.by is api.LabelBy.ARGMAX else 0 for label in stable.labels]
        shifts = [
            theirs[place] - ours[place]
            for ours, theirs, place in zip(stable.scores, other.scores, places, strict=True)
        ]
        return Outcome(differs, max(shifts, key=abs))


def label_text(value: Any) -> str:
    """A label as text: 3, 3.0 and "3" are the same class; true is 1."""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


# --- probabilities, rank, embedding ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ProbabilitiesComparison:
    """The same distribution over the classes."""

    max_difference: float | None
    jensen_shannon: float | None

    def read(self, value: Any) -> list[list[float]]:
        """Vectors that are distributions."""
        vectors = _vectors(value)
        for each in vectors:
            if min(each) < 0 or abs(math.fsum(each) - 1) > SUM_MAY_BE_OFF:
                raise Malformed("probabilities are negative, or do not sum to 1")
        return vectors

    def compare(self, stable: list[list[float]], other: list[list[float]]) -> Outcome:
        """The distance of the pair that is farthest apart."""
        _check_lengths(stable, other)
        distance = max(
            (self._distance(x, y) for x, y in zip(stable, other, strict=True)), default=0
        )
        return Outcome(distance > (self.max_difference or self.jensen_shannon or 0), distance)

    def _distance(self, one: list[float], other: list[float]) -> float:
        if self.jensen_shannon is not None:
            return distances.jensen_shannon(one, other)
        return max(abs(x - y) for x, y in zip(one, other, strict=True))


def _probabilities(asked: api.Probabilities) -> ProbabilitiesComparison:
    return ProbabilitiesComparison(_float(asked.max_difference), _float(asked.jensen_shannon))


@dataclass(frozen=True, slots=True)
class RankComparison:
    """The same items on top."""

    depth: int
    overlap: float | None
    rbo: float | None
    persistence: float

    def read(self, value: Any) -> list[list[Hashable]]:
        """Rankings of ids, each id where it comes first."""
        rankings = [list(dict.fromkeys(map(_item, each))) for each in _innermost(value)]
        return [each[: self.depth] for each in rankings]

    def compare(self, stable: list[list[Hashable]], other: list[list[Hashable]]) -> Outcome:
        """One less the similarity of the rankings that are least alike."""
        if len(stable) != len(other):
            raise Misshapen("there are more or fewer rankings than stable's")
        similarity = min(
            (self._similarity(x, y) for x, y in zip(stable, other, strict=True)), default=1.0
        )
        return Outcome(similarity < (self.overlap or self.rbo or 0), 1 - similarity)

    def _similarity(self, one: list[Hashable], other: list[Hashable]) -> float:
        if self.rbo is not None:
            return distances.rank_biased_overlap(one, other, self.depth, self.persistence)
        return distances.overlap(one, other, self.depth)


def _rank(asked: api.Rank) -> RankComparison:
    return RankComparison(
        asked.depth,
        _float(asked.overlap),
        _float(asked.rbo),
        float(asked.persistence or PERSISTENCE),
    )


def _item(value: Any) -> Hashable:
    if isinstance(value, dict | list):
        raise Misshapen("a ranking is a list of ids: give the path of the ids")
    return label_text(value)


@dataclass(frozen=True, slots=True)
class EmbeddingComparison:
    """Vectors of the same direction."""

    least: float

    def read(self, value: Any) -> list[list[float]]:
        """The vectors."""
        return _vectors(value)

    def compare(self, stable: list[list[float]], other: list[list[float]]) -> Outcome:
        """One less the cosine of the vectors that are least alike."""
        _check_lengths(stable, other)
        similarity = min(map(distances.cosine, stable, other), default=1.0)
        return Outcome(similarity < self.least, 1 - similarity)


def _embedding(asked: api.Embedding) -> EmbeddingComparison:
    return EmbeddingComparison(float(asked.cosine))


def _float(text: str | None) -> float | None:
    return None if text is None else float(text)


# --- text -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TextsComparison:
    """The same words, or the same JSON."""

    normalised: bool
    schema: Validator | None

    def read(self, value: Any) -> list[str | None]:
        """The texts; one that was not given (a tool was called instead) is None."""
        return [self._text(each) for each in _leaves(value)]

    def compare(self, stable: list[str | None], other: list[str | None]) -> Outcome:
        """There is no distance between texts that would be cheap and mean something."""
        if len(stable) != len(other):
            raise Misshapen("there are more or fewer texts than stable's")
        differs = stable != other
        return Outcome(differs, float(differs))

    def _text(self, value: Any) -> str | None:
        if value is None:
            return None
        if not isinstance(value, str):
            raise Misshapen("there is something else where a text belongs")
        text = value if self.schema is None else _valid(value, self.schema)
        return _normalised(text) if self.normalised else text


def _text(asked: api.TextAnswer) -> TextsComparison:
    schema = None if asked.json_schema is None else _validator(asked.json_schema)
    return TextsComparison(asked.compare is api.TextComparison.NORMALISED, schema)


def _validator(text: str) -> Validator:
    try:
        schema = json.loads(text)
        kind = validator_for(schema)
        kind.check_schema(schema)
    except (ValueError, SchemaError) as error:
        message = error.message if isinstance(error, SchemaError) else str(error)
        raise ValueError(f"jsonSchema is not a JSON Schema: {message}") from error
    # An empty registry: references to other places are never fetched.
    validator: Validator = kind(schema, registry=Registry())
    return validator


def _valid(text: str, schema: Validator) -> str:
    """The JSON in a text, written in one way only."""
    value = json_of(text)
    try:
        schema.validate(value)
    except (ValidationError, Unresolvable) as error:
        raise Malformed("the text is not JSON of the schema") from error
    return json.dumps(value, sort_keys=True)


def _normalised(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def json_of(text: str | bytes) -> Any:
    """JSON as RFC 8259 has it: NaN and Infinity are not; raises Malformed."""
    try:
        return _DECODER.decode(text if isinstance(text, str) else text.decode())
    except (ValueError, RecursionError) as error:
        raise Malformed("it is not JSON") from error


def _not_json(constant: str) -> Any:
    raise ValueError(constant)


_DECODER: Final = json.JSONDecoder(parse_constant=_not_json)
