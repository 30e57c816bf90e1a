"""A part of a recording has so much time and no more; a signal to end ends the recording."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from joulelab.errors import RunAborted

GRACE_S = 10.0
"""An inference that is under way, or an engine that still loads, gets this much longer."""


class Ended(RunAborted):
    """The recording is to end, not just a part of it."""


@contextmanager
def limited(seconds: float) -> Iterator[Callable[[], bool]]:
    """What a runner asks whether to stop, and is told with RunAborted once the time is up.

    `GRACE_S` later RunAborted ends what is still under way; on TERM and INT, Ended does.
    """
    end = time.monotonic() + seconds
    handlers = {signal.SIGALRM: _overdue, signal.SIGTERM: _ended, signal.SIGINT: _ended}
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.0) + GRACE_S)
    try:
        yield partial(_check, end)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        for number, handler in previous.items():
            signal.signal(number, handler)


def _check(end: float) -> bool:
    if time.monotonic() > end:
        raise RunAborted("its time was up; what it has is kept")
    return False


def _overdue(_number: int, _frame: object) -> None:
    raise RunAborted("ended in the middle of a step: its time was up")


def _ended(number: int, _frame: object) -> None:
    raise Ended(f"ended by {signal.Signals(number).name}")
