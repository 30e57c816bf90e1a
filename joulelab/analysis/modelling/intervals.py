"""The uncertainty of fitted coefficients: what repeats scatter by, what the form misses, and what errs in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import sparse, stats

from joulelab.calibration.integrals import Floats

LEVEL = 0.95
RESAMPLES = 200


@dataclass(frozen=True)
class Errors:
    """What is known of the errors of n points: `systematic` [n, m] loads that err alike in all of them; `shared`
    [n, factors], whose product with its transpose is the covariance of what they have in common besides; `repeated`
    [n], the variances that their repeats show, each with so many degrees of freedom `spare` [n] (0 where there was one
    run, and a variance of 0).
    """

    systematic: Floats
    shared: Floats | sparse.csr_array
    repeated: Floats
    spare: Floats

    def relative(self, size: Floats) -> Errors:
        """The same divided by what errors are relative to [n]."""
        shared = sparse.csr_array(sparse.diags_array(1 / size) @ sparse.csr_array(self.shared))
        return Errors(self.systematic / size[:, None], shared, self.repeated / size**2, self.spare)


@dataclass(frozen=True)
class Uncertainty:
    """The covariance [k, k] of coefficients, half their 95 % intervals [k], and the standard deviation of what the form
    misses in a point; up to `unseen` it might miss without showing: one standard error of the residuals' variance.
    """

    covariance: Floats
    half: Floats
    misfit: float
    unseen: float


def uncertainty(X: Floats, y: Floats, errors: Errors, sought: int = 0) -> Uncertainty:
    """Of the least-squares coefficients of `y` [n] on `X` [n, k], all divided by what errors are relative to.

    What the form misses shows as residuals beyond what repeats and common errors explain: a variance that is the same
    for all points (lack of fit; Draper and Smith, Applied Regression Analysis, 2.1). A load shifts the coefficients as
    it shifts the points: a gain that is g too high makes each of them g too high, and no residual shows it.

    Where `sought` numbers more were found from the same points, residuals are as much too small. The degrees of freedom
    are Welch and Satterthwaite's (GUM G.4.1).
    """
    n, k = X.shape
    Q, R = np.linalg.qr(X)
    effect, leverage = np.linalg.solve(R, Q.T), np.sum(Q**2, axis=1)
    spare = max(n - k - sought, 1)
    left = np.sum((y - Q @ (Q.T @ y)) ** 2) / spare
    factors = sparse.csr_array(errors.shared)
    common = factors.T @ Q
    seen = errors.repeated @ (1 - leverage) + np.sum(factors.data**2) - np.sum(common**2)
    misfit = max(left - seen / (n - k), 0.0)
    shifts, together = effect @ errors.systematic, np.linalg.solve(R, common.T)
    covariance = (effect * (errors.repeated + misfit)) @ effect.T + together @ together.T + shifts @ shifts.T
    if misfit:
        doubt = (left * np.sum(effect**2, axis=1)) ** 2 / spare
    else:
        doubt = (effect**2 * errors.repeated) ** 2 @ (1 / np.maximum(errors.spare, 1))
    with np.errstate(over="ignore"):
        dof = np.maximum(np.diag(covariance) ** 2 / np.maximum(doubt, np.finfo(float).tiny), 1.0)
    half = stats.t.ppf((1 + LEVEL) / 2, dof) * np.sqrt(np.diag(covariance))
    return Uncertainty(covariance, half, float(np.sqrt(misfit)), float(np.sqrt(left * np.sqrt(2 / spare))))


def resampled(X: Floats, y: Floats, fit: Callable[[Floats, Floats], Floats], systematic: Floats) -> Floats:
    """The covariance [k, k] of coefficients that `fit` finds with bounds or another norm, where normal theory does not
    hold: of fits to what it predicts plus its residuals drawn with replacement, scaled up for the coefficients that it
    found, and of the `systematic` loads [n, m]. Points drawn instead, of which a few repeat, would tell less apart.
    """
    n, k = X.shape
    best = fit(X, y)
    residuals = (y - X @ best) * np.sqrt(n / max(n - k, 1))
    draws = np.random.default_rng(0).choice(residuals, (RESAMPLES, n))
    found = np.array([fit(X, X @ best + draw) for draw in draws])
    shifts = np.array([fit(X, y + load) - best for load in systematic.T])
    return np.asarray(np.cov(found, rowvar=False).reshape(k, k) + shifts.T @ shifts)


def clustered(X: Floats, y: Floats, systematic: Floats) -> Floats:
    """The covariance [k, k] of coefficients from residuals alone, however much they differ in size, and of the
    `systematic` loads [n, m]: cluster-robust (statsmodels; Liang and Zeger, Biometrika 73, 1986), where each point is
    the mean of a cluster.
    """
    import statsmodels.api as sm

    found = sm.OLS(y, X).fit(cov_type="cluster", cov_kwds={"groups": np.arange(len(y))})
    shifts = np.linalg.pinv(X) @ systematic
    return np.asarray(found.cov_params() + shifts @ shifts.T)
