"""What every instrument offers."""

from __future__ import annotations

from typing import Any, Protocol

from joulelab.quantities import Channel
from joulelab.recording.block import Block

__all__ = ["Block", "Instrument"]


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
