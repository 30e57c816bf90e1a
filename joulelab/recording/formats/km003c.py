"""Messages of a POWER-Z KM003C, an inline USB-C meter (github.com/okhsunrog/km003c-protocol-research)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from joulelab.errors import DataInvalid

PUT_DATA = 0x41
QUEUE = 2
"""The attribute that holds samples; others hold settings, single readings and logs."""
_SAMPLE = np.dtype([("seq", "<u2"), ("marker", "<u2"), ("uv", "<i4"), ("ua", "<i4"), ("lines", "<u2", (4,))])


class Samples(NamedTuple):
    """n samples: `seq` [n] counts milliseconds and wraps at 65,536; `volts`; `amps`, negative where they flow back."""

    seq: NDArray[np.uint16]
    volts: NDArray[np.float64]
    amps: NDArray[np.float64]


def parse(message: bytes) -> Samples:
    """The samples in one message, none in one that holds other things; DataInvalid where it is cut or garbled."""
    raw = np.frombuffer(b"".join(_queues(message)), _SAMPLE)
    return Samples(raw["seq"], raw["uv"] * 1e-6, raw["ua"] * 1e-6)


def _queues(message: bytes) -> Iterator[bytes]:
    """The bodies of the parts that hold samples; a part's header says whether another follows."""
    if message[:1] != bytes([PUT_DATA]):
        return
    at, more = 4, len(message) > 4
    while more:
        header = int.from_bytes(message[at : at + 4], "little")
        attribute, more, chunk, size = header & 0x7FFF, bool(header >> 15 & 1), header >> 16 & 0x3F, header >> 22
        body = size * chunk if attribute == QUEUE else size
        if len(message) < at + 4 + body:
            raise DataInvalid(f"a KM003C message of {len(message)} bytes is cut: its data end at byte {at + 4 + body}")
        if attribute == QUEUE:
            if size != _SAMPLE.itemsize:
                raise DataInvalid(f"a KM003C message has samples of {size} bytes, not {_SAMPLE.itemsize}")
            yield message[at + 4 : at + 4 + body]
        at += 4 + body
