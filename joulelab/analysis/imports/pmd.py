"""Raw captures of an Elmor Labs PMD as recordings."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np

from joulelab.analysis.imports.given import Given
from joulelab.analysis.imports.source import Advance, Clock, Piece, Recording
from joulelab.analysis.imports.zone import read_start
from joulelab.errors import DataInvalid
from joulelab.quantities import Channel, Scope, SensorModel
from joulelab.recording.block import Block
from joulelab.recording.formats.csv_log import numeric_stamp
from joulelab.recording.formats.elmor_pmd import CONNECTORS, SIZE, TICK_HZ, WRAP, Frames, Parser, elapsed
from joulelab.timebase import SECOND

BYTES = 256 * SIZE
"""Read at once: 52 ms at 4,900 frames/s, so that what is lost in a piece is lost nearly at one place."""
START = "PMD_start_ts.txt"
LATE_NS = 50_000_000
"""How much later than the first frame the stamp in `START` was taken (GPU_Power_Benchmark takes off as much)."""


def read_pmd(file: Path, given: Given, advance: Advance) -> Iterator[Recording]:
    """The bytes of the meter's stream. They begin at the map's `start`, or at the stamp in `START` beside the file."""
    pieces = _pieces(file, advance)
    first = next(pieces, None)
    if first is None or len(first[0].tick) < 2:
        raise DataInvalid(f"{file} holds no frames of an Elmor Labs PMD")
    step = int(np.median(np.diff(first[0].tick)))
    zero, width, clock = _clock(file, given)
    sensor = SensorModel(period_s=step / TICK_HZ)
    channels = tuple(given.facts(c.name).of(Channel(c.name, c.unit, scope=c.scope, sensor=sensor)) for c in _channels())
    yield Recording(channels, clock, _placed(chain([first], pieces), zero, width, step), streams=True)


def _channels() -> list[Channel]:
    """The power of each connector, and all together, whose scope depends on what was plugged in."""
    each = [Channel(f"{name}_power", "W", scope=Scope.RAIL) for name in CONNECTORS]
    volts = [Channel(f"{name}_voltage", "V") for name in CONNECTORS]
    amps = [Channel(f"{name}_current", "A") for name in CONNECTORS]
    return [Channel("power", "W"), *each, *volts, *amps]


def _clock(file: Path, given: Given) -> tuple[int, int, Clock]:
    """The latest time of the first frame [ns], how much earlier it may be, and the clock that this makes."""
    beside = file.with_name(START)
    if given.start:
        return read_start(given.start, given.timezone), 0, Clock("the meter's ticks since the given start", 1, "epoch")
    if not beside.is_file():
        return 0, 0, Clock("the meter's ticks", 1, "own")
    try:
        stamp = numeric_stamp(beside.read_text(), "us")
    except ValueError as reason:
        raise DataInvalid(f"{beside}: {reason}") from None
    return stamp.ns, LATE_NS, Clock(f"the meter's ticks since the stamp in {START}", 1, "epoch")


def _pieces(file: Path, advance: Advance) -> Iterator[tuple[Frames, int]]:
    """Runs of frames, and how many bytes before each were none."""
    parser, read, lost = Parser(), 0, 0
    with file.open("rb") as source:
        while data := source.read(BYTES):
            read += len(data)
            for frames in parser.feed(data):
                yield frames, parser.lost - lost
                lost = parser.lost
            advance(read)


def _placed(pieces: Iterator[tuple[Frames, int]], zero: int, width: int, step: int) -> Iterator[Piece]:
    """Each run behind the one before, by the tick and, where more was lost than one turn of it, by the lost bytes."""
    last_tick, ticks = 0, 0
    for number, (frames, lost) in enumerate(pieces):
        ahead = int(frames.tick[0]) - last_tick if number else 0
        missing = lost / SIZE * step
        turns = max(round((missing - ahead % WRAP) / WRAP), 0) if missing > WRAP / 2 else 0
        since = ticks + ahead % WRAP + turns * WRAP + elapsed(frames.tick)
        last_tick, ticks = int(frames.tick[-1]), int(since[-1])
        device = since * SECOND // TICK_HZ
        each = frames.volts * frames.amps
        values = np.concatenate([each.sum(axis=0, keepdims=True), each, frames.volts, frames.amps])
        yield Piece(Block(zero + device - width, zero + device, device, values), _wrong(lost, turns))


def _wrong(lost: int, turns: int) -> list[tuple[int, str]]:
    estimated = ", so that how long they took is estimated from their number" if turns else ""
    return [(0, f"{lost} bytes are no frames{estimated}")] if lost else []
