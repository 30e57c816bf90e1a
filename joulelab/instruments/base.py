"""What every instrument offers, and the block of readings that it hands over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from joulelab.quantities import Channel


class Block(NamedTuple):
    """n readings of an instrument's channels (a polled meter hands over one, a streaming one many).

    `before` and `after` [n] bracket each reading on the bench clock [ns]; `device` [n] is the instrument's own stamp
    [ns] or None; `values` [channels][n] are in the channels' units. NaN is "no reading" and is stored as null.
    """

    before: Sequence[int] | NDArray[np.int64]
    after: Sequence[int] | NDArray[np.int64]
    device: Sequence[int] | NDArray[np.int64] | None
    values: Sequence[Sequence[float]] | NDArray[np.float64]


class Instrument(Protocol):
    """A meter. `interval_ns` is the polling interval; `open` and `close` may be called again after one another."""

    name: str
    driver: str
    options: dict[str, Any]
    channels: tuple[Channel, ...]
    interval_ns: int

    def open(self) -> None: ...

    def read(self) -> Block: ...

    def close(self) -> None: ...
