"""How fast what meters and tools write is decoded, against a plain loop over its pieces."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from benchmarks.row import Row
from benchmarks.timing import medians, seconds, taking_turns
from joulelab.instruments import ppk2
from joulelab.recording.formats import elmor_pmd, tegrastats
from joulelab.timebase import SECOND, BenchNs, MonotonicClock
from joulelab.transports.base import Reply
from tests.peers.serial_meters import ppk2_metadata, ppk2_samples

ROUNDS = 5
PIECE, PIECES = 3_200, 100
"""32 ms of a PPK2's stream at a time; its counter goes on from one piece to the next."""
FASTER = 20
PMD_FRAMES_PER_S = 4_900
TEGRASTATS_LINES_PER_S = 20_000
LINE = (
    "07-21-2025 16:33:47 RAM 17956/62841MB (lfb 9x4MB) SWAP 0/31420MB (cached 0MB) CPU [30%@1728,46%@1113,4%@1113,"
    "0%@1113,1%@729,2%@729,3%@729,8%@729,off,off,off,off] EMC_FREQ 11%@204 GR3D_FREQ 41%@[305,0] NVENC off NVDEC off "
    "NVJPG off NVJPG1 off VIC off OFA off NVDLA0 off NVDLA1 off PVA0_FREQ off APE 174 cpu@43.625C soc2@40.5C "
    "soc0@41.031C gpu@39.812C tj@43.625C soc1@40.593C VDD_GPU_SOC 2798mW/2798mW VDD_CPU_CV 799mW/799mW "
    "VIN_SYS_5V0 3215mW/3215mW"
)
"""A line of an AGX Orin (L4T R36)."""


def rate(pieces: int, ours: Callable[[], object], plain: Callable[[], object]) -> tuple[float, dict[str, float]]:
    """Pieces a second of ours and of a plain loop, in turns."""
    took = taking_turns(ROUNDS, {"ours": partial(seconds, ours), "plain loop": partial(seconds, plain)})
    rates = {name: pieces / value for name, value in medians(took).items()}
    return rates.pop("ours"), rates


class Stream:
    """In the place of a PPK2's port: its calibration, then pieces of its stream, each as long as they take."""

    def __init__(self) -> None:
        self._first = [ppk2_metadata().encode()]
        counts = np.arange(PIECE)
        self.piece = ppk2_samples(counts, 2000 | 4 << 14)
        self._now = 0

    def exchange(self, request: bytes = b"") -> Reply:
        before, self._now = self._now, self._now + PIECE * SECOND // ppk2.RATE_HZ
        data = b"" if request else self._first.pop() if self._first else self.piece
        return Reply(data, BenchNs(before), BenchNs(self._now))

    def close(self) -> None:
        """There is nothing to close."""


def ppk2_samples_a_second() -> Iterator[Row]:
    """Samples of a PPK2, from the bytes of its port to means of a hundred in blocks."""
    stream = Stream()
    meter = ppk2.Driver(
        "ppk", ppk2.Driver.Options(port="none", mode="ampere", voltage=3.7), MonotonicClock(), transport=stream
    )
    meter.open()
    meter.record(None)
    ours, plain = rate(
        PIECES * PIECE,
        lambda: [meter.read() for _ in range(PIECES)],
        lambda: [word & 0x1FFFF for _ in range(PIECES) for (word,) in struct.iter_unpack("<I", stream.piece)],
    )
    alternative = {"unpacked one by one, neither in step nor calibrated": plain["plain loop"]}
    yield Row("PPK2, decoded and averaged", ours, "samples/s", FASTER * ppk2.RATE_HZ, "higher", alternative)


def pmd() -> Iterator[Row]:
    """Frames of an Elmor PMD, of one in a hundred of which a byte is missing."""
    data, frames = _pmd_stream()
    whole = data[: len(data) // 18 * 18]
    ours, plain = rate(frames, lambda: elmor_pmd.Parser().feed(data), lambda: list(struct.iter_unpack("<9H", whole)))
    alternative = {"unpacked one by one, in step or not": plain["plain loop"]}
    limit = FASTER * PMD_FRAMES_PER_S
    yield Row("Elmor PMD, decoded and resynchronised", ours, "frames/s", limit, "higher", alternative)


def _pmd_stream() -> tuple[bytes, int]:
    """A stream at 12 V and four currents, and its number of frames."""
    count = 50_000
    words = np.tile(np.array([0, 25360, 2000, 25360, 992, 25360, 496, 25360, 304], np.uint16), (count, 1))
    words[:, 0] = (np.arange(count) * 612) % 65536
    torn = 18 * np.random.default_rng(1).choice(count, count // 100, replace=False) + 7
    return np.delete(np.frombuffer(words.astype("<u2").tobytes(), np.uint8), torn).tobytes(), count


def lines() -> Iterator[Row]:
    """Lines of tegrastats, rails, temperatures and loads."""
    many = [LINE] * 5_000
    pattern = re.compile(r"(\w+) (\d+)mW/(\d+)mW")
    ours, plain = rate(
        len(many), lambda: [tegrastats.parse(line) for line in many], lambda: [pattern.findall(line) for line in many]
    )
    alternative = {"a regular expression for the rails alone": plain["plain loop"]}
    yield Row("tegrastats, parsed", ours, "lines/s", TEGRASTATS_LINES_PER_S, "higher", alternative)
