"""A stretch of probes of a clock that runs forward: the straight pieces of its map, and where they end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Self

import numpy as np

from joulelab.calibration.feasible import Lines, lines
from joulelab.calibration.integrals import Floats, Ints
from joulelab.timebase import SLEW, STEP_NS


class Parting(NamedTuple):
    """What parts a piece from the one before it.

    `by`: how much further the bench is ahead from there on [ns]. `step`: it was too sudden for slewing. `proven`: so
    say the bounds, too. `apart`: it may have been sudden, so that the probes of one side say nothing of the other.
    """

    by: float
    step: bool
    proven: bool
    apart: bool


BEGIN = Parting(0.0, step=True, proven=True, apart=True)


class Piece(NamedTuple):
    """A straight piece: its first and last probe by number, and the lines through them."""

    first: int
    last: int
    lines: Lines
    parting: Parting = BEGIN


class Run(NamedTuple):
    """Pieces that nothing sets apart: their first and last probe by number, and what parts them from the run before.

    `lines` are those of a single piece. `slewed`: the rate may have changed within the run, as far as is known.
    """

    first: int
    last: int
    lines: Lines | None
    slewed: bool
    parting: Parting


@dataclass(frozen=True)
class Stretch:
    """A stretch between resets: n probes, the far clock rising. `x` [n]: far time since `far_ns`.

    `low`, `high` [n] bracket how far the bench was ahead of the far clock by then, more than `ahead_ns`; all in ns.
    """

    far_ns: int
    ahead_ns: int
    x: Floats
    low: Floats
    high: Floats
    drift: float
    round_trips: bool
    pieces: tuple[Piece, ...]
    runs: tuple[Run, ...]

    @classmethod
    def fit(cls, far: Ints, before: Ints, after: Ints, drift: float, round_trips: bool) -> Self:
        """From probes [n >= 1] by their far stamps, ascending; see `ClockMap.fit`."""
        x = (far - far[0]).astype(np.float64)
        ahead = int(before[0] - far[0])
        # Stamps are whole ns: what they cut off belongs to the bracket.
        low = (before - far - ahead).astype(np.float64) - 1
        high = (after - far - ahead).astype(np.float64) + 1
        found = _pieces(x, low, high, drift + SLEW)
        pieces = found[:1] + [two._replace(parting=_parting(x, one, two, drift)) for one, two in pairwise(found)]
        return cls(int(far[0]), ahead, x, low, high, drift, round_trips, tuple(pieces), tuple(_runs(pieces)))

    def to_bench(self, far_ns: Ints) -> tuple[Ints, Floats]:
        """Bench times [n] of far stamps [n], and how far off they are at most [n], in ns."""
        middle, low, high = self.ahead(far_ns)
        bench = far_ns + self.ahead_ns + np.rint(middle).astype(np.int64)
        return bench, np.maximum(high - middle, middle - low) + 1

    def ahead(self, far_ns: Ints) -> tuple[Floats, Floats, Floats]:
        """How far the bench is ahead, more than `ahead_ns`, at far stamps [n]: the estimate and its bounds."""
        x = (far_ns - self.far_ns).astype(np.float64)
        starts = np.array([self.x[run.first] for run in self.runs])
        which = np.maximum(np.searchsorted(starts, x, "right") - 1, 0)
        found = np.empty((3, len(x)))
        for k, run in enumerate(self.runs):
            found[:, which == k] = self._by(run, x[which == k])
        for one, two in pairwise(self.runs):
            twice = max(two.parting.by, 0.0)  # a clock that is set back shows as much time again
            either = (x > self.x[one.last] - twice) & (x < self.x[two.first] + twice)
            found[:, either] = self._between(one, two, x[either])
        return found[0], found[1], found[2]

    def _by(self, run: Run, x: Floats) -> Floats:
        """[3, n] by one run."""
        bounds, trips = [], self.high[run.first : run.last + 1] - self.low[run.first : run.last + 1]
        margin = 0.0
        if run.slewed:
            bounds.append(self._slewed(run, x))
            middle = (bounds[0][0] + bounds[0][1]) / 2
        if run.lines is not None:
            margin = run.lines.margin
            middle, low, high = run.lines.at(x)
            # Beyond the probes crystals may drift as they do.
            beyond = self.drift * np.maximum(np.maximum(self.x[run.first] - x, x - self.x[run.last]), 0.0)
            bounds.append((low - beyond, high + beyond))
        if self.round_trips:
            # At the fastest probe the truth is no farther from the line than the line is from the probe's far end.
            reach = trips.min() - margin
            bounds.append((middle - reach, middle + reach))
        lows, highs = zip(*bounds, strict=True)
        return np.stack([middle, np.min(lows, axis=0), np.max(highs, axis=0)])

    def _slewed(self, run: Run, x: Floats) -> tuple[Floats, Floats]:
        """What the brackets allow a clock that may change its rate at any time."""
        mine, rate = slice(run.first, run.last + 1), self.drift + SLEW
        return -reached(self.x[mine], -self.low[mine], x, rate), reached(self.x[mine], self.high[mine], x, rate)

    def _between(self, one: Run, two: Run, x: Floats) -> Floats:
        """[3, n] where the one may still hold, or the other already."""
        earlier, later = self._by(one, x), self._by(two, x)
        share = np.clip((x - self.x[one.last]) / (self.x[two.first] - self.x[one.last]), 0.0, 1.0)
        middle = (1 - share) * earlier[0] + share * later[0]
        return np.stack([middle, np.minimum(earlier[1], later[1]), np.maximum(earlier[2], later[2])])


def _pieces(x: Floats, low: Floats, high: Floats, steepest: float) -> list[Piece]:
    """The fewest pieces. Their ends are where a line must end, from whichever side it is drawn.

    Drawn from the left, each piece reaches as far as it can, and drawn from the right too. What both give to the same
    piece is its own; probes between may belong to either neighbour.
    """
    stops = _stops(x, low, high, steepest)
    starts = (len(x) - _stops(-x[::-1], low[::-1], high[::-1], steepest)[::-1]).tolist()
    begins = [0, *stops[:-1].tolist()]
    ends = [*starts[1:], len(x)]
    found = []
    for begin, end, furthest in zip(begins, ends, stops.tolist(), strict=True):
        own = slice(begin, end if begin < end else furthest)
        through = lines(x[own], low[own], high[own], steepest)
        assert through is not None
        found.append(Piece(own.start, own.stop - 1, through))
    return found


def _stops(x: Floats, low: Floats, high: Floats, steepest: float) -> Ints:
    """Where pieces end that each reach as far as one line can: the numbers of the probes after their last."""

    def passes(start: int, stop: int) -> bool:
        return lines(x[start:stop], low[start:stop], high[start:stop], steepest) is not None

    stops, start = [], 0
    while start < len(x):
        good, size = start + 1, 2
        while good < len(x) and passes(start, min(start + size, len(x))):
            good, size = min(start + size, len(x)), 2 * size
        bad = min(start + size, len(x) + 1)
        while bad - good > 1:
            middle = (good + bad) // 2
            good, bad = (middle, bad) if passes(start, middle) else (good, middle)
        stops.append(good)
        start = good
    return np.array(stops, np.int64)


def _parting(x: Floats, one: Piece, two: Piece, drift: float) -> Parting:
    """What parts two pieces, both drawn on to the middle between them."""
    edges = x[[one.last]], x[[two.first]]
    (was, low, high), (now, low_now, high_now) = one.lines.at(edges[0]), two.lines.at(edges[1])
    gap = float((edges[1] + now - edges[0] - was)[0])
    by = float((now - was)[0]) - (one.lines.middle[1] + two.lines.middle[1]) / 2 * gap
    slewed = (drift + SLEW) * gap
    proven = abs(by) >= STEP_NS and bool(max(low_now - high, low - high_now)[0] > slewed)
    adjacent = two.first == one.last + 1
    apart = proven or adjacent or slewed <= 2 * STEP_NS or abs(by) >= STEP_NS
    return Parting(by, proven or abs(by) > max(slewed, STEP_NS / 2), proven, apart)


def _runs(pieces: Sequence[Piece]) -> Iterator[Run]:
    number = np.cumsum([piece.parting.apart for piece in pieces]).tolist()
    starts = [*np.flatnonzero(np.diff(number, prepend=0)).tolist(), len(pieces)]
    for start, stop in pairwise(starts):
        first, last = pieces[start], pieces[stop - 1]
        following = pieces[stop].parting if stop < len(pieces) else BEGIN
        single = stop == start + 1
        sure = single and first.parting.proven and following.proven
        yield Run(first.first, last.last, first.lines if single else None, not sure, first.parting)


def reached(at: Floats, bound: Floats, x: Floats, rate: float) -> Floats:
    """The least upper bound at `x` [m] from bounds [n] at `at` for something that changes by at most `rate`."""
    forward = np.minimum.accumulate(bound - rate * at)
    backward = np.minimum.accumulate((bound + rate * at)[::-1])[::-1]
    k = np.searchsorted(at, x, "right")
    before = np.where(k > 0, forward[np.maximum(k - 1, 0)] + rate * x, np.inf)
    after = np.where(k < len(at), backward[np.minimum(k, len(at) - 1)] - rate * x, np.inf)
    return np.minimum(before, after)
