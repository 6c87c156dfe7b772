"""
An end to work that nobody can ask to stop: a regular expression that backtracks.

The patterns of a JSON Schema or a JSONPath are the spec's, the texts are users' and models'. One
that takes for ever would stop everything else that this process does, too.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class TooSlow(Exception):
    """It took longer than it may."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise TooSlow where the block is after so long. In the main thread, as signals are."""
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("a deadline is for the main thread")

    def ring(*_: object) -> None:
        raise TooSlow

    handler = signal.signal(signal.SIGALRM, ring)
    timer = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, handler)
