"""
Prometheus: raw samples in, windows of counts out. Everything that goes wrong is MetricsUnavailable.

The only file that knows prometheus_api_client. It never guesses: a warning, a partial answer, a
redirect or an answer that is too long is an error, and nothing is asked twice in one pass.
"""

from __future__ import annotations

import asyncio
import io
import json
import math
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
from prometheus_api_client import PrometheusApiClientException, PrometheusConnect
from urllib3 import HTTPResponse
from urllib3.exceptions import HTTPError, ReadTimeoutError
from urllib3.util.retry import Retry

from modelrollout import telemetry
from modelrollout.core import native, windows
from modelrollout.core.evidence import (
    Grid,
    Histogram,
    Kind,
    Matcher,
    Query,
    Reading,
    Selector,
    Series,
)
from modelrollout.core.native import Edges, NativeHistogram, Scrape
from modelrollout.core.together import Together, together
from modelrollout.errors import MetricsUnavailable

MAX_SPAN_SECONDS = 900.0
"""Read at most this much beyond the look-back in one pass; who is far behind takes several."""
NATIVE_SPAN_SECONDS = 180.0
"""The same for a native histogram, or one that may be: each of its samples is all its buckets."""
MEMORY_SECONDS = 1800.0
"""A series that was absent for longer than this was forgotten by its program, too."""
MAX_BYTES = 24 * 2**20
LARGE_BYTES = 2**19
"""Parsed, an answer takes eleven times as much: only one at a time may be longer than this."""
MAX_THREADS = 8
MAX_EXPRESSION_THREADS = 4
"""What a free expression costs is not known: those have threads of their own."""
PATIENCE = 4
"""How long one question may take in all, its wait for a thread included, in timeouts."""
CHUNK_BYTES = 2**16

METRIC_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
GATEWAY_CLUSTER = "envoy_cluster_name"
"""By this label versions are told apart in the gateway's own metrics, whose namespace is another."""
READS_BEYOND = frozenset({"info"})
"""Functions of PromQL that read series which no selector in the expression names."""

NOT_PROMETHEUS = (
    *(ValueError, LookupError, TypeError, AttributeError),
    *(OverflowError, RecursionError),
)
"""What comes of an answer that is made in another way."""

Result = TypeVar("Result")


