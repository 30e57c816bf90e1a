"""What a fit minimises: squares of relative errors, squares that grow no further for outliers, or the MAPE itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from joulelab.calibration.integrals import Floats

Loss = Literal["wls", "huber", "quantile"]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Fit:
    """How coefficients are found: none is negative but those that may be `signed` [k]."""

    signed: Bools
    loss: Loss = "wls"

    def __call__(self, X: Floats, y: Floats) -> Floats:
        """The coefficients [k] of a design [n, k]."""
        if self.loss == "quantile":
            return _quantile(X, y, self.signed)
        size = scale(X, y)
        weight = 1 / size if self.loss == "wls" else np.sqrt(_huber(X, y, size, self.signed)) / size
        return nonnegative(X * weight[:, None], y * weight, self.signed)


def solve(X: Floats, y: Floats) -> Floats:
    """The coefficients of either sign that minimise the squares of relative errors."""
    return Fit(np.ones(X.shape[1], np.bool_))(X, y)


def scale(X: Floats, y: Floats) -> Floats:
    """What errors are relative to [points]: the values of a first fit relative to the observations.

    Dividing by the observations themselves favours those that came out low: with noise of relative variance v the fit
    would lie 2v too low. They serve where the first fit is not positive everywhere.
    """
    fitted = X @ np.linalg.lstsq(X / y[:, None], np.ones_like(y), rcond=None)[0]
    return fitted if fitted.min() > 0 else y


def nonnegative(X: Floats, y: Floats, signed: Bools) -> Floats:
    """Least squares with bounds, by Lawson and Hanson's active set (SciPy's nnls); a signed term is two of them."""
    length = np.linalg.norm(X, axis=0)
    length = np.where(length > 0, length, 1.0)
    Q, R = np.linalg.qr(X / length)
    both, _ = optimize.nnls(np.concatenate([R, -R[:, signed]], axis=1), Q.T @ y)
    beta = both[: len(signed)]
    beta[signed] -= both[len(signed) :]
    return np.asarray(beta / length)


def _huber(X: Floats, y: Floats, size: Floats, signed: Bools) -> Floats:
    """The weights [n] that Huber's norm gives relative errors (statsmodels' RLM, scaled by their median deviation)."""
    from statsmodels.robust.robust_linear_model import RLM

    used = signed | (nonnegative(X / size[:, None], y / size, signed) > 0)
    found = RLM(y / size, X[:, used] / size[:, None]).fit()
    return np.asarray(found.weights)


def _quantile(X: Floats, y: Floats, signed: Bools) -> Floats:
    """The least mean absolute percentage error, as a linear program by HiGHS.

    It is a median regression with weights 1/y (de Myttenaere et al., arXiv 1605.02541): beta and the errors' two sides.
    """
    n, k = X.shape
    length = np.linalg.norm(X / y[:, None], axis=0)
    length = np.where(length > 0, length, 1.0)
    sides = np.concatenate([X / y[:, None] / length, np.eye(n), -np.eye(n)], axis=1)
    bounds = [(None if free else 0, None) for free in signed] + [(0, None)] * (2 * n)
    found = optimize.linprog(np.r_[np.zeros(k), np.ones(2 * n)], A_eq=sides, b_eq=np.ones(n), bounds=bounds)
    assert found.x is not None, found.message
    return np.asarray(found.x[:k] / length)
