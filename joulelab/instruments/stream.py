"""Readings that come one way with a clock of their own: where they lie on the bench clock."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from joulelab.errors import InstrumentFault
from joulelab.timebase import DRIFT, SECOND
from joulelab.transports.base import Reply

Stamps = NDArray[np.int64]


class StreamClock:
    """Brackets for readings whose device time is known, of which only the arrivals are seen.

    A reading cannot arrive before it was taken, so the least that bench time was ever ahead of the device's own stamp,
    plus what the clocks may have drifted since, bounds its time from above. From below it is bounded by `latency_s`,
    the longest that the fastest delivery takes, which the driver states. Stamps that are cut off to `resolution_s` may
    be that much too early.
    """

    def __init__(self, name: str, latency_s: float, resolution_s: float = 0.0) -> None:
        self._name = name
        self._latency_ns, self._resolution_ns = round(latency_s * SECOND), round(resolution_s * SECOND)
        self._last: int | None = None

    def bracket(self, device_ns: Stamps, reply: Reply) -> tuple[Stamps, Stamps]:
        """`before` and `after` [n] of readings taken at `device_ns` [n], rising, that came with `reply`.

        A transient InstrumentFault where the device's clock has gone back: the readings after that start a new map.
        """
        newest = int(device_ns[-1])
        ahead = reply.after - newest
        if self._last is None:
            self._ahead = ahead
        elif int(device_ns[0]) < self._last:
            self._last = None
            raise InstrumentFault(f"{self._name}: its clock went back, so it was restarted", transient=True)
        else:
            self._ahead = min(self._ahead + round(DRIFT * (newest - self._last)), ahead)
        self._last = newest
        come = device_ns + self._ahead
        return come - self._latency_ns - self._resolution_ns, come + self._resolution_ns