class Prometheus:
    """One Prometheus, or anything that speaks its query API; made from the administrator's settings."""

    def __init__(  # noqa: PLR0913  # as many as a provider has settings
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        parameters: Mapping[str, str] | None = None,
        gateway_labels: Mapping[str, str] | None = None,
        bearer_token_file: str | None = None,
        ca_file: str | None = None,
        timeout_seconds: float = 5.0,
    ) -> None:
        address = urlsplit(url)
        if address.scheme not in {"http", "https"} or not address.hostname:
            # It may hold a password, so it is not quoted.
            raise ValueError("The address of Prometheus must be an http or https URL with a host.")
        self._url = url.rstrip("/")
        self._host = address.hostname
        self._timeout = timeout_seconds
        self._gateway = tuple(
            Matcher(label=label, value=value) for label, value in (gateway_labels or {}).items()
        )
        self._session = _session(headers or {}, bearer_token_file, ca_file)
        self._session.params = dict(parameters or {})
        self._session.hooks["response"].append(self._checked)
        # The next pass is the retry. Without read=False a time-out looks like a refused connection.
        no_retry = Retry(0, read=False)
        self._connection = PrometheusConnect(
            self._url, session=self._session, timeout=timeout_seconds, retry=no_retry
        )
        # Of the histograms that were found: whether as a native one. Whoever starts without this
        # asks for the classic one first, and finds out.
        self._is_native: dict[str, bool] = {}
        # A hanging server holds these threads, and nobody else's.
        self._threads = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="prometheus")
        self._for_expressions = ThreadPoolExecutor(
            MAX_EXPRESSION_THREADS, thread_name_prefix="expressions"
        )

    def close(self) -> None:
        """Let go of the connections; what is still under way is left to its timeout."""
        for each in (self._threads, self._for_expressions):
            each.shutdown(wait=False, cancel_futures=True)
        self._session.close()

    async def read(self, query: Query, grid: Grid, now: float) -> Reading:
        """The windows of the grid since its watermark, as of `now` (Unix seconds)."""
        asked = self._of_gateway(query)
        return await self._in_thread(lambda: self._read(asked, grid, now))

    async def histogram(self, query: Query, start: float, end: float) -> Histogram:
        """What stable's histogram grew by from `start` to `end` (at most 15 minutes before)."""
        start = max(start, end - MAX_SPAN_SECONDS)
        # From before the start on: whether the histogram exists must not depend on the span.
        since = start - windows.LOOKBACK_SECONDS
        if end <= start:
            return Histogram(bounds=(), cumulative=())
        asked = self._of_gateway(query)
        return await self._in_thread(lambda: self._histogram(asked, since, start, end))

    async def value(self, expression: str, namespace: str, now: float) -> float | None:
        """The one number that a PromQL expression gives within a namespace; None for no series."""
        ask = partial(self._value, expression, namespace, now)
        return await self._in_thread(ask, self._for_expressions)

    async def values(
        self, selector: Selector, label: str, start: float, end: float
    ) -> frozenset[str]:
        """The values of a label that a selector's series had in a span; empty for those without."""
        return await self._in_thread(lambda: self._values(selector, label, start, end))

    def _of_gateway(self, query: Query) -> Query:
        """The clusters of a route are the gateway's to tell of, and no pod's that says it is one."""
        stable, candidate = (
            (*each, *self._gateway) if any(m.label == GATEWAY_CLUSTER for m in each) else each
            for each in (query.stable, query.candidate)
        )
        return replace(query, stable=stable, candidate=candidate)

    async def _in_thread(
        self, ask: Callable[[], Result], threads: ThreadPoolExecutor | None = None
    ) -> Result:
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(threads or self._threads, ROOM.left_after, ask)
        try:
            return await asyncio.wait_for(future, PATIENCE * self._timeout)
        except TimeoutError as error:
            raise self._unavailable(f"took longer than {PATIENCE * self._timeout:g} s") from error

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """A library's exceptions become ours, without what they tell of the address."""
        try:
            yield
        except (requests.Timeout, ReadTimeoutError, TimeoutError) as error:
            raise self._unavailable(f"did not answer within {self._timeout:g} s") from error
        except requests.exceptions.SSLError as error:
            raise self._unavailable("shows a certificate that is not trusted") from error
        except NOT_PROMETHEUS as error:
            raise self._unavailable("gave an answer that is not Prometheus'") from error
        except (requests.RequestException, HTTPError, HTTPException, OSError) as error:
            raise self._unavailable("cannot be reached") from error
        except PrometheusApiClientException as error:
            raise self._unavailable("refused the query") from error

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """One question, among the operator's own calls."""
        try:
            with self._translated():
                yield
        except MetricsUnavailable:
            telemetry.called(telemetry.PROMETHEUS, failed=True)
            raise
        telemetry.called(telemetry.PROMETHEUS)

    def _unavailable(self, what: str) -> MetricsUnavailable:
        return MetricsUnavailable(f"Prometheus at {self._host} {what}.")

    def _histogram(self, query: Query, since: float, start: float, end: float) -> Histogram:
        selector = _versioned(query.events, query.stable)
        answer = self._buckets(selector, None, _Span(since, end), end - windows.LOOKBACK_SECONDS)
        found = windows.histogram(query.events.metric, answer.series, start)
        if found.bounds == (math.inf,) and found.cumulative[0]:
            raise MetricsUnavailable(
                f"The histogram {query.events.metric} has no bucket but +Inf: if the program has it"
                " as a native one only, let Prometheus scrape that (scrape_native_histograms)."
            )
        return found

    def _values(self, selector: Selector, label: str, start: float, end: float) -> frozenset[str]:
        seen = f"last_over_time({_range(selector, start, end)})"
        found = self._query(f"group by ({label}) ({seen})", end)
        with self._translated():
            return frozenset(each["metric"].get(label, "") for each in found)

    # --- windows ----------------------------------------------------------------------------

    def _read(self, query: Query, grid: Grid, now: float) -> Reading:
        until = min(now, grid.watermark + max(self._span_seconds(query), 2 * grid.width))
        since = grid.watermark - windows.lookback_seconds(grid)
        if until <= since:
            return Reading(watermark=grid.watermark)
        # One after the other: `snapshot` needs to know which answer is the older one.
        selectors = _selected(query)
        span = self._span(query, selectors, since, until)
        asked = {  # stable against itself is one question
            each: self._answer(query, grid, each, span) for each in dict.fromkeys(selectors)
        }
        found = [asked[each] for each in selectors]
        answers = windows.snapshot(*(each.series for each in found))
        before = [
            self._before(query, each, since) if windows.has_newcomers(grid, answer) else ()
            for each, answer in zip(found, answers, strict=True)
        ]
        stable, candidate = (
            windows.Found(
                total=answers[index] if query.total else (),
                events=answers[index - 2],
                total_before=before[index] if query.total else (),
                events_before=before[index - 2],
            )
            for index in (0, 1)
        )
        samples = windows.Samples(stable=stable, candidate=candidate, until=until)
        if windows.has_unheard_of_events(query, samples):
            is_known = self._is_known(query, since, until) or self._is_declared(query, samples)
            samples = replace(samples, is_events_metric_known=is_known)
        reading = windows.read(query, grid, samples, now)
        if refusal := _unreadable(query, found, until - windows.lookback_seconds(grid)):
            # What the other targets said meanwhile is given up, too.
            return Reading(watermark=reading.watermark, blind=refusal)
        return reading

    def _span_seconds(self, query: Query) -> float:
        may_be_native = self._is_native.get(query.events.metric, True)
        is_long = query.kind is Kind.DISTRIBUTION and may_be_native
        return NATIVE_SPAN_SECONDS if is_long else MAX_SPAN_SECONDS

    def _span(
        self, query: Query, selectors: Iterable[Selector], since: float, until: float
    ) -> _Span:
        """With the samples of all that can be asked for in one question."""
        is_distribution = query.kind is Kind.DISTRIBUTION
        is_native = self._is_native.get(query.events.metric, False)
        wanted = dict.fromkeys(
            _of_buckets(each) if is_distribution and not is_native else each for each in selectors
        )
        known: dict[Selector, list[Any]] = {}
        for each in together([*wanted]):
            expression = _promql_of(each.metrics, each.matchers)
            try:
                found = self._query(f"{expression}[{_milliseconds(until - since)}]", until)
            except AnswerTooLong:
                # Each by itself may be short enough.
                continue
            with self._translated():
                known |= _told_apart(found, each)
        return _Span(since, until, known)

    def _answer(self, query: Query, grid: Grid, selector: Selector, span: _Span) -> _Answer:
        if query.kind is Kind.DISTRIBUTION:
            silence = span.until - windows.lookback_seconds(grid)
            return self._buckets(selector, query.thresholds, span, silence)
        return _Answer(selector=selector, series=self._series(selector, span))

    def _before(self, query: Query, answer: _Answer, since: float) -> tuple[Series, ...]:
        """The last sample of each series in the time before the samples."""
        selector = answer.selector
        if query.kind is Kind.DISTRIBUTION and not answer.native:
            selector = _versioned(selector, (Matcher(label="le", value="+Inf"),))
        expression = f"last_over_time({_promql(selector)}[{_milliseconds(MEMORY_SECONDS)}])"
        found = self._query(expression, since)
        with self._translated():
            if answer.native:
                return native.classic(_native(found), bounds=())
            return tuple(_parsed(each["metric"], [each["value"]]) for each in found)

    def _is_known(self, query: Query, since: float, until: float) -> bool:
        """Whether the events' metric exists on a version, with whatever other labels."""
        span = _milliseconds(until - since)
        return any(
            self._query(f"group(last_over_time({_promql(selector)}[{span}]))", until)
            for version in (query.stable, query.candidate)
            for selector in [Selector(metric=query.events.metric, matchers=version)]
        )

    def _is_declared(self, query: Query, samples: windows.Samples) -> bool:
        """Whether a program that counts the requests declares the events' metric, with no value yet."""
        found = (*samples.stable.total[:1], *samples.candidate.total[:1])
        # OpenMetrics declares a counter without its suffix.
        names = (query.events.metric, query.events.metric.removesuffix("_total"))
        return any(
            self._has_metadata(target, name)
            for target in [dict(each.labels) for each in found]
            for name in names
        )

    def _has_metadata(self, target: Mapping[str, str], metric: str) -> bool:
        labels = ",".join(f"{each}={quoted(target.get(each, ''))}" for each in ("instance", "job"))
        try:
            return bool(
                self._get("targets/metadata", {"match_target": f"{{{labels}}}", "metric": metric})
            )
        except MetricsUnavailable:
            # Not every store has this, and some say 404 for none. What is not proved is not known.
            return False

    def _samples(self, selector: Selector, span: _Span) -> list[Any]:
        if selector in span.known:
            return span.known[selector]
        return self._query(_range(selector, span.since, span.until), span.until)

    def _series(self, selector: Selector, span: _Span) -> tuple[Series, ...]:
        found = self._samples(selector, span)
        with self._translated():
            if any("histograms" in each for each in found):
                raise MetricsUnavailable(
                    f"{selector.metric} is a native histogram, which has no single value: compare"
                    " it as a distribution, or name a counter."
                )
            return tuple(_parsed(each["metric"], each["values"]) for each in found)

    # --- histograms -------------------------------------------------------------------------

    def _buckets(
        self,
        histogram: Selector,
        bounds: Sequence[float] | None,
        span: _Span,
        silence: float,
    ) -> _Answer:
        """
        The buckets of a histogram; of a native one at these bounds, or at all that it offers.

        A histogram that is stored in both forms is read in its classic one. Which one there is is
        found out once: the other one is asked for when that gave nothing after `silence`.
        """
        is_native = self._is_native.get(histogram.metric, False)
        answer = self._in_form(histogram, bounds, span, is_native=is_native)
        if answer.newest <= silence:
            other = self._in_form(histogram, bounds, span, is_native=not is_native)
            answer = max(answer, other, key=lambda each: each.newest)
        if answer.series or answer.native:
            self._is_native[histogram.metric] = bool(answer.native)
        return answer

    def _in_form(
        self,
        histogram: Selector,
        bounds: Sequence[float] | None,
        span: _Span,
        *,
        is_native: bool,
    ) -> _Answer:
        if not is_native:
            buckets = _of_buckets(histogram)
            return _Answer(selector=buckets, series=self._series(buckets, span))
        found = self._samples(histogram, span)
        with self._translated():
            histograms = _native(found)
            wanted = native.offered_bounds(histograms) if bounds is None else bounds
            series = native.classic(histograms, wanted)
        return _Answer(selector=histogram, series=series, native=histograms)

    # --- one number -------------------------------------------------------------------------

    def _value(self, expression: str, namespace: str, now: float) -> float | None:
        self._refuse_what_is_not_scoped(expression, namespace)
        found = self._query(expression, now)
        if not found:
            return None
        if isinstance(found[0], dict) and len(found) > 1:
            raise MetricsUnavailable(
                f"The expression {expression} gives {len(found)} series: aggregate them to one, as"
                " with sum() or max()."
            )
        with self._translated():
            # A vector of one sample, or a scalar.
            _, text = found[0]["value"] if isinstance(found[0], dict) else found
            number = float(text)
        if not math.isfinite(number):
            raise MetricsUnavailable(
                f"The expression {expression} gives {number}, which cannot be compared with a limit."
            )
        return number

    def _refuse_what_is_not_scoped(self, expression: str, namespace: str) -> None:
        """Prometheus' own parser says which series an expression touches."""
        tree = self._get("parse_query", {"query": expression})
        for function in READS_BEYOND.intersection(_functions(tree)):
            raise MetricsUnavailable(
                f"{function}() in the expression {expression} reads series of all namespaces:"
                " leave it out."
            )
        wanted = {"name": "namespace", "type": "=", "value": namespace}
        for selector in _selectors(tree):
            if wanted not in selector["matchers"]:
                name = selector.get("name") or "a selector without a name"
                raise MetricsUnavailable(
                    f"{name} in the expression {expression} is not limited to this namespace: add"
                    f' namespace="{namespace}" to each selector in it.'
                )

    # --- HTTP -------------------------------------------------------------------------------

    def _get(self, path: str, parameters: Mapping[str, str]) -> Any:
        """What the client library has no method for."""
        with self._counted():
            url = f"{self._url}/api/v1/{path}"
            answer = self._session.get(url, params=parameters, timeout=self._timeout)
            return answer.json()["data"]

    def _query(self, expression: str, at: float) -> list[Any]:
        limits = {"time": f"{at:.3f}", "timeout": f"{self._timeout:g}s"}
        with self._counted():
            result = self._connection.custom_query(expression, params=limits)
            if not isinstance(result, list):
                raise TypeError(result)
            return result

    def _checked(self, response: requests.Response, **_: object) -> requests.Response:
        """Called with each response before anybody reads it."""
        try:
            if response.is_redirect:
                raise self._unavailable("redirects, which is not followed: give its final address")
            body = self._body(response)
        finally:
            response.close()
        if response.status_code != requests.codes.ok:
            raise self._unavailable(_refusal(response, body))
        # To parse a long answer twice is not free, and the key cannot be there without its name.
        if b'"warnings"' in body and (warnings := json.loads(body).get("warnings")):
            raise self._unavailable(f"gave an answer with warnings: {_printable(str(warnings[0]))}")
        response.raw = HTTPResponse(body=io.BytesIO(body), preload_content=False)
        return response

    def _body(self, response: requests.Response) -> bytes:
        """All of it, or an error: `requests` alone limits neither length nor total time."""
        body = bytearray()
        deadline = time.monotonic() + self._timeout
        while chunk := response.raw.read1(CHUNK_BYTES, decode_content=True):
            body += chunk
            if len(body) > MAX_BYTES:
                raise AnswerTooLong(
                    f"Prometheus at {self._host} gave more than {MAX_BYTES >> 20} MiB: narrow the"
                    " selectors."
                )
            if time.monotonic() > deadline:
                raise TimeoutError
            if len(body) > LARGE_BYTES:
                ROOM.enter(deadline - time.monotonic())
        return bytes(body)


