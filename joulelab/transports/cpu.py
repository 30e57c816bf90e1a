"""A process's CPU time, asked for in the same stream of exchanges as its replies, so that a tape has both in order."""

from __future__ import annotations

import time

from joulelab.errors import InstrumentFault
from joulelab.timebase import Clock
from joulelab.transports.base import Reply, Transport

CPU = b"CPU"
"""The request for the CPU time; the reply is a decimal number [ns]."""


class CpuClock:
    """Answers `CPU` with the CPU time that process `pid` has used, and hands every other request to `inner`."""

    def __init__(self, inner: Transport, pid: int, clock: Clock) -> None:
        self._inner = inner
        self._pid = pid
        self._clock = clock

    def exchange(self, request: bytes = b"") -> Reply:
        if request != CPU:
            return self._inner.exchange(request)
        before = self._clock.now()
        return Reply(b"%d" % self._read(), before, self._clock.now())

    def close(self) -> None:
        self._inner.close()

    def _read(self) -> int:
        try:
            # clock_getcpuclockid(3), which Python lacks: how Linux numbers the CPU clock (CPUCLOCK_SCHED) of a process.
            return time.clock_gettime_ns((~self._pid << 3) | 2)
        except OSError as error:
            raise InstrumentFault(f"process {self._pid} has ended") from error
