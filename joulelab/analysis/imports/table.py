"""CSV logs of any kind as recordings, as a map says."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

from joulelab.analysis.imports.given import CsvGiven
from joulelab.analysis.imports.source import Advance, Clock, Recording, Row, at, pieces, read_lines
from joulelab.analysis.imports.zone import LocalClock, local_clock
from joulelab.errors import DataInvalid
from joulelab.recording.formats.csv_log import Stamp, date_stamp, number, numeric_stamp
from joulelab.registry import nearest

PEEK = 1000
"""So many rows are looked at for the last place of the stamps."""


class Cells(NamedTuple):
    number: int
    cells: list[str]
    whole: bool


def read_csv(file: Path, given: CsvGiven, advance: Advance) -> Iterator[Recording]:
    """A table with a column of stamps and one a channel. A cell that is neither number nor missing is DataInvalid."""
    table = _table(file, given, advance)
    heading = next(table, None)
    if heading is None:
        raise DataInvalid(f"{file} has no header")
    with at(file, heading.number):
        when = _index(heading.cells, given.time.column)
        places = [_index(heading.cells, column.column) for column in given.channels.values()]
    first = list(islice(table, PEEK))
    clock = _clock(given, [_stamp(file, given, row, when) for row in first if row.whole])
    channels = tuple(column.made(name) for name, column in given.channels.items())
    yield Recording(channels, clock, pieces(_rows(file, given, chain(first, table), when, places, clock.coarse_ns)))


def _table(file: Path, given: CsvGiven, advance: Advance) -> Iterator[Cells]:
    """The cells of each line with its number, blank lines left out; cells hold no line ends."""
    for line in read_lines(file, advance):
        if line.number <= given.skip:
            continue
        with at(file, line.number):
            cells = next(csv.reader([line.text], delimiter=given.delimiter, skipinitialspace=True, strict=True), [])
        if cells:
            yield Cells(line.number, [cell.strip() for cell in cells], line.whole)


def _index(heading: Sequence[str], column: str) -> int:
    if heading.count(column) != 1:
        raise ValueError(f"{heading.count(column)} columns are called {column!r}{nearest(column, heading)}")
    return heading.index(column)


def _stamp(file: Path, given: CsvGiven, row: Cells, when: int) -> Stamp:
    with at(file, row.number):
        if when >= len(row.cells):
            raise ValueError("is shorter than the header")
        if given.time.unit:
            return numeric_stamp(row.cells[when], given.time.unit)
        return date_stamp(row.cells[when], given.time.format or "iso")


def _clock(given: CsvGiven, stamps: Sequence[Stamp]) -> Clock:
    """The last place of the stamps is the finest that is seen: trailing zeros may be left out."""
    coarse = min((stamp.coarse_ns for stamp in stamps), default=1)
    dates = [stamp.date for stamp in stamps if stamp.date]
    if dates and all(date.tzinfo for date in dates):
        return Clock("dates with their offset from UTC", coarse, "epoch")
    if dates:
        return local_clock(given.timezone, coarse)
    about = "since 1970" if given.time.clock == "epoch" else "on a clock of its own"
    return Clock(f"{given.time.unit} {about}", coarse, given.time.clock)


def _rows(
    file: Path, given: CsvGiven, table: Iterator[Cells], when: int, places: Sequence[int], coarse_ns: int
) -> Iterator[Row | str]:
    local = LocalClock(given.timezone)
    columns = list(zip(places, given.channels.values(), strict=True))
    for row in table:
        if not row.whole:
            yield f"line {row.number} does not end, so it may be cut off: it is left out"
            return
        stamp = _stamp(file, given, row, when)
        with at(file, row.number):
            if len(row.cells) <= max(places):
                raise ValueError("is shorter than the header")
            values = [column.factor * number(row.cells[k], column.missing) for k, column in columns]
            t = stamp.ns if stamp.date is None else local.ns(stamp.date)
        yield Row(t, t + coarse_ns, values, [])
