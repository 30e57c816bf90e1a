"""Recorded traffic: a tape writes down every exchange of a transport, a cassette plays it to the same driver again."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from typing import Any

from joulelab.errors import DataInvalid, InstrumentFault
from joulelab.timebase import BenchNs
from joulelab.transports.base import Reply, Transport

Line = dict[str, Any]
"""One exchange: `request`, and either `reply`, `before` and `after` [ns], or `fault` and `transient`.

Bytes are text, or base64 under `<key>_base64` where they are not UTF-8.
"""


Sink = Callable[[Line], None]


class Tape:
    """Keeps the exchanges with `inner`, faults too, until `flush` hands them to `sink`: nothing is written before.

    Without a sink they are kept until there is one; `off` keeps none.
    """

    def __init__(self, inner: Transport, sink: Sink | None = None) -> None:
        self._inner = inner
        self._exchanges: list[tuple[bytes, Reply | InstrumentFault]] = []
        self.sink = sink

    def exchange(self, request: bytes = b"") -> Reply:
        try:
            reply = self._inner.exchange(request)
        except InstrumentFault as fault:
            self._exchanges.append((request, fault))
            raise
        self._exchanges.append((request, reply))
        return reply

    def flush(self) -> None:
        if not self._exchanges or self.sink is None:
            return
        exchanges, self._exchanges = self._exchanges, []
        for request, result in exchanges:
            self.sink({**_to_json("request", request), **_result(result)})

    def off(self) -> None:
        self._exchanges = []
        self.exchange = self._inner.exchange  # type: ignore[method-assign]  # a meter polled at 1 kHz feels each call

    def close(self) -> None:
        self._inner.close()


class Cassette:
    """Plays the lines of a tape, with their stamps. DataInvalid where the driver asks for what it did not."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self._lines = enumerate(lines, start=1)

    def exchange(self, request: bytes = b"") -> Reply:
        number, line = next(self._lines, (0, None))
        if line is None:
            raise DataInvalid(f"the tape has ended, but the driver goes on with {request[:60]!r}")
        _check(number, _bytes("request", line), request)
        if "fault" in line:
            raise InstrumentFault(line["fault"], transient=line["transient"])
        return Reply(_bytes("reply", line), BenchNs(line["before"]), BenchNs(line["after"]))

    def close(self) -> None:
        pass


def _check(number: int, recorded: bytes, asked: bytes) -> None:
    if recorded != asked:
        pairs = enumerate(zip(recorded, asked, strict=False))
        at = next((i for i, (a, b) in pairs if a != b), min(len(recorded), len(asked)))
        raise DataInvalid(
            f"exchange {number} of the tape differs from byte {at} on: "
            f"recorded {recorded[at : at + 40]!r}, asked now {asked[at : at + 40]!r}"
        )


def _result(result: Reply | InstrumentFault) -> Line:
    if isinstance(result, InstrumentFault):
        return {"fault": str(result), "transient": result.transient}
    return {**_to_json("reply", result.data), "before": result.before, "after": result.after}


def _to_json(key: str, data: bytes) -> Line:
    try:
        return {key: data.decode()}
    except UnicodeDecodeError:
        return {f"{key}_base64": base64.b64encode(data).decode()}


def _bytes(key: str, line: Line) -> bytes:
    return line[key].encode() if key in line else base64.b64decode(line[f"{key}_base64"])