class AnswerTooLong(MetricsUnavailable):
    """More than is read of one answer."""


class Room:
    """For one large answer in the whole process: its thread has it until it has done with it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._here = threading.local()

    def enter(self, patience_seconds: float) -> None:
        """Wait for it, or TimeoutError; who is in already stays."""
        if getattr(self._here, "is_in", False):
            return
        if not self._lock.acquire(timeout=max(0, patience_seconds)):
            raise TimeoutError
        self._here.is_in = True

    def left_after(self, ask: Callable[[], Result]) -> Result:
        """Do something, and leave if that had to enter."""
        try:
            return ask()
        finally:
            if getattr(self._here, "is_in", False):
                self._here.is_in = False
                self._lock.release()


ROOM = Room()


@dataclass(frozen=True, slots=True)
class _Span:
    """The time of a question, Unix seconds, and the samples in it that are known already."""

    since: float
    until: float
    known: Mapping[Selector, list[Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """What was found for a selector."""

    selector: Selector
    """As it was asked for."""
    series: tuple[Series, ...]
    native: tuple[NativeHistogram, ...] = ()
    """What the series were made from, if it was not given as series."""

    @property
    def newest(self) -> float:
        """The time of the last scrape; minus infinity where nothing was found."""
        ends = [each.scrapes[-1].time for each in self.native]
        return max(ends or [each.times[-1] for each in self.series], default=-math.inf)


def _session(
    headers: Mapping[str, str], bearer_token_file: str | None, ca_file: str | None
) -> requests.Session:
    session = requests.Session()
    # Neither a proxy nor a .netrc of the environment has a say in where credentials go.
    session.trust_env = False
    session.verify = ca_file or True
    session.headers.update(headers)
    if bearer_token_file is not None:
        session.auth = _BearerToken(Path(bearer_token_file))
    return session


class _BearerToken(requests.auth.AuthBase):
    """Reads the token for each request: Kubernetes replaces it in the file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        try:
            token = self._path.read_text().strip()
        except OSError as error:
            raise MetricsUnavailable(f"The token file {self._path} cannot be read.") from error
        request.headers["Authorization"] = f"Bearer {token}"
        return request


