"""When the passes of a model ended, on the bench clock: by the host's clock, or by events on the card."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from joulelab.timebase import SECOND, Clock

if TYPE_CHECKING:
    import torch

LOOKS = 7
"""Brackets of which the narrowest anchors the card's time to the host's."""
CALLS = 200
"""How often a call is made to tell its cost."""
MS = 1e6
"""Nanoseconds in the unit of CUDA's events."""


@dataclass(frozen=True)
class Timing:
    """Bench times of marks [ns]; each is off by at most `limit_s`. `drift` is the card's clock against the host's."""

    marks: list[int]
    limit_s: float
    drift: float | None = None


class Watch(Protocol):
    """Marks in a stream of work: at most as many between `begin` and `end` as `begin` was told."""

    def begin(self, marks: int) -> None: ...

    def mark(self) -> None: ...

    def synchronise(self) -> None: ...

    def end(self) -> Timing: ...


class HostWatch:
    """For the CPU, where work has ended when its call returns. A mark is off by what it takes at most."""

    def __init__(self, clock: Clock) -> None:
        self._now = clock.now
        self._times: list[int] = []
        self._limit_s = cost_s(self.mark, clock)

    def begin(self, marks: int) -> None:
        self._times = []

    def mark(self) -> None:
        self._times.append(self._now())

    def synchronise(self) -> None:
        """There is nothing to wait for."""

    def end(self) -> Timing:
        return Timing(self._times, self._limit_s)


class Bracket(NamedTuple):
    """The times [ns] on the bench clock between which something happened on the card."""

    before: int
    after: int

    @property
    def half(self) -> float:
        return (self.after - self.before) / 2


class CudaWatch:
    """For a CUDA card: a mark is an event that nothing waits for; anchors before and after map it to the host."""

    def __init__(self, clock: Clock) -> None:
        import torch

        self._clock = clock
        self._cuda = torch.cuda
        self._stream = torch.cuda.current_stream()
        self._events: list[torch.cuda.Event] = []
        self._used = 0

    def begin(self, marks: int) -> None:
        while len(self._events) < marks:
            self._events.append(self._event())  # the first record creates an event, which takes longer
        self._used = 0
        self._first, self._opening = self._anchor()

    def mark(self) -> None:
        self._events[self._used].record(self._stream)
        self._used += 1

    def synchronise(self) -> None:
        self._cuda.synchronize()

    def end(self) -> Timing:
        last, closing = self._anchor()
        told = [self._first.elapsed_time(event) * MS for event in (*self._events[: self._used], last)]
        return mapped(self._opening, closing, told)

    def _anchor(self) -> tuple[torch.cuda.Event, Bracket]:
        return min((self._bracketed() for _ in range(LOOKS)), key=lambda anchor: anchor[1].half)

    def _bracketed(self) -> tuple[torch.cuda.Event, Bracket]:
        """An event that an idle card came to between two looks at the clock."""
        self.synchronise()
        before = self._clock.now()
        event = self._event()
        self.synchronise()
        return event, Bracket(before, self._clock.now())

    def _event(self) -> torch.cuda.Event:
        event = self._cuda.Event(enable_timing=True)
        event.record(self._stream)
        return event


def mapped(opening: Bracket, closing: Bracket, told: list[float]) -> Timing:
    """The marks of events that the card's clock `told` to be so many ns after the opening one; the last is the closing.

    Offset and drift are those of the line through the middles of both brackets: no time between is off by more than
    half the wider one.
    """
    start = opening.before + opening.half
    slope = (closing.before + closing.half - start) / told[-1]
    limit_s = max(opening.half, closing.half) / SECOND
    return Timing([round(start + slope * ns) for ns in told[:-1]], limit_s, slope - 1)


def cost_s(call: Callable[[], object], clock: Clock) -> float:
    """What a call costs [s], in the mean of many."""
    before = clock.now()
    for _ in range(CALLS):
        call()
    return (clock.now() - before) / CALLS / SECOND


def costs(watch: Watch, clock: Clock) -> dict[str, float]:
    """What a synchronisation of the idle device and a mark cost, and how far a mark may be off at most [s]."""
    watch.begin(CALLS)
    event_s = cost_s(watch.mark, clock)
    watch.synchronise()
    limit_s = watch.end().limit_s
    return {"synchronisation_s": cost_s(watch.synchronise, clock), "event_s": event_s, "limit_s": limit_s}
