"""A phone's rails by its power monitors (ODPM, Google Pixel 6 and later): counters that the cable does not disturb."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from joulelab.errors import HardwareMissing, InstrumentFault
from joulelab.instruments import android_phones
from joulelab.instruments.android_state import PhoneMeter
from joulelab.instruments.base import Block, Check, Found
from joulelab.options import Seconds
from joulelab.quantities import Channel, Kind, Scope, SensorModel
from joulelab.recording.formats.android import Odpm, enabled_rails, energy_value
from joulelab.transports.base import Reply
from joulelab.transports.connection import Connection

MONITORS = "/sys/bus/iio/devices/iio:device*/energy_value"
SENSOR = SensorModel(period_s=0.02, resolution=1e-6, gain_u_rel=0.1 / 3**0.5)
"""Read again no sooner than after 20 ms (Linux for Pixel, odpm.c, at 1 kHz of its converter). Its accuracy is not
published. Assumed here: 10 % either way, rectangular."""
CLOCK_NS = 2_000_000
"""ODPM's stamps are whole ms; the phone's clock is known to about one more."""


class Source(NamedTuple):
    """Which rail of which monitor a channel is."""

    monitor: int
    rail: str


class Driver(PhoneMeter):
    """A counter a rail [J]; device stamps are CLOCK_BOOTTIME [ns]. Rails are never added up: VSYS_* feed others."""

    driver = "android-odpm"
    wire = False

    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)
        interval: Seconds = Field(default=0.1, gt=0)

    def start(self) -> Sequence[Channel]:
        self.identify()
        self._paths = self.records(f"ls {MONITORS}")[2]
        if not self._paths:
            raise HardwareMissing(f"{self.name}: {self.identity['model']} shows no power monitor ({MONITORS})")
        self._last = [-1] * len(self._paths)
        monitors, _, _ = self._take()
        self._sources = {
            f"{rail}_{k}" if any(rail in other.rails for other in monitors[:k]) else rail: Source(k, rail)
            for k, monitor in enumerate(monitors)
            for rail in monitor.rails
        }
        self.settings["subsystems"] = self._subsystems()
        return [Channel(name, "J", Kind.COUNTER, Scope.RAIL, sensor=SENSOR) for name in self._sources]

    def read(self) -> Block:
        """One reading; no value (NaN) for the rails of a monitor that was not refreshed since the last.

        The monitors are refreshed one after the other; the bracket holds when each was, by its own stamp.
        """
        self.watch()
        monitors, reply, now = self._take()
        if any(monitor.t_ms < last for monitor, last in zip(monitors, self._last, strict=True)):
            self._last = [-1] * len(self._paths)
            raise InstrumentFault(f"{self.name}: its counters began anew: the phone was restarted", transient=True)
        self.prober.catch_up(reply.after)
        fresh = [monitor.t_ms > last for monitor, last in zip(monitors, self._last, strict=True)]
        self._last = [monitor.t_ms for monitor in monitors]
        values = [
            [monitors[k].rails[rail].energy if fresh[k] and rail in monitors[k].rails else math.nan]
            for k, rail in self._sources.values()
        ]
        stamps = [t_ms * 1_000_000 for t_ms, new in zip(self._last, fresh, strict=True) if new] or [now]
        before = min(reply.before, reply.before + min(stamps) - now - CLOCK_NS)
        after = max(before, min(reply.after, reply.after + max(stamps) - now + CLOCK_NS))
        return Block([before], [after], [max(stamps)], values)

    @classmethod
    def discover(cls, place: Connection, address: str | None) -> Iterator[Found]:
        yield from android_phones.find(place, address, MONITORS)

    @classmethod
    def doctor(cls, place: Connection) -> Iterator[Check]:
        yield from android_phones.checks(place)

    def _take(self) -> tuple[list[Odpm], Reply, int]:
        """The monitors, the reply that they came with, and the phone's clock [ns since boot]."""
        reply, now, texts = self.records(f"cat {' '.join(self._paths)}")
        try:
            return [energy_value(text) for text in texts], reply, now
        except ValueError as error:
            raise InstrumentFault(f"{self.name}: {error}", transient=True) from None

    def _subsystems(self) -> dict[str, str]:
        """What each rail feeds, where the phone says so."""
        texts = self.records(f"cat {' '.join(path.replace('energy_value', 'enabled_rails') for path in self._paths)}")[
            2
        ]
        found: dict[str, str] = {}
        for text in texts:
            with suppress(ValueError):  # a refusal, or a spelling that is not known: the rails keep their names
                found |= enabled_rails(text)
        return found
