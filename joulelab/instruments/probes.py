"""Where readings stamped by another machine's clock lie on the bench clock, after probes that asked it for its time."""

from __future__ import annotations

from joulelab.instruments.stream import DRIFT


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
