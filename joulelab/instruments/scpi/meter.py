"""The engine of SCPI meters: it does what a description says."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from functools import partial
from typing import Any, ClassVar

from joulelab.errors import InstrumentFault, JoulelabError
from joulelab.instruments.base import Block, Check, Found, Meter
from joulelab.instruments.scpi import doctor, replies
from joulelab.instruments.scpi.description import Column, Description
from joulelab.instruments.scpi.options import options as options_of
from joulelab.instruments.scpi.ranging import Ranging
from joulelab.instruments.scpi.setup import Setup
from joulelab.quantities import Channel
from joulelab.timebase import BenchNs, MonotonicClock
from joulelab.transports.base import Transport
from joulelab.transports.connection import Connection
from joulelab.transports.visa import VisaTransport, list_resources


class ScpiMeter(Meter):
    """A meter by its description. `range` in its options fixes the ranges; without it a range step chooses them.

    From `range("auto")` to `range("fixed")` it ranges freely; at any other time a change of range, like over-range,
    makes the reading null and is told. Until ranges are fixed its accuracy is that of the largest.
    """

    bench_meter = True
    description: ClassVar[Description]
    timeout_s: ClassVar[float] = 2.0

    def __init_subclass__(cls, description: Description) -> None:
        cls.description, cls.driver, cls.Options = description, description.driver, options_of(description)

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._ranging = Ranging(self.name, self.description, self.options)
        self._queries = [*self.description.reading, *self._ranging.queries()]

    @property
    def resource(self) -> str:
        return str(self.options["resource"])

    def connect(self) -> Transport:
        own = self.options
        return VisaTransport(self.resource, self.clock, self.timeout_s, own["backend"], own["terminator"], own["baud"])

    def start(self) -> Sequence[Channel]:
        self._trouble: BenchNs | None = None
        self._last: BenchNs | None = None
        self._faults: frozenset[str] = frozenset()
        self._ranging.restart()
        self._ranging.check()
        self._setup = Setup(self.name, self.resource, self.description, self.ask)
        self.identity = self._setup.identify()
        self._setup.check_usable()
        self.undo.remember(self._setup.restoring())
        self._setup.set_all({key: o.choices[self.options[key]] for key, o in self.description.options.items()})
        return self._set_ranges()

    def read(self) -> Block:
        answers, before, after = self._ask_all(self._queries)
        count, columns = len(self.description.reading), self.description.columns
        values = [value for answer in answers[:count] for value in self._parse(answer)]
        watched = [value for answer in answers[count:] for value in self._parse(answer)]
        if len(values) != len(columns) or len(watched) != len(answers) - count or not all(map(math.isfinite, watched)):
            raise self._fault(f"the reply is cut off or garbled: {'; '.join(answers)[:60]!r}")
        excess = self._ranging.excess(values, watched)
        if self._ranging.choosing:
            self._ranging.note_peaks(values)
        else:
            self._tell_excess(excess, before, after)
            self._tell_faults(values)
        kept = [math.nan if excess else _kept(column, value) for column, value in zip(columns, values, strict=True)]
        return Block([before], [after], None, [[value] for value in kept])

    def range(self, mode: str) -> None:
        """`auto`, then `fixed`: see `Meter.range`. Ranges that the options give stay as they are."""
        if not self.description.ranges or self.options["range"] is not None:
            return
        if mode == "auto":
            self._ranging.begin()
        else:
            self._ranging.fix()
        self.channels = tuple(self._set_ranges())
        channels = [channel.to_json() for channel in self.channels]
        self.tell("settings", instrument=self.name, settings=self.settings, channels=channels)

    @classmethod
    def discover(cls, place: Connection, address: str | None) -> Iterator[Found]:
        """VISA resources that answer `*IDN?` as the description says."""
        if place.url != "local" or (address is not None and "::" not in address):
            return
        for resource in [address] if address else list_resources():
            with suppress(JoulelabError, ValueError):
                yield cls._found(resource)

    @classmethod
    def doctor(cls, place: Connection) -> Iterator[Check]:
        """Backends of pyvisa, and permissions: the same for all models."""
        if place.url == "local":
            yield from doctor.checks()

    @classmethod
    def _found(cls, resource: str) -> Found:
        with closing(VisaTransport(resource, MonotonicClock(), cls.timeout_s)) as transport:
            reply = transport.exchange(b"*IDN?").data.decode(errors="replace").strip()
        who, scope = replies.identity(reply), cls.description.scope
        if not re.match(cls.description.identity, reply):
            raise ValueError(f"{who.name} is another meter")
        stanza = {"resource": resource, "scope": scope, "serial": who.serial}
        return Found(who.model.split()[-1].lower(), stanza, f"`scope: {scope}` is a guess: say what it is wired to")

    def _set_ranges(self) -> list[Channel]:
        """Set the ranges, and fill `settings`; the channels with the accuracy that follows."""
        about, fixed = self.description, self._ranging.fixed
        self._setup.set_ranges(fixed)
        self.settings = self._setup.settings() | {"accuracy holds": about.conditions}
        if about.ranges:
            self.settings["ranges"] = fixed or "auto"
        return [Channel(c.name, c.unit, c.kind, sensor=self._ranging.sensor(c)) for c in about.columns]

    # Telling

    def _tell_excess(self, excess: str, before: BenchNs, after: BenchNs) -> None:
        """Tell a spell of over-range when it begins, after the last good reading, and whole when it has ended."""
        tell = partial(self.tell, "overrange", instrument=self.name)
        if excess and self._trouble is None:
            self._trouble = before if self._last is None else self._last
            tell(start=self._trouble, stop=after, message=f"{self.name}: {excess}")
        elif self._trouble is not None and not excess:
            tell(start=self._trouble, stop=before, message=f"{self.name}: within its ranges again")
            self._trouble = None
        self._last = after

    def _tell_faults(self, values: Sequence[float]) -> None:
        """Tell each column that has begun to read nothing, or what is no measurement."""
        columns = zip(self.description.columns, values, strict=True)
        faults = frozenset(c.name for c, v in columns if v in c.never or (c.ranges and math.isnan(v)))
        for name in sorted(faults - self._faults):
            self.tell("fault", source=self.name, message=f"{self.name} does not measure {name}: is it connected?")
        self._faults = faults

    # Exchanges

    def _ask_all(self, queries: Sequence[str]) -> tuple[list[str], BenchNs, BenchNs]:
        """The replies to several queries, between the stamps before the first and after the last."""
        requests = [";".join(queries)] if self.description.compound else queries
        answers = [self.exchange(request.encode()) for request in requests]
        texts = [answer.data.decode(errors="replace").strip() for answer in answers]
        parts = texts[0].split(";") if self.description.compound else texts
        if len(parts) != len(queries):
            raise self._fault(f"{len(parts)} answers came to {len(queries)} queries: the reply is cut off")
        return parts, answers[0].before, answers[-1].after

    def _parse(self, reply: str) -> list[float]:
        try:
            return replies.parse(reply)
        except ValueError as error:
            raise self._fault(str(error)) from error

    def _fault(self, message: str) -> InstrumentFault:
        return InstrumentFault(f"{self.name} ({self.resource}): {message}", transient=True)


def _kept(column: Column, value: float) -> float:
    return math.nan if value in column.never or not math.isfinite(value) else value * column.factor
