"""
Web hooks: each decision as a CloudEvent 1.0 or as a message for Slack, outside of the passes.

A pass hands a record over and goes on. Each web hook has a queue and a task of its own, so that
one that hangs delays nobody, the others neither. Order is kept. What cannot be delivered is
dropped, counted and logged: the audit trail has it all the same.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import ssl
from collections.abc import Mapping
from pathlib import Path

import aiohttp

from modelrollout import telemetry
from modelrollout.adapters.slack import message
from modelrollout.api import v1alpha1 as api
from modelrollout.core.audit import Json, Record
from modelrollout.settings import Audience, Webhook, WebhookFormat

LOG = logging.getLogger(__name__)
CONTENT_TYPES: Mapping[WebhookFormat, str] = {
    WebhookFormat.CLOUD_EVENTS: "application/cloudevents+json; charset=utf-8",
    WebhookFormat.SLACK: "application/json; charset=utf-8",
}
QUEUE_LENGTH = 1000
PAUSES_SECONDS = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
"""
Between the attempts at one record, each shortened by chance to not less than half: web hooks that
were refused together do not come back together. Given up after two minutes, while others wait.
"""
LONGEST_PAUSE_SECONDS = 60.0
"""A receiver that says when to come again is obeyed up to here."""
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
        self.name = name
        self._webhook = webhook
        self._pauses = pauses
        self._queue: asyncio.Queue[Record] = asyncio.Queue(queue_length)
        self._task: asyncio.Task[None] | None = None

    def is_open_to(self, namespace: str) -> bool:
        """Whether it is told of ModelRollouts in there."""
        return not self._webhook.namespaces or namespace in self._webhook.namespaces

    def tell(self, record: Record) -> None:
        """Take it for later, if it is for this web hook; a full queue drops it."""
        if not self._is_for_us(record):
            return
        if self._task is None:
            self._task = asyncio.create_task(self._deliver_all(), name=f"webhook {self.name}")
        try:
            self._queue.put_nowait(record)
        except asyncio.QueueFull:
            self._count("dropped", record, f"{self._queue.maxsize} others wait already")

    def _is_for_us(self, record: Record) -> bool:
        hook = self._webhook
        is_asked = hook.rollouts is Audience.ALL or self.name in record.recipients
        is_wanted = not hook.decisions or record.decision in hook.decisions
        return is_asked and is_wanted and self.is_open_to(record.namespace)

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
            asked = 0.0
            try:
                status, asked = await self._post(record)
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
                chance = random.uniform(0.5, 1)  # noqa: S311  # nobody is to guess it, or could gain
                await asyncio.sleep(max(pause * chance, asked))
        self._count("failed", record, why)

    async def _post(self, record: Record) -> tuple[int, float]:
        """The status, and how long the receiver asked to be left alone."""
        url, headers, tls = await asyncio.to_thread(self._credentials)
        form = self._webhook.format
        headers["Content-Type"] = CONTENT_TYPES[form]
        content = message(record) if form is WebhookFormat.SLACK else cloud_event(record)
        body = json.dumps(content, ensure_ascii=False).encode()
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=tls),
            timeout=aiohttp.ClientTimeout(total=self._webhook.timeout_seconds),
        )
        # Who answers may not send the headers, or the record, on to somebody else.
        async with (
            session,
            session.post(url, data=body, headers=headers, allow_redirects=False) as answer,
        ):
            return answer.status, _pause_asked_for(answer.headers.get("Retry-After", ""))

    def _credentials(self) -> tuple[str, dict[str, str], ssl.SSLContext]:
        """Read anew each time: secrets are rotated."""
        hook = self._webhook
        url = Path(hook.url_file).read_text().strip() if hook.url_file else hook.url
        headers = {name: Path(file).read_text().strip() for name, file in hook.header_files.items()}
        return url, headers, ssl.create_default_context(cafile=hook.ca_file)

    def _count(self, outcome: str, record: Record, why: str = "") -> None:
        telemetry.NOTIFICATIONS.labels(self.name, outcome).inc()
        if why:
            LOG.warning("web hook %s: %s %s: %s", self.name, record.id, outcome, why)


def _pause_asked_for(text: str) -> float:
    """Of a Retry-After in seconds; one that is a date, or nonsense, asks for nothing."""
    return min(float(text), LONGEST_PAUSE_SECONDS) if text.isdecimal() else 0.0


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
