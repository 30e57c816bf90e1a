"""The laptop's battery: what the computer draws while it runs on it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import PurePosixPath

from pydantic import Field

from joulelab.instruments.sysfs import HeldFile, Root, Source, SysfsMeter, SysfsOptions
from joulelab.options import Seconds
from joulelab.quantities import Channel, Scope, SensorModel

SENSOR = SensorModel(period_s=1.0, resolution=1e-3, gain_u_rel=0.1 / 3**0.5)
"""The kernel asks the ACPI firmware at most once a second (`cache_time` of its battery driver), in mW. Nobody states
the gauge's accuracy; assumed here: 10 % either way, rectangular."""


class Driver(SysfsMeter):
    """A gauge a battery [W], positive when drawn; no reading (NaN) unless it is discharging.

    Drivers disagree on the sign of a current (the kernel's text says negative when discharging, many report positive),
    so the direction is taken from `status`.
    """

    driver = "battery"
    missing = "this host has no battery that tells its power or its current and voltage"

    class Options(SysfsOptions):
        interval: Seconds = Field(default=0.2, gt=0)
        root: Root = "/sys/class/power_supply"

    def find(self) -> Iterator[Source]:
        self.identity = {}
        for folder in self.listed(f"{self.root}/BAT*"):
            for names, scale in ((["power_now"], 1e-6), (["current_now", "voltage_now"], 1e-12)):
                if all(self.look(folder / name).readable for name in names):
                    status, *factors = [self.hold(folder / name) for name in ["status", *names]]
                    self.identity[folder.name] = self._make(folder)
                    yield (
                        Channel(folder.name, "W", scope=Scope.BATTERY, sensor=SENSOR),
                        partial(drawn, status, factors, scale),
                    )
                    break

    def _make(self, folder: PurePosixPath) -> str:
        """Manufacturer, model and serial number, as far as the battery tells."""
        told = [self.look(folder / name) for name in ("manufacturer", "model_name", "serial_number")]
        return " ".join(file.text() for file in told if file.readable)


def drawn(status: HeldFile, factors: Sequence[HeldFile], scale: float) -> float:
    """The power drawn [W], the product of `factors` times `scale`; NaN unless `status` says Discharging."""
    if status.text() != "Discharging":
        return math.nan
    return abs(math.prod(factor.number(1.0) for factor in factors)) * scale
