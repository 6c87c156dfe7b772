"""
The node's processes on two processors as if they were on two nodes.

Users, the gateway and the pods that answer users are at the front, on the first processor; everything
else of the cluster is at the back, on the second: the operator, Prometheus, the API server, and what
calls this. So what is at the back takes no processor time from what users wait for.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import kube

FRONT, BACK = {0}, {1}
USERS = b"workloads.load"
GATEWAY_NAMESPACE = "envoy-gateway-system"
GATEWAY = "gateway.envoyproxy.io/owning-gateway-name=gateway"


SHARED = "all on both processors"
APART = "users, gateway and the versions that answer them on a processor of their own"


@contextlib.contextmanager
def placed(*pods: kube.Manifest, shared: bool) -> Iterator[Callable[[], None]]:
    """
    The gateway, these pods and users at the front, and all others at the back, until it ends.

    What is yielded is to be called now and then: processes that are new may run anywhere. If all is
    `shared`, everybody is where the scheduler puts him.
    """
    if shared:
        yield lambda: None
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    front = [f"pod{pod['metadata']['uid']}" for pod in (*gateway(), *pods)]
    try:
        place(front)
        yield lambda: place(front)
    finally:
        for each in processes():
            with contextlib.suppress(OSError):
                bind(each, set(range(os.cpu_count() or 1)))


def place(front: Sequence[str]) -> None:
    """Put each process where it belongs."""
    for each in processes():
        with contextlib.suppress(OSError):
            # By the control group that the kubelet gave a pod.
            group = (each / "cgroup").read_text().replace("_", "-")
            is_user = USERS in (each / "cmdline").read_bytes()
            is_at_front = is_user or any(pod in group for pod in front)
            bind(each, FRONT if is_at_front else BACK)


def processes() -> list[Path]:
    """All of the node; its namespace has no others."""
    return list(Path("/proc").glob("[0-9]*"))


def bind(process: Path, processors: set[int]) -> None:
    """All threads of a process; those that they start go with them."""
    for thread in (process / "task").iterdir():
        with contextlib.suppress(OSError):
            os.sched_setaffinity(int(thread.name), processors)


def gateway() -> list[kube.Manifest]:
    """The pods of the proxy."""
    found = kube.listed("pods", GATEWAY_NAMESPACE, "-l", GATEWAY)
    assert found, f"no pod in {GATEWAY_NAMESPACE} has the label {GATEWAY}"
    return found
