"""All the straight lines through a row of brackets, the middle one of them, and how far they lie apart."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from joulelab.calibration.integrals import Floats

WORTH = 0.1
"""A pass over all points at once is worth it while it removes at least this share of them."""


class Lines(NamedTuple):
    """The lines a + b x that pass through every bracket.

    `middle` (a, b) keeps the greatest `margin` from all the brackets' ends. At each x the highest line is one of
    `upper` [k, 2], the lowest one of `lower` [m, 2].
    """

    middle: tuple[float, float]
    margin: float
    upper: Floats
    lower: Floats

    def at(self, x: Floats) -> tuple[Floats, Floats, Floats]:
        """The middle line, the lowest and the highest one at x [n]."""
        a, b = self.middle
        low, high = np.full(len(x), np.inf), np.full(len(x), -np.inf)
        for left, right in self.lower:
            np.minimum(low, left + right * x, out=low)
        for left, right in self.upper:
            np.maximum(high, left + right * x, out=high)
        return a + b * x, low, high


class Hull(NamedTuple):
    """The lower convex hull of points: corners [n] and the slopes [n - 1] between them, ascending."""

    x: Floats
    y: Floats
    slopes: Floats

    def least(self, b: Floats) -> Floats:
        """The least y - b x of all points, for slopes b [n]: the highest line of that slope that is above none."""
        k = np.searchsorted(self.slopes, b)
        return self.y[k] - b * self.x[k]


def lines(x: Floats, low: Floats, high: Floats, steepest: float) -> Lines | None:
    """The lines with slopes of up to `steepest` through the brackets from `low` to `high` at `x` [n], ascending.

    None where there is none. Seen as a function of the slope, the room between the lowest line above all `low` and the
    highest below all `high` is concave, with its corners at the slopes of the two hulls: O(n log n) in all. Where
    delays are exponential over a least one that is the same both ways, the middle line is the most likely one.
    """
    above, below = hull(x, high), hull(x, -low)
    corners = np.concatenate([above.slopes, -below.slopes, [-steepest, steepest]])
    slopes = np.unique(np.clip(corners, -steepest, steepest))
    room = above.least(slopes) + below.least(-slopes)
    if (most := room.max()) < 0:
        return None
    best = slopes[room >= most - 1e-9 * max(most, 1.0)]
    b = (best[0] + best[-1]) / 2
    top, bottom = (float(found[0]) for found in (above.least(np.array([b])), -below.least(np.array([-b]))))
    steep = _roots(slopes, room)
    return Lines(
        ((top + bottom) / 2, float(b)),
        float(most) / 2,
        _extreme(above, steep, 1.0),
        _extreme(below, -steep[::-1], -1.0),
    )


def hull(x: Floats, y: Floats) -> Hull:
    """The lower convex hull of points with `x` [n] ascending."""
    first = np.flatnonzero(np.diff(x, prepend=-np.inf) > 0)
    x, y = x[first], np.minimum.reduceat(y, first)
    while len(x) > 2:
        slopes = np.diff(y) / np.diff(x)
        corner = np.concatenate([[True], slopes[:-1] < slopes[1:], [True]])
        many = len(x)
        x, y = x[corner], y[corner]
        if len(x) > (1 - WORTH) * many:
            break
    keep: list[int] = []
    points = list(zip(x.tolist(), y.tolist(), strict=True))
    for k in range(len(points)):
        while len(keep) > 1 and _turns_down(points[keep[-2]], points[keep[-1]], points[k]):
            keep.pop()
        keep.append(k)
    x, y = x[keep], y[keep]
    return Hull(x, y, np.diff(y) / np.diff(x))


def _turns_down(one: tuple[float, float], two: tuple[float, float], three: tuple[float, float]) -> bool:
    return (two[1] - one[1]) * (three[0] - two[0]) >= (three[1] - two[1]) * (two[0] - one[0])


def _roots(slopes: Floats, room: Floats) -> Floats:
    """The least and the greatest slope that leave room, between which it is linear from one of `slopes` to the next."""
    there = np.flatnonzero(room >= 0)
    ends = []
    for inside, outside in ((there[0], there[0] - 1), (there[-1], there[-1] + 1)):
        if not 0 <= outside < len(slopes):
            ends.append(slopes[inside])
        else:
            share = room[inside] / (room[inside] - room[outside])
            ends.append(slopes[inside] + share * (slopes[outside] - slopes[inside]))
    return np.array(ends)


def _extreme(edge: Hull, steep: Floats, sign: float) -> Floats:
    """The lines (a, b) along a hull with slopes between those of `steep` [2]; `sign` -1: the hull was upside down."""
    between = edge.slopes[(edge.slopes > steep[0]) & (edge.slopes < steep[1])]
    b = np.concatenate([steep[:1], between, steep[1:]])
    return sign * np.stack([edge.least(b), b], axis=1)
