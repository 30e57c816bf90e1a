"""This machine as a connection."""

from __future__ import annotations

from collections.abc import Sequence

from joulelab.timebase import Clock
from joulelab.transports.base import Transport
from joulelab.transports.files import LocalFiles
from joulelab.transports.process import ProcessTransport


class Local:
    """This machine, whose clock is the bench's: its programs' lines carry no stamps of their own."""

    url = "local"

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def open(self, argv: Sequence[str]) -> Transport:
        return ProcessTransport(argv, self._clock, argv[0])

    def files(self) -> Transport:
        return LocalFiles(self._clock)
