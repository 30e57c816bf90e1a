"""What is attributed to what: the edges of phases, a channel's samples, and the energies that come out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from joulelab.calibration.activity import Timeline
from joulelab.calibration.certificate import Calibrated
from joulelab.calibration.clock import ClockMap
from joulelab.calibration.clocks import clock_maps
from joulelab.calibration.integrals import NS, Floats, Ints
from joulelab.calibration.readings import Readings, readings
from joulelab.quantities import Channel
from joulelab.recording import RunDir

OK = "ok"
OVER = "over the meter's range, or its range changed"
ASLEEP = "the bench host was suspended in this minute"
LONG = 20.0
"""A phase of so many sensor periods and windows needs no deconvolution."""
FAST_S = 0.02
"""A sensor with a shorter period and window follows even the ramps of power, which deconvolution takes for steps."""


@dataclass(frozen=True)
class Edges:
    """The edges of phases [ns], and the standard uncertainty [s] of the inner edge between prefill and decode.

    `boundary_u_s` is positive where the inner edge is the phase's stop and negative where it is its start: what the
    prefill gains by a later edge the decode loses. `inference` is that of each phase, -1 where it is of none, and
    `timeline` all that drew power; without them nothing can be deconvolved.
    """

    start_ns: Ints
    stop_ns: Ints
    boundary_u_s: Floats
    inference: Ints | None = None
    timeline: Timeline | None = None


@dataclass(frozen=True)
class Attribution:
    """Energies [phases] in J, NaN where `status` says why, and the signed terms [phases] of their budget in J.

    `shared` [phases, factors] in J: the covariance of the noise of deconvolved phases is shared @ shared.T.
    """

    method: NDArray[np.object_]
    energy_j: Floats
    budget: dict[str, Floats]
    status: NDArray[np.object_]
    shared: sparse.csr_array | None = None

    @property
    def energy_u_j(self) -> Floats:
        """The combined standard uncertainty; the terms have causes that are independent of one another (GUM 5.1.2)."""
        return np.asarray(np.sqrt(np.sum([term**2 for term in self.budget.values()], axis=0)))


@dataclass(frozen=True)
class Source:
    """A channel, a power gauge [W] or an energy counter [J], and the `pyarrow.Table` of its instrument's samples.

    `name` is "instrument.channel".

    It is polled every `interval_ns` (None: it streams), through a clock with `clock_map` if that is not the bench's.
    `gaps` and `overranges` are what was journalled of it [ns], in order; `suspends` are the times between two anchors
    in which the bench host slept. `certified`: its timing was found against a faster meter.
    """

    name: str
    channel: Channel
    interval_ns: int | None
    samples: Any
    gaps: Sequence[tuple[int, int]] = ()
    overranges: Sequence[tuple[int, int]] = ()
    suspends: Sequence[tuple[int, int]] = ()
    clock_map: ClockMap | None = None
    certified: bool = False

    def readings(self) -> Readings:
        return readings(self.channel, self.interval_ns, self.samples, self.clock_map)

    @property
    def blur_s(self) -> float:
        """A period of what there is to read, and the window."""
        sensor = self.channel.sensor
        return max(sensor.period_s or 0.0, (self.interval_ns or 0) * NS) + sensor.window_s

    @property
    def slow_s(self) -> float:
        """Phases under this are deconvolved."""
        return LONG * self.blur_s if self.blur_s > FAST_S else 0.0

    def lost(self, found: Readings) -> Ints:
        """The spans [k, 2] in which there are no readings, or none that can be trusted."""
        spans = np.array([*self.gaps, *self.overranges, *self.suspends], np.int64).reshape(-1, 2)
        return np.concatenate([spans, silent(found.taken_ns, self.blur_s)])

    def refused(self, start_ns: Ints, stop_ns: Ints) -> NDArray[np.object_]:
        """Why phases can have no energy, however they are attributed; `OK` where they can."""
        status = np.full(len(start_ns), OK, object)
        for spans, reason in ((self.suspends, ASLEEP), (self.overranges, OVER)):
            holes = np.array(spans, np.int64).reshape(-1, 2)
            status[meets(holes, start_ns, stop_ns)] = reason
        return status


def silent(t: NDArray[Any], spacing_s: float) -> NDArray[Any]:
    """The spans [k, 2] in which a reading is missing though nobody journalled a gap."""
    last = np.flatnonzero(np.diff(t) > 2.5 * spacing_s / NS)
    return np.stack([t[last], t[last + 1]], axis=1)


def meets(holes: NDArray[Any], start: NDArray[Any], stop: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether one of the `holes` [k, 2], in order and disjoint, meets each span."""
    if not len(holes):
        return np.zeros(len(start), bool)
    following = np.searchsorted(holes[:, 1], start)
    first = np.minimum(following, len(holes) - 1)
    return np.asarray((following < len(holes)) & (holes[first, 0] <= stop))


def sources(run: RunDir, read: Calibrated, names: Sequence[str]) -> Iterator[Source]:
    """Channels of a run with their samples."""
    intervals = {instrument.name: instrument.interval_ns for instrument in run.manifest.instruments}
    samples = {name: run.samples(name) for name in {channel.partition(".")[0] for channel in names}}
    maps, suspends = clock_maps(run), list(_suspends(run))
    for name in names:
        meter = name.partition(".")[0]
        gaps, overranges = (_spans_of(run.records(kind), meter) for kind in ("gap", "overrange"))
        certificate = read.certified(name, "sensor")
        certified = certificate is not None and certificate.conditions.get("against") is not None
        channel = read.channels[name]
        spans = (gaps, overranges, suspends)
        yield Source(name, channel, intervals[meter], samples[meter], *spans, maps.get(meter), certified)


def _suspends(run: RunDir) -> Iterator[tuple[int, int]]:
    """When the bench host slept: somewhere between the anchor that tells of it and the one before."""
    anchors = [record["anchor"]["bench"] for record in run.journal if "anchor" in record]
    for record in run.records("jump"):
        if "suspend" in record:
            yield max((t for t in anchors if t < record["t"]), default=0), record["t"]


def _spans_of(records: Sequence[dict[str, Any]], meter: str) -> list[tuple[int, int]]:
    return [(record["start"], record["stop"]) for record in records if record["instrument"] == meter]
