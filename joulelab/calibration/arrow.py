"""Least squares whose normal equations are an arrow: many unknowns that only touch their neighbours, and a border."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg, sparse

from joulelab.calibration.integrals import Floats


@dataclass(frozen=True)
class Arrow:
    """The solution for the `border` [c] and the `inside` [m] of unknowns, each of the latter N(0, 1) beforehand.

    `band` [b + 1, m] is the lower Cholesky factor of the inside's normal equations, `through` [m, c] what the inside
    gives way when the border moves, `factor` [c, c] with factor @ factor.T the covariance of the border.
    """

    border: Floats
    inside: Floats
    band: Floats
    through: Floats
    factor: Floats


def solve(y: Floats, border: sparse.csr_array, inside: sparse.csr_array, precision: Floats, pull: Floats) -> Arrow:
    """Solve `y` = `border` @ x + `inside` @ v + N(0, 1), all rows [n] divided by their noise.

    Beforehand v is N(0, 1) and x has the `precision` [c] (0: unknown), and `precision` times its mean is `pull` [c].
    """
    band = linalg.cholesky_banded(_banded(inside), lower=True, check_finite=False)
    cross = (inside.T @ border).toarray()
    through = linalg.cho_solve_banded((band, True), cross, check_finite=False)
    own = (border.T @ border).toarray() + np.diag(precision)
    right, inner = border.T @ y + pull, inside.T @ y
    upper = linalg.cholesky(own - cross.T @ through, check_finite=False)
    x = linalg.cho_solve((upper, False), right - through.T @ inner, check_finite=False)
    v = linalg.cho_solve_banded((band, True), inner, check_finite=False) - through @ x
    factor = linalg.solve_triangular(upper, np.eye(len(x)), check_finite=False)
    return Arrow(x, v, band, through, factor)


def _banded(inside: sparse.csr_array) -> Floats:
    """The lower diagonals of the inside's normal equations, its prior included."""
    gram = sparse.coo_array(inside.T @ inside)
    below = gram.row >= gram.col
    row, column, value = gram.row[below], gram.col[below], gram.data[below]
    band = np.zeros((int((row - column).max(initial=0)) + 1, gram.shape[0]))
    band[row - column, column] = value
    band[0] += 1.0
    return band
