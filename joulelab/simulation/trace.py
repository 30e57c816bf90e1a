"""The true power over time, piecewise linear, with its exact integral."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from joulelab.timebase import SECOND

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
KEEP = 1024
"""So many knots may be out of use before they are dropped."""
FADED = 20.0
"""Time constants after which a low-pass has forgotten: e^-20 is 2e-9."""


class Trace:
    """Knots of time [ns on the bench clock], power [W] and energy since the first knot [J].

    Before the first knot the power was what it is there; that is what a sensor's window sees that reaches back further.
    """

    def __init__(self, t_ns: int, watts: float) -> None:
        self._t, self._watts, self._joules = [t_ns], [watts], [0.0]
        self._arrays: tuple[Ints, Floats, Floats] | None = None

    @property
    def end_ns(self) -> int:
        return self._t[-1]

    def append(self, t_ns: int, watts: float) -> None:
        """The next knot, later than the last."""
        seconds = (t_ns - self._t[-1]) / SECOND
        self._joules.append(self._joules[-1] + (self._watts[-1] + watts) / 2 * seconds)
        self._t.append(t_ns)
        self._watts.append(watts)
        self._arrays = None

    def cut(self, t_ns: int) -> None:
        """Take back what lies after `t_ns`, without a change to what lies before."""
        at = np.array([t_ns])
        watts, joules = float(self.power(at)[0]), float(self.energy(at)[0])
        kept = int(np.searchsorted(self._columns()[0], t_ns))
        self._t[kept:], self._watts[kept:], self._joules[kept:] = [t_ns], [watts], [joules]
        self._arrays = None

    def drop_before(self, t_ns: int) -> None:
        """Forget the knots that nothing from `t_ns` on needs."""
        unused = int(np.searchsorted(self._columns()[0], t_ns, side="right")) - 1
        if unused > KEEP:
            for column in (self._t, self._watts, self._joules):
                del column[:unused]
            self._arrays = None

    def power(self, t_ns: Ints | Floats) -> Floats:
        """Power [W] at times [n]."""
        t, watts, _ = self._columns()
        return np.interp(t_ns, t, watts)

    def energy(self, t_ns: Ints | Floats) -> Floats:
        """Energy [J] since the start of the trace up to times [n], none of them after its end."""
        t, watts, joules = self._columns()
        k = np.clip(np.searchsorted(t, t_ns, side="right") - 1, 0, max(len(t) - 2, 0))
        x = (t_ns - t[k]) / SECOND
        slope = self._slopes()[k] * (x > 0)
        return joules[k] + watts[k] * x + slope / 2 * x**2

    def lowpassed(self, t_ns: Ints | Floats, constant_s: float) -> Floats:
        """What a first-order low-pass shows of the power at times [n], exact to e^-FADED of what went before.

        Power is a sum of slopes that begin at knots, each of which shows as slope * (x - c + c * exp(-x / c)).
        """
        t, _, _ = self._columns()
        slopes = self._slopes()
        first = np.searchsorted(t, t_ns - FADED * constant_s * SECOND)
        many = np.searchsorted(t, t_ns, side="right") - first
        row = np.repeat(np.arange(len(t_ns)), many)
        knot = np.arange(many.sum()) - np.repeat(np.cumsum(many) - many - first, many)
        bends = np.diff(slopes, prepend=0.0, append=0.0)[knot]
        recent = np.bincount(row, bends * -np.expm1((t[knot] - t_ns[row]) / (constant_s * SECOND)), len(t_ns))
        before = np.where(first > 0, slopes[first - 1], 0.0)
        return self.power(t_ns) - constant_s * (before + recent)

    def _columns(self) -> tuple[Ints, Floats, Floats]:
        if self._arrays is None:
            self._arrays = (np.array(self._t), np.array(self._watts), np.array(self._joules))
        return self._arrays

    def _slopes(self) -> Floats:
        t, watts, _ = self._columns()
        return np.diff(watts) / (np.diff(t) / SECOND) if len(t) > 1 else np.zeros(1)
