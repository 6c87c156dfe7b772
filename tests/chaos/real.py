"""ModelRollouts in a real API server, with its schema, rules and finalizers; all else in memory."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from kubernetes.aio import client, config

from chaos.apiserver import ApiServer
from kube_apiserver import ApiServer as Process
from modelrollout.adapters.cluster import ROLLOUTS, Cluster, Object, Resource
from modelrollout.errors import NotFound

KIND = {"apiVersion": f"{ROLLOUTS.group}/{ROLLOUTS.version}", "kind": "ModelRollout"}
T = TypeVar("T")


class Client:
    """The operator's own client, in an event loop of its own: whoever asks waits for the answer."""

    def __init__(self, process: Process, namespace: str) -> None:
        self.namespace = namespace
        self.calls = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.cluster = self._wait(_connected(process))

    def close(self) -> None:
        self._wait(self.cluster.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def ask(self, question: Coroutine[Any, Any, T]) -> T:
        """What the API server answers, or how it refuses."""
        self.calls += 1
        return self._wait(question)

    def remove_all(self) -> None:
        """Nothing of an earlier run is left, whatever finalizers say."""
        free = [{"op": "add", "path": "/metadata/finalizers", "value": []}]
        for each in self.ask(self.cluster.list(ROLLOUTS, self.namespace)):
            address = (ROLLOUTS, self.namespace, each["metadata"]["name"])
            self.ask(self.cluster.patch(*address, free))
            self.ask(self.cluster.delete(*address))

    def _wait(self, answer: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(answer, self._loop).result()


async def _connected(process: Process) -> Cluster:
    settings = client.Configuration()
    settings.retries = None
    await config.load_kube_config(str(process.kubeconfig()), client_configuration=settings)
    return Cluster(client.ApiClient(settings))


class RealRollouts(ApiServer):
    """
    Every write of a ModelRollout is asked of the real one; the clock of a run stands still meanwhile.

    Nobody else writes in the namespace: what was answered last is what there is, and what was
    answered before is what a stale reader still sees.
    """

    def __init__(self, clock: Callable[[], float], real: Client) -> None:
        super().__init__(clock)
        self._real = real
        real.remove_all()

    def create(self, resource: Resource, namespace: str, body: Object) -> Object:
        if resource != ROLLOUTS:
            return super().create(resource, namespace, body)
        there = self._there(KIND | body)
        return self._kept(
            self._real.ask(self._real.cluster.create(ROLLOUTS, self._namespace, there))
        )

    def patch(
        self, resource: Resource, namespace: str, name: str, operations: Sequence[Object]
    ) -> Object:
        if resource != ROLLOUTS:
            return super().patch(resource, namespace, name, operations)
        address = (ROLLOUTS, self._namespace, name)
        answer = self._real.ask(self._real.cluster.patch(*address, operations))
        if answer["metadata"].get("deletionTimestamp"):
            self._looked_for(name)
            return answer
        return self._kept(answer)

    def replace_status(self, resource: Resource, body: Object) -> Object:
        assert resource == ROLLOUTS
        there = self._there(body)
        return self._kept(self._real.ask(self._real.cluster.replace_status(ROLLOUTS, there)))

    def delete(self, resource: Resource, namespace: str, name: str) -> None:
        if resource != ROLLOUTS:
            super().delete(resource, namespace, name)
            return
        self.get(resource, namespace, name)  # for one that is gone the adapter raises nothing
        self._real.ask(self._real.cluster.delete(ROLLOUTS, self._namespace, name))
        self._looked_for(name)

    def put(self, resource: Resource, body: Object) -> Object:
        """As a user's merge patch of metadata and spec."""
        if resource != ROLLOUTS:
            return super().put(resource, body)
        live = self.get(resource, "shop", body["metadata"]["name"])
        operations = [
            {"op": "add", "path": "/spec", "value": body["spec"]},
            {
                "op": "add",
                "path": "/metadata/annotations",
                "value": body["metadata"].get("annotations", {}),
            },
        ]
        return self.patch(resource, "shop", live["metadata"]["name"], operations)

    def change(self, resource: Resource, namespace: str, name: str, **spec: Any) -> Object:
        if resource != ROLLOUTS:
            return super().change(resource, namespace, name, **spec)
        live = self.get(resource, namespace, name)
        return self.put(resource, {**live, "spec": {**live["spec"], **spec}})

    @property
    def _namespace(self) -> str:
        return self._real.namespace

    def _there(self, body: Object) -> Object:
        return {**body, "metadata": {**body["metadata"], "namespace": self._namespace}}

    def _kept(self, answer: Object) -> Object:
        """As it is told to those who watch; a write that changed nothing is not."""
        address = (ROLLOUTS.plural, "shop", answer["metadata"]["name"])
        here = {**answer, "metadata": {**answer["metadata"], "namespace": "shop"}}
        before = self._at(address, None)
        if before is None or before["metadata"]["resourceVersion"] != _version(here):
            self._versions[address].append((self._clock(), here))
            self._tell(ROLLOUTS.plural, before, here)
        return here

    def _looked_for(self, name: str) -> None:
        """After a write that may have been its end."""
        try:
            self._kept(self._real.ask(self._real.cluster.get(ROLLOUTS, self._namespace, name)))
        except NotFound:
            self._remove((ROLLOUTS.plural, "shop", name))


def _version(body: Object) -> str:
    return str(body["metadata"]["resourceVersion"])
