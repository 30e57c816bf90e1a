"""The runner's side of sampling: a child process on the real clock, or reading in line on the virtual one."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol

import numpy as np

from joulelab.errors import HardwareMissing, InstrumentFault, JoulelabError, UserError
from joulelab.instruments.base import Block
from joulelab.instruments.build import describe
from joulelab.instruments.simulated import SimulatedMeter
from joulelab.recording.samples import SampleWriter

Event = dict[str, Any]

GRACE_S = 10.0


class Sampler(Protocol):
    """What the runner asks of sampling.

    `instruments` describes the opened ones as the manifest has them; `refused` says of the others why not.
    """

    instruments: list[dict[str, Any]]
    refused: dict[str, str]

    def record(self, folder: Path) -> None:
        """Start writing samples into a run."""

    def range(self, mode: str) -> None:
        """Have the meters choose (`auto`) or fix (`fixed`) their ranges, and wait until they have."""

    def events(self) -> list[Event]:
        """What happened since the last call: gaps and faults; InstrumentFault where sampling cannot go on."""

    def close(self) -> list[Event]:
        """Stop, flush, and hand over the last events, among them what sampling cost; faults as in `events`."""


class ProcessSampler:
    """Sampling in `python -m joulelab.instruments.sampler`, the only process that opens instruments."""

    def __init__(self, specs: Mapping[str, Any], clock_offset_ns: int) -> None:
        command = [sys.executable, "-m", "joulelab.instruments.sampler"]
        self._child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # an interrupt from the keyboard is the runner's to handle
        )
        self._queue: SimpleQueue[Event] = SimpleQueue()
        self._ranged = threading.Event()
        self._say({"instruments": specs, "clock_offset_ns": clock_offset_ns})
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        answer: Event = (
            json.loads(line) if line else {"event": "error", "message": "the sampler did not start", "exit_code": 3}
        )
        if answer["event"] == "error":
            self._child.communicate()
            raise _error(answer)
        self.instruments: list[dict[str, Any]] = answer["instruments"]
        self.refused: dict[str, str] = answer["refused"]
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _say(self, message: dict[str, Any]) -> None:
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(message) + "\n")
        self._child.stdin.flush()

    def _listen(self) -> None:
        assert self._child.stdout is not None
        with self._child.stdout as lines:
            for line in lines:
                if (event := json.loads(line))["event"] == "ranged":
                    self._ranged.set()
                else:
                    self._queue.put(event)
        self._ranged.set()  # it has ended: nobody waits for it any more

    def record(self, folder: Path) -> None:
        self._say({"folder": str(folder)})

    def range(self, mode: str) -> None:
        with suppress(BrokenPipeError):  # `events` tells of a child that has ended
            self._say({"range": mode})
        self._ranged.wait(2 * GRACE_S)
        self._ranged.clear()

    def events(self) -> list[Event]:
        if self._child.poll() is not None:
            raise InstrumentFault(
                "the sampler process has ended: its samples stop here; settings that it changed are put back when the "
                "meters are opened next"
            )
        return self._said()

    def _said(self) -> list[Event]:
        """What the child has said; InstrumentFault where samples are lost, the rest being left for the next call."""
        said = [self._queue.get() for _ in range(self._queue.qsize())]
        fatal = [event["message"] for event in said if event["event"] == "fatal"]
        if not fatal:
            return said
        for event in said:
            if event["event"] != "fatal":
                self._queue.put(event)
        raise InstrumentFault("; ".join(fatal))

    def close(self) -> list[Event]:
        assert self._child.stdin is not None
        self._child.stdin.close()
        try:
            self._child.wait(GRACE_S)
        except subprocess.TimeoutExpired:  # an instrument that no longer answers must not hold the run's seal up
            self._child.kill()
            lost = f"the sampler did not stop within {GRACE_S:g} s and was ended: its last samples may be missing"
            self._queue.put({"event": "fault", "source": "sampler", "message": lost})
        self._listener.join()
        return self._said()


def _error(answer: Event) -> JoulelabError:
    kinds: dict[int, type[JoulelabError]] = {1: UserError, 2: HardwareMissing}
    return kinds.get(answer["exit_code"], JoulelabError)(answer["message"])


class InlineSampler:
    """Sampling on the virtual clock: each call reads what has fallen due since the last.

    Readings that a resumed run already holds are read again, since the simulation starts over, but not written again.
    """

    def __init__(self, instruments: Sequence[SimulatedMeter]) -> None:
        self._instruments = instruments
        for instrument in instruments:
            instrument.open()
        self.instruments = [describe(instrument, {}) for instrument in instruments]
        self.refused: dict[str, str] = {}
        self._writers: list[SampleWriter] = []
        self._held_ns: list[int] = []

    def range(self, mode: str) -> None:
        """Simulated meters have one range."""

    def record(self, folder: Path) -> None:
        for instrument in self._instruments:
            names = [channel.name for channel in instrument.channels]
            self._writers.append(SampleWriter(folder / "samples" / f"{instrument.name}.arrows", names))
        self._held_ns = [writer.last_ns for writer in self._writers]

    def events(self) -> list[Event]:
        for instrument, writer, held in zip(self._instruments, self._writers, self._held_ns, strict=True):
            writer.append(_after(instrument.read(), held))
            writer.flush()
        return []

    def close(self) -> list[Event]:
        with ExitStack() as all_of_them:
            for instrument in self._instruments:
                all_of_them.callback(instrument.close)
            for writer in self._writers:
                all_of_them.callback(writer.close)
            self._writers = []
        return []


def _after(block: Block, held_ns: int) -> Block:
    """The readings of a block that were taken after `held_ns`."""
    first = int(np.searchsorted(block.after, held_ns, side="right"))
    if first == 0:
        return block
    device = None if block.device is None else block.device[first:]
    return Block(block.before[first:], block.after[first:], device, [column[first:] for column in block.values])
