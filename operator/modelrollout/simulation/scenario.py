"""
WORLD.yaml: what a simulated world is like.

A number is a number, a share lies between 0 and 1, and a field that nobody knows is refused: a
world that was misspelt must not be simulated as another one. Times of a world are seconds since
the ModelRollout was created.
"""

from __future__ import annotations

import math
from difflib import get_close_matches
from typing import Annotated, Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

Times = NDArray[np.float64]

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Share = Annotated[float, Field(strict=True, ge=0, le=1)]
Amount = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(strict=True, ge=0, le=1_000_000)]

NORMAL_P99: Final = 2.3263478740408408
"""The 99 % point of the standard normal distribution."""


class Piece(BaseModel):
    """A piece of a world. In YAML its fields are written in camelCase."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True
    )


# --- users ------------------------------------------------------------------------------------


class DailyWave(Piece):
    """Demand that swings: `mean` times 1 + `amplitude` sin(2 pi t / period)."""

    mean: Amount
    amplitude: Share
    period_seconds: Positive = 86_400.0

    def until(self, times: Times) -> Times:
        """Requests expected from time 0 to each time."""
        turn = 2 * math.pi / self.period_seconds
        swing = self.amplitude * (1 - np.cos(turn * times)) / turn
        expected: Times = self.mean * (times + swing)
        return expected


class Crowds(Piece):
    """Demand with crowds: each period ends with a while of `factor` times the usual demand."""

    mean: Amount
    """Over quiet and crowded times."""
    burst_every_seconds: Positive
    burst_seconds: Positive
    factor: Amount

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.burst_seconds > self.burst_every_seconds:
            raise ValueError("burstSeconds must not exceed burstEverySeconds")
        return self

    def until(self, times: Times) -> Times:
        """Requests expected from time 0 to each time."""
        period, crowded = self.burst_every_seconds, self.burst_seconds
        quiet = self.mean * period / (period + (self.factor - 1) * crowded)
        whole, rest = np.divmod(times, period)
        extra = np.maximum(rest - (period - crowded), 0.0)
        expected: Times = whole * self.mean * period + quiet * (rest + (self.factor - 1) * extra)
        return expected


class Demand(Piece):
    """Requests per second of all users: a number, or one of the two shapes."""

    constant: Amount | None = None
    daily_wave: DailyWave | None = None
    bursts: Crowds | None = None

    @model_validator(mode="before")
    @classmethod
    def _is_a_number(cls, given: Any) -> Any:
        return given if isinstance(given, dict | cls) else {"constant": given}

    @model_validator(mode="after")
    def _has_one_shape(self) -> Self:
        if sum(each is not None for each in (self.constant, self.daily_wave, self.bursts)) != 1:
            raise ValueError("give a number, dailyWave or bursts, and one of them only")
        return self

    def until(self, times: Times) -> Times:
        """Requests expected from time 0 to each time; negative for times before it."""
        shape = self.daily_wave or self.bursts
        if shape is not None:
            return shape.until(times)
        expected: Times = (self.constant or 0.0) * times
        return expected


class Drift(Piece):
    """Rates of both versions are multiplied by 1 + `share` sin(2 pi t / period)."""

    share: Share
    period_seconds: Positive

    def at(self, times: Times) -> Times:
        """What the rates are multiplied by."""
        factors: Times = 1 + self.share * np.sin(2 * math.pi * times / self.period_seconds)
        return factors


# --- versions ---------------------------------------------------------------------------------


class Latency(Piece):
    """Lognormal times to answer."""

    median_seconds: Positive
    p99_seconds: Positive

    @model_validator(mode="after")
    def _has_a_tail(self) -> Self:
        if self.p99_seconds <= self.median_seconds:
            raise ValueError("p99Seconds must exceed medianSeconds")
        return self


class TailShift(Piece):
    """A share of the answers that takes so much longer."""

    share: Share
    seconds: Amount


class Version(Piece):
    """How a version answers. What is left out is not there to be measured."""

    error_rate: Share | None = None
    latency: Latency | None = None
    tail_shift: TailShift = TailShift(share=0.0, seconds=0.0)
    accuracy: Share | None = None
    pods: Annotated[int, Field(strict=True, ge=1, le=100)] = 2
    pod_sd: Annotated[float, Field(strict=True, ge=0, le=3)] = 0.0
    """Of the logarithm of a pod's factor on the error rate; the factors' mean is 1."""
    warmup_requests: Count = 0
    """The first so many of a new pod are slow and fail more often; see traffic.WARMUP_FACTOR."""


class Figure(Piece):
    """What a version does in one guardrail; a number alone is a rate."""

    rate: Amount | None = None
    median: Positive | None = None
    p99: Positive | None = None
    mean: Amount | None = None
    sd: Positive | None = None

    @model_validator(mode="before")
    @classmethod
    def _is_a_number(cls, given: Any) -> Any:
        return given if isinstance(given, dict | cls) else {"rate": given}


class GuardrailWorld(Piece):
    """What one guardrail of the manifest finds, where the versions do not say it already."""

    stable: Figure | None = None
    candidate: Figure | None = None
    buckets: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=100)] | None = None
    value: Number | None = None


class Span(Piece):
    """From, to."""

    from_seconds: Number
    to_seconds: Number

    def holds(self, seconds: float) -> bool:
        """Whether a time is in it; its end is not."""
        return self.from_seconds <= seconds < self.to_seconds

    @model_validator(mode="after")
    def _ends_later(self) -> Self:
        if self.to_seconds <= self.from_seconds:
            raise ValueError("toSeconds must exceed fromSeconds")
        return self


# --- the world --------------------------------------------------------------------------------


class Scenario(Piece):
    """A whole WORLD.yaml."""

    requests_per_second: Demand
    users_until_seconds: Number = math.inf
    """When the last of them leaves."""
    stable: Version
    candidate: Version
    guardrails: dict[str, GuardrailWorld] = Field(default_factory=dict)
    base_rate_drift: Drift | None = None
    burst_mean: Annotated[float, Field(strict=True, ge=1, le=1000)] = 1.0
    """Mean events per cause; above 1 their number is geometric."""
    scrape_seconds: Annotated[float, Field(strict=True, ge=0.1, le=600)] = 5.0
    label_delay_seconds: Annotated[float, Field(strict=True, ge=0, le=2_592_000)] = 0.0
    """From an answer until it is known whether it was right."""
    gaps: tuple[Span, ...] = ()
    """Prometheus neither scrapes nor answers."""
    silences: tuple[Span, ...] = ()
    """Prometheus scrapes, and nobody can ask it."""
    propagation_seconds: Annotated[float, Field(strict=True, ge=0, le=600)] = 0.2
    """From a write of the route until its weights are in force and the gateway says so."""
    operator_crashes: Annotated[float, Field(strict=True, ge=0, le=0.9)] = 0.0
    """Chance that the operator dies right before, and again right after, each of its writes."""
    operator_crashes_from_seconds: Number = 0.0
    operator_restart_seconds: Positive = 5.0
    pod_restarts: Annotated[float, Field(strict=True, ge=0, le=3600)] = 0.0
    """Per pod and hour: another pod takes its place, with a name of its own and counters at 0."""

    def expected(self, times: Times) -> Times:
        """Requests expected from time 0 to each time."""
        return self.requests_per_second.until(np.minimum(times, self.users_until_seconds))

    def factors(self, times: Times) -> Times:
        """What both versions' rates are multiplied by at each time."""
        drift = self.base_rate_drift
        return np.ones_like(times) if drift is None else drift.at(times)


