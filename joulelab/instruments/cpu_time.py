"""The estimator for a host without a meter: idle power and a power for each busy processor."""

from __future__ import annotations

import os

from pydantic import BaseModel, ConfigDict, Field

from joulelab.errors import HardwareMissing
from joulelab.instruments.base import Block
from joulelab.options import Seconds, Watts
from joulelab.quantities import Channel, Kind, Origin, Scope, SensorModel
from joulelab.timebase import SECOND, Clock

STAT = "/proc/stat"
TICK_S = 0.01
"""The kernel counts CPU time in hundredths of a second (USER_HZ, proc(5)). The nanoseconds of /proc/schedstat are no
better: they advance only when a task leaves its processor, so that a second of computing arrives at its end."""
IDLE_W, BUSY_W = 0.74, 3.5
"""Power of an idle and of a busy logical processor [W], its share of the server included: the means over the processors
of AWS in SPECpower results, https://www.cloudcarbonfootprint.org/docs/methodology/ (GCP: 0.71 and 4.26)."""
GAIN_U_REL = (2 - 1 / 2) / 12**0.5
"""The true power is taken to lie within a factor of two either way, rectangular between the half and the double."""


class Driver:
    """`energy` [J], estimated as idle * time + core * busy, and `busy` [s], the CPU seconds used by the whole host.

    It holds nothing but time: an energy model fitted to it says what the time model says.
    """

    class Options(BaseModel):
        """`idle`: the host when idle [W]; `core`: what a busy logical processor adds [W]."""

        model_config = ConfigDict(extra="forbid", frozen=True)
        interval: Seconds = Field(default=TICK_S / 5, gt=0)
        idle: Watts = Field(default_factory=lambda: IDLE_W * (os.cpu_count() or 1), ge=0)
        core: Watts = Field(default=BUSY_W - IDLE_W, ge=0)

    driver = "cpu-time"

    def __init__(self, name: str, options: Options, clock: Clock) -> None:
        self.name, self.options = name, options.model_dump()
        self.interval_ns = round(options.interval * SECOND)
        self._idle, self._core, self._clock = options.idle, options.core, clock
        self._fd = -1
        model = SensorModel(period_s=TICK_S, resolution=TICK_S * options.core, gain_u_rel=GAIN_U_REL)
        self.channels = (
            Channel("energy", "J", Kind.COUNTER, Scope.ESTIMATE, Origin.ESTIMATED, model),
            Channel("busy", "s", Kind.COUNTER, sensor=SensorModel(period_s=TICK_S, resolution=TICK_S)),
        )

    def open(self) -> None:
        """Open /proc/stat; HardwareMissing where there is none."""
        try:
            self._fd = os.open(STAT, os.O_RDONLY)
        except FileNotFoundError:
            raise HardwareMissing(f"{self.name}: CPU time is read from {STAT}, which only Linux has") from None

    def read(self) -> Block:
        before = self._clock.now()
        busy = parse(os.pread(self._fd, 256, 0))
        after = self._clock.now()
        energy = self._idle * (before / SECOND) + self._core * busy
        return Block([before], [after], None, [[energy], [busy]])

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def parse(stat: bytes) -> float:
    """The CPU seconds used by all processors since boot, from the first line of /proc/stat (proc(5))."""
    user, nice, system, _idle, _iowait, irq, softirq = map(int, stat.split(maxsplit=8)[1:8])
    return (user + nice + system + irq + softirq) * TICK_S
