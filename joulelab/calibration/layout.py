"""What a fit of power is given: readings, what drew power when, and the times that are not known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from joulelab.calibration.integrals import Floats, Ints
from joulelab.calibration.kernel import Columns, Timing


class Measured(NamedTuple):
    """Readings [n] of power [W], each taken at `t_s`.

    `window_s` [n]: the averaging window of each where it has one of its own (the mean power between two updates of an
    energy counter). `floor_u_w`: readings are never better than this, the resolution's or the stated noise.
    """

    t_s: Floats
    watts: Floats
    window_s: Floats | None = None
    floor_u_w: float = 0.0

    def only(self, rows: NDArray[Any]) -> Measured:
        """Some of the readings."""
        window = None if self.window_s is None else self.window_s[rows]
        return self._replace(t_s=self.t_s[rows], watts=self.watts[rows], window_s=window)


@dataclass(frozen=True)
class Layout:
    """What drew power when: m + 1 stretches of time, cut by `edges_s` [m], ascending.

    Their powers are `level` [m + 1, c] @ levels, and they rise by `rise` [m + 1, s] @ rises from begin to end, which
    are N(0, (`SHAPE_REL` x power)^2) beforehand. Those that rise also bend in the middle, all of a `kind` [m + 1] by
    one share of their power, N(0, `SHAPE_REL`^2) beforehand. The power of a stretch also deviates from that by a part
    of its own, whose relative standard deviation all stretches of its kind share (-1: it neither bends nor deviates).
    """

    edges_s: Floats
    level: sparse.csr_array
    rise: sparse.csr_array
    kind: Ints

    @classmethod
    def of_classes(cls, edges_s: Floats, label: Ints, sloped: Sequence[int] = (), kind: Ints | None = None) -> Layout:
        """Stretches of one `label` [m + 1], 0 and up, have one power; those whose label is `sloped` also one rise."""
        level = sparse.csr_array((np.ones(len(label)), (np.arange(len(label)), label)))
        none = np.full(len(label), -1, np.int64)
        return cls(edges_s, level, level[:, list(sloped)].tocsr(), none if kind is None else kind)

    @property
    def kinds(self) -> int:
        return int(self.kind.max(initial=-1)) + 1

    def powers(self, seen: Columns, levels: Floats) -> sparse.csr_array:
        """What those who have `seen` the stretches so are shown of the levels, rises and bends [c + s + kinds], where
        the levels are about `levels`.
        """
        bending = np.flatnonzero((self.kind >= 0) & (np.diff(self.rise.indptr) > 0))
        power = np.abs(self.level @ levels)[bending]
        bend = sparse.csr_array((power, (bending, self.kind[bending])), (len(self.kind), self.kinds))
        return sparse.csr_array(sparse.hstack([seen.level @ self.level, seen.rise @ self.rise, seen.bend @ bend]))

    def between(self, begin_s: float, end_s: float) -> Layout:
        """The stretches that lie in a span of time, or into which it reaches."""
        first, last = np.searchsorted(self.edges_s, (begin_s, end_s))
        kept = slice(first, last + 1)
        return Layout(self.edges_s[first:last], self.level[kept], self.rise[kept], self.kind[kept])


Time = Literal["age_s", "window_s", "lowpass_s", "ramp_s"]
TIMES: tuple[Time, ...] = get_args(Time)


class Free(NamedTuple):
    """A time that is not known: beforehand it is N(`mean`, `u`^2), in seconds; `u` may be infinite.

    `age_s` is delay + window / 2 + lowpass: what steps of the load tell, nearly whatever the averaging is.
    """

    name: Time
    mean: float
    u: float


def times_of(timing: Timing) -> dict[str, float]:
    age_s = timing.delay_s + timing.window_s / 2 + timing.lowpass_s
    return {"age_s": age_s, "window_s": timing.window_s, "lowpass_s": timing.lowpass_s, "ramp_s": timing.ramp_s}


def timing_of(times: dict[str, float]) -> Timing:
    window_s, lowpass_s = times["window_s"], times["lowpass_s"]
    return Timing(times["age_s"] - window_s / 2 - lowpass_s, window_s, lowpass_s, times["ramp_s"])


def allowed(times: dict[str, float]) -> dict[str, float]:
    """No average is over less than nothing."""
    return {name: time if name == "age_s" else max(time, 0.0) for name, time in times.items()}
