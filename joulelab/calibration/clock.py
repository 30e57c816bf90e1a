"""Another clock's stamps on the bench clock: maps fitted to probes, straight where that clock runs evenly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from joulelab.calibration.integrals import Floats, Ints
from joulelab.calibration.stretch import Piece, Stretch, reached
from joulelab.timebase import DRIFT, STEP_NS

Reason = Literal["step", "slew", "reset", "suspend"]


@dataclass(frozen=True)
class Break:
    """Where one straight piece of a map ends and another begins, between two bench times [ns].

    `step_ns`: how much further the far clock was ahead of the bench after it; None at a reset.
    """

    reason: Reason
    start_ns: int
    stop_ns: int
    step_ns: float | None


class ClockMap:
    """The map from a far clock to the bench's, after probes [n] that bracket its stamps on the bench clock.

    A stretch of probes through which one line passes is mapped by the line in the middle of all such lines; the fastest
    probes decide. The bound of an error is the spread of the lines, and at least half the least round trip: more is
    not known of how unequal the two ways are. Where no one line passes, the clock was slewed, stepped, reset, or the
    bench was suspended: the map gets a piece for each side, and stamps that may belong to either get a bound that holds
    for both. `breaks` tells where. (Interval fits of clock offsets: Marzullo 1984; lower envelope: Paxson 1998.)
    """

    def __init__(self, stretches: Sequence[Stretch], spans: Ints, breaks: Sequence[Break], resolution_ns: int) -> None:
        self._stretches, self._spans, self._resolution_ns = stretches, spans, resolution_ns
        self._starts = np.append(-np.inf, spans[:-1, 0])  # a stretch may hold up to the probes of its neighbours
        self._stops = np.append(spans[1:, 1], np.inf)
        self.breaks = tuple(breaks)

    @classmethod
    def fit(
        cls,
        far_ns: Ints,
        before_ns: Ints,
        after_ns: Ints,
        *,
        drift: float = DRIFT,
        resolution_ns: int = 0,
        round_trips: bool = True,
    ) -> Self:
        """From probes [n >= 1] in the order in which they were made.

        `drift`: how fast the far clock may run away, besides being slewed. `resolution_ns`: what its stamps cut off.
        `round_trips`: whether a bracket is a way there and back, which may be unequal by more than lines can tell.
        """
        far, before, after = (np.asarray(stamps, np.int64) for stamps in (far_ns, before_ns, after_ns))
        parts = [part[np.argsort(far[part], kind="stable")] for part in _between_resets(far, before, after)]
        spans = np.array([(before[part].min(), after[part].max()) for part in parts], np.int64)
        stretches, breaks = [], []
        for k, part in enumerate(parts):
            if k:
                breaks.append(Break("reset", int(spans[k - 1, 1]), int(spans[k, 0]), None))
            stretch = Stretch.fit(far[part], before[part] - resolution_ns, after[part], drift, round_trips)
            stretches.append(stretch)
            breaks += _breaks(stretch)
        return cls(stretches, spans, breaks, resolution_ns)

    @cached_property
    def trips_ns(self) -> Floats:
        """How long each probe took there and back."""
        return np.concatenate([stretch.high - stretch.low for stretch in self._stretches])

    @property
    def pieces(self) -> int:
        return sum(len(stretch.pieces) for stretch in self._stretches)

    @property
    def drift(self) -> float:
        """How much faster than the bench's the far clock runs, in the longest piece."""
        return -self._longest()[1].lines.middle[1]

    @property
    def offset(self) -> float:
        """How far the far clock is ahead of the bench's [s] at the begin of the longest piece."""
        stretch, piece = self._longest()
        a, b = piece.lines.middle
        return -(stretch.ahead_ns + a + b * float(stretch.x[piece.first])) * 1e-9

    @property
    def bound(self) -> float:
        """The error of a mapped stamp, at most [s], in the middle of the longest piece."""
        stretch, piece = self._longest()
        middle = stretch.far_ns + round(float(stretch.x[piece.first] + stretch.x[piece.last]) / 2)
        return float(stretch.to_bench(np.array([middle]))[1][0]) * 1e-9

    def to_bench(self, far_ns: Ints, between_ns: tuple[Ints, Ints] | None = None) -> tuple[Ints, Floats]:
        """Bench times [n] of far stamps [n], and how far off they are at most [n], all in ns.

        After a reset the far clock shows times again that it has shown before: what `between_ns` ([n], [n]) the stamps
        are known to lie on the bench clock tells them apart. The bound is infinite where more than one time is possible
        or none: that is not known better than `between_ns`.
        """
        far = np.asarray(far_ns, np.int64)
        bench, half, found = np.zeros_like(far), np.full(len(far), np.inf), np.zeros(len(far), np.int64)
        for k, stretch in enumerate(self._stretches):
            there, bound = stretch.to_bench(far)
            there, bound = there + self._resolution_ns // 2, bound + self._resolution_ns / 2
            fits = (there + bound >= self._starts[k]) & (there - bound <= self._stops[k])
            if between_ns is not None:
                fits &= (there + bound >= between_ns[0]) & (there - bound <= between_ns[1])
            bench[fits], half[fits] = there[fits], bound[fits]
            found += fits
        half[found != 1] = np.inf
        return bench, half

    def suspended(self, lengths_ns: Sequence[int]) -> ClockMap:
        """The same map, its steps that are as long as one of the bench's suspends called so."""
        named = [_named(broken, lengths_ns) for broken in self.breaks]
        return ClockMap(self._stretches, self._spans, named, self._resolution_ns)

    def _longest(self) -> tuple[Stretch, Piece]:
        both = [(stretch, piece) for stretch in self._stretches for piece in stretch.pieces]
        return max(both, key=lambda one: one[0].x[one[1].last] - one[0].x[one[1].first])


