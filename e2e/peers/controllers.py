"""The peers' controllers as processes beside the cluster's nodes, and what any controller costs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import kube
import operator_chart

FLAGGER = "flagger"
ROLLOUTS = "argo-rollouts"
PEERS = (FLAGGER, ROLLOUTS)
PLUGIN = "modelrollout/httproute"
NAMESPACE = "peers-argo-rollouts"
"""Where Argo Rollouts finds its settings."""
WORK = Path("build", "peers").resolve()
STOP_SECONDS = 15
PAGE = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """What a controller holds and has used, its plugins included."""

    memory_bytes: int
    processor_seconds: float


@contextmanager
def running(peers: Sequence[str]) -> Iterator[dict[str, int]]:
    """Controllers at work: the process id of each by name. Nothing of them stays behind."""
    built = {peer: build(peer) for peer in peers}
    with ExitStack() as stack:
        for directory in built.values():
            crds = str(directory / "crds")
            stack.callback(kube.kubectl, "delete", "-f", crds, "--ignore-not-found")
            kube.kubectl("apply", "--server-side", "-f", crds)
            kube.kubectl("wait", "--for=condition=Established", "-f", crds, "--timeout=30s")
        pids = {}
        if FLAGGER in built:
            command = flagger_command(built[FLAGGER] / "flagger")
            pids[FLAGGER] = stack.enter_context(process(FLAGGER, command))
        if ROLLOUTS in built:
            stack.callback(kube.kubectl, "delete", "namespace", NAMESPACE, "--ignore-not-found")
            kube.apply(*rollouts_settings(built[ROLLOUTS] / "router"))
            command = rollouts_command(built[ROLLOUTS] / "rollouts-controller")
            pids[ROLLOUTS] = stack.enter_context(process(ROLLOUTS, command))
        yield pids


def build(peer: str) -> Path:
    """Where a peer's controller and CRDs are."""
    command = [str(Path(__file__).with_name("build")), peer]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return Path(told.strip())


def flagger_command(binary: Path) -> list[str]:
    """As its tutorial for the Gateway API starts it; everything else is its default."""
    return [
        str(binary),
        f"-kubeconfig={os.environ['KUBECONFIG']}",
        "-mesh-provider=gatewayapi:v1",
        f"-metrics-server={operator_chart.PROMETHEUS}",
        "-log-level=info",
        "-port=28080",
    ]


def rollouts_command(binary: Path) -> list[str]:
    """Its defaults, without the wait for a lease that nobody else wants."""
    ports = ["--metricsPort=28090", "--healthzPort=28091"]
    return [str(binary), *ports, "--leader-elect=false"]


def rollouts_settings(plugin: Path) -> list[kube.Manifest]:
    """The ConfigMap that tells Argo Rollouts of its traffic router."""
    plugins = [{"name": PLUGIN, "location": f"file://{plugin}"}]
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "argo-rollouts-config", "namespace": NAMESPACE},
            "data": {"trafficRouterPlugins": json.dumps(plugins)},
        },
    ]


@contextmanager
def process(name: str, command: list[str]) -> Iterator[int]:
    """A controller in a process group of its own, which ends with the block; what it says is kept."""
    directory = WORK / name
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "log.txt").open("w") as log:
        started = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", "--", *command],
            cwd=directory,
            env=os.environ | {"POD_NAMESPACE": NAMESPACE},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            time.sleep(3)
            if started.poll() is not None:
                raise RuntimeError(f"{name} ended at once: {directory / 'log.txt'} says why")
            yield started.pid
        finally:
            end(started)


def end(started: subprocess.Popen[bytes]) -> None:
    """End a controller and its plugins, first politely."""
    for each in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(started.pid, each)
            started.wait(STOP_SECONDS)
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue
    started.wait()


def usage(pid: int) -> Usage:
    """Of a process and those of its group."""
    group = os.getpgid(pid)
    family = [each for each in processes() if of_group(each, group)]
    return Usage(
        memory_bytes=sum(resident(each) for each in family),
        processor_seconds=sum(processor(each) for each in family),
    )


def processes() -> list[int]:
    """The ids of all processes."""
    return [int(each.name) for each in Path("/proc").glob("[0-9]*")]


def of_group(pid: int, group: int) -> bool:
    """Whether a process is of a group; one that has just ended is of none."""
    try:
        return os.getpgid(pid) == group
    except ProcessLookupError:
        return False


def resident(pid: int) -> int:
    """Resident memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE


def processor(pid: int) -> float:
    """Seconds of processor time since its start."""
    # The name in brackets may have blanks of its own.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS
