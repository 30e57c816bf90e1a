"""The log of PTDaemon as a recording."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from joulelab.analysis.imports.given import Given
from joulelab.analysis.imports.source import Advance, Line, Recording, Row, at, pieces, read_lines
from joulelab.analysis.imports.zone import LocalClock, local_clock
from joulelab.errors import DataInvalid
from joulelab.quantities import Channel, Scope
from joulelab.recording.formats.ptd import QUANTITIES, Message, Sample, parse

MS = 10**6


def read_ptd(file: Path, given: Given, advance: Advance) -> Iterator[Recording]:
    """`spl.txt` of PTDaemon. MLPerf and SPECpower put its meter between the wall and the device."""
    lines = read_lines(file, advance)
    early: list[str] = []
    for line in lines:
        first = _parse(file, line)
        if isinstance(first, Sample):
            names = list(first.values)
            channels = tuple(given.facts(name).of(_channel(name)) for name in names)
            found = chain(early, _rows(file, names, LocalClock(given.timezone), chain([line], lines)))
            yield Recording(channels, local_clock(given.timezone, MS), pieces(found))
            return
        early += [first.text] * first.bad
    raise DataInvalid(f"{file} holds no sample of PTDaemon")


def _channel(name: str) -> Channel:
    unit = dict(QUANTITIES.values())[name.rpartition(".")[2]]
    return Channel(name, unit, scope=Scope.WALL if unit == "W" else None)


def _parse(file: Path, line: Line) -> Sample | Message:
    """What a line says; a last line that was cut off is a fault of the log, any other bad line is DataInvalid."""
    try:
        with at(file, line.number):
            return parse(line.text)
    except DataInvalid as reason:
        if line.whole or line.number == 1:
            raise
        return Message(str(reason), bad=True)


def _rows(file: Path, names: list[str], local: LocalClock, lines: Iterable[Line]) -> Iterator[Row | str]:
    for line in lines:
        found = _parse(file, line)
        if isinstance(found, Message):
            yield from [found.text] * found.bad
            continue
        with at(file, line.number):
            if extra := found.values.keys() - set(names):
                raise ValueError(f"has {min(extra)}, which the first sample has not: are these two logs?")
            t = local.ns(found.stamp)
        yield Row(t, t + MS, [found.values.get(name, math.nan) for name in names], found.refused)
