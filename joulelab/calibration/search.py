"""Where the fit of a sensor's timing begins: the best of a grid, since far from the truth there is no way downhill."""

from __future__ import annotations

from itertools import product

import numpy as np
from scipy import linalg

from joulelab.calibration.kernel import Timing
from joulelab.calibration.layout import Layout, Measured
from joulelab.calibration.system import System

FEW = 1000
"""So many readings are enough to begin with."""
WINDOWS = (0.0, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
"""Averaging windows to try, in sensor periods."""
DELAYS = (0.0, 0.5, 1.0, 2.0, 4.0)
"""Delays to try, in sensor periods."""
LEAST = 1e-6


def nearest_timing(measured: Measured, layout: Layout, told: Timing, period_s: float, *, window: bool) -> Timing:
    """The timing that leaves the least of some readings unexplained, `told` or another; windows only where asked."""
    system = System(measured, layout, ()).part(FEW)
    windows = [told.window_s, *(k * period_s for k in WINDOWS)] if window else [told.window_s]
    delays = [told.delay_s, *(k * period_s for k in DELAYS)]
    timings = [told._replace(delay_s=delay, window_s=width) for delay, width in product(delays, windows)]
    return timings[int(np.argmin([_left(system, timing) for timing in timings]))]


def _left(system: System, timing: Timing) -> float:
    """What plain least squares leaves unexplained; what no reading shows counts as next to nothing."""
    unknown = np.zeros(system.layout.level.shape[1])
    seen, watts = system.design(timing, unknown).border, system.measured.watts
    gram = (seen.T @ seen).toarray() + LEAST * np.eye(seen.shape[1])
    return float(np.sum((watts - seen @ linalg.solve(gram, seen.T @ watts, assume_a="pos")) ** 2))
