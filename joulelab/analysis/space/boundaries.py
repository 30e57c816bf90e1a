"""Where one region ends and another begins, to the token: bisection between points of a map that differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from joulelab.analysis.space.costs import DeviceCosts
from joulelab.analysis.space.regions import Costs, Regions, best_of
from joulelab.calibration.integrals import Ints

AXES = ("history", "prompt", "output")


def boundaries(found: Regions, costs: Sequence[DeviceCosts]) -> pd.DataFrame:
    """A row for every pair of neighbouring points of known and different label.

    `along` is the axis on which they are neighbours, `history`, `prompt`, `output` the first point that is no longer
    of the device `below`; `above` is its device, None where none keeps to the cap. Where the label changes more often
    between the two, it is one of these changes.
    """
    judged = Costs(costs, found.aim)
    names = [*found.devices, None]  # the last is NONE's
    rows = []
    for axis, first, last in _pairs(found):
        below = found.label[tuple(first)]
        low, high = (
            np.stack([getattr(found.grid, name)[index] for name, index in zip(AXES, places, strict=True)])
            for places in (first, last)
        )
        at = _bisected(judged, low, high, axis, below)
        above = best_of(judged.at(*at)) if at.size else below
        rows.append(
            pd.DataFrame(dict(zip(AXES, at, strict=True))).assign(
                along=AXES[axis], below=[names[n] for n in below], above=[names[n] for n in above]
            )
        )
    return pd.concat(rows, ignore_index=True)


def _pairs(found: Regions) -> Iterator[tuple[int, Ints, Ints]]:
    """Along prompt and output the places [3, pairs] of neighbours that differ, the lower one first."""
    for axis in (1, 2):
        low, high = (np.take(found.label, range(*ends), axis) for ends in _neighbours(found.grid.shape[axis]))
        seen = np.minimum(low, high) >= -1
        places = np.stack(np.nonzero((low != high) & seen))
        step = np.eye(3, dtype=np.int64)[axis][:, None]
        yield axis, places, places + step


def _neighbours(n: int) -> tuple[tuple[int, int], tuple[int, int]]:
    return (0, n - 1), (1, n)


def _bisected(judged: Costs, low: Ints, high: Ints, axis: int, below: Ints) -> Ints:
    """The first points [3, pairs] along `axis` whose label is not `below`, between `low`, which has it, and `high`."""
    while (apart := np.flatnonzero(high[axis] - low[axis] > 1)).size:
        middle = (low[:, apart] + high[:, apart]) // 2
        same = best_of(judged.at(*middle)) == below[apart]
        low[:, apart[same]] = middle[:, same]
        high[:, apart[~same]] = middle[:, ~same]
    return high
