"""Frames of an Elmor Labs PMD: a tick and, for each of four connectors, a voltage and a current."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from joulelab.recording.formats.frames import Framing, Links, Run

CONNECTORS = ("pcie1", "pcie2", "eps1", "eps2")
TICK_HZ = 3_000_000
WRAP = 1 << 16
"""Ticks after which the tick begins again: 21.8 ms."""
VOLTS, AMPS = 0.007568, 0.0488
"""One step of the converter (the maker's example program)."""
SIZE = 18
LEAST = 3
"""So many frames in a row are not met by chance: 32 bits of each are zero, and its tick follows the last one's."""
STEP = (100, 8192)
"""Ticks from one frame to the next: 30,000 to 366 frames/s. A port of 115,200 baud carries 640 of them."""

_FRAME = np.dtype([("tick", "<u2"), ("raw", "<i2", (4, 2))])


class Frames(NamedTuple):
    """n frames that follow each other: `tick` [n], and `volts` and `amps` [4 connectors][n].

    `continues`: without a break after those before.
    """

    tick: NDArray[np.uint16]
    volts: NDArray[np.float64]
    amps: NDArray[np.float64]
    continues: bool


class Parser:
    """Finds the frames in pieces of a stream, or in a whole recording. `lost` counts the bytes that were in none.

    `offsets` [8], from the meter's configuration, are added to what its converter read. The converter's 12 bits are
    the upper ones of a word and are signed: a cable that carries next to nothing reads -1 now and then, which is
    199.8 A to a program that takes it as unsigned. There is no check sum: a value that alone was garbled is not seen.
    """

    def __init__(self, offsets: NDArray[np.int8] | None = None) -> None:
        self._offsets = np.zeros(8, np.int8) if offsets is None else offsets
        self._framing = Framing(_links, SIZE, LEAST)

    @property
    def lost(self) -> int:
        return self._framing.lost

    def feed(self, piece: bytes) -> list[Frames]:
        data, runs = self._framing.feed(piece)
        return [self._frames(data, run) for run in runs]

    def _frames(self, data: bytes, run: Run) -> Frames:
        frames = np.frombuffer(data, _FRAME, run.length, run.start)
        steps = ((frames["raw"] >> 4).reshape(-1, 8) + self._offsets).T.astype(np.float64)
        return Frames(frames["tick"], steps[0::2] * VOLTS, steps[1::2] * AMPS, run.continues)


def elapsed(tick: NDArray[np.uint16]) -> NDArray[np.int64]:
    """Ticks since the first of frames that follow each other [n]."""
    return np.cumsum(np.diff(tick, prepend=tick[:1]), dtype=np.int64)


def _links(data: NDArray[np.uint8]) -> Links:
    """Whether two frames follow each other from each byte on: by the zeros below the 12 bits, and the tick."""
    n = len(data) - 2 * SIZE + 1
    if n <= 0:
        return np.zeros(0, np.bool_)
    low = data[2:] & 0x0F
    bits = low[: n + SIZE].copy()
    for k in range(2, SIZE - 2, 2):
        bits |= low[k : k + n + SIZE]
    tick = data[:-1] + (data[1:].astype(np.uint16) << 8)
    step = tick[SIZE : SIZE + n] - tick[:n]
    good: Links = (bits[:n] == 0) & (bits[SIZE : SIZE + n] == 0) & (step >= STEP[0]) & (step <= STEP[1])
    return good
