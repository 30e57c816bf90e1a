"""The cost of one model over a whole grid of (history, prompt, output), in two additions a point.

A decode is a path along the context: pass after pass the cache grows by a token. So what it costs beyond its first pass
is the difference of one function of the context, a table, at its two ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from joulelab.analysis.modelling.models import Model
from joulelab.calibration.integrals import Floats, Ints


@dataclass(frozen=True)
class Grid:
    """The axes, in tokens: `history` [H], `prompt` [P] and `output` [O], each in rising order."""

    history: Ints
    prompt: Ints
    output: Ints

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self.history), len(self.prompt), len(self.output)

    @cached_property
    def last(self) -> Ints:
        """How many tokens the last pass attends [P, O] where there is no history."""
        return np.asarray(self.prompt[:, None] + self.output - 1)

    def share(self, where: NDArray[np.bool_]) -> float:
        """The share of the plane in which `where` [P, O] is true, on logarithmic axes."""
        weight = _log_widths(self.prompt)[:, None] * _log_widths(self.output)
        return float(weight[where].sum() / weight.sum())


class Surface:
    """One model over one grid, a history at a time; equal to what `Model.predict` says of each point."""

    def __init__(self, model: Model, grid: Grid) -> None:
        history = grid.history[:, None]
        first = history + grid.prompt + 1
        longest = int(grid.history[-1] + max(grid.last[-1, -1], grid.prompt[-1] + 1))
        self._grid = grid
        self._undecoded = model.predict(history, grid.prompt, 1)
        self._path = np.concatenate([[0.0, 0.0], model.predict(0, 1, np.arange(2, longest + 1))])
        self._start = model.predict(history, grid.prompt, 2) - self._path[first]

    def at(self, number: int) -> Floats:
        """The cost [P, O] at the history of that number in the grid [s or J]."""
        found = self._path[self._grid.history[number] :].take(self._grid.last)
        found += self._start[number][:, None]
        if self._grid.output[0] == 1:
            found[:, 0] = self._undecoded[number]
        return found


def _log_widths(axis: Ints) -> Floats:
    return np.gradient(np.log2(axis)) if len(axis) > 1 else np.ones(1)
