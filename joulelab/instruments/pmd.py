"""Elmor Labs PMD-USB: voltage and current of four 12 V connectors, thousands of times a second."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from joulelab.errors import HardwareMissing, InstrumentFault, JoulelabError
from joulelab.instruments.base import Block, Check, Found, Meter
from joulelab.instruments.serial_meters import check_ports
from joulelab.instruments.stream import StreamClock
from joulelab.quantities import Channel, SensorModel
from joulelab.recording.formats.elmor_pmd import AMPS, CONNECTORS, TICK_HZ, VOLTS, WRAP, Parser, elapsed
from joulelab.timebase import SECOND, BenchNs, Clock, MonotonicClock
from joulelab.transports.base import Reply, Transport
from joulelab.transports.connection import Connection
from joulelab.transports.serial_port import SerialTransport, collect, is_port

WELCOME, IDENTITY, CONFIG = b"\x00", b"\x01", b"\x04"
HELLO = b"ElmorLabs PMD-USB"
PRODUCT = b"\xee\x0a"
STOP, START = b"\x07\x00\x00\x00", b"\x07\x01\x02\xff"
"""Continuous transmission: off or on, bytes of the tick, mask of the channels (the maker's example program)."""
CONFIG_SIZE = 26
POWER_UP_BAUD = 115_200
SETTLE_S = 1.0
"""How long the maker's example waits for a new rate."""
GATHER_S, LATENCY_S = 0.005, 0.003
"""How long a piece of the stream is; how long the meter, its USB chip and the host keep the newest frame."""
LIMIT = 0.01
"""The maker publishes no accuracy. Assumed: 1 % of the reading and 2 steps each for voltage and current."""
PERIOD_S = {2_000_000: 1 / 4890, POWER_UP_BAUD: 18 * 10 / POWER_UP_BAUD}


def _sensors(period_s: float) -> Iterator[tuple[str, str, SensorModel]]:
    gain, steps = LIMIT / 3**0.5, 2 / 3**0.5
    yield "power", "W", SensorModel(period_s, resolution=12 * AMPS, gain_u_rel=2 * gain, offset_u=12 * steps * AMPS)
    yield "voltage", "V", SensorModel(period_s, resolution=VOLTS, gain_u_rel=gain, offset_u=steps * VOLTS)
    yield "current", "A", SensorModel(period_s, resolution=AMPS, gain_u_rel=gain, offset_u=steps * AMPS)


class Driver(Meter):
    """Power, voltage and current of each connector, which are cables of their own: their powers may be added up."""

    driver = "serial/elmor-pmd"
    bench_meter = True
    wire = False

    class Options(BaseModel):
        """At 115,200 baud the port carries 640 frames a second, at 2,000,000 the 4,890 that the meter makes."""

        model_config = ConfigDict(extra="forbid", frozen=True)
        port: str
        baud: Literal[115_200, 2_000_000] = 2_000_000

    def connect(self) -> Transport:
        """The port, at the rate that the meter is set to."""
        port, baud = self.options["port"], self.options["baud"]
        if baud != POWER_UP_BAUD and not _answers(port, self.clock, baud):
            transport = SerialTransport(port, self.clock, POWER_UP_BAUD)
            transport.exchange(STOP + _baud(baud))
            self.clock.sleep_until(BenchNs(self.clock.now() + round(SETTLE_S * SECOND)))
            transport.close()
        return SerialTransport(port, self.clock, baud, gather_s=GATHER_S)

    def start(self) -> Sequence[Channel]:
        self.exchange(STOP)
        try:
            collect(self.exchange, WELCOME, lambda data: HELLO in data)
            reply = collect(self.exchange, IDENTITY, lambda data: PRODUCT in data[:-1])
            config = collect(self.exchange, CONFIG, lambda data: len(data) >= CONFIG_SIZE)
        except InstrumentFault as fault:
            raise HardwareMissing(f"no PMD-USB answers: {fault}") from None
        self.identity = {"model": "PMD-USB", "firmware": reply.data[reply.data.index(PRODUCT) + 2]}
        offsets = np.frombuffer(config.data, np.int8, 8, 4)
        self.settings = {"baud": self.options["baud"], "adc_offsets": offsets.tolist()}
        self.exchange(START)
        self._parser = Parser(offsets)
        self._tick, self._ticks = 0, 0
        self._arrived: int | None = None
        sensors = list(_sensors(PERIOD_S[self.options["baud"]]))
        return [Channel(f"{plug}_{name}", unit, sensor=s) for plug in CONNECTORS for name, unit, s in sensors]

    def read(self) -> Block:
        reply = self.exchange()
        runs = self._parser.feed(reply.data)
        if not runs:
            return Block([], [], [], np.zeros((3 * len(CONNECTORS), 0)))
        ticks = self._unwrapped([run.tick for run in runs])
        wraps = self._missed_wraps(int(ticks[-1]), reply) if len(ticks) > 1 else 0
        if wraps or not all(run.continues for run in runs):
            self._begin(reply)
        self._tick, self._ticks, self._arrived = int(runs[-1].tick[-1]), int(ticks[-1]) + wraps * WRAP, reply.after
        volts, amps = (np.concatenate(parts, axis=1) for parts in zip(*((r.volts, r.amps) for r in runs), strict=True))
        values = np.stack([volts * amps, volts, amps], axis=1).reshape(3 * len(CONNECTORS), -1)
        # The first frame waited for its successor: it may be from before the time that is missing.
        device = ((ticks + wraps * WRAP) * SECOND // TICK_HZ)[wraps > 0 :]
        return Block(*self._stream.bracket(device, reply), device, values[:, wraps > 0 :])

    def _unwrapped(self, ticks: list[NDArray[np.uint16]]) -> NDArray[np.int64]:
        """Ticks on a clock that does not wrap, as if no whole wrap was missed where frames are."""
        tick = np.concatenate(ticks)
        first = (int(tick[0]) - self._tick) % WRAP
        return self._ticks + first + elapsed(tick)

    def _missed_wraps(self, newest: int, reply: Reply) -> int:
        """The wraps in a time without frames, by their arrival."""
        if self._arrived is None:
            return 0
        expected = (reply.after - self._arrived) * TICK_HZ // SECOND
        return max(round((expected - (newest - self._ticks)) / WRAP - 0.25), 0)

    def _begin(self, reply: Reply) -> None:
        """Start a new map of time: what is missing is known by the time of arrival at best."""
        if self._arrived is not None:
            lost = f"frames were lost in the {(reply.after - self._arrived) / 1e6:.1f} ms up to now"
            self.tell("fault", source=self.name, message=f"{lost}, {self._parser.lost} bytes in all were in no frame")
        self._stream = StreamClock(self.name, LATENCY_S)

    def stop(self) -> None:
        """Stop the stream, and go back to the rate that other programs expect."""
        with suppress(JoulelabError):
            self.exchange(STOP + _baud(POWER_UP_BAUD))

    @classmethod
    def discover(cls, place: Connection, address: str | None) -> Iterator[Found]:
        if place.url != "local" or address is None or not is_port(address):
            return
        with suppress(JoulelabError):
            if any(_answers(address, MonotonicClock(), baud) for baud in (POWER_UP_BAUD, 2_000_000)):
                yield Found("pmd", {"port": address}, "Elmor Labs PMD-USB")

    @classmethod
    def doctor(cls, place: Connection) -> Iterator[Check]:
        yield from check_ports(place)


def _answers(port: str, clock: Clock, baud: int) -> bool:
    transport = SerialTransport(port, clock, baud, timeout_s=0.3)
    try:
        transport.exchange(STOP)
        collect(transport.exchange, WELCOME, lambda data: HELLO in data)
    except InstrumentFault:
        return False
    finally:
        transport.close()
    return True


def _baud(baud: int) -> bytes:
    """The command that sets the port: rate, no parity (2), 8 bits (0), 1 stop bit (0)."""
    return b"\x08" + b"".join(word.to_bytes(4, "little") for word in (baud, 2, 0, 0))
