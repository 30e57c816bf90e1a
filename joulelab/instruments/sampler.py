"""Sampling: one thread an instrument on absolute deadlines, run in a process of its own (`python -m` this module).

The process reads its specification as one JSON line on standard input, opens the instruments and answers with what it
opened; a second line names the run's folder and starts the sampling. It ends when standard input closes, so that it
never outlives the runner, however that ended. Everything it says is a JSON line on standard output.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
import threading
import time
import traceback
from array import array
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from joulelab.errors import InstrumentFault, JoulelabError
from joulelab.instruments.base import Instrument
from joulelab.quantities import Scope
from joulelab.recording.samples import SampleWriter
from joulelab.registry import INSTRUMENTS, load_driver
from joulelab.timebase import SECOND, BenchNs, Clock, MonotonicClock

FLUSH_NS = SECOND // 2
PR_SET_TIMERSLACK = 29

Emit = Callable[..., None]
Spec = Mapping[str, Any]


def build(specs: Mapping[str, Spec], clock: Clock, refused: dict[str, str]) -> list[tuple[Instrument, Spec]]:
    """The instruments of `lab.yaml`, name -> {driver, options, wiring}; `auto` stands for whatever this host has.

    Which of its sensors do not serve, and why, goes into `refused`.
    """
    made: list[tuple[Instrument, Spec]] = []
    for name, spec in specs.items():
        driver = load_driver(INSTRUMENTS, spec["driver"])
        if hasattr(driver, "expand"):
            auto = driver()
            found = auto.expand(name, spec["options"])
            refused.update(auto.refused)
            own = {n: {**spec, "driver": d, "options": options} for n, (d, options) in found.items()}
            made += build(own, clock, refused)
        else:
            options = driver.Options.model_validate(spec["options"])
            made.append((driver(name, options, clock), spec.get("wiring", {})))
    return made


def describe(instrument: Instrument, wiring: Spec) -> dict[str, Any]:
    """An opened instrument as the manifest has it. The scope of a bench meter's power is a fact of its wiring."""
    scope = wiring.get("scope")
    channels = [replace(c, scope=Scope(scope)) if scope and c.gives_energy else c for c in instrument.channels]
    return {
        "name": instrument.name,
        "driver": instrument.driver,
        "options": instrument.options,
        "wiring": wiring,
        "interval_ns": instrument.interval_ns,
        "channels": [asdict(channel) for channel in channels],
    }


class Sampling(threading.Thread):
    """Reads one instrument on deadlines a fixed interval apart, and writes its samples.

    A reading that begins whole intervals late takes the place of the last one it should have been; the periods before
    that were missed, and are told as a gap. So where two readings are two intervals or more apart, a gap says so.
    """

    def __init__(self, instrument: Instrument, folder: Path, clock: Clock, emit: Emit) -> None:
        super().__init__(name=instrument.name, daemon=True)
        self._instrument, self._clock, self._emit = instrument, clock, emit
        self._path = folder / "samples" / f"{instrument.name}.arrows"
        self._lateness = array("q")
        self._missed = 0
        self.stopping = threading.Event()

    def run(self) -> None:
        ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)  # the default slack of 50 us is lateness for nothing
        started = time.monotonic()
        try:
            self._writer = SampleWriter(self._path, [channel.name for channel in self._instrument.channels])
            try:
                self._sample()
            finally:
                self._writer.close()
        except OSError as error:
            self._emit("fatal", source=self.name, message=f"samples of {self.name} cannot be written: {error.strerror}")
        except JoulelabError as error:
            self._emit("fatal", source=self.name, message=str(error))
        except Exception as bug:  # noqa: BLE001 a thread that ended in silence would leave a run without its samples
            traceback.print_exc()
            self._emit("fatal", source=self.name, message=f"{self.name} cannot be sampled any more: {bug!r}")
        self._emit("sampler", **self._cost(time.monotonic() - started))

    def _sample(self) -> None:
        interval = self._instrument.interval_ns
        deadline = self._clock.now() + interval
        last, flush_at = self._writer.last_ns, deadline + FLUSH_NS
        if last >= 0:
            self._tell_gap(last, deadline, (deadline - last) // interval)
        while not self.stopping.is_set():
            self._clock.sleep_until(BenchNs(deadline))
            read_ns = self._read()
            late = read_ns - deadline
            self._lateness.append(late)
            if late >= interval:
                self._tell_gap(last, read_ns, late // interval)
            if read_ns >= flush_at:
                self._writer.flush()
                flush_at = read_ns + FLUSH_NS
            last = read_ns
            deadline += (late // interval + 1) * interval

    def _tell_gap(self, start: int, stop: int, missed: int) -> None:
        self._missed += missed
        self._emit("gap", instrument=self.name, start=start, stop=stop, missed=missed)

    def _read(self) -> int:
        """Take a reading, and say when it began [ns]; a transient fault takes its place."""
        try:
            block = self._instrument.read()
        except InstrumentFault as fault:
            if not fault.transient:
                raise
            self._emit("fault", source=self.name, message=str(fault))
            return self._clock.now()
        self._writer.append(block)
        return int(block.before[-1]) if len(block.before) else self._clock.now()

    def _cost(self, wall_s: float) -> dict[str, Any]:
        cpu_s = time.thread_time()  # before the percentiles: their first call imports for longer than a flush takes
        late = np.percentile(self._lateness, [50, 99]) / 1e3 if self._lateness else [None, None]
        return {
            "instrument": self.name,
            "readings": len(self._lateness),
            "missed": self._missed,
            "lateness_p50_us": late[0],
            "lateness_p99_us": late[1],
            "cpu_s": cpu_s,
            "wall_s": wall_s,
        }


def main() -> int:
    spec = json.loads(sys.stdin.readline())
    lock = threading.Lock()

    def emit(event: str, **fields: Any) -> None:
        with lock:
            print(json.dumps({"event": event, **fields}), flush=True)

    clock = MonotonicClock(spec["clock_offset_ns"])
    refused: dict[str, str] = {}
    try:
        wired = build(spec["instruments"], clock, refused)
        instruments = [instrument for instrument, _ in wired]
        for instrument in instruments:
            instrument.open()
    except JoulelabError as error:
        emit("error", message=str(error), exit_code=error.exit_code)
        return error.exit_code
    emit("opened", instruments=[describe(*one) for one in wired], refused=refused)
    if line := sys.stdin.readline():
        _sample_until_closed(instruments, Path(json.loads(line)["folder"]), clock, emit)
    for instrument in instruments:
        instrument.close()
    return 0


def _sample_until_closed(instruments: list[Instrument], folder: Path, clock: Clock, emit: Emit) -> None:
    gc.disable()  # nothing here makes cycles, and a collection is a late reading
    threads = [Sampling(instrument, folder, clock, emit) for instrument in instruments]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    for thread in threads:
        thread.stopping.set()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    sys.exit(main())
