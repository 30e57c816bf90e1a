"""A library's functions as a transport, so that a driver of a library is taped and replayed like any other."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

from joulelab.timebase import Clock
from joulelab.transports.base import Reply


class CallTransport:
    """Each line of a request is a call, `function argument...`, answered by a line: what it returned, as JSON.

    `call` takes the function's name and its arguments as text. Where it raises the library's `error`, the answer is
    what `refusal` makes of that; an InstrumentFault goes through. `end` is called once, at the first `close`.
    """

    def __init__(
        self, call: Callable[..., object], error: type[Exception], clock: Clock, end: Callable[[], object]
    ) -> None:
        self._call = call
        self._error = error
        self._clock = clock
        self._end = ExitStack()
        self._end.callback(end)

    def exchange(self, request: bytes = b"") -> Reply:
        calls = [line.split() for line in request.decode().splitlines()]
        before = self._clock.now()
        answers = [self._answer(*call) for call in calls]
        after = self._clock.now()
        return Reply("\n".join(json.dumps(answer, default=vars) for answer in answers).encode(), before, after)

    def close(self) -> None:
        with suppress(self._error):  # a library that has failed cannot be left in any better order
            self._end.close()

    def _answer(self, *call: str) -> object:
        try:
            return self._call(*call)
        except self._error as error:
            return refusal(error)


def refusal(error: Exception) -> str:
    """How a library's error is answered: `!`, its class and its message."""
    return f"!{type(error).__name__}: {error}"


def is_refusal(answer: object) -> bool:
    return isinstance(answer, str) and answer.startswith("!")


def answers(data: bytes) -> list[Any]:
    """What the calls of a request were answered; ValueError where `data` is no such reply."""
    try:
        return [json.loads(line) for line in data.splitlines()]
    except RecursionError:
        raise ValueError("nested too deeply") from None
