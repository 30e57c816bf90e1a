"""What every transport offers: a request out, a stamped reply back."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from joulelab.timebase import BenchNs


class Reply(NamedTuple):
    """What came back, between the stamps before the request and after the reply [ns]."""

    data: bytes
    before: BenchNs
    after: BenchNs


class Transport(Protocol):
    """A way to one instrument or engine.

    The empty request asks for the next piece of a stream; empty `data` in answer to it is the stream's end.
    InstrumentFault where the far side cannot be reached, refuses or falls silent.
    """

    def exchange(self, request: bytes = b"") -> Reply: ...

    def close(self) -> None: ...
