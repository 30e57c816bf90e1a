"""PZEM-004T v3, a mains meter that answers Modbus RTU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic import BaseModel, ConfigDict, Field
from pymodbus.exceptions import ModbusException
from pymodbus.framer import FramerRTU
from pymodbus.pdu import DecodePDU
from pymodbus.pdu.register_message import ReadInputRegistersRequest, ReadInputRegistersResponse

from joulelab.errors import DataInvalid, HardwareMissing, InstrumentFault
from joulelab.instruments.base import Block, Check, Found, Meter
from joulelab.instruments.serial_meters import check_ports, parsing, probe
from joulelab.options import Seconds
from joulelab.quantities import Channel, Kind, SensorModel
from joulelab.transports.base import Transport
from joulelab.transports.connection import Connection
from joulelab.transports.serial_port import SerialTransport, collect

REGISTERS = 10
REPLY, REFUSAL = 25, 5
"""Bytes of a reply, and of one that refuses."""
RANGES = {"voltage": (80, 260), "power": (0, 23_000), "frequency": (45, 65), "power_factor": (0, 1)}
"""What the data sheet says that it can measure."""


def _sensor(limit: float, step: float) -> SensorModel:
    """Limits of the data sheet ("PZEM-004T V3.0 User Manual", 1.1 to 1.6), of the reading."""
    return SensorModel(gain_u_rel=limit / 3**0.5, resolution=step)


CHANNELS = (
    Channel("power", "W", sensor=_sensor(0.005, 0.1)),
    Channel("energy", "J", Kind.COUNTER, sensor=_sensor(0.005, 3600.0)),
    Channel("voltage", "V", sensor=_sensor(0.005, 0.1)),
    Channel("current", "A", sensor=_sensor(0.005, 0.001)),
    Channel("frequency", "Hz", sensor=_sensor(0.005, 0.1)),
    Channel("power_factor", "1", sensor=_sensor(0.01, 0.01)),
)


def request(address: int) -> bytes:
    """The frame that asks a meter for all that it measures."""
    return _framer().buildFrame(ReadInputRegistersRequest(address=0, count=REGISTERS, dev_id=address))


def parse(frame: bytes, address: int) -> tuple[dict[str, float], bool]:
    """The channels in their units and whether the power alarm is on; DataInvalid where it is no reply."""
    try:
        _, pdu = _framer().handleFrame(frame, address, 0)
    except (ModbusException, IndexError, ValueError) as error:
        raise DataInvalid(f"garbled reply {frame[:REPLY].hex()}: {error}") from None
    if not isinstance(pdu, ReadInputRegistersResponse) or len(pdu.registers) != REGISTERS:
        raise DataInvalid(f"a garbled reply, or a refusal: {frame[:REPLY].hex()}")
    r = pdu.registers
    values = {
        "power": (r[3] | r[4] << 16) / 10,
        "energy": (r[5] | r[6] << 16) * 3600.0,
        "voltage": r[0] / 10,
        "current": (r[1] | r[2] << 16) / 1000,
        "frequency": r[7] / 10,
        "power_factor": r[8] / 100,
    }
    for name, (low, high) in RANGES.items():
        if not low <= values[name] <= high:
            raise DataInvalid(f"a {name.replace('_', ' ')} of {values[name]:g} is none that a PZEM-004T measures")
    return values, r[9] != 0


class Driver(Meter):
    """Several meters on one adapter are not supported: each needs a port of its own."""

    driver = "serial/pzem-004t"
    bench_meter = True

    class Options(BaseModel):
        """`address` as set in the meter; 248 is answered by any, so it suits a meter that is alone on its wires."""

        model_config = ConfigDict(extra="forbid", frozen=True)
        port: str
        address: int = Field(default=248, ge=1, le=248)
        interval: Seconds = Field(default=1.0, ge=0.1)

    def connect(self) -> Transport:
        return SerialTransport(self.options["port"], self.clock, baud=9600)

    def start(self) -> Sequence[Channel]:
        self._alarm = False
        self._request = request(self.options["address"])
        try:
            self.read()
        except InstrumentFault as fault:
            raise HardwareMissing(f"no PZEM-004T v3 answers: {fault}") from None
        self.identity = {"model": "PZEM-004T v3", "address": self.options["address"]}
        return CHANNELS

    def read(self) -> Block:
        reply = collect(self.exchange, self._request, _complete)
        with parsing(self.name):
            values, alarm = parse(reply.data, self.options["address"])
        if alarm and not self._alarm:
            self.tell(
                "fault", source=self.name, message="power alarm: the load is above the threshold set in the meter"
            )
        self._alarm = alarm
        return Block([reply.before], [reply.after], None, [[values[channel.name]] for channel in CHANNELS])

    @classmethod
    def discover(cls, place: Connection, address: str | None) -> Iterator[Found]:
        yield from probe(cls, "pzem", place, address)

    @classmethod
    def doctor(cls, place: Connection) -> Iterator[Check]:
        yield from check_ports(place)


def _framer() -> FramerRTU:
    return FramerRTU(DecodePDU(is_server=False))


def _complete(data: bytes) -> bool:
    return len(data) >= (REFUSAL if data[1:2] == b"\x84" else REPLY)
