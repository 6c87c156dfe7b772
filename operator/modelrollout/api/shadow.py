"""How a candidate's answers are compared with stable's, as a user writes it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from modelrollout.api.fields import (
    ApiModel,
    Decimal,
    JsonText,
    Rate,
    Rule,
    atomic,
    given,
    keyed,
    matching,
)

SHARE = "a share is a decimal number above 0 and at most 1, for example 0.5"
OUTPUT_NAME = "an output's name is made of lower-case letters, digits and '-', and begins and ends with a letter or digit"
JSON_PATH = "a path is a JSONPath from the root of the answer, for example $.predictions[*].score"
URL_PATH = "a path begins with / and has no query and no .. in it, for example /v2/models/"
HEADER = "a header's name is written in lower-case letters, digits and '-'"
METHOD = "a method is written in capital letters, for example POST"
FIELD = "a field's name is made of letters, digits and _"

Share = Annotated[str, matching(r"^(0\.[0-9]*[1-9][0-9]*|1(\.0+)?)$", 20, SHARE)]
JsonPath = Annotated[str, matching(r"^\$.*$", 256, JSON_PATH)]
UrlPath = Annotated[
    str, matching(r"^/(\.?[^/?#%\s.][^/?#%\s]*/)*(\.?[^/?#%\s.][^/?#%\s]*)?$", 256, URL_PATH)
]
HeaderName = Annotated[str, matching(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", 64, HEADER)]
Method = Annotated[str, matching(r"^[A-Z]+$", 16, METHOD)]
FieldName = Annotated[str, matching(r"^[A-Za-z_][A-Za-z0-9_]*$", 64, FIELD)]


class Intent(StrEnum):
    """What the new version is meant to be."""

    EQUIVALENCE = "Equivalence"
    CHANGE = "Change"


class Format(StrEnum):
    """What the answers look like."""

    JSON = "JSON"
    OPEN_INFERENCE = "OpenInference"
    TF_SERVING = "TFServing"
    OPENAI_CHAT = "OpenAIChat"


class Exact(ApiModel):
    """Equal in every value."""

    ignore: Annotated[tuple[FieldName, ...], atomic(16)] = ()
    """ignore names fields that are left out of the comparison, however deep they are: a time, an id."""


class Numeric(ApiModel):
    """Equal but for rounding: numbers within a tolerance, everything else as it is."""

    rules = (
        Rule(
            "has(self.absolute) || has(self.relative)",
            "give an absolute, a relative, or both",
            lambda it: given(it.absolute, it.relative) > 0,
        ),
    )
    absolute: Decimal | None = None
    """absolute is the difference between two numbers that does not matter."""
    relative: Decimal | None = None
    """relative is the part of stable's number that does not matter; it is added to absolute."""


class LabelBy(StrEnum):
    """Where a label comes from."""

    VALUE = "Value"
    ARGMAX = "Argmax"


class Label(ApiModel):
    """The same class, whatever the scores."""

    rules = (
        Rule(
            "!has(self.threshold) || !has(self.by) || self.by == 'Value'",
            "a threshold makes a label of one score: leave by out, or leave threshold out",
            lambda it: it.threshold is None or it.by is not LabelBy.ARGMAX,
        ),
    )
    by: LabelBy = LabelBy.VALUE
    """by says what the label is: the Value itself (the default), or the Argmax of a vector of scores."""
    threshold: Decimal | None = None
    """threshold makes a label of a score: at least this, or below."""


class Probabilities(ApiModel):
    """The same distribution over the classes, within a distance."""

    rules = (
        Rule(
            "has(self.maxDifference) != has(self.jensenShannon)",
            "give exactly one of maxDifference and jensenShannon",
            lambda it: given(it.max_difference, it.jensen_shannon) == 1,
        ),
    )
    max_difference: Share | None = None
    """maxDifference is the largest difference of one probability that does not matter."""
    jensen_shannon: Share | None = None
    """jensenShannon is the largest Jensen-Shannon divergence, in bits (0 to 1), that does not matter."""


class Rank(ApiModel):
    """The same items on top."""

    rules = (
        Rule(
            "has(self.overlap) != has(self.rbo)",
            "give exactly one of overlap and rbo",
            lambda it: given(it.overlap, it.rbo) == 1,
        ),
        Rule(
            "!has(self.persistence) || has(self.rbo)",
            "persistence belongs to rbo: give rbo, or leave persistence out",
            lambda it: it.persistence is None or it.rbo is not None,
        ),
    )
    depth: Annotated[int, Field(ge=1, le=1000)] = 10
    """depth is how many items from the top are compared."""
    overlap: Share | None = None
    """overlap is the share of these items that must be the same, in any order."""
    rbo: Share | None = None
    """rbo is the least rank-biased overlap (Webber and others, 2010), which minds the top most."""
    persistence: Rate | None = None
    """persistence is how far down rbo looks; it defaults to 0.9: the first ten items have 86 % of the weight."""


class Embedding(ApiModel):
    """Vectors of the same direction."""

    cosine: Share
    """cosine is the least similarity."""


class TextComparison(StrEnum):
    """How texts are compared."""

    EXACT = "Exact"
    NORMALISED = "Normalised"


class TextAnswer(ApiModel):
    """The same words."""

    compare: TextComparison = TextComparison.EXACT
    """compare is Exact (the default) or Normalised: without regard to case, white space and Unicode's ways to write the same letter."""
    json_schema: Annotated[str, Field(min_length=2, max_length=16384)] | None = None
    """jsonSchema is a JSON Schema, as text. An answer that is not JSON of this schema is malformed; others are compared as the JSON that they hold."""


