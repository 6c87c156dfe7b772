"""
Checks of a candidate before any user meets it: one request to its own Service, one answer.

The address is that of the Service in the rollout's namespace and leads to its pods alone, redirects
are not followed, and nothing of ours goes along: a check cannot be pointed anywhere else. What the answer
says is compared here and never told: bodies do not enter status.
"""

from __future__ import annotations

import json
import re
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from modelrollout.api import v1alpha1 as api
from modelrollout.core.observation import CheckResult

MOST_BYTES = 1024 * 1024
"""Of an answer that is looked at."""
MISSING = object()
INDEX = re.compile(r"^(0|[1-9][0-9]*)\Z")


class HttpChecker:
    """Requests through the cluster's network."""

    def __init__(self, resolver: AbstractResolver) -> None:
        """`resolver` knows where SERVICE.NAMESPACE.svc is: see adapters/services.py."""
        self._resolver = resolver

    async def run(
        self, check: api.HttpCheck, namespace: str, service: str, port: int
    ) -> CheckResult:
        """Ask once. Every failure is a result with a sentence, never an exception."""
        host = f"{service}.{namespace}.svc"
        # The path goes out as it is written: nothing is resolved or quoted anew.
        url = URL(f"http://{host}:{port}{check.path}", encoded=True)
        timeout = aiohttp.ClientTimeout(total=check.timeout_seconds)
        headers = {"Content-Type": "application/json"} if check.body is not None else {}
        try:
            async with (
                self._session(timeout) as http,
                http.request(
                    check.method, url, data=check.body, headers=headers, allow_redirects=False
                ) as answer,
            ):
                body = await answer.content.read(MOST_BYTES + 1) if check.json_ else b""
                while check.json_ and len(body) <= MOST_BYTES and not answer.content.at_eof():
                    body += await answer.content.read(MOST_BYTES + 1 - len(body))
                return judged(check, answer.status, body)
        except TimeoutError:
            return CheckResult(passed=False, message=f"no answer in {check.timeout_seconds} s")
        except aiohttp.ClientConnectorDNSError as error:
            return CheckResult(passed=False, message=f"no answer: {error.os_error}")
        except (aiohttp.ClientConnectionError, OSError):
            return CheckResult(passed=False, message="no answer: the connection failed, or was cut")
        except (aiohttp.ClientError, ValueError):
            return CheckResult(passed=False, message="no answer that is HTTP")

    def _session(self, timeout: aiohttp.ClientTimeout) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(resolver=self._resolver)
        jar = aiohttp.DummyCookieJar()
        return aiohttp.ClientSession(connector=connector, timeout=timeout, cookie_jar=jar)


def judged(check: api.HttpCheck, status: int, body: bytes) -> CheckResult:
    """What an answer amounts to. The body stays here: only places and expectations are told."""
    if status != check.status:
        return CheckResult(passed=False, message=f"status {status}, not {check.status}")
    if not check.json_:
        return CheckResult(passed=True)
    if len(body) > MOST_BYTES:
        return CheckResult(passed=False, message=f"the answer has more than {MOST_BYTES} bytes")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return CheckResult(passed=False, message="the answer is not JSON")
    try:
        unmet = next(filter(None, (_unmet(each, document) for each in check.json_)), None)
    except RecursionError:
        return CheckResult(passed=False, message="the answer is nested too deeply")
    return CheckResult(passed=unmet is None, message=unmet or "")


def _unmet(expectation: api.Expectation, document: Any) -> str | None:
    place = expectation.pointer or "the whole answer"
    try:
        expected = json.loads(expectation.equals)
    except ValueError:
        return f"equals of {place} is not JSON: text needs quotes of its own"
    found = _at(document, expectation.pointer)
    if found is MISSING:
        return f"the answer has no {place}"
    return None if _is_same(found, expected) else f"{place} is not {expectation.equals}"


def _is_same(one: Any, other: Any) -> bool:
    """JSON knows one kind of number, and true is none."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_is_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_is_same, one, other))
    return bool(one == other)


def _at(document: Any, pointer: str) -> Any:
    """What a JSON Pointer points at (RFC 6901); MISSING where there is nothing."""
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(document, dict) and key in document:
            document = document[key]
        elif isinstance(document, list) and INDEX.match(key) and int(key) < len(document):
            document = document[int(key)]
        else:
            return MISSING
    return document
