"""Power rails of this Jetson from the service of jetson-stats (`jtop`), for who runs it anyway."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from joulelab.errors import HardwareMissing, InstrumentFault, UserError
from joulelab.instruments.base import Block, Meter
from joulelab.instruments.ina3221 import WORST, accuracy
from joulelab.options import Seconds
from joulelab.quantities import Channel, SensorModel
from joulelab.recording.formats import jetson_rails
from joulelab.timebase import SECOND
from joulelab.transports.base import Transport
from joulelab.transports.call import CallTransport, answers


class Driver(Meter):
    """A gauge a rail [W], by the rail's name; a rail that is off line has no reading.

    Only `power` of a rail is taken: its `avg` is half the last average and half the new reading, floored to mW, and the
    service's total adds up all rails, parts of one another too, where it knows no input.
    """

    driver = "jtop"

    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)
        interval: Seconds = Field(default=1.0, ge=0.5)

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.interval_ns = None  # the service tells when it has read

    def connect(self) -> Transport:
        if self.place.url != "local":
            raise UserError(
                f"{self.name}: jtop is read on its own machine only; use ina3221 or tegrastats over {self.place.url}"
            )
        library = _library(self.name)
        client = library.jtop(interval=self.options["interval"])
        try:
            client.start()
        except library.JtopException as error:
            raise HardwareMissing(f"{self.name}: {' '.join(str(error).split())}") from None
        return CallTransport(_calls(client, library.JtopException), library.JtopException, self.clock, client.close)

    def start(self) -> Sequence[Channel]:
        rails = self._rails()[1]
        if not rails:
            raise HardwareMissing(f"{self.name}: the jtop service knows no power rail of this board")
        module = jetson_rails.identify("", rails)
        self.identity = {"module": module.name, "rails": list(rails)}
        self.settings = {"unknown_rails": jetson_rails.unknown(module, rails)}
        return [
            Channel(
                rail,
                "W",
                scope=jetson_rails.scope(module, rail),
                sensor=SensorModel(self.options["interval"], **accuracy(module.sense.get(rail, WORST))),
            )
            for rail in rails
        ]

    def read(self) -> Block:
        """The service's next reading, which is up to an interval old when it is told."""
        after, rails = self._rails()
        before = after - round(self.options["interval"] * SECOND)
        return Block([before], [after], None, [[rails.get(channel.name, math.nan)] for channel in self.channels])

    def _rails(self) -> tuple[int, dict[str, float]]:
        reply = self.exchange(b"power")
        try:
            (power,) = answers(reply.data)
            return reply.after, parse(power)
        except ValueError as error:
            raise InstrumentFault(f"{self.name}: {str(error)[:80]}", transient=True) from None


def parse(power: object) -> dict[str, float]:
    """The rails [W] of `jtop.power`, NaN off line. The service moves an input rail to `tot`; a sum has no name there.

    ValueError for anything else.
    """
    match power:
        case {"rail": dict(rails), "tot": {"name": str(name)} as total}:
            return {rail: _watts(one) for rail, one in {name: total, **rails}.items()}
        case {"rail": dict(rails)}:
            return {rail: _watts(one) for rail, one in rails.items()}
    raise ValueError(f"{power!r} is no power of jtop")


def _watts(rail: object) -> float:
    match rail:
        case {"online": False}:
            return math.nan
        case {"power": int(milliwatts) | float(milliwatts)}:
            return milliwatts / 1000
    return math.nan


def _library(name: str) -> Any:
    try:
        return importlib.import_module("jtop")
    except ImportError:
        raise HardwareMissing(f"{name}: jetson-stats is not installed: `pip install joulelab[jetson]`") from None


def _calls(client: Any, error: type[Exception]) -> Callable[..., object]:
    """`power` waits for the service's next reading."""

    def call(function: str) -> object:
        if not client.ok():
            raise error("the jtop service has stopped")
        return getattr(client, function)

    return call
