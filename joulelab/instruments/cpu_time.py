"""The estimator for a host without a meter: idle power and a power for each busy processor."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from pydantic import BaseModel, ConfigDict, Field

from joulelab.errors import InstrumentFault
from joulelab.instruments.base import Block
from joulelab.instruments.sysfs import FileMeter
from joulelab.options import Seconds, Watts
from joulelab.quantities import Channel, Kind, Origin, Scope, SensorModel
from joulelab.timebase import SECOND

STAT = PurePosixPath("/proc/stat")
ONLINE = PurePosixPath("/sys/devices/system/cpu/online")
TICK_S = 0.01
"""The kernel counts CPU time in hundredths of a second (USER_HZ, proc(5)). The nanoseconds of /proc/schedstat are no
better: they advance only when a task leaves its processor, so that a second of computing arrives at its end."""
IDLE_W, BUSY_W = 0.74, 3.5
"""Power of an idle and of a busy logical processor [W], its share of the server included: the means over the processors
of AWS in SPECpower results, https://www.cloudcarbonfootprint.org/docs/methodology/ (GCP: 0.71 and 4.26)."""
GAIN_U_REL = (2 - 1 / 2) / 12**0.5
"""The true power is taken to lie within a factor of two either way, rectangular between the half and the double."""


class Driver(FileMeter):
    """`energy` [J], estimated as idle * time + core * busy, and `busy` [s], the CPU seconds used by the whole host.

    It holds nothing but time: an energy model fitted to it says what the time model says.
    """

    class Options(BaseModel):
        """`idle`: the host when idle [W], where left out by the processors it has; `core`: what a busy one adds [W]."""

        model_config = ConfigDict(extra="forbid", frozen=True)
        interval: Seconds = Field(default=TICK_S / 5, gt=0)
        idle: Watts | None = Field(default=None, ge=0)
        core: Watts = Field(default=BUSY_W - IDLE_W, ge=0)

    driver = "cpu-time"

    def start(self) -> Sequence[Channel]:
        self._stat = self.hold(STAT)
        idle, core = self.options["idle"], self.options["core"]
        self.settings = {"idle_w": IDLE_W * processors(self.look(ONLINE).record) if idle is None else idle}
        model = SensorModel(period_s=TICK_S, resolution=TICK_S * core, gain_u_rel=GAIN_U_REL)
        return (
            Channel("energy", "J", Kind.COUNTER, Scope.ESTIMATE, Origin.ESTIMATED, model),
            Channel("busy", "s", Kind.COUNTER, sensor=SensorModel(period_s=TICK_S, resolution=TICK_S)),
        )

    def read(self) -> Block:
        reply, device = self.refresh()
        try:
            busy = parse(self._stat.record)
        except ValueError:
            self._stat.text()
            raise InstrumentFault(f"{self.name}: {STAT} does not begin with CPU times", transient=True) from None
        energy = self.settings["idle_w"] * (reply.before / SECOND) + self.options["core"] * busy
        return Block([reply.before], [reply.after], device, [[energy], [busy]])


def parse(stat: bytes) -> float:
    """The CPU seconds used by all processors since boot, from the first line of /proc/stat (proc(5)); or ValueError."""
    user, nice, system, _idle, _iowait, irq, softirq = map(int, stat.split(maxsplit=8)[1:8])
    return (user + nice + system + irq + softirq) * TICK_S


def processors(online: bytes) -> int:
    """How many are in a list of ranges such as `0-3,6`; at least one."""
    ranges = re.findall(rb"(\d{1,5})(?:-(\d{1,5}))?", online)
    return max(1, sum(int(last or first) - int(first) + 1 for first, last in ranges))
