"""ModelRollouts in a real API server, with its schema, rules and finalizers; all else in memory."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from chaos.apiserver import Address, ApiServer
from kube_apiserver import ADMIN_TOKEN
from kube_apiserver import ApiServer as Process
from modelrollout.adapters.cluster import ROLLOUTS, Object, Resource
from modelrollout.errors import Conflict, NotFound, Refused, RolloutError

ROOT = f"{ROLLOUTS.root}/namespaces/shop/{ROLLOUTS.plural}"


class RealRollouts(ApiServer):
    """
    Asks and waits: the clock of a run stands still meanwhile.

    Nobody else writes there, so that what it said last is what there is.
    """

    def __init__(self, clock: Callable[[], float], process: Process) -> None:
        super().__init__(clock)
        context = ssl._create_unverified_context()  # noqa: S323, SLF001  # on loopback, for a test
        host = urlsplit(process.url).netloc
        self._connection = http.client.HTTPSConnection(host, context=context)
        self._said: dict[str, Object] = {}
        """The ModelRollouts as the API server returned them last."""

    def close(self) -> None:
        self._connection.close()

    def get(
        self, resource: Resource, namespace: str, name: str, as_of: float | None = None
    ) -> Object:
        if resource != ROLLOUTS:
            return super().get(resource, namespace, name, as_of)
        if name not in self._said:
            raise NotFound(name)
        return self._said[name]

    def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        selector: str = "",
        as_of: float | None = None,
    ) -> list[Object]:
        if resource != ROLLOUTS:
            return super().list(resource, namespace, selector, as_of)
        return [*self._said.values()]

    def everything(self) -> dict[Address, Object]:
        real = {
            (ROLLOUTS.plural, "shop", each["metadata"]["name"]): each
            for each in self.list(ROLLOUTS)
        }
        return super().everything() | real

    def create(self, resource: Resource, namespace: str, body: Object) -> Object:
        if resource != ROLLOUTS:
            return super().create(resource, namespace, body)
        kind = {"apiVersion": f"{ROLLOUTS.group}/{ROLLOUTS.version}", "kind": "ModelRollout"}
        return self._write(None, "POST", "", kind | body)

    def patch(
        self, resource: Resource, namespace: str, name: str, operations: Sequence[Object]
    ) -> Object:
        if resource != ROLLOUTS:
            return super().patch(resource, namespace, name, operations)
        before = self.get(resource, namespace, name)
        return self._write(before, "PATCH", f"/{name}", [*operations])

    def replace_status(self, resource: Resource, body: Object) -> Object:
        name = body["metadata"]["name"]
        before = self.get(resource, "shop", name)
        return self._write(before, "PUT", f"/{name}/status", body)

    def delete(self, resource: Resource, namespace: str, name: str) -> None:
        if resource != ROLLOUTS:
            super().delete(resource, namespace, name)
            return
        before = self.get(resource, namespace, name)
        self._ask("DELETE", f"/{name}")
        self._tell(ROLLOUTS.plural, before, self._live(name))

    def put(self, resource: Resource, body: Object) -> Object:
        if resource != ROLLOUTS:
            return super().put(resource, body)
        name = body["metadata"]["name"]
        return self._write(self.get(resource, "shop", name), "PUT", f"/{name}", body)

    def change(self, resource: Resource, namespace: str, name: str, **spec: Any) -> Object:
        if resource != ROLLOUTS:
            return super().change(resource, namespace, name, **spec)
        live = self.get(resource, namespace, name)
        return self.put(resource, {**live, "spec": {**live["spec"], **spec}})

    def _write(self, before: Object | None, method: str, path: str, body: Any) -> Object:
        stored = self._ask(method, path, body)
        self._tell(ROLLOUTS.plural, before, self._live(stored["metadata"]["name"]))
        return stored

    def _live(self, name: str) -> Object | None:
        try:
            self._said[name] = self._ask("GET", f"/{name}")
        except NotFound:
            self._said.pop(name, None)
        return self._said.get(name)

    def _ask(self, method: str, path: str, body: Any = None) -> Object:
        kind = "application/json-patch+json" if method == "PATCH" else "application/json"
        headers = {"Authorization": f"Bearer {ADMIN_TOKEN}", "Content-Type": kind}
        text = None if body is None else json.dumps(body)
        self._connection.request(method, ROOT + path, text, headers)
        response = self._connection.getresponse()
        answer: Object = json.loads(response.read())
        if response.status >= 400:
            raise _error(response.status, str(answer.get("message", "")))
        return answer


def _error(status: int, said: str) -> RolloutError:
    if status == 404:
        return NotFound(said)
    if status == 409 or (status == 422 and "error in our request" in said):
        return Conflict(said)
    return Refused(said)