def _refusal(response: requests.Response, body: bytes) -> str:
    """What an error answer says, if it is Prometheus' own about the query."""
    # VictoriaMetrics says 400 where others say 404.
    if response.status_code == requests.codes.not_found or b"unsupported path" in body:
        path = urlsplit(response.url).path
        return f"does not know {path}: check its address (limits need Prometheus 3 or later)"
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or answer.get("errorType") not in {"bad_data", "execution"}:
        return f"answered with status {response.status_code}"
    return f"refused the query: {_printable(str(answer.get('error', '')))}"


def _printable(text: str) -> str:
    return "".join(each if each.isprintable() else " " for each in text[:200])


def _parsed(metric: Mapping[str, str], values: Sequence[Sequence[Any]]) -> Series:
    times, numbers = zip(*values, strict=True)
    return Series(
        labels=_labels(metric), times=tuple(map(float, times)), values=tuple(map(float, numbers))
    )


def _labels(metric: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((label, value) for label, value in metric.items() if label != "__name__"))


def _native(found: Iterable[Mapping[str, Any]]) -> tuple[NativeHistogram, ...]:
    """The native histograms in an answer, of one scrape each or of several; numbers are left out."""
    points = [
        (each["metric"], each.get("histograms") or [each["histogram"]])
        for each in found
        if "histograms" in each or "histogram" in each
    ]
    edges = _ParsedEdges()
    return tuple(
        NativeHistogram(
            labels=_labels(metric),
            scrapes=tuple(_scrape(time, value, edges) for time, value in scrapes),
        )
        for metric, scrapes in points
    )


