"""Power sensors that the kernel's hwmon drivers publish: graphics processors, power supplies, ACPI power meters."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import PurePosixPath

from pydantic import Field

from joulelab.errors import InstrumentFault
from joulelab.instruments.sysfs import HeldFile, Root, Source, SysfsMeter, SysfsOptions
from joulelab.options import Seconds
from joulelab.quantities import Channel, Scope, SensorModel

SCOPES = {
    "amdgpu": Scope.PACKAGE,
    "fam15h_power": Scope.PACKAGE,
    "power_meter": Scope.INPUT,
    "power total": Scope.INPUT,
    "power +12v": Scope.RAIL,
    "power +5v": Scope.RAIL,
    "power +3.3v": Scope.RAIL,
}
"""What a label (of a Corsair supply) or a chip measures, after the kernel's hwmon documentation; otherwise a board."""
GAIN_U_REL = 0.1 / 3**0.5
"""The interface states no accuracy. Assumed here: 10 % either way, rectangular."""


class Driver(SysfsMeter):
    """A gauge a `power*_input` and `power*_average` [W]; a sensor that cannot be read now is left out.

    So are power supplies and batteries, which the kernel shows here too: the driver `battery` knows their direction.
    """

    driver = "hwmon"
    missing = "no hwmon chip of this host measures power"

    class Options(SysfsOptions):
        interval: Seconds = Field(default=0.02, gt=0)
        root: Root = "/sys/class/hwmon"

    def find(self) -> Iterator[Source]:
        seen: Counter[str] = Counter()
        for folder in self.listed(f"{self.root}/hwmon*"):
            if b"POWER_SUPPLY_NAME=" in self.look(folder / "device" / "uevent").record:
                continue
            chip = self.look(folder / "name").text()
            seen[chip] += 1
            for path in self.listed(f"{folder}/power*_input", f"{folder}/power*_average"):
                if _works(self.look(path)):
                    yield self._channel(path, chip, seen[chip]), partial(self.hold(path).number, 1e-6)
        self.identity = {"chips": sorted(seen)}

    def _channel(self, path: PurePosixPath, chip: str, nth: int) -> Channel:
        """The channel `chip_power1_label`, or `chip2_...` for the second of that name: `hwmon2` changes at a boot."""
        sensor, suffix = path.name.rsplit("_", 1)
        label_file = self.look(path.with_name(f"{sensor}_label"))
        label = label_file.text() if label_file.readable else ""
        parts = [chip if nth == 1 else f"{chip}{nth}", path.name.removesuffix("_input"), label]
        name = re.sub(r"\W+", "_", "_".join(part for part in parts if part))
        interval = self.look(path.with_name(f"{sensor}_average_interval"))
        window_s = interval.number(1e-3) if suffix == "average" and interval.readable else 0.0
        model = SensorModel(period_s=window_s or None, window_s=window_s, resolution=1e-6, gain_u_rel=GAIN_U_REL)
        return Channel(name, "W", scope=SCOPES.get(label, SCOPES.get(chip, Scope.BOARD)), sensor=model)


def _works(file: HeldFile) -> bool:
    try:
        file.number(1e-6)
    except InstrumentFault:
        return False
    return True
