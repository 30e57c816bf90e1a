"""The readings that an instrument hands over and a sample file takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Block(NamedTuple):
    """n readings of an instrument's channels (a polled meter hands over one, a streaming one many).

    `before` and `after` [n] bracket each reading on the bench clock [ns]; `device` [n] is the instrument's own stamp
    [ns] or None; `values` [channels][n] are in the channels' units. NaN is "no reading" and is stored as null.
    """

    before: Sequence[int] | NDArray[np.int64]
    after: Sequence[int] | NDArray[np.int64]
    device: Sequence[int] | NDArray[np.int64] | None
    values: Sequence[Sequence[float]] | NDArray[np.float64]
