"""RAPL through the powercap files: the processor's own energy counters."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import PurePosixPath

from pydantic import Field

from joulelab.errors import InstrumentFault
from joulelab.instruments.sysfs import HeldFile, Root, Source, SysfsMeter, SysfsOptions
from joulelab.options import Seconds
from joulelab.quantities import Channel, Kind, Scope, SensorModel
from joulelab.timebase import SECOND, BenchNs

GAIN_U_REL = 0.2 / 3**0.5
"""RAPL is a model on most processors and no data sheet states its accuracy. Validations find it to follow the measured
power up to offsets that differ between machines (Desrochers et al., MEMSYS 2016, doi 10.1145/2989081.2989088; Khan et
al., ToMPECS 2018, doi 10.1145/3177754). Assumed here: 20 % either way, rectangular."""
PERIOD_S = 0.001
MOST_W = 10e3
"""More than any domain draws: a counter that gained more was reset, or another one answered."""
JUMPS = 10
"""So many jumps are no resets any more."""
VENDORS = ("GenuineIntel", "AuthenticAMD", "HygonGenuine")
CPUINFO = PurePosixPath("/proc/cpuinfo")


class Driver(SysfsMeter):
    """A counter a domain [J], wrapped as the processor wraps it: packages, `psys` (the platform), and their parts.

    The register counts 2**32 steps of 61 uJ (15.3 uJ for server memory) about once a millisecond and wraps at
    `max_energy_range_uj`. Its MMIO twin (`intel-rapl-mmio`) counts the same energy again and is left out.
    """

    driver = "powercap"
    jumps = 0

    class Options(SysfsOptions):
        interval: Seconds = Field(default=0.001, gt=0)
        root: Root = "/sys/class/powercap"

    def find(self) -> Iterator[Source]:
        for zone in self.listed(f"{self.root}/intel-rapl:*"):
            energy = self.look(zone / "energy_uj")
            if energy.readable and energy.number(1.0) == 0:  # a domain that the processor lacks stands at zero for ever
                continue
            wrap = self.look(zone / "max_energy_range_uj").number(1e-6)
            yield self._channel(zone, wrap), Counter(self, self.hold(energy.path), wrap).read
        self.identity = {"processor": model(self.look(CPUINFO).record)}

    def permit(self, path: PurePosixPath) -> str:
        return f"sudo chmod a+r {self.root}/intel-rapl:*/{path.name}"

    def absent(self) -> tuple[str, str]:
        return no_rapl(self.look(CPUINFO).record)

    def _channel(self, zone: PurePosixPath, wrap: float) -> Channel:
        sensor = SensorModel(period_s=PERIOD_S, resolution=wrap / 2**32, gain_u_rel=GAIN_U_REL, wrap=wrap or None)
        name = self.look(zone / "name").text()
        package, _, part = zone.name.removeprefix("intel-rapl:").partition(":")
        if part:
            name = f"{self.look(zone.parent / f'intel-rapl:{package}' / 'name').text()}-{name}"
            return Channel(name, "J", Kind.COUNTER, Scope.RAIL, sensor=sensor)
        return Channel(name, "J", Kind.COUNTER, Scope.BOARD if name == "psys" else Scope.PACKAGE, sensor=sensor)


class Counter:
    """A domain's counter [J], watched for jumps that no draw of power explains.

    It jumps once where it was reset (as by some suspends): what was used across the jump is told to be unknown. It
    jumps again and again where two counters take turns, as guests of Xen saw them: then none of it can be trusted.
    """

    def __init__(self, meter: Driver, file: HeldFile, wrap: float) -> None:
        self._meter, self._file, self._wrap = meter, file, wrap or math.inf
        self._joules, self._at = file.number(1e-6), meter.asked

    def read(self) -> float:
        joules, at = self._file.number(1e-6), self._meter.asked
        seconds = (at - self._at) / SECOND + 10 * PERIOD_S
        if (joules - self._joules) % self._wrap > MOST_W * seconds:
            self._tell(
                f"{self._file.path} went from {self._joules:.6f} to {joules:.6f} J in less than {seconds:.3g} s", at
            )
        self._joules, self._at = joules, at
        return joules

    def _tell(self, message: str, at: BenchNs) -> None:
        meter = self._meter
        meter.jumps += 1
        if meter.jumps >= JUMPS:
            raise InstrumentFault(f"{meter.name}: {message}, again: this host's RAPL cannot be trusted, leave it out")
        meter.tell("fault", source=meter.name, message=f"{meter.name}: {message}: it was reset")
        meter.tell("overrange", instrument=meter.name, start=self._at, stop=at, message=message)


def model(cpuinfo: bytes) -> str:
    """The processor's name, from the first lines of /proc/cpuinfo; empty where it has none."""
    return _fields(cpuinfo).get("model name", "")


def no_rapl(cpuinfo: bytes) -> tuple[str, str]:
    """Why a host with such a /proc/cpuinfo shows no RAPL, and the command that mends it."""
    fields = _fields(cpuinfo)
    if "hypervisor" in fields.get("flags", "").split():
        return "this host is a virtual machine, which is shown no RAPL: measure on the machine below it", ""
    if fields.get("vendor_id", "") in VENDORS:
        return "this host shows no RAPL: where its processor has it, this loads it", "sudo modprobe intel_rapl_msr"
    return "this host has no RAPL: only processors by Intel and AMD have", ""


def _fields(cpuinfo: bytes) -> dict[str, str]:
    """Those of the first processor."""
    lines = cpuinfo.decode(errors="replace").partition("\n\n")[0].splitlines()
    pairs = [line.partition(":") for line in lines]
    return {key.strip(): value.strip() for key, _, value in pairs}
