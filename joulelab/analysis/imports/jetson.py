"""Logs of `tegrastats` as recordings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

from joulelab.analysis.imports.given import Given
from joulelab.analysis.imports.source import Advance, Clock, Recording, Row, at, pieces, read_lines
from joulelab.analysis.imports.source import Line as Text
from joulelab.analysis.imports.zone import LocalClock, local_clock, read_start
from joulelab.errors import DataInvalid, UserError
from joulelab.quantities import Channel
from joulelab.recording.formats.jetson_rails import identify, scope
from joulelab.recording.formats.tegrastats import Line, parse
from joulelab.timebase import SECOND

PROMPTS = 20
"""So many lines of a terminal may stand before the first one of tegrastats."""


def read_tegrastats(file: Path, given: Given, advance: Advance) -> Iterator[Recording]:
    """Stamps are whole seconds of local time; a log without them needs the `interval` that tegrastats was told."""
    lines = read_lines(file, advance)
    early, first, begin = _first(file, lines)
    channels = tuple(given.facts(channel.name).of(channel) for channel in _channels(begin))
    rest = chain([first], lines)
    if begin.stamp:
        found = _stamped(file, channels, LocalClock(given.timezone), rest)
        yield Recording(channels, local_clock(given.timezone, SECOND), pieces(chain(early, found)))
    else:
        zero, step, clock = _counted(file, given)
        yield Recording(channels, clock, pieces(chain(early, _unstamped(file, channels, zero, step, rest))))


def _first(file: Path, lines: Iterator[Text]) -> tuple[list[str], Text, Line]:
    """What stands before the first line of tegrastats, and that line; DataInvalid where it has no power rails."""
    early: list[DataInvalid] = []
    for line in islice(lines, PROMPTS):
        try:
            begin = _parse(file, line)
        except DataInvalid as reason:
            early.append(reason)
            continue
        if begin.reason:
            raise DataInvalid(f"{file}, line {line.number}: {begin.reason}")
        return [_within(file, reason) for reason in early], line, begin
    raise early[0] if early else DataInvalid(f"{file} is empty")


def _parse(file: Path, line: Text) -> Line:
    with at(file, line.number):
        return parse(line.text, whole=line.whole)


def _within(file: Path, reason: DataInvalid) -> str:
    return str(reason).removeprefix(f"{file}, ")


def _channels(line: Line) -> list[Channel]:
    """Rails under their own names; zones of temperature and loads often have the same ones."""
    module = identify("", line.rails)
    return [
        *(Channel(name, "W", scope=scope(module, name)) for name in line.rails),
        *(Channel(f"{name}_temperature", "degC") for name in (*line.temperatures, *line.off)),
        *(Channel(f"{name}_load", "1") for name in line.loads),
    ]


def _counted(file: Path, given: Given) -> tuple[int, int, Clock]:
    """The time of the first line, the step from line to line, and the clock that these make."""
    if given.interval is None:
        raise UserError(f"{file} has no time stamps: give the --interval of tegrastats as 'interval' in the map")
    about = f"estimated: no stamps, lines counted at the given interval of {given.interval:g} s"
    zero = read_start(given.start, given.timezone) if given.start else 0
    return zero, round(given.interval * SECOND), Clock(about, 1, "epoch" if given.start else "own")


def _stamped(file: Path, channels: Sequence[Channel], local: LocalClock, lines: Iterable[Text]) -> Iterator[Row | str]:
    for line in lines:
        try:
            found = _parse(file, line)
        except DataInvalid as reason:
            yield _within(file, reason)
            continue
        with at(file, line.number):
            if found.stamp is None:
                raise ValueError("has no time stamp, as the lines before it have: are these two logs?")
            t = local.ns(found.stamp)
        yield _row(file, line, channels, t, t + SECOND, found)


def _unstamped(file: Path, channels: Sequence[Channel], zero: int, step: int, lines: Iterable[Text]) -> Iterator[Row]:
    """A line that cannot be read still took its time."""
    for count, line in enumerate(lines):
        t = zero + count * step
        try:
            found = _parse(file, line)
        except DataInvalid as reason:
            yield Row(t, t, [math.nan] * len(channels), [_within(file, reason)])
            continue
        if found.stamp:
            raise DataInvalid(f"{file}, line {line.number}: has a time stamp, which the lines before it have not")
        yield _row(file, line, channels, t, t, found)


def _row(file: Path, line: Text, channels: Sequence[Channel], before: int, after: int, found: Line) -> Row:
    """A rail that a line lacks has no reading, which is a fault; a zone's sensor may be off, and a load not known."""
    names = [channel.name for channel in channels]
    rails = [channel.name for channel in channels if channel.unit == "W"]
    read = {name: power.now for name, power in found.rails.items()}
    if extra := read.keys() - set(rails):
        raise DataInvalid(f"{file}, line {line.number}: has rail {min(extra)}, which the first line has not")
    read |= {f"{name}_temperature": degrees for name, degrees in found.temperatures.items()}
    read |= {f"{name}_load": load for name, load in found.loads.items()}
    wrong = [f"the line has no {', '.join(lost)}"] if (lost := [name for name in rails if name not in read]) else []
    return Row(before, after, [read.get(name, math.nan) for name in names], wrong)
