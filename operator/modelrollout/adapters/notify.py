"""
Web hooks: each decision as a CloudEvent 1.0 (structured mode, JSON), outside of the passes.

A pass hands a record over and goes on. Each web hook has a queue and a task of its own, so that
one that hangs delays nobody, the others neither. Order is kept. What cannot be delivered is
dropped, counted and logged: the audit trail has it all the same.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from pathlib import Path

import aiohttp

from modelrollout import telemetry
from modelrollout.api import v1alpha1 as api
from modelrollout.core.audit import Json, Record
from modelrollout.settings import Webhook

LOG = logging.getLogger(__name__)
CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"
QUEUE_LENGTH = 1000
PAUSES_SECONDS = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
"""Between the attempts at one record: given up after two minutes, while the others wait."""
CLOSE_SECONDS = 5.0
WORTH_ANOTHER_TRY = frozenset({408, 425, 429})
"""Of the refusals; errors of the server are, too."""


class Notifier:
    """One web hook."""

    def __init__(
        self,
        name: str,
        webhook: Webhook,
        *,
        pauses: tuple[float, ...] = PAUSES_SECONDS,
        queue_length: int = QUEUE_LENGTH,
    ) -> None:
        self._name = name
        self._webhook = webhook
        self._pauses = pauses
        self._queue: asyncio.Queue[Record] = asyncio.Queue(queue_length)
        self._task: asyncio.Task[None] | None = None

    def tell(self, record: Record) -> None:
        """Take it for later; a full queue drops it."""
        if self._task is None:
            self._task = asyncio.create_task(self._deliver_all(), name=f"webhook {self._name}")
        try:
            self._queue.put_nowait(record)
        except asyncio.QueueFull:
            self._count("dropped", record, f"{self._queue.maxsize} others wait already")

    async def close(self, patience_seconds: float = CLOSE_SECONDS) -> None:
        """Deliver what there is while patience lasts; the rest is dropped."""
        if self._task is None:
            return
        done = asyncio.create_task(self._queue.join())
        await asyncio.wait({done}, timeout=patience_seconds)
        self._task.cancel()
        done.cancel()
        await asyncio.gather(self._task, done, return_exceptions=True)
        while not self._queue.empty():
            self._count("dropped", self._queue.get_nowait(), "the operator ends")

    async def _deliver_all(self) -> None:
        while True:
            record = await self._queue.get()
            try:
                await self._deliver(record)
            except asyncio.CancelledError:
                self._count("dropped", record, "the operator ends")
                raise
            finally:
                self._queue.task_done()

    async def _deliver(self, record: Record) -> None:
        why = ""
        for pause in (*self._pauses, None):
            try:
                status = await self._post(record)
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                # The address may hold a password, and so may what a library says of it.
                why = type(error).__name__
            else:
                if status < 300:  # noqa: PLR2004  # a success of HTTP
                    self._count("delivered", record)
                    return
                why = f"status {status}"
                if status < 500 and status not in WORTH_ANOTHER_TRY:  # noqa: PLR2004
                    break
            if pause is not None:
                await asyncio.sleep(pause)
        self._count("failed", record, why)

    async def _post(self, record: Record) -> int:
        headers, tls = await asyncio.to_thread(self._credentials)
        headers["Content-Type"] = CONTENT_TYPE
        body = json.dumps(cloud_event(record), ensure_ascii=False).encode()
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=tls),
            timeout=aiohttp.ClientTimeout(total=self._webhook.timeout_seconds),
        )
        # Who answers may not send the headers, or the record, on to somebody else.
        async with (
            session,
            session.post(
                self._webhook.url, data=body, headers=headers, allow_redirects=False
            ) as answer,
        ):
            return answer.status

    def _credentials(self) -> tuple[dict[str, str], ssl.SSLContext]:
        """Read anew each time: secrets are rotated."""
        files = self._webhook.header_files.items()
        headers = {name: Path(file).read_text().strip() for name, file in files}
        return headers, ssl.create_default_context(cafile=self._webhook.ca_file)

    def _count(self, outcome: str, record: Record, why: str = "") -> None:
        telemetry.NOTIFICATIONS.labels(self._name, outcome).inc()
        if why:
            LOG.warning("web hook %s: %s %s: %s", self._name, record.id, outcome, why)


def cloud_event(record: Record) -> Json:
    """A record in its envelope. The source is the ModelRollout's path; its uid is in the id."""
    path = f"namespaces/{record.namespace}/{api.PLURAL}/{record.rollout}"
    return {
        "specversion": "1.0",
        "id": record.id,
        "source": f"/apis/{api.API_VERSION}/{path}",
        "type": f"dev.modelrollout.{record.decision}",
        "subject": f"{record.namespace}/{record.rollout}",
        "time": record.time,
        "datacontenttype": "application/json",
        "data": dict(record.body),
    }
