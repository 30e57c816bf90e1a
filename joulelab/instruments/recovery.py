"""What is done about an instrument that does not answer: try again, connect again, and in the end give up."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from joulelab.errors import HardwareMissing, InstrumentFault
from joulelab.instruments.base import Meter
from joulelab.timebase import SECOND, BenchNs, Clock

IN_A_ROW = 3
"""Faults in a row after which the instrument is closed and opened again."""
PAUSES_S = (0.0, 1.0, 2.0, 5.0, 10.0)
"""The pauses before it is opened again; the last one repeats."""
STEADY_S = 10.0
"""One that fails again sooner than this after it was opened gets the next longer pause: it may do so for ever."""
GIVE_UP_S = 60.0

T = TypeVar("T")


class Recovery:
    """The policy for transient faults of one instrument; a stable fault is let through.

    Each fault is journalled. After `IN_A_ROW` of them the instrument is opened again, with growing pauses, and must
    then be the same one with the same channels. Without a success for `GIVE_UP_S` the run ends. `pause` waits so many
    seconds, or until nobody wants the instrument any more.
    """

    def __init__(
        self, instrument: Meter, clock: Clock, tell: Callable[[], None], pause: Callable[[float], object]
    ) -> None:
        self._instrument, self._clock, self._tell, self._pause = instrument, clock, tell, pause
        self._faults = self._openings = 0
        self._since: BenchNs | None = None
        self._opened = clock.now()

    def attempt(self, act: Callable[[], T]) -> T | None:
        """What `act` returns, or None where it raised a transient fault."""
        try:
            result = act()
        except InstrumentFault as fault:
            if not fault.transient:
                raise
            self._note(fault)
            return None
        if self._since is not None:
            self._since, self._faults = None, 0
        return result

    def _note(self, fault: InstrumentFault) -> None:
        name = self._instrument.name
        self._instrument.told.append(("fault", {"source": name, "message": str(fault)}))
        now = self._clock.now()
        if self._since is None:
            self._since = now
        if now - self._since > GIVE_UP_S * SECOND:
            raise InstrumentFault(f"{name}: no reading for {GIVE_UP_S:g} s: {fault}")
        self._faults += 1
        if self._faults >= IN_A_ROW:
            self._tell()
            self._open_again()

    def _open_again(self) -> None:
        instrument = self._instrument
        was = instrument.identity, [channel.name for channel in instrument.channels]
        if self._clock.now() - self._opened > STEADY_S * SECOND:
            self._openings = 0
        self._pause(PAUSES_S[min(self._openings, len(PAUSES_S) - 1)])
        self._openings += 1
        self._opened = self._clock.now()
        with suppress(InstrumentFault):  # what it could not put back stays kept, and opening puts it back
            instrument.close()
        try:
            instrument.open()
        except (InstrumentFault, HardwareMissing) as error:
            instrument.told.append(("fault", {"source": instrument.name, "message": str(error)}))
            return
        if was != (instrument.identity, [channel.name for channel in instrument.channels]):
            raise InstrumentFault(f"{instrument.name}: another meter answers now: {instrument.identity}, not {was[0]}")
        self._faults = 0
        instrument.told.append(("reconnect", {"instrument": instrument.name}))
