"""
The way to a cluster, and who goes it: what a kubeconfig says, or a pod's service account.

Only what a request needs is read. The official client's loader would import the whole client, and
a plugin that takes a second to start is not used in a hurry.
"""

from __future__ import annotations

import base64
import json
import os
import ssl
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from modelrollout.kubectl.failures import Unreachable

Section = Mapping[str, Any]
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
EXEC_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
EXEC_SECONDS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How requests go out."""

    server: str
    namespace: str
    tls: ssl.SSLContext | None
    server_name: str = ""
    """The name that the server's certificate is for, where it is not the address's."""
    headers: Mapping[str, str] = field(default_factory=dict)
    proxy: str = ""


def access(
    kubeconfig: str | None = None, context: str | None = None, namespace: str | None = None
) -> Access:
    """From the file given, from KUBECONFIG, from ~/.kube/config, or from the pod that this runs in."""
    paths = _paths(kubeconfig)
    found = [(path, _read(path)) for path in paths if path.exists()]
    if kubeconfig and not found:
        raise Unreachable(f"there is no kubeconfig {kubeconfig}: give --kubeconfig another one")
    if not found:
        if "KUBERNETES_SERVICE_HOST" in os.environ and (ACCOUNT / "token").exists():
            return _of_pod(namespace)
        where = ", ".join(str(each) for each in paths)
        raise Unreachable(f"there is no kubeconfig ({where}): set KUBECONFIG, or give --kubeconfig")
    return _of_files(found, context, namespace)


def _paths(kubeconfig: str | None) -> list[Path]:
    if kubeconfig:
        return [Path(kubeconfig)]
    given = [each for each in os.environ.get("KUBECONFIG", "").split(os.pathsep) if each]
    return [Path(each) for each in given] or [Path.home() / ".kube" / "config"]


def _read(path: Path) -> Section:
    try:
        found = yaml.safe_load(path.read_text()) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Unreachable(f"the kubeconfig {path} cannot be read: {_line(error)}") from error
    if not isinstance(found, dict):
        raise Unreachable(f"the kubeconfig {path} is none: it is not a mapping")
    return found


def _of_pod(namespace: str | None) -> Access:
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    host = f"[{host}]" if ":" in host else host
    return Access(
        server=f"https://{host}:{port}",
        namespace=namespace or (ACCOUNT / "namespace").read_text().strip(),
        tls=ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt")),
        headers=_bearer((ACCOUNT / "token").read_text()),
    )


def _of_files(
    found: Sequence[tuple[Path, Section]], context: str | None, namespace: str | None
) -> Access:
    current = next((each.get("current-context") for _, each in found if _says(each)), None)
    name = context or current
    if not name:
        raise Unreachable(
            "the kubeconfig has no current context: give --context, or run kubectl config use-context"
        )
    chosen, _ = _named(found, "context", name)
    cluster, cluster_path = _named(found, "cluster", chosen.get("cluster", ""))
    user: Section = {}
    user_path = cluster_path
    if chosen.get("user"):
        user, user_path = _named(found, "user", chosen["user"])
    server = str(cluster.get("server", "")).rstrip("/")
    if not server.startswith(("https://", "http://")):
        raise Unreachable(f"the kubeconfig's cluster {chosen.get('cluster')} has no server")
    credential = _credential(user, user_path.parent, cluster)
    return Access(
        server=server,
        namespace=namespace or chosen.get("namespace") or "default",
        tls=_tls(cluster, cluster_path.parent, credential) if server[4] == "s" else None,
        server_name=str(cluster.get("tls-server-name", "")),
        headers=credential.headers,
        proxy=str(cluster.get("proxy-url", "")),
    )


def _says(config: Section) -> bool:
    return bool(config.get("current-context"))


def _named(found: Sequence[tuple[Path, Section]], kind: str, name: str) -> tuple[Section, Path]:
    """The first of that name wins, as with kubectl; files are relative to where it stands."""
    for path, config in found:
        for each in config.get(f"{kind}s") or ():
            if isinstance(each, dict) and each.get("name") == name:
                return each.get(kind) or {}, path
    raise Unreachable(f"the kubeconfig has no {kind} {name!r}: see kubectl config get-{kind}s")


# --- who asks -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Credential:
    """What shows who asks: headers, or a certificate as PEM with its key."""

    headers: Mapping[str, str] = field(default_factory=dict)
    certificate: str = ""
    key: str = ""


def _credential(user: Section, folder: Path, cluster: Section) -> _Credential:
    if "exec" in user:
        return _executed(user["exec"], folder, cluster)
    if "auth-provider" in user:
        raise Unreachable(
            "the kubeconfig's user has an auth-provider, which Kubernetes removed in 1.26: use an exec plugin"
        )
    certificate = _text(user, "client-certificate", folder)
    key = _text(user, "client-key", folder)
    if token := _token(user, folder):
        return _Credential(headers=_bearer(token), certificate=certificate, key=key)
    if "username" in user:
        pair = f"{user['username']}:{user.get('password', '')}".encode()
        basic = f"Basic {base64.b64encode(pair).decode()}"
        return _Credential(headers={"Authorization": basic})
    return _Credential(certificate=certificate, key=key)


def _token(user: Section, folder: Path) -> str:
    """A token's file is newer than what was written down beside it."""
    if "tokenFile" in user:
        return _file(folder / str(user["tokenFile"]))
    return str(user.get("token", ""))


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token.strip()}"}


