"""`driver: auto`: whatever sensors this host has, or the estimator where none gives energy."""

from __future__ import annotations

import math
from typing import Any

from pydantic import BaseModel, ConfigDict

from joulelab.errors import JoulelabError
from joulelab.instruments import battery, hwmon, nvml, powercap
from joulelab.instruments.base import Meter
from joulelab.timebase import MonotonicClock

SENSORS: dict[str, Any] = {
    "powercap": powercap.Driver,
    "nvml": nvml.Driver,
    "battery": battery.Driver,
    "hwmon": hwmon.Driver,
}


class Auto:
    """Stands in `lab.yaml` for several instruments. `refused` tells after `expand` why a sensor is not among them."""

    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

    def __init__(self) -> None:
        self.refused: dict[str, str] = {}

    def expand(self, name: str, options: dict[str, Any]) -> dict[str, tuple[str, dict[str, Any]]]:
        """The sensors that give power or energy now, `name-powercap` -> (driver, options), or only `name-cpu-time`."""
        self.Options.model_validate(options)
        for driver, made in SENSORS.items():
            if reason := refusal(made(f"{name}-{driver}", made.Options(), MonotonicClock())):
                self.refused[driver] = reason
        found = [driver for driver in SENSORS if driver not in self.refused] or ["cpu-time"]
        return {f"{name}-{driver}": (driver, {}) for driver in found}


def refusal(instrument: Meter) -> str | None:
    """Why an instrument gives no power or energy now; None where it does."""
    try:
        instrument.open()
        values = instrument.read().values
    except JoulelabError as error:
        return str(error)
    finally:
        instrument.close()
    readings = [value for channel, (value,) in zip(instrument.channels, values, strict=True) if channel.gives_energy]
    if any(map(math.isfinite, readings)):
        return None
    return f"{instrument.name}: no power or energy reading now (a battery gives one only while it discharges)"
