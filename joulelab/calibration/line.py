"""A straight line through points that err in both coordinates, with known covariances."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from joulelab.calibration.integrals import Floats

ITERATIONS = 100
CLOSE = 1e-14


class Line(NamedTuple):
    """y = offset + slope * x; `covariance` [2, 2] is that of (slope, offset); `chi_square` has n - 2 degrees."""

    slope: float
    offset: float
    covariance: Floats
    chi_square: float


def york(x: Floats, y: Floats, covariance: Floats) -> Line:
    """The line of greatest likelihood through points (`x`, `y`) [n] with `covariance` [n, 2, 2] of each.

    York, Evensen, Lopez Martinez, De Basabe Delgado: Unified equations for the slope, intercept, and standard errors of
    the best straight line. American Journal of Physics 72 (2004), doi 10.1119/1.1632486, equations 13.
    """
    vx, vy, vxy = covariance[:, 0, 0], covariance[:, 1, 1], covariance[:, 0, 1]
    slope = float(np.polyfit(x, y, 1)[0])
    for _ in range(ITERATIONS):
        before = slope
        weight = 1 / (vy + slope**2 * vx - 2 * slope * vxy)
        mean_x, mean_y = np.average([x, y], axis=1, weights=weight)
        u, v = x - mean_x, y - mean_y
        beta = weight * (u * vy + slope * v * vx - (slope * u + v) * vxy)
        slope = float(np.sum(weight * beta * v) / np.sum(weight * beta * u))
        if abs(slope - before) <= CLOSE * abs(slope):
            break
    offset = float(mean_y - slope * mean_x)
    center = float(np.average(mean_x + beta, weights=weight))
    var_slope = float(1 / np.sum(weight * (mean_x + beta - center) ** 2))
    across = -center * var_slope
    errors = np.array([[var_slope, across], [across, 1 / weight.sum() + center**2 * var_slope]])
    return Line(slope, offset, errors, float(np.sum(weight * (y - offset - slope * x) ** 2)))
