"""What tests of streaming meters share: a stream in pieces, and a look at what came of it."""

from __future__ import annotations

import json
from collections.abc import Iterable

import numpy as np

from joulelab.instruments.base import Block, Meter
from joulelab.timebase import BenchNs, MonotonicClock
from joulelab.transports.base import Reply
from joulelab.transports.tape import Cassette, Line

CLOCK = MonotonicClock()


class Pieces:
    """A transport that answers requests by rule, and hands over a stream in pieces, each `step_ns` after the last."""

    def __init__(self, answers: dict[bytes, bytes], stream: Iterable[bytes], step_ns: int = 10_000_000) -> None:
        self._answers, self._stream, self.step_ns = answers, iter(stream), step_ns
        self._now, self._pending = 0, b""
        self.log: list[bytes] = []

    def exchange(self, request: bytes = b"") -> Reply:
        before, self._now = self._now, self._now + self.step_ns
        if request:
            self.log.append(request)
            self._pending = self._answers.get(request, b"")
            return Reply(b"", BenchNs(before), BenchNs(self._now))
        piece, self._pending = self._pending or next(self._stream), b""
        return Reply(piece, BenchNs(before), BenchNs(self._now))

    def close(self) -> None:
        """There is nothing to close."""


def blocks_of(meter: Meter, n: int) -> list[Block]:
    return [meter.read() for _ in range(n)]


def joined(blocks: Iterable[Block]) -> Block:
    parts = [b for b in blocks if len(b.before)]
    return Block(*(np.concatenate([np.asarray(p) for p in part], axis=-1) for part in zip(*parts, strict=True)))


def messages(meter: Meter) -> list[str]:
    return [fields["message"] for _, fields in meter.told]


def check_replay(meter: Meter, tape: list[Line], blocks: list[Block]) -> None:
    """The taped traffic gives the same readings to a new driver."""
    again = type(meter)("again", meter.Options.model_validate(meter.options), CLOCK, transport=Cassette(tape))
    again.open()
    replayed = blocks_of(again, len(blocks))
    again.close()
    for one, other in zip(blocks, replayed, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def taped(meter: Meter) -> list[Line]:
    tape: list[Line] = []
    meter.record(lambda line: tape.append(json.loads(json.dumps(line))))
    return tape
