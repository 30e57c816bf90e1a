"""RDTech UM24C, UM25C and UM34C, inline USB meters behind a Bluetooth serial port."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from joulelab.errors import DataInvalid, HardwareMissing, InstrumentFault
from joulelab.instruments.base import Block, Check, Found, Meter
from joulelab.instruments.serial_meters import check_ports, parsing, probe
from joulelab.options import Seconds
from joulelab.quantities import Channel, Kind, SensorModel
from joulelab.transports.base import Reply, Transport
from joulelab.transports.connection import Connection
from joulelab.transports.serial_port import SerialTransport, collect

REQUEST = b"\xf0"
SIZE = 130
USB_V = 5.0
"""What USB has unless more is negotiated, and then the offset of the current weighs more than is stated here."""


class Model(NamedTuple):
    """Steps of a model's display [V, A], and the limits of its error, of the reading and in steps (maker's manuals)."""

    name: str
    volt: float
    amp: float
    volt_limit: tuple[float, int]
    amp_limit: tuple[float, int]


MODELS = {
    0x0963: Model("UM24C", 0.01, 0.001, (0.005, 2), (0.008, 3)),
    0x09C9: Model("UM25C", 0.001, 0.0001, (0.0005, 2), (0.001, 4)),
    0x0D4C: Model("UM34C", 0.01, 0.001, (0.005, 2), (0.008, 3)),
}


def parse(frame: bytes) -> tuple[Model, dict[str, float]]:
    """The meter's model, and its channels in their units; DataInvalid where this is no such frame.

    The frame has no check sum that is known, so the power is held against voltage and current.
    """
    if len(frame) != SIZE:
        raise DataInvalid(f"a frame of {len(frame)} bytes, not {SIZE}")
    word, volts, amps, milliwatts, celsius, _, group = struct.unpack_from(">HHHIHHH", frame)
    model = MODELS.get(word)
    if model is None:
        raise DataInvalid(f"0x{word:04x} stands for none of {', '.join(model.name for model in MODELS.values())}")
    if group > 9:
        raise DataInvalid(f"a garbled frame: group {group}, but there are 0 to 9")
    milliwatt_hours = struct.unpack_from(">I", frame, 20 + 8 * group)[0]
    values = {
        "power": milliwatts * 1e-3,
        "energy": milliwatt_hours * 3.6,
        "voltage": volts * model.volt,
        "current": amps * model.amp,
        "temperature": float(celsius),
    }
    _check_power(model, values)
    return model, values


def _check_power(model: Model, values: dict[str, float]) -> None:
    power, volts, amps = values["power"], values["voltage"], values["current"]
    if abs(power - volts * amps) > 0.001 + 2 * (volts * model.amp + amps * model.volt):
        raise DataInvalid(f"a garbled frame: {power:g} W is not {volts:g} V times {amps:g} A")


def channels(model: Model) -> tuple[Channel, ...]:
    """Limits of the power: those of voltage and current added up, as both may err in one direction."""
    voltage, current = _sensor(model.volt, *model.volt_limit), _sensor(model.amp, *model.amp_limit)
    gain = voltage.gain_u_rel + current.gain_u_rel
    offset = USB_V * current.offset_u
    return (
        Channel("power", "W", sensor=SensorModel(resolution=1e-3, gain_u_rel=gain, offset_u=offset)),
        Channel("energy", "J", Kind.COUNTER, sensor=SensorModel(resolution=3.6, gain_u_rel=gain)),
        Channel("voltage", "V", sensor=voltage),
        Channel("current", "A", sensor=current),
        Channel("temperature", "degC", sensor=SensorModel(resolution=1.0)),
    )


def _sensor(step: float, of_reading: float, steps: int) -> SensorModel:
    return SensorModel(resolution=step, gain_u_rel=of_reading / 3**0.5, offset_u=steps * step / 3**0.5)


class Driver(Meter):
    """`energy` is the counter of the data group that is shown; changing or clearing the group resets it."""

    driver = "serial/um34c"
    bench_meter = True

    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)
        port: str
        interval: Seconds = Field(default=0.5, ge=0.2)

    def connect(self) -> Transport:
        return SerialTransport(self.options["port"], self.clock, baud=9600)

    def start(self) -> Sequence[Channel]:
        try:
            _, self._model, _ = self._frame()
        except InstrumentFault as fault:
            raise HardwareMissing(f"no UM24C, UM25C or UM34C answers: {fault}") from None
        self.identity = {"model": self._model.name}
        return channels(self._model)

    def read(self) -> Block:
        reply, model, values = self._frame()
        if model != self._model:
            raise InstrumentFault(f"{self.name}: a {model.name} answers, not the {self._model.name}", transient=True)
        return Block([reply.before], [reply.after], None, [[value] for value in values.values()])

    def _frame(self) -> tuple[Reply, Model, dict[str, float]]:
        reply = collect(self.exchange, REQUEST, lambda data: len(data) >= SIZE)
        with parsing(self.name):
            return reply, *parse(reply.data)

    @classmethod
    def discover(cls, place: Connection, address: str | None) -> Iterator[Found]:
        yield from probe(cls, "usb-meter", place, address)

    @classmethod
    def doctor(cls, place: Connection) -> Iterator[Check]:
        yield from check_ports(place)
