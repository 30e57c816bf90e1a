"""Writes the readings of a recording as samples of a run, the first at 0 on its clock, and what there is to journal."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from joulelab.analysis.imports.source import Recording
from joulelab.errors import DataInvalid
from joulelab.recording.block import Block
from joulelab.recording.journal import Record
from joulelab.recording.samples import SampleWriter, read_samples
from joulelab.timebase import SECOND

Ints = NDArray[np.int64]
MOST_FAULTS = 1000
"""A log with more different faults than this is something else."""


@dataclass
class RunTime:
    """Maps the log's clock to the run's, which starts at 0 and never goes back.

    Where stamps go back, nobody knows how long it took: the run's clock goes on from the reading before, and `jumps`
    has the step.
    """

    zero: int | None = None
    shift: int = 0
    last: tuple[int, int] = (0, 0)
    jumps: list[Record] = field(default_factory=list)

    def place(self, block: Block) -> Block:
        stamps, after = np.asarray(block.before, np.int64), np.asarray(block.after, np.int64)
        if self.zero is None:
            self.zero = int(stamps[0])
            self.last = (self.zero, self.zero)
        previous = np.concatenate([[self.last[0]], stamps[:-1]])
        ended = np.concatenate([[self.last[1]], after[:-1]])
        back = stamps < previous
        shift = self.shift + np.cumsum(np.where(back, ended - stamps, 0))
        self.last, self.shift = (int(stamps[-1]), int(after[-1])), int(shift[-1])
        before, after = stamps - self.zero + shift, after - self.zero + shift
        for k in np.flatnonzero(back):
            self.jumps.append({"t": int(before[k]), "kind": "jump", "wall_step": int(stamps[k] - previous[k])})
        return Block(before, after, block.device, block.values)


class Faults:
    """Faults by their message: how often and from when to when, since a log may repeat one a million times."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._found: dict[str, Record] = {}

    def add(self, t: int, message: str) -> None:
        if message not in self._found and len(self._found) == MOST_FAULTS:
            raise DataInvalid(f"has over {MOST_FAULTS} different faults, such as: {message}")
        record = self._found.setdefault(
            message, {"t": t, "kind": "fault", "source": self._source, "message": message, "readings": 0, "until": t}
        )
        record["readings"] += 1
        record["until"] = t

    def records(self) -> list[Record]:
        return list(self._found.values())


@dataclass(frozen=True)
class Written:
    """Samples on disk: how the log's clock maps to the run's, what there is to journal, and the interval [ns]."""

    time: RunTime
    records: list[Record]
    stop_ns: int
    interval_ns: int | None


def write_samples(folder: Path, name: str, recording: Recording, spacing_ns: int | None) -> Written:
    """Write `samples/<name>.arrows` below `folder`; `spacing_ns` of the readings is what was given, else what is seen.

    DataInvalid where there is no reading.
    """
    time, faults = RunTime(), Faults(name)
    path = folder / "samples" / f"{name}.arrows"
    writer = SampleWriter(path, [channel.name for channel in recording.channels])
    try:
        for piece in recording.pieces:
            placed = time.place(piece.block)
            writer.append(placed)
            writer.flush()
            for k, message in piece.wrong:
                faults.add(int(placed.before[k]), message)
    finally:
        writer.close()
    samples = read_samples(path)
    if samples.num_rows == 0:
        raise DataInvalid("holds no readings")
    before = samples["before_ns"].to_numpy()
    spacing = _spacing(recording, before) if spacing_ns is None else spacing_ns
    interval = None if spacing is None else spacing + recording.clock.coarse_ns // 2
    records = [*time.jumps, *faults.records(), *_gaps(name, before, spacing, interval)]
    return Written(time, records, samples["after_ns"][-1].as_py(), None if recording.streams else interval)


def _spacing(recording: Recording, before: Ints) -> int | None:
    """How far apart the readings are [ns]: as the sensor makes them, else as the stamps show, of which a coarse clock
    gives the same one to several readings.
    """
    periods = [channel.sensor.period_s for channel in recording.channels if channel.sensor.period_s]
    if recording.streams and periods:
        return round(min(periods) * SECOND)
    stamps = np.unique(before)
    return round(float(np.median(np.diff(stamps))) * len(stamps) / len(before)) if len(stamps) > 1 else None


def _gaps(name: str, before: Ints, spacing: int | None, interval: int | None) -> list[Record]:
    """A record where readings lie two intervals or more apart; stamps that are coarse by c may be c further apart."""
    if not spacing or not interval:
        return []
    step = np.diff(before)
    wide = np.flatnonzero(step >= 2 * interval)
    stops, lengths = before[wide + 1].tolist(), step[wide].tolist()
    return [
        {
            "t": stop,
            "kind": "gap",
            "instrument": name,
            "start": stop - length,
            "stop": stop,
            "missed": round(length / spacing) - 1,
        }
        for stop, length in zip(stops, lengths, strict=True)
    ]
