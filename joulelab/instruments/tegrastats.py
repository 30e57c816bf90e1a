"""NVIDIA's `tegrastats` on a Jetson: the power of its rails and its temperatures, a line at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from joulelab.errors import DataInvalid, HardwareMissing, InstrumentFault, JoulelabError
from joulelab.instruments.base import Block, Check, Found, Meter
from joulelab.instruments.ina3221 import WORST, accuracy, board, summed
from joulelab.instruments.probes import BURST, PROBE_NS, ProbeClock
from joulelab.options import Seconds
from joulelab.quantities import Channel, SensorModel
from joulelab.recording.formats import jetson_rails
from joulelab.recording.formats.jetson_rails import Module
from joulelab.recording.formats.tegrastats import Line, parse
from joulelab.timebase import MonotonicClock
from joulelab.transports.base import Transport
from joulelab.transports.connection import Connection

PACKAGE = "sudo apt install nvidia-l4t-tools"
STRAY_LINES = 20
"""How many lines may be something else before the first of tegrastats, such as what a login script says."""
LATENCY_NS = 10_000_000
"""How long a line may take through a pipe to whoever stamps it on a busy machine [ns]; nothing bounds it."""


class Piece(NamedTuple):
    """A line, when it was written on the bench clock, and on the clock of the machine that stamped it [ns]."""

    before: int
    after: int
    device: int | None
    text: str


class Driver(Meter):
    """A gauge a rail [W], by the rail's name, and `<zone>_temperature` [degC]; `sum` as `ina3221` has it.

    Of a rail's `now/average` the first is taken: the second is the mean since tegrastats was started. A rail or zone
    that a line lacks has no reading. On another machine lines are stamped there as they come.
    """

    driver = "tegrastats"

    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)
        interval: Seconds = Field(default=0.1, ge=0.01, le=4)
        sum: tuple[str, ...] = ()

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.interval_ns = None  # tegrastats keeps its own time
        self._probe_sent: int | None = None
        self._last_ns = self._owed_ns = self._device_ns = 0

    def connect(self) -> Transport:
        milliseconds = round(self.options["interval"] * 1e3)
        try:
            return self.place.open(["tegrastats", "--interval", f"{milliseconds}"])
        except HardwareMissing as error:
            if "No such file" not in str(error):
                raise
            advice = f"is this a Jetson? there it is in PATH: `{PACKAGE}` (before L4T 32 in the home folder)"
            raise HardwareMissing(f"{self.name}: {error}; {advice}") from None

    def start(self) -> Sequence[Channel]:
        self._remote = self.place.url != "local"
        self._synchronise()
        line = self._first()
        if line.reason:
            raise HardwareMissing(f"{self.name}: {line.reason}")
        module = jetson_rails.identify("", line.rails)
        self._rails = self._seen = list(line.rails)
        self.identity = {"module": module.name, "rails": self._rails}
        self.settings = {"unknown_rails": jetson_rails.unknown(module, self._rails)}
        if not self.channels:  # zones come and go: those of the first opening stay
            self._zones = [*line.temperatures, *line.off]
        zones = [Channel(f"{zone}_temperature", "degC") for zone in self._zones]
        rails = [self._power(module, rail) for rail in self._rails]
        if added := self.options["sum"]:
            jetson_rails.check_addable(module, self._rails, added)
            rails.append(summed([rail for rail in rails if rail.name in added]))
        return rails + zones

    def read(self) -> Block:
        """The next line; no reading for the answer to a probe of the clock, and for what is no line of tegrastats."""
        if self._owed_ns >= PROBE_NS and self._probe_sent is None:
            self._owed_ns -= PROBE_NS
            self._probe()
        piece = self._piece()
        if piece is None:
            return self._block()
        try:
            line = parse(piece.text)
        except DataInvalid as error:
            self.tell("fault", source=self.name, message=f"{self.name}: {error}")
            return self._block()
        self._compare(line)
        return self._block((piece, line))

    def _first(self) -> Line:
        for _ in range(STRAY_LINES):
            if piece := self._piece():
                with suppress(DataInvalid):
                    return parse(piece.text)
        raise HardwareMissing(f"{self.name}: no line of tegrastats among the first {STRAY_LINES}")

    def _power(self, module: Module, rail: str) -> Channel:
        """What power is averaged over is undocumented: taken as anything from nothing to the interval."""
        interval = self.options["interval"]
        stated = accuracy(module.sense.get(rail, WORST))
        sensor = SensorModel(interval, delay_s=interval / 4, delay_u_s=interval / 4 / 3**0.5, **stated)
        return Channel(rail, "W", scope=jetson_rails.scope(module, rail), sensor=sensor)

    def _piece(self) -> Piece | None:
        """The next line; None for the answer to a probe of the clock, which is noted."""
        reply = self.exchange()
        if not reply.data:
            raise InstrumentFault(f"{self.name}: tegrastats has ended", transient=True)
        text = reply.data.decode(errors="replace")
        if not self._remote:
            return Piece(reply.after - LATENCY_NS, reply.after, None, text)
        stamp, line, text = text.partition(" ")
        if not stamp.isdecimal() or len(stamp) > 19:
            raise InstrumentFault(f"{self.name}: {reply.data[:60]!r} came without a time stamp", transient=True)
        device = int(stamp)
        self._check_order(device)
        if not line:
            self._note(device, reply.after)
            return None
        self._owed_ns = min(self._owed_ns + reply.after - self._last_ns, BURST * PROBE_NS)
        self._last_ns = reply.after
        before, after = self._clocks.bracket(device)
        return Piece(before - LATENCY_NS, min(after, reply.after), device, text)

    def _synchronise(self) -> None:
        """Probe the clock of another machine, and begin a new map of it; lines that come meanwhile are passed over."""
        self._clocks = ProbeClock()
        self._device_ns, self._owed_ns, self._probe_sent = 0, 0, None
        for _ in range(BURST if self._remote else 0):
            self._probe()
            self._await_probe()

    def _await_probe(self) -> None:
        for _ in range(STRAY_LINES):
            if self._piece() is None:
                return
        raise InstrumentFault(f"{self.name}: {self.place.url} does not tell its clock", transient=True)

    def _probe(self) -> None:
        self._last_ns = self._probe_sent = self.exchange(b"clock").before

    def _note(self, device: int, after: int) -> None:
        if self._probe_sent is not None:
            self._clocks.note(self._probe_sent, device, after)
            self.tell("probe", instrument=self.name, before=self._probe_sent, after=after, device=device)
        self._probe_sent = None

    def _check_order(self, device: int) -> None:
        """Another clock that went back is another clock: its machine was restarted, or is another one."""
        if device < self._device_ns:
            self._synchronise()
            raise InstrumentFault(f"{self.name}: the clock of {self.place.url} went back", transient=True)
        self._device_ns = device

    def _compare(self, line: Line) -> None:
        """Tell of rails that come or go."""
        if list(line.rails) == self._seen:
            return
        self._seen = list(line.rails)
        gone = [rail for rail in self._rails if rail not in line.rails]
        new = [rail for rail in line.rails if rail not in self._rails]
        message = f"{self.name}: rails not in this line: {gone}; rails that were not there at the start: {new}"
        self.tell("fault", source=self.name, message=message)

    def _block(self, *readings: tuple[Piece, Line]) -> Block:
        pieces = [piece for piece, _ in readings]
        device = [piece.device for piece in pieces if piece.device is not None] if self._remote else None
        values = [
            [line.rails[rail].now if rail in line.rails else math.nan for _, line in readings] for rail in self._rails
        ]
        if self.options["sum"]:
            added = [values[self._rails.index(rail)] for rail in self.options["sum"]]
            values.append([math.fsum(reading) for reading in zip(*added, strict=True)])
        values += [[line.temperatures.get(zone, math.nan) for _, line in readings] for zone in self._zones]
        return Block([piece.before for piece in pieces], [piece.after for piece in pieces], device, values)

    @classmethod
    def discover(cls, place: Connection, address: str | None) -> Iterator[Found]:
        if address is None and (model := board(place)) is not None:
            inputs = jetson_rails.identify(model, ()).inputs
            total = f"its input is {inputs[0]}" if inputs else "none of its rails is the total"
            yield Found("rails", {}, f"{model}: {total}")

    @classmethod
    def doctor(cls, place: Connection) -> Iterator[Check]:
        if (model := board(place)) is None:
            return
        yield Check("NVML", True, f"{model}: NVML gives no power on a Jetson; tegrastats and ina3221 do")
        meter = cls("tegrastats", cls.Options(), MonotonicClock(), place)
        try:
            meter.open()
            yield Check("tegrastats", True, ", ".join(meter.identity["rails"]))
        except JoulelabError as error:
            yield Check("tegrastats", False, str(error), PACKAGE if isinstance(error, HardwareMissing) else "")
        finally:
            meter.close()