def _comparisons(output: Output) -> int:
    return given(
        output.exact,
        output.numeric,
        output.label,
        output.probabilities,
        output.rank,
        output.embedding,
        output.text,
    )


class Output(ApiModel):
    """One part of the answers, and what makes it the same in both."""

    rules = (
        Rule(
            "[has(self.exact), has(self.numeric), has(self.label), has(self.probabilities), has(self.rank), has(self.embedding), has(self.text)].filter(x, x).size() == 1",
            "give exactly one of exact, numeric, label, probabilities, rank, embedding and text",
            lambda it: _comparisons(it) == 1,
        ),
        Rule(
            "!has(self.path) || !has(self.tensor)",
            "give a path or a tensor, not both",
            lambda it: given(it.path, it.tensor) < 2,  # noqa: PLR2004
        ),
    )
    name: Annotated[str, matching(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", 63, OUTPUT_NAME)]
    """name of the output in the metrics, unique in the list."""
    path: JsonPath | None = None
    """path is where it is in the answer. Format JSON needs it; the other formats know where answers are."""
    tensor: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """tensor is the name of an output tensor of format OpenInference."""
    exact: Exact | None = None
    """exact compares for equality."""
    numeric: Numeric | None = None
    """numeric compares numbers within a tolerance."""
    label: Label | None = None
    """label compares classes."""
    probabilities: Probabilities | None = None
    """probabilities compares distributions over classes."""
    rank: Rank | None = None
    """rank compares ordered lists."""
    embedding: Embedding | None = None
    """embedding compares vectors by their direction."""
    text: TextAnswer | None = None
    """text compares words."""


class NoiseFloor(ApiModel):
    """How often stable answers the same request differently the second time."""

    share: Share = "0.5"
    """share of the requests that stable answers twice. Only these are evidence; each costs stable one more call."""


class Forced(ApiModel):
    """A field of the requests that is set before they are repeated."""

    field: FieldName
    """field at the top of the request's JSON object, for example temperature."""
    value: JsonText
    """value as JSON text, for example 0 or true."""


class Shadow(ApiModel):
    """The comparison of answers to mirrored requests."""

    rules = (
        Rule(
            "self.idempotent",
            "shadowing repeats users' requests against both versions: say idempotent: true if they have no side effects",
            lambda it: it.idempotent,
        ),
        Rule(
            "(has(self.format) && self.format != 'JSON') || (has(self.outputs) && self.outputs.all(o, has(o.path)))",
            "format JSON needs outputs, each with the path of what is compared",
            lambda it: (
                it.format is not Format.JSON
                or (it.outputs is not None and all(each.path for each in it.outputs))
            ),
        ),
        Rule(
            "(has(self.format) && self.format == 'OpenInference') || !has(self.outputs) || self.outputs.all(o, !has(o.tensor))",
            "a tensor belongs to format OpenInference: give a path",
            lambda it: (
                it.format is Format.OPEN_INFERENCE
                or not any(each.tensor for each in it.outputs or ())
            ),
        ),
        Rule(
            "!has(self.outputs) || self.outputs.all(o, self.outputs.exists_one(p, p.name == o.name))",
            "two outputs have the same name",
            lambda it: len({each.name for each in it.outputs or ()}) == len(it.outputs or ()),
        ),
    )
    intent: Intent
    """intent is Equivalence (a refactoring, a runtime, a quantisation: answers that differ more than stable differs from itself fail) or Change (a new model: agreement is shown, failures and malformed answers decide)."""
    idempotent: bool
    """idempotent must be true: users' requests are repeated against both versions, so they must have no side effects."""
    paths: Annotated[tuple[UrlPath, ...], atomic(16, at_least=1)]
    """paths are the beginnings of the URL paths that may be repeated, in whole segments: /v2/models has /v2/models/digits/infer in it. Requests to others are skipped."""
    methods: Annotated[tuple[Method, ...], atomic(8, at_least=1)] = ("POST",)
    """methods are the HTTP methods that may be repeated. It defaults to POST alone."""
    format: Format = Format.JSON
    """format says what the answers look like, and where in them is what is compared."""
    outputs: Annotated[tuple[Output, ...], keyed("name", 8, at_least=1)] | None = None
    """outputs are the parts of the answers that are compared. Formats other than JSON have defaults."""
    noise_floor: NoiseFloor = NoiseFloor()
    """noiseFloor is how stable is compared with itself, at the same time and for the same requests."""
    allow_headers: Annotated[tuple[HeaderName, ...], atomic(16)] = ()
    """allowHeaders are headers of users that are passed on beside those that describe the request. Without it no credential and no cookie is."""
    force: Annotated[tuple[Forced, ...], keyed("field", 8)] = ()
    """force sets fields of JSON requests for both versions, so that they differ only in themselves: a temperature, a seed."""
    max_requests_per_second: Annotated[int, Field(ge=1, le=10_000)] = 50
    """maxRequestsPerSecond is the most requests per second that are repeated; fewer are when the versions become slower by it."""
    timeout_seconds: Annotated[int, Field(ge=1, le=600)] = 10
    """timeoutSeconds is how long an answer may take."""
    max_body_bytes: Annotated[int, Field(ge=1024, le=16 * 1024 * 1024)] = 4 * 1024 * 1024
    """maxBodyBytes is the largest request and the largest answer; what is larger is counted as unpaired."""
    min_coverage: Share = "0.8"
    """minCoverage is the share of the requests taken in that must have been compared; below it nothing is concluded from the others."""