def unwrap(counter: NDArray[np.integer], wrap: int, tick_ns: int, near_ns: Ints) -> Ints:
    """Far stamps [ns] from a counter [n] of ticks that begins again at `wrap`, whatever the pauses.

    `near_ns` [n] are bench times good to half the counter's range: they count the turns.
    """
    ticks = np.asarray(counter, np.int64)
    steps = np.diff(ticks, prepend=ticks[:1]) % wrap
    went = np.diff(np.asarray(near_ns, np.int64), prepend=near_ns[:1]) / tick_ns
    turns = np.rint((went - steps) / wrap).astype(np.int64)
    return np.asarray(np.cumsum(steps + wrap * np.maximum(turns, 0)) * tick_ns)


def arrivals(far_ns: Ints, before_ns: Ints, after_ns: Ints) -> tuple[Ints, Ints]:
    """Brackets [n] of stamps that come one way, narrower than those [n] that were made as they came.

    None arrives before it was made, so the least that the bench was ever ahead of the stamps that came, plus what the
    clocks drift until then or since, bounds each from above; from below it is the latency that was allowed for.
    """
    after = after_ns.copy()
    for part in _between_resets(far_ns, before_ns, after_ns):
        far = (far_ns[part] - far_ns[part[0]]).astype(np.float64)
        ahead = (after_ns[part] - far_ns[part]).astype(np.float64)
        after[part] = far_ns[part] + np.ceil(reached(far, ahead, far, DRIFT)).astype(np.int64)
    return after - int(np.median(after_ns - before_ns)), after


def _between_resets(far: Ints, before: Ints, after: Ints) -> list[NDArray[np.intp]]:
    """The probes by number, parted where the far clock went back by more than their brackets overlap."""
    overlap = np.maximum(after[:-1] - before[1:], 0)
    return np.split(np.arange(len(far)), np.flatnonzero(far[:-1] - far[1:] > overlap) + 1)


def _breaks(stretch: Stretch) -> list[Break]:
    """Where its pieces end, on the bench clock."""
    zero = stretch.far_ns + stretch.ahead_ns
    return [
        Break(
            "step" if two.parting.step else "slew",
            zero + int(stretch.x[one.last] + stretch.low[one.last]),
            zero + int(stretch.x[two.first] + stretch.high[two.first]),
            -two.parting.by,
        )
        for one, two in pairwise(stretch.pieces)
    ]


def _named(broken: Break, lengths_ns: Sequence[int]) -> Break:
    step_ns = broken.step_ns or 0.0
    slept = any(abs(step_ns - length) <= STEP_NS + 0.01 * length for length in lengths_ns)
    return replace(broken, reason="suspend") if slept and broken.reason == "step" else broken
