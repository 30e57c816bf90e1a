"""The shape of the power that a sensor looks at: steps with the load, or what a faster meter read of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import signal, sparse

from joulelab.calibration.integrals import Floats, Ints
from joulelab.calibration.kernel import TINY_S, Timing, shares


@dataclass(frozen=True)
class Steps:
    """Power that is constant in each of m + 1 stretches, cut by `edges_s` [m], and the same in all of one `label`."""

    edges_s: Floats
    label: Ints

    def shown(self, t_s: Floats, timing: Timing) -> Floats:
        alike = sparse.csr_array((np.ones(len(self.label)), (np.arange(len(self.label)), self.label)))
        return np.asarray((shares(t_s, self.edges_s, timing) @ alike).toarray())


@dataclass(frozen=True)
class Curve:
    """Power [n] measured by a faster meter, the mean over each of n spans of `step_s`, the first from `start_s` on.

    Before and after them it stands still.
    """

    start_s: float
    step_s: float
    watts: Floats

    @classmethod
    def through(cls, t_s: Floats, watts: Floats, step_s: float) -> Curve:
        """The piecewise-linear signal through readings, averaged over steps."""
        joules = np.concatenate([[0.0], np.cumsum((watts[1:] + watts[:-1]) / 2 * np.diff(t_s))])
        grid = np.arange(t_s[0], t_s[-1], step_s)
        return cls(float(t_s[0]), step_s, np.diff(np.interp(grid, t_s, joules)) / step_s)

    def shown(self, t_s: Floats, timing: Timing) -> Floats:
        """A constant, and the power through the sensor's low-pass and window."""
        window_s = max(timing.window_s, self.step_s)
        end = t_s - timing.delay_s + (window_s - timing.window_s) / 2
        joules = self._joules(timing.lowpass_s)
        seen = (self._at(joules, end) - self._at(joules, end - window_s)) / window_s
        return np.column_stack([np.ones_like(t_s), seen])

    def _joules(self, lowpass_s: float) -> Floats:
        """The energy up to the end of each step, after a low-pass, which lacks its constant times what it shows."""
        joules = np.cumsum(self.watts) * self.step_s
        if lowpass_s > TINY_S:
            kept = np.exp(-self.step_s / lowpass_s)
            low, _ = signal.lfilter([1 - kept], [1, -kept], self.watts, zi=[kept * self.watts[0]])
            joules -= lowpass_s * (low - self.watts[0])
        return np.concatenate([[0.0], joules])

    def _at(self, joules: Floats, t_s: Floats) -> Floats:
        steps = (t_s - self.start_s) / self.step_s
        inside = np.interp(steps, np.arange(len(joules)), joules)
        before, after = np.minimum(steps, 0.0), np.maximum(steps - len(self.watts), 0.0)
        return np.asarray(inside + (before * self.watts[0] + after * self.watts[-1]) * self.step_s)
