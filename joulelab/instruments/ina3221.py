"""The power monitors of a Jetson (INA3221, on Thor an INA238 too) through the kernel's files."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from joulelab.instruments.base import Check
from joulelab.instruments.sysfs import HeldFile, Root, Source, SysfsMeter
from joulelab.options import Seconds
from joulelab.quantities import Channel, SensorModel
from joulelab.recording.formats import jetson_rails
from joulelab.recording.formats.jetson_rails import Sense
from joulelab.recording.formats.tegrastats import NO_SENSOR
from joulelab.timebase import SECOND
from joulelab.transports.connection import Connection
from joulelab.transports.files import split

MODEL, COMPATIBLE = "/proc/device-tree/model", "/proc/device-tree/compatible"
"""Where a board tells its name, and what it is built on."""
SHUNT_LSB_V, SHUNT_OFFSET_V, BUS_OFFSET_V, GAIN = 40e-6, 80e-6, 16e-3, 0.0025
"""Maxima of the INA3221's data sheet (TI SBOS576); the gain error is that of current and of voltage, each."""
SHUNT_TOLERANCE = 0.01
"""The resistors are 1 % (NVIDIA DG-09840, figure 5-14, of AGX Xavier); taken for every board."""
WORST = Sense(2e-3, 20.0)
"""For rails whose resistor is not known: the least of the known boards, at the highest voltage."""
SCAN_S = 6.6e-3
"""A scan of three channels as the chip is after power-on (1.1 ms a conversion), where the kernel does not tell."""
INA238_GAIN_U_REL = math.hypot(0.001, 0.001, SHUNT_TOLERANCE) / 3**0.5
"""0.1 % of current and of voltage (TI SBOSA20), and the resistor; its offset is 5 uV, which is left out."""
CHIPS = ("ina3221/*/hwmon/hwmon*", "ina3221x/*/iio:device*", "ina238/*/hwmon/hwmon*")
"""JetPack 5 and newer, JetPack 4, Thor's carrier board."""
LABELS = ("in[1-3]_label", "rail_name_[0-2]")


def board(place: Connection) -> str | None:
    """The model of the Jetson at `place`; None where it is none."""
    files = place.files()
    try:
        _, (model, compatible) = split(files.exchange(f"cat {MODEL} {COMPATIBLE}".encode()).data)
    finally:
        files.close()
    return model.decode(errors="replace").strip("\0\n ") if b"nvidia,tegra" in compatible else None


def accuracy(sense: Sense) -> dict[str, float]:
    """The fields of a SensorModel for the power of a rail [W]: the data sheet's limits, each taken as rectangular."""
    watts_a_volt = sense.volts / sense.shunt_ohm
    return {
        "resolution": SHUNT_LSB_V * watts_a_volt,
        "gain_u_rel": math.hypot(GAIN, GAIN, BUS_OFFSET_V / sense.volts, SHUNT_TOLERANCE) / 3**0.5,
        "offset_u": SHUNT_OFFSET_V * watts_a_volt / 3**0.5,
    }


def summed(rails: Sequence[Channel]) -> Channel:
    """The channel `sum` of rails that are read together: their offsets are independent, their gains may not be."""
    sensors = [rail.sensor for rail in rails]
    offset_u = math.hypot(*(sensor.offset_u for sensor in sensors))
    gain_u_rel = max(sensor.gain_u_rel for sensor in sensors)
    return replace(rails[0], name="sum", sensor=replace(sensors[0], offset_u=offset_u, gain_u_rel=gain_u_rel))


