"""
`make chaos-api`: sequences of edits and perturbations on a real kube-apiserver with its etcd.

    python -m chaos.real_sequences FIRST [--seconds N] [--side-by-side N]

One API server for all, a namespace for each that runs side by side, one kept connection each, and
a virtual clock: what takes time is the operator's own passes and the API server's writes. Numbers
are drawn upwards from FIRST until the seconds are over. Each run of this adds a row to
docs/faults.md.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from chaos.page import PAGE, with_row
from chaos.real import Client, RealRollouts
from chaos.sequences import failures
from kube_apiserver import ApiServer, api_server

MOST = 100_000
"""More than anybody has time for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """One sequence."""

    number: int
    failures: list[str]
    calls: int
    """That the API server answered."""


class _Worker:
    """Of this process."""

    real: Client
    ends: float


def _begin(process: ApiServer, names: multiprocessing.Queue[str], seconds: float) -> None:
    logging.disable(logging.CRITICAL)
    namespace = names.get()
    process.kubectl("create", "namespace", namespace)
    _Worker.real = Client(process, namespace)
    _Worker.ends = time.monotonic() + seconds


def _run(number: int) -> Ran | None:
    """None after the time."""
    if time.monotonic() > _Worker.ends:
        return None
    before = _Worker.real.calls
    try:
        found = failures(number, lambda clock: RealRollouts(clock, _Worker.real))
    except Exception as error:  # noqa: BLE001  # a finding, as any other
        found = [repr(error)]
    return Ran(number=number, failures=found, calls=_Worker.real.calls - before)


def run_all(process: ApiServer, first: int, seconds: float, side_by_side: int) -> list[Ran]:
    """Those that there was time for, in their order."""
    context = multiprocessing.get_context("spawn")
    names: multiprocessing.Queue[str] = context.Queue()
    for place in range(side_by_side):
        names.put(f"shop-{place}")
    found: list[Ran] = []
    with ProcessPoolExecutor(side_by_side, context, _begin, (process, names, seconds)) as pool:
        for chunk in itertools.count(first, 20 * side_by_side):
            numbers = range(chunk, min(chunk + 20 * side_by_side, first + MOST))
            ran = [each for each in pool.map(_run, numbers) if each is not None]
            for each in ran:
                if each.failures:
                    print(f"FAILED {each.number}: {'; '.join(each.failures)}", flush=True)
            found += ran
            if len(ran) < len(numbers):
                return found
    return found


def main(arguments: Sequence[str]) -> int:
    """The exit code: whether a rule was broken."""
    parser = argparse.ArgumentParser(prog="python -m chaos.real_sequences")
    parser.add_argument("first", type=int, help="the first number")
    parser.add_argument("--seconds", type=float, default=480)
    parser.add_argument("--side-by-side", type=int, default=2)
    given = parser.parse_args(arguments)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, api_server(Path(folder)) as process:
        process.install_crds()
        # Its processes are this one's.
        ran = run_all(replace(process, etcd=None), given.first, given.seconds, given.side_by_side)
    if not ran:
        return 1
    broken, calls = sum(bool(each.failures) for each in ran), sum(each.calls for each in ran)
    row = (
        f"| {ran[0].number} to {ran[-1].number} | {len(ran):,} | {calls:,} | "
        f"{time.monotonic() - began:,.0f} s | {broken} |"
    )
    print(row)
    PAGE.write_text(with_row(PAGE.read_text(), row))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
