"""Traffic for a test or a demo: start the load generator, read what users got while it runs, stop.

    with Load.start("http://10.0.0.1", host="digits.example", rate=100) as load:
        ...
        bad = [r for r in load.requests_since(moment) if not r.ok]

The generator is a process of its own, so that a slow test does not slow down the traffic. It ends
when its standard input closes: with the test that started it, however that ends.
"""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import mkdtemp
from types import TracebackType
from typing import Self, TextIO

START_SECONDS = 20.0
STOP_SECONDS = 30.0


@dataclass(frozen=True)
class Record:
    """One request as its user saw it.

    `start` is in seconds since the epoch. `status` is 0 where no answer came, and `error` says why.
    `version` is empty where the answer did not tell, `correct` is None where nothing was predicted,
    `user` is empty where nobody said who it was.
    """

    id: str
    start: float
    latency_seconds: float
    status: int
    error: str
    version: str
    correct: bool | None
    user: str = ""

    @property
    def ok(self) -> bool:
        return self.status == 200

    @property
    def end(self) -> float:
        return self.start + self.latency_seconds

    @classmethod
    def parse(cls, line: str) -> "Record":
        return cls(**json.loads(line))

    def line(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":")) + "\n"


def count(records: Iterable[Record]) -> Counter[tuple[str, int]]:
    """How many requests each version answered with each status."""
    return Counter((record.version, record.status) for record in records)


class Load:
    """A running load generator and the records that it has written so far."""

    def __init__(self, process: subprocess.Popen[str], lines: TextIO, errors: Path) -> None:
        self._process = process
        self._lines = lines
        self._errors = errors
        self._part = ""
        self._records: list[Record] = []

    @classmethod
    def start(  # noqa: PLR0913  each has a default that most callers keep
        cls,
        url: str,
        *,
        host: str = "",
        rate: float = 100.0,
        seconds: float = 600.0,
        requests: int = 200_000,
        feedback: str = "",
        label_delay_seconds: float = 2.0,
        seed: int = 1,
        digits: Path | None = None,
        directory: Path | None = None,
        enter: Sequence[str] = (),
        options: Sequence[str] = (),
    ) -> Self:
        """Begin sending `rate` requests a second to `url`, with `host` as the Host header.

        `enter` is a command that runs another one where the cluster's network is. It must not
        read standard input. The records are in `directory`, in requests.jsonl.
        """
        directory = directory or Path(mkdtemp(prefix="load-"))
        directory.mkdir(parents=True, exist_ok=True)
        out, errors = directory / "requests.jsonl", directory / "errors.txt"
        out.unlink(missing_ok=True)
        arguments: list[object] = ["--url", url, "--host", host, "--rate", rate]
        arguments += ["--seconds", seconds, "--requests", requests, "--seed", seed]
        arguments += ["--label-delay", label_delay_seconds, "--feedback", feedback]
        arguments += ["--digits", digits] if digits else []
        arguments += ["--out", out, "--until-stdin-closes", *options]
        with errors.open("w") as stderr:
            process = subprocess.Popen(
                [*enter, sys.executable, "-m", "workloads.load", *map(str, arguments)],
                stdin=subprocess.PIPE,
                stdout=stderr,
                stderr=stderr,
                env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)},
                text=True,
            )
        return cls(process, opened(out, process, errors), errors)

    def records(self) -> list[Record]:
        """All requests that have ended, in the order in which they ended."""
        *whole, self._part = (self._part + self._lines.read()).split("\n")
        self._records += map(Record.parse, whole)
        return self._records

    def requests_since(self, start: float) -> list[Record]:
        """The requests sent at or after `start`, in seconds since the epoch, that have ended."""
        return [record for record in self.records() if record.start >= start]

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> list[Record]:
        """Send no more, wait for the answers that are due, and return all records."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            code = self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        records = list(self.records())
        self._lines.close()
        if code != 0:
            raise RuntimeError(f"load generator: exit {code}\n{self._errors.read_text()}")
        return records

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._lines.closed:
            self.stop()


def opened(out: Path, process: subprocess.Popen[str], errors: Path) -> TextIO:
    """The file of records, as soon as the generator has made it."""
    deadline = time.monotonic() + START_SECONDS
    while not out.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            process.communicate()
            raise RuntimeError(f"the load generator did not start\n{errors.read_text()}")
        time.sleep(0.02)
    return out.open()
