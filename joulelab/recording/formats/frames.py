"""Frames of a fixed size without a mark where one begins: found by what links each to the next."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Links = NDArray[np.bool_]


class Run(NamedTuple):
    """Frames that follow each other, from the byte `start` on; `continues`: without a break after those before."""

    start: int
    length: int
    continues: bool


class Framing:
    """Finds frames of `size` bytes in a stream that comes in pieces.

    `link` tells of each byte of any data [n] whether a frame that begins there is followed by its successor
    [n - 2 size + 1]. Of at least `least` such frames in a row those count that have a predecessor, too: beside a break
    there may be halves of two frames, a frame that came again, or noise. `lost` counts the bytes that are in no frame.
    """

    def __init__(self, link: Callable[[NDArray[np.uint8]], Links], size: int, least: int) -> None:
        self._link, self._size, self._least = link, size, least
        self._rest = b""
        self._open = False
        self.lost = 0

    def feed(self, piece: bytes) -> tuple[bytes, list[Run]]:
        """The bytes that the runs lie in, and the runs. What may yet become one waits for the next piece."""
        data = self._rest + piece
        link = self._link(np.frombuffer(data, np.uint8))
        if not len(link):
            self._rest = data
            return data, []
        runs, rest, self._open = self._find(link)
        self.lost += rest - sum(run.length for run in runs) * self._size
        self._rest = data[rest:]
        return data, runs

    def _find(self, link: Links) -> tuple[list[Run], int, bool]:
        """The runs, where the rest begins, and whether the last run goes on there."""
        runs: list[Run] = []
        begins: NDArray[np.intp] | None = None
        at = 0
        while at < len(link):
            length = _linked(link[at :: self._size])
            stop, continues = at + length * self._size, self._open and at == 0
            if good := continues or length >= self._least:
                first = at if continues else at + self._size
                runs += [Run(first, (stop - first) // self._size, continues)] * (stop > first)
                at = stop
            if stop >= len(link):
                return runs, at, good
            begins = _begins(link, self._size, self._least) if begins is None else begins
            found = int(np.searchsorted(begins, at + 1))
            at = int(begins[found]) if found < len(begins) else len(link)
        return runs, at, False


def _linked(links: Links) -> int:
    """How many there are before the first that is broken."""
    first = int(links.argmin())
    return len(links) if links[first] else first


def _begins(link: Links, size: int, least: int) -> NDArray[np.intp]:
    """Where `least` frames begin, or fewer that the data's end cuts."""
    good = link.copy()
    for k in range(1, least):
        good[: max(len(link) - k * size, 0)] &= link[k * size :]
    return np.flatnonzero(good)
