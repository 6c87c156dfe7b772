"""One call of one version: an answer, or why there is none."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Final, Self

from aiohttp import (
    ClientError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    TCPConnector,
)
from yarl import URL

from modelrollout.shadow.metrics import Loss
from modelrollout.shadow.requests import Request
from modelrollout.shadow.throttle import Hold

IDLE_SECONDS: Final = 2.0
"""Model servers close idle connections after 5 s; a call that meets the closing would be lost."""
OVERLOADED: Final = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a version answered."""

    body: bytes
    content_type: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NoAnswer:
    """That a version did not answer, or that it refused."""

    loss: Loss
    status: int | None = None

    @property
    def is_overload(self) -> bool:
        """Whether it says that the version has too much to do."""
        return self.loss is Loss.TIMEOUT or self.status in OVERLOADED


class Caller:
    """Calls to both versions, over connections that are kept for the next ones."""

    def __init__(self, *, timeout_seconds: float, max_body_bytes: int) -> None:
        self._timeout_seconds = timeout_seconds
        self._max_body_bytes = max_body_bytes
        self._session = ClientSession(
            connector=TCPConnector(limit=0, keepalive_timeout=IDLE_SECONDS),
            cookie_jar=DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            timeout=ClientTimeout(total=None),
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._session.close()

    async def call(self, base: str, request: Request, hold: Hold) -> Answer | NoAnswer:
        """
        Repeat a request. Its Host is the Service's, as the gateway's copy has another.

        No redirect is followed: it would carry the body to wherever it leads.
        """
        began = time.monotonic()
        try:
            async with (
                asyncio.timeout(self._timeout_seconds),
                self._session.request(
                    request.method,
                    # As it was written: nothing is decoded and encoded again.
                    URL(base + request.path, encoded=True),
                    headers=request.headers,
                    data=request.body,
                    allow_redirects=False,
                ) as response,
            ):
                return await self._answer(response, began, hold)
        except TimeoutError:
            return NoAnswer(loss=Loss.TIMEOUT)
        except (ClientError, OSError):
            return NoAnswer(loss=Loss.CONNECTION)

    async def _answer(
        self, response: ClientResponse, began: float, hold: Hold
    ) -> Answer | NoAnswer:
        loss = _loss_of(response.status)
        if loss is not None:
            return NoAnswer(loss=loss, status=response.status)
        body = await self._body(response, hold)
        if isinstance(body, Loss):
            return NoAnswer(loss=body)
        return Answer(
            body=body,
            content_type=response.headers.get("Content-Type", ""),
            seconds=time.monotonic() - began,
        )

    async def _body(self, response: ClientResponse, hold: Hold) -> bytes | Loss:
        """The whole body, a stream's too."""
        body = bytearray()
        async for chunk in response.content.iter_any():
            if len(body) + len(chunk) > self._max_body_bytes:
                return Loss.TOO_LARGE
            if not hold.take(len(chunk)):
                return Loss.MEMORY
            body += chunk
        return bytes(body)


def _loss_of(status: int) -> Loss | None:
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return None
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Loss.STATUS_5XX
    return Loss.STATUS_4XX if status >= HTTPStatus.BAD_REQUEST else Loss.STATUS_3XX
