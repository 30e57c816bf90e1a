"""The uncertainty of fitted coefficients: what repeats scatter by, what the form misses, and what errs in common."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from joulelab.calibration.integrals import Floats

LEVEL = 0.95


@dataclass(frozen=True)
class Errors:
    """What is known of the errors of n points: `systematic` [n, m] loads that err alike in all of them; `correlated`
    [n, n], the covariance of what they have in common besides; `repeated` [n], the variances that their repeats show,
    each with so many degrees of freedom `spare` [n] (0 where there was one run, and a variance of 0).
    """

    systematic: Floats
    correlated: Floats
    repeated: Floats
    spare: Floats


@dataclass(frozen=True)
class Uncertainty:
    """The covariance [k, k] of coefficients, half their 95 % intervals [k], and the standard deviation of what the form
    misses in a point.
    """

    covariance: Floats
    half: Floats
    misfit: float


def uncertainty(X: Floats, y: Floats, errors: Errors) -> Uncertainty:
    """Of the least-squares coefficients of `y` [n] on `X` [n, k], all divided by what errors are relative to.

    What the form misses shows as residuals beyond what repeats and common errors explain: a variance that is the same
    for all points (lack of fit; Draper and Smith, Applied Regression Analysis, 2.1). A load shifts the coefficients as
    it shifts the points: a gain that is g too high makes each of them g too high, and no residual shows it.

    The degrees of freedom are Welch and Satterthwaite's (GUM G.4.1).
    """
    n, k = X.shape
    Q, R = np.linalg.qr(X)
    effect, rest = np.linalg.solve(R, Q.T), np.eye(n) - Q @ Q.T
    random = np.diag(errors.repeated) + errors.correlated
    left = np.sum((rest @ y) ** 2) / (n - k)
    misfit = max(left - np.trace(rest @ random) / (n - k), 0.0)
    shifts = effect @ errors.systematic
    covariance = effect @ (random + misfit * np.eye(n)) @ effect.T + shifts @ shifts.T
    if misfit:
        doubt = (left * np.sum(effect**2, axis=1)) ** 2 / (n - k)
    else:
        doubt = (effect**2 * errors.repeated) ** 2 @ (1 / np.maximum(errors.spare, 1))
    with np.errstate(over="ignore"):
        dof = np.maximum(np.diag(covariance) ** 2 / np.maximum(doubt, np.finfo(float).tiny), 1.0)
    half = stats.t.ppf((1 + LEVEL) / 2, dof) * np.sqrt(np.diag(covariance))
    return Uncertainty(covariance, half, float(np.sqrt(misfit)))
