"""RAPL through the kernel's perf events: the counters of powercap, for who may open events but not those files."""

from __future__ import annotations

import ctypes
import os
import re
import struct
from collections.abc import Iterator
from functools import partial
from pathlib import PurePosixPath

from pydantic import Field

from joulelab.errors import InstrumentFault
from joulelab.instruments import powercap
from joulelab.instruments.sysfs import Root, Source, SysfsMeter, SysfsOptions
from joulelab.options import Seconds
from joulelab.quantities import Channel, Kind, Scope, SensorModel
from joulelab.timebase import Clock
from joulelab.transports.agent import MARK
from joulelab.transports.base import Reply, Transport

PARTS = {"pkg": "", "cores": "-core", "gpu": "-uncore", "ram": "-dram"}
"""What an event counts, by its name after `energy-`, as powercap ends the name of that domain of a package."""
PERF_EVENT_OPEN = 298
"""The system call on x86-64, which RAPL is bound to."""
ATTR_SIZE = 64
"""Of struct perf_event_attr in its first version (perf_event_open(2)): type, size, config, and what may stay 0."""
CLOSE_ON_EXEC = 8


class Driver(SysfsMeter):
    """A counter a package, one for each of its parts, and `psys` (the platform) [J], from 0 at each opening on.

    The kernel extends them to 64 bits of 2**-32 J: they do not wrap.
    """

    driver = "rapl-perf"

    class Options(SysfsOptions):
        interval: Seconds = Field(default=0.001, gt=0)
        root: Root = "/sys/bus/event_source/devices/power"

    def connect(self) -> Transport:
        if self.place.url != "local":
            raise self.refuse(f"perf events are read on this machine only; {self.place.url} may have powercap")
        return PerfFiles(super().connect(), self.clock)

    def find(self) -> Iterator[Source]:
        processors = self.listed(f"{self.root}/cpumask")
        packages = re.findall(r"\d+", self.look(processors[0]).text()) if processors else []
        for event in self.listed(f"{self.root}/events/energy-*"):
            if not event.suffix:
                joules = self._joules(event)
                for package, processor in enumerate(packages):
                    counter = self.hold(PurePosixPath(f"{self._address(event)}:{processor}"))
                    yield named(event.name, package, joules), partial(counter.number, joules)
        self.identity = {"processor": powercap.model(self.look(powercap.CPUINFO).record)}

    def permit(self, path: PurePosixPath) -> str:
        return "sudo sysctl kernel.perf_event_paranoid=0"

    def absent(self) -> tuple[str, str]:
        why, _ = powercap.no_rapl(self.look(powercap.CPUINFO).record)
        return why, "sudo modprobe rapl" if "loads it" in why else ""

    def _joules(self, event: PurePosixPath) -> float:
        """What a count is worth [J]."""
        scale, unit = (self.look(event.with_name(f"{event.name}.{what}")).text() for what in ("scale", "unit"))
        try:
            if unit == "Joules":
                return float(scale)
        except ValueError:
            pass
        raise InstrumentFault(f"{self.name}: {event} counts in {scale} {unit}, not in joules")

    def _address(self, event: PurePosixPath) -> str:
        kind, text = self.look(self.root / "type").text(), self.look(event).text()
        config = re.fullmatch(r"event=(0x[0-9a-fA-F]{1,8})", text)
        if not (kind.isdecimal() and config):
            raise InstrumentFault(f"{self.name}: {event} of type {kind!r} holds {text!r}, not `event=0x...`")
        return f"perf:{kind}:{int(config[1], 16)}"


def named(event: str, package: int, joules: float) -> Channel:
    """The channel of an event, named as powercap names that domain."""
    what = event.removeprefix("energy-")
    sensor = SensorModel(period_s=powercap.PERIOD_S, resolution=joules, gain_u_rel=powercap.GAIN_U_REL)
    if what == "psys":
        return Channel(what, "J", Kind.COUNTER, Scope.BOARD, sensor=sensor)
    scope = Scope.PACKAGE if what == "pkg" else Scope.RAIL
    return Channel(f"package-{package}{PARTS.get(what, f'-{what}')}", "J", Kind.COUNTER, scope, sensor=sensor)


class PerfFiles:
    """Counters of perf events as files: `cat perf:TYPE:CONFIG:PROCESSOR...`, what else is asked is for `inner`."""

    def __init__(self, inner: Transport, clock: Clock) -> None:
        self._inner, self._clock = inner, clock
        self._held: dict[bytes, int] = {}

    def exchange(self, request: bytes = b"") -> Reply:
        _, *paths = request.split()
        if not paths[0].startswith(b"perf:"):
            return self._inner.exchange(request)
        before = self._clock.now()
        records = [self._count(path) for path in paths]
        return Reply(MARK + b"".join(record + MARK for record in records), before, self._clock.now())

    def close(self) -> None:
        while self._held:
            os.close(self._held.popitem()[1])
        self._inner.close()

    def _count(self, path: bytes) -> bytes:
        try:
            if path not in self._held:
                self._held[path] = opened(*map(int, path.split(b":")[1:]))
            return b"%d" % int.from_bytes(os.read(self._held[path], 8), "little")
        except OSError as error:
            return f"!{error.strerror}".encode()


def opened(kind: int, config: int, processor: int) -> int:
    """The descriptor of an event that counts everything on one processor; OSError where it cannot be had."""
    attributes = struct.pack("IIQ", kind, ATTR_SIZE, config).ljust(ATTR_SIZE, b"\0")
    every_task, no_group = -1, -1
    numbers = [ctypes.c_long(n) for n in (every_task, processor, no_group, CLOSE_ON_EXEC)]
    descriptor: int = ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(PERF_EVENT_OPEN), attributes, *numbers)
    if descriptor < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return descriptor
