"""One instrument being sampled, in a thread of its own."""

from __future__ import annotations

import ctypes
import threading
import time
import traceback
from array import array
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from joulelab.errors import JoulelabError
from joulelab.instruments.base import Block, Meter
from joulelab.instruments.build import Spec, wired
from joulelab.instruments.recovery import Recovery
from joulelab.recording.manifest import stream_period_ns
from joulelab.recording.recorder import Wire
from joulelab.recording.samples import SampleWriter
from joulelab.timebase import SECOND, BenchNs, Clock

FLUSH_NS = SECOND // 2
PR_SET_TIMERSLACK = 29

Emit = Callable[..., None]


class Sampling(threading.Thread):
    """Reads one instrument, and writes its samples: on deadlines a fixed interval apart, or as a stream brings them.

    A reading that begins whole intervals late takes the place of the last one it should have been. The periods before
    that were missed, like those of readings that failed, and are told as a gap with the next reading. So where two
    readings are two intervals or more apart, a gap says so.
    """

    def __init__(self, instrument: Meter, wiring: Spec, folder: Path, clock: Clock, emit: Emit) -> None:
        super().__init__(name=instrument.name, daemon=True)
        self._instrument, self._wiring, self._clock, self._emit = instrument, wiring, clock, emit
        self._path = folder / "samples" / f"{instrument.name}.arrows"
        wire = wiring.get("wire", instrument.wire)
        instrument.record(Wire(folder, instrument.name) if wire else None)
        self._lateness = array("q")
        self._readings = self._missed = 0
        self._orders: SimpleQueue[tuple[str, threading.Event]] = SimpleQueue()
        self.stopping = threading.Event()
        self._recovery = Recovery(instrument, clock, self.tell, self.stopping.wait)

    def range(self, mode: str) -> threading.Event:
        """Have the meter choose or fix its ranges between two readings; the event is set when it has."""
        done = threading.Event()
        self._orders.put((mode, done))
        return done

    def run(self) -> None:
        ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)  # the default slack of 50 us is lateness for nothing
        started = time.monotonic()
        try:
            self._writer = SampleWriter(self._path, [channel.name for channel in self._instrument.channels])
            try:
                if self._instrument.interval_ns is None:
                    self._stream(stream_period_ns(self._instrument.channels))
                else:
                    self._poll(self._instrument.interval_ns)
            finally:
                self._writer.close()
                self._instrument.tape.flush()
        except OSError as error:
            self._emit("fatal", source=self.name, message=f"samples of {self.name} cannot be written: {error.strerror}")
        except JoulelabError as error:
            self._emit("fatal", source=self.name, message=str(error))
        except Exception as bug:  # noqa: BLE001 a thread that ended in silence would leave a run without its samples
            traceback.print_exc()
            self._emit("fatal", source=self.name, message=f"{self.name} cannot be sampled any more: {bug!r}")
        self._emit("sampler", **self._cost(time.monotonic() - started))

    def _poll(self, interval: int) -> None:
        deadline = self._clock.now() + interval
        last, flush_at, missed = self._writer.last_ns, deadline + FLUSH_NS, 0
        if last >= 0:
            self._tell_gap(last, deadline, (deadline - last) // interval)
        while not self.stopping.is_set():
            self._clock.sleep_until(BenchNs(deadline))
            if not self._orders.empty():
                self._obey()
            block = self._take()
            began = int(block.before[-1]) if block is not None and len(block.before) else self._clock.now()
            late = max(began - deadline, 0)
            missed += late // interval + (block is None)
            if block is not None:
                self._lateness.append(late)
                if missed:
                    self._tell_gap(last, began, missed)
                last, missed = began, 0
            if began >= flush_at:
                self._flush()
                flush_at = began + FLUSH_NS
            deadline += (late // interval + 1) * interval
        if missed:
            self._tell_gap(last, deadline, missed)

    def _stream(self, period: int | None) -> None:
        flush_at = self._clock.now() + FLUSH_NS
        last = self._writer.last_ns
        while not self.stopping.is_set():
            self._obey()
            block = self._take()
            if block is not None and len(block.before):
                if period and last >= 0:
                    self._tell_gaps(last, np.asarray(block.before, np.int64), period)
                last = int(block.before[-1])
            if self._clock.now() >= flush_at:
                self._flush()
                flush_at = self._clock.now() + FLUSH_NS

    def _tell_gaps(self, last: int, before: NDArray[np.int64], period: int) -> None:
        """Where readings of a stream lie two periods or more apart."""
        t = np.concatenate([[last], before])
        for k in np.flatnonzero(np.diff(t) >= 2 * period):
            self._tell_gap(int(t[k]), int(t[k + 1]), int(t[k + 1] - t[k]) // period - 1)

    def _tell_gap(self, start: int, stop: int, missed: int) -> None:
        self._missed += missed
        self._emit("gap", instrument=self.name, start=start, stop=stop, missed=missed)

    def _flush(self) -> None:
        self._writer.flush()
        self._instrument.tape.flush()

    def _obey(self) -> None:
        while not self._orders.empty():
            mode, done = self._orders.get()
            try:
                self._recovery.attempt(lambda: self._instrument.range(mode))  # noqa: B023 called at once
            finally:
                done.set()
            self.tell()

    def _take(self) -> Block | None:
        """Take what the instrument has; None where a transient fault took its place."""
        block = self._recovery.attempt(self._instrument.read)
        if self._instrument.told:
            self.tell()
        if block is not None:
            self._writer.append(block)
            self._readings += len(block.before)
        return block

    def tell(self) -> None:
        """Journal what the instrument has told."""
        told = self._instrument.told
        while told:
            kind, fields = told.pop(0)
            if kind == "settings":
                fields["channels"] = wired(self._instrument.channels, self._wiring)
            self._emit(kind, **fields)

    def _cost(self, wall_s: float) -> dict[str, Any]:
        cpu_s = time.thread_time()  # before the percentiles: their first call imports for longer than a flush takes
        late = np.percentile(self._lateness, [50, 99]) / 1e3 if self._lateness else [None, None]
        return {
            "instrument": self.name,
            "readings": self._readings,
            "missed": self._missed,
            "lateness_p50_us": late[0],
            "lateness_p99_us": late[1],
            "cpu_s": cpu_s,
            "wall_s": wall_s,
        }