def _executed(plugin: Section, folder: Path, cluster: Section) -> _Credential:
    """Ask the program that the kubeconfig names, as kubectl does."""
    version = plugin.get("apiVersion")
    if version not in EXEC_VERSIONS:
        raise Unreachable(
            f"the kubeconfig's exec plugin has apiVersion {version}, which is unknown"
        )
    command = str(plugin.get("command", ""))
    name = str(folder / command) if "/" in command else command
    spec: dict[str, Any] = {"interactive": False}
    if plugin.get("provideClusterInfo"):
        spec["cluster"] = {
            key: cluster[key] for key in ("server", "certificate-authority-data") if key in cluster
        }
    asked = {"apiVersion": version, "kind": "ExecCredential", "spec": spec}
    added = {each["name"]: each["value"] for each in plugin.get("env") or ()}
    environment = {**os.environ, **added, "KUBERNETES_EXEC_INFO": json.dumps(asked)}
    try:
        done = subprocess.run(  # noqa: S603  # the user's own kubeconfig says so
            [name, *map(str, plugin.get("args") or ())],
            env=environment,
            stdout=subprocess.PIPE,
            timeout=EXEC_SECONDS,
            check=True,
            text=True,
        )
        status = json.loads(done.stdout)["status"]
    except FileNotFoundError as error:
        hint = str(plugin.get("installHint", "")).strip().partition("\n")[0]
        raise Unreachable(f"the kubeconfig's exec plugin {command} is missing. {hint}") from error
    except (OSError, subprocess.SubprocessError) as error:
        raise Unreachable(f"the kubeconfig's exec plugin failed: {_line(error)}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise Unreachable(f"the kubeconfig's exec plugin {command} gave no credential") from error
    token = status.get("token")
    return _Credential(
        headers=_bearer(token) if token else {},
        certificate=status.get("clientCertificateData", ""),
        key=status.get("clientKeyData", ""),
    )


# --- whom to trust --------------------------------------------------------------------------------


def _tls(cluster: Section, folder: Path, credential: _Credential) -> ssl.SSLContext:
    authority = _text(cluster, "certificate-authority", folder)
    try:
        if cluster.get("insecure-skip-tls-verify"):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        else:
            context = ssl.create_default_context(cadata=authority or None)
        if credential.certificate:
            _show(context, credential)
    except (ssl.SSLError, ValueError) as error:
        raise Unreachable(f"a certificate of the kubeconfig is none: {_line(error)}") from error
    return context


def _show(context: ssl.SSLContext, credential: _Credential) -> None:
    """The standard library takes certificates from files only; this one is gone right after."""
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(f"{credential.certificate}\n{credential.key}\n")
        file.flush()
        context.load_cert_chain(file.name)


def _text(section: Section, name: str, folder: Path) -> str:
    """Data wins over a file of the same name, as with kubectl."""
    if data := section.get(f"{name}-data"):
        try:
            return base64.b64decode(data).decode()
        except ValueError as error:
            raise Unreachable(f"the kubeconfig's {name}-data is not base64") from error
    return _file(folder / str(section[name])) if section.get(name) else ""


def _file(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Unreachable(f"{path}, which the kubeconfig names, cannot be read") from error


def _line(error: Exception) -> str:
    """In a line, without the piece of the file: it may hold a credential."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem} in line {error.problem_mark.line + 1}"
    return " ".join(str(error).split())
