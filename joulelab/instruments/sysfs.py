"""Meters that the Linux kernel publishes as text files, read through descriptors that stay open."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from joulelab.errors import HardwareMissing, InstrumentFault
from joulelab.instruments.base import Block
from joulelab.options import Seconds
from joulelab.quantities import Channel
from joulelab.timebase import SECOND, Clock

Source = tuple[Channel, Callable[[], float]]


class HeldFile:
    """An open file; `owner` is the instrument that its faults name. Raises OSError where it cannot be opened."""

    def __init__(self, owner: str, path: Path) -> None:
        self._owner, self._path = owner, path
        self._fd = os.open(path, os.O_RDONLY)

    def text(self) -> bytes:
        """What it holds now, up to 64 bytes; InstrumentFault where its device has gone."""
        try:
            return os.pread(self._fd, 64, 0)
        except OSError as error:
            raise InstrumentFault(f"{self._owner}: {self._path} cannot be read: {error.strerror}") from None

    def number(self, scale: float) -> float:
        """The integer that it holds, times `scale`; InstrumentFault where it holds something else."""
        text = self.text()
        try:
            return int(text) * scale
        except ValueError:
            raise InstrumentFault(f"{self._owner}: {self._path} holds {text.strip()!r}, not an integer") from None

    def close(self) -> None:
        os.close(self._fd)


class SysfsOptions(BaseModel):
    """`root` is where the kernel's folder is mounted: a container may see the host's elsewhere."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    interval: Seconds
    root: str


class SysfsMeter(ABC):
    """A polled meter with a source a channel. A driver says what is there (`find`) and what to do where nothing is."""

    driver: str
    missing: str

    def __init__(self, name: str, options: SysfsOptions, clock: Clock) -> None:
        self.name, self.options = name, options.model_dump()
        self.channels: tuple[Channel, ...] = ()
        self.interval_ns = round(options.interval * SECOND)
        self._clock = clock
        self._root = Path(options.root)
        self._files: list[HeldFile] = []
        self._reads: tuple[Callable[[], float], ...] = ()

    @abstractmethod
    def find(self) -> Iterable[Source]:
        """The channels and what reads each in its unit, on files opened with `hold`."""

    def hold(self, path: Path) -> HeldFile:
        """Open a file until `close`."""
        self._files.append(HeldFile(self.name, path))
        return self._files[-1]

    def open(self) -> None:
        """Find the channels; HardwareMissing where there are none."""
        try:
            found = list(self.find())
            if not found:
                raise HardwareMissing(f"{self.name}: {self.missing} (looked below {self._root})")
        except BaseException:
            self.close()
            raise
        self.channels = tuple(channel for channel, _ in found)
        self._reads = tuple(read for _, read in found)

    def read(self) -> Block:
        """One reading; InstrumentFault where a file has gone or holds no number."""
        before = self._clock.now()
        values = [[read()] for read in self._reads]
        return Block([before], [self._clock.now()], None, values)

    def close(self) -> None:
        while self._files:
            self._files.pop().close()
