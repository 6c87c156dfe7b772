"""
The API server in a few verbs over plain dicts, on one connection.

Nothing is retried but a read on a connection that the server had closed meanwhile. What goes wrong
becomes a Failure with a sentence.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import urllib.request
from base64 import b64encode
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote, urlencode, urlsplit

from modelrollout.kubectl.failures import Denied, Failure, NotFound, Unreachable
from modelrollout.kubectl.kubeconfig import Access
from modelrollout.kubectl.printable import printable

Object = dict[str, Any]
SECONDS = 15
PAGE = "500"
ROLLOUTS, PLURAL = "apis/modelrollout.dev/v1alpha1", "modelrollouts"
"""As api.fields has them; the types there take longer to import than a list takes to print."""
DEPLOYMENTS = "apis/apps/v1"
SERVICES = "api/v1"
ROUTES = "apis/gateway.networking.k8s.io/v1"
EVENTS = "apis/events.k8s.io/v1"
NOT_INSTALLED = (
    "the cluster does not know ModelRollouts: install the CRD, kubectl apply --server-side -f crds/"
)


class Server:
    """One API server, as one user."""

    def __init__(self, access: Access) -> None:
        """Nothing is sent yet."""
        self._access = access
        self._parts = urlsplit(access.server)
        self._connection: http.client.HTTPConnection | None = None

    @property
    def namespace(self) -> str:
        """The one that is meant when none is named."""
        return self._access.namespace

    def get(self, api: str, namespace: str, plural: str, name: str) -> Object:
        """One object."""
        return self._call("GET", f"{api}/namespaces/{quote(namespace)}/{plural}/{quote(name)}")

    def list(
        self, api: str, namespace: str | None, plural: str, query: Mapping[str, str] | None = None
    ) -> list[Object]:
        """All objects of one namespace, or of all."""
        where = f"{api}/{plural}" if namespace is None else f"{api}/namespaces/{namespace}/{plural}"
        found: list[Object] = []
        page: dict[str, str] = {**(query or {}), "limit": PAGE}
        while True:
            answer = self._call("GET", f"{where}?{urlencode(page)}")
            found += answer.get("items") or []
            token = answer.get("metadata", {}).get("continue")
            if not token:
                return found
            page["continue"] = token

    def annotate(
        self, api: str, namespace: str, plural: str, name: str, annotations: Mapping[str, str]
    ) -> Object:
        """The object with these annotations, whatever else it has."""
        return self._call(
            "PATCH",
            f"{api}/namespaces/{quote(namespace)}/{plural}/{quote(name)}?fieldManager=kubectl-modelrollout",
            {"metadata": {"annotations": dict(annotations)}},
            "application/merge-patch+json",
        )

    def dry_run(self, api: str, namespace: str, plural: str, body: Object) -> None:
        """What the API server says of a new object, without making it."""
        query = "dryRun=All&fieldValidation=Strict"
        self._call("POST", f"{api}/namespaces/{quote(namespace)}/{plural}?{query}", body)

    def user(self) -> str:
        """Whom the API server takes us for."""
        kind = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        answer = self._call("POST", "apis/authentication.k8s.io/v1/selfsubjectreviews", kind)
        return str(answer["status"]["userInfo"]["username"])

    def _call(
        self, method: str, path: str, body: Any = None, content_type: str = "application/json"
    ) -> Object:
        try:
            status, data = self._exchange(method, path, body, content_type)
        except ssl.SSLCertVerificationError as error:
            said = f"{self._access.server} is not trusted: {error.verify_message}"
            raise Unreachable(
                f"{said}; the kubeconfig's certificate-authority is another"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            said = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise Unreachable(
                f"the cluster does not answer at {self._access.server}: {said}; is the kubeconfig's"
                " context the right one, and can it be reached from here?"
            ) from error
        if status >= http.client.BAD_REQUEST:
            raise _failure(status, path, data)
        try:
            answer: Object = _plain(json.loads(data))
        except ValueError as error:
            said = f"{self._access.server} gave an answer that is not JSON"
            raise Unreachable(f"{said}: is it a Kubernetes API server?") from error
        return answer

    def _exchange(self, method: str, path: str, body: Any, content_type: str) -> tuple[int, bytes]:
        headers = {
            **self._access.headers,
            "Accept": "application/json",
            "Content-Type": content_type,
            "User-Agent": "kubectl-modelrollout",
        }
        sent = None if body is None else json.dumps(body).encode()
        is_fresh = self._connection is None
        try:
            return self._sent(method, path, sent, headers)
        except (http.client.HTTPException, ConnectionError):
            self.close()
            if is_fresh or method != "GET":
                raise
            return self._sent(method, path, sent, headers)

    def _sent(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        self._connection = self._connection or self._connected()
        self._connection.request(method, f"{self._parts.path}/{path}", body, dict(headers))
        answer = self._connection.getresponse()
        return answer.status, answer.read()

    def _connected(self) -> http.client.HTTPConnection:
        host, port = self._parts.hostname or "", self._parts.port
        if self._access.tls is None:
            return http.client.HTTPConnection(host, port, timeout=SECONDS)
        name = self._access.server_name or host
        proxy = urlsplit(self._proxy(host))
        if not proxy.hostname:
            return _Connection(host, port, name, self._access.tls)
        if proxy.scheme != "http":
            raise Unreachable(f"a proxy over {proxy.scheme} is not supported: use one over http")
        connection = _Connection(proxy.hostname, proxy.port, name, self._access.tls)
        connection.set_tunnel(host, port or http.client.HTTPS_PORT, headers=_authorization(proxy))
        return connection

    def _proxy(self, host: str) -> str:
        if self._access.proxy:
            return self._access.proxy
        is_bypassed = urllib.request.proxy_bypass(host)
        return "" if is_bypassed else urllib.request.getproxies().get("https", "")

    def close(self) -> None:
        """End the connection; the next request begins another one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class _Connection(http.client.HTTPSConnection):
    """TLS with the name that the kubeconfig says, whatever the address is."""

    def __init__(self, host: str, port: int | None, name: str, tls: ssl.SSLContext) -> None:
        super().__init__(host, port, timeout=SECONDS, context=tls)
        self._name = name
        self._tls = tls

    def connect(self) -> None:
        """The socket, the tunnel if there is one, and TLS over it."""
        http.client.HTTPConnection.connect(self)
        assert isinstance(self.sock, socket.socket)
        self.sock = self._tls.wrap_socket(self.sock, server_hostname=self._name)


