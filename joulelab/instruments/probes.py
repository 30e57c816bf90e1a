"""Where readings stamped by another machine's clock lie on the bench clock, after probes that asked it for its time."""

from __future__ import annotations

from collections.abc import Callable

from joulelab.instruments.base import Meter
from joulelab.timebase import DRIFT, SECOND
from joulelab.transports.base import Reply

PROBE_NS = SECOND // 4
"""How often another machine's clock is asked for: 240 times a minute."""
BURST = 8
"""How many probes are made at the start, and at the most after a pause."""


class Prober:
    """Probes the clock that a polled meter is read through, between its readings, and journals what comes back.

    `ask` makes one: the reply and the far clock [ns], None where that is the bench's own. `unsure_ns`: how far off what
    it tells may be.
    """

    def __init__(self, meter: Meter, ask: Callable[[], tuple[Reply, int | None]], unsure_ns: int = 0) -> None:
        self._meter, self._ask, self._unsure_ns = meter, ask, unsure_ns
        self._due: int | None = None

    def catch_up(self, now: int) -> None:
        """Make the probes that are due; after a pause as many as one reading's interval holds."""
        most = max(BURST, (self._meter.interval_ns or 0) // PROBE_NS)
        self._due = now if self._due is None else max(self._due, now - most * PROBE_NS)
        while self._due <= now:
            self._due += PROBE_NS
            reply, device = self._ask()
            if device is None:
                return
            before, after = reply.before - self._unsure_ns, reply.after + self._unsure_ns
            self._meter.tell("probe", instrument=self._meter.name, before=before, after=after, device=device)


class ProbeClock:
    """Bounds on how far the bench clock is ahead of the other [ns], as narrow as the probes so far allow.

    A probe answered with `device` was sent at `before` and answered by `after`, so the clocks were between
    `before - device` and `after - device` apart. The bounds of older probes are widened by the drift since.
    """

    def __init__(self) -> None:
        self._at: int | None = None

    def note(self, before: int, device: int, after: int) -> None:
        """Take a probe [ns]. One that contradicts those before it begins anew: a clock was set, or slewed fast."""
        low, high = before - device, after - device
        if self._at is not None:
            old_low, old_high = self._widened(device)
            if max(low, old_low) <= min(high, old_high):
                low, high = max(low, old_low), min(high, old_high)
        self._low, self._high, self._at = low, high, device

    def bracket(self, device: int) -> tuple[int, int]:
        """The bench times between which the other clock showed `device` [ns]; there must have been a probe."""
        low, high = self._widened(device)
        return device + low, device + high

    def _widened(self, device: int) -> tuple[int, int]:
        assert self._at is not None
        drift = round(DRIFT * abs(device - self._at))
        return self._low - drift, self._high + drift
