"""Rollouts in a real API server, whose statuses are those that `decide` gives, and a terminal before them."""

from __future__ import annotations

import asyncio
import http.server
import json
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from click.testing import CliRunner, Result
from kubernetes.aio import client, config

from builders import a_spec
from kube_apiserver import ADMIN_TOKEN, ApiServer
from modelrollout.adapters.cluster import Cluster
from modelrollout.adapters.recorder import Recorder
from modelrollout.api import v1alpha1 as api
from modelrollout.cli import main
from walk import Walk

Manifest = dict[str, Any]
TRUSTING = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
TRUSTING.check_hostname, TRUSTING.verify_mode = False, ssl.CERT_NONE
ROLLOUTS = "/apis/modelrollout.dev/v1alpha1/namespaces"


@dataclass
class Shop:
    """A namespace with a rollout, and somebody who asks about it."""

    kube: ApiServer
    namespace: str
    environment: dict[str, str] = field(default_factory=dict)

    def api(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
        """One request as the administrator."""
        request = urllib.request.Request(  # noqa: S310  # the test's own server
            self.kube.url + path,
            data=None if body is None else json.dumps(body).encode(),
            method=method,
            headers={"Authorization": f"Bearer {ADMIN_TOKEN}", "Content-Type": kind},
        )
        with urllib.request.urlopen(request, context=TRUSTING, timeout=20) as answer:  # noqa: S310
            return json.load(answer)

    def create(self, plural: str, body: Manifest, root: str = "/apis/apps/v1/namespaces") -> None:
        self.api("POST", f"{root}/{self.namespace}/{plural}", body)

    def put(self, walk: Walk, name: str = "ranker") -> Manifest:
        """The walk's status, stored; the object is made when it is not there."""
        path = f"{ROLLOUTS}/{self.namespace}/modelrollouts"
        body = rollout(name, walk)
        try:
            body = self.api("GET", f"{path}/{name}")
        except urllib.error.HTTPError as missing:
            missing.close()
            body = self.api("POST", path, body)
        status = walk.status.model_copy(
            update={"observed_generation": body["metadata"]["generation"]}
        )
        body["status"] = status.to_dict()
        return self.api("PUT", f"{path}/{name}/status", body)

    def record(self, walk: Walk) -> None:
        """The passes of a walk, stored and recorded as the operator does it."""
        uid = self.put(walk)["metadata"]["uid"]

        async def run() -> None:
            settings = client.Configuration()
            path = str(self.kube.kubeconfig(namespace=self.namespace))
            await config.load_kube_config(config_file=path, client_configuration=settings)
            cluster = Cluster(client.ApiClient(configuration=settings))
            recorder = Recorder(cluster)
            for rollout, seen, plan in walk.passes:
                recorder.record(replace(rollout, namespace=self.namespace, uid=uid), seen, plan)
                await recorder.settle()
            await cluster.close()

        asyncio.run(run())

    def get(self, name: str = "ranker") -> Manifest:
        return self.api("GET", f"{ROLLOUTS}/{self.namespace}/modelrollouts/{name}")

    def run(
        self, *arguments: str, width: int = 80, token: str = ADMIN_TOKEN, **more: Any
    ) -> Result:
        """The program, in this process."""
        environment = {
            "KUBECONFIG": str(self.kube.kubeconfig(token, self.namespace)),
            "COLUMNS": str(width),
        }
        return CliRunner(env=environment | self.environment).invoke(
            main, list(arguments), catch_exceptions=False, **more
        )


def rollout(name: str, walk: Walk) -> Manifest:
    return {
        "apiVersion": api.API_VERSION,
        "kind": api.KIND,
        "metadata": {"name": name},
        "spec": a_spec(**walk.spec),
    }


def deployment(name: str, image: str, **env: str) -> Manifest:
    container = {
        "name": "server",
        "image": image,
        "env": [{"name": key, "value": value} for key, value in env.items()],
    }
    labels = {"app": "ranker", "version": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


@contextmanager
def answering(status: int, body: bytes, at: str | None = None) -> Iterator[str]:
    """Something that answers everything alike, over plain HTTP; with `at`, 404 on other paths."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if at in {None, self.path} else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{found.server_address[1]}"
        finally:
            found.shutdown()
