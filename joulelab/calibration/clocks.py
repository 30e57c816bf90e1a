"""One timeline for a run: the clock map of each instrument that is read through another clock, or has its own."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np

from joulelab.calibration.clock import ClockMap
from joulelab.calibration.readings import Readings, arrived, readings
from joulelab.quantities import Channel
from joulelab.recording import RunDir


class ClockFigures(NamedTuple):
    """What a run tells of an instrument's clock, for a certificate of kind `clock`.

    `source`: `probes` of the machine that it is read on, or `arrivals` of the readings that a stream stamps itself.
    `offset_s`: how far that clock is ahead of the bench's, in the longest piece; `drift_ppm`: how much faster it runs;
    `bound_s`: the error of a mapped stamp, at most, in the middle of that piece; `probes`, `pieces`: how many;
    `breaks`: `{"reason", "start_ns", "stop_ns", "step_ns"}` of each.
    """

    instrument: str
    source: str
    offset_s: float
    drift_ppm: float
    bound_s: float
    probes: int
    pieces: int
    breaks: list[dict[str, Any]]


def clock_maps(run: RunDir) -> dict[str, ClockMap]:
    """The maps of the clocks that instruments of a run are read through, by instrument, from its journalled probes."""
    probes: dict[str, list[tuple[int, int, int]]] = {}
    for record in run.records("probe"):
        probes.setdefault(record["instrument"], []).append((record["device"], record["before"], record["after"]))
    suspends = [record["suspend"] for record in run.records("jump") if "suspend" in record]
    return {name: ClockMap.fit(*np.array(rows, np.int64).T).suspended(suspends) for name, rows in probes.items()}


def read_channel(run: RunDir, name: str, channel: Channel) -> Readings:
    """The readings of "instrument.channel" in `run`, taken for what `channel` says of it, on the bench clock."""
    meter = name.partition(".")[0]
    interval_ns = next(i.interval_ns for i in run.manifest.instruments if i.name == meter)
    return readings(channel, interval_ns, run.samples(meter), clock_maps(run).get(meter))


def clock_certificate(run: RunDir) -> list[ClockFigures]:
    """The figures of each clock in a run but the bench's own; none where all is read through that."""
    found = [_figures(name, "probes", clock_map) for name, clock_map in clock_maps(run).items()]
    known = {one.instrument for one in found}
    for instrument in run.manifest.instruments:
        if instrument.interval_ns is None and instrument.name not in known:
            stamps = arrived(run.samples(instrument.name))
            found += [] if stamps is None else [_figures(instrument.name, "arrivals", ClockMap.fit(*stamps))]
    return found


def _figures(name: str, source: str, clock_map: ClockMap) -> ClockFigures:
    return ClockFigures(
        name,
        source,
        clock_map.offset,
        clock_map.drift * 1e6,
        clock_map.bound,
        len(clock_map.trips_ns),
        clock_map.pieces,
        [asdict(broken) for broken in clock_map.breaks],
    )