def _plain(value: Any) -> Any:
    """With all texts as a terminal may show them: whoever wrote them is not to move its cursor."""
    if isinstance(value, str):
        return value if value.isprintable() else "".join(map(_visible, value))
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value


def _visible(character: str) -> str:
    return character if character.isprintable() or character == "\n" else " "


def _authorization(proxy: Any) -> dict[str, str]:
    if not proxy.username:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}".encode()
    return {"Proxy-Authorization": f"Basic {b64encode(pair).decode()}"}


# --- what the server says -------------------------------------------------------------------------


def _failure(status: int, path: str, data: bytes) -> Failure:
    try:
        said = json.loads(data)
        message, named = str(said.get("message", "")), (said.get("details") or {}).get("name")
    except (ValueError, AttributeError):
        message, named = data[:200].decode(errors="replace").strip(), None
    message = printable(_sentence(message)) or http.client.responses.get(status, str(status))
    kind: type[Failure] = Failure
    match status:
        case http.client.UNAUTHORIZED:
            message = "the API server does not know you: the kubeconfig's credential is not valid"
            kind = Denied
        case http.client.FORBIDDEN:
            kind = Denied
        case http.client.NOT_FOUND:
            kind = NotFound
            if not named:
                is_ours = path.startswith(ROLLOUTS)
                message = NOT_INSTALLED if is_ours else f"the cluster does not know {path}"
        case _ if status >= http.client.INTERNAL_SERVER_ERROR:
            message = f"the API server answered {status}: {message}"
            kind = Unreachable
    return kind(message)


def _sentence(message: str) -> str:
    """An admission policy's own words, without the names of the policy and of its binding."""
    return re.sub(
        r"^.*ValidatingAdmissionPolicy '[^']*' with binding '[^']*' denied request: ", "", message
    )
