"""A real kube-apiserver with its etcd on loopback: nothing that needs a node runs on it."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
CRD_NAME = "modelrollouts.modelrollout.dev"
ADMIN_TOKEN = "admin"  # noqa: S105  # of a server that lives for one test run on loopback
START_SECONDS = 300

Completed = subprocess.CompletedProcess[str]


def binaries() -> Path:
    """The folder with kube-apiserver, etcd and kubectl, as the test cluster has them."""
    home = Path(os.environ.get("CLUSTER_HOME", Path.home() / ".cache" / "modelrollout-cluster"))
    built = sorted(home.glob("bin/kubernetes-*/kube-apiserver"), key=lambda x: x.stat().st_mtime)
    assert built, "no kube-apiserver: run `make cluster-build`"
    return built[-1].parent


@dataclass(kw_only=True)
class Etcd:
    """What an API server keeps everything in."""

    command: list[Any]
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("a") as file:
            self.process = subprocess.Popen(self.command, stdout=file, stderr=file)

    def kill(self) -> None:
        """By SIGKILL; what it has answered is kept all the same."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@dataclass(frozen=True, kw_only=True)
class ApiServer:
    """A running one."""

    folder: Path
    url: str
    etcd: Etcd | None = None
    """Its own, for whom it was started."""

    def kubeconfig(self, token: str = ADMIN_TOKEN, namespace: str = "default") -> Path:
        """The path of one for a user of `users`."""
        path = self.folder / f"kubeconfig-{token}-{namespace}"
        cluster = {"server": self.url, "insecure-skip-tls-verify": True}
        context = {"cluster": "test", "user": token, "namespace": namespace}
        path.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "test", "cluster": cluster}],
                    "users": [{"name": token, "user": {"token": token}}],
                    "contexts": [{"name": "test", "context": context}],
                    "current-context": "test",
                }
            )
        )
        return path

    def kubectl(
        self, *arguments: str, stdin: str | None = None, token: str = ADMIN_TOKEN
    ) -> Completed:
        """Run it as a user; its exit code is the caller's to judge."""
        return subprocess.run(
            [str(binaries() / "kubectl"), f"--kubeconfig={self.kubeconfig(token)}", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def await_start(self) -> None:
        """Return when it answers, and has what it keeps."""
        _until(
            lambda: (
                self.kubectl("get", "--raw", "/readyz").returncode == 0
                and self.kubectl("get", "namespace", "default").returncode == 0
            ),
            f"the API server, see {self.folder / 'apiserver.log'}",
        )

    def install_crds(self) -> None:
        """Ours, as the users install them; returns when they are served."""
        done = self.kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
        assert done.returncode == 0, done.stderr
        done = self.kubectl("wait", "--for=condition=Established", f"crd/{CRD_NAME}")
        assert done.returncode == 0, done.stderr
        _until(lambda: self.kubectl("get", "modelrollouts").returncode == 0, "the CRD")


@contextlib.contextmanager
def api_server(folder: Path, users: tuple[str, ...] = ()) -> Iterator[ApiServer]:
    """
    Start one whose files are in `folder`, and end it.

    Each of `users` has its own name as token and no right but those that RBAC gives it; the user
    `admin` may do all.
    """
    etcd_port, peer_port, port = _free_port(), _free_port(), _free_port()
    rows = [f'{ADMIN_TOKEN},{ADMIN_TOKEN},1,"system:masters"']
    rows += [f"{user},{user},{index + 2}" for index, user in enumerate(users)]
    (folder / "tokens.csv").write_text("\n".join(rows) + "\n")
    key = folder / "service-accounts.key"
    subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
    etcd_url, peer_url = f"http://127.0.0.1:{etcd_port}", f"http://127.0.0.1:{peer_port}"
    etcd: list[Any] = [
        binaries() / "etcd",
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls={etcd_url}",
        f"--advertise-client-urls={etcd_url}",
        f"--listen-peer-urls={peer_url}",
        f"--initial-advertise-peer-urls={peer_url}",
        f"--initial-cluster=default={peer_url}",
        "--unsafe-no-fsync",
    ]
    server: list[Any] = [
        binaries() / "kube-apiserver",
        f"--etcd-servers={etcd_url}",
        f"--secure-port={port}",
        "--bind-address=127.0.0.1",
        f"--cert-dir={folder / 'certificates'}",
        f"--token-auth-file={folder / 'tokens.csv'}",
        "--authorization-mode=RBAC",
        "--service-cluster-ip-range=10.255.0.0/24",
        "--service-account-issuer=https://test",
        f"--service-account-key-file={key}",
        f"--service-account-signing-key-file={key}",
        "--disable-admission-plugins=ServiceAccount",
    ]
    store = Etcd(command=etcd, log=folder / "etcd.log")
    store.start()
    try:
        with _running(server, folder / "apiserver.log"):
            running = ApiServer(folder=folder, url=f"https://127.0.0.1:{port}", etcd=store)
            running.await_start()
            yield running
    finally:
        store.kill()


@contextlib.contextmanager
def _running(command: list[Any], log: Path) -> Iterator[None]:
    with log.open("w") as file, subprocess.Popen(command, stdout=file, stderr=file) as process:
        try:
            yield
        finally:
            process.kill()


def _until(is_done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not is_done():
        assert time.monotonic() < deadline, f"waited {START_SECONDS} s for {what}"
        time.sleep(0.2)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