def scenario_of(given: Any) -> Scenario:
    """A world from what YAML has; ValueError is a sentence that names the field and the remedy."""
    if not isinstance(given, dict):
        raise ValueError("a world is a mapping: requestsPerSecond, stable, candidate and more")  # noqa: TRY004
    try:
        return Scenario.model_validate(given, by_alias=True, by_name=False)
    except ValidationError as invalid:
        raise ValueError(_sentence_of(invalid)) from invalid


_UNWRITTEN: Final = ("constant", "rate")
"""What a number alone stands for."""


def _sentence_of(invalid: ValidationError) -> str:
    """What is wrong first, and where."""
    first = invalid.errors()[0]
    path = tuple(first["loc"])
    where = ".".join(str(each) for each in path if each not in _UNWRITTEN)
    match first["type"]:
        case "extra_forbidden":
            return f"{where} is no field of a world: {_near(str(path[-1]), path[:-1])}"
        case "missing":
            return f"{where} is missing: give it a value"
        case "value_error":
            said = first["msg"].removeprefix("Value error, ")
            return f"{where}: {said}" if where else said
        case _:
            said = first["msg"].replace("Input should be", "must be")
            return f"{where}: {said}, not {first['input']!r}"


def _near(name: str, parents: tuple[Any, ...]) -> str:
    """The fields that there are, the likely one first."""
    known = _fields_at(parents)
    likely = get_close_matches(name, known, n=1)
    return f"did you mean {likely[0]}?" if likely else f"there are {', '.join(known)}"


def _fields_at(parents: tuple[Any, ...]) -> list[str]:
    """The fields of the piece at a place."""
    names = [each for each in parents if isinstance(each, str)]
    if names[:1] == ["guardrails"]:
        piece: type[Piece] = GuardrailWorld if len(names) == len(("guardrails", "name")) else Figure
    else:
        piece = _PIECES[names[-1]] if names else Scenario
    return [to_camel(each) for each in piece.model_fields]


_PIECES: Final[dict[str, type[Piece]]] = {
    "requestsPerSecond": Demand,
    "dailyWave": DailyWave,
    "bursts": Crowds,
    "stable": Version,
    "candidate": Version,
    "latency": Latency,
    "tailShift": TailShift,
    "baseRateDrift": Drift,
    "gaps": Span,
    "silences": Span,
}