class Driver(SysfsMeter):
    """A gauge a rail [W], by the rail's name, and their `sum` where it is asked for and none is a part of another.

    JetPack 5 and newer give voltage and current, each from the scan after it is asked for: the two of a reading are
    from different scans. Every file waits for a scan, so a reading takes two a rail; without an `interval` it is taken
    as often as that. Inputs that are not connected (NC) or disabled are left out, as is a chip's sum of currents.
    """

    driver = "ina3221"
    missing = "no power monitor of a Jetson"

    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)
        interval: Annotated[Seconds, Field(gt=0)] | None = None
        root: Root = "/sys/bus/i2c/drivers"
        sum: tuple[str, ...] = ()

    def find(self) -> Iterator[Source]:
        sources = list(self._rails())
        yield from sources
        if added := self.options["sum"]:
            jetson_rails.check_addable(self._module, [channel.name for channel, _ in sources], added)
            parts = [source for source in sources if source[0].name in added]
            yield summed([channel for channel, _ in parts]), lambda: math.fsum(read() for _, read in parts)

    def _rails(self) -> Iterator[Source]:
        folders = self.listed(*(f"{self.root}/{pattern}" for pattern in CHIPS))
        names = [name for folder in folders for name in self.listed(*(f"{folder}/{label}" for label in LABELS))]
        labels = {path: self.look(path).text() for path in names}
        model = self.look(PurePosixPath(MODEL))
        named = model.text().strip("\0") if model.readable else ""
        self._module = jetson_rails.identify(named, {*labels.values()} - {NO_SENSOR})
        self._wait_s = 0.0
        chips = sorted({folder.relative_to(self.root).parts[1] for folder in folders})
        self.identity = {"board": named, "module": self._module.name, "chips": chips}
        self.settings = {"samples": {}, "disabled": [], "unknown_rails": []}
        for path, rail in labels.items():
            if rail != NO_SENSOR:
                yield from self._rail(path, rail)
        for folder in folders:
            if folder.relative_to(self.root).parts[0] == "ina238":
                yield self._input(folder / "power1_input")
        if self.options["interval"] is None:
            self.interval_ns = round(self._wait_s * SECOND)

    def _rail(self, label: PurePosixPath, rail: str) -> Iterator[Source]:
        """A rail of an INA3221, unless it is disabled."""
        number = _number(label)
        voltage, current = ("in_voltage", "in_current") if label.name.startswith("rail") else ("in", "curr")
        paths = [label.with_name(f"{quantity}{number}_input") for quantity in (voltage, current)]
        if any(_disabled(self.look(path)) for path in paths):
            self.settings["disabled"].append(rail)
            return
        volts, amperes = map(self.hold, paths)
        if rail not in self._module.fed_by:
            self.settings["unknown_rails"].append(rail)
        sense = self._sense(label.with_name(f"shunt{number}_resistor"), rail, volts.number(1e-3))
        sensor = SensorModel(**self._timing(label.parent), **accuracy(sense))
        yield self._channel(rail, sensor), partial(_watts, volts, amperes)

    def _channel(self, rail: str, sensor: SensorModel) -> Channel:
        return Channel(rail, "W", scope=jetson_rails.scope(self._module, rail), sensor=sensor)

    def _sense(self, resistor: PurePosixPath, rail: str, volts: float) -> Sense:
        """A rail's resistor, from the kernel where that tells it, and its voltage as it is now (nominal at 0 V)."""
        known = self._module.sense.get(rail, WORST)
        file = self.look(resistor)
        return Sense(file.number(1e-6) if file.readable else known.shunt_ohm, volts or known.volts)

    def _timing(self, folder: PurePosixPath) -> dict[str, float]:
        """The fields of a SensorModel for the time that a reading is of [s].

        A chip that averages does it with a first-order filter, whose time constant is its update interval: the model
        has none, so a boxcar of the same mean age is stated.
        """
        samples, update = self.look(folder / "samples"), self.look(folder / "update_interval")
        count = int(samples.number(1)) if samples.readable else 1
        period_s = update.number(1e-3) if update.readable else SCAN_S
        self.settings["samples"][folder.relative_to(self.root).parts[1]] = count
        self._wait_s += 2 * period_s
        window_s = 2 * period_s if count > 1 else 0.0
        return {"period_s": period_s, "window_s": window_s, "delay_s": period_s / 2, "delay_u_s": period_s / 12**0.5}

    def _input(self, path: PurePosixPath) -> Source:
        """Thor's INA238, which gives power [uW]."""
        sensor = SensorModel(resolution=1e-6, gain_u_rel=INA238_GAIN_U_REL)
        return self._channel("VIN", sensor), partial(self.hold(path).number, 1e-6)

    @classmethod
    def doctor(cls, place: Connection) -> Iterator[Check]:
        if board(place) is not None:
            yield from super().doctor(place)


def _disabled(file: HeldFile) -> bool:
    """The chip's driver answers ENODATA or EIO for an input that is switched off."""
    return file.record.startswith((b"!No data available", b"!Input/output error"))


def _number(label: PurePosixPath) -> str:
    return "".join(filter(str.isdigit, label.name))


def _watts(volts: HeldFile, amperes: HeldFile) -> float:
    return volts.number(1e-3) * amperes.number(1e-3)
