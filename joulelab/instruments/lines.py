"""Any meter that writes lines of text to a serial port, such as a microcontroller with an INA226 or INA228."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from joulelab.errors import HardwareMissing, InstrumentFault
from joulelab.instruments.base import Block, Check, Meter
from joulelab.instruments.serial_meters import check_ports
from joulelab.instruments.stream import StreamClock
from joulelab.options import Seconds
from joulelab.quantities import UNITS, Channel, Kind, SensorModel, factor
from joulelab.timebase import SECOND
from joulelab.transports.base import Transport
from joulelab.transports.connection import Connection
from joulelab.transports.serial_port import SerialTransport

LATENCY_S = 0.02
"""How long a line may be on its way: 16 ms in the timer of an FTDI adapter, and the line's own length."""
LONGEST = 4096
TRIES = 20
"""So many lines may differ from the pattern before one fits; in a row they are a fault."""
KINDS = 50
OVERFLOW = 9.9e37
"""What SCPI meters, and sketches that speak like one, say for "no number"."""


class Time(BaseModel):
    """The group that holds the meter's own time, the unit, and after how many of them the counter begins again."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    group: str
    unit: str
    wrap: int | None = Field(default=None, gt=0)


def parse(line: bytes, pattern: re.Pattern[str], columns: Mapping[str, str]) -> dict[str, float] | None:
    """The columns of a line in SI units, None where it does not fit the pattern. `columns`: the unit of each group.

    What is no number, not finite or an overflow is NaN, and so is a power of exactly -1, which programs write for none.
    """
    match = pattern.fullmatch(line.decode("ascii", errors="replace").strip())
    if match is None:
        return None
    return {group: _number(match[group], unit) for group, unit in columns.items()}


def _number(text: str | None, unit: str) -> float:
    try:
        value = float(text or "nan")
    except ValueError:
        return math.nan
    si, scale = UNITS[unit]
    none = abs(value) >= OVERFLOW or (si == "W" and value == -1)
    return math.nan if none else value * scale


class Driver(Meter):
    """A channel for each column, and `power`, the product, where there is one voltage, one current and no power."""

    driver = "serial/lines"
    bench_meter = True
    wire = False

    class Options(BaseModel):
        """`pattern` fits a whole line; `columns`: the unit of each of its groups.

        `period`: the time between two lines, so that missing ones are told. `accuracy`: the limit of the error relative
        to the reading, of chip and shunt together: a shunt of 1 % unless the builder knows better.
        """

        model_config = ConfigDict(extra="forbid", frozen=True)
        port: str
        baud: int = Field(default=115_200, gt=0)
        pattern: str
        columns: dict[str, str] = Field(min_length=1)
        time: Time | None = None
        period: Seconds | None = Field(default=None, gt=0)
        accuracy: float = Field(default=0.01, ge=0, lt=1)

        @model_validator(mode="after")
        def _fits(self) -> Self:
            groups = _compiled(self.pattern).groupindex
            units = self.columns | ({self.time.group: self.time.unit} if self.time else {})
            for group, unit in units.items():
                if group not in groups:
                    raise ValueError(f"the pattern has no group (?P<{group}>...)")
                if unit not in UNITS:
                    raise ValueError(f"{unit!r} is no unit; expected one of {', '.join(UNITS)}")
            if self.time and UNITS[self.time.unit][0] != "s":
                raise ValueError(f"{self.time.unit!r} is no unit of time")
            return self

    def connect(self) -> Transport:
        return SerialTransport(self.options["port"], self.clock, self.options["baud"], timeout_s=5.0)

    def start(self) -> Sequence[Channel]:
        self._pattern = _compiled(self.options["pattern"])
        self._columns: dict[str, str] = self.options["columns"]
        self._time = Time(**self.options["time"]) if self.options["time"] else None
        self._product = _product(self._columns)
        self._torn, self._started = b"", False
        self._kinds: Counter[str] = Counter()
        self._misfits = 0
        self._raw: float | None = None
        self._restart_time()
        self._find_first()
        return list(self._channels())

    def read(self) -> Block:
        reply = self.exchange()
        rows = self._rows(reply.data)
        if self._misfits >= TRIES:
            raise InstrumentFault(f"{self.name}: {self._misfits} lines in a row do not fit the pattern", transient=True)
        values = np.array([list(values) for _, values in rows], np.float64).reshape(len(rows), len(self.channels)).T
        if self._time and rows:
            device = np.array([round(t * SECOND) for t, _ in rows], np.int64)
            return Block(*self._stream.bracket(device, reply), device, values)
        n, latency = len(rows), round(LATENCY_S * SECOND)
        return Block([reply.before - latency] * n, [reply.after] * n, [] if self._time else None, values)

    @classmethod
    def doctor(cls, place: Connection) -> Iterator[Check]:
        yield from check_ports(place)

    def _find_first(self) -> None:
        """Read until a line fits; HardwareMissing where none of the first ones does."""
        port = self.options["port"]
        try:
            while not self._rows(self.exchange().data):
                if self._misfits >= TRIES:
                    said = next(iter(self._kinds))
                    raise HardwareMissing(
                        f"{port}: lines such as {said!r} do not fit the pattern, or the baud is wrong"
                    )
        except InstrumentFault as fault:
            raise HardwareMissing(f"no lines come: {fault}") from None

    def _channels(self) -> Iterator[Channel]:
        limit = self.options["accuracy"] / 3**0.5
        names = {group: UNITS[unit][0] for group, unit in self._columns.items()} | (
            {"power": "W"} if self._product else {}
        )
        for name, unit in names.items():
            kind = Kind.COUNTER if unit == "J" else Kind.GAUGE
            gain = 2 * limit if self._product and name == "power" else limit
            yield Channel(name, unit, kind, sensor=SensorModel(period_s=self.options["period"], gain_u_rel=gain))

    def _rows(self, piece: bytes) -> list[tuple[float, Iterable[float]]]:
        """The meter's time [s] and the values of each line that fits and is new."""
        return [row for line in self._lines(piece) if (row := self._row(line)) is not None]

    def _lines(self, piece: bytes) -> list[bytes]:
        """The lines that end in this piece; the first of all may have begun before, and is left out."""
        *lines, rest = (self._torn + piece).split(b"\n")
        if len(rest) > LONGEST:  # no text at all
            lines, rest = [*lines, rest], b""
        self._torn = rest
        if not self._started and lines:
            self._started = True
            return lines[1:]
        return lines

    def _row(self, line: bytes) -> tuple[float, Iterable[float]] | None:
        own = {self._time.group: "1"} if self._time else {}
        values = parse(line, self._pattern, self._columns | own)
        if values is None or (self._time and math.isnan(values[self._time.group])):
            self._note_misfit(line)
            return None
        self._misfits = 0
        elapsed = self._elapsed(self._time, values) if self._time else 0.0
        if elapsed is None:
            return None
        row = [values[group] for group in self._columns]
        return elapsed, [*row, math.prod(values[group] for group in self._product)] if self._product else row

    def _elapsed(self, time: Time, values: Mapping[str, float]) -> float | None:
        """The meter's time [s], unwrapped; None for a line that is repeated."""
        raw = values[time.group]
        step = 0.0 if self._raw is None else raw - self._raw
        if time.wrap and step < -time.wrap / 2:
            step += time.wrap
        if step < 0:
            self._restart_time()
            raise InstrumentFault(f"{self.name}: its clock went back, so it was restarted", transient=True)
        repeated, self._raw = self._raw is not None and step == 0, raw
        self._device_s += step * factor(time.unit, "s")
        return None if repeated else self._device_s

    def _restart_time(self) -> None:
        self._raw = None
        self._device_s = 0.0
        tick_s = UNITS[self._time.unit][1] if self._time else 0.0
        resolution_s = tick_s if tick_s < 1 else 0.0  # ms and us are counted whole, seconds have decimals
        self._stream = StreamClock(self.name, LATENCY_S, resolution_s)

    def _note_misfit(self, line: bytes) -> None:
        """Tell of each kind of line that does not fit, first at once and then at each tenfold of them."""
        self._misfits += 1
        kind = re.sub(r"\d+", "#", line.decode("ascii", errors="replace").strip()[:60])
        kind = kind if kind in self._kinds or len(self._kinds) < KINDS else "of many kinds"
        self._kinds[kind] += 1
        if str(n := self._kinds[kind]).strip("0") == "1":
            self.tell("fault", source=self.name, message=f"does not fit the pattern, {n} times by now: {kind!r}")


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern, re.ASCII)
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from None


def _product(columns: Mapping[str, str]) -> tuple[str, ...]:
    """The voltage and the current that make the power, or nothing."""
    units = {group: UNITS[unit][0] for group, unit in columns.items()}
    pair = tuple(group for group, si in units.items() if si in {"V", "A"})
    return pair if sorted(units[group] for group in pair) == ["A", "V"] and "W" not in units.values() else ()