def _scrape(time: float, value: Mapping[str, Any], edges: _ParsedEdges) -> Scrape:
    buckets = value.get("buckets", ())
    counts = {edges[lower, upper]: float(n) for _, lower, upper, n in buckets}
    return Scrape(float(time), float(value["count"]), counts)


class _ParsedEdges(dict[tuple[str, str], Edges]):
    """The same few in every scrape, so they are parsed once."""

    def __missing__(self, key: tuple[str, str]) -> Edges:
        lower, upper = key
        self[key] = parsed = float(lower), float(upper)
        return parsed


def _unreadable(query: Query, answers: Sequence[_Answer], since: float) -> str:
    """Why the stable's or the candidate's native histogram cannot be read; empty if both can."""
    sentences = (
        native.unreadable(
            answer.native, query.thresholds, since, f"the {version}'s {query.events.metric}"
        )
        for version, answer in zip(("stable", "candidate"), answers, strict=False)
    )
    return next(filter(None, sentences), "")


def _selectors(node: object) -> Iterator[Mapping[str, Any]]:
    """Everything in a syntax tree that selects series; only selectors have matchers."""
    if isinstance(node, dict):
        if "matchers" in node:
            yield node
        node = list(node.values())
    if isinstance(node, list):
        for each in node:
            yield from _selectors(each)


