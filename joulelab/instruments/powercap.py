"""RAPL through the powercap files: the processor's own energy counters."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from pydantic import Field

from joulelab.errors import HardwareMissing
from joulelab.instruments.sysfs import Source, SysfsMeter, SysfsOptions
from joulelab.options import Seconds
from joulelab.quantities import Channel, Kind, Scope, SensorModel

GAIN_U_REL = 0.2 / 3**0.5
"""RAPL is a model on most processors and no data sheet states its accuracy. Validations find it to follow the measured
power up to offsets that differ between machines (Desrochers et al., MEMSYS 2016, doi 10.1145/2989081.2989088; Khan et
al., ToMPECS 2018, doi 10.1145/3177754). Assumed here: 20 % either way, rectangular."""


class Driver(SysfsMeter):
    """A counter a domain [J], wrapped as the processor wraps it: packages, `psys` (the platform), and their parts.

    The register counts 2**32 steps of 61 uJ (15.3 uJ for server memory) about once a millisecond and wraps at
    `max_energy_range_uj`. Its MMIO twin (`intel-rapl-mmio`) counts the same energy again and is left out.
    """

    driver = "powercap"
    missing = "this host has no RAPL; `sudo modprobe intel_rapl_msr` loads it where the processor has it"

    class Options(SysfsOptions):
        interval: Seconds = Field(default=0.001, gt=0)
        root: str = "/sys/class/powercap"

    def find(self) -> Iterator[Source]:
        for zone in sorted(self._root.glob("intel-rapl:*")):
            try:
                energy = self.hold(zone / "energy_uj")
            except PermissionError:
                mend = f"`sudo chmod a+r {self._root}/intel-rapl:*/energy_uj` lets everybody"
                raise HardwareMissing(f"{self.name}: only root may read {zone}/energy_uj; {mend}") from None
            read = partial(energy.number, 1e-6)
            if read() > 0:  # a domain that the processor lacks stands at zero for ever
                yield _channel(zone), read


def _channel(zone: Path) -> Channel:
    wrap = int((zone / "max_energy_range_uj").read_text()) * 1e-6
    sensor = SensorModel(period_s=0.001, resolution=wrap / 2**32, gain_u_rel=GAIN_U_REL, wrap=wrap)
    name = (zone / "name").read_text().strip()
    package, _, part = zone.name.removeprefix("intel-rapl:").partition(":")
    if part:
        name = (zone.parent / f"intel-rapl:{package}" / "name").read_text().strip() + f"-{name}"
        return Channel(name, "J", Kind.COUNTER, Scope.RAIL, sensor=sensor)
    return Channel(name, "J", Kind.COUNTER, Scope.BOARD if name == "psys" else Scope.PACKAGE, sensor=sensor)
