"""Logs that a phone wrote while it was unplugged, with `android_log.sh`, as recordings."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from joulelab.analysis.imports.given import Given
from joulelab.analysis.imports.source import Advance, Clock, Recording, Row, pieces
from joulelab.errors import DataInvalid
from joulelab.quantities import Channel, Kind, Scope, SensorModel
from joulelab.recording.formats.android import Battery, Logged, log
from joulelab.recording.formats.android_rule import Rule, learn
from joulelab.timebase import SECOND

COARSE_NS = 10_000_000
"""The last place of the time since boot (/proc/uptime)."""


class PhoneGiven(Given):
    """The map of a phone's log: how it tells its battery's current, where its readings do not show it."""

    current_unit: Literal["mA", "uA"] | None = None
    current_sign: Literal["positive-discharging", "negative-discharging"] | None = None


def read_android(file: Path, given: PhoneGiven, advance: Advance) -> Iterator[Recording]:
    """The battery's gauge, and the counters of ODPM. While a phone is fed its battery gives no reading."""
    logged = _logged(file)
    advance(file.stat().st_size)
    rails = list(dict.fromkeys(name for reading in logged for monitor in reading.odpm for name in monitor.rails))
    rule: Rule | None = None
    try:
        rule = learn([reading.battery for reading in logged], given.current_unit, given.current_sign)
    except DataInvalid as reason:
        if not rails:
            raise DataInvalid(f"{file}: {reason}") from None
    battery = [Channel("power", "W", scope=Scope.BATTERY), Channel("current", "A")] if rule else []
    others = [Channel("voltage", "V"), Channel("charge", "C", Kind.COUNTER), Channel("temperature", "degC")]
    odpm = [Channel(name, "J", Kind.COUNTER, Scope.RAIL, sensor=SensorModel(resolution=1e-6)) for name in rails]
    channels = tuple(given.facts(channel.name).of(channel) for channel in (*battery, *others, *odpm))
    identity = {"current": rule._asdict()} if rule else {}
    clock = Clock("the phone's time since boot, since 1970 by its wall clock at the first reading", COARSE_NS, "epoch")
    yield Recording(channels, clock, pieces(_rows(logged, rule, rails)), identity=identity)


def _logged(file: Path) -> list[Logged]:
    number = 0

    def numbered() -> Iterator[str]:
        nonlocal number
        with file.open(encoding="utf-8", newline="\n") as lines:
            for number, line in enumerate(lines, start=1):  # noqa: B007 for the message
                yield line

    try:
        found = list(log(numbered()))
    except ValueError as reason:
        raise DataInvalid(f"{file}, line {number}: {reason}") from None
    if not found:
        raise DataInvalid(f"{file} holds no readings")
    return found


def _rows(logged: Sequence[Logged], rule: Rule | None, rails: Sequence[str]) -> Iterator[Row]:
    first = last = logged[0]
    for reading in logged:
        t = first.wall_ns + reading.boot_ns - first.boot_ns
        counters = {name: rail.energy for monitor in reading.odpm for name, rail in monitor.rails.items()}
        values, wrong = _battery(reading.battery, rule)
        step = (reading.wall_ns - last.wall_ns) - (reading.boot_ns - last.boot_ns)
        if abs(step) > 2 * COARSE_NS:
            wrong.append(f"the wall clock was set by {step / SECOND:.2f} s, or the log's script waited in a reading")
        last = reading
        yield Row(t, t + COARSE_NS, [*values, *(counters.get(name, math.nan) for name in rails)], wrong)


def _battery(battery: Battery, rule: Rule | None) -> tuple[list[float], list[str]]:
    """Values of the battery's channels, and why there is no power."""
    others = [math.nan if x is None else x for x in (battery.voltage, battery.charge, battery.temperature)]
    if rule is None:
        return others, []
    drawn = rule.drawn(battery)
    if battery.feeds:
        fed = f"fed by {', '.join(battery.feeds)}, so that the battery does not give what the phone draws"
        return [math.nan, math.nan, *others], [fed]
    if drawn is None or battery.voltage is None:
        return [math.nan, math.nan if drawn is None else drawn, *others], ["no voltage or current"]
    return [drawn * battery.voltage, drawn, *others], []
