"""Nordic Power Profiler Kit II: 100,000 current samples a second, up to 1 A, fed by it or by something else."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from joulelab.errors import DataInvalid, HardwareMissing, InstrumentFault, JoulelabError
from joulelab.instruments.base import Block, Check, Found, Meter
from joulelab.instruments.serial_meters import check_ports
from joulelab.instruments.stream import StreamClock
from joulelab.options import Volts
from joulelab.quantities import Channel, SensorModel
from joulelab.recording.formats.frames import Framing, Links
from joulelab.timebase import SECOND, MonotonicClock
from joulelab.transports.base import Reply, Transport
from joulelab.transports.connection import Connection
from joulelab.transports.serial_port import SerialTransport, collect, is_port, ports

USB = (0x1915, 0xC00A)
START, STOP, METADATA = b"\x06", b"\x07", b"\x19"
OUTPUT_ON = b"\x0c\x01"
MODES = {"ampere": b"\x11\x01", "source": b"\x11\x02"}
VOLTAGE = b"\x0d"
"""Followed by millivolts, the high byte first."""
RATE_HZ = 100_000
COUNTS = 64
"""The sample counter wraps at this."""
SIZE, LEAST = 4, 8
"""Bytes of a sample, and how many in a row are never met by chance."""
RANGES = 5
ADC_V = 1.8 / 163_840
"""Volts of a step of the converter, times 4 (Nordic's Power Profiler app)."""
GATHER_S, LATENCY_S = 0.005, 0.002
"""How long a piece of the stream is; the longest that USB (1 ms a frame) and the meter keep the newest sample."""
GAIN_U_REL = 0.2 / 3**0.5
"""Nordic: "better than +-20 %"; the range above 60 mA has been seen to be better. Calibrate against a known load."""

Table = NDArray[np.float64]


def parse_metadata(text: str) -> dict[str, float]:
    """The numbers of the calibration text; DataInvalid where it lacks one of those of each range."""
    found = {name: float(number) for name, number in re.findall(r"^(\w+): *([-+.\deE]*\d)\s*$", text, re.MULTILINE)}
    needed = [f"{name}{k}" for name in ("R", "GS", "GI", "O", "S", "I", "UG") for k in range(RANGES)]
    if missing := [name for name in needed if name not in found]:
        raise DataInvalid(f"the calibration of a PPK2 lacks {', '.join(missing[:5])}")
    if any(found[f"R{k}"] <= 0 for k in range(RANGES)):
        raise DataInvalid("the calibration of a PPK2 has a resistance of 0")
    return found


def amperes(calibration: dict[str, float], volts: float) -> Table:
    """The current [A] of each range and reading [2**17], by Nordic's formula; NaN where there is no such range."""
    table = np.full((8, 1 << 14), np.nan)
    for k in range(RANGES):
        r, gs, gi, o, s, i, ug = (calibration[f"{name}{k}"] for name in ("R", "GS", "GI", "O", "S", "I", "UG"))
        raw = (4.0 * np.arange(1 << 14) - o) * (ADC_V / r)
        table[k] = ug * (raw * (gs * raw + gi) + s * volts + i)
    return table.ravel()


def decode(words: NDArray[np.uint32], table: Table) -> NDArray[np.float64]:
    """Samples [n] as currents [A, n]. Spikes at changes of range are kept: Nordic's app smooths them."""
    currents: NDArray[np.float64] = table[words & 0x1FFFF]
    return currents


def counters(words: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Their counters [n]."""
    return (words >> np.uint32(18)) & np.uint32(COUNTS - 1)


def _links(data: NDArray[np.uint8]) -> Links:
    """Whether two samples with counters in order begin at each byte: the counter is six bits of the third one."""
    counter = data[2:] >> 2
    n = max(len(data) - 2 * SIZE + 1, 0)
    good: Links = (counter[SIZE : SIZE + n] - counter[:n]) & (COUNTS - 1) == 1
    return good


class Driver(Meter):
    """The mean power and current of `average` samples. Power is the current times the voltage set, or stated.

    In `source` mode the meter feeds the device: it is set to `voltage` and switched on, and left so, since taking the
    power away or putting a former voltage back could harm the device. In `ampere` mode something else feeds the device,
    with what `voltage` says.
    """

    driver = "serial/ppk2"
    bench_meter = True
    wire = False

    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)
        port: str
        mode: Literal["source", "ampere"]
        voltage: Annotated[Volts, Field(ge=0.8, le=5.0)]
        average: int = Field(default=100, ge=1, le=100_000)

    def connect(self) -> Transport:
        return SerialTransport(self.options["port"], self.clock, baud=115_200, gather_s=GATHER_S)

    def start(self) -> Sequence[Channel]:
        try:
            found = _metadata(self)
        except (InstrumentFault, DataInvalid) as error:
            raise HardwareMissing(f"no PPK2 answers: {error}") from None
        self.identity = {"model": "PPK2", "resistances": [found[f"R{k}"] for k in range(RANGES)]}
        self.settings = {key: self.options[key] for key in ("mode", "voltage", "average")}
        volts = self.options["voltage"]
        self._table = amperes(found, volts)
        for command in (MODES[self.options["mode"]], VOLTAGE + round(volts * 1e3).to_bytes(2), OUTPUT_ON, START):
            self.exchange(command)
        self._framing = Framing(_links, SIZE, LEAST)
        self._count: int | None = None
        self._arrived = self.clock.now()
        window_s = self.options["average"] / RATE_HZ
        sensor = SensorModel(period_s=window_s, window_s=window_s, gain_u_rel=GAIN_U_REL)
        return [Channel("power", "W", sensor=sensor), Channel("current", "A", sensor=sensor)]

    def read(self) -> Block:
        reply = self.exchange()
        data, runs = self._framing.feed(reply.data)
        samples = [np.frombuffer(data, "<u4", run.length, run.start) for run in runs]
        blocks = [Block([], [], [], np.zeros((2, 0)))]
        for run, words in zip(runs, samples, strict=True):
            if not run.continues:
                self._begin(int(counters(words[:1])[0]), reply, sum(map(len, samples)))
            blocks.append(self._block(decode(words, self._table), reply))
        self._arrived = reply.after
        return Block(*(np.concatenate(parts, axis=-1) for parts in zip(*blocks, strict=True)))

    def _begin(self, counter: int, reply: Reply, arrived: int) -> None:
        """Start a new map of time at a sample: how many were lost is known but for multiples of 64."""
        if self._count is None:
            self._count = counter
        else:
            lost = (counter - self._count) % COUNTS
            expected = (reply.after - self._arrived) * RATE_HZ // SECOND - arrived
            lost += max(round((expected - lost) / COUNTS), 0) * COUNTS
            self.tell("fault", source=self.name, message=f"about {lost} samples were lost")
            self._count += lost
        self._part = np.zeros(0)
        self._stream = StreamClock(self.name, LATENCY_S)

    def _block(self, current: NDArray[np.float64], reply: Reply) -> Block:
        """The means that are complete; `device` is when their last sample ended."""
        assert self._count is not None
        size = self.options["average"]
        current = np.concatenate([self._part, current])
        first, n = self._count - len(self._part), len(current) // size
        self._part, self._count = current[n * size :], first + len(current)
        device = (first + size * np.arange(1, n + 1)) * (SECOND // RATE_HZ)
        means = current[: n * size].reshape(n, size).mean(axis=1)
        before, after = self._stream.bracket(device, reply) if n else (device, device)
        return Block(before, after, device, np.stack([means * self.options["voltage"], means]))

    def stop(self) -> None:
        with suppress(JoulelabError):
            self.exchange(STOP)

    @classmethod
    def discover(cls, place: Connection, address: str | None) -> Iterator[Found]:
        if place.url != "local":
            return
        found = [port for port, usb, _ in ports() if usb == USB]
        for port in found if address is None else [address]:
            if is_port(port) and (metadata := _ask_port(port)):
                mode = "source" if metadata.get("mode") == 2 else "ampere"
                stanza = {"port": port, "mode": mode, "voltage": f"{metadata.get('VDD', 3300) / 1000:g} V"}
                yield Found("ppk2", stanza, "PPK2, set as it is now: check mode and voltage before it feeds a device")

    @classmethod
    def doctor(cls, place: Connection) -> Iterator[Check]:
        yield from check_ports(place)


def _metadata(meter: Meter | SerialTransport) -> dict[str, float]:
    """The calibration; what is left of a stream that somebody started comes before it."""
    meter.exchange(STOP)
    reply = collect(meter.exchange, METADATA, lambda data: b"\nEND" in data)
    return parse_metadata(reply.data.decode(errors="replace"))


def _ask_port(port: str) -> dict[str, float] | None:
    """What a PPK2 at the port says of itself; nothing is set."""
    try:
        transport = SerialTransport(port, MonotonicClock(), baud=115_200, timeout_s=0.5)
    except JoulelabError:
        return None
    try:
        return _metadata(transport)
    except JoulelabError:
        return None
    finally:
        transport.close()
