"""A recording of another tool as every importer hands it over: readings on the log's own clock, and their faults."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from joulelab.errors import DataInvalid
from joulelab.quantities import Channel
from joulelab.recording.block import Block

LONGEST_LINE = 1_000_000
CHUNK = 10_000
"""Rows in a block."""

ClockKind = Literal["epoch", "local", "own"]
"""Counts from 1970; is local time in a zone that nobody stated; has any other zero."""
Advance = Callable[[int], None]
"""Takes how many bytes of the file are read."""


class Piece(NamedTuple):
    """Readings on the log's own clock, and what is wrong with some: (index in the block, message)."""

    block: Block
    wrong: Sequence[tuple[int, str]] = ()


@dataclass(frozen=True)
class Clock:
    """The log's own clock: what it is in words, the last place of its stamps [ns], and what it counts from."""

    about: str
    coarse_ns: int
    kind: ClockKind


@dataclass(frozen=True)
class Recording:
    """One instrument's readings, still to be read: `pieces` are read once, in the order of the file.

    The stamps of the blocks are on the log's `clock` and may go back. A log that `streams` has readings as its sensor
    makes them, any other was polled. `part` tells apart what one file holds several of; `identity` is what the meter
    said of itself.
    """

    channels: tuple[Channel, ...]
    clock: Clock
    pieces: Iterable[Piece]
    streams: bool = False
    part: str = ""
    identity: dict[str, Any] = field(default_factory=dict)


class Row(NamedTuple):
    """One reading: its bracket [ns on the log's clock], a value a channel (NaN: none), and what is wrong with it."""

    before: int
    after: int
    values: list[float]
    wrong: list[str]


class Line(NamedTuple):
    number: int
    text: str
    whole: bool


def read_lines(file: Path, advance: Advance) -> Iterator[Line]:
    """The lines of a text file that are not blank, counted from 1; DataInvalid where it is no text.

    A line is `whole` where its end was written.
    """
    read = number = 0
    while lines := _some_lines(file, read):
        for line in lines:
            read, number = read + len(line), number + 1
            whole = line.endswith(b"\n")
            if len(line) == LONGEST_LINE and not whole:
                raise DataInvalid(f"{file}, line {number}: is longer than a line of text")
            if text := _text(file, number, line):
                yield Line(number, text, whole)
        advance(read)


def _some_lines(file: Path, start: int) -> list[bytes]:
    """Lines from byte `start` on. The file is closed again: who reads on may stop at any line."""
    with file.open("rb") as source:
        source.seek(start)
        lines: list[bytes] = []
        while len(lines) < CHUNK and (line := source.readline(LONGEST_LINE)):
            lines.append(line)
            if len(line) == LONGEST_LINE:
                break
        return lines


def _text(file: Path, number: int, line: bytes) -> str:
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise DataInvalid(f"{file}, line {number}: is not UTF-8 text")
    return text


def rows(found: Iterable[Row | str]) -> Iterator[Row]:
    """Rows alone: what is said between them is what is wrong with the row before, at the beginning with the first."""
    early: list[str] = []
    held: Row | None = None
    for item in found:
        if isinstance(item, str):
            (early if held is None else held.wrong).append(item)
            continue
        if held is not None:
            yield held
        else:
            item.wrong[:0] = early
        held = item
    if held is not None:
        yield held


def pieces(found: Iterable[Row | str]) -> Iterator[Piece]:
    """Rows in blocks of a size that memory does not mind."""
    source = rows(found)
    while chunk := list(islice(source, CHUNK)):
        before, after = (np.array([row[k] for row in chunk], np.int64) for k in (0, 1))
        block = Block(before, after, None, np.array([row.values for row in chunk], np.float64).T)
        yield Piece(block, [(k, text) for k, row in enumerate(chunk) for text in row.wrong])


@contextmanager
def at(file: Path, number: int) -> Iterator[None]:
    """Whatever is wrong in here is wrong with this line of the file."""
    try:
        yield
    except (DataInvalid, ValueError, OverflowError, csv.Error) as reason:
        raise DataInvalid(f"{file}, line {number}: {reason}") from None