def _functions(node: object) -> Iterator[str]:
    """The names of the functions that a syntax tree calls."""
    if isinstance(node, dict):
        if node.get("type") == "call":
            yield node["func"]["name"]
        node = list(node.values())
    if isinstance(node, list):
        for each in node:
            yield from _functions(each)


# --- PromQL -------------------------------------------------------------------------------------


def _selected(query: Query) -> list[Selector]:
    """The total, if the query has one, then the events: each of stable, then of the candidate."""
    return [
        _versioned(each, version)
        for each in (query.total, query.events)
        if each is not None
        for version in (query.stable, query.candidate)
    ]


def _versioned(selector: Selector, version: tuple[Matcher, ...]) -> Selector:
    return Selector(metric=selector.metric, matchers=(*selector.matchers, *version))


def _range(selector: Selector, since: float, until: float) -> str:
    """The raw samples from `since` on, when it is asked at `until`."""
    return f"{_promql(selector)}[{_milliseconds(until - since)}]"


def _milliseconds(seconds: float) -> str:
    return f"{math.ceil(seconds * 1000)}ms"


def _promql(selector: Selector) -> str:
    return _promql_of((selector.metric,), selector.matchers)


def _promql_of(metrics: Sequence[str], matchers: Sequence[Matcher]) -> str:
    for each in metrics:
        if not METRIC_NAME.fullmatch(each):
            raise MetricsUnavailable(f'"{_printable(each)}" is not the name of a metric.')
    conditions = [_matcher(each) for each in matchers]
    if len(metrics) == 1:
        return metrics[0] + "{" + ",".join(conditions) + "}"
    names = f'__name__=~"{"|".join(metrics)}"'
    return "{" + ",".join([names, *conditions]) + "}"


def _told_apart(found: Sequence[Any], together: Together) -> dict[Selector, list[Any]]:
    """The series of each selector; TypeError where there is one that nobody asked for."""
    known: dict[Selector, list[Any]] = {each: [] for each in together.rests}
    for series in found:
        owners = [each for each in known if together.is_of(each, series["metric"])]
        if not owners and together.is_exact:
            raise TypeError("a series that nobody asked for")
        for each in owners:
            known[each].append(series)
    return known


def _of_buckets(histogram: Selector) -> Selector:
    """As a classic histogram has them."""
    return replace(histogram, metric=f"{histogram.metric}_bucket")


def _matcher(matcher: Matcher) -> str:
    if not LABEL_NAME.fullmatch(matcher.label) or matcher.label == "__name__":
        raise MetricsUnavailable(f'"{_printable(matcher.label)}" is not the name of a label.')
    return f"{matcher.label}{matcher.operator}{quoted(matcher.value)}"


def quoted(value: str) -> str:
    """
    A PromQL string that means exactly this text.

    All but plain ASCII is escaped: the lexer takes neither line breaks nor U+FFFD as they are.
    """
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise MetricsUnavailable("A label's value is not valid text: half a character.") from error
    return '"' + "".join(_escaped(each) for each in value) + '"'


def _escaped(character: str) -> str:
    if character in {'"', "\\"}:
        return "\\" + character
    is_plain = character.isascii() and character.isprintable()
    return character if is_plain else f"\\U{ord(character):08x}"
