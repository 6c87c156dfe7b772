"""What the API's types are made of: forms of strings, kinds of lists, rules between fields."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel

GROUP = "modelrollout.dev"
VERSION = "v1alpha1"
KIND = "ModelRollout"
PLURAL = "modelrollouts"
API_VERSION = f"{GROUP}/{VERSION}"
FINALIZER = f"{GROUP}/traffic"
COMMAND = f"{GROUP}/command"
COMMAND_BY = f"{GROUP}/by"
NOTIFY = f"{GROUP}/notify"

DAY_SECONDS = 86_400
FULL_WEIGHT = 100


MOST_BYTES = 1024
"""Of a sentence, and of an Event's note."""


def shown(text: str, most_bytes: int = MOST_BYTES) -> str:
    """
    Text as people may see it: one line of bounded length that no terminal obeys.

    Sentences quote what users, pods and gateways say. Control characters, and those that turn
    the direction of writing, become spaces.
    """
    if not text.isprintable():
        text = "".join(each if each.isprintable() else " " for each in text)
    return text.encode(errors="replace")[:most_bytes].decode(errors="ignore")


SHOWN = PlainSerializer(partial(shown, most_bytes=MOST_BYTES), return_type=str)


def matching(pattern: str, max_length: int, message: str) -> Any:
    """A string of a form. The API server quotes the bare pattern; the message is for people."""
    rule = {"rule": f"self.matches(r'{pattern}')", "message": message}
    extra: dict[str, Any] = {"x-kubernetes-validations": [rule]}
    return Field(max_length=max_length, pattern=pattern, json_schema_extra=extra)


def atomic(at_most: int, *, at_least: int | None = None) -> Any:
    """A list that is replaced as a whole."""
    extra: dict[str, Any] = {"x-kubernetes-list-type": "atomic"}
    return Field(min_length=at_least, max_length=at_most, json_schema_extra=extra)


def keyed(key: str, at_most: int, *, at_least: int | None = None) -> Any:
    """A list whose items are told apart by one of their fields."""
    extra: dict[str, Any] = {
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": [key],
    }
    return Field(min_length=at_least, max_length=at_most, json_schema_extra=extra)


NAME = "a name is made of lower-case letters, digits, '-' and '.', and begins and ends with a letter or digit"
SERVICE_NAME = "a Service's name is made of lower-case letters, digits and '-', begins with a letter and ends with a letter or digit"
HOSTNAME = "a hostname is a DNS name in lower case, whose first label may be *"
GUARDRAIL_NAME = "a guardrail's name is made of lower-case letters, digits and '-', and begins and ends with a letter or digit"
METRIC_NAME = "a metric's name stands alone: matchers, functions and braces do not belong here"
LABEL_NAME = "a label's name is made of letters, digits and _, and does not begin with a digit"
CHECK_NAME = "a check's name is made of lower-case letters, digits and '-', and begins and ends with a letter or digit"
CHECK_PATH = "a path begins with / and has no spaces and no #: the check goes to the candidate's own Service, never to another host"
POINTER = "a JSON Pointer is empty or a list of parts that each begin with /, for example /outputs/0/datatype"
JSON_TEXT = "a value is written as JSON: 3, true, null, or text in quotes of its own, as in equals: '\"FP32\"'"
HEADER_NAME = "a header's or cookie's name is made of letters, digits and !#$%&*+.^_|~-"
HEADER_VALUE = "a header's or cookie's value is made of printable ASCII characters other than spaces, double quotes, commas, semicolons and backslashes"
DECIMAL = "a decimal number is written in digits and at most one point, for example 2 or 0.005"
DECIMAL_FORM = r"^(0|[1-9][0-9]*)(\.[0-9]+)?$"
RATE = "a rate is a decimal number above 0 and below 1, for example 0.01"

Name = Annotated[str, matching(r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", 253, NAME)]
ServiceName = Annotated[str, matching(r"^[a-z]([-a-z0-9]*[a-z0-9])?$", 63, SERVICE_NAME)]
Hostname = Annotated[
    str,
    matching(
        r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$", 253, HOSTNAME
    ),
]
Text = Annotated[str, Field(max_length=512)]
Sentence = Annotated[str, Field(max_length=1024), SHOWN]
MetricName = Annotated[str, matching(r"^[a-zA-Z_:][a-zA-Z0-9_:]*$", 200, METRIC_NAME)]
LabelName = Annotated[str, matching(r"^[a-zA-Z_][a-zA-Z0-9_]*$", 100, LABEL_NAME)]
Decimal = Annotated[str, matching(DECIMAL_FORM, 20, DECIMAL)]
Rate = Annotated[str, matching(r"^0\.[0-9]*[1-9][0-9]*$", 20, RATE)]
HeaderName = Annotated[str, matching(r"^[A-Za-z0-9!#$%&*+.^_|~-]+$", 100, HEADER_NAME)]
HeaderValue = Annotated[str, matching(r"^[!#-+\--:<-\[\]-~]+$", 200, HEADER_VALUE)]
JsonText = Annotated[
    str,
    matching(
        r'^(true|false|null|-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?|"([^"\\]|\\.)*"|(?s:\[.*\])|(?s:\{.*\}))$',
        512,
        JSON_TEXT,
    ),
]
Time = Annotated[str, Field(max_length=40, json_schema_extra={"format": "date-time"})]


@dataclass(frozen=True, slots=True)
class Rule:
    """A condition between fields: `cel` for the API server, `holds` for Python, one message."""

    cel: str
    message: str
    holds: Callable[[Any], bool]


class PlainModel(BaseModel):
    """A piece of the API. Unknown fields are ignored: an older operator reads newer objects."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        alias_generator=to_camel,
        populate_by_name=True,
    )

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, without what is unset."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class ApiModel(PlainModel):
    """A piece that people write, with rules between its fields."""

    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _obey_rules(self) -> Self:
        for rule in self.rules:
            if not rule.holds(self):
                raise ValueError(rule.message)
        return self


def sentence_of(invalid: ValidationError) -> str:
    """What is wrong with a spec first, and where."""
    first = invalid.errors()[0]
    where = ".".join(str(each) for each in first["loc"])
    return f"spec.{where}: {first['msg']}" if where else f"spec: {first['msg']}"


def given(*values: object) -> int:
    """How many of the values are set."""
    return sum(value is not None for value in values)
