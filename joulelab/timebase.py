"""Time on a bench host: one monotonic clock in integer nanoseconds, or a virtual one, and anchors to wall time."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import NewType, Protocol

BenchNs = NewType("BenchNs", int)
"""Nanoseconds on the bench host's clock; the only time that readings and phases are compared in."""
DeviceNs = NewType("DeviceNs", int)
"""Nanoseconds on the clock of an instrument or a device."""
WallNs = NewType("WallNs", int)
"""Nanoseconds since the Unix epoch; only ever in anchors."""

SECOND = 1_000_000_000


class Clock(Protocol):
    """The clock of a run; a run has exactly one."""

    virtual: bool

    def now(self) -> BenchNs: ...

    def sleep_until(self, t: BenchNs) -> None: ...


class MonotonicClock:
    """CLOCK_MONOTONIC plus a fixed offset (not 0 only where a run is resumed after a reboot)."""

    virtual = False

    def __init__(self, offset_ns: int = 0) -> None:
        self.offset_ns = offset_ns

    def now(self) -> BenchNs:
        return BenchNs(time.monotonic_ns() + self.offset_ns)

    def sleep_until(self, t: BenchNs) -> None:
        """Sleep to the absolute time `t` [ns]; return at once if it has passed."""
        if (left := t - self.now()) > 0:
            time.sleep(left / SECOND)


class VirtualClock:
    """A clock that moves only when told to: simulated and replayed runs take no real time."""

    virtual = True

    def __init__(self, start: int = 0) -> None:
        self._now = start

    def now(self) -> BenchNs:
        return BenchNs(self._now)

    def sleep_until(self, t: BenchNs) -> None:
        self._now = max(self._now, t)


@dataclass(frozen=True)
class Anchor:
    """The bench clock, time since boot with suspends, and wall-clock time, read together [ns]."""

    bench: BenchNs
    boot: int
    wall: WallNs
    boot_id: str

    @classmethod
    def read(cls, clock: Clock) -> Anchor:
        """Read all three; on a virtual clock the other two follow it, so that a run repeats to the byte."""
        now = clock.now()
        if clock.virtual:
            return cls(now, now, WallNs(now), "virtual")
        boot = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        return cls(now, boot, WallNs(time.time_ns()), Path("/proc/sys/kernel/random/boot_id").read_text().strip())


STEP_NS = 5_000_000
"""The smallest step or suspend that is called one [ns]."""
SLEW = 500e-6
"""The fastest that the kernel slews wall-clock time (adjtimex(2): 500 ppm)."""
DRIFT = 2e-4
"""How fast a crystal may run away from the bench clock: 100 ppm each, so 200 ppm of one another."""


def jumps(before: Anchor, after: Anchor) -> dict[str, int]:
    """What happened to the clocks between two anchors: `wall_step` and `suspend`, each in ns, only where one did."""
    bench, boot, wall = after.bench - before.bench, after.boot - before.boot, after.wall - before.wall
    found = {"suspend": boot - bench} if boot - bench > STEP_NS else {}
    if abs(wall - boot) > STEP_NS + SLEW * boot:
        found["wall_step"] = wall - boot
    return found
